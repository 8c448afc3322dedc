"""What CI does to a pull request: the base commit is trained by its own code, and its rules judge."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    words = ("git", "-C", str(folder), *identity, *words)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def verb(
    folder: Path, name: str, *words: str, base: str = "", reference: str = "", on_github: bool = False
) -> subprocess.CompletedProcess[str]:
    """One verb with the code of this checkout, not of the wheel under test."""
    path = os.pathsep.join([str(folder / "src"), str(folder)])
    environment = os.environ | {"PYTHONPATH": path, "BASE_COMMIT": base, "REFERENCE_COMMIT": reference}
    environment |= {"GITHUB_ACTIONS": str(on_github).lower(), "ACT": "", "GITHUB_RUN_ID": "7"}
    words = (sys.executable, "-m", f"model.{name}", *words)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of this repository as it stands, that pins a fleet of 12 machines and 90 days."""
    top = Path(git(Path(__file__).parent, "rev-parse", "--show-toplevel"))
    folder = tmp_path_factory.mktemp("copy") / "project"
    folder.mkdir()
    listed = git(top, "ls-files", "--cached", "--others", "--exclude-standard", "src", "model", "requirements").split()
    for name in (*listed, "pyproject.toml", ".gitignore"):
        if (top / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((top / name).read_bytes())
    lock = folder / "model/data.lock.json"
    pin = json.loads(lock.read_text())
    pin["parts"][0] |= {"machines": 12, "days": 90}
    lock.write_text(json.dumps(pin))
    assert verb(folder, "data").returncode == 0
    refused = verb(folder, "validate")
    assert refused.returncode == 1
    assert "make data-pin" in refused.stderr  # the fingerprint is still that of the large fleet
    assert verb(folder, "validate", "--pin").returncode == 0
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "base")
    return folder


def test_a_change_meets_the_model_of_its_base_and_an_untouched_commit_is_identical(copy):
    base = git(copy, "rev-parse", "HEAD")
    for name in ("data", "validate", "train", "predict"):
        done = verb(copy, name)
        assert done.returncode == 0, done.stderr
    done = verb(copy, "evaluate", base=base)
    assert done.stdout.startswith("identical: "), done.stderr

    params = copy / "model/params.yaml"
    params.write_text(re.sub(r"(?<=alarms_per_machine_year: )\d+", "3", params.read_text()))
    git(copy, "commit", "--quiet", "--all", "--message", "fewer alarms")
    for name in ("train", "predict"):
        assert verb(copy, name).returncode == 0
    done = verb(copy, "evaluate", base=base)
    decision = json.loads((copy / "build/decision.json").read_text())
    assert decision["verdict"] in {"inconclusive", "worse", "better"}, done.stderr
    assert base == decision["champion"]["commit"] == decision["reference"]
    assert git(copy, "rev-parse", "HEAD") == decision["challenger"]["commit"]
    assert decision["ci"] is None
    assert decision["champion"]["model_digest"] != decision["challenger"]["model_digest"]


def test_a_base_that_cannot_be_made_is_incomparable_until_a_person_accepts_it(copy):
    broken = copy / "model/train.py"
    good = broken.read_text()
    broken.write_text('raise SystemExit("this commit cannot train")\n')
    git(copy, "commit", "--quiet", "--all", "--message", "broken")
    base = git(copy, "rev-parse", "HEAD")
    broken.write_text(good)
    git(copy, "commit", "--quiet", "--all", "--message", "mended")
    done = verb(copy, "evaluate", base=base)
    assert done.returncode == 1
    assert done.stdout.startswith("incomparable: ")
    assert "this commit cannot train" in done.stdout

    reference = git(copy, "rev-list", "--max-parents=0", "HEAD")
    verb(copy, "evaluate", base=base, reference=reference)  # the rules are the base's, and another model is met
    assert reference == json.loads((copy / "build/decision.json").read_text())["champion"]["commit"]
    assert verb(copy, "evaluate", base=base).returncode == 1

    words = ("--why", "the base is broken", "--decision", "build/decision.json")
    refused = verb(copy, "accept", *words)
    assert refused.returncode == 1
    assert "on a person's machine" in refused.stderr  # where it was just judged
    assert verb(copy, "evaluate", base=base, on_github=True).returncode == 1
    assert verb(copy, "accept", *words).returncode == 0
    done = verb(copy, "evaluate", base=base, on_github=True)
    assert done.returncode == 0, done.stderr
    assert "Accepted by a code owner: the base is broken." in done.stdout
    decision = json.loads((copy / "build/decision.json").read_text())
    assert decision["accepted"]
    assert "7" == decision["ci"]["run_id"]
    (copy / "model/accepted.json").unlink()


def test_a_base_that_is_not_here_is_one_clear_line(copy):
    done = verb(copy, "evaluate", base="f" * 40)
    assert done.returncode == 2
    assert "git fetch --unshallow" in done.stderr.splitlines()[-1]
