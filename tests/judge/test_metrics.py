"""The figures of one model."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from closedloop.data.schema import HOUR_US, DataError
from closedloop.judge.metrics import BIN_EDGES, assess, judge
from closedloop.judge.truth import Grid, Intervals, JudgeSettings, PredictionTable, Truth, align

FAILURE = {
    "f1",
    "precision",
    "recall",
    "pr_auc",
    "brier",
    "event_recall",
    "false_alarms_per_machine_year",
    "lead_time_hours_median",
    "cost_per_machine_year",
    "event_recall_at",
    "by_component",
    "by_model",
    "by_hour",
    "expected_over_observed",
}
ANOMALY = {"pr_auc", "f1", "false_alarm_rate", "event_recall", "event_recall_at", "false_alarms_per_machine_year"}


@pytest.fixture
def tiny(build):
    """Two machines for 200 hours; machine 1 fails at hour 100 (comp1), machine 2 at hour 120 (comp2)."""
    tables = build.tables(2, 200, build.events((1, 100, 0), (2, 120, 1)))
    return Truth(tables, build.schema, "hand-made", None, build.start_us)


def answers(truth, alarms, heads=("comp1", "comp2", "anomaly")):
    """A table with probability 0.9 and an alarm at the given (head, machine, hour), 0.1 elsewhere."""
    table = truth.tables
    hour = (table.time - table.time.min()) // HOUR_US
    result = {}
    for head in heads:
        score = np.full(len(hour), 0.1)
        for name, machine, at in alarms:
            score[(head == name) & (table.machine == machine) & (hour == at)] = 0.9
        result[head] = (score, score > 0.5)
    return PredictionTable.of(table.machine, table.time, result)


def test_the_keys_are_those_of_the_contract(fleet):
    metrics = judge(fleet.model(), fleet.truth, fleet.settings)
    assert {"failure", "anomaly", "ablations", "holdout"} == set(metrics)
    assert set(metrics["failure"]) == FAILURE
    assert set(metrics["anomaly"]) == ANOMALY
    assert {"machines", "failures", "machine_years"} == set(metrics["holdout"])
    assert {"comp1", "comp2"} == set(metrics["failure"]["by_component"])
    assert {"model1", "model2"} == set(metrics["failure"]["by_model"])
    json.dumps(metrics, allow_nan=False)


def test_calibration_is_seen_by_the_hour_of_the_day(tiny, build):
    """A model that expects failures in the afternoon alone is right as a whole, and wrong at every hour."""
    table = tiny.tables
    hour = table.time // HOUR_US % 24
    score = np.where((hour >= 12) & (hour < 16), 48 / 704 * 6, 0.0)
    heads = dict.fromkeys(("comp1", "comp2"), (score, score > 1))
    failure = judge(
        PredictionTable.of(table.machine, table.time, heads), tiny, JudgeSettings.from_params(build.params)
    )["failure"]
    assert pytest.approx(1, abs=0.1) == failure["expected_over_observed"]
    by_hour = {at: found["expected_over_observed"] for at, found in failure["by_hour"].items()}
    assert {"00": 0, "04": 0, "08": 0, "12": pytest.approx(6, abs=0.6), "16": 0, "20": 0} == by_hour
    assert sum(found["observed"] for found in failure["by_hour"].values()) == 48


def test_figures_worked_out_by_hand(tiny, build):
    predictions = answers(tiny, [("comp1", 1, 90), ("comp1", 1, 91), ("comp2", 2, 20), ("comp2", 1, 5)])
    metrics = judge(predictions, tiny, JudgeSettings.from_params(build.params))
    years = 2 * 200 / 8760
    # Known rows: 200 hours less the last 24, which look past the end, less the failure hour of each machine.
    known, positive, hits, alarms = 4 * (200 - 24) - 4, 48, 2, 4
    assert {"machines": 2, "failures": 2, "machine_years": pytest.approx(years)} == metrics["holdout"]
    failure = metrics["failure"]
    assert hits / positive == failure["recall"]
    assert hits / alarms == failure["precision"]
    assert pytest.approx(2 * hits / (alarms + positive)) == failure["f1"]
    wrong = (positive - hits) + (alarms - hits)
    assert pytest.approx((wrong * 0.81 + (known - wrong) * 0.01) / known) == failure["brier"]
    expected = 0.9 * 4 + 0.1 * (known - 4)
    assert pytest.approx(expected / positive) == failure["expected_over_observed"]
    assert failure["by_component"]["comp1"]["expected_over_observed"] == pytest.approx((0.9 * 2 + 0.1 * 348) / 24)
    assert failure["event_recall"] == 0.5
    assert failure["lead_time_hours_median"] == 10
    assert pytest.approx(2 / years) == failure["false_alarms_per_machine_year"]
    assert pytest.approx((2000 + 10000 + 2 * 250) / years) == failure["cost_per_machine_year"]
    assert failure["by_component"]["comp1"]["event_recall"] == 1
    assert failure["by_component"]["comp2"]["event_recall"] == 0
    assert failure["by_component"]["comp2"]["failures"] == 1
    assert {key: failure["by_model"]["model1"][key] for key in ("machines", "failures")} == {
        "machines": 1,
        "failures": 1,
    }
    assert failure["by_model"]["model1"]["event_recall"] == 1


def test_the_anomaly_head_is_judged_on_intervals_where_they_are_known(tiny, build):
    start = np.array([build.start_us + 30 * HOUR_US, build.start_us + 300 * HOUR_US])
    spans = Intervals(np.array([1, 1]), start, start + 9 * HOUR_US)  # the second lies past the last row
    truth = build.replace(tiny, anomalies=spans)
    metrics = judge(
        answers(truth, [("anomaly", 1, 35), ("anomaly", 2, 35)]), truth, JudgeSettings.from_params(build.params)
    )
    anomaly = metrics["anomaly"]
    assert anomaly["event_recall"] == 1
    assert pytest.approx(2 * 1 / (2 + 10)) == anomaly["f1"]
    assert anomaly["false_alarm_rate"] == 1 / 390
    assert pytest.approx(8760 / 400) == anomaly["false_alarms_per_machine_year"]


def test_the_anomaly_head_is_judged_on_failures_where_there_are_no_intervals(tiny, build):
    metrics = judge(
        answers(tiny, [("anomaly", 1, 80), ("anomaly", 2, 20)]), tiny, JudgeSettings.from_params(build.params)
    )
    assert metrics["anomaly"]["event_recall"] == 0.5
    assert pytest.approx(8760 / 400) == metrics["anomaly"]["false_alarms_per_machine_year"]


def test_without_failures_only_the_anomaly_head_is_judged(build):
    fleet = build.fleet(machines=3, supervised=False)
    metrics = judge(fleet.model(), fleet.truth, fleet.settings)
    assert metrics["failure"] is None
    assert set(metrics["anomaly"]) == ANOMALY
    assert metrics["holdout"]["failures"] == 0


def test_without_failures_and_intervals_there_is_nothing_to_judge(build):
    fleet = build.fleet(machines=3, supervised=False)
    metrics = judge(fleet.model(), build.replace(fleet.truth, anomalies=None), fleet.settings)
    assert metrics["failure"] is None
    assert metrics["anomaly"] is None
    assert metrics["holdout"]["machines"] == 3


def test_a_head_that_is_missing_is_silent(tiny, build):
    metrics = judge(answers(tiny, [("comp1", 1, 90)], heads=("comp1",)), tiny, JudgeSettings.from_params(build.params))
    comp2 = metrics["failure"]["by_component"]["comp2"]
    assert comp2["pr_auc"] is None
    assert comp2["event_recall"] == 0
    assert comp2["false_alarms_per_machine_year"] == 0
    assert metrics["failure"]["pr_auc"] is not None
    assert metrics["anomaly"]["pr_auc"] is None
    assert metrics["anomaly"]["event_recall"] == 0


def test_a_model_without_any_head_costs_what_doing_nothing_costs(tiny, build):
    metrics = judge(answers(tiny, [], heads=()), tiny, JudgeSettings.from_params(build.params))
    assert pytest.approx(2 * 10000 * 8760 / 400) == metrics["failure"]["cost_per_machine_year"]
    assert metrics["failure"]["pr_auc"] is None


def test_rows_before_the_judged_time_do_not_count(tiny, build):
    settings = JudgeSettings.from_params(build.params)
    late = build.replace(tiny, since_us=build.start_us + 110 * HOUR_US)
    metrics = judge(answers(tiny, [("comp1", 1, 90), ("comp2", 2, 5)]), late, settings)
    assert {"machines": 2, "failures": 1, "machine_years": pytest.approx(180 / 8760)} == metrics["holdout"]
    assert metrics["failure"]["false_alarms_per_machine_year"] == 0
    each = build.replace(tiny, since_us={1: build.start_us, 2: build.start_us + 150 * HOUR_US})
    assert judge(answers(tiny, []), each, settings)["holdout"]["failures"] == 1
    one = build.replace(tiny, since_us={2: build.start_us})
    assert judge(answers(tiny, []), one, settings)["holdout"]["machines"] == 1


def test_a_failure_that_no_judged_row_could_foresee_is_not_judged(build):
    settings = JudgeSettings.from_params(build.params)
    for hour, judged in ((1, 0), (2, 1), (221, 1), (223, 1), (224, 0)):
        truth = Truth(build.tables(1, 200, build.events((1, hour, 0))), build.schema, "x", None, build.start_us)
        assert (hour, judged) == (hour, judge(answers(truth, []), truth, settings)["holdout"]["failures"])


def test_censored_rows_are_left_out(build):
    """An alarm before a replacement may have prevented the failure: neither true nor false."""
    settings = JudgeSettings.from_params(build.params)
    for maint, false_alarms in ((None, 1), (build.events((1, 100, 0)), 0), (build.events((1, 100, 1)), 1)):
        tables = build.tables(1, 200, build.events((1, 170, 1)), maint)
        truth = Truth(tables, build.schema, "x", None, build.start_us)
        metrics = judge(answers(truth, [("comp1", 1, 90)]), truth, settings)
        assert pytest.approx(false_alarms * 8760 / 200) == metrics["failure"]["false_alarms_per_machine_year"]


def test_no_judged_row_is_refused(tiny, build):
    with pytest.raises(DataError, match="no telemetry row in the judged time"):
        judge(answers(tiny, []), build.replace(tiny, since_us=2**62), JudgeSettings.from_params(build.params))


def test_the_order_of_predictions_and_rows_outside_the_truth_do_not_matter(fleet):
    table = fleet.model()
    order = np.random.default_rng(1).permutation(len(table.time))
    shuffled = PredictionTable(*(getattr(table, name)[order] for name in ("machine", "time", "head", "score", "alarm")))
    other = PredictionTable.of(
        np.array([0, 1, 99, 10**12]), np.array([2**62, -(2**62), 5, 5]), {"comp1": (np.ones(4), np.ones(4, bool))}
    )
    both = PredictionTable(
        *(
            np.concatenate([getattr(t, n) for t in (shuffled, other)])
            for n in ("machine", "time", "head", "score", "alarm")
        )
    )
    assert judge(table, fleet.truth, fleet.settings) == judge(both, fleet.truth, fleet.settings)


def test_per_machine_sums_add_up_to_the_pooled_figures(fleet):
    grid = Grid.of(fleet.truth, fleet.settings)
    found = assess(align(fleet.model(), grid), grid, fleet.settings, fleet.truth.schema)
    failure, anomaly = found.metrics["failure"], found.metrics["anomaly"]
    years = found.years.sum()
    assert pytest.approx(failure["brier"]) == found.squared_error.sum() / found.rows.sum()
    rates = failure["false_alarms_per_machine_year"] + anomaly["false_alarms_per_machine_year"]
    assert pytest.approx(rates) == found.false_alarms.sum() / years
    missed = 1000 * (1 - anomaly["event_recall"]) * sum(len(start) for start, _ in grid.anomalies)
    blamed = 250 * anomaly["false_alarms_per_machine_year"] * years
    assert pytest.approx(failure["cost_per_machine_year"] * years + missed + blamed) == found.cost.sum()
    assert (20, len(BIN_EDGES) + 1) == found.predicted.shape
    assert ((grid.label == 1) & grid.known).sum() == found.observed.sum()


def test_ablations_are_judged_by_the_same_ruler(fleet):
    blind = fleet.model(recall=0.1, seed=5)
    metrics = judge(fleet.model(), fleet.truth, fleet.settings, {"no_telemetry": blind})
    figures = judge(blind, fleet.truth, fleet.settings)["failure"]
    assert metrics["ablations"]["no_telemetry"]["event_recall"] == figures["event_recall"]
    assert metrics["ablations"]["no_telemetry"]["cost_per_machine_year"] == figures["cost_per_machine_year"]


def test_predictions_survive_the_file(fleet, tmp_path):
    table = fleet.model()
    table.write(tmp_path / "predictions.parquet")
    again = PredictionTable.read(tmp_path / "predictions.parquet")
    for name in ("machine", "time", "head", "score", "alarm"):
        np.testing.assert_array_equal(getattr(table, name), getattr(again, name))


def test_a_missing_or_broken_file_of_predictions_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"run python -m model\.predict"):
        PredictionTable.read(tmp_path / "none.parquet")
    (tmp_path / "no.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"run python -m model\.predict"):
        PredictionTable.read(tmp_path / "no.parquet")


def test_an_alarm_that_is_null_is_refused(tmp_path):
    columns = {
        "machineID": [1],
        "datetime": [0],
        "head": ["comp1"],
        "score": [0.5],
        "alarm": pa.array([None], pa.bool_()),
    }
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    with pytest.raises(DataError, match="column alarm has nulls"):
        PredictionTable.read(tmp_path / "predictions.parquet")


def test_settings_name_the_key_that_is_missing(build):
    with pytest.raises(DataError, match="'gate'"):
        JudgeSettings.from_params({key: value for key, value in build.params.items() if key != "gate"})


def test_intervals_come_from_a_frame_with_or_without_a_time_zone():
    pd = pytest.importorskip("pandas")
    naive = pd.DataFrame(
        {"machineID": [1], "start": pd.to_datetime(["2015-01-01"]), "end": pd.to_datetime(["2015-01-02"])}
    )
    aware = naive.assign(start=naive["start"].dt.tz_localize("UTC"), end=naive["end"].dt.tz_localize("UTC"))
    for frame in (naive, aware):
        spans = Intervals.of(frame)
        assert (
            spans.machine[0],
            spans.start[0],
            spans.end[0] - spans.start[0],
        ) == (1, 1_420_070_400_000_000, 24 * HOUR_US)
