"""What the tests of several folders need: a real bundle, small, and environments for what must not be in ours."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import simulate
from closedloop.features.kernel import compute
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, TrainedOn, write
from closedloop.heads.detectors import fit_anomaly_head
from closedloop.heads.failure import fit_failure_head
from closedloop.judge.labels import labels
from model.common import params, provenance
from simulated_fleet import PARAMS, PARAMS_FILE, PIN_FILE, SCHEMA

# Whatever fleet this copy has, the commands that run in this process read the reference fleet. This stands before the
# imports of every test module, since some of them read these files at once. tests/own reads the copy's own files.
params.PARAMS, provenance.PIN = PARAMS_FILE, PIN_FILE

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]
UNHAD = re.compile(r"Failed to fetch|error sending request|dns error|no wheels with a matching|Requires-Python", re.I)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since many tests wait: for a program that starts, a disk or a server."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def files():
    """What is committed or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for name in sorted(set(names)) if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="session")
def copied(files):
    """Make a copy of the repository with the environment that is installed already; the folder."""

    def make(folder):
        for path in files:
            there = folder / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, there)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        return folder

    return make


@pytest.fixture(scope="session")
def locked():
    """Make an environment of requirements/NAME.txt below build/, where it is not there yet; its interpreter."""

    def make(name):
        lock, uv = ROOT / f"requirements/{name}.txt", Path(sys.executable).with_name("uv")
        key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
        folder = ROOT / "build" / name / key
        interpreter = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        if not (folder / "installed").exists():
            for words in (
                ["venv", "--clear", "--python", sys.executable, folder],
                ["pip", "sync", "--python", interpreter, "--require-hashes", "--only-binary", ":all:", lock],
            ):
                done = subprocess.run([uv, *words], capture_output=True, text=True, timeout=600, check=False)
                if done.returncode and (reason := UNHAD.search(done.stderr)):
                    pytest.skip(f"requirements/{name}.txt cannot be installed here: {reason[0]}")
                assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
        return interpreter

    return make


@pytest.fixture(scope="session")
def tiny_of(tmp_path_factory):
    """Make a bundle for a schema of the reference fleet's shape: an anomaly head, and heads of two components."""
    tables = simulate("azure", 12, 200, 3, SCHEMA).tables

    def make(schema, machines):
        spec = FeatureSpec.from_params(PARAMS["features"], schema)
        constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
        constants, _ = fit_levels(tables, spec, schema, constants)
        X = compute(tables, spec, constants, schema).X
        telemetry = np.flatnonzero(np.array(spec.groups) == "telemetry").astype(np.int32)
        anomaly = fit_anomaly_head(X[:, ::6], telemetry, "mean_chart", {}, seed=0)
        anomaly = replace(anomaly, threshold=float(np.quantile(anomaly.score(X), 0.99)))
        X = np.vstack([X, anomaly.score(X)])
        y = np.concatenate([labels(window, schema, 24 * HOUR_US) for window in tables.windows()], axis=1)
        everything = np.arange(len(X), dtype=np.int32)
        trees = {"max_iter": 5, "max_leaf_nodes": 4, "min_samples_leaf": 20}
        failures = {}
        for c in (0, 1):
            keep = (y[c] == 1) | (np.arange(len(y[c])) % 12 == 0)
            head, _ = fit_failure_head(
                X[:, keep], y[c][keep] == 1, np.ones(keep.sum()), tables.machine[keep], everything, trees, seed=0,
                folds=2,
            )  # fmt: skip
            failures[schema.components[c]] = replace(head, threshold=0.5)
        period = ("2015-01-01T06:00:00Z", "2015-07-20T05:00:00Z")
        training = TrainedOn({"simulated": machines}, period, "sha256:0")
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        write(Bundle(schema, spec, constants, anomaly, failures, training, {"commit": "0" * 40}), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_of):
    """The tiny bundle of the reference fleet."""
    return tiny_of(SCHEMA, list(range(1, 13)))
