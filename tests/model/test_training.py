"""What must hold after any change of params.yaml: the model trains with the features and estimators that it names."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US
from closedloop.features import kernel
from closedloop.features.kernel import compute
from closedloop.heads.bundle import load, write
from closedloop.heads.failure import fit_failure_head, machine_folds
from closedloop.judge.metrics import judge
from closedloop.judge.truth import ANOMALY, PredictionTable
from model.common.predictions import predict
from model.common.thresholds import cost_threshold
from model.common.training import (
    alarm_columns,
    anomaly_head,
    failure_heads,
    fit_alarm,
    prepare,
    thin,
    unseen_score,
    with_budget,
)


def test_every_feature_that_params_names_is_computed_once_per_row(trained):
    found = compute(trained.training, trained.bundle.spec, trained.bundle.constants, trained.params.schema)
    assert (len(trained.bundle.spec.names), len(trained.training.time)) == found.X.shape
    assert len(set(trained.bundle.spec.names)) == len(trained.bundle.spec.names)


def test_features_are_finite_wherever_the_history_is_full(trained):
    """NaN is allowed only where nothing happened: no error of a kind in the history, or no replacement yet."""
    found = compute(trained.training, trained.bundle.spec, trained.bundle.constants, trained.params.schema)
    full = found.history_hours >= trained.params.features["history_hours"]
    silent = ("_hours_since", "_days_since")
    must = [k for k, name in enumerate(trained.bundle.spec.names) if not name.endswith(silent)]
    assert full.any()
    holes = {trained.bundle.spec.names[k] for k in must if not np.isfinite(found.X[k, full]).all()}
    assert set() == holes
    assert not np.isinf(found.X).any()


def test_every_component_with_enough_failures_gets_a_head(trained):
    counts = np.bincount(trained.training.failures.code, minlength=len(trained.params.schema.components))
    enough = counts >= trained.params.failure["minimum_failures"] + 2  # the last ones may lie past the last row
    expected = {name for name, is_enough in zip(trained.params.schema.components, enough, strict=True) if is_enough}
    assert expected
    assert expected <= set(trained.bundle.failures)


def test_answers_are_probabilities_and_every_row_has_one(trained):
    table = predict(trained.bundle, trained.truth.tables)
    heads = {ANOMALY, *trained.bundle.failures}
    assert heads == set(table.head.tolist())
    assert len(heads) * len(trained.truth.tables.time) == len(table.score)
    assert np.isfinite(table.score).all()
    probability = table.score[table.head != ANOMALY]
    assert ((probability >= 0) & (probability <= 1)).all()
    assert probability.std() > 0


def test_the_model_ranks_failing_hours_far_better_than_chance(trained):
    """A constant answer has a PR-AUC equal to the share of failing hours; the model must do ten times as well."""
    figures = judge(predict(trained.bundle, trained.truth.tables), trained.truth, trained.settings)["failure"]
    silent = PredictionTable.of(
        trained.truth.tables.machine,
        trained.truth.tables.time,
        {
            name: (np.full(len(trained.truth.tables.time), 0.5), np.zeros(len(trained.truth.tables.time), bool))
            for name in trained.bundle.failures
        },
    )
    trivial = judge(silent, trained.truth, trained.settings)["failure"]
    assert figures["pr_auc"] > 10 * trivial["pr_auc"]
    assert figures["cost_per_machine_year"] < trivial["cost_per_machine_year"]


def test_a_stored_bundle_answers_with_the_same_bits(trained, tmp_path):
    write(trained.bundle, tmp_path / "bundle")
    stored = load(tmp_path / "bundle").predict(trained.truth.tables)
    fresh = trained.bundle.predict(trained.truth.tables)
    np.testing.assert_array_equal(fresh.probability, stored.probability)
    np.testing.assert_array_equal(fresh.anomaly_score, stored.anomaly_score)


@pytest.mark.parametrize("without", ["telemetry", "errors"])
def test_an_ablation_never_sees_the_group_it_leaves_out(trained, without):
    """Trained with three trees, since only the columns of the heads matter here."""
    few = hurried(trained.params)
    training = prepare(trained.training, trained.params.schema, few, trained.params.source)
    heads = failure_heads(training, trained.params.schema, few, trained.bundle.anomaly, without)
    groups = (*trained.bundle.spec.groups, "telemetry")
    assert heads
    assert without not in {groups[k] for head in heads.values() for k in head.columns}


def test_thinned_rows_are_of_all_hours_and_one_of_each_block(trained):
    """A fixed place in the block would teach two hours of the day alone, and a daily rhythm is learned wrongly."""
    schema, fleet = trained.params.schema, trained.training
    thinned = thin(fleet, 12 * HOUR_US, schema)
    hours = np.bincount(fleet.time[thinned] // HOUR_US % 24, minlength=24)
    assert hours.min() > 0.7 * hours.mean()
    blocks = np.unique(np.stack([fleet.machine, fleet.time // (12 * HOUR_US)]), axis=1, return_counts=True)[1]
    assert thinned.sum() == pytest.approx(len(blocks), rel=0.01)  # the first and last block may be cut
    per_block = np.unique(np.stack([fleet.machine, fleet.time // (12 * HOUR_US)])[:, thinned], axis=1)
    assert per_block.shape[1] == thinned.sum()


def test_which_rows_are_thinned_depends_on_the_machine_alone(trained):
    fleet, schema = trained.training, trained.params.schema
    thinned = thin(fleet, 12 * HOUR_US, schema)
    some = fleet.select(np.unique(fleet.machine)[1::2])
    np.testing.assert_array_equal(thin(some, 12 * HOUR_US, schema), thinned[np.isin(fleet.machine, some.machine)])
    first, second = (thinned[fleet.machine == machine] for machine in np.unique(fleet.machine)[:2])
    assert (first[: len(second)] != second[: len(first)]).any()


def hurried(params):
    """Parameters with three trees."""
    return replace(params, failure={**params.failure, "parameters": {"max_iter": 3}})


def test_the_heads_are_those_that_features_of_all_rows_at_once_would_give(trained):
    """Bit by bit, for the detector, one component's trees, their calibration and both thresholds."""
    params, schema, tables = hurried(trained.params), trained.params.schema, trained.training
    training = prepare(tables, schema, params, params.source)
    X = compute(tables, training.spec, training.constants, schema).X
    detector = fit_alarm(X[:, training.thinned], alarm_columns(training.spec, schema, params), params)
    score = detector.score(X)
    found, found_score = anomaly_head(training, schema, params)
    ids, offsets = tables.bounds()
    levels = training.spec, training.constants, training.without
    later = np.concatenate([
        unseen_score(detector, np.ascontiguousarray(X[:, low:high]), machine, *levels)
        for machine, (low, high) in zip(tables.named(ids).tolist(), pairwise(offsets), strict=True)
    ])  # fmt: skip
    assert later.tobytes() == found_score.tobytes()
    assert with_budget(detector, training.grid, later, params).threshold == found.threshold
    heads = failure_heads(training, schema, params, found)
    component = next(iter(heads))
    c = schema.components.index(component)
    y, whole = training.y[c], np.vstack([X, score])
    every = params.failure["negatives_every_hours"] * HOUR_US / schema.period_us
    weight = np.where(y == 1, 1.0, np.where(training.thinned & (y == 0), every, 0.0))
    columns, folds = heads[component].columns, params.failure["folds"]
    head, unseen = fit_failure_head(
        whole, y == 1, weight, tables.machine, columns, params.failure["parameters"], params.seed, folds
    )
    assert head.forest.threshold.tobytes() == heads[component].forest.threshold.tobytes()
    assert (head.slope, head.intercept) == (heads[component].slope, heads[component].intercept)
    fold = machine_folds(((y == 1) & (weight > 0)).astype(int), tables.machine, folds, weight > 0)
    probability = np.array([other.probability(whole) for other in unseen])[fold, np.arange(len(y))]
    assert cost_threshold(training.grid, c, probability, trained.settings)[0] == heads[component].threshold


