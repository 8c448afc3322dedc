"""MLlib's ensembles, flattened: the leaf, class and probability that Spark itself gives, and nothing truncated."""

import numpy as np
import pyarrow as pa
import pytest

from closedloop.heads.trees import walk
from closedloop.spark import estimators
from closedloop.spark.trees import MISSING, flat, flat_nodes, trained, vectors
from model.common.estimators import parameters

ROWS, FEATURES = 2000, 6
PARAMETERS = {"random_forest": {"numTrees": 8, "maxDepth": 5}, "gradient_boosted_trees": {"maxIter": 6, "maxDepth": 3}}


def fleet_like():
    """Features (features, rows) with missing values, and a class that depends on them and on what is missing."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(FEATURES, ROWS))
    X[rng.random(X.shape) < 0.1] = np.nan
    odds = np.nan_to_num(2 * X[0] - X[1]) + 2 * np.isnan(X[2]) - 2
    return X, rng.random(ROWS) < 1 / (1 + np.exp(-odds))


def data_frame(spark, X, y):
    from pyspark.ml.functions import array_to_vector

    table = pa.table({"x": list(vectors(X).T), "label": y.astype(float), "weight": np.where(y, 3.0, 1.0)})
    made = spark.createDataFrame(table.append_column("row", pa.array(np.arange(len(y)))))
    return made.select(array_to_vector("x").alias("features"), "label", "weight", "row")


@pytest.mark.parametrize("name", estimators.NAMES)
def test_leaf_class_and_probability_are_those_of_spark(spark, name):
    X, y = fleet_like()
    rows = data_frame(spark, X, y)
    model = estimators.estimator(name, PARAMETERS[name], seed=7).setLeafCol("leaf").fit(rows)
    forest = flat(model, spark)
    raw = walk(forest, X)
    ours = raw if name == "random_forest" else 1 / (1 + np.exp(-raw))
    found = model.transform(rows).orderBy("row").select("probability", "prediction", "leaf").collect()
    theirs = np.array([row.probability[1] for row in found])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-15)
    assert (ours > 0.5).tolist() == [row.prediction == 1 for row in found]
    leaves = np.array([row.leaf.toArray() for row in found]).T
    for k, theirs_of_tree in enumerate(leaves):
        assert len(set(zip(theirs_of_tree, leaf_of(forest, k, X), strict=True))) == len(set(theirs_of_tree))
    assert forest.missing_left[forest.left >= 0].all()
    assert 0.1 < theirs.std() < 0.5  # it learned something


@pytest.mark.parametrize("name", estimators.NAMES)
def test_every_parameter_is_one_of_mllib(spark, name):
    made = estimators.estimator(name, {}, seed=7)
    assert [one for one in parameters(name) if not made.hasParam(one)] == []


def leaf_of(forest, tree, X):
    """The node at which each row ends in one tree."""
    node = np.full(X.shape[1], forest.roots[tree])
    while (inner := forest.left[node] >= 0).any():
        x = X[forest.feature[node], np.arange(X.shape[1])]
        right = (x > forest.threshold[node]) & ~np.isnan(x)
        node = np.where(inner, forest.left[node] + right, node)
    return node


def test_a_warning_of_the_server_that_trains_is_a_refusal(spark):
    """Spark Connect caps the size of a model, and only logs it (pyspark.ml.util passes the warning on)."""

    class Truncating:
        def fit(self, rows):
            import logging

            logging.getLogger("pyspark.ml.util").warning("The random forest training stops early because …")

    with pytest.raises(ValueError, match="Spark truncated the ensemble: The random forest training stops early"):
        trained(Truncating(), data_frame(spark, *fleet_like()))


def nodes(**changes):
    """One tree of a split and two leaves, as MLlib saves it."""
    columns = {
        "treeID": [0, 0, 0],
        "id": [0, 1, 2],
        "prediction": [0.0, 0.0, 1.0],
        "impurityStats": [[4.0, 4.0], [4.0, 0.0], [1.0, 3.0]],
        "rawCount": [16, 8, 8],
        "leftChild": [1, -1, -1],
        "rightChild": [2, -1, -1],
        "featureIndex": [0, -1, -1],
        "leftCategoriesOrThreshold": [[0.5], [], []],
        "numCategories": [-1, -1, -1],
    }
    return pa.table(columns | changes)


def test_nodes_in_any_order_become_a_tree():
    shuffled = nodes().take([2, 0, 1])
    forest = flat_nodes(shuffled, np.ones(1), boosted=False, trees=1)
    assert walk(forest, np.array([[0.5, 0.6, np.nan, MISSING]])).tolist() == [0.0, 0.75, 0.0, 0.0]
    assert forest.cover.tolist() == [16, 8, 8]


def test_a_tree_that_is_not_there_is_a_truncated_ensemble():
    with pytest.raises(ValueError, match=r"it has 1 of 3 trees; train fewer or shallower trees"):
        flat_nodes(nodes(), np.ones(1), boosted=True, trees=3)


def test_splits_on_categories_are_refused():
    with pytest.raises(ValueError, match="splits on categories"):
        flat_nodes(nodes(numCategories=[2, -1, -1]), np.ones(1), boosted=False, trees=1)


def test_another_model_of_mllib_is_refused():
    with pytest.raises(ValueError, match="dict cannot be flattened; train a random forest"):
        flat({}, None)


def test_a_forest_of_rows_without_a_failure_is_refused():
    """MLlib counts as many classes as it has seen."""
    with pytest.raises(ValueError, match="had one class alone"):
        flat_nodes(nodes(impurityStats=[[8.0], [4.0], [4.0]]), np.ones(1), boosted=False, trees=1)
