"""Fit one component's failure head: boosted trees, calibrated by cross-validation over machines."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from closedloop.data.schema import Float64, Int64
from closedloop.heads.scorers import FailureHead
from closedloop.heads.trees import Forest, Int32, flatten

# early stopping would hold out single rows, and so divide machines
FIXED = {"early_stopping": False, "categorical_features": None}
NEWTON_STEPS = 100
SMALLEST_GRADIENT = 1e-10  # for each unit of weight


def fit_failure_head(
    X: Float64,
    y: NDArray[Any],
    weight: Float64,
    groups: Int64,
    columns: Int32,
    params: dict[str, Any],
    seed: int,
    folds: int,
) -> tuple[FailureHead, tuple[FailureHead, ...]]:
    """A calibrated head, and for each fold of :func:`machine_folds` the one that never saw its machines.

    The bits are the same with any number of threads. All heads share the calibration. The caller sets the threshold
    from what the heads of the folds answer for machines that they never saw.

    Args:
        X: features, followed by the anomaly score where ``columns`` contains it (features, rows).
        y: 1 where the component fails inside the horizon, else 0.
        weight: how many rows each stands for, in the calibration. The trees are fitted unweighted: thinned healthy rows
            only change the base rate, which the calibration corrects (King & Zeng 2001), and with weights scikit-learn
            bins ten times slower. Rows of weight 0 teach nothing.
        groups: the machine of each row. With failures on one machine only, pass blocks of time instead.
        columns: the rows of X to fit on.
        params: parameters of HistGradientBoostingClassifier, as in ``params.yaml``.
        seed: seed for the sampling of bin edges.
        folds: number of folds of machines, at least 2.

    Raises:
        ValueError: a parameter is unknown or refused, or some fold would leave only one class to learn from.
    """
    _check_parameters(params)
    columns, y = np.asarray(columns, np.int32), np.asarray(y, np.int64)
    teaches = weight > 0
    fold = machine_folds(np.where(teaches, y, 0), groups, folds, teaches)
    rows = np.ascontiguousarray(X[np.ix_(columns, teaches)]).T
    target, own = y[teaches], fold[teaches]

    def fit(k: int) -> Forest:
        if k < 0:  # no fold: the head's own trees; a copy of all rows would be the largest of all
            return _fit_trees(rows, target, params, seed)
        return _fit_trees(rows[own != k], target[own != k], params, seed)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        forest, *without = pool.map(fit, range(-1, int(fold.max()) + 1))
    raw = np.empty(len(target))
    for k, other in enumerate(without):
        raw[own == k] = FailureHead(other, columns, 1.0, 0.0).raw(X[:, teaches & (fold == k)])
    slope, intercept = platt(raw, target, weight[teaches])
    head, *others = (FailureHead(each, columns, slope, intercept) for each in (forest, *without))
    return head, tuple(others)


def _fit_trees(rows: Float64, target: Int64, params: dict[str, Any], seed: int) -> Forest:
    """Boosted trees, fitted on one thread.

    OpenMP's threads inside one model wait for each other thousands of times, which takes four to twenty times as long
    wherever another process uses the processor. So models have a thread each instead.
    """
    model = HistGradientBoostingClassifier(**params, **FIXED, random_state=seed)
    with threadpool_limits(1, user_api="openmp"):
        model.fit(rows, target)
    return flatten(model)


def _check_parameters(params: dict[str, Any]) -> None:
    """Raise ValueError where a parameter is unknown to the estimator, or fixed here."""
    known = sorted(set(HistGradientBoostingClassifier().get_params()) - set(FIXED) - {"random_state"})
    if unknown := sorted(set(params) - set(known)):
        raise ValueError(f"failure.parameters: {unknown[0]!r} is unknown or fixed; known are {known}")


def machine_folds(y: Int64, groups: Int64, folds: int, counts: NDArray[np.bool_]) -> Int64:
    """The fold of each row: whole groups, those with most positives first, each to the fold with fewest.

    Only rows where ``counts`` is true are counted.

    Raises:
        ValueError: some fold would leave only one class to learn from.
    """
    ids, at = np.unique(groups, return_inverse=True)
    positives = np.bincount(at[counts], weights=y[counts], minlength=len(ids)).astype(np.int64)
    sizes = np.bincount(at[counts], minlength=len(ids))
    folds = max(2, min(folds, int((positives > 0).sum())))
    load, fold = np.zeros((folds, 2), np.int64), np.zeros(len(ids), np.int64)
    for group in np.lexsort((ids, -sizes, -positives)).tolist():
        # machines that never failed come last, and balance the number of rows
        fold[group] = np.lexsort((load[:, 1], load[:, 0] * (positives[group] > 0)))[0]
        load[fold[group]] += positives[group], sizes[group]
    rest = load.sum(axis=0) - load  # what each fold leaves to learn from: positives, rows
    if (rest[:, 0] < 1).any() or (rest[:, 0] >= rest[:, 1]).any():
        raise ValueError(
            f"calibration needs failures, and healthy rows, in at least two groups of {len(ids)};"
            " with failures on one machine only, group by blocks of time"
        )
    return fold[at]


def platt(raw: Float64, y: Int64, weight: Float64) -> tuple[float, float]:
    """Slope and intercept that turn raw scores into probabilities, by weighted maximum likelihood.

    Platt (1999) with the targets and the Newton steps with line search of Lin, Lin & Weng (2007). Two parameters keep
    the ranking and can be fitted from a handful of failures, where isotonic regression would tie rows and overfit.
    Plain loops, since NumPy's sums and exponentials differ between processors.
    """
    positive = y == 1
    high, low = _sum(weight[positive]), _sum(weight[~positive])
    target = np.where(positive, (high + 1.0) / (high + 2.0), 1.0 / (low + 2.0))
    slope, intercept = 0.0, math.log((high + 1.0) / (low + 1.0))
    loss, gradient, hessian = _likelihood(raw, target, weight, slope, intercept)
    for _ in range(NEWTON_STEPS):
        if max(abs(g) for g in gradient) < SMALLEST_GRADIENT * (high + low):
            break
        (a, b), (aa, ab, bb) = gradient, hessian
        determinant = aa * bb - ab * ab
        step = -(bb * a - ab * b) / determinant, -(aa * b - ab * a) / determinant
        descent, size = a * step[0] + b * step[1], 1.0
        while size > 1e-10:
            trial = slope + size * step[0], intercept + size * step[1]
            new = _likelihood(raw, target, weight, *trial)
            if new[0] < loss + 1e-4 * size * descent:
                (slope, intercept), (loss, gradient, hessian) = trial, new
                break
            size /= 2.0
        else:
            break  # no step lowers the loss any more: rounding is all that is left
    return slope, intercept


@njit(cache=True, nogil=True)
def _sum(values: Float64) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


@njit(cache=True, nogil=True)
def _likelihood(
    raw: Float64, target: Float64, weight: Float64, slope: float, intercept: float
) -> tuple[float, tuple[float, float], tuple[float, float, float]]:
    """Negative log-likelihood, its gradient and the upper half of its Hessian, kept off singular by 1e-12."""
    loss, a, b, aa, ab, bb = 0.0, 0.0, 0.0, 1e-12, 0.0, 1e-12
    for r in range(len(raw)):
        x = slope * raw[r] + intercept
        e = math.exp(-abs(x))
        p = 1.0 / (1.0 + e) if x >= 0.0 else e / (1.0 + e)
        loss += weight[r] * (max(x, 0.0) - target[r] * x + math.log1p(e))
        error, curve = weight[r] * (p - target[r]), weight[r] * p * (1.0 - p)
        a += error * raw[r]
        b += error
        aa += curve * raw[r] * raw[r]
        ab += curve * raw[r]
        bb += curve
    return loss, (a, b), (aa, ab, bb)
