"""Anomaly detectors with the scikit-learn API, each of which becomes the plain arrays that a bundle stores.

``score_samples`` follows scikit-learn (lower is more abnormal); ``anomaly_score`` is its negative, as everywhere else
in this project (higher is more anomalous).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.ensemble import IsolationForest
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from closedloop.data.schema import Float64
from closedloop.heads.scorers import AnomalyHead, Chart, Evidence, FittedDetector, Isolation, Subspace, evidence
from closedloop.heads.trees import Int32, flatten

MAD_TO_DEVIATION = 1.4826  # 1 / Φ⁻¹(3/4): median absolute deviation to standard deviation of a normal distribution
NEVER = np.finfo(np.float64).max  # scale of a feature that was constant in training: it cannot raise a score
TAIL = {0.99: 6.63, 0.999: 10.83}  # quantiles of χ² with one degree of freedom
RESTING = 12  # robust deviations: in a normal distribution one value in ten lies 1.6 away
ROUNDING = (
    1e-9  # smaller deviations are rounding errors: most features are in deviations of a baseline, about 1 in size
)


class _Detector(OutlierMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """What the detectors share: the arrays that ``_fit`` returns, and the offset that ``contamination`` sets."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(self, contamination: float = 0.01) -> None:
        self.contamination = contamination

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn what is normal from X (rows, features); NaN is a missing value."""
        self._validate_params()
        data = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        self.scorer_ = self._fit(data)
        self.offset_ = float(np.quantile(-self._anomaly_score(data), self.contamination))
        return self

    @abstractmethod
    def _fit(self, X: Float64) -> FittedDetector:
        """The detector's arrays, fitted on X (rows, features)."""

    def _anomaly_score(self, X: Float64) -> Float64:
        head = AnomalyHead(self.scorer_, np.arange(X.shape[1], dtype=np.int32))
        return head.score(np.ascontiguousarray(X.T))

    def anomaly_score(self, X: ArrayLike) -> Float64:
        """Score (rows) of X (rows, features); higher is more anomalous."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return self._anomaly_score(data)

    def score_samples(self, X: ArrayLike) -> Float64:
        """The negative of :meth:`anomaly_score`."""
        return -self.anomaly_score(X)

    def decision_function(self, X: ArrayLike) -> Float64:
        """``score_samples`` less the offset: below 0 is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """-1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class MeanChart(_Detector):
    """Multi-scale mean chart: the largest robust z of the features, most of which are means over several windows.

    A shift of a sensor shows first in the short means and more clearly in the long ones; the largest z belongs to the
    scale that suits it. The location is each feature's median and the scale 1.4826 times its median absolute deviation,
    so that anomalies in the training data hardly change them. Where one value in ten is more than RESTING of these
    away, the feature is constant most of the time (counts, switches, evidence): its median absolute deviation does not
    tell how far it usually goes, and its z would dominate. Then the scale is the standard deviation.
    A feature that was constant in training is ignored, since nothing tells how far it may move.
    """

    def _fit(self, X: Float64) -> FittedDetector:
        return Chart(*_robust(X))


def _robust(X: Float64) -> tuple[Float64, Float64]:
    """Location and scale of each feature, as :class:`MeanChart` says."""
    location, scale = np.zeros(X.shape[1]), np.full(X.shape[1], NEVER)
    for f, column in enumerate(X.T):
        values = column[~np.isnan(column)]
        if len(values):
            location[f] = np.median(values)
            middle, far = np.quantile(np.abs(values - location[f]), [0.5, 0.9]).tolist()
            rests = far > RESTING * MAD_TO_DEVIATION * middle or middle <= ROUNDING
            deviation = float(values.std()) if rests else MAD_TO_DEVIATION * middle
            scale[f] = deviation if deviation > ROUNDING else NEVER
    return location, scale


class EvidenceChart(_Detector):
    """Evidence chart: what all features say together, where none is believed without limit.

    Location and scale are those of :class:`MeanChart`. A deviation of z says as much as it would against a Student's t,
    which grows with log z: many sensors that moved a little outweigh one that moved far. What a feature says is divided
    by what it said on average in training, or by more where its tail is heavier than that of a normal variable, so that
    one that often moves far counts less. The strongest feature counts whole, and the others by what they say beyond
    noise, so that quiet ones do not hide it.
    """

    def _fit(self, X: Float64) -> FittedDetector:
        location, scale = _robust(X)
        norm = np.ones(X.shape[1])
        for f, column in enumerate(X.T):
            said = evidence(column[~np.isnan(column)], location[f], scale[f])
            if len(said) and said.max() > ROUNDING:
                norm[f] = max(float(np.mean(said)), *(float(np.quantile(said, q)) / usual for q, usual in TAIL.items()))
        return Evidence(location, scale, norm)


class PCADetector(_Detector):
    """Principal components: Hotelling's T² in the kept subspace and Q, the squared residual outside it.

    ``n_components`` is a number of components, or the share of variance that the kept ones must explain. Each figure
    is divided by its control limit at ``alpha``: T² by the χ² quantile, Q by that of Jackson & Mudholkar (1979,
    Technometrics 21(3), equation 2). The score is the larger, so that 1 is the limit of either chart. A feature that
    was constant in training is ignored, as in :class:`MeanChart`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_Detector._parameter_constraints,
        "n_components": [Interval(Real, 0, 1, closed="neither"), Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 0.5, closed="neither")],
    }

    def __init__(self, n_components: float = 0.9, alpha: float = 0.01, contamination: float = 0.01) -> None:
        super().__init__(contamination)
        self.n_components = n_components
        self.alpha = alpha

    def _fit(self, X: Float64) -> FittedDetector:
        known = ~np.isnan(X)
        count = np.maximum(known.sum(axis=0), 1)
        location = np.where(known, X, 0.0).sum(axis=0) / count
        centred = np.where(known, X - location, 0.0)
        deviation = np.sqrt((centred**2).sum(axis=0) / count)
        scale = np.where(deviation > ROUNDING, deviation, NEVER)
        z = centred / scale
        values, vectors = np.linalg.eigh(z.T @ z / len(z))
        values, vectors = np.maximum(values[::-1], 0.0), vectors.T[::-1]
        rank = max(int((values > values[0] * 1e-12).sum()), 1)
        if isinstance(self.n_components, Integral):
            kept = min(int(self.n_components), rank)
        else:
            share = np.cumsum(values) / max(float(values.sum()), np.finfo(np.float64).tiny)
            kept = min(int(np.searchsorted(share, self.n_components)) + 1, rank)
        # the sign of an eigenvector is arbitrary: fix it, so that it does not depend on the LAPACK in use
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
        components = np.ascontiguousarray((vectors * np.sign(largest))[:kept])
        limits = np.array([chi2.ppf(1.0 - self.alpha, kept), _q_limit(values[kept:rank], self.alpha)])
        return Subspace(location, scale, components, np.maximum(values[:kept], 1e-12), limits)


