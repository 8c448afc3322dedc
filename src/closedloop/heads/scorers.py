"""The two heads as plain arrays: what a bundle stores and what serving runs, without scikit-learn.

Training uses the same functions, so training and serving give the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64
from closedloop.heads.arrays import nothing_left, pop_array, pop_fields, to_arrays
from closedloop.heads.trees import Forest, Int32, Stack, walk_stack

Score = Callable[[Float64], Float64]  # C-contiguous (features, rows) to (rows): higher is more anomalous

FREEDOM = 4.0  # of Student's t, as Lange, Little & Taylor (1989, J. Am. Stat. Assoc. 84) advise against outliers
PENALTY = 2.0  # of one more feature that has moved (Akaike 1974, IEEE Trans. Autom. Control 19): less is noise
Z_LIMIT = 1e6  # deviations; larger values carry no information, and their square must stay finite


@dataclass(frozen=True, eq=False)
class Chart:
    """Mean chart: the largest ``|x - location| / scale`` of the features; 0 where all are missing."""

    location: Float64
    scale: Float64

    def check(self, features: int) -> None:
        """Raise ValueError where the arrays cannot score this number of features."""
        _expect(self, {"location": (features,), "scale": (features,)})
        _positive(self.scale, "scale")

    def on(self, columns: Int32) -> Score:
        """The score as a function of a feature matrix whose rows ``columns`` are these features."""

        def score(X: Float64) -> Float64:
            out = np.zeros(X.shape[1])
            _chart(X, columns, self.location, self.scale, out)
            return out

        return score


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence chart: the root of what the features say together, by their ``|x - location| / scale``.

    A feature says Student's log-likelihood ratio with ``FREEDOM`` degrees of freedom, over ``norm``, which is what it
    usually says; nothing where it is missing. The strongest feature counts whole, each other one by what it says above
    ``PENALTY``.
    """

    location: Float64
    scale: Float64
    norm: Float64

    def check(self, features: int) -> None:
        """Raise ValueError where the arrays cannot score this number of features."""
        _expect(self, {"location": (features,), "scale": (features,), "norm": (features,)})
        _positive(self.scale, "scale")
        _positive(self.norm, "norm")

    def on(self, columns: Int32) -> Score:
        """The score as a function of a feature matrix whose rows ``columns`` are these features."""

        def score(X: Float64) -> Float64:
            out = np.zeros(X.shape[1])
            _evidence(X, columns, self.location, self.scale, self.norm, out)
            return out

        return score


@dataclass(frozen=True, eq=False)
class Subspace:
    """PCA: the larger of T² and Q, each over its control limit, of standardised features; missing ones count as mean.

    ``components`` (kept, features) are orthonormal rows, ``variance`` (kept) theirs; ``limits`` those of T² and Q.
    """

    location: Float64
    scale: Float64
    components: Float64
    variance: Float64
    limits: Float64

    def check(self, features: int) -> None:
        """Raise ValueError where the arrays cannot score this number of features."""
        kept = len(self.variance)
        shapes = {"location": (features,), "scale": (features,), "components": (kept, features)}
        _expect(self, shapes | {"variance": (kept,), "limits": (2,)})
        for name in ("scale", "variance", "limits"):
            _positive(getattr(self, name), name)

    def on(self, columns: Int32) -> Score:
        """The score as a function of a feature matrix whose rows ``columns`` are these features."""

        def score(X: Float64) -> Float64:
            out = np.empty(X.shape[1])
            _subspace(X, columns, self.location, self.scale, self.components, self.variance, self.limits, out)
            return out

        return score


@dataclass(frozen=True, eq=False)
class Isolation:
    """Isolation forest: ``2 ** -(mean depth / its expectation)``, which is ``-score_samples`` of scikit-learn.

    The depth is bit-equal to scikit-learn's; the power is the C library's, where NumPy's may differ in the last bit
    from one processor to the next.
    """

    forest: Forest

    def check(self, features: int) -> None:
        """Raise ValueError where the forest cannot score this number of features."""
        self.forest.check(features)

    def on(self, columns: Int32) -> Score:
        """The score as a function of a feature matrix whose rows ``columns`` are these features."""
        stack = Stack.of([self.forest], [columns], _width(columns))

        def score(X: Float64) -> Float64:
            raw = walk_stack(stack, X)[0]
            _two_to_minus(raw)
            return raw

        return score


