"""scikit-learn's tree ensembles as flat arrays, evaluated by one compiled loop, bit-equal to scikit-learn.

A tree's nodes are stored in breadth-first order with siblings side by side, so a node needs one child index and every
child is stored after its parent. Once :meth:`Forest.check` has passed, a forged tree can neither loop nor leave its
arrays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
# left, right, feature, threshold, missing_left, value, cover, by node
Tree = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]

LEAF = -1
LANES = 8  # trees walked at once: their cache misses overlap. 6 to 12 measured alike, 4 and 16 a third slower
BLOCK_ROWS = 64  # rows for which one group of trees stays in the first-level cache
ROWS_WORTH_A_THREAD = 4096


@dataclass(frozen=True)
class Forest:
    """An ensemble: ``raw(x) = (baseline + sum over trees of the value of the leaf that x reaches) / divisor``.

    Tree k owns nodes ``roots[k]`` to ``roots[k + 1]``. At an inner node x goes to ``left`` when
    ``x[feature] <= threshold``, or when it is NaN and ``missing_left``; else to ``left + 1``. At a leaf ``left`` is
    -1 and ``threshold`` holds the leaf's value. ``cover`` is how many training rows each node held, which only
    explanations read; older bundles do not have it.
    """

    threshold: Float64
    feature: Int32
    left: Int32
    missing_left: UInt8
    roots: Int32
    baseline: float
    divisor: float
    cover: Float64 | None = None

    def check(self, features: int) -> None:
        """Check that a walk over ``features`` columns ends and stays inside the arrays.

        Raises:
            ValueError: the arrays are not such a forest.
        """
        nodes = len(self.threshold)
        if not len(self.feature) == len(self.left) == len(self.missing_left) == nodes:
            raise ValueError("node arrays differ in length")
        sizes = self.roots[1:].astype(np.int64) - self.roots[:-1]
        if len(self.roots) < 2 or self.roots[0] != 0 or self.roots[-1] != nodes or (sizes < 1).any():
            raise ValueError("roots do not divide the nodes into trees")
        inner = self.left != LEAF
        child, own = self.left[inner].astype(np.int64), np.flatnonzero(inner)
        if (child <= own).any() or (child + 1 >= np.repeat(self.roots[1:], sizes)[inner]).any():
            raise ValueError("a child does not lie behind its parent in the same tree")
        if inner.any() and not 0 <= self.feature[inner].min() <= self.feature[inner].max() < features:
            raise ValueError(f"a split reads a feature outside the {features} known")
        if np.isnan(self.threshold).any() or not np.isfinite(self.threshold[~inner]).all():
            raise ValueError("a threshold is NaN or the value of a leaf not finite")
        if not math.isfinite(self.baseline) or not (math.isfinite(self.divisor) and self.divisor > 0):
            raise ValueError("baseline or divisor is not a usable number")
        if self.cover is not None and not (len(self.cover) == nodes and _above_zero(self.cover)):
            raise ValueError("'cover' is not a number above 0 for each node")


class Stack(NamedTuple):
    """Several forests laid out for one compiled walk; made by :meth:`of`, which checks them.

    A leaf is its own child and its threshold is infinite, so that trees of different depth are walked together,
    ``depth`` steps each, without a branch. ``feature`` is a column shifted by one bit; the lowest bit sends NaN to the
    right. Forest k owns the trees ``first[k]`` to ``first[k + 1]``.
    """

    threshold: Float64
    feature: UInt32
    left: UInt32
    value: Float64
    roots: UInt32
    depth: Int64
    first: Int64
    baseline: Float64
    divisor: Float64

    @classmethod
    def of(cls, forests: Sequence[Forest], columns: Sequence[Int32], width: int) -> Stack:
        """Join forests; feature i of forest k is column ``columns[k][i]`` of the ``width`` columns walked.

        Raises:
            ValueError: a forest is not valid, or a column lies outside the width.
        """
        for forest, used in zip(forests, columns, strict=True):
            forest.check(len(used))
            if len(used) and not 0 <= used.min() <= used.max() < width:
                raise ValueError(f"a feature lies outside the {width} columns")
        parts: list[tuple[NDArray[Any], ...]] = []
        at, roots, first = 0, [np.zeros(1, np.int64)], [0]
        for forest, used in zip(forests, columns, strict=True):
            leaf, own = forest.left == LEAF, np.arange(len(forest.left)) + at
            column = np.zeros(len(own), np.int64)
            column[~leaf] = used[forest.feature[~leaf]]
            parts.append(
                (
                    np.where(leaf, np.inf, forest.threshold),
                    2 * column + (~leaf & (forest.missing_left == 0)),
                    np.where(leaf, own, forest.left.astype(np.int64) + at),
                    np.where(leaf, forest.threshold, 0.0),
                )
            )
            roots.append(forest.roots[1:].astype(np.int64) + at)
            first.append(first[-1] + len(forest.roots) - 1)
            at += len(own)
        threshold, feature, left, value = (np.concatenate(part) for part in zip(*parts, strict=True))
        return cls(
            threshold=threshold,
            feature=feature.astype(np.uint32),
            left=left.astype(np.uint32),
            value=value,
            roots=np.concatenate(roots).astype(np.uint32),
            depth=_depths(left, np.concatenate(roots)),
            first=np.array(first, np.int64),
            baseline=np.array([forest.baseline for forest in forests], np.float64),
            divisor=np.array([forest.divisor for forest in forests], np.float64),
        )


def _above_zero(values: Float64) -> bool:
    return bool((values > 0).all() and np.isfinite(values).all())


def walk(forest: Forest, X: Float64) -> Float64:
    """Raw prediction (rows) for feature-major X (features, rows), bit-equal to scikit-learn's.

    The raw prediction is the ``decision_function`` of histogram gradient boosting (``predict`` of its regressor), the
    probability of class 1 of a random forest, and of an isolation forest the mean depth over its expectation, so that
    ``score_samples = -2 ** -raw``.

    Raises:
        ValueError: the forest is not valid, or reads more features than X has.
    """
    X = np.ascontiguousarray(X, np.float64)
    return walk_stack(Stack.of([forest], [np.arange(len(X), dtype=np.int32)], len(X)), X)[0]


def walk_stack(stack: Stack, X: Float64, extra: Float64 | None = None, logistic: Float64 | None = None) -> Float64:
    """Raw predictions (forests, rows) of C-contiguous X (features, rows) and, below it, ``extra`` (features, rows).

    With ``logistic`` (2, forests) they are probabilities, ``expit(logistic[0] * raw + logistic[1])``. Many rows are
    divided among threads; the bits of each row depend on that row alone.
    """
    rows = X.shape[1]
    extra = np.empty((0, rows)) if extra is None else extra
    logistic = np.empty((0, 0)) if logistic is None else logistic
    out = np.empty((len(stack.baseline), rows))
    if rows < 2 * ROWS_WORTH_A_THREAD:
        _walk(stack, X, extra, logistic, 0, rows, out)
        return out
    workers = min(os.cpu_count() or 1, rows // ROWS_WORTH_A_THREAD)
    edges = [rows * k // workers for k in range(workers + 1)]

    def part(k: int) -> None:
        _walk(stack, X, extra, logistic, edges[k], edges[k + 1], out)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(part, range(workers)))
    return out


@njit(cache=True, nogil=True)
def expit(x: float) -> float:
    """The logistic function as SciPy computes it, from the C library's exponential."""
    return 1.0 / (1.0 + math.exp(-x))


