"""A retraining that is killed in each of its steps: the evidence is there whole or not at all, and again the same.

Stand-ins take the steps' places and write what these write; what is done with their files is real. test_retrain.py
kills the real ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model import retrain
from model.common import cli

LOG = {"kind": "log", "location": "az://fleet/log", "versions": {"requests": 3}}
FILES = {"data.lock.json", "decision.json", "retrain.json", "summary.md", "replay.md", "report/index.html",
         "report/summary.md", "drift/drift.json"}  # fmt: skip


class KilledError(BaseException):
    """The process was killed; nothing catches it."""


class Killer:
    """Counts what a retraining does, and kills it at one of these: before, in the middle or after."""

    def __init__(self) -> None:
        self.count, self.at, self.when = 0, 0, ""

    def watch(self, patch, owner, name, do=None):
        do = do or getattr(owner, name)

        def step(*words, **named):
            self.count += 1
            mine = self.count == self.at
            if mine and self.when == "before":
                raise KilledError
            if mine and self.when == "middle" and name in ("rmtree", "copytree"):
                for path in sorted(Path(words[0]).rglob("*.md")):  # half of a folder
                    path.unlink() if name == "rmtree" else shutil.copyfile(path, _made(Path(words[1])) / path.name)
                raise KilledError
            found = do(*words, **named)
            if mine:
                raise KilledError
            return found

        patch.setattr(owner, name, step)


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path, text):
    _made(path.parent)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def killer(tmp_path, monkeypatch):
    """What kills a retraining in a folder of its own, where every step is a stand-in."""
    monkeypatch.chdir(tmp_path)
    steps = Killer()

    def described(*_):
        write(retrain.CANDIDATE / "data.lock.json", "{}")
        return {"logs": [], "labels": None}

    def drifted(*_):
        write(retrain.CANDIDATE / "drift/drift.json", "{}")
        return {}

    def judged(*_):
        for name in ("report/index.html", "report/summary.md", "decision.json"):
            write(cli.BUILD / name, "Better.")
        return "better"

    stand_ins = {
        "fetch": lambda *_: write(cli.DATA / "data.json", "{}"), "describe": described, "look_for_drift": drifted,
        "judge": judged, "replay_requests": lambda *_: write(retrain.CANDIDATE / "replay.md", "Replayed.") or 0,
    }  # fmt: skip
    monkeypatch.setattr(retrain.data_pin, "load", lambda: {"parts": [], "fingerprint": ""})
    monkeypatch.setattr(retrain.retraining, "skipped", lambda *_: "")
    monkeypatch.setattr(retrain.retraining, "candidate", lambda *_: [LOG])
    monkeypatch.setattr(retrain.retraining, "summary", lambda _, verdict: verdict)
    monkeypatch.setattr(retrain.retraining, "closing", lambda *_: [])
    monkeypatch.setattr(retrain, "bundle_of_champion", lambda _: None)
    with monkeypatch.context() as patch:
        for name, do in stand_ins.items():
            steps.watch(patch, retrain, name, do)
        steps.watch(patch, retrain.validate, "main", lambda _: None)
        for name in ("rmtree", "copytree", "copy"):
            steps.watch(patch, shutil, name)
        for name in ("replace", "write_text"):
            steps.watch(patch, Path, name)
        yield steps


def evidence():
    """The files of the evidence with their content; none where there is none."""
    top = retrain.EVIDENCE
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_the_evidence_is_whole_or_not_there_and_the_next_run_makes_the_same(killer, when):
    """Each run begins with what the run before has left, whole or killed, as on a person's machine."""
    retrain.main(["--log", LOG["location"]])
    expected, killer.when = evidence(), when
    assert set(expected) == FILES
    for at in range(1, killer.count + 1):
        killer.count, killer.at = 0, at
        with pytest.raises(KilledError):
            retrain.main(["--log", LOG["location"]])
        assert evidence() in ({}, expected), f"killed {when} step {at}: this could be proposed"
        killer.count, killer.at = 0, 0
        retrain.main(["--log", LOG["location"]])
        assert expected == evidence()
    assert killer.count > 12
