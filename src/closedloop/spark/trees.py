"""Spark MLlib's tree ensembles as flat arrays, which are served without Spark and without Java.

MLlib refuses NaN. So it trains with a finite number below every value in place of NaN: such a row goes left at every
split, and the flat form says ``missing_left``. MLlib compares 64-bit numbers, ``x <= threshold``, and so do we.

The values of a leaf are what MLlib itself adds: of a random forest the share of class 1, of boosted trees the tree's
weight times its prediction. The probability of boosted trees is ``expit(2 * margin)``, so their divisor is a half.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from typing import Any

import numpy as np
import pyarrow as pa

from closedloop.data.schema import Float64
from closedloop.heads.trees import LEAF, Forest, build
from closedloop.spark.session import scratch

MISSING = -1e300  # stands for NaN in training; no reading or feature is that low
ADVICE = (
    "; train fewer or shallower trees, or raise "
    "spark.connect.session.connectML.mlCache.memoryControl.maxModelSize on the server of Spark Connect"
)


def vectors(X: Float64) -> Float64:
    """The same values with ``MISSING`` for NaN."""
    return np.where(np.isnan(X), MISSING, X)


def trained(estimator: Any, rows: Any) -> Forest:
    """Fit a RandomForestClassifier or GBTClassifier of MLlib to two classes, and return its flat form.

    Spark Connect stops where a model has grown too large, and only logs it.

    Raises:
        ValueError: the estimator is of another kind, or Spark truncated the ensemble.
    """
    warned = Warned()
    logger = logging.getLogger("pyspark.ml.util")
    logger.addHandler(warned)
    try:
        model = estimator.fit(rows)
    finally:
        logger.removeHandler(warned)
    if warned.said:
        raise ValueError(f"Spark truncated the ensemble: {warned.said[0].rstrip('. ')}{ADVICE}")
    return flat(model, rows.sparkSession)


class Warned(logging.Handler):
    """Collects the warnings that pyspark passes on from a server that trains."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the warning's text."""
        self.said.append(record.getMessage())


def flat(model: Any, spark: Any) -> Forest:
    """The flat form of a fitted RandomForestClassificationModel or GBTClassificationModel of two classes.

    Raises:
        ValueError: the model is of another kind, or lacks trees.
    """
    kind = type(model).__name__
    if kind not in ("RandomForestClassificationModel", "GBTClassificationModel"):
        raise ValueError(f"{kind} cannot be flattened; train a random forest or gradient-boosted trees")
    boosted = kind.startswith("GBT")
    nodes, weights = _stored(model, spark)
    return flat_nodes(nodes, weights, boosted=boosted, trees=model.getOrDefault("maxIter" if boosted else "numTrees"))


def _stored(model: Any, spark: Any) -> tuple[pa.Table, Float64]:
    """The nodes of all trees, and the weight of each tree, as MLlib saves them.

    There is no other way that all kinds of clusters allow: Spark Connect keeps a model on its server.
    """
    folder = scratch() / f"model-{uuid.uuid4().hex}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.write().save(str(folder))
        columns = ["treeID", "nodeData.*", "nodeData.split.featureIndex", "nodeData.split.leftCategoriesOrThreshold"]
        nodes = spark.read.parquet(str(folder / "data")).select(*columns, "nodeData.split.numCategories").toArrow()
        told = spark.read.parquet(str(folder / "treesMetadata")).toArrow()  # tree, its metadata, its weight
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    order = np.argsort(told.column(0).to_numpy())
    return nodes, told.column(2).to_numpy()[order]


def flat_nodes(nodes: pa.Table, weights: Float64, *, boosted: bool, trees: int) -> Forest:
    """The flat form of the nodes that MLlib saved, one a row; ``trees`` is how many trees there should be.

    Raises:
        ValueError: a tree is missing, a split is on categories, or the rows had one class alone.
    """
    if len(weights) != trees:
        raise ValueError(f"Spark truncated the ensemble: it has {len(weights)} of {trees} trees{ADVICE}")
    nodes = nodes.sort_by([("treeID", "ascending"), ("id", "ascending")])
    tree, left, right = (nodes[name].to_numpy() for name in ("treeID", "leftChild", "rightChild"))
    feature = nodes["featureIndex"].to_numpy()
    if ((left != LEAF) & (nodes["numCategories"].to_numpy() != -1)).any():
        raise ValueError("splits on categories cannot be flattened; give MLlib numbers alone")
    starts = np.searchsorted(tree, np.arange(trees + 1))
    threshold = np.zeros(len(tree))
    cuts = nodes["leftCategoriesOrThreshold"].combine_chunks()
    threshold[np.diff(cuts.offsets.to_numpy()) > 0] = cuts.flatten().to_numpy()
    value, cover = _leaves(nodes, weights, boosted), nodes["rawCount"].to_numpy()
    parts = []
    for k in range(trees):
        own = slice(starts[k], starts[k + 1])
        yes = np.ones(starts[k + 1] - starts[k], np.uint8)
        parts.append((left[own], right[own], np.maximum(feature[own], 0), threshold[own], yes, value[own], cover[own]))
    return build(parts, 0.0, 0.5 if boosted else float(trees))


def _leaves(nodes: pa.Table, weights: Float64, boosted: bool) -> Float64:
    """What each node adds to its ensemble's sum if it is a leaf."""
    if boosted:
        return nodes["prediction"].to_numpy() * weights[nodes["treeID"].to_numpy()]
    stats = nodes["impurityStats"].combine_chunks().flatten().to_numpy()
    if len(stats) != 2 * len(nodes):
        raise ValueError("the rows that it was trained on had one class alone; give more machines or fewer folds")
    stats = stats.reshape(-1, 2)
    return stats[:, 1] / (stats[:, 0] + stats[:, 1])
