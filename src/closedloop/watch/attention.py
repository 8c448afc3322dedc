"""Which machines need attention now, and why: what the newest answers say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import HOUR_US, Float64, Int64, Tables
from closedloop.judge.truth import ANOMALY
from closedloop.log.answers import Answers
from closedloop.watch.live import Answered

MOST = 20  # machines that are listed
SILENT_HOURS = 24  # without an answer, while others have newer ones
SHOWN_HOURS = 14 * 24  # of a timeline


@dataclass(frozen=True)
class Attention:
    """A machine, its last answered row (microseconds UTC), why it is listed, and its highest probability."""

    machine: int
    last: int
    reasons: list[str]
    probability: float | None


def machines(newest: Answered, given: Answers, tables: Tables) -> list[Attention]:
    """The machines that alarm now, or of which nothing has been heard, the most probable failure first.

    A machine that was replaced or has failed since its alarm is left out: somebody was there. ``newest`` is the
    newest model; ``given`` all answers, so that machines of which it never heard are found.
    """
    now, visits = int(given.time.max()), [tables.maint, *([] if tables.failures is None else [tables.failures])]
    found = []
    for machine in np.unique(given.machine).tolist():
        last = int(given.time[given.machine == machine].max())
        if now - last > SILENT_HOURS * HOUR_US:
            hours = (now - last) / HOUR_US
            found.append(Attention(machine, last, [f"no answer for {hours:,.0f} hours"], None))
            continue
        at = (newest.machine == machine) & (newest.time == last)
        on = at & newest.alarm
        alarms = [_reason(head, score) for head, score in zip(newest.head[on], newest.score[on], strict=True)]
        visited = any(((events.machine == machine) & (events.time > last)).any() for events in visits)
        if alarms and not visited:
            failing = newest.score[at & (newest.head != ANOMALY)]
            found.append(Attention(machine, last, alarms, float(failing.max()) if len(failing) else None))
    return sorted(found, key=lambda one: (-(one.probability or 0.0), one.machine))[:MOST]


def _reason(head: str, score: float) -> str:
    return f"anomaly, score {score:.2f}" if head == ANOMALY else f"{head} fails soon, probability {score:.2f}"


def timeline(newest: Answered, machine: int) -> tuple[Int64, Float64, NDArray[np.bool_]]:
    """Time, highest probability of failure, and whether any head alarmed, of a machine's last two weeks of answers."""
    mine = newest.machine == machine
    if not mine.any():
        return np.empty(0, np.int64), np.empty(0), np.empty(0, bool)
    mine &= newest.time > newest.time[mine].max() - SHOWN_HOURS * HOUR_US
    time, row = np.unique(newest.time[mine], return_inverse=True)
    score, alarm = np.zeros(len(time)), np.zeros(len(time), bool)
    failing = newest.head[mine] != ANOMALY
    np.maximum.at(score, row[failing], newest.score[mine][failing])
    np.logical_or.at(alarm, row, newest.alarm[mine])
    return time, score, alarm
