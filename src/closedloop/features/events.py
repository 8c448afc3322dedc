"""The compiled loops over errors, maintenance and what a machine is; they call nothing in another file."""

from __future__ import annotations

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int16, Int64

HOUR_US = 3_600_000_000.0
DAY_US = 24 * HOUR_US
NEVER = np.iinfo(np.int64).min


def locate(
    ids: Int64,
    machine_ids: Int64,
    machine_model: Int16,
    machine_age: Float64,
    models: int,
    model: Int64,
    age: Float64,
    error_machine: Int64,
    error_bounds: Int64,
    maint_machine: Int64,
    maint_bounds: Int64,
) -> None:
    """What each of the sorted machines ``ids`` is, and where its events lie.

    ``model`` becomes ``models`` and ``age`` NaN where they are not known; the bounds (2, machines) become the first and
    last + 1 event of each machine.
    """
    for m in range(len(ids)):
        model[m], age[m] = models, np.nan
        at = np.searchsorted(machine_ids, ids[m])
        if at < len(machine_ids) and machine_ids[at] == ids[m]:
            age[m] = machine_age[at]
            if machine_model[at] >= 0:
                model[m] = machine_model[at]
        error_bounds[0, m] = np.searchsorted(error_machine, ids[m])
        error_bounds[1, m] = np.searchsorted(error_machine, ids[m], side="right")
        maint_bounds[0, m] = np.searchsorted(maint_machine, ids[m])
        maint_bounds[1, m] = np.searchsorted(maint_machine, ids[m], side="right")


def events(
    low: int,
    high: int,
    last_only: bool,
    offsets: Int64,
    time: Int64,
    model: Int64,
    age: Float64,
    error_bounds: Int64,
    error_time: Int64,
    error_code: Int16,
    maint_bounds: Int64,
    maint_time: Int64,
    maint_code: Int16,
    windows: Int64,
    history: int,
    sizes: Int64,
    shift: int,
    X: Float64,
) -> None:
    """All features but telemetry's of machines low to high - 1, written to X (features, columns).

    Columns are those of :func:`~closedloop.features.compiled.telemetry`. ``sizes``: the first feature, and how many
    error codes, components and models there are; the bounds are the first and last + 1 event of each machine.
    """
    for m in range(low, high):
        begin, stop = offsets[m + 1] - 1 if last_only else offsets[m], offsets[m + 1]
        to = m - begin if last_only else -shift
        f, codes, components, models = sizes
        own = slice(error_bounds[0, m], error_bounds[1, m])
        if codes:
            _errors(begin, stop, to, time, error_time[own], error_code[own], windows, history, f, codes, X)
            f += codes * (len(windows) + 1)
        own = slice(maint_bounds[0, m], maint_bounds[1, m])
        _maint(begin, stop, to, time, maint_time[own], maint_code[own], f, components, X)
        f += components
        X[f, begin + to : stop + to] = age[m]
        for other in range(models):
            f += 1
            X[f, begin + to : stop + to] = np.nan if model[m] == models else 1.0 if model[m] == other else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _errors(
    begin: int,
    stop: int,
    to: int,
    time: Int64,
    event_time: Int64,
    event_code: Int16,
    windows: Int64,
    history: int,
    f: int,
    codes: int,
    X: Float64,
) -> None:
    """Counts of each error code in each window, and hours since the last one inside the history."""
    counts, oldest = np.zeros((codes, len(windows)), np.int64), np.zeros(len(windows), np.int64)
    last, seen = np.full(codes, NEVER), 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            for w in range(len(windows)):
                counts[event_code[seen], w] += 1
            seen += 1
        for w in range(len(windows)):
            while oldest[w] < seen and event_time[oldest[w]] <= time[r] - windows[w]:
                counts[event_code[oldest[w]], w] -= 1
                oldest[w] += 1
        row = f
        for code in range(codes):
            for w in range(len(windows)):
                X[row + w, r + to] = counts[code, w]
            recent = last[code] > time[r] - history
            X[row + len(windows), r + to] = (time[r] - last[code]) / HOUR_US if recent else np.nan
            row += len(windows) + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _maint(
    begin: int,
    stop: int,
    to: int,
    time: Int64,
    event_time: Int64,
    event_code: Int16,
    f: int,
    components: int,
    X: Float64,
) -> None:
    """Days since the last replacement of each component, however old."""
    last, seen = np.full(components, NEVER), 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            seen += 1
        for c in range(components):
            X[f + c, r + to] = np.nan if last[c] == NEVER else (time[r] - last[c]) / DAY_US
