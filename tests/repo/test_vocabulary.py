"""One word for one thing: no tracked text, code or help uses a word that the project has given up."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

NEVER = r"(?!)"  # matches nothing


class Word(NamedTuple):
    """A word that was given up, as a pattern of whole words, and what to say instead.

    ``phrases`` are those in which it is right; so is the word in a line that ``context`` matches.
    """

    pattern: str
    instead: str
    phrases: str = NEVER
    context: str = NEVER


class Kept(NamedTuple):
    """Where an old word stays: in the lines that ``line`` matches, of the files that a pattern of ``paths`` matches."""

    paths: str  # patterns with a space between them
    line: str
    reason: str

    def is_about(self, name: str) -> bool:
        """Whether a file is one of those."""
        return any(fnmatch(name, pattern) for pattern in self.paths.split())


# Identifiers are read as words: snake_case and CamelCase are split before the patterns are tried.
WORDS = [
    Word(r"verbs?", "command"),
    Word(r"nouns?", "library, package or folder"),
    Word(r"rooms?", "package or folder", phrases=r"(no|less|more|without|makes?|made|leaves?|is|takes?|needs?) room"),
    Word(r"mend(s|ed|ing)?", "fix or remedy"),
    Word(r"desks?", "what it is: a client, a person's machine"),
    Word(r"hubs?", "what it is: the client of GitHub", phrases=r"(git|docker|event) hubs?"),
    Word(r"(?-i:Line Error)|class Line", "PipelineError, Pipeline"),
    Word(
        r"(the|this) line('s)?",
        "the pipeline",
        # a line of text, or one that is drawn
        phrases=r"(on|in|at|end of|clears|print|read|write) the line"
        r"|the line('s end| of| above| below| number| break| itself| that begins| with| says)",
    ),
    Word(r"promot(e[sdr]?|ing|ions?)", "release or publish (an image), register (in MLflow), become the champion"),
    Word(
        r"reference",
        "champion (the model to beat) or drift reference",
        phrases=r"drift[ .]reference|load reference|heads[./]reference|reference\.safetensors|every reference"
        r"|reference (data|tables|layout|fleet)|--reference|args\.reference",
    ),
    Word(
        r"ship(s|ped|ping)?",
        "release or publish; only the log's segments are shipped",
        context=r"\b(logs?|segments?|records?|shippers?|spools?|sinks?|unsent|quarantined?)\b",
    ),
]


def whole(pattern: str) -> str:
    """A pattern that begins and ends where a word does."""
    return rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])"


ANY = re.compile(whole("|".join(word.pattern for word in WORDS)), re.IGNORECASE)  # most lines hold none of them
LOG = "the whole file is about the log, which is shipped"
DRIFT = "code of the drift reference, the only one that this file knows"
KEPT = [
    Kept("tests/repo/test_vocabulary.py", "", "the list itself"),
    Kept("src/closedloop/log/*", r"(?i)ship", LOG),
    Kept("score/log/*", r"(?i)ship", LOG),
    Kept("score/s*.py score/metrics.py score/README.md", r"(?i)ship", LOG),
    Kept("tests/log/* tests/chaos/* tests/bench/ship_rate.py tests/bench/named_machines.py", r"(?i)ship", LOG),
    Kept("tests/bench/__main__.py", r"ship_rate", "the name of a bench of the log"),
    Kept("tests/bench/*serve.py", r"(?i)shipping", LOG),
    Kept("src/closedloop/heads/* tests/heads/*", r"(?i)reference", DRIFT),
    Kept("*", r"on_inconclusive|\"ship\", \"ask\"|ship or ask", "a value in params.yaml, which old commits hold"),
    Kept(
        "README.md pyproject.toml",
        r"template for shipping",
        "the product's own sentence, where it means the whole loop",
    ),
    Kept("tests/azureml/fake.py", r"[bB]lobReference", "a name in Azure's API"),
    Kept("k8s/components/monitoring/*", r"log_shipped|\"shipped\"", "a metric of the log, and its panel"),
    Kept("k8s/cluster/* tests/repo/test_manifests.py tests/e2e/gateway.py", r"\bverbs\b", "a key of Kubernetes' roles"),
    Kept(
        "Makefile tests/repo/test_make.py", "REFERENCE_COMMIT", "the variable that the code of an old release asks for"
    ),
    Kept(
        "model/common/decisions.py .ci/pipeline/release_facts.py .github/README.md tests/model/*"
        " tests/repo/test_release.py tests/repo/test_rollback_format.py",
        r"[\"`]reference[\"`]|becomes_reference|\breference=\"",
        "a key of decisions, acceptances and releases that were made before the rename, and are still read",
    ),
    Kept(
        ".ci/pipeline/* .github/README.md docs/supply-chain.md tests/repo/test_release.py"
        " tests/repo/test_rollback_format.py",
        r"promote\.yml",
        "who signed the releases that were made before the rename",
    ),
]
# Made by a tool or on purpose, not written by anyone; or words of the adopted fleet, which are its owner's.
UNREAD = (
    *("requirements/*.txt", "tests/bench/peers/*.txt", "tests/golden/requests/*", "tests/golden/feedback/*"),
    *(".ci/tools/*", "tests/e2e/gateway_proxy/*", "data/*", "model/params.yaml", "model/data.lock.json"),
)


def split(text: str) -> str:
    """The text with the words of its identifiers apart: ``LineError`` and ``line_error`` hold ``line``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text)


