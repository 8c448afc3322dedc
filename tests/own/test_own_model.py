"""The parameters of this copy train a model of its own fleet: features, heads and answers are as params.yaml says."""

from __future__ import annotations

import numpy as np

from closedloop.features.kernel import compute
from closedloop.judge.labels import labels
from closedloop.judge.truth import ANOMALY
from model.common.predictions import predict


def test_every_feature_that_params_names_is_computed_once_per_row(own):
    found = compute(own.training, own.bundle.spec, own.bundle.constants, own.params.schema)
    assert (len(own.bundle.spec.names), len(own.training.time)) == found.X.shape
    assert len(set(own.bundle.spec.names)) == len(own.bundle.spec.names)


def test_features_are_finite_wherever_the_history_is_full(own):
    """NaN is allowed only where nothing happened or is known: no error of a kind, no replacement, no age."""
    found = compute(own.training, own.bundle.spec, own.bundle.constants, own.params.schema)
    full = found.history_hours >= own.params.features["history_hours"]
    assert full.any()
    holes = {name for k, name in enumerate(own.bundle.spec.names) if not np.isfinite(found.X[k, full]).all()}
    allowed = ("_hours_since", "_days_since") + (() if own.params.schema.models else ("age",))
    assert [] == [name for name in sorted(holes) if not name.endswith(allowed)]
    assert not np.isinf(found.X).any()


def test_every_component_has_a_head_since_each_failed_often_enough(own):
    assert set(own.params.schema.components) == set(own.bundle.failures)


def test_every_row_has_a_finite_answer_of_every_head_and_probabilities_differ(own):
    table = predict(own.bundle, own.judged)
    heads = {ANOMALY, *own.bundle.failures}
    assert heads == set(table.head.tolist())
    assert len(heads) * len(own.judged.time) == len(table.score)
    assert np.isfinite(table.score).all()
    for head in heads - {ANOMALY}:
        probability = table.score[table.head == head]
        assert ((probability >= 0) & (probability <= 1)).all()
        assert probability.std() > 0


def test_a_plain_drift_stands_out_in_the_anomaly_score(own):
    """At its end the drift is eight deviations of the noise."""
    score = own.bundle.predict(own.judged).anomaly_score
    assert np.median(score[own.drift > 0.75]) > np.quantile(score[own.drift == 0], 0.9)


def test_a_failing_component_is_ranked_far_above_a_healthy_one(own):
    """A random pair of rows, one shortly before a failure and one not, is in the right order four times in five."""
    answers = own.bundle.predict(own.judged)
    windows = own.judged.windows()
    y = np.concatenate([labels(window, own.params.schema, own.params.horizon_us) for window in windows], axis=1)
    for c, component in enumerate(own.params.schema.components):
        failing, healthy = answers.probability[c][y[c] == 1], answers.probability[c][y[c] == 0]
        right = np.searchsorted(np.sort(healthy), failing, "left") + np.searchsorted(np.sort(healthy), failing, "right")
        assert right.mean() / 2 / len(healthy) > 0.8, component
