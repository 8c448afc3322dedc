from unittest import SkipTest

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.utils.estimator_checks import parametrize_with_checks

from closedloop.heads.detectors import EvidenceChart, MeanChart, PCADetector, fit_anomaly_head
from closedloop.heads.scorers import Z_LIMIT, AnomalyHead


@pytest.fixture(name="X")
def normal_rows():
    """(rows, features): correlated normal features, one constant, one never seen, some readings missing."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 8)) @ rng.normal(size=(8, 8)) + 10.0
    X[:, 5] = 4.0
    X[rng.random(X.shape) < 0.05] = np.nan
    X[:, 6] = np.nan
    return X


DETECTORS = ["evidence_chart", "mean_chart", "pca", "isolation_forest"]
COLUMNS = np.array([0, 1, 2, 3, 5, 6, 7], np.int32)


@parametrize_with_checks(
    [EvidenceChart(), MeanChart(), PCADetector(), PCADetector(n_components=1), PCADetector(n_components=0.5)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_detectors_keep_the_rules_of_scikit_learn(estimator, check):
    """All of ours, and no check is skipped but one: other array libraries need a switch set before SciPy loads."""
    try:
        check(estimator)
    except SkipTest as skipped:
        assert str(skipped).startswith("SCIPY_ARRAY_API is not set")  # noqa: PT017 - a skip of another kind is red
        raise


@pytest.mark.parametrize(
    ("name", "kind"), [("evidence_chart", EvidenceChart), ("mean_chart", MeanChart), ("pca", PCADetector)]
)
def test_the_arrays_score_with_the_bits_of_the_detector(name, kind, X):
    head = fit_anomaly_head(X.T, COLUMNS, name, {}, seed=0)
    detector = kind().fit(X[:, COLUMNS])
    assert detector.anomaly_score(X[:, COLUMNS]).tobytes() == head.score(np.ascontiguousarray(X.T)).tobytes()
    assert name == head.detector


def test_an_isolation_forest_scores_as_scikit_learn_does(X):
    head = fit_anomaly_head(X.T, COLUMNS, "isolation_forest", {"n_estimators": 20}, seed=5)
    model = IsolationForest(n_estimators=20, random_state=5).fit(X[:, COLUMNS])
    # the last bit is NumPy's power against the C library's; test_trees compares the depths bit by bit
    np.testing.assert_array_almost_equal_nulp(
        -model.score_samples(X[:, COLUMNS]), head.score(np.ascontiguousarray(X.T)), 2
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_row_scores_alone_as_among_others(detector, X):
    head = fit_anomaly_head(X.T, COLUMNS, detector, {}, seed=0)
    whole = head.score(np.ascontiguousarray(X.T))
    alone = np.concatenate([head.score(np.ascontiguousarray(X[r : r + 1].T)) for r in range(50)])
    assert whole[:50].tobytes() == alone.tobytes()


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_row_has_a_finite_score_whatever_it_holds(detector, X):
    head = fit_anomaly_head(X.T, COLUMNS, detector, {}, seed=0)
    rows = np.array([[value] * 8 for value in (np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0)])
    rows = np.vstack([rows, [[np.nan, 1.0, np.inf, -np.inf, 0.0, 1e308, 7.0, np.nan]]])
    assert np.isfinite(head.score(np.ascontiguousarray(rows.T))).all()


def test_the_mean_chart_takes_the_largest_robust_deviation_and_ignores_what_is_missing():
    X = np.array([[0.0, 10.0], [1.0, 10.0], [2.0, 30.0], [3.0, 50.0], [4.0, 50.0]])
    chart = MeanChart().fit(X)
    mad = 1.4826 * np.array([1.0, 20.0])
    assert chart.anomaly_score([[2.0, 30.0], [5.0, 30.0], [2.0, -10.0], [np.nan, 50.0], [np.nan, np.nan]]).tolist() == [
        0.0,
        3.0 / mad[0],
        40.0 / mad[1],
        20.0 / mad[1],
        0.0,
    ]


def test_a_feature_that_training_never_saw_cannot_raise_the_score(X):
    for detector in ("evidence_chart", "mean_chart", "pca"):
        head = fit_anomaly_head(X.T, COLUMNS, detector, {}, seed=0)
        row = np.nanmedian(X[:, :6], axis=0)
        quiet = np.array([[*row, np.nan, 10.0], [*row, 1e6, 10.0]]).T.copy()
        assert head.score(quiet)[0] == head.score(quiet)[1]


@pytest.mark.parametrize("detector", [EvidenceChart, MeanChart, PCADetector])
@pytest.mark.parametrize("rounding", [0.0, 1e-13])
def test_a_feature_that_stood_still_in_training_does_not_drown_the_others(detector, rounding):
    """As engine settings do on C-MAPSS: what moves is scored as if the one that stood still were not there."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(500, 3))
    X[:, 2] = rounding * rng.normal(size=500)
    rows = np.array([[0.0, 0.0, 0.5], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    alone = detector().fit(X[:, :2]).anomaly_score(rows[:, :2])
    np.testing.assert_allclose(detector().fit(X).anomaly_score(rows), alone, rtol=1e-6)


def test_a_feature_that_seldom_moves_is_measured_by_its_deviation():
    """More than half of the values are one, as with hours since a sensor changed: their median deviation says 0."""
    X = np.zeros((1000, 1))
    X[:100] = 5.0
    X[100:600] = 1e-15
    assert MeanChart().fit(X).anomaly_score([[6.0]])[0] == pytest.approx(6.0 / X.std(), rel=1e-6)


def test_a_few_anomalies_in_training_hardly_move_the_mean_chart(X):
    spoiled = X.copy()
    spoiled[:30, 0] += 1000.0
    clean, dirty = (MeanChart().fit(rows[:, :1]).anomaly_score([[30.0]])[0] for rows in (X, spoiled))
    assert abs(clean / dirty - 1.0) < 0.2


def test_pca_limits_hold_what_their_level_says():
    """Each of T² and Q passes its limit in about alpha of normal rows, so the larger in at most twice as many."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(10, 10)) * np.linspace(3, 0.1, 10)[:, None]
    rows = rng.normal(size=(20_000, 10)) @ mix
    scores = PCADetector(n_components=0.8, alpha=0.05).fit(rows[:10_000]).anomaly_score(rows[10_000:])
    assert 0.05 < (scores > 1.0).mean() < 0.1


def test_pca_sees_a_row_that_breaks_the_correlation_and_the_mean_chart_does_not():
    rng = np.random.default_rng(1)
    common = rng.normal(size=(2000, 1))
    rows = np.hstack([common, common]) + rng.normal(size=(2000, 2)) * 0.05
    broken = [[1.0, -1.0]]
    assert PCADetector(n_components=1).fit(rows).predict(broken).tolist() == [-1]
    assert MeanChart().fit(rows).predict(broken).tolist() == [1]


@pytest.mark.parametrize(
    ("detector", "parameters", "why"),
    [
        ("magic", {}, "'magic' is unknown; choose one of"),
        ("mean_chart", {"bandwidth": 3}, "mean_chart has no 'bandwidth'; it has"),
        ("isolation_forest", {"random_state": 3}, "isolation_forest has no 'random_state'"),
        ("pca", {"alpha": 2.0}, "The 'alpha' parameter of PCADetector must be a float in the range"),
    ],
)
def test_unknown_detectors_and_parameters_are_named(detector, parameters, why, X):
    with pytest.raises(ValueError, match=why):
        fit_anomaly_head(X.T, COLUMNS, detector, parameters, seed=0)


def test_a_head_refuses_a_matrix_that_lacks_its_columns(X):
    head = fit_anomaly_head(X.T, COLUMNS, "mean_chart", {}, seed=0)
    with pytest.raises(ValueError, match="7 features were given, the head reads the first 8"):
        head.score(np.ascontiguousarray(X.T[:7]))
    with pytest.raises(ValueError, match="'location' is not"):
        AnomalyHead(head.scorer, COLUMNS[:3]).score(np.ascontiguousarray(X.T))


def test_a_score_is_bounded():
    assert MeanChart().fit([[0.0], [1.0], [2.0]]).anomaly_score([[1e300]]).tolist() == [Z_LIMIT]


def test_a_feature_that_mostly_rests_does_not_drown_the_others():
    """Its median deviation is a whisper, and what it does one hour in five is not worth a thousand deviations."""
    rng = np.random.default_rng(3)
    usual = rng.normal(size=4000)
    resting = np.where(rng.random(4000) < 0.2, 1.0, 1e-3 * rng.normal(size=4000))
    chart = MeanChart().fit(np.column_stack([usual, resting]))
    busy, shifted = chart.anomaly_score([[0.0, 1.0], [6.0, 0.0]])
    assert busy < shifted


def test_many_features_that_moved_a_little_outweigh_one_that_moved_far():
    """As a worn engine's do: all move by three deviations, where another's one sensor is off by fifteen."""
    X = np.random.default_rng(4).normal(size=(4000, 12))
    rows = np.zeros((2, 12))
    rows[0], rows[1, 0] = 3.0, 15.0
    worn, off = EvidenceChart().fit(X).anomaly_score(rows)
    assert worn > off
    worn, off = MeanChart().fit(X).anomaly_score(rows)
    assert worn < off


def test_quiet_features_do_not_hide_one_that_moved():
    rng = np.random.default_rng(5)
    few, many = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 12))
    quiet = 0.7  # of a deviation
    alone = EvidenceChart().fit(few).anomaly_score([[6.0, quiet]])[0]
    among = EvidenceChart().fit(many).anomaly_score([[6.0, *[quiet] * 11]])[0]
    assert among == pytest.approx(alone, rel=0.05)


def test_a_feature_that_is_often_far_off_counts_less():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(4000, 2))
    X[::30, 1] *= 30
    steady, wild = EvidenceChart().fit(X).anomaly_score([[8.0, 0.0], [0.0, 8.0]])
    assert steady > 1.2 * wild
