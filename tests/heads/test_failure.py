import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from closedloop.heads import failure
from closedloop.heads.failure import fit_failure_head, machine_folds, platt

PARAMS = {"max_iter": 10, "max_leaf_nodes": 5, "min_samples_leaf": 10}
COLUMNS = np.array([0, 2, 3], np.int32)
FOREST = ("threshold", "feature", "left", "missing_left", "roots", "baseline", "divisor")


def fleet(machines=8, rows=150, seed=0):
    """X (4, rows), y, weight and machine of a fleet whose failures show in features 0 and 2."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(4, machines * rows))
    X[1, rng.random(X.shape[1]) < 0.2] = np.nan
    y = (X[0] + X[2] + rng.normal(size=X.shape[1]) > 2.5).astype(int)
    return X, y, np.where(y == 1, 1.0, 6.0), np.repeat(np.arange(machines) * 7 + 3, rows)


def fit(X, y, weight, groups, columns=COLUMNS, seed=1, folds=3):
    """The head, and what the heads of the folds answer for machines that they never saw."""
    head, unseen = fit_failure_head(X, y, weight, groups, columns, PARAMS, seed, folds)
    teaches = weight > 0
    fold = machine_folds(np.where(teaches, y, 0), groups, folds, teaches)
    return head, np.array([other.probability(X) for other in unseen])[fold, np.arange(X.shape[1])]


def bits(head, probability):
    arrays = [np.asarray(getattr(head.forest, name)).tobytes() for name in FOREST]
    return arrays, head.slope, head.intercept, probability.tobytes()


def test_the_head_is_the_model_that_scikit_learn_fits_on_all_rows():
    X, y, weight, groups = fleet()
    head, _ = fit(X, y, weight, groups)
    model = HistGradientBoostingClassifier(**PARAMS, early_stopping=False, random_state=1)
    model.fit(X[COLUMNS].T, y)  # weights are for the calibration alone
    plain = replace(head, slope=1.0, intercept=0.0)
    assert model.predict_proba(X[COLUMNS].T)[:, 1].tobytes() == plain.probability(X).tobytes()


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    X, y, weight, groups = fleet()
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(failure.os, "cpu_count", lambda threads=threads: threads)
        found.append(bits(*fit(X, y, weight, groups)))
    assert found[0] == found[1]


SCRIPT = """
import hashlib, numpy as np
from closedloop.heads.failure import fit_failure_head
rng = np.random.default_rng(0)
X = rng.normal(size=(3, 900))
y = (X[0] + rng.normal(size=900) > 1.5).astype(int)
head, unseen = fit_failure_head(X, y, np.ones(900), np.arange(900) // 90, np.arange(3), {"max_iter": 5}, 0, 3)
digest = hashlib.sha256(np.array([head.slope]).tobytes())
for one in (head, *unseen):
    digest.update(one.forest.threshold.tobytes())
print(digest.hexdigest())
"""


def test_the_threads_of_openmp_and_blas_change_no_bit():
    found = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert len(found[0].strip()) == 64
    assert found[0] == found[1]


def test_a_row_is_judged_out_of_fold_by_models_that_never_saw_its_machine(monkeypatch):
    monkeypatch.setattr(failure, "platt", lambda *_: (1.0, 0.0))
    X, y, weight, groups = fleet()
    fold = machine_folds(y, groups, 3, weight > 0)
    other = y.copy()
    for machine in np.unique(groups[fold == 1]):
        rows = np.flatnonzero(groups == machine)
        other[rows] = y[rows][::-1]  # as many failures on the same machines, at other times
    before, after = fit(X, y, weight, groups)[1], fit(X, other, weight, groups)[1]
    assert before[fold == 1].tobytes() == after[fold == 1].tobytes()
    assert (before[fold != 1] != after[fold != 1]).any()


def test_rows_of_weight_0_teach_nothing_and_still_get_a_probability():
    X, y, weight, groups = fleet()
    kept = np.arange(len(y)) % 3 > 0
    some, probability = fit(X, y, np.where(kept, weight, 0.0), groups)
    alone, expected = fit(np.ascontiguousarray(X[:, kept]), y[kept], weight[kept], groups[kept])
    assert bits(alone, expected) == bits(some, probability[kept])
    assert ((probability > 0) & (probability < 1)).all()


def test_a_head_reads_its_columns_alone():
    X, y, weight, groups = fleet()
    head, _ = fit(X, y, weight, groups)
    other = X.copy()
    other[1] = np.nan
    assert head.probability(X).tobytes() == head.probability(other).tobytes()
    other[2] = 0.0
    assert head.probability(X).tobytes() != head.probability(other).tobytes()
    with pytest.raises(ValueError, match="3 features were given, the head reads the first 4"):
        head.probability(X[:3])


def test_probabilities_mean_what_they_say():
    """As many failures as they add up to, out of fold and on machines never seen."""
    X, y, weight, groups = fleet(machines=12, rows=400)
    head, out_of_fold = fit(X, y, weight, groups)
    assert abs(float((weight * out_of_fold).sum() / (weight * y).sum()) - 1.0) < 0.02
    X, y, weight, _ = fleet(machines=50, rows=400, seed=1)
    assert abs(float((weight * head.probability(X)).sum() / (weight * y).sum()) - 1.0) < 0.2


def test_calibration_recovers_the_odds_that_scores_were_drawn_from():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=200_000) * 2.0
    y = (rng.random(len(raw)) < 1.0 / (1.0 + np.exp(-(0.7 * raw - 1.5)))).astype(int)
    slope, intercept = platt(raw, y, np.ones(len(raw)))
    assert (round(slope, 1), round(intercept, 1)) == (0.7, -1.5)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(-30, 30), st.integers(0, 1), st.sampled_from([0.5, 1.0, 6.0])), min_size=1, max_size=30
    )
)
def test_calibration_ends_where_no_step_is_likelier(rows):
    """Separable, constant, single-class and extreme scores included."""
    raw, y, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    high, low = weight[y == 1].sum(), weight[y == 0].sum()
    target = np.where(y == 1, (high + 1) / (high + 2), 1 / (low + 2))

    def loss(slope, intercept):
        x = slope * raw + intercept
        return math.fsum(weight * (np.logaddexp(0.0, x) - target * x))

    slope, intercept = platt(raw, y, weight)
    best = loss(slope, intercept)
    for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, -0.01), (-0.01, 0.01)):
        assert best <= loss(slope + a, intercept + b) + 1e-9 * (1 + abs(best))


def test_folds_hold_whole_machines_and_share_out_the_failures():
    groups = np.repeat([5, 1, 9, 4, 7, 2], 10)
    y = np.zeros(60, int)
    for machine, failures in {5: 6, 1: 3, 9: 3, 4: 1, 7: 0, 2: 0}.items():
        y[np.flatnonzero(groups == machine)[:failures]] = 1
    fold = machine_folds(y, groups, 3, np.ones(60, bool))
    assert all(len(set(fold[groups == machine])) == 1 for machine in np.unique(groups))
    assert sorted(int(y[fold == k].sum()) for k in range(3)) == [3, 4, 6]
    assert sorted(int((fold == k).sum()) for k in range(3)) == [20, 20, 20]


def test_two_failing_machines_make_two_folds_though_more_are_asked():
    y = np.array([1, 0, 1, 0, 0, 0])
    assert set(machine_folds(y, np.array([1, 1, 2, 2, 3, 3]), 5, np.ones(6, bool)).tolist()) == {0, 1}


@pytest.mark.parametrize("y", [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
def test_failures_on_one_machine_only_are_refused_with_a_remedy(y):
    with pytest.raises(ValueError, match="group by blocks of time"):
        machine_folds(np.array(y), np.array([1, 1, 2, 2, 3, 3]), 3, np.ones(6, bool))


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"max_iters": 3}, "failure.parameters: 'max_iters' is unknown or fixed; known are"),
        ({"early_stopping": True}, "'early_stopping' is unknown or fixed"),
        ({"max_iter": -1}, "The 'max_iter' parameter"),
    ],
)
def test_unknown_and_refused_parameters_are_named(params, why):
    X, y, weight, groups = fleet(machines=3, rows=50)
    with pytest.raises(ValueError, match=why):
        fit_failure_head(X, y, weight, groups, COLUMNS, params, 0, 2)