def _q_limit(residual: Float64, alpha: float) -> float:
    """Control limit of Q at ``alpha`` from the eigenvalues outside the model (Jackson & Mudholkar 1979)."""
    theta = [float((residual**power).sum()) for power in (1, 2, 3)]
    if theta[0] <= 0.0:
        return 1.0  # no variance is left outside the model: any residual of a deviation or more is an outlier
    h = max(1.0 - 2.0 * theta[0] * theta[2] / (3.0 * theta[1] ** 2), 1e-3)
    c = float(norm.ppf(1.0 - alpha))
    inside = c * np.sqrt(2.0 * theta[1] * h**2) / theta[0] + 1.0 + theta[1] * h * (h - 1.0) / theta[0] ** 2
    return theta[0] * float(max(inside, np.finfo(np.float64).eps)) ** (1.0 / h)


ESTIMATORS: dict[str, type[BaseEstimator]] = {
    "evidence_chart": EvidenceChart,
    "mean_chart": MeanChart,
    "pca": PCADetector,
    "isolation_forest": IsolationForest,
}


def fit_anomaly_head(X: Float64, columns: Int32, detector: str, parameters: dict[str, Any], seed: int) -> AnomalyHead:
    """Fit a detector on rows ``columns`` of X (features, rows); the caller sets the threshold.

    Args:
        X: training rows, NaN where missing.
        columns: the features to use, normally those of the telemetry group.
        detector: evidence_chart, mean_chart, pca or isolation_forest.
        parameters: parameters of the detector, as in ``params.yaml``.
        seed: seed of the detectors that draw at random.

    Raises:
        ValueError: the detector or a parameter is unknown, or a value is refused.
    """
    if detector not in ESTIMATORS:
        raise ValueError(f"anomaly.detector: {detector!r} is unknown; choose one of {list(ESTIMATORS)}")
    known = ESTIMATORS[detector]().get_params()
    drawn = {"random_state": seed} if "random_state" in known else {}
    known = sorted(set(known) - {"random_state"})
    if unknown := sorted(set(parameters) - set(known)):
        raise ValueError(f"anomaly.parameters: {detector} has no {unknown[0]!r}; it has {known}")
    estimator = ESTIMATORS[detector](**parameters, **drawn).fit(X[columns].T)
    scorer = Isolation(flatten(estimator)) if isinstance(estimator, IsolationForest) else estimator.scorer_
    return AnomalyHead(scorer, np.asarray(columns, np.int32))