@njit(cache=True, nogil=True)
def _walk(stack: Stack, X: Float64, extra: Float64, logistic: Float64, begin: int, end: int, out: Float64) -> None:
    threshold, feature, left, value, roots, depth, first, baseline, divisor = stack
    # unsigned indexes: signed ones cost a test for negative values at each access, a third of the whole time
    one = np.uint32(1)
    features = X.shape[0]
    block = np.empty((min(BLOCK_ROWS, end - begin), features + extra.shape[0]))
    lanes = np.empty(LANES, np.uint64)
    for start in range(begin, end, BLOCK_ROWS):
        count = min(BLOCK_ROWS, end - start)
        for f in range(features):
            for r in range(count):
                block[r, f] = X[f, start + r]
        for f in range(extra.shape[0]):
            for r in range(count):
                block[r, features + f] = extra[f, start + r]
        for k in range(len(baseline)):
            for r in range(count):
                out[k, start + r] = baseline[k]
            for tree in range(first[k], first[k + 1], LANES):
                trees = min(LANES, first[k + 1] - tree)
                steps = 0
                for j in range(trees):
                    steps = max(steps, depth[tree + j])
                for r in range(count):
                    x = block[r]
                    for j in range(LANES):
                        lanes[j] = roots[tree + min(j, trees - 1)]
                    for _ in range(steps):
                        for j in range(LANES):
                            i = lanes[j]
                            split = feature[i]
                            v = x[split >> one]
                            lanes[j] = left[i] + np.uint64((v > threshold[i]) | ((v != v) & ((split & one) != 0)))
                    total = out[k, start + r]
                    for j in range(trees):  # in the order of the trees, as scikit-learn adds
                        total += value[lanes[j]]
                    out[k, start + r] = total
            for r in range(count):
                out[k, start + r] /= divisor[k]
                if len(logistic):
                    out[k, start + r] = expit(logistic[0, k] * out[k, start + r] + logistic[1, k])


