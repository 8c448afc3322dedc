"""The very program that the jobs of Databricks run, on Spark of this machine: it hands over, registers and scores."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from closedloop.heads.bundle import load
from closedloop.spark import session
from simulated_fleet import PARAMS_FILE

ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / "platforms/databricks/task.py"
COMMIT = "c0ffee" * 6 + "c0ff"
SMALL = {
    "estimator: hist_gradient_boosting": "estimator: random_forest",
    "minimum_failures: 5": "minimum_failures: 3",
    "folds: 3": "folds: 2",
}


class Cluster:
    """A volume, the files that a deployment puts into the workspace, and a Spark of two cores."""

    def __init__(self, top: Path) -> None:
        self.root, self.work = top / "files", top / "volume"
        for part in ("model", "src", "requirements"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        text = PARAMS_FILE.read_text(encoding="utf-8")
        for good, other in SMALL.items():
            assert good in text
            text = text.replace(good, other, 1)
        parameters = re.search(r"  parameters:\n(    \w+: .*\n)+", text)
        assert parameters
        text = text.replace(parameters[0], "  parameters: {numTrees: 4, maxDepth: 3}\n")
        (self.root / "model/params.yaml").write_text(f"engine: spark\n{text}", encoding="utf-8")
        part = {"kind": "simulator", "profile": "default", "machines": 14, "days": 100, "seed": 5}
        pin = {"fingerprint": "", "parts": [part]}
        (self.root / "model/data.lock.json").write_text(json.dumps(pin), encoding="utf-8")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "MLFLOW"))
        }
        self.environment |= {
            "SPARK_MASTER": "local[2]",
            "PYSPARK_SUBMIT_ARGS": f"--conf spark.sql.warehouse.dir={top}/warehouse pyspark-shell",
            "PYTHONPATH": str(ROOT / "src"),
            "GIT_DIR": str(top / "none"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{top}/mlflow.db",
            "MLFLOW_REGISTRY_URI": f"sqlite:///{top}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def run(self, task: str, **flags: object) -> subprocess.CompletedProcess[str]:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        command = [sys.executable, "-P", str(TASK), task, *words]
        return subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, check=False, timeout=900
        )

    def score(self, *words: str) -> list[dict[str, object]]:
        """Run batch, and return the table that it wrote, from the same session."""
        after = "from pyspark.sql import SparkSession; import json; rows = SparkSession.getActiveSession().table("
        after += "'spark_catalog.default.answers').orderBy('machineID', 'head').collect(); "
        after += "print(json.dumps([[r.machineID, r.head, r.score] for r in rows]))"
        code = f"import runpy; runpy.run_path({str(TASK)!r})['main']({['batch', *words]!r}); {after}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=self.environment, cwd=self.root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := session.missing():
        pytest.skip(f"no Spark here: {reason}")
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def trained(cluster):
    """What a run hands over; an earlier try of it left things behind."""
    (cluster.work / "runs/77/build").mkdir(parents=True)
    (cluster.work / "handed/77").mkdir(parents=True)
    (cluster.work / "handed/77/handed.json").write_text("{}")
    done = cluster.run("train", root=cluster.root, work=cluster.work, run="77", commit=COMMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    return SimpleNamespace(folder=cluster.work / "handed/77", said=done.stdout)


def test_bundle_and_pin_are_handed_over_with_a_digest_of_every_file(cluster, trained):
    said = json.loads((trained.folder / "handed.json").read_text())
    files = {path.relative_to(trained.folder).as_posix(): path for path in trained.folder.rglob("*") if path.is_file()}
    files.pop("handed.json")
    assert {"data.lock.json", "bundle/manifest.json"} < set(files)
    assert said["files"] == {
        name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in files.items()
    }
    bundle = load(trained.folder / "bundle")
    assert bundle.provenance["engine"] == "spark"
    assert bundle.provenance["commit"] == COMMIT == said["commit"]
    assert bundle.failures
    assert (said["format"], said["run"]) == (1, "77")
    pin = json.loads((trained.folder / "data.lock.json").read_text())
    assert pin["fingerprint"] == bundle.training.fingerprint
    assert f"handed over {trained.folder}: {said['model_digest']}" in trained.said
    assert [*(cluster.work / "runs").iterdir()] == []
    before = json.loads((cluster.root / "model/data.lock.json").read_text())
    assert before["fingerprint"] == "", "what was deployed stays as it is"


def test_the_bundle_is_registered_once_without_an_alias(cluster, trained):
    words = {"handed": trained.folder, "model": "main.closedloop.closedloop", "experiment": "/Shared/runs"}
    for said in (
        "main.closedloop.closedloop version 1 is sha256:",
        "nothing to do: main.closedloop.closedloop version 1",
    ):
        done = cluster.run("register", **words)
        assert done.returncode == 0, done.stderr[-3000:]
        assert said in done.stdout
    store = sqlite3.connect(cluster.environment["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"))
    found = store.execute("select name, version from model_versions").fetchall()
    tags = dict(store.execute("select key, value from model_version_tags").fetchall())
    aliases = store.execute("select * from registered_model_aliases").fetchall()
    store.close()
    assert (found, aliases) == ([("main.closedloop.closedloop", 1)], [])
    assert tags["commit"] == COMMIT
    assert tags["verdict"].startswith("not judged")


def test_tables_are_scored_with_the_bundle_of_a_release_alone(cluster, trained, tmp_path):
    from closedloop.data.simulate import simulate
    from closedloop.data.sources import write_tables
    from simulated_fleet import SCHEMA

    write_tables(simulate("default", 3, 20, 1, SCHEMA).tables, SCHEMA, tmp_path)
    bundle = load(trained.folder / "bundle")
    digest = json.loads((trained.folder / "handed.json").read_text())["bundle_digest"]
    words = {
        "root": cluster.root,
        "work": cluster.work,
        "run": "78",
        "tables": tmp_path,
        "bundle": trained.folder / "bundle",
        "bundle-digest": digest,
        "table": "spark_catalog.default.answers",
    }
    other = cluster.run("batch", **words | {"bundle-digest": "sha256:other"})
    assert other.returncode == 1
    assert "the release states sha256:other; fetch it again" in other.stderr
    found = cluster.score(*(f"--{name}={value}" for name, value in words.items()))
    assert len(found) == 3 * (1 + len(bundle.failures))
    assert {row[1] for row in found} == {"anomaly", *bundle.failures}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": "../x"}, "--run '../x' is no name of a folder"),
        ({"root": "/nowhere"}, "--root /nowhere: there is no model/; deploy again"),
        ({"commit": "${bundle.git.commit}"}, "is no value; the job must set it"),
        ({"work": ""}, "is no value; the job must set it"),
    ],
)
def test_a_job_that_passes_something_else_is_one_error(tmp_path, changes, said):
    words = {"root": tmp_path, "work": tmp_path / "volume", "run": "1", "commit": COMMIT} | changes
    command = [sys.executable, "-P", str(TASK), "train", *(f"--{name}={value}" for name, value in words.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "volume").exists()


def test_a_volume_that_sets_no_modes_and_times_gets_the_files(tmp_path, monkeypatch):
    """Unity Catalog's volumes are no file system of this kind."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for part in ("model", "src/closedloop/__pycache__", "requirements"):
        (tmp_path / "files" / part).mkdir(parents=True)
        (tmp_path / "files" / part / "a.txt").write_text(part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("SPARK_SCRATCH", "")
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refuse)
    own = runpy.run_path(str(TASK))["workplace"](tmp_path / "files", tmp_path / "volume", "7")
    assert sorted(path.relative_to(own).as_posix() for path in own.rglob("*.txt")) == [
        "model/a.txt",
        "requirements/a.txt",
    ]


def test_a_name_of_two_levels_is_refused(tmp_path):
    words = ["register", f"--handed={tmp_path}", "--model=closedloop.model", "--experiment=/x"]
    done = subprocess.run([sys.executable, "-P", str(TASK), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: --model closedloop.model: write catalog.schema.model\n")


def test_data_that_is_refused_hands_nothing_over(cluster, tmp_path):
    """The command says why, and the job fails."""
    root = tmp_path / "files"
    shutil.copytree(cluster.root, root)
    params = root / "model/params.yaml"
    params.write_text(params.read_text().replace("volt: [0, 400]", "volt: [0, 1]"))
    done = cluster.run("train", root=root, work=tmp_path / "volume", run="79", commit=COMMIT)
    assert done.returncode == 1
    assert "error: model.validate ended with 1; its last lines above say why" in done.stderr
    assert "volt" in done.stderr
    assert not (tmp_path / "volume/handed").exists()