def old_words(line: str) -> list[tuple[str, str]]:
    """The old words in a line, each with what to say instead."""
    text = split(line)
    found: list[tuple[str, str]] = []
    if not ANY.search(text):
        return found
    for word in WORDS:
        if re.search(word.context, text, flags=re.IGNORECASE):
            continue
        rest = re.sub(whole(word.phrases), "", text, flags=re.IGNORECASE)
        if hit := re.search(whole(word.pattern), rest, flags=re.IGNORECASE):
            found.append((hit[0], word.instead))
    return found


def kept(path: str, line: str, used: set[Kept]) -> bool:
    """Whether an old word may stay in a line. What allows it is added to ``used``."""
    allowing = [one for one in KEPT if one.is_about(path) and re.search(one.line, line)]
    used.update(allowing)
    return bool(allowing)


def scan(root: Path, files: list[Path]) -> tuple[list[str], set[Kept]]:
    """Every old word, as ``file:line: "word": say …``, and the exceptions that were needed."""
    found, used = [], set()
    for path in files:
        name = path.relative_to(root).as_posix()
        content = path.read_bytes()
        if any(fnmatch(name, pattern) for pattern in UNREAD) or b"\0" in content:
            continue
        lines = [name, *content.decode("utf-8", errors="replace").splitlines()]  # a name is line 0
        for number, line in enumerate(lines):
            if (words := old_words(line)) and not kept(name, line, used):
                found += [f'{name}:{number}: "{word}": say {instead}' for word, instead in words]
    return found, used


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("for verb in VERBS:", "verb"),
        ("NOUNS = 1", "NOUNS"),
        ("each room of the house", "room"),
        ("how to mend it", "mend"),
        ("from dev.desk import run", "desk"),
        ("raise github.LineError(x)", "Line Error"),
        ("what the line decides", "the line"),
        ("def test_settings_of_the_line():", "the line"),
        ("make promote", "promote"),
        ("false_promotions", "promotions"),
        ('"becomes_reference": True', "reference"),
        ("better than the reference", "reference"),
        ("REFERENCE_COMMIT", "REFERENCE"),
        ("this commit ships", "ships"),
        ("make ship-plan", "ship"),
    ],
)
def test_a_planted_old_word_is_found(line: str, word: str) -> None:
    assert [word] == [found for found, _ in old_words(line)]


@pytest.mark.parametrize(
    "line",
    [
        "makes room on the disk",
        "a figure on the line meets it, and the line of `kustomize`",
        "GitHub reads it, gitHub too",
        "the drift reference of a bundle",
        "load_reference(folder)",
        "Microsoft's reference data",
        "ranges, gaps, keys and references",
        "a sealed segment is shipped",
        "recommend, amended, adverb, shipper, bedroom, relationship, commander",
    ],
)
def test_another_meaning_is_left_alone(line: str) -> None:
    assert old_words(line) == []


@pytest.fixture(scope="module")
def scanned(root: Path, files: list[Path]) -> tuple[list[str], set[Kept]]:
    """The old words of all files, and the exceptions that were needed."""
    return scan(root, files)


def test_no_file_uses_an_old_word(scanned: tuple[list[str], set[Kept]]) -> None:
    found, _ = scanned
    assert not found, f"{len(found)} old words:\n" + "\n".join(found)


def test_every_exception_is_needed(root: Path, files: list[Path], scanned: tuple[list[str], set[Kept]]) -> None:
    """One that covers nothing any more is to be taken out, or it would hide the next slip.

    A copy may have deleted all files that one is about; that is no slip.
    """
    names = [path.relative_to(root).as_posix() for path in files]
    _, used = scanned
    assert [one for one in KEPT if one not in used and any(one.is_about(name) for name in names)] == []


def test_the_old_signer_is_accepted_in_one_place(root: Path, files: list[Path]) -> None:
    """Releases that were made before the rename were signed by promote.yml."""
    holding = [path.name for path in files if path.is_relative_to(root / ".ci") and b"promote.yml" in path.read_bytes()]
    assert len(holding) == 1
