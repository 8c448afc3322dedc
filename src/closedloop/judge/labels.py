"""Labels: whether a component fails within the horizon after a row, and where that is unknown.

What is known depends on what was reported. Up to its maturity mark everything that happened to a machine has been
reported, so that silence means health; after it only what was reported is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from closedloop.data.marks import NOTHING_REPORTED, Marks
from closedloop.data.schema import FINDINGS, Events, Int64, MachineWindow, Schema, Tables

UNKNOWN = -1
WORN, SOUND = FINDINGS.index("worn"), FINDINGS.index("sound")

Bool = NDArray[np.bool_]


def labels(window: MachineWindow, schema: Schema, horizon_us: int) -> NDArray[np.int8]:
    """Label of each component at each row, shape (components, rows).

    1: the component fails in (t, t + horizon], or is replaced there before it fails and was found worn. 0: neither.
    -1 (unknown): neither, but it is replaced in (t, t + horizon] without a finding, so that an alarm that was acted on
    may have prevented a failure (censored), or the horizon ends after the machine's maturity mark. A replacement that
    found the component sound prevented nothing and censors nothing.
    """
    time = window.time
    result = np.zeros((len(schema.components), len(time)), np.int8)
    past_mark = time > _mark(window) - horizon_us
    for c in range(len(schema.components)):
        at, finding, _ = replaced(window, c)
        censored = _any_in(at[finding != SOUND], time, horizon_us)
        result[c, censored | past_mark] = UNKNOWN
        result[c, _any_in(events_of(window, c), time, horizon_us)] = 1
    return result


def events_of(window: MachineWindow, component: int) -> Int64:
    """When a component failed, or was replaced before it failed and was found worn: a failure that was prevented."""
    failed = _times(window.failures, component)
    at, finding, _ = replaced(window, component)
    return np.union1d(failed, at[finding == WORN]) if (finding == WORN).any() else failed


def matured(window: MachineWindow) -> Bool:
    """Rows up to the maturity mark.

    Of later rows only those before a reported failure are known. Who learned from them, or judged by them, would see a
    machine that does nothing but fail.
    """
    return window.time <= _mark(window)


def in_failure_hour(window: MachineWindow, schema: Schema) -> Bool:
    """Rows with a failure of any component in (t - sampling period, t]. They count neither as before nor as after."""
    failed = np.sort(window.failures.time)
    before = np.searchsorted(failed, window.time - schema.period_us, side="right")
    return np.searchsorted(failed, window.time, side="right") > before


def with_delay(tables: Tables, delay_us: int | None) -> Tables:
    """The tables with marks no earlier than each machine's last telemetry less the delay of reports.

    Tables without marks are complete, and stay as they are; so do all tables where no delay is set.
    """
    if tables.marks is None or delay_us is None:
        return tables
    ids, offsets = tables.bounds()
    last = tables.time[offsets[1:] - 1] - delay_us
    machine, until = tables.marks.machine, tables.marks.until
    return replace(tables, marks=Marks.of(np.append(machine, ids), np.append(until, last)))


def known_until(tables: Tables, last: Int64) -> Tables:
    """The tables with marks no later than ``last``, one time for each machine that has telemetry.

    Where rows are cut off, what is known of them goes too.
    """
    if tables.marks is None:
        return tables
    ids, _ = tables.bounds()
    return replace(tables, marks=Marks(ids, np.minimum(tables.marks.at(ids), last)))


def _mark(window: MachineWindow) -> int:
    """The maturity mark of a machine: its last row where none is given."""
    if window.until is not None:
        # a horizon is subtracted from it, and the least number has no room for that
        return max(window.until, NOTHING_REPORTED // 2)
    return int(window.time[-1]) if len(window.time) else 0


def replaced(window: MachineWindow, component: int) -> tuple[Int64, NDArray[np.int16], Bool]:
    """When a component was replaced, the finding (-1 where none counts), and whether it had failed before.

    The repair of a failure finds the component worn, of course. It prevented nothing, so its finding does not count.
    """
    mine = window.maint.code == component
    at, failed = window.maint.time[mine], _times(window.failures, component)
    until = np.searchsorted(failed, at, side="right")
    repairs: Bool = until > np.append(0, until)[: len(at)]  # more failures than up to the replacement before it
    finding = np.full(len(at), -1, np.int16)
    if window.maint.finding is not None:
        finding[~repairs] = window.maint.finding[mine][~repairs]
    return at, finding, repairs


def _times(events: Events, component: int) -> Int64:
    return events.time[events.code == component]


def _any_in(times: Int64, time: Int64, horizon_us: int) -> Bool:
    """Rows t with one of these times in (t, t + horizon]."""
    until = np.searchsorted(times, time + horizon_us, side="right")
    return until > np.searchsorted(times, time, side="right")