FittedDetector = Chart | Evidence | Subspace | Isolation
DETECTORS: dict[str, type[FittedDetector]] = {
    "evidence_chart": Evidence,
    "mean_chart": Chart,
    "pca": Subspace,
    "isolation_forest": Isolation,
}


@dataclass(frozen=True, eq=False)
class AnomalyHead:
    """A fitted detector on ``columns`` (rows of the feature matrix); a score at or above ``threshold`` is an alarm."""

    scorer: FittedDetector
    columns: Int32
    threshold: float = np.inf

    @property
    def detector(self) -> str:
        """The detector's name in ``params.yaml``."""
        return next(name for name, kind in DETECTORS.items() if isinstance(self.scorer, kind))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the threshold as arrays, for the bundle."""
        return {"columns": self.columns} | to_arrays(self.scorer)

    @classmethod
    def from_arrays(cls, detector: str, arrays: Mapping[str, NDArray[Any]], threshold: float) -> AnomalyHead:
        """The inverse of :meth:`to_arrays`.

        Raises:
            ValueError: an array is missing, unknown, or not of the right form.
        """
        left = dict(arrays)
        columns = pop_array(left, "columns", np.int32)
        scorer = pop_fields(left, DETECTORS[detector])
        nothing_left(left)
        return cls(scorer, columns, threshold)

    @cached_property
    def _score(self) -> Score:
        self.scorer.check(len(self.columns))
        return self.scorer.on(self.columns)

    def score(self, X: Float64) -> Float64:
        """Anomaly score (rows) of C-contiguous X (features, rows); higher is more anomalous, never NaN.

        Raises:
            ValueError: the scorer's arrays do not fit its columns, or X lacks some of them.
        """
        _covers(X, self.width)
        return self._score(X)

    @cached_property
    def width(self) -> int:
        """The least number of rows that a feature matrix must have."""
        return _width(self.columns)


@dataclass(frozen=True, eq=False)
class FailureHead:
    """One component's boosted trees on ``columns``, calibrated; a probability at or above ``threshold`` is an alarm.

    ``columns`` are rows of the feature matrix, where the row after the last feature is the anomaly score. The
    probability is ``expit(slope * raw + intercept)``; slope 1 and intercept 0 give scikit-learn's predict_proba. Within
    ``plateau`` (low, high) a threshold costs the same but for noise; older bundles do not say it.
    """

    forest: Forest
    columns: Int32
    slope: float
    intercept: float
    threshold: float = 0.5
    plateau: tuple[float, float] | None = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the threshold and its plateau as arrays, for the bundle."""
        return {"columns": self.columns, "calibration": np.array([self.slope, self.intercept])} | to_arrays(self.forest)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], threshold: float, plateau: tuple[float, float] | None = None
    ) -> FailureHead:
        """The inverse of :meth:`to_arrays`.

        Raises:
            ValueError: an array is missing, unknown, or not of the right form.
        """
        left = dict(arrays)
        columns, calibration = pop_array(left, "columns", np.int32), pop_array(left, "calibration", np.float64)
        if calibration.shape != (2,) or not np.isfinite(calibration).all():
            raise ValueError("'calibration' is not two finite numbers")
        forest = pop_fields(left, Forest)
        nothing_left(left)
        return cls(forest, columns, float(calibration[0]), float(calibration[1]), threshold, plateau)

    @cached_property
    def width(self) -> int:
        """The least number of rows that a feature matrix must have."""
        return _width(self.columns)

    @cached_property
    def _stack(self) -> Stack:
        return Stack.of([self.forest], [self.columns], self.width)

    def raw(self, X: Float64) -> Float64:
        """The forest's own score (rows) for X (features, rows), as :func:`closedloop.heads.trees.walk` gives it."""
        _covers(X, self.width)
        return walk_stack(self._stack, np.ascontiguousarray(X, np.float64))[0]

    def probability(self, X: Float64) -> Float64:
        """Probability (rows) of a failure inside the horizon, for X (features, rows).

        Raises:
            ValueError: the forest is not valid, or X lacks some of its columns.
        """
        _covers(X, self.width)
        logistic = np.array([[self.slope], [self.intercept]])
        return walk_stack(self._stack, np.ascontiguousarray(X, np.float64), logistic=logistic)[0]


