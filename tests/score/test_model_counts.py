"""What the model answered, as ``/metrics`` shows it: alarms, scores, warnings, readings, and how old it is."""

from __future__ import annotations

import json
import timeit
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from closedloop.heads.bundle import load
from score import answer
from score.answer import Scorer
from score.model_counts import ANOMALY, WARNINGS, ModelCounts

BODY = (Path(__file__).parents[1] / "golden/request.json").read_bytes()


def result(warnings=(), *, score=1.2, alarm=False, datetime="2015-01-04T06:00:00Z"):
    head = {"probability": 0.02, "alarm": alarm}
    return {
        "machineID": 1,
        "datetime": datetime,
        "anomaly": {"score": score, "alarm": alarm},
        "failure": {"comp1": head, "comp2": None},
        "warnings": list(warnings),
    }


def counts():
    return ModelCounts(["comp1", "comp2"], ["volt"], "2015-01-01T00:00:00Z")


def test_alarms_and_scores_are_counted_by_head():
    made = counts()
    made.add([result(), result(alarm=True, score=100.0)])
    assert made.alarms == {"anomaly": 1, "comp1": 1, "comp2": 0}
    anomaly, first, second = (made.scores[name] for name in (ANOMALY, "comp1", "comp2"))
    assert anomaly.buckets[-1] == 1  # above every bound
    assert sum(anomaly.buckets) == sum(first.buckets) == 2
    assert sum(second.buckets) == 0  # no head, no score
    assert anomaly.sum == 101.2


def test_a_score_on_a_bound_is_below_it_as_prometheus_has_it():
    made = counts()
    made.add([result(score=1.0)])
    bounds = made.scores[ANOMALY].bounds
    assert made.scores[ANOMALY].buckets[bounds.index(1.0)] == 1


def test_every_warning_of_an_answer_has_a_code():
    """A new warning without a code would be counted as other, and nobody would know which it is."""
    lines = {
        "history": answer._SHORT.format(2, 72),
        "gaps": answer._GAPS.format(3, 72),
        "missing": answer._MISSING.format(4, 72, "volt"),
        "outside": answer._OUTSIDE.format(5, 72, "volt", -1.5, 1e6),
        "undescribed": answer._UNDESCRIBED,
        "no_replacement": answer._NO_REPLACEMENT.format("comp1, comp2"),
    }
    templates = {name for name, value in vars(answer).items() if name.isupper() and isinstance(value, str)}
    assert len(templates) == len(lines) == len(WARNINGS)
    made = counts()
    made.add([result(lines.values()), result(["something new"])])
    assert made.warnings == {**dict.fromkeys(WARNINGS, 1), "other": 1}
    assert (made.missing, made.outside) == ({"volt": 4}, {"volt": 5})


def test_the_newest_telemetry_is_remembered():
    made = counts()
    made.add([result(datetime="2015-01-04T06:00:00Z"), result(datetime="2015-01-03T06:00:00Z")])
    assert made.newest == "2015-01-04T06:00:00Z"


def test_counting_an_answer_costs_less_than_a_tenth_of_making_it(tiny_bundle):
    scorer = Scorer(load(tiny_bundle), max_rows=10_000)
    results = scorer.answer(BODY, "request")["results"]
    made = ModelCounts(scorer.bundle.schema.components, scorer.bundle.schema.sensors, "2015-01-01T00:00:00Z")
    count = min(timeit.repeat(lambda: made.add(results), number=100, repeat=7))
    whole = min(timeit.repeat(lambda: scorer.answer(BODY, "request"), number=100, repeat=7))
    assert count < whole / 10


def test_metrics_show_them_and_no_dry_run(server):
    with httpx.Client(base_url=server.url) as client:
        before = families(client)
        assert client.post("/score", content=BODY).status_code == 200
        assert client.post("/score", content=BODY, headers={"Closed-Loop-Dry-Run": "1"}).status_code == 200
        check(before, families(client))


def check(before, after):
    for name in ("closedloop_anomaly_score_count", "closedloop_failure_probability_count"):
        assert total(after, name) > total(before, name)
    machines = len(set(json.loads(BODY)["telemetry"]["machineID"]))
    assert total(after, "closedloop_anomaly_score_count") == total(before, "closedloop_anomaly_score_count") + machines
    for name in ("alarms", "warnings", "readings_missing", "readings_outside"):
        assert any(series.startswith(f"closedloop_{name}_total{{") for series in after), name
    assert after["closedloop_telemetry_newest_seconds{}"] > 0
    assert after["closedloop_model_trained_until_seconds{}"] > 0


def families(client):
    """The series of ``/metrics`` by name and labels."""
    text = client.get("/metrics").text
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(series, name):
    return sum(value for key, value in series.items() if key.startswith(name + "{"))
