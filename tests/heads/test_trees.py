from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)

from closedloop.heads import trees
from closedloop.heads.trees import Forest, Stack, as_float64_cut, expit, flatten, walk, walk_stack

SEEDS = range(4)


def data(seed, missing=True, rows=400, features=7):
    """Rows with a constant column, a coarse one, values of all magnitudes and, unless told, missing ones."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * 10.0 ** rng.integers(-3, 4, features)
    X[:, 0] = 1.5
    X[:, 1] = np.round(X[:, 1] / np.abs(X[:, 1]).max() * 4)
    y = (X[:, 2] / np.abs(X[:, 2]).max() + rng.normal(size=rows) * 0.3 > 0.1).astype(int)
    if missing:
        X[rng.random(X.shape) < 0.1] = np.nan
    return X, y


def hostile(X, seed):
    """The same rows with infinities, values never seen, and missing ones where training had none."""
    rng = np.random.default_rng([seed, 1])
    X = np.vstack([X, rng.normal(size=X.shape) * 1e6])
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300):
        X[rng.random(X.shape) < 0.03] = value
    return X


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("missing", [True, False])
def test_boosted_trees_give_the_bits_of_scikit_learn(seed, missing):
    X, y = data(seed, missing)
    model = HistGradientBoostingClassifier(max_iter=19, max_leaf_nodes=2 + 9 * seed, min_samples_leaf=5).fit(X, y)
    Z = hostile(X, seed)
    raw = walk(flatten(model), Z.T)
    assert model.decision_function(Z).tobytes() == raw.tobytes()
    assert model.predict_proba(Z)[:, 1].tobytes() == np.array([expit(value) for value in raw]).tobytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_boosted_regression_gives_the_bits_of_scikit_learn(seed):
    X, _ = data(seed)
    model = HistGradientBoostingRegressor(max_iter=9, min_samples_leaf=5).fit(X, np.nan_to_num(X[:, 3]))
    Z = hostile(X, seed)
    assert model.predict(Z).tobytes() == walk(flatten(model), Z.T).tobytes()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_random_forests_give_the_bits_of_scikit_learn(kind, seed, missing):
    X, y = data(seed, missing)
    model = kind(n_estimators=11, max_depth=(None, 3)[seed % 2], random_state=seed).fit(X, y)
    Z, _ = data(seed + 100, missing)
    assert model.predict_proba(Z)[:, 1].tobytes() == walk(flatten(model), Z.T).tobytes()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("parameters", [{}, {"max_features": 0.5}, {"max_samples": 2}, {"max_samples": 1}])
def test_isolation_forests_give_the_depths_of_scikit_learn(seed, parameters):
    X, _ = data(seed)
    model = IsolationForest(n_estimators=9, random_state=seed, **parameters).fit(X)
    Z, _ = data(seed + 100)
    raw = walk(flatten(model), Z.T)
    # NumPy's power differs from one processor to the next, so the depths are compared through it
    assert model.score_samples(Z).tobytes() == (-(2 ** (-raw))).tobytes()


def test_trees_that_never_split_answer_with_their_leaf():
    X = np.ones((50, 3))
    y = np.arange(50) % 5 == 0
    for model in (HistGradientBoostingClassifier(max_iter=3), RandomForestClassifier(n_estimators=3)):
        model.fit(X, y)
        forest = flatten(model)
        assert forest.roots.tolist() == [0, 1, 2, 3]
        expected = model.decision_function(X) if hasattr(model, "decision_function") else model.predict_proba(X)[:, 1]
        assert expected.tobytes() == walk(forest, X.T).tobytes()


LARGEST = float(np.finfo(np.float32).max)
# around every float32 there are doubles that round to it from both sides; cuts need not be float32 numbers
doubles = st.one_of(st.floats(allow_nan=False), st.floats(width=32, allow_nan=False))


@given(threshold=doubles, value=doubles, steps=st.integers(-3, 3))
@example(threshold=np.inf, value=1e300, steps=0)
@example(threshold=-np.inf, value=-1e300, steps=0)
@example(threshold=LARGEST, value=2.0**128 - 2.0**103, steps=-1)
@example(threshold=-LARGEST, value=2.0**103 - 2.0**128, steps=1)
@example(threshold=-0.0, value=7e-46, steps=1)
@example(threshold=1.0, value=1.0 + 2.0**-24, steps=0)  # halfway: to the even
@example(threshold=1.0 + 2.0**-23, value=1.0 + 3 * 2.0**-24, steps=0)  # halfway: away from the odd
def test_a_double_passes_its_cut_just_when_its_float32_passes_the_threshold(threshold, value, steps):
    cut = as_float64_cut(np.array([threshold]))[0]
    near = cut
    for _ in range(abs(steps)):
        near = np.nextafter(near, np.inf * steps)
    for x in (value, threshold, near):
        with np.errstate(over="ignore"):
            assert (float(np.float64(x).astype(np.float32)) <= threshold) == bool(x <= cut)


def test_many_rows_in_threads_give_the_bits_of_one_row_at_a_time(monkeypatch):
    X, y = data(1)
    forest = flatten(HistGradientBoostingClassifier(max_iter=9, min_samples_leaf=5).fit(X, y))
    alone = np.concatenate([walk(forest, X[r : r + 1].T) for r in range(len(X))])
    monkeypatch.setattr(trees, "ROWS_WORTH_A_THREAD", 50)
    monkeypatch.setattr(trees.os, "cpu_count", lambda: 3)
    assert alone.tobytes() == walk(forest, X.T).tobytes()


def test_forests_walk_together_each_on_its_own_columns_as_alone():
    X, y = data(2)
    columns = [np.array([6, 2, 3], np.int32), np.array([7, 1, 2, 4, 5], np.int32)]
    extra = np.linspace(-1, 1, len(X))[None]
    whole = np.vstack([X.T, extra])
    models = [HistGradientBoostingClassifier(max_iter=5 + k).fit(whole[used].T, y) for k, used in enumerate(columns)]
    stack = Stack.of([flatten(model) for model in models], columns, len(whole))
    logistic = np.array([[0.5, 1.0], [-1.0, 0.0]])
    together = walk_stack(stack, np.ascontiguousarray(X.T), extra, logistic)
    for k, (model, used) in enumerate(zip(models, columns, strict=True)):
        raw = model.decision_function(whole[used].T)
        assert [expit(logistic[0, k] * value + logistic[1, k]) for value in raw] == together[k].tolist()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (HistGradientBoostingClassifier(max_iter=2), "more than two classes"),
        (RandomForestClassifier(n_estimators=2), "only two classes"),
        (HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]), "categorical"),
        (AdaBoostClassifier(n_estimators=2), "cannot be flattened"),
    ],
)
def test_what_cannot_be_flattened_is_refused(model, why):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (90, 2)).astype(float)
    classes = 2 if "categorical" in why else 3
    with pytest.raises(ValueError, match=why):
        flatten(model.fit(X, np.arange(90) % classes))


SOUND = Forest(
    threshold=np.array([0.0, 1.0, 2.0, 3.0]),
    feature=np.array([1, 0, 0, 0], np.int32),
    left=np.array([1, -1, -1, -1], np.int32),
    missing_left=np.zeros(4, np.uint8),
    roots=np.array([0, 3, 4], np.int32),
    baseline=0.0,
    divisor=1.0,
)


def test_the_sound_forest_that_the_forged_ones_vary_is_accepted():
    SOUND.check(2)
    assert walk(SOUND, np.array([[9.0, 9.0, 9.0], [-1.0, 1.0, np.nan]])).tolist() == [4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"left": np.array([0, -1, -1, -1], np.int32)}, "behind its parent"),
        ({"left": np.array([2, -1, -1, -1], np.int32)}, "in the same tree"),
        ({"left": np.array([2**31 - 1, -1, -1, -1], np.int32)}, "in the same tree"),
        ({"left": np.array([-2, -1, -1, -1], np.int32)}, "behind its parent"),
        ({"feature": np.array([2, 0, 0, 0], np.int32)}, "outside the 2"),
        ({"feature": np.array([-1, 0, 0, 0], np.int32)}, "outside the 2"),
        ({"feature": np.zeros(3, np.int32)}, "differ in length"),
        ({"missing_left": np.zeros(5, np.uint8)}, "differ in length"),
        ({"threshold": np.array([np.nan, 1.0, 2.0, 3.0])}, "NaN"),
        ({"threshold": np.array([0.0, np.inf, 2.0, 3.0])}, "not finite"),
        ({"roots": np.array([0, 4, 3], np.int32)}, "roots"),
        ({"roots": np.array([0, 3, 3, 4], np.int32)}, "roots"),
        ({"roots": np.array([1, 3, 4], np.int32)}, "roots"),
        ({"roots": np.array([0, 3], np.int32)}, "roots"),
        ({"roots": np.array([-(2**31), 2**31 - 1, 4], np.int32)}, "roots"),
        ({"roots": np.array([], np.int32)}, "roots"),
        ({"baseline": np.nan}, "baseline"),
        ({"divisor": 0.0}, "divisor"),
    ],
)
def test_a_forest_that_could_leave_its_arrays_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        replace(SOUND, **changes).check(2)


def test_a_walk_over_fewer_columns_than_the_forest_reads_is_refused():
    with pytest.raises(ValueError, match="outside the 1"):
        walk(SOUND, np.zeros((1, 5)))
    with pytest.raises(ValueError, match="outside the 5 columns"):
        Stack.of([SOUND], [np.array([0, 5], np.int32)], 5)
