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
    """What each machine of a part is, and where its events lie in the sorted tables.

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


class Described(NamedTuple):
    """The sorted machines that have telemetry, the sorted table of machines, and the machine of each event.

    ``model`` is -1, and ``age`` (years) NaN, where it is missing; ``models`` is how many there are.
    """

    ids: Int64
    machine_ids: Int64
    model: Int16
    age: Float64
    models: int
    error_machine: Int64
    maint_machine: Int64


@njit(nogil=True, error_model="numpy")
def locate(part: Part, known: Described) -> Machines:
    """What each machine of a part is, and where its events lie."""
    count = part.high - part.low
    bounds = np.empty((4, count), np.int64)
    model, age = np.full(count, known.models), np.full(count, np.nan)
    for m in range(count):
        machine = known.ids[part.low + m]
        at = np.searchsorted(known.machine_ids, machine)
        if at < len(known.machine_ids) and known.machine_ids[at] == machine:
            age[m] = known.age[at]
            if known.model[at] >= 0:
                model[m] = known.model[at]
        bounds[0, m] = np.searchsorted(known.error_machine, machine)
        bounds[1, m] = np.searchsorted(known.error_machine, machine, side="right")
        bounds[2, m] = np.searchsorted(known.maint_machine, machine)
        bounds[3, m] = np.searchsorted(known.maint_machine, machine, side="right")
    return Machines(model, age, bounds[:2], bounds[2:])


@njit(nogil=True, error_model="numpy")
def events(part: Part, readings: Readings, machines: Machines, happened: Happened, layout: Layout, X: Float64) -> None:
    """Write all features of a part but telemetry's to X (features, columns)."""
    models = layout.models
    for m in range(part.low, part.high):
        stop = readings.offsets[m + 1]
        begin = stop - 1 if part.last_only else readings.offsets[m]
        to = m - begin if part.last_only else -part.shift
        time, f = readings.time[begin:stop], layout.first
        k = m - part.low
        if layout.codes:
            own = slice(machines.error_bounds[0, k], machines.error_bounds[1, k])
            _errors(time, begin + to, happened.error_time[own], happened.error_code[own], layout, X)
            f += layout.codes * (len(layout.windows) + 1)
        own = slice(machines.maint_bounds[0, k], machines.maint_bounds[1, k])
        _maint(time, begin + to, happened.maint_time[own], happened.maint_code[own], f, layout.components, X)
        f += layout.components
        X[f, begin + to : stop + to] = machines.age[k]
        for other in range(models):
            f += 1
            known, same = machines.model[k] != models, machines.model[k] == other
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