def flatten(estimator: Any) -> Forest:
    """The flat form of a fitted scikit-learn ensemble.

    The known estimators are HistGradientBoostingClassifier (two classes) and -Regressor, RandomForestClassifier and
    ExtraTreesClassifier (two classes, of which class 1 is positive), and IsolationForest.

    Raises:
        ValueError: the estimator is of another kind, has more outputs, or splits on categories.
    """
    name, kinds = type(estimator).__name__, {kind.__name__ for kind in type(estimator).__mro__}
    if "BaseHistGradientBoosting" in kinds:
        if estimator.n_trees_per_iteration_ != 1:
            raise ValueError(f"{name}: more than two classes cannot be flattened; fit one head for each component")
        if estimator.is_categorical_ is not None and estimator.is_categorical_.any():
            raise ValueError(f"{name}: categorical splits cannot be flattened; set categorical_features=None")
        boosted = (_boosted(predictor.nodes) for (predictor,) in estimator._predictors)
        return build(boosted, float(estimator._baseline_prediction.item()), 1.0)
    if "IsolationForest" in kinds:
        return _isolation(estimator)
    if "ForestClassifier" in kinds:
        if estimator.n_outputs_ != 1 or estimator.n_classes_ != 2:
            raise ValueError(f"{name}: only two classes can be flattened; fit one head for each component")
        trees = [member.tree_ for member in estimator.estimators_]
        return build((_binary32(tree, tree.value[:, 0, 1]) for tree in trees), 0.0, float(len(trees)))
    raise ValueError(f"{name} cannot be flattened; use hist_gradient_boosting, a random forest or an isolation forest")


def _boosted(nodes: NDArray[Any]) -> Tree:
    leaf = nodes["is_leaf"] != 0
    left = np.where(leaf, LEAF, nodes["left"].astype(np.int64))
    fields = (
        nodes["feature_idx"],
        nodes["num_threshold"],
        nodes["missing_go_to_left"],
        nodes["value"],
        nodes["count"],
    )
    return left, nodes["right"].astype(np.int64), *fields


def _binary32(tree: Any, value: Float64, features: NDArray[Any] | None = None) -> Tree:
    feature = tree.feature if features is None else np.where(tree.feature < 0, 0, features[tree.feature])
    cut = as_float64_cut(tree.threshold)
    cover = tree.weighted_n_node_samples
    return tree.children_left, tree.children_right, feature, cut, tree.missing_go_to_left, value, cover


