"""Training equals serving: a machine scored hour by hour by the service gets the same bits as in a fleet run.

Whatever stands between: rows shuffled, hours missing, another replica, a restart.
"""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import msgspec
import numpy as np
import pytest

from closedloop.data.request import Decoder
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import simulate
from closedloop.features.kernel import compute
from closedloop.heads.bundle import load
from model.predict import predict
from simulated_fleet import SCHEMA

MACHINE = 2


@pytest.fixture(scope="module")
def fleet():
    """Three machines, with missing hours and missing readings."""
    tables = simulate("default", 3, 40, 9, SCHEMA).tables
    rng = np.random.default_rng(1)
    tables.values[:, rng.random(len(tables.time)) < 0.03] = np.nan
    return tables.rows(rng.random(len(tables.time)) > 0.05)


def window(tables, schema, history_us, until, rng):
    """The request that a client would send at ``until``: what it knows of the machine's last hours, in any order."""
    rows = np.flatnonzero((tables.machine == MACHINE) & (tables.time > until - history_us) & (tables.time <= until))
    rng.shuffle(rows)
    body = {
        "telemetry": {
            "datetime": [to_text(int(time)) for time in tables.time[rows]],
            "machineID": [MACHINE] * len(rows),
            **{
                sensor: [None if np.isnan(value) else value for value in tables.values[s, rows].tolist()]
                for s, sensor in enumerate(schema.sensors)
            },
        },
        "machines": {
            "machineID": [MACHINE],
            "model": [schema.models[tables.machine_model[MACHINE - 1]]],
            "age": [float(tables.machine_age[MACHINE - 1])],
        },
    }
    for name, column, codes in (("errors", "errorID", schema.errors), ("maint", "comp", schema.components)):
        events = getattr(tables, name).slice(MACHINE)
        keep = (events.time <= until) & ((events.time > until - history_us) | (name == "maint"))
        body[name] = {
            "datetime": [to_text(int(time)) for time in events.time[keep]],
            "machineID": [MACHINE] * int(keep.sum()),
            column: [codes[code] for code in events.code[keep]],
        }
    return body


def expected_of(bundle, whole, row):
    """The fleet run's result for a row, in the form of the service's answer."""
    failure = {
        component: {"probability": float(whole.probability[c, row]), "alarm": bool(whole.alarm[c, row])}
        if component in bundle.failures
        else None
        for c, component in enumerate(bundle.schema.components)
    }
    return {"score": float(whole.anomaly_score[row]), "alarm": bool(whole.anomaly_alarm[row])}, failure


def test_a_machine_replayed_over_http_gets_the_bits_of_the_fleet_run(server, tiny_bundle, fleet):
    bundle = load(tiny_bundle)
    schema = bundle.schema
    whole = bundle.predict(fleet)
    mine = np.flatnonzero(whole.machine == MACHINE)
    rng = np.random.default_rng(2)
    asked = mine[rng.permutation(len(mine))[:150]]  # out of order: no answer may depend on earlier requests
    with httpx.Client(base_url=server.url) as client:
        for row in asked.tolist():
            body = window(fleet, schema, bundle.spec.history_us, int(whole.time[row]), rng)
            answer = client.post("/score", content=msgspec.json.encode(body))
            assert answer.status_code == 200, answer.text
            result = msgspec.json.decode(answer.content)["results"][0]
            assert expected_of(bundle, whole, row) == (result["anomaly"], result["failure"])
    assert len({float(whole.anomaly_score[row]) for row in asked}) > 100
    assert bundle.spec.history_us == 72 * HOUR_US


@contextmanager
def replica(bundle, folder):
    """A client of ``python -m score`` in its own process, with its own log."""
    output = folder.with_suffix(".output")
    settings = {"MODEL_DIR": str(bundle), "LOG_DIR": str(folder), "LOG_SINK": "none", "AUTH": "open", "PORT": "0"}
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "score"], env=os.environ | settings, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while not (running := re.search(r"http://127\.0\.0\.1:(\d+)", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with httpx.Client(base_url=running[0], timeout=60) as client:
            yield client
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, output.read_text()


def test_two_replicas_and_a_restart_in_between_change_no_bit(tiny_bundle, fleet, tmp_path):
    """Both replicas score each row, with the request's rows in another order; the first is restarted halfway."""
    bundle = load(tiny_bundle)
    whole = bundle.predict(fleet)
    rng = np.random.default_rng(3)
    asked = rng.permutation(np.flatnonzero(whole.machine == MACHINE))[:60].tolist()
    with replica(tiny_bundle, tmp_path / "second") as second:
        for half in (asked[:30], asked[30:]):
            with replica(tiny_bundle, tmp_path / "first") as first:
                for row in half:
                    for client in (first, second):
                        body = window(fleet, bundle.schema, bundle.spec.history_us, int(whole.time[row]), rng)
                        answer = client.post("/score", content=msgspec.json.encode(body))
                        (result,) = msgspec.json.decode(answer.content)["results"]
                        assert expected_of(bundle, whole, row) == (result["anomaly"], result["failure"])


def test_the_features_of_a_request_have_the_bits_of_the_fleets(tiny_bundle, fleet):
    bundle = load(tiny_bundle)
    decode = Decoder(bundle.schema, 1000)
    whole = compute(fleet, bundle.spec, bundle.constants, bundle.schema)
    rng = np.random.default_rng(4)
    for row in rng.permutation(np.flatnonzero(whole.machine == MACHINE))[:100].tolist():
        body = window(fleet, bundle.schema, bundle.spec.history_us, int(whole.time[row]), rng)
        tables = decode(msgspec.json.encode(body))
        mine = compute(tables, bundle.spec, bundle.constants, bundle.schema, True)
        assert whole.X[:, row].tobytes() == mine.X[:, 0].tobytes()


def test_a_batch_answers_what_the_service_answers(server, tiny_bundle, fleet):
    """model.batch predicts the last row of each machine, as /score does."""
    bundle = load(tiny_bundle)
    rng = np.random.default_rng(5)
    with httpx.Client(base_url=server.url) as client:
        for until in rng.choice(fleet.time[fleet.machine == MACHINE], 20, replace=False).tolist():
            body = msgspec.json.encode(window(fleet, bundle.schema, bundle.spec.history_us, until, rng))
            (result,) = client.post("/score", content=body).json()["results"]
            batch = predict(bundle, Decoder(bundle.schema, 1000)(body), last_only=True)
            heads = {"anomaly": result["anomaly"]} | {name: head for name, head in result["failure"].items() if head}
            told = {name: next(value for key, value in head.items() if key != "alarm") for name, head in heads.items()}
            assert told == dict(zip(batch.head.tolist(), batch.score.tolist(), strict=True))
            assert {name: head["alarm"] for name, head in heads.items()} == dict(
                zip(batch.head.tolist(), batch.alarm.tolist(), strict=True)
            )
