"""Permutation importance: what a head reads is dear, the rest is worth nothing, and time keeps its order."""

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Events, Schema
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, TrainedOn
from closedloop.heads.scorers import AnomalyHead, Chart
from closedloop.judge.truth import Intervals, JudgeSettings, Truth
from closedloop.report import importance as module
from closedloop.report.importance import families, importance

SCHEMA = Schema(
    sensors=("volt", "volt_2"),
    components=("comp1",),
    errors=("error1",),
    models=("model1", "model2"),
    sampling_minutes=60,
    ranges=((0.0, 400.0), (0.0, 400.0)),
)
FEATURES = {
    "history_hours": 24,
    "rolling": {"windows_hours": [3]},
    "errors": {"windows_hours": [24]},
}
KEYS = {"cost_per_machine_year", "failure_recall", "anomaly_recall", "false_alarms_per_machine_year"}


@pytest.fixture(scope="module")
def spec():
    return FeatureSpec.from_params(FEATURES, SCHEMA)


@pytest.fixture(scope="module")
def truth(build):
    """Six machines, 1,000 hours; volt rises for 20 hours, four times, and that is the anomaly. volt_2 is noise."""
    rng = np.random.default_rng(2)
    tables = build.tables(6, 1000, None)
    values = np.vstack([np.full(6000, 170.0), rng.normal(100.0, 5.0, 6000)])
    values[0] += rng.normal(0.0, 0.1, 6000)
    machine, start = np.repeat(np.arange(1, 7), 4), np.tile(np.arange(4) * 230 + 100, 6) + rng.integers(0, 90, 24)
    for m, s in zip(machine, start, strict=True):
        values[0, (m - 1) * 1000 + s : (m - 1) * 1000 + s + 20] += 50.0
    at = build.start_us + start * HOUR_US
    tables = build.replace(tables, values=values)
    return Truth(tables, SCHEMA, "hand-made", Intervals(machine, at, at + 24 * HOUR_US), build.start_us)


@pytest.fixture(scope="module")
def bundle(spec, truth):
    """An anomaly head that looks at the mean of volt alone."""
    column = np.array([spec.names.index("volt_mean_3h")], np.int32)
    return Bundle(
        schema=SCHEMA,
        spec=spec,
        constants=fit_levels(
            truth.tables,
            spec,
            SCHEMA,
            fit_constants(truth.tables, SCHEMA, int(truth.tables.time.max()), spec.history_us),
        )[0],
        anomaly=AnomalyHead(Chart(np.array([170.0]), np.array([1.0])), column, 10.0),
        failures={},
        training=TrainedOn({}, ("", ""), {}, ""),
        provenance={},
    )


@pytest.fixture(scope="module")
def settings(build):
    return JudgeSettings.from_params(build.params)


def test_what_belongs_together_is_shuffled_together(spec):
    found = {family: [spec.names[k] for k in columns] for family, columns in families(spec, SCHEMA).items()}
    assert found == {
        "volt": ["volt_mean_3h", "volt_std_3h"],
        "volt_2": ["volt_2_mean_3h", "volt_2_std_3h"],
        "error1": ["error1_count_24h", "error1_hours_since"],
        "comp1_days_since": ["comp1_days_since"],
        "age": ["age"],
        "model": ["model=model1", "model=model2"],
    }


def test_a_custom_feature_is_a_family_of_its_own():
    schema = Schema(
        ("volt", "rotate", "pressure", "vibration"), ("comp1",), (), (), 60, tuple((0.0, 1000.0) for _ in range(4))
    )
    spec = FeatureSpec.from_params(FEATURES, schema)
    assert spec.custom
    found = families(spec, schema)
    assert all(found[name] == [spec.names.index(name)] for name in spec.custom)
    assert sorted(k for columns in found.values() for k in columns) == list(range(len(spec.names)))


def test_what_the_head_reads_is_dear_and_nothing_else_is_worth_anything(bundle, truth, settings):
    found = importance(bundle, truth, settings, seed=7)
    assert next(iter(found)) == "volt"
    assert KEYS == set(found["volt"])
    assert found["volt"]["anomaly_recall"] < -0.5
    assert found["volt"]["false_alarms_per_machine_year"] > 10
    assert found["volt"]["failure_recall"] == 0.0
    lost = -found["volt"]["anomaly_recall"] * 24 * 1000 / (6000 / 8760)
    blamed = found["volt"]["false_alarms_per_machine_year"] * 250
    assert pytest.approx(lost + blamed) == found["volt"]["cost_per_machine_year"]
    assert {0.0} == {loss for family, losses in found.items() if family != "volt" for loss in losses.values()}


def test_a_shuffled_column_keeps_its_episodes(bundle, truth, settings):
    """Rows drawn one by one would tear 24 episodes into hundreds of false alarms; moved as a whole they stay 24."""
    losses = importance(bundle, truth, settings, seed=7)["volt"]
    assert losses["false_alarms_per_machine_year"] * 6000 / 8760 <= 24


def test_it_is_the_same_every_time_and_leaves_the_bundle_as_it_was(bundle, truth, settings):
    first = importance(bundle, truth, settings, seed=7)
    assert first == importance(bundle, truth, settings, seed=7)
    assert first != importance(bundle, truth, settings, seed=8)


def test_only_judged_rows_are_shuffled(bundle, truth, settings, build):
    """Rows before the judged time are history: what they hold does not become another machine's reading."""
    late = build.start_us + 400 * HOUR_US
    values = truth.tables.values.copy()
    values[:, truth.tables.time < late - 72 * HOUR_US] = 399.0
    noisy = build.replace(truth.tables, values=values)
    first, second = (
        importance(bundle, build.replace(truth, tables=tables, since_us=late), settings, seed=7)
        for tables in (truth.tables, noisy)
    )
    assert first == second


def test_failures_are_counted_where_there_are_any(bundle, truth, settings, build):
    failed = Events.of(truth.anomalies.machine, truth.anomalies.end, np.zeros(24, np.int16))
    supervised = build.replace(truth, tables=build.replace(truth.tables, failures=failed))
    found = importance(bundle, supervised, settings, seed=7)  # no failure head: all are missed, with or without
    assert found["volt"]["failure_recall"] == 0.0
    assert found["volt"]["anomaly_recall"] < -0.5


def test_where_nothing_happened_nothing_is_worth_anything(bundle, truth, settings, build):
    assert importance(bundle, build.replace(truth, anomalies=None), settings, seed=7) == {}


def test_of_a_large_fleet_some_machines_are_enough(bundle, truth, settings, monkeypatch, build):
    monkeypatch.setattr(module, "ROWS_ENOUGH", 3000)
    some = truth.tables.select(np.array([1, 3, 6]))
    expected = importance(bundle, build.replace(truth, tables=some), settings, seed=7)
    assert expected == importance(bundle, truth, settings, seed=7)