def strengths(scorer: Chart | Evidence | Subspace, values: Float64) -> Float64:
    """How much each feature speaks for an anomaly, 0 or more; 0 where it is missing.

    Of the evidence chart they add up to the square of the score. Of the others they only rank: they are deviations.
    """
    z = np.minimum(np.abs((values - scorer.location) / scorer.scale), Z_LIMIT)
    z[np.isnan(z)] = 0.0
    if not isinstance(scorer, Evidence):
        return z
    said = (FREEDOM + 1.0) * np.log1p(z * z / FREEDOM) / scorer.norm
    found = np.maximum(said - PENALTY, 0.0)
    most = int(np.argmax(said))
    found[most] += min(float(said[most]), PENALTY)
    return found


def _width(columns: Int32) -> int:
    if not len(columns) or columns.min() < 0:
        raise ValueError("a head needs at least one column, and none below 0")
    return int(columns.max()) + 1


def _covers(X: Float64, width: int) -> None:
    if len(X) < width:
        raise ValueError(f"{len(X)} features were given, the head reads the first {width}")


def _expect(item: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        array = getattr(item, name)
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name!r} is not {shape} finite numbers")


def _positive(array: Float64, name: str) -> None:
    if (array <= 0).any():
        raise ValueError(f"{name!r} is not above 0 everywhere")


@njit(cache=True, nogil=True)
def _standard(value: float, location: float, scale: float) -> float:
    return min(max((value - location) / scale, -Z_LIMIT), Z_LIMIT)


@njit(cache=True, nogil=True)
def _chart(X: Float64, columns: Int32, location: Float64, scale: Float64, out: Float64) -> None:
    for i in range(len(columns)):
        row = X[columns[i]]
        for r in range(len(out)):
            z = abs(row[r] - location[i]) / scale[i]
            if z > out[r]:  # false for NaN, so a missing feature does not count
                out[r] = min(z, Z_LIMIT)


@njit(cache=True, nogil=True)
def _said(value: float, location: float, scale: float) -> float:
    """Student's log-likelihood ratio between this deviation and none."""
    z = _standard(value, location, scale)
    return (FREEDOM + 1.0) * math.log1p(z * z / FREEDOM)


@njit(cache=True, nogil=True)
def evidence(values: Float64, location: float, scale: float) -> Float64:
    """What each value of a feature says."""
    out = np.empty(len(values))
    for r in range(len(values)):
        out[r] = _said(values[r], location, scale)
    return out


@njit(cache=True, nogil=True)
def _evidence(X: Float64, columns: Int32, location: Float64, scale: Float64, norm: Float64, out: Float64) -> None:
    most = np.zeros(len(out))
    for i in range(len(columns)):
        row = X[columns[i]]
        for r in range(len(out)):
            if not np.isnan(row[r]):
                said = _said(row[r], location[i], scale[i]) / norm[i]
                out[r] += max(said - PENALTY, 0.0)
                most[r] = max(most[r], said)
    for r in range(len(out)):
        out[r] = math.sqrt(out[r] + min(most[r], PENALTY))


@njit(cache=True, nogil=True)
def _subspace(
    X: Float64,
    columns: Int32,
    location: Float64,
    scale: Float64,
    components: Float64,
    variance: Float64,
    limits: Float64,
    out: Float64,
) -> None:
    z = np.empty(len(columns))
    for r in range(len(out)):
        for i in range(len(columns)):
            x = X[columns[i], r]
            z[i] = 0.0 if np.isnan(x) else _standard(x, location[i], scale[i])
        t2 = 0.0
        for k in range(len(variance)):
            score = 0.0
            for i in range(len(z)):
                score += components[k, i] * z[i]
            t2 += score * score / variance[k]
            for i in range(len(z)):  # the components are orthonormal, so what remains after all of them is the residual
                z[i] -= score * components[k, i]
        q = 0.0
        for i in range(len(z)):
            q += z[i] * z[i]
        out[r] = max(t2 / limits[0], q / limits[1])


@njit(cache=True, nogil=True)
def _two_to_minus(values: Float64) -> None:
    for r in range(len(values)):
        values[r] = 2.0 ** -values[r]
