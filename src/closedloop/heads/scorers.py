"""The two heads as plain arrays: what a bundle holds and what serving runs, without scikit-learn.

Training and judging score through these very functions too, so that an answer never depends on who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64
from closedloop.heads.trees import Forest, Int32, Stack, walk_stack

Z_LIMIT = 1e6  # deviations: more says nothing new, and its square must stay finite


@dataclass(frozen=True, eq=False)
class Chart:
    """Mean chart: the largest ``|x - location| / scale`` of the features; 0 where all are missing."""

    location: Float64
    scale: Float64

    def check(self, features: int) -> None:
        """Raise ValueError where the arrays cannot score so many features."""
        _expect(self, {"location": (features,), "scale": (features,)})
        _positive(self.scale, "scale")

    def score(self, X: Float64, columns: Int32) -> Float64:
        """Score (rows) of C-contiguous X (features, rows); higher is more anomalous."""
        out = np.zeros(X.shape[1])
        _chart(X, columns, self.location, self.scale, out)
        return out


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
        """Raise ValueError where the arrays cannot score so many features."""
        kept = len(self.variance)
        shapes = {"location": (features,), "scale": (features,), "components": (kept, features)}
        _expect(self, shapes | {"variance": (kept,), "limits": (2,)})
        for name in ("scale", "variance", "limits"):
            _positive(getattr(self, name), name)

    def score(self, X: Float64, columns: Int32) -> Float64:
        """Score (rows) of C-contiguous X (features, rows); higher is more anomalous."""
        out = np.empty(X.shape[1])
        _subspace(X, columns, self.location, self.scale, self.components, self.variance, self.limits, out)
        return out


@dataclass(frozen=True, eq=False)
class Isolation:
    """Isolation forest: ``2 ** -(mean depth / its expectation)``, which is ``-score_samples`` of scikit-learn.

    The depth is bit-equal to scikit-learn's; the power is the C library's, where NumPy's may differ in the last bit
    from one processor to the next.
    """

    forest: Forest

    def check(self, features: int) -> None:
        """Raise ValueError where the forest cannot score so many features."""
        self.forest.check(features)

    def score(self, X: Float64, columns: Int32) -> Float64:
        """Score (rows) of C-contiguous X (features, rows); higher is more anomalous."""
        raw = walk_stack(Stack.of([self.forest], [columns], len(X)), X)[0]
        _two_to_minus(raw)
        return raw


Scorer = Chart | Subspace | Isolation
DETECTORS: dict[str, type[Scorer]] = {"mean_chart": Chart, "pca": Subspace, "isolation_forest": Isolation}


@dataclass(frozen=True, eq=False)
class AnomalyHead:
    """A detector on ``columns`` (rows of the feature matrix); an alarm is a score at or above ``threshold``."""

    scorer: Scorer
    columns: Int32
    threshold: float = np.inf

    @property
    def detector(self) -> str:
        """The detector's name in ``params.yaml``."""
        return next(name for name, kind in DETECTORS.items() if isinstance(self.scorer, kind))

    def score(self, X: Float64) -> Float64:
        """Anomaly score (rows) of C-contiguous X (features, rows); higher is more anomalous, never NaN."""
        return self.scorer.score(X, self.columns)


@dataclass(frozen=True, eq=False)
class FailureHead:
    """One component's boosted trees on ``columns`` and their calibration; an alarm is at or above ``threshold``.

    ``columns`` are rows of the feature matrix, where the row after the last feature is the anomaly score. The
    probability is ``expit(slope * raw + intercept)``; slope 1 and intercept 0 give scikit-learn's predict_proba.
    """

    forest: Forest
    columns: Int32
    slope: float
    intercept: float
    threshold: float = 0.5

    def probability(self, X: Float64) -> Float64:
        """Probability (rows) of a failure inside the horizon, for X (features, rows)."""
        X = np.ascontiguousarray(X, np.float64)
        stack = Stack.of([self.forest], [self.columns], len(X))
        return walk_stack(stack, X, logistic=np.array([[self.slope], [self.intercept]]))[0]


def to_arrays(item: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a scorer or forest by name; numbers become arrays of one."""
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, Forest):
            arrays |= to_arrays(value)
        else:
            arrays[field.name] = np.atleast_1d(np.asarray(value))
    return arrays


def from_arrays(kind: type[Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of :func:`to_arrays`.

    Raises:
        ValueError: an array is missing, or is of another type or number of dimensions than the class says.
    """
    if kind is Isolation:
        return Isolation(from_arrays(Forest, arrays))
    values: list[Any] = []
    for field in fields(kind):
        dtype, dimensions = _FORMS.get(field.name, (np.float64, 1))
        array = arrays.get(field.name)
        if array is None or array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(f"{field.name!r} is not an array of {np.dtype(dtype).name} in {dimensions} dimension(s)")
        if field.type == "float":
            if array.shape != (1,) or not np.isfinite(array[0]):
                raise ValueError(f"{field.name!r} is not one finite number")
            values.append(float(array[0]))
        else:
            values.append(array.copy())  # what was read is read-only, and compiles a second time
    return kind(*values)


_FORMS: dict[str, tuple[Any, int]] = {
    "components": (np.float64, 2),
    "feature": (np.int32, 1),
    "left": (np.int32, 1),
    "roots": (np.int32, 1),
    "missing_left": (np.uint8, 1),
}


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
            if z > out[r]:  # false for NaN, so a missing feature says nothing
                out[r] = min(z, Z_LIMIT)


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
            for i in range(len(z)):  # the components are orthonormal: what is left after all of them is the residual
                z[i] -= score * components[k, i]
        q = 0.0
        for i in range(len(z)):
            q += z[i] * z[i]
        out[r] = max(t2 / limits[0], q / limits[1])


@njit(cache=True, nogil=True)
def _two_to_minus(values: Float64) -> None:
    for r in range(len(values)):
        values[r] = 2.0 ** -values[r]
