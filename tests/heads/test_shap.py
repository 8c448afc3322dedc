"""TreeSHAP against its definition: the mean over all orders of what knowing a feature changes."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier

from closedloop.heads.shap import Paths, explain
from closedloop.heads.trees import LEAF, flatten, walk

FEATURES = 4
COLUMNS = np.arange(FEATURES, dtype=np.int32)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(400, FEATURES))
    X[rng.random(X.shape) < 0.1] = np.nan
    filled = np.nan_to_num(X)
    return X, (filled[:, 0] * filled[:, 1] + filled[:, 2] > 0.3).astype(int)


def expected(forest, x, known):
    """The raw score where only these features are known."""

    def below(node):
        left, feature = forest.left[node], forest.feature[node]
        if left == LEAF:
            return forest.threshold[node]
        if feature in known:
            v = x[feature]
            right = not forest.missing_left[node] if np.isnan(v) else v > forest.threshold[node]
            return below(left + int(right))
        share = forest.cover[left] / forest.cover[node]
        return share * below(left) + (1 - share) * below(left + 1)

    return (forest.baseline + sum(below(root) for root in forest.roots[:-1])) / forest.divisor


def by_definition(forest, x):
    found = np.zeros(FEATURES)
    for feature in range(FEATURES):
        rest = [other for other in range(FEATURES) if other != feature]
        for size in range(FEATURES):
            weight = math.factorial(size) * math.factorial(FEATURES - size - 1) / math.factorial(FEATURES)
            for known in map(set, combinations(rest, size)):
                found[feature] += weight * (expected(forest, x, known | {feature}) - expected(forest, x, known))
    return found


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=9, max_leaf_nodes=8, random_state=1),
        RandomForestClassifier(7, max_depth=5, random_state=2),
        IsolationForest(n_estimators=5, random_state=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_it_is_shapleys_value_and_adds_up_to_the_score(data, model):
    X, y = data
    complete = np.nan_to_num(X) if isinstance(model, IsolationForest) else X
    forest = flatten(model.fit(complete, y))
    paths = Paths.of(forest, COLUMNS)
    for x in complete[:6]:
        found = explain(paths, x)
        np.testing.assert_allclose(found, by_definition(forest, x), atol=1e-12)
        assert paths.base + found.sum() == pytest.approx(walk(forest, x[:, None])[0], abs=1e-12)
    assert paths.base == pytest.approx(expected(forest, complete[0], set()), abs=1e-12)


def test_columns_say_which_values_a_forest_reads(data):
    X, y = data
    forest = flatten(HistGradientBoostingClassifier(max_iter=5, random_state=1).fit(X, y))
    moved = np.array([5, 2, 0, 3], np.int32)
    x = np.full(7, np.nan)
    x[moved] = X[0]
    found = explain(Paths.of(forest, moved), x)
    np.testing.assert_array_equal(found[moved], explain(Paths.of(forest, COLUMNS), X[0]))
    assert found[[1, 4, 6]].tolist() == [0, 0, 0]


def test_a_forest_without_cover_says_so(data):
    X, y = data
    forest = flatten(HistGradientBoostingClassifier(max_iter=2, random_state=1).fit(X, y))
    with pytest.raises(ValueError, match="without cover: train again"):
        Paths.of(replace(forest, cover=None), COLUMNS)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_a_cover_that_is_no_number_of_rows_is_refused(data, wrong):
    X, y = data
    forest = flatten(HistGradientBoostingClassifier(max_iter=2, random_state=1).fit(X, y))
    cover = forest.cover.copy()
    cover[-1] = wrong
    with pytest.raises(ValueError, match="cover"):
        replace(forest, cover=cover).check(FEATURES)