def _isolation(estimator: Any) -> Forest:
    # the value of a leaf is its depth plus the expected depth of a tree over the rows it holds (Liu, Ting, Zhou 2008)
    trees = (
        _binary32(member.tree_, lengths[0] + lengths[1] - 1.0, columns)
        for member, columns, *lengths in zip(
            estimator.estimators_,
            estimator.estimators_features_,
            estimator._decision_path_lengths,
            estimator._average_path_length_per_tree,
            strict=True,
        )
    )
    rows = estimator._max_samples
    if rows <= 1:  # depth and expectation are both 0; scikit-learn then sets their ratio to 1
        return build(trees, 1.0, 1.0)
    expected = 1.0 if rows == 2 else 2.0 * (np.log(rows - 1.0) + np.euler_gamma) - 2.0 * (rows - 1.0) / rows
    return build(trees, 0.0, float(len(estimator.estimators_) * expected))


def build(trees: Iterable[Tree], baseline: float, divisor: float) -> Forest:
    """The flat form of trees whose nodes may be in any order, the root first."""
    cuts, features, lefts, missing, covers, roots = [], [], [], [], [], [0]
    for left, right, feature, threshold, missing_left, value, cover in trees:
        order, child = _breadth_first(left.astype(np.int64), right.astype(np.int64))
        leaf = child == LEAF
        cuts.append(np.where(leaf, value[order], threshold[order]))
        features.append(np.where(leaf, 0, feature[order]).astype(np.int32))
        lefts.append(np.where(leaf, LEAF, child + roots[-1]).astype(np.int32))
        missing.append((~leaf & (missing_left[order] != 0)).astype(np.uint8))
        covers.append(cover[order].astype(np.float64))
        roots.append(roots[-1] + len(order))
    arrays = np.concatenate(cuts), np.concatenate(features), np.concatenate(lefts), np.concatenate(missing)
    return Forest(*arrays, np.array(roots, np.int32), baseline, divisor, np.concatenate(covers))


def as_float64_cut(threshold: Float64) -> Float64:
    """The largest float64 whose float32 rounding does not exceed ``threshold``.

    scikit-learn's forests compare ``float32(x) <= threshold``. Rounding is monotonic, so the values that pass end
    halfway between the last float32 that passes and the next one; a tie goes to the even one of the two.
    """
    with np.errstate(over="ignore"):
        last = threshold.astype(np.float32)
        last = np.where(last > threshold, np.nextafter(last, np.float32(-np.inf)), last)
        following = np.nextafter(last, np.float32(np.inf))
    edge = 2.0**128  # where the float32 after the largest would lie, were it not infinite
    low, high = (np.clip(value.astype(np.float64), -edge, edge) for value in (last, following))
    middle = low + (high - low) / 2
    even = (last.view(np.uint32) & 1) == 0
    return np.where(np.isposinf(last), np.inf, np.where(even, middle, np.nextafter(middle, -np.inf)))


@njit(cache=True, nogil=True)
def _breadth_first(left: Int64, right: Int64) -> tuple[Int64, Int64]:
    order, child = np.zeros(len(left), np.int64), np.full(len(left), -1, np.int64)
    known = 1
    for k in range(len(left)):
        node = order[k]
        if left[node] >= 0:
            child[k] = known
            order[known], order[known + 1] = left[node], right[node]
            known += 2
    return order, child


@njit(cache=True, nogil=True)
def _depths(left: Int64, roots: Int64) -> Int64:
    level, out = np.zeros(len(left), np.int64), np.zeros(len(roots) - 1, np.int64)
    for tree in range(len(out)):
        for i in range(roots[tree], roots[tree + 1]):
            out[tree] = max(out[tree], level[i])
            if left[i] != i:
                level[left[i]] = level[left[i] + 1] = level[i] + 1
    return out
