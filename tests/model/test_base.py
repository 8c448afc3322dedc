"""What CI does to a pull request: the base commit is trained by its own code, and its rules judge."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import closedloop
from model.common.params import load

# The last commit before judge/, report/ and model/common/ took their places: its model.train is one large module beside
# model/champion.py, and its library has features/split.py and judge/report.py.
BEFORE_THE_MOVES = "46b81a9c381d0da911e6c910abad41d76be8929e"
PARTS = ("src", "model", "requirements", "pyproject.toml", ".gitignore")


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    words = ("git", "-C", str(folder), *identity, *words)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def command(
    folder: Path, name: str, *words: str, base: str = "", champion: str = "", on_github: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run one command with the code of the folder, not of the wheel under test."""
    path = os.pathsep.join([str(folder / "src"), str(folder)])
    environment = os.environ | {"PYTHONPATH": path, "BASE_COMMIT": base, "CHAMPION_COMMIT": champion}
    environment |= {"GITHUB_ACTIONS": str(on_github).lower(), "ACT": "", "GITHUB_RUN_ID": "7"} | extra
    words = (sys.executable, "-m", f"model.{name}", *words)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def judge(folder: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run ``evaluate``; without ablations and importance, which another test's runs have."""
    return command(folder, "evaluate", "--quick", **how)


def succeed(folder: Path, *names: str) -> None:
    """Run these commands one after the other; each must succeed."""
    for name in names:
        done = command(folder, name)
        assert done.returncode == 0, done.stderr


def top() -> Path:
    return Path(git(Path(__file__).parent, "rev-parse", "--show-toplevel"))


@pytest.fixture(scope="module")
def copy_checkout(own_the_reference_fleet) -> Callable[[Path], None]:
    """Copy those parts of this checkout that train and judge a model, and give them the reference fleet."""

    def copy(folder: Path) -> None:
        copy_parts(folder)
        own_the_reference_fleet(folder / "model")

    return copy


def copy_parts(folder: Path) -> None:
    listed = git(top(), "ls-files", "--cached", "--others", "--exclude-standard", *PARTS).split()
    for name in listed:
        if (top() / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((top() / name).read_bytes())
    library = Path(closedloop.__file__).parent
    for compiled in library.rglob("__pycache__/*.nb[ic]"):  # compiling takes longer than all else
        copied = folder / "src/closedloop" / compiled.relative_to(library)
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(compiled.read_bytes())


def pin_a_small_fleet(folder: Path) -> None:
    """Pin 12 machines and 90 days."""
    lock = folder / "model/data.lock.json"
    pin = json.loads(lock.read_text())
    pin["parts"][0] |= {"machines": 12, "days": 90}
    lock.write_text(json.dumps(pin))
    succeed(folder, "data")
    refused = command(folder, "validate")
    assert refused.returncode == 1
    assert "make data-pin" in refused.stderr  # the fingerprint is still that of the large fleet
    assert command(folder, "validate", "--pin").returncode == 0


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def copy(copy_checkout, tmp_path_factory):
    """A repository with one commit, this checkout with a small fleet pinned, and that commit's model in build/."""
    folder = tmp_path_factory.mktemp("copy") / "project"
    folder.mkdir()
    copy_checkout(folder)
    pin_a_small_fleet(folder)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "base")
    succeed(folder, "data", "validate", "train", "predict")
    return folder


def test_a_change_meets_the_model_of_its_base_and_an_untouched_commit_is_identical(copy):
    base = git(copy, "rev-parse", "HEAD")
    done = judge(copy, base=base)
    assert done.stdout.startswith("identical: "), done.stderr

    params = copy / "model/params.yaml"
    params.write_text(re.sub(r"(?<=alarms_per_machine_year: )\d+", "3", params.read_text()))
    head = commit(copy, "fewer alarms")
    succeed(copy, "train", "predict")
    done = judge(copy, base=base)
    decision = json.loads((copy / "build/decision.json").read_text())
    assert decision["verdict"] in {"inconclusive", "worse", "better"}, done.stderr
    assert base == decision["champion"]["commit"]
    assert head == decision["challenger"]["commit"]
    assert decision["ci"] is None
    assert decision["champion"]["model_digest"] != decision["challenger"]["model_digest"]
    for name in ("summary.md", "index.html"):
        said = (copy / "build/report" / name).read_text()
        assert "What changed against the champion" in said
        assert re.search(r"anomaly\.alarms_per_machine_year: \d+ → 3\b", said)
        assert re.search(r"Thresholds: anomaly \S+ → ", said)


@pytest.mark.parametrize("changed", [False, True])
def test_another_commits_worktree_takes_what_is_compiled_where_the_library_is_the_same(copy, tmp_path, changed):
    folder = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", str(copy), str(folder)], check=True, capture_output=True)
    compiled = folder / "src/closedloop/heads/__pycache__/trees.walk.nbc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"machine code")
    if changed:
        (folder / "src/closedloop/heads/trees.py").write_text("")
    program = "import sys; from model.common import commits; print(commits.worktree(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}
    words = [sys.executable, "-c", program, git(folder, "rev-parse", "HEAD")]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    found = list((folder / done.stdout.strip()).rglob("trees.walk.nbc"))
    assert [b"machine code"] * (not changed) == [path.read_bytes() for path in found]


def test_a_worktree_whose_making_was_killed_is_made_again(copy, tmp_path):
    """Git writes the files in the order of their names; a part of them is no commit."""
    folder = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", str(copy), str(folder)], check=True, capture_output=True)
    head = git(folder, "rev-parse", "HEAD")
    git(folder, "worktree", "add", "--quiet", "--detach", f"build/commits/{head[:12]}", head)
    shutil.rmtree(folder / "build/commits" / head[:12] / "src")
    program = "import sys; from model.common import commits; print(commits.worktree(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}
    for _ in range(2):
        words = [sys.executable, "-c", program, head]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert "" == git(folder / done.stdout.strip(), "status", "--porcelain")


def test_a_base_that_cannot_be_trained_is_incomparable_until_a_person_accepts_it(copy):
    broken = copy / "model/train.py"
    good = broken.read_text()
    broken.write_text('raise SystemExit("this commit cannot train")\n')
    base = commit(copy, "broken")
    broken.write_text(good)
    commit(copy, "fixed")
    done = judge(copy, base=base)
    assert done.returncode == 1
    assert done.stdout.startswith("incomparable: ")
    assert "this commit cannot train" in done.stdout

    champion = git(copy, "rev-list", "--max-parents=0", "HEAD")
    judge(copy, base=base, champion=champion)  # the rules are the base's, and another model is met
    assert champion == json.loads((copy / "build/decision.json").read_text())["champion"]["commit"]
    assert judge(copy, base=base).returncode == 1

    words = ("--why", "the base is broken", "--decision", "build/decision.json")
    refused = command(copy, "accept", *words)
    assert refused.returncode == 1
    assert "on a person's machine" in refused.stderr  # where it was just judged
    assert judge(copy, base=base, on_github=True).returncode == 1
    assert command(copy, "accept", *words).returncode == 0
    assert base == json.loads((copy / "model/accepted.json").read_text())["champion"]
    done = judge(copy, base=base, on_github=True)
    assert done.returncode == 0, done.stderr
    assert "Accepted by a code owner: the base is broken." in done.stdout
    decision = json.loads((copy / "build/decision.json").read_text())
    assert decision["accepted"]
    assert "7" == decision["ci"]["run_id"]
    (copy / "model/accepted.json").unlink()


def test_the_champion_answers_from_the_bundle_of_its_release_also_when_its_pin_is_gone(copy):
    """Training again is the fallback, and the decision says which of the two was used, and why."""
    data = copy / "model/data.py"
    good = data.read_text()
    gone = 'import os\n\nif os.environ.get("PIN_IS_GONE"):\n    raise SystemExit("the pin is gone")\n'
    data.write_text(good.replace("import annotations\n", f"import annotations\n\n{gone}", 1))
    champion = commit(copy, "champion")
    succeed(copy, "data", "validate", "train")
    shutil.rmtree(copy / "build/released", ignore_errors=True)
    shutil.copytree(copy / "build/bundle", copy / "build/released/bundle")
    about = {"tag": "r1", "commit": champion, "verified": "by its digest", "problem": ""}
    note = copy / "build/released/release.json"
    note.write_text(json.dumps(about))
    params = copy / "model/params.yaml"
    params.write_text(re.sub(r"(?<=alarms_per_machine_year: )\d+", "4", params.read_text()))
    commit(copy, "other alarms")
    succeed(copy, "train", "predict")

    def judged(**extra: str) -> dict:
        judge(copy, base=champion, champion=champion, **extra)
        return json.loads((copy / "build/decision.json").read_text())

    decision = judged(PIN_IS_GONE="1")
    assert decision["verdict"] in {"inconclusive", "worse", "better"}, decision["reason"]
    assert {"from": "release", "tag": "r1", "verified": "by its digest"} == decision["champion_from"]
    assert champion == decision["champion"]["commit"]
    said = (copy / "build/report/summary.md").read_text()
    assert "The champion's bundle: from its release r1, verified by its digest" in said
    assert not (copy / "build/commits" / champion[:12] / "build/bundle").exists()  # nothing was trained

    (copy / "build/released/bundle/card.md").write_text("changed")
    decision = judged(PIN_IS_GONE="1")
    assert "incomparable" == decision["verdict"]
    assert "the pin is gone" in decision["reason"]
    assert "card.md was changed" in decision["reason"]
    decision = judged()
    assert decision["verdict"] in {"inconclusive", "worse", "better"}
    assert "training" == decision["champion_from"]["from"]
    assert "card.md was changed" in decision["champion_from"]["why"]

    for changed, why in ({"problem": "HTTP 502"}, "HTTP 502"), ({"commit": "f" * 40}, "another commit's bundle"):
        note.write_text(json.dumps(about | changed))
        decision = judged(PIN_IS_GONE="1")
        assert "incomparable" == decision["verdict"]
        assert why in decision["reason"]
    shutil.rmtree(copy / "build/released")


SETTLE = """
import json, sys
from pathlib import Path
from model.common import champion

decision = json.loads(sys.argv[1])
print(json.dumps(champion.settle(decision, {"local": False, "source": sys.argv[2]}, Path(sys.argv[3]))))
"""


@pytest.mark.parametrize(
    ("changed", "own_fleet", "becomes"),
    [
        ([], False, True),
        (["notes.txt", "model/accepted.json"], False, True),
        (["model/params.yaml"], False, False),
        (["model/data.lock.json"], False, False),
        (["src/closedloop/features/custom.py"], False, False),
        (["model/params.yaml", "model/data.lock.json", "mydata/x.csv"], True, True),
        (["src/closedloop/features/custom.py"], True, False),
        (["requirements/train.txt"], True, False),
    ],
)
@pytest.mark.parametrize("verdict", ["first", "better"])
def test_a_model_becomes_this_machines_champion_if_a_commit_can_make_it_again(
    copy, tmp_path, changed, own_fleet, becomes, verdict
):
    """Of a fleet that the commit does not know (files of one's own, or just adopted) its code is enough."""
    folder = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", str(copy), str(folder)], check=True, capture_output=True)
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a") as stream:
            stream.write("\n")
    source = "plant" if own_fleet else load().source
    reason = {
        "first": "There is no champion yet, so this model becomes the champion. 2 machines.",
        "better": "Saves 10.",
    }[verdict]
    decision = {"verdict": verdict, "becomes_champion": True, "reason": reason}
    path = os.pathsep.join([str(folder / "src"), str(folder)])
    words = [sys.executable, "-c", SETTLE, json.dumps(decision), source, str(folder / "model/params.yaml")]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert becomes == found["becomes_champion"]
    if becomes:
        assert decision == found
    else:
        assert "commit your changes and run again" in found["reason"]
        assert "becomes the champion" not in found["reason"]


def test_a_base_that_is_not_in_the_clone_is_one_clear_line(copy):
    done = judge(copy, base="f" * 40)
    assert done.returncode == 2
    assert "git fetch --unshallow" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def moved(copy_checkout, tmp_path_factory):
    """A repository whose first commit is one from before the moves, and whose second is this checkout."""
    found = subprocess.run(
        ["git", "-C", str(top()), "cat-file", "-e", f"{BEFORE_THE_MOVES}^{{commit}}"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(
            f"this clone has no commit {BEFORE_THE_MOVES[:7]}: it is shallow, or a copy with a history of its own"
        )
    folder = tmp_path_factory.mktemp("moved") / "project"
    words = ["git", "-C", str(top()), "archive", BEFORE_THE_MOVES, *PARTS]
    with tarfile.open(fileobj=io.BytesIO(subprocess.run(words, check=True, capture_output=True).stdout)) as archive:
        archive.extractall(folder)  # noqa: S202 - git made it of this repository
    shutil.rmtree(folder / "requirements")  # today's lock, so that no environment has to be installed for the test
    shutil.copytree(top() / "requirements", folder / "requirements")
    pin_a_small_fleet(folder)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    base = commit(folder, "before the moves")
    pin = (folder / "model/data.lock.json").read_text()
    for name in ("src", "model"):
        shutil.rmtree(folder / name)
    copy_checkout(folder)
    (folder / "model/data.lock.json").write_text(pin)
    commit(folder, "after the moves")
    return folder, base


def test_a_champion_from_before_the_moves_is_trained_by_its_own_code_and_only_the_ruler_differs(moved):
    """The commands data, validate, train and predict, their flags and paths are frozen, so that this works for ever."""
    folder, base = moved
    succeed(folder, "data", "validate", "train", "predict")  # the pin holds: the tables are still the same
    done = judge(folder, base=base)
    assert done.stdout.startswith("incomparable: "), done.stderr
    assert done.returncode == 1
    decision = json.loads((folder / "build/decision.json").read_text())
    assert "ruler" in decision["reason"]
    assert base[:12] not in decision["reason"]  # which names a commit that could not be trained or could not predict
    theirs = folder / "build/commits" / base[:12]
    assert (theirs / "model/champion.py").exists()
    manifest = json.loads((theirs / "build/bundle/manifest.json").read_text())
    assert {"commit": base, "model_digest": manifest["model_digest"]} == decision["champion"]
    assert (theirs / "build/holdout-of-challenger.parquet").exists()


def test_a_fleet_of_ones_own_in_place_of_the_simulator_is_the_first_and_then_the_champion(copy):
    """The base and the champion pin simulator parts only: neither its model nor its rules are compared with."""
    git(copy, "checkout", "--quiet", "--force", "main")
    base = git(copy, "rev-parse", "HEAD")
    succeed(copy, "data")
    plant = copy / "data/plant"
    plant.mkdir(parents=True)
    for table in ("telemetry", "failures", "errors", "maint", "machines"):
        shutil.copy(copy / f"build/data/PdM_{table}.parquet", plant)
    params = copy / "model/params.yaml"
    params.write_text(params.read_text().replace("source: simulated", "source: plant"))
    assert command(copy, "data_pin", "--source", "data/plant").returncode == 0
    assert command(copy, "validate", "--pin").returncode == 0
    adopted = commit(copy, "adopt a fleet")
    succeed(copy, "train", "predict")
    done = judge(copy, base=base, champion=base)
    assert done.stdout.startswith("first: "), done.stderr
    decision = json.loads((copy / "build/decision.json").read_text())
    assert (None, True, True) == (decision["champion"], decision["green"], decision["becomes_champion"])

    params.write_text(params.read_text().replace("source: plant", "source: press"))
    commit(copy, "another name")
    succeed(copy, "data", "validate", "train", "predict")
    done = judge(copy, base=adopted, champion=adopted)
    assert done.stdout.startswith("incomparable: The ruler changed (source in params.yaml)"), done.stdout
