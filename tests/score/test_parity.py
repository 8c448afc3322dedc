"""Training equals serving: one machine's life, asked of the service hour by hour, gives the bits of the fleet run."""

from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import yaml

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, Schema
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import load

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "model" / "params.yaml").read_text())
MACHINE = 2


@pytest.fixture(scope="module")
def fleet():
    """Three machines, with hours missing and readings missing."""
    tables = simulate("default", 3, 40, 9, Schema.from_dict(PARAMS["schema"])).tables
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


def test_a_machine_replayed_over_http_gets_the_bits_of_the_fleet_run(server, tiny_bundle, fleet):
    bundle = load(tiny_bundle)
    schema = bundle.schema
    whole = bundle.predict(fleet)
    mine = np.flatnonzero(whole.machine == MACHINE)
    rng = np.random.default_rng(2)
    asked = mine[rng.permutation(len(mine))[:150]]  # out of order: nothing may depend on what was asked before
    with httpx.Client(base_url=server.url) as client:
        for row in asked.tolist():
            body = window(fleet, schema, bundle.spec.history_us, int(whole.time[row]), rng)
            answer = client.post("/score", content=msgspec.json.encode(body))
            assert answer.status_code == 200, answer.text
            result = msgspec.json.decode(answer.content)["results"][0]
            expected = {
                component: {"probability": float(whole.probability[c, row]), "alarm": bool(whole.alarm[c, row])}
                if component in bundle.failures
                else None
                for c, component in enumerate(schema.components)
            }
            assert expected == result["failure"]
            assert float(whole.anomaly_score[row]) == result["anomaly"]["score"]
    assert len({float(whole.anomaly_score[row]) for row in asked}) > 100
    assert bundle.spec.history_us == 72 * HOUR_US
