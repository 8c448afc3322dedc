"""A retraining: from a fleet's log to the evidence for a pull request, in a repository of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import logged_fleet
import model
from closedloop.data.schema import DataError
from closedloop.data.simulate import simulate
from closedloop.data.sources import tables_to_frames
from model import retrain
from model.common import data_pin
from model.common.params import load

MACHINES, DAYS, BEGAN = 16, 80, 20  # days of the fleet's life that its files hold; a service saw them all


class Copy:
    """A repository with the commands in it, and a folder to run them in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "model/data.lock.json"

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")])),
            "PYTHONSAFEPATH": "1",
            "GIT_DIR": str(self.folder / "none"),
        } | more  # fmt: skip
        environment.pop("LOG_SINK", None)
        command = [sys.executable, "-m", f"model.{words[0]}", *words[1:]]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *words: str, **more: str) -> str:
        started = self.start(*words, **more)
        out, said = started.communicate()
        assert started.returncode == 0, said
        return out

    def read(self, name: str) -> dict:
        return json.loads((self.folder / "build" / name).read_text())

    def killed(self, line: int, *words: str) -> bool:
        """Run a command and kill it at a line of its progress; return whether it came so far."""
        started = self.start(*words)
        assert started.stderr is not None
        for number, _ in enumerate(started.stderr, 1):
            if number == line:
                started.send_signal(signal.SIGKILL)
        started.communicate()
        return started.returncode == -signal.SIGKILL

    def evidence(self) -> dict[str, bytes]:
        """Every file of the evidence."""
        top = self.folder / "build/evidence"
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}

    @property
    def digest(self) -> str:
        return self.read("bundle/manifest.json")["model_digest"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_the_reference_fleet):
    """A fleet that trained a model on its files; the log of a service that saw all of its life; and the first days."""
    top = tmp_path_factory.mktemp("world")
    copy = Copy(top / "copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(model.__file__).parent, copy.folder / "model", ignore=ignored)
    own_the_reference_fleet(copy.folder / "model")
    schema = load().schema
    frames = tables_to_frames(simulate("azure", MACHINES, DAYS, 3, schema).tables, schema)
    began = frames["telemetry"]["datetime"].min() + logged_fleet.pd.Timedelta(days=BEGAN)
    for name, until in (("all", None), ("began", began)):
        folder = copy.folder / "data" / name
        folder.mkdir(parents=True)
        for table, frame in frames.items():
            kept = frame if until is None or table == "machines" else frame[frame["datetime"] < until]
            kept.to_parquet(folder / f"PdM_{table}.parquet", index=False)
    copy.run("data_pin", "--source", "data/all")
    copy.run("validate", "--pin")
    for command in ("train", "predict", "evaluate"):
        copy.run(command, *(["--quick"] if command != "predict" else []))
    with logged_fleet.service(top / "served", copy.folder / "build/bundle", str(copy.folder / "data/log")) as address:
        logged_fleet.live(address, frames)
    originals = copy.digest
    copy.run("data_pin", "--source", "data/began")
    copy.run("validate", "--pin")
    shutil.rmtree(copy.folder / "build/bundle")
    return SimpleNamespace(copy=copy, originals=originals, log=str(copy.folder / "data/log"))


@pytest.fixture(scope="module")
def retrained(world):
    """What a retraining on the log prints, and its evidence."""
    before = world.copy.lock.read_bytes()
    said = world.copy.run("retrain", "--log", world.log, "--quick")
    assert before == world.copy.lock.read_bytes(), "a retraining changes nothing of the checkout"
    return SimpleNamespace(said=said, digest=world.copy.digest, evidence=world.copy.evidence())


def test_with_everything_reported_the_log_trains_the_model_of_the_originals(world, retrained):
    """Fleet → HTTP → log → retraining: the same model as on the tables that the requests were slices of."""
    assert world.originals == retrained.digest
    found = json.loads(retrained.evidence["retrain.json"])
    assert [None] == [log["before"] for log in found["logs"]]
    assert {"rows": MACHINES * DAYS * 24, "machines": MACHINES}.items() <= found["holds"].items()
    assert found["pinned"]["rows"] == MACHINES * BEGAN * 24
    assert found["labels"]["immature"] <= 4 * MACHINES * 24  # those of the last horizon alone
    assert found["verdict"] == "incomparable"
    assert "evidence: build/evidence/summary.md" in retrained.said


def test_the_evidence_is_for_a_person(world, retrained):
    text = retrained.evidence["summary.md"].decode()
    heads = ["## New data", "## Labels", "## Drift", "## 🔴 Not comparable"]
    assert heads == [line for line in text.splitlines() if line.startswith("## ")]
    assert f"| rows | {MACHINES * BEGAN * 24:,} | {MACHINES * DAYS * 24:,} |" in text
    assert "A log joins the pinned data" in text
    assert "requests of" in retrained.evidence["replay.md"].decode()
    assert 0 == json.loads(retrained.evidence["replay.json"])["records"]["mismatched"]
    assert {"drift/drift.json", "drift/index.html", "report/index.html"} <= retrained.evidence.keys()


def test_the_evidence_has_the_pin_that_make_data_pin_would_write(world, retrained):
    """The pull request's own run is of the same inputs, so its verdict is about the same model."""
    before = world.copy.lock.read_bytes()
    try:
        world.copy.run("data_pin", "--source", "data/log", "--add")
        world.copy.run("validate", "--pin")
        assert retrained.evidence["data.lock.json"] == world.copy.lock.read_bytes()
    finally:
        world.copy.lock.write_bytes(before)


def test_a_retraining_that_is_killed_at_any_step_gives_the_same_when_it_is_run_again(world, retrained):
    """Each run is killed some lines of progress after the one before, and starts from what that one left."""
    line = 1
    while world.copy.killed(line, "retrain", "--log", world.log, "--quick"):
        assert not (world.copy.folder / "build/evidence").exists(), "half of the evidence could be proposed"
        line += 6
    assert line > 12, "it was not killed often enough"
    world.copy.run("retrain", "--log", world.log, "--quick")
    assert retrained.digest == world.copy.digest
    assert retrained.evidence == world.copy.evidence()


def test_where_the_log_has_nothing_new_nothing_is_trained(world, retrained):
    before = world.copy.lock.read_bytes()
    try:
        world.copy.lock.write_bytes(retrained.evidence["data.lock.json"])
        assert "nothing new: model/data.lock.json names these versions" in world.copy.run("retrain")
        assert not (world.copy.folder / "build/evidence").exists()
    finally:
        world.copy.lock.write_bytes(before)


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        ((), {}, "skipped: no log is configured"),
        (("--log", "/var/log/fleet"), {"GITHUB_ACTIONS": "true"}, "on a volume that Actions cannot read"),
    ],
)
def test_without_a_log_that_can_be_read_it_is_skipped(tmp_path, monkeypatch, capsys, words, settings, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOG_SINK", raising=False)
    monkeypatch.setattr(data_pin, "load", lambda: {"parts": [{"kind": "simulator"}]})
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert retrain.main(list(words)) is None
    said = capsys.readouterr().out
    assert says in said
    assert said.startswith("skipped: ")


def test_a_folder_that_holds_more_than_evidence_is_never_replaced(tmp_path, monkeypatch):
    """The evidence takes its folder's place, so --out model or --out . would lose what a person has there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_pin, "load", lambda: {"parts": [{"kind": "simulator"}]})
    for folder in ("model", "build/evidence"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "data.lock.json").touch()
    (tmp_path / "model/params.yaml").touch()
    with pytest.raises(DataError, match=r"--out model: .* it has params.yaml; name another folder"):
        retrain.main(["--out", "model", "--log", ""])
    assert (tmp_path / "model/params.yaml").exists()
    retrain.main(["--log", ""])
    assert not (tmp_path / "build/evidence").exists()


def test_answers_of_an_older_release_are_replayed_with_the_release_that_they_name(tmp_path, monkeypatch):
    """The champion is not what answered where a release was inconclusive, or one was rolled back."""
    monkeypatch.chdir(tmp_path)
    given = []
    monkeypatch.setattr(retrain, "CANDIDATE", tmp_path)
    (tmp_path / "replay.json").write_text(json.dumps({"records": {"mismatched": 0}}))
    monkeypatch.setattr(retrain.replay, "main", lambda words: given.extend(words))
    for tag in ("r2", "r1"):
        (tmp_path / "build/served" / tag / "bundle").mkdir(parents=True)
    log = {"kind": "log", "location": str(tmp_path), "versions": {"requests": 3}}
    assert 0 == retrain.replay_requests(log, Path("build/champion/x/bundle"), [])
    bundles = [given[at + 1] for at, word in enumerate(given) if word == "--served"]
    assert ["build/champion/x/bundle", "build/served/r1/bundle", "build/served/r2/bundle"] == bundles
