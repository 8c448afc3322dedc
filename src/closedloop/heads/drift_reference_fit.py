"""Fit the drift reference: describe training tables in little space, so that later tables can be compared with them."""

from __future__ import annotations

import numpy as np

from closedloop.data.schema import HOUR_US, Float64, Int64, Schema, Tables
from closedloop.heads.drift_reference import BINS, MOST_DAYS, QUANTILES, DriftReference, Weeks

DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
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
    clusters = clusters_of(tables)
    binned = [shares(value, edge, clusters) for value, edge in zip(values, edges, strict=True)]
    machine, day, means = day_means(tables, values, schema, MOST_DAYS)
    if tables.names is not None:  # the manifest names the machines; other tables would give their names other codes
        machine = np.searchsorted(tables.bounds()[0], machine)
    return DriftReference(
        quantiles=np.array([np.quantile(column, QUANTILES) for column in columns]),
        edges=edges,
        counts=np.array([counts for counts, _ in binned]),
        covariance=np.array([covariance for _, covariance in binned]),
        missing=np.array([1 - len(column) / len(tables.time) for column in columns]),
        day_machine=machine,
        day_means=means,
        error_counts=error_counts(tables, len(schema.errors)).sum(axis=0),
        machine_days=len(tables.time) * schema.period_us / DAY_US,
        weeks=_weeks(tables, values, edges, day, len(schema.errors)),
    )


def clusters_of(tables: Tables) -> Int64:
    """The cluster of each row, from 0: its machine, or its day where there is only one machine."""
    several = len(np.unique(tables.machine)) > 1
    _, cluster = np.unique(tables.machine if several else tables.time // DAY_US, return_inverse=True)
    return cluster


def shares(values: Float64, edges: Float64, clusters: Int64) -> tuple[Int64, Float64]:
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


def day_means(
    tables: Tables, values: list[Float64], schema: Schema, most: int | None = None
) -> tuple[Int64, Int64, Float64]:
    """Machines and UTC days (days) and means (columns, days) of machine-days, sorted by machine and day.

    Of more than ``most`` a sample is taken. A mean of less than half a day's readings varies more than the others, and
    is left out as NaN.
    """
    day = tables.time // DAY_US
    starts = np.flatnonzero(np.append(True, (np.diff(tables.machine) != 0) | (np.diff(day) != 0)))
    chosen = np.arange(len(starts))
    if most is not None and len(starts) > most:
        rng = np.random.Generator(np.random.PCG64(_SEED))
        chosen = np.sort(rng.choice(len(starts), most, replace=False))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(day))))
    enough = max(DAY_US // schema.period_us / 2, 1)
    means = np.full((len(values), len(chosen)), np.nan)
    for mean, column in zip(means, values, strict=True):
        read = ~np.isnan(column)
        count = np.bincount(group[read], minlength=len(starts))[chosen]
        total = np.bincount(group[read], column[read], len(starts))[chosen]
        np.divide(total, count, out=mean, where=count >= enough)
    return tables.machine[starts[chosen]], day[starts[chosen]], means


def error_counts(tables: Tables, codes: int) -> Int64:
    """How often each code occurs between the first and the last row of its machine, shape (machines, codes)."""
    windows = list(tables.windows())
    counts = np.zeros((len(windows), codes), np.int64)
    for count, window in zip(counts, windows, strict=True):
        seen = (window.errors.time >= window.time[0]) & (window.errors.time <= window.time[-1])
        count += np.bincount(window.errors.code[seen], minlength=codes)
    return counts


def _weeks(tables: Tables, values: list[Float64], edges: Float64, day: Int64, codes: int) -> Weeks:
    """How much whole weeks of the fleet differ. A week with less than half of the rows of most is not whole."""
    of_row = tables.time // WEEK_US
    numbers, week, rows = np.unique(of_row, return_inverse=True, return_counts=True)
    whole = rows >= np.median(rows) / 2
    count = int(whole.sum())
    covariance, missing = np.zeros((len(values), BINS, BINS)), np.zeros(len(values))
    for c, (value, edge) in enumerate(zip(values, edges, strict=True)):
        read = ~np.isnan(value)
        bins = np.searchsorted(edge, value[read], side="right")
        found = np.bincount(week[read] * BINS + bins, minlength=len(numbers) * BINS).reshape(-1, BINS)[whole]
        share = found[found.sum(axis=1) > 0]
        if len(share) > 1:
            covariance[c] = np.cov(share / share.sum(axis=1, keepdims=True), rowvar=False)
        if count > 1:
            missing[c] = np.var(1 - (np.bincount(week[read], minlength=len(numbers)) / rows)[whole], ddof=1)
    at = np.searchsorted(numbers, tables.errors.time // WEEK_US)
    met = (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == tables.errors.time // WEEK_US)
    errors = np.bincount(at[met] * codes + tables.errors.code[met], minlength=len(numbers) * codes)
    rates = errors.reshape(len(numbers), codes)[whole] * (np.median(rows) / rows[whole])[:, None]
    mean = rates.mean(axis=0)
    spread = rates.var(axis=0, ddof=1) if count > 1 else np.zeros(codes)
    dispersion = np.divide(spread, mean, out=np.ones(codes), where=mean > 0)
    return Weeks(float(count), day.astype(np.int32), covariance, missing, dispersion)
