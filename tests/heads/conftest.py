from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from closedloop.data.schema import HOUR_US, Events, Schema, Tables
from closedloop.features.kernel import compute
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, TrainedOn
from closedloop.heads.detectors import fit_anomaly_head
from closedloop.heads.drift_reference_fit import fit_drift_reference
from closedloop.heads.failure import fit_failure_head


@pytest.fixture(autouse=True)
def one_thread():
    """OpenMP threads wait for each other where tests share processors; the fits here are small."""
    with threadpool_limits(1):
        yield


SCHEMA = {
    "sensors": {"volt": [0, 400], "amp": [-5, 5]},
    "components": ["pump", "valve", "../seal"],
    "errors": ["e1"],
    "models": ["m1", "m2"],
    "sampling_minutes": 60,
}
FEATURES = {
    "history_hours": 12,
    "rolling": {"windows_hours": [3, 6]},
    "trend": {"half_lives_hours": [4], "cusum_slack": 0.5},
    "errors": {"windows_hours": [12]},
}


@pytest.fixture(scope="session")
def tables():
    """Five machines of 120 hours, with errors, replacements and missing readings."""
    schema, rng = Schema.from_dict(SCHEMA), np.random.default_rng(0)
    ids, hours = np.arange(2, 12, 2), 120
    machine, time = np.repeat(ids, hours), np.tile(np.arange(hours) * HOUR_US, len(ids))
    values = rng.normal(size=(len(schema.sensors), len(time))) + 3.0
    values[rng.random(values.shape) < 0.02] = np.nan

    def events(codes):
        count = 40
        drawn = rng.choice(ids, count), rng.integers(0, hours, count) * HOUR_US, rng.integers(0, codes, count)
        return Events.of(drawn[0], drawn[1], drawn[2].astype(np.int16))

    described = ids, (ids % 3 - 1).astype(np.int16), ids.astype(float)
    return Tables.of(machine, time, values, events(1), events(3), events(3), described)


@pytest.fixture(scope="session")
def trained(tables):
    """A bundle with heads for two of three components, by hand rather than from labels."""
    schema = Schema.from_dict(SCHEMA)
    spec = FeatureSpec.from_params(FEATURES, schema)
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
    X = compute(tables, spec, constants, schema).X
    telemetry = np.flatnonzero(np.array(spec.groups) == "telemetry").astype(np.int32)
    anomaly = fit_anomaly_head(X, telemetry, "mean_chart", {}, seed=0)
    anomaly = replace(anomaly, threshold=float(np.sort(anomaly.score(X))[-20]))
    X = np.vstack([X, anomaly.score(X)])
    failures = {}
    for component, columns in (("pump", np.arange(len(X))), ("../seal", telemetry[::2])):
        y = np.nan_to_num(X[columns[0]]) > np.nanmedian(X[columns[0]])
        fitted = fit_failure_head(
            X, y, np.ones(len(y)), tables.machine, columns, {"max_iter": 4, "max_leaf_nodes": 4}, seed=0, folds=2
        )
        # one of the probabilities it gives, so that an alarm at the threshold itself is tested
        failures[component] = replace(fitted[0], threshold=float(np.sort(fitted[0].probability(X))[len(y) // 2]))
    return Bundle(
        schema,
        spec,
        constants,
        anomaly,
        failures,
        TrainedOn({"test": [2, 4]}, ("1970-01-01T00:00:00Z", "1970-01-05T23:00:00Z"), tables.fingerprint()),
        {"commit": "0" * 40, "libraries": {"numpy": np.__version__}},
        fit_drift_reference(tables, schema, X[-1]),
        "# A card for people: µ\n",
    )
