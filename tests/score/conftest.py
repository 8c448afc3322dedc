"""A real bundle, small, and the service around it on a port of its own."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
import yaml

from closedloop.data.schema import HOUR_US, Schema
from closedloop.data.simulate import simulate
from closedloop.features.kernel import compute
from closedloop.features.labels import labels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, Training, write
from closedloop.heads.detectors import fit_anomaly_head
from closedloop.heads.failure import fit_failure_head
from score.app import create_app
from score.settings import Settings

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "model" / "params.yaml").read_text())
MAX_BODY_BYTES = 1 << 20


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle with an anomaly head, and failure heads for comp1 and comp2 only."""
    schema = Schema.from_dict(PARAMS["schema"])
    tables = simulate("azure", 12, 200, 3, schema).tables
    spec = FeatureSpec.from_params(PARAMS["features"], schema)
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
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
            X[:, keep], y[c][keep] == 1, np.ones(keep.sum()), tables.machine[keep], everything, trees, seed=0, folds=2
        )
        failures[schema.components[c]] = replace(head, threshold=0.5)
    training = Training({"simulated": list(range(1, 13))}, ("2015-01-01T06:00:00Z", "2015-07-20T05:00:00Z"), "sha256:0")
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write(Bundle(schema, spec, constants, anomaly, failures, training, {"commit": "0" * 40}), folder)
    return folder


@pytest.fixture(scope="session")
def environ(tiny_bundle):
    """MODEL_DIR, for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DIR", str(tiny_bundle))
        patch.delenv("MAX_ROWS", raising=False)
        yield


class Server:
    """The app under uvicorn in a thread, as ``python -m score`` runs it."""

    def __init__(self, settings):
        config = uvicorn.Config(
            create_app(settings), port=0, http="httptools", lifespan="on", access_log=False, log_level="warning"
        )
        self.log_dir = settings.log_dir
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def serve(environ, tmp_path):
    """Start servers; they are stopped when the test ends."""
    running = []

    def start(**settings):
        running.append(Server(Settings(**{"log_dir": tmp_path / "log", **settings})))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def server(environ, tmp_path_factory):
    """One open server for all tests that leave it as it was."""
    running = Server(Settings(log_dir=tmp_path_factory.mktemp("log"), max_body_bytes=MAX_BODY_BYTES))
    yield running
    running.stop()
