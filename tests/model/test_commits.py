"""Another commit runs with the libraries that it locks; those of Spark too where it trains there."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.common import commits

LOCKS = {"requirements/train.txt": "numpy==2\n", "requirements/spark.txt": "pyspark==4\n"}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Have a commit with these files run a command; the locks that are installed, and whether our Python runs it."""

    def ask(command, parameters, here=True, **changed):
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        for folder, files in ((ours, LOCKS), (theirs, LOCKS | changed)):
            for name, text in {**files, "model/params.yaml": parameters}.items():
                if text is not None:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_text(text)
        calls = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(commits, "ROOT", ours)
        monkeypatch.setattr(commits, "worktree", lambda commit: theirs)
        monkeypatch.setattr(commits, "find_spec", lambda name: here or None)
        monkeypatch.setattr(commits.shutil, "which", lambda name, path: "uv")
        monkeypatch.setattr(commits, "_call", lambda words, folder: calls.append([str(word) for word in words]))
        Path("build/commits").mkdir(parents=True, exist_ok=True)
        commits.run("c" * 40, command)
        locks = [word for call in calls for word in call if word in LOCKS]
        return locks, calls[-1][0] == commits.sys.executable

    return ask


BOTH = [*LOCKS]


@pytest.mark.parametrize(
    ("command", "parameters", "here", "changed", "installed"),
    [
        ("model.train", "engine: spark\n", False, {}, BOTH),  # this commit left Spark, so it is not installed here
        ("model.train", "engine: spark\n", True, {}, []),
        ("model.train", "engine: spark\n", True, {"requirements/spark.txt": "pyspark==3\n"}, BOTH),
        ("model.train", "engine: spark\n", True, {"requirements/train.txt": "numpy==1\n"}, BOTH),
        ("model.train", "source: x\n", False, {}, []),
        ("model.train", "source: x\n", False, {"requirements/train.txt": "numpy==1\n"}, BOTH[:1]),
        ("model.predict", "engine: spark\n", False, {}, []),  # a bundle answers without Spark
        ("model.train", "engine: spark\n", False, {"requirements/spark.txt": None}, []),  # its own code says so
        ("model.train", "engine: [\n", False, {}, []),
    ],
)
def test_a_commit_gets_what_it_locks(asked, command, parameters, here, changed, installed):
    assert asked(command, parameters, here, **changed) == (installed, not installed)


def test_the_names_of_the_locks_are_those_of_this_repository():
    assert (Path(__file__).parents[2] / commits.LOCK).exists()
    assert Path(commits.LOCK_OF_SPARK).parent == Path(commits.LOCK).parent
