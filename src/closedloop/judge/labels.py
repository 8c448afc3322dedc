"""Labels: whether a component fails within the horizon after a row, and where that is unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Events, Int64, MachineWindow, Schema

UNKNOWN = -1


def labels(window: MachineWindow, schema: Schema, horizon_us: int) -> NDArray[np.int8]:
    """Label of each component at each row, shape (components, rows).

    1: the component fails in (t, t + horizon]. 0: it does not. -1 (unknown): it does not, but it is replaced in
    (t, t + horizon], so that an alarm that was acted on may have prevented a failure (censored), or the horizon ends
    after the machine's last telemetry row.
    """
    time = window.time
    result = np.zeros((len(schema.components), len(time)), np.int8)
    past_end = time + horizon_us > (time[-1] if len(time) else 0)
    for c in range(len(schema.components)):
        censored = _any_in(window.maint, c, time, horizon_us)
        result[c, censored | past_end] = UNKNOWN
        result[c, _any_in(window.failures, c, time, horizon_us)] = 1
    return result


def in_failure_hour(window: MachineWindow, schema: Schema) -> NDArray[np.bool_]:
    """Rows with a failure of any component in (t - sampling period, t]. They count neither as before nor as after."""
    failed = np.sort(window.failures.time)
    before = np.searchsorted(failed, window.time - schema.period_us, side="right")
    return np.searchsorted(failed, window.time, side="right") > before


def _any_in(events: Events, code: int, time: Int64, horizon_us: int) -> NDArray[np.bool_]:
    """Rows t with an event of this code in (t, t + horizon]."""
    times = events.time[events.code == code]
    until = np.searchsorted(times, time + horizon_us, side="right")
    return until > np.searchsorted(times, time, side="right")