def test_training_never_holds_the_features_of_all_rows(trained, monkeypatch):
    monkeypatch.setattr(kernel, "ROWS_WORTH_A_TASK", 1)  # so that this small fleet is computed machine by machine
    params, schema = hurried(trained.params), trained.params.schema
    features = len(trained.training.time) * len(trained.bundle.spec.names) * 8
    tracemalloc.start()
    training = prepare(trained.training, schema, params, params.source)
    anomaly, _ = anomaly_head(training, schema, params)
    failure_heads(training, schema, params, anomaly)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < features  # whatever else is held: tables, labels and the rows that teach


def test_fitting_the_failure_heads_holds_no_more_copies_of_the_rows_than_it_must(trained, monkeypatch):
    """2.5 times the rows that teach; 3.5 times where the anomaly score was appended to a copy of them.

    One model is fitted at a time, so that every machine has the same peak; the answers out of fold are left out.
    """
    monkeypatch.setattr("closedloop.heads.failure.os.cpu_count", lambda: 1)
    monkeypatch.setattr("model.common.training.out_of_fold", lambda *_: {})
    params, schema = hurried(trained.params), trained.params.schema
    training = prepare(trained.training, schema, params, params.source)
    tracemalloc.start()
    failure_heads(training, schema, params, trained.bundle.anomaly)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.65 * training.X.nbytes
