"""The compiled loops over errors, maintenance, and each machine's model and age."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int16, Int64
from closedloop.features.structures import Part, Readings

HOUR_US = 3_600_000_000.0
DAY_US = 24 * HOUR_US
NEVER = np.iinfo(np.int64).min


class Machines(NamedTuple):
    """What each machine is, and where its events lie in the sorted tables.

    ``model`` is the number of models, and ``age`` (years) NaN, where it is not known. The bounds (2, machines) are the
    first and last + 1 event of each machine.
    """

    model: Int64
    age: Float64
    error_bounds: Int64
    maint_bounds: Int64


class Happened(NamedTuple):
    """Times (µs) and codes of all errors and of all replacements, read-only."""

    error_time: Int64
    error_code: Int16
    maint_time: Int64
    maint_code: Int16


class Layout(NamedTuple):
    """Which features there are from ``first`` on.

    ``windows`` (µs) are those of the error counts, ``history`` (µs) is how long an error is remembered; ``codes`` is 0
    where the errors family is off.
    """

    windows: Int64
    history: int
    first: int
    codes: int
    components: int
    models: int


def locate(
    ids: Int64,
    machine_ids: Int64,
    machine_model: Int16,
    machine_age: Float64,
    models: int,
    error_machine: Int64,
    maint_machine: Int64,
    found: Machines,
) -> None:
    """Write to ``found`` what each of the sorted machines ``ids`` is, and where its events lie."""
    for m in range(len(ids)):
        found.model[m], found.age[m] = models, np.nan
        at = np.searchsorted(machine_ids, ids[m])
        if at < len(machine_ids) and machine_ids[at] == ids[m]:
            found.age[m] = machine_age[at]
            if machine_model[at] >= 0:
                found.model[m] = machine_model[at]
        found.error_bounds[0, m] = np.searchsorted(error_machine, ids[m])
        found.error_bounds[1, m] = np.searchsorted(error_machine, ids[m], side="right")
        found.maint_bounds[0, m] = np.searchsorted(maint_machine, ids[m])
        found.maint_bounds[1, m] = np.searchsorted(maint_machine, ids[m], side="right")


@njit(nogil=True, error_model="numpy")
def events(part: Part, readings: Readings, machines: Machines, happened: Happened, layout: Layout, X: Float64) -> None:
    """Write all features of a part but telemetry's to X (features, columns)."""
    models = layout.models
    for m in range(part.low, part.high):
        stop = readings.offsets[m + 1]
        begin = stop - 1 if part.last_only else readings.offsets[m]
        to = m - begin if part.last_only else -part.shift
        time, f = readings.time[begin:stop], layout.first
        if layout.codes:
            own = slice(machines.error_bounds[0, m], machines.error_bounds[1, m])
            _errors(time, begin + to, happened.error_time[own], happened.error_code[own], layout, X)
            f += layout.codes * (len(layout.windows) + 1)
        own = slice(machines.maint_bounds[0, m], machines.maint_bounds[1, m])
        _maint(time, begin + to, happened.maint_time[own], happened.maint_code[own], f, layout.components, X)
        f += layout.components
        X[f, begin + to : stop + to] = machines.age[m]
        for other in range(models):
            f += 1
            known, same = machines.model[m] != models, machines.model[m] == other
            X[f, begin + to : stop + to] = (1.0 if same else 0.0) if known else np.nan


@njit(nogil=True, error_model="numpy")
def _errors(time: Int64, column: int, event_time: Int64, event_code: Int16, layout: Layout, X: Float64) -> None:
    """Write counts of each error code in each window, and hours since the last one inside the history."""
    windows, codes = layout.windows, layout.codes
    counts, oldest = np.zeros((codes, len(windows)), np.int64), np.zeros(len(windows), np.int64)
    last, seen = np.full(codes, NEVER), 0
    for r in range(len(time)):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            for w in range(len(windows)):
                counts[event_code[seen], w] += 1
            seen += 1
        for w in range(len(windows)):
            while oldest[w] < seen and event_time[oldest[w]] <= time[r] - windows[w]:
                counts[event_code[oldest[w]], w] -= 1
                oldest[w] += 1
        f = layout.first
        for code in range(codes):
            for w in range(len(windows)):
                X[f + w, column + r] = counts[code, w]
            recent = last[code] > time[r] - layout.history
            X[f + len(windows), column + r] = (time[r] - last[code]) / HOUR_US if recent else np.nan
            f += len(windows) + 1


@njit(nogil=True, error_model="numpy")
def _maint(time: Int64, column: int, event_time: Int64, event_code: Int16, f: int, components: int, X: Float64) -> None:
    """Write days since the last replacement of each component, however old."""
    last, seen = np.full(components, NEVER), 0
    for r in range(len(time)):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            seen += 1
        for c in range(components):
            X[f + c, column + r] = np.nan if last[c] == NEVER else (time[r] - last[c]) / DAY_US
