"""What each feature adds to a forest's score: path-dependent TreeSHAP, in one compiled loop.

Lundberg et al. (2020), "From local explanations to global understanding with explainable AI for trees", Nat. Mach.
Intell. 2, Algorithm 2. A leaf is taken at a time, with the different features on its path; the share of training rows
that took a branch stands for a feature that is not known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64
from closedloop.heads.trees import LEAF, Forest, Int32, UInt8


class Paths(NamedTuple):
    """A forest laid out for :func:`explain`, leaf by leaf; made by :meth:`of`.

    Leaf k has ``value[k]`` and the conditions ``first[k]`` to ``first[k + 1]``, one for each feature on its path: x
    stays on it where ``low < x <= high``, or where x is NaN and ``missing`` is 1. ``share`` of the training rows stay.
    ``base`` is the mean raw score.
    """

    value: Float64
    first: Int64
    feature: Int64
    low: Float64
    high: Float64
    missing: UInt8
    share: Float64
    base: float

    @classmethod
    def of(cls, forest: Forest, columns: Int32) -> Paths:
        """Lay a forest out; its feature i is column ``columns[i]`` of the features explained.

        Raises:
            ValueError: the forest is not valid, or does not know its cover.
        """
        forest.check(len(columns))
        if forest.cover is None:
            raise ValueError("it was trained without cover: train again")
        parent = np.full(len(forest.left), LEAF, np.int64)
        inner = np.flatnonzero(forest.left != LEAF)
        parent[forest.left[inner]] = parent[forest.left[inner] + 1] = inner
        values: list[float] = []
        first, conditions, mean = [0], [], 0.0
        for leaf in np.flatnonzero(forest.left == LEAF).tolist():
            own: dict[int, list[float]] = {}
            held, node = 1.0, leaf
            while (above := int(parent[node])) != LEAF:
                left = node == forest.left[above]
                condition = own.setdefault(int(columns[forest.feature[above]]), [-np.inf, np.inf, 1.0, 1.0])
                if left:
                    condition[1] = min(condition[1], float(forest.threshold[above]))
                else:
                    condition[0] = max(condition[0], float(forest.threshold[above]))
                condition[2] *= float(bool(forest.missing_left[above]) == left)
                condition[3] *= float(forest.cover[node] / forest.cover[above])
                held *= float(forest.cover[node] / forest.cover[above])
                node = above
            conditions += [(feature, *condition) for feature, condition in own.items()]
            first.append(len(conditions))
            values.append(float(forest.threshold[leaf]) / forest.divisor)
            mean += values[-1] * held
        table = np.array(conditions, np.float64).reshape(-1, 5)
        feature, low, high, missing, share = (np.ascontiguousarray(column) for column in table.T)
        layout = np.array(first, np.int64), feature.astype(np.int64), low, high, missing.astype(np.uint8), share
        return cls(np.array(values), *layout, forest.baseline / forest.divisor + mean)


def explain(paths: Paths, x: Float64) -> Float64:
    """What each value of x (features) adds to the forest's raw score.

    ``paths.base`` plus the sum is the raw score, but for rounding. NaN goes the way that the forest sends it.
    """
    out = np.zeros(len(x))
    _explain(paths, x, out)
    return out


@njit(cache=True, nogil=True)
def _explain(paths: Paths, x: Float64, out: Float64) -> None:
    value, first, feature, low, high, missing, share, _ = paths
    longest = 1
    for leaf in range(len(value)):
        longest = max(longest, first[leaf + 1] - first[leaf])
    stays, weight = np.empty(longest, np.bool_), np.empty(longest + 1)
    one_by = 1.0 / np.arange(1.0, longest + 2.0)  # a division takes longer than all else here
    for leaf in range(len(value)):
        begin, count = first[leaf], first[leaf + 1] - first[leaf]
        for k in range(count):
            v = x[feature[begin + k]]
            stays[k] = missing[begin + k] != 0 if v != v else low[begin + k] < v <= high[begin + k]
        _extend(count, begin, share, stays, one_by, weight)
        for k in range(count):
            sums = _unwound(share[begin + k], stays[k], count, one_by, weight)
            out[feature[begin + k]] += sums * ((1.0 if stays[k] else 0.0) - share[begin + k]) * value[leaf]


@njit(cache=True, nogil=True)
def _extend(count: int, begin: int, share: Float64, stays: NDArray[np.bool_], one_by: Float64, weight: Float64) -> None:
    """The weights of all sets of features by their size."""
    weight[0] = 1.0
    for k in range(count):
        weight[k + 1] = 0.0
        for i in range(k, -1, -1):
            if stays[k]:
                weight[i + 1] += weight[i] * (i + 1) * one_by[k + 1]
            weight[i] *= share[begin + k] * (k + 1 - i) * one_by[k + 1]


@njit(cache=True, nogil=True)
def _unwound(share: float, stays: bool, count: int, one_by: Float64, weight: Float64) -> float:
    """The sum of the weights without a feature."""
    total, following = 0.0, weight[count]
    if stays:
        each = share * one_by[count]
        for i in range(count - 1, -1, -1):
            own = following * (count + 1) * one_by[i]
            total += own
            following = weight[i] - own * each * (count - i)
    else:
        for i in range(count - 1, -1, -1):
            total += weight[i] * one_by[count - i - 1]
        total *= (count + 1) / share
    return total
