"""The service answers this copy's own fleet: requests good and hostile, and with the bits of a run over the fleet."""

from __future__ import annotations

import json

import numpy as np
import pytest

from closedloop.data.feedback import FeedbackDecoder, openapi
from closedloop.data.request import RequestError
from closedloop.data.rfc3339 import to_text
from corpus import corpus
from score.answer import Scorer

MAX_ROWS = 100_000


@pytest.fixture(scope="module")
def scorer(own) -> Scorer:
    return Scorer(own.bundle, MAX_ROWS)


def test_every_request_of_its_corpus_gets_the_status_in_its_name(own, scorer):
    wrong = {}
    for name, body in corpus(own.params.schema, scorer.example).items():
        try:
            answer = scorer.answer(body, "r")
        except RequestError as refused:
            status = "400" if refused.syntax else "422"
        else:
            status = "200"
            assert answer["results"], name
        if not name.startswith(status):
            wrong[name] = status
    assert {} == wrong


def test_the_documented_example_of_feedback_is_feedback(own):
    example = openapi(own.params.schema)["examples"][0]
    said = FeedbackDecoder(own.params.schema, MAX_ROWS)(json.dumps(example))
    assert dict.fromkeys(example, 1) == {name: rows for name, rows in said.rows.items() if rows}


def named(tables, machine):
    """What a machine is called: its number, or its name."""
    return machine if tables.names is None else tables.names[machine]


def request_of(tables, schema, history_us, row):
    """What a client sends at the time of a row: what it knows of the machine's history, newest first."""
    machine, until = int(tables.machine[row]), int(tables.time[row])
    called = named(tables, machine)
    rows = np.flatnonzero((tables.machine == machine) & (tables.time > until - history_us) & (tables.time <= until))[
        ::-1
    ]
    body = {
        "telemetry": {
            "datetime": [to_text(at) for at in tables.time[rows].tolist()],
            "machineID": [called] * len(rows),
            **dict(zip(schema.sensors, tables.values[:, rows].tolist(), strict=True)),
        }
    }
    for table, column, names in (("errors", "errorID", schema.errors), ("maint", "comp", schema.components)):
        events = getattr(tables, table).slice(machine)
        keep = (events.time <= until) & ((events.time > until - history_us) | (table == "maint"))
        if names:
            body[table] = {
                "datetime": [to_text(at) for at in events.time[keep].tolist()],
                "machineID": [called] * int(keep.sum()),
                column: [names[code] for code in events.code[keep]],
            }
    if schema.models:
        at = int(np.searchsorted(tables.machine_ids, machine))
        model, age = schema.models[tables.machine_model[at]], float(tables.machine_age[at])
        body["machines"] = {"machineID": [called], "model": [model], "age": [age]}
    return json.dumps(body)


def test_a_request_gets_the_bits_of_a_run_over_the_fleet(own, scorer):
    schema, whole = own.params.schema, own.bundle.predict(own.judged)
    for row in np.random.default_rng(3).permutation(len(own.judged.time))[:40].tolist():
        body = request_of(own.judged, schema, own.bundle.spec.history_us, row)
        (result,) = scorer.answer(body, "r")["results"]
        machine, at = named(own.judged, int(whole.machine[row])), to_text(int(whole.time[row]))
        assert (machine, at) == (result["machineID"], result["datetime"])
        assert (whole.anomaly_score[row], whole.anomaly_alarm[row]) == tuple(result["anomaly"].values())
        expected = {
            component: {"probability": whole.probability[c, row], "alarm": whole.alarm[c, row]}
            for c, component in enumerate(schema.components)
        }
        assert expected == result["failure"]
