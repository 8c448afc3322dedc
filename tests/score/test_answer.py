"""The answer's form, and its warnings about everything that the request lacked."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from closedloop.data import untouched
from closedloop.data.request import RequestError, decode
from closedloop.data.schema import HOUR_US, Schema
from closedloop.heads.bundle import Predictions, load, write
from score.answer import Scorer, results

GOLDEN = Path(__file__).parents[1] / "golden"
HISTORY_US = 72 * HOUR_US
FULL = {
    "telemetry": {
        "datetime": [f"2015-01-{1 + h // 24:02d}T{h % 24:02d}:00:00Z" for h in range(72)],
        "machineID": [1] * 72,
        **{
            name: [value] * 72
            for name, value in {"volt": 170.0, "rotate": 450.0, "pressure": 100.0, "vibration": 40.0}.items()
        },
    },
    "maint": {
        "datetime": ["2014-12-13T06:00:00Z"] * 4,
        "machineID": [1] * 4,
        "comp": ["comp1", "comp2", "comp3", "comp4"],
    },
    "machines": {"machineID": [1], "model": ["model3"], "age": [18]},
}


@pytest.fixture(scope="module")
def scorer(tiny_bundle):
    return Scorer(load(tiny_bundle), 1000)


def without(rows):
    return {
        **FULL,
        "telemetry": {k: [v for i, v in enumerate(c) if i not in rows] for k, c in FULL["telemetry"].items()},
    }


def reading(sensor, values):
    column = [*values, *FULL["telemetry"][sensor][len(values) :]]
    return {**FULL, "telemetry": {**FULL["telemetry"], sensor: column}}


def warnings(scorer, request):
    (result,) = scorer.answer(json.dumps(request), "")["results"]
    return result["warnings"]


def test_the_golden_answer_is_what_these_predictions_look_like():
    schema = Schema(
        sensors=("volt", "rotate", "pressure", "vibration"),
        components=("comp1", "comp2"),
        errors=("error1",),
        models=("model3",),
        sampling_minutes=60,
        ranges=((0.0, 400.0), (0.0, 1000.0), (0.0, 300.0), (0.0, 150.0)),
    )
    body = (GOLDEN / "request.json").read_bytes()
    request = json.loads(body)
    request["maint"] = {"datetime": ["2014-12-13T06:00:00Z"] * 2, "machineID": [1, 1], "comp": ["comp1", "comp2"]}
    tables = decode(json.dumps(request), schema, 10)
    predictions = Predictions(
        machine=np.array([1]),
        time=tables.time[-1:],
        history_hours=np.array([2.0]),
        anomaly_score=np.array([1.7]),
        anomaly_alarm=np.array([False]),
        probability=np.array([[0.004], [0.001]]),
        alarm=np.array([[False], [False]]),
    )
    golden = json.loads((GOLDEN / "answer.json").read_text())
    assert golden["results"] == results(tables, predictions, schema, HISTORY_US)


def test_a_whole_request_has_no_warning(scorer):
    assert warnings(scorer, FULL) == []


def test_a_finding_changes_no_bit_of_the_answer(scorer):
    """It says what a replacement found, and a model foresees failures: the label knows it, no feature does."""
    found = {**FULL, "maint": {**FULL["maint"], "finding": ["worn", None, "sound", "worn"]}}
    with_it, without_it = (json.dumps(scorer.answer(json.dumps(body), "")) for body in (found, FULL))
    assert without_it == with_it


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (without(range(1)), ["71 of 72 hours of history"]),
        (without(range(70)), ["2 of 72 hours of history"]),
        (without([10, 11, 40]), ["3 of 72 rows of the history are missing"]),
        ({**FULL, "machines": {"machineID": [2], "model": ["model1"], "age": [1]}}, ["no machine description"]),
        ({k: v for k, v in FULL.items() if k != "maint"}, ["no replacement known of comp1, comp2, comp3, comp4"]),
        (
            {**FULL, "maint": {**FULL["maint"], "datetime": ["2014-12-13T06:00:00Z"] * 3 + ["2015-01-04T00:00:00Z"]}},
            ["no replacement known of comp4"],  # its replacement is still to come
        ),
        (reading("volt", [None, None]), ["2 of 72 readings of volt are missing"]),
        (reading("rotate", [-1.0, 1000.1, 1000.0]), ["2 of 72 readings of rotate are outside 0 to 1000"]),
    ],
)
def test_what_is_missing_is_said(scorer, request_, expected):
    assert expected == warnings(scorer, request_)


def test_each_machine_of_a_batch_is_told_its_own(scorer):
    """Machine 1 is whole, 2 lacks a reading and its description, 3 lacks rows, replacements and description."""
    columns = FULL["telemetry"]
    batch = {name: column * 2 + column[:1] + column[-2:] for name, column in columns.items()}
    batch["machineID"] = [1] * 72 + [2] * 72 + [3] * 3
    batch["volt"] = [170.0] * 72 + [None] + [170.0] * 74
    maint = {name: column * 2 for name, column in FULL["maint"].items()} | {"machineID": [1] * 4 + [2] * 4}
    request = {"telemetry": batch, "maint": maint, "machines": FULL["machines"]}
    told = [result["warnings"] for result in scorer.answer(json.dumps(request), "")["results"]]
    assert told == [
        [],
        ["1 of 72 readings of volt are missing", "no machine description"],
        [
            "69 of 72 rows of the history are missing",
            "no machine description",
            "no replacement known of comp1, comp2, comp3, comp4",
        ],
    ]


def test_what_is_older_than_the_history_is_not_missed(scorer):
    old = {name: [column[0], *column] for name, column in reading("volt", [170.0])["telemetry"].items()}
    old["datetime"][0], old["volt"][0] = "2014-06-01T00:00:00Z", None
    assert warnings(scorer, {**FULL, "telemetry": old}) == []


def test_without_an_anomaly_head_the_anomaly_is_null(scorer):
    silent = Scorer(replace(scorer.bundle, anomaly=None, failures={}), 1000)
    (result,) = silent.answer(json.dumps(FULL), "")["results"]
    assert result["anomaly"] is None
    assert result["failure"] == dict.fromkeys(["comp1", "comp2", "comp3", "comp4"])


def test_the_rows_of_a_request_are_bounded(tiny_bundle):
    few = Scorer(load(tiny_bundle), 71)
    with pytest.raises(RequestError, match="72 rows, at most 71"):
        few.answer(json.dumps(FULL), "")


def test_an_answer_fits_its_documented_schema(scorer):
    for path in sorted((GOLDEN / "requests").glob("200-*.json")):
        jsonschema.validate(scorer.answer(path.read_bytes(), "4f2c"), scorer.answer_schema)
        jsonschema.validate(json.loads(path.read_bytes()), scorer.request_schema)


def test_the_documented_schema_refuses_what_the_service_refuses(scorer):
    for name in ("missing-sensor", "unknown-column", "number-as-text", "unknown-error", "empty-batch", "age-negative"):
        body = json.loads((GOLDEN / "requests" / f"422-{name}.json").read_bytes())
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, scorer.request_schema)


@pytest.fixture(scope="module")
def untouched_bundle(tiny_bundle, tmp_path_factory):
    """The tiny bundle as training writes it with loop.untouched_share: 0.3, and with heads that always alarm."""
    bundle = load(tiny_bundle)
    failures = {name: replace(head, threshold=0.0) for name, head in bundle.failures.items()}
    folder = tmp_path_factory.mktemp("untouched") / "bundle"
    write(replace(bundle, failures=failures, provenance=bundle.provenance | {untouched.KEY: 0.3}), folder)
    return folder


def of_machine(machine):
    return json.dumps({**FULL, **{name: {**table, "machineID": [machine] * len(table["machineID"])}
                                  for name, table in FULL.items()}})  # fmt: skip


def test_alarms_of_machines_that_are_kept_untouched_are_not_shown(untouched_bundle):
    scorer, shown = Scorer(load(untouched_bundle), 1000), {}
    for machine in range(1, 41):
        (result,) = scorer.answer(of_machine(machine), "")["results"]
        (logged,) = scorer.answer_tables(scorer.decode(of_machine(machine)), "")["results"]
        assert logged["failure"]["comp1"]["alarm"]
        assert result["failure"]["comp1"]["probability"] == logged["failure"]["comp1"]["probability"]
        shown[machine] = result["failure"]["comp1"]["alarm"]
        assert (untouched.WARNING in result["warnings"]) == (not shown[machine])
        assert untouched.WARNING not in logged["warnings"]
    assert shown == {machine: not untouched.is_untouched(machine, 0.3) for machine in shown}
    assert 4 < sum(not alarm for alarm in shown.values()) < 22


def test_without_the_option_every_alarm_is_shown(tiny_bundle, untouched_bundle):
    scorer = Scorer(load(tiny_bundle), 1000)
    found = scorer.answer_tables(scorer.decode(of_machine(1)), "")["results"]
    assert scorer.shown(found) is found


@pytest.mark.parametrize("share", [2, -0.1, "0.1", True])
def test_a_share_that_is_none_is_refused_at_the_start(tiny_bundle, tmp_path, share):
    bundle = load(tiny_bundle)
    write(replace(bundle, provenance=bundle.provenance | {untouched.KEY: share}), tmp_path / "bundle")
    with pytest.raises(ValueError, match="untouched_share"):
        Scorer(load(tmp_path / "bundle"), 1000)
