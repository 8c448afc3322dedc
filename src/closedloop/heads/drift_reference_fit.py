"""Fit the drift reference: describe training tables in little space, so that later tables can be compared with them."""

from __future__ import annotations

import numpy as np

from closedloop.data.schema import HOUR_US, Float64, Int64, Schema, Tables
from closedloop.heads.drift_reference import BINS, MOST_DAYS, QUANTILES, DriftReference

DAY_US = 24 * HOUR_US
_SEED = 0  # of the sample of machine-days: the same tables give the same sample


def fit_drift_reference(tables: Tables, schema: Schema, anomaly_score: Float64 | None = None) -> DriftReference:
    """The drift reference of training tables in which every sensor has at least one reading.

    ``anomaly_score`` is one number for each telemetry row, where the model has an anomaly head. Failure heads are left
    out, since they are overconfident on the rows that trained them.
    """
    values = list(tables.values) + ([] if anomaly_score is None else [anomaly_score])
    columns = [value[~np.isnan(value)] for value in values]
    steps = np.arange(1, BINS) / BINS
    edges = np.array([np.quantile(column, steps) for column in columns])
    clusters = _clusters(tables)
    shares = [_shares(value, edge, clusters) for value, edge in zip(values, edges, strict=True)]
    day_machine, day_means = _day_means(tables, values, schema)
    return DriftReference(
        quantiles=np.array([np.quantile(column, QUANTILES) for column in columns]),
        edges=edges,
        counts=np.array([counts for counts, _ in shares]),
        covariance=np.array([covariance for _, covariance in shares]),
        missing=np.array([1 - len(column) / len(tables.time) for column in columns]),
        day_machine=day_machine,
        day_means=day_means,
        error_counts=_error_counts(tables, len(schema.errors)),
        machine_days=len(tables.time) * schema.period_us / DAY_US,
    )


def _clusters(tables: Tables) -> Int64:
    """The cluster of each row, from 0: its machine, or its day where there is only one machine."""
    several = len(np.unique(tables.machine)) > 1
    _, cluster = np.unique(tables.machine if several else tables.time // DAY_US, return_inverse=True)
    return cluster


def _shares(values: Float64, edges: Float64, clusters: Int64) -> tuple[Int64, Float64]:
    """Readings in each bin, and the covariance of the bins' shares.

    Linearised between-cluster variance of a ratio (Rao and Scott 1981, The analysis of categorical data from complex
    sample surveys).
    """
    read = ~np.isnan(values)
    bins = np.searchsorted(edges, values[read], side="right")
    groups = int(clusters.max()) + 1
    found = np.bincount(clusters[read] * BINS + bins, minlength=groups * BINS).reshape(groups, BINS)
    counts, total = found.sum(axis=0), found.sum()
    apart = (found - np.outer(found.sum(axis=1), counts / total)) / total
    return counts, apart.T @ apart * groups / max(groups - 1, 1)


def _day_means(tables: Tables, values: list[Float64], schema: Schema) -> tuple[Int64, Float64]:
    """Machines (days) and means (columns, days) of a sample of machine-days, sorted by machine and day.

    A mean of less than half a day's readings varies more than the others, and is left out as NaN.
    """
    day = tables.time // DAY_US
    starts = np.flatnonzero(np.append(True, (np.diff(tables.machine) != 0) | (np.diff(day) != 0)))
    chosen = np.arange(len(starts))
    if len(starts) > MOST_DAYS:
        rng = np.random.Generator(np.random.PCG64(_SEED))
        chosen = np.sort(rng.choice(len(starts), MOST_DAYS, replace=False))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(day))))
    enough = max(DAY_US // schema.period_us / 2, 1)
    means = np.full((len(values), len(chosen)), np.nan)
    for mean, column in zip(means, values, strict=True):
        read = ~np.isnan(column)
        count = np.bincount(group[read], minlength=len(starts))[chosen]
        total = np.bincount(group[read], column[read], len(starts))[chosen]
        np.divide(total, count, out=mean, where=count >= enough)
    sampled = tables.machine[starts[chosen]]
    if tables.names is not None:  # the manifest names the machines; other tables would give their names other codes
        sampled = np.searchsorted(tables.bounds()[0], sampled)
    return sampled, means


def _error_counts(tables: Tables, codes: int) -> Int64:
    """How often each code occurs between the first and the last row of its machine."""
    counts = np.zeros(codes, np.int64)
    for window in tables.windows():
        seen = (window.errors.time >= window.time[0]) & (window.errors.time <= window.time[-1])
        counts += np.bincount(window.errors.code[seen], minlength=codes)
    return counts
