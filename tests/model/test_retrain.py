"""A retraining: from a fleet's log to the evidence for a pull request, in a repository of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import logged_fleet
import model
from closedloop.data.simulate import simulate
from closedloop.data.sources import tables_to_frames
from model.common.params import load

MACHINES, DAYS, BEGAN = 20, 100, 20  # days of the fleet's life that its files hold; a service saw them all


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

    def evidence(self) -> dict[str, bytes]:
        """Every file of the evidence but the pictures."""
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


def test_with_everything_reported_the_log_trains_the_model_of_the_originals(world):
    """Fleet → HTTP → log → retraining: the same model as on the tables that the requests were slices of."""
    before = world.copy.lock.read_bytes()
    said = world.copy.run("retrain", "--log", world.log, "--quick")
    assert world.originals == world.copy.digest
    assert before == world.copy.lock.read_bytes(), "a retraining changes nothing of the checkout"
    found = world.copy.read("evidence/retrain.json")
    assert [None] == [log["before"] for log in found["logs"]]
    assert {"rows": MACHINES * DAYS * 24, "machines": MACHINES}.items() <= found["holds"].items()
    assert found["pinned"]["rows"] == MACHINES * BEGAN * 24
    assert found["labels"]["immature"] < 4 * MACHINES * 25  # those of the last horizon alone
    assert "incomparable" == found["verdict"]
    assert "evidence: build/evidence/summary.md" in said
