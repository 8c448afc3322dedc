"""The lists of docs/taking-away.md, read from the page and done to a folder, so that page and test cannot differ."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
ROW = re.compile(r"^\| (`[^|]+) \| (.+) \|$", re.MULTILINE)


class Part(NamedTuple):
    """What a section of the page says: what to delete, and what to take out of which files, as (files, kind, names)."""

    title: str
    deleted: list[str]
    taken: list[tuple[list[str], str, list[str]]]


def read(page: Path) -> dict[str, Part]:
    """Each section of the page that has a list, by its title."""
    found = {}
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        deleted = re.search(r"^Delete (.+?)\.$", section, re.MULTILINE | re.DOTALL)
        if deleted is None:
            continue
        taken = [(code(files), *one) for files, items in ROW.findall(section) for one in kinds_and_names(items)]
        found[title] = Part(title, code(deleted[1]), taken)
    return found


def code(text: str) -> list[str]:
    """The pieces of code in a Markdown text."""
    pieces = [piece for _, piece in CODE.findall(text)]
    return [piece[1:-1] if piece[0] == piece[-1] == " " else piece for piece in pieces]


def kinds_and_names(items: str) -> list[tuple[str, list[str]]]:
    """What a cell of the table takes out: ``the target `a`; the lines with `b` `` and so on."""
    names = iter(code(items))
    masked = CODE.sub("`", items).split("; ")  # a name may hold a semicolon
    return [(one.partition("`")[0].strip(), [next(names) for _ in range(one.count("`"))]) for one in masked]


def take(folder: Path, part: Part) -> None:
    """Do to a folder what the page says of a part.

    Raises:
        AssertionError: something is not where the page says, or is there too often.
    """
    for name in part.deleted:
        gone = folder / name
        assert gone.exists(), f"{part.title}: there is no {name} to delete"
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    for patterns, kind, names in part.taken:
        assert kind in KINDS, f"{part.title}: {kind!r} is none of {', '.join(KINDS)}"
        paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
        for words in [names] if kind == "instead of" else [[name] for name in names]:
            found = sum(change(path, KINDS[kind], words) for path in paths)
            what = f"{part.title}: {kind} `{words[0]}` in {', '.join(patterns)}: found {found} times"
            assert found == 1 or (found > 1 and kind in SEVERAL), what


def change(path: Path, how: Callable[..., tuple[str, int]], words: list[str]) -> int:
    """How often something was found in a file, and taken out."""
    after, times = how(path.read_text(encoding="utf-8"), *words)
    if times:
        path.write_text(after, encoding="utf-8")
    return times


def text(content: str, words: str, instead: str = "") -> tuple[str, int]:
    """Without some words, or with others in their place; where the page has a space, a line may end."""
    pattern = r"(?: |\n *)".join(re.escape(word) for word in words.split(" "))
    return re.subn(pattern, lambda _: instead, content)


def lines(content: str, name: str) -> tuple[str, int]:
    """Without the lines that hold some words."""
    return re.subn(rf"^.*{re.escape(name)}.*\n", "", content, flags=re.MULTILINE)


def target(content: str, name: str) -> tuple[str, int]:
    """A Makefile without one target and its recipe, also where it is said to be phony."""
    content = re.sub(rf"(?m)^(\.PHONY:.*) {name}(?= |$)", r"\1", content)
    return re.subn(rf"\n{name}:.*\n(?:\t.*\n)*(?=\n|\Z)", "", content)


def key(content: str, name: str) -> tuple[str, int]:
    """YAML without a key and all that is below it."""
    return without_blocks(content, lambda rows, at: rows[at].lstrip().startswith(f"{name}:"))


def job(content: str, name: str) -> tuple[str, int]:
    """A workflow without a job, and without its name in what other jobs wait for."""
    content, found = without_blocks(content, lambda rows, at: rows[at].startswith(f"  {name}:"))
    content = re.sub(rf"(?m)^(    needs: \[.*?)(?:, {name}(?=[,\]])|(?<=\[){name}, )", r"\1", content)
    return content, found


def item(content: str, words: str) -> tuple[str, int]:
    """YAML without the innermost entries of lists that hold some words."""

    def holds(rows: list[str], at: int) -> bool:
        return rows[at].lstrip().startswith("- ") and words in "".join(rows[at : block_end(rows, at)])

    def innermost(rows: list[str], at: int) -> bool:
        return holds(rows, at) and not any(holds(rows, row) for row in range(at + 1, block_end(rows, at)))

    return without_blocks(content, innermost)


def without_blocks(content: str, begins: Callable[[list[str], int], bool]) -> tuple[str, int]:
    """YAML without the blocks that begin so, and how many there were."""
    rows, kept, at, found = content.splitlines(keepends=True), [], 0, 0
    while at < len(rows):
        if begins(rows, at):
            at, found = block_end(rows, at), found + 1
        else:
            kept.append(rows[at])
            at += 1
    return re.sub(r"\n+\Z", "\n", "".join(kept)), found


def block_end(rows: list[str], at: int) -> int:
    """The row after a block of YAML: all that is indented deeper than its first row, and the empty rows after a key."""
    indent = len(rows[at]) - len(rows[at].lstrip(" "))
    end = at + 1
    while end < len(rows) and (not rows[end].strip() or len(rows[end]) - len(rows[end].lstrip(" ")) > indent):
        end += 1
    while end - 1 > at and not rows[end - 1].strip() and rows[at].lstrip().startswith("- "):
        end -= 1  # what is between two groups of entries stays
    return end


def function(content: str, name: str) -> tuple[str, int]:
    """Python without a function, its decorators and the blank lines before it."""
    rows, found = content.splitlines(keepends=True), 0
    for node in reversed(ast.parse(content).body):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
            while first and not rows[first - 1].strip():
                first -= 1
            del rows[first : node.end_lineno]
            found += 1
    return "".join(rows), found


def stage(content: str, name: str) -> tuple[str, int]:
    """A Dockerfile without a stage and the comment above it."""
    return re.subn(rf"^(?:#.*\n)*FROM .* AS {name}\n(?:.*\n)*?(?=(?:#.*\n)*FROM )", "", content, flags=re.MULTILINE)


def section(content: str, name: str) -> tuple[str, int]:
    """Markdown without a section of the second level."""
    return re.subn(rf"^## {re.escape(name)}\n(?:.*\n)*?(?=## |\Z)", "", content, flags=re.MULTILINE)


KINDS: dict[str, Callable[..., tuple[str, int]]] = {
    "the text": text,
    "each text": text,
    "instead of": text,
    "the line with": lines,
    "the lines with": lines,
    "the target": target,
    "the key": key,
    "the keys": key,
    "the job": job,
    "the step with": item,
    "the steps with": item,
    "the entry with": item,
    "the entries with": item,
    "the function": function,
    "the stage": stage,
    "the section": section,
}
SEVERAL = {"each text", "the lines with", "the keys", "the steps with", "the entries with"}
