"""Alarm episodes: which alarms of one head on one machine were right, which cost a visit for nothing.

Alarms closer than ``gap`` are one episode, and an episode is cut every ``horizon``, so that a head that never falls
silent is not one alarm but many. Each *piece* is judged once:

======== ==============================================================================================
true     one of its alarms is the first to foresee an event
neutral  it matches nothing new, and one of its alarms lies shortly before, or in, an event that was detected
false    the rest
unknown  all its alarms lie in rows whose truth nobody knows (a failure that a replacement may have prevented)
======== ==============================================================================================

Nothing is point-adjusted: one alarm never buys the hours around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import HOUR_US, DataError, Float64, Int64, microseconds

Bool = NDArray[np.bool_]

TRUE, NEUTRAL, FALSE, UNKNOWN = 1, 0, -1, -2


@dataclass(frozen=True)
class Rules:
    """The rules of matching, all in microseconds."""

    gap_us: int
    horizon_us: int
    minimum_lead_us: int
    neutral_us: int

    @classmethod
    def of(cls, judge: dict[str, Any], horizon_hours: float) -> Rules:
        """From the section ``judge:`` of ``params.yaml`` and ``labels.horizon_hours``.

        Raises:
            DataError: the least lead is not below the horizon, so that no alarm could ever be right.
        """
        gap, lead, neutral = (judge[key] for key in ("episode_gap_hours", "minimum_lead_hours", "neutral_hours"))
        if not 0 <= lead < horizon_hours:
            raise DataError(
                f"judge.minimum_lead_hours is {lead}, labels.horizon_hours {horizon_hours}: no alarm could be right; "
                "choose a lead from 0 to below the horizon"
            )
        return cls(*(microseconds(hours) for hours in (gap, horizon_hours, lead, neutral)))


@dataclass(frozen=True)
class Outcome:
    """One head's alarms on one machine, judged.

    ``lead_hours`` has one entry for each event: hours from the first alarm that foresaw it to the event (to its end
    where it is an interval), NaN where it was missed. ``start``, ``stop`` (first and last alarm, microseconds) and
    ``kind`` (TRUE, NEUTRAL, FALSE or UNKNOWN) have one for each piece, in order of time.
    """

    lead_hours: Float64
    start: Int64
    stop: Int64
    kind: NDArray[np.int8]

    @property
    def detected(self) -> int:
        """Events that an alarm foresaw in time."""
        return int(np.count_nonzero(~np.isnan(self.lead_hours)))

    @property
    def missed(self) -> int:
        """Events that none did."""
        return len(self.lead_hours) - self.detected

    @property
    def false_alarms(self) -> int:
        """Pieces that cost a visit for nothing."""
        return int(np.count_nonzero(self.kind == FALSE))


def pieces(time: Int64, rules: Rules) -> NDArray[np.intp]:
    """The number of each alarm's piece, 0, 1, …; ``time`` holds the alarms in rising order, in microseconds."""
    if not len(time):
        return np.empty(0, np.intp)
    opens = np.append(True, np.diff(time) >= rules.gap_us)
    since_start = time - time[np.flatnonzero(opens)][np.cumsum(opens) - 1]
    cut = np.append(0, np.diff(since_start // rules.horizon_us)) != 0
    return np.cumsum(opens | cut) - 1


def _judge(time: Int64, known: Bool, hit: Bool, excuse: Bool, ends: Int64, rules: Rules) -> Outcome:
    """Judge alarms given ``hit`` and ``excuse`` of shape (alarms, events): foresees it, and is not to blame near it."""
    if np.any(np.diff(time) <= 0):
        raise DataError("episodes: alarm times must rise strictly; sort one head's alarms on one machine by time")
    lead_hours = np.full(len(ends), np.nan)
    if not len(time):
        return Outcome(lead_hours, time, time, np.empty(0, np.int8))
    number = pieces(time, rules)
    hit &= known[:, None]
    detected = hit.any(axis=0)
    first = hit.argmax(axis=0)[detected]
    lead_hours[detected] = (ends[detected] - time[first]) / HOUR_US

    kind = np.full(number[-1] + 1, UNKNOWN, np.int8)
    kind[number[known]] = FALSE
    kind[number[known & (excuse & detected).any(axis=1)]] = NEUTRAL
    kind[number[first]] = TRUE
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return Outcome(lead_hours, time[starts], time[np.append(starts[1:], len(time)) - 1], kind)


def foresee(time: Int64, known: Bool, failure: Int64, rules: Rules) -> Outcome:
    """Judge alarms that should foresee failures.

    A piece is true if one of its alarms lies between ``minimum_lead`` and ``horizon`` (both included) before a failure
    that no earlier piece has matched; one piece may foresee several failures. Alarms up to ``neutral`` before a
    *detected* failure are neutral, and so is a piece with such an alarm, which may begin earlier or outlast the
    failure: the cut is ours, and nobody is called twice for it. Any other is false. So an alarm too late to act on,
    before a failure that was missed, is false too.

    Args:
        time: alarms of one head on one machine, rising, microseconds.
        known: for each alarm, whether the truth of its row is known.
        failure: times of the failures to foresee, microseconds.
        rules: the rules of matching.
    """
    lead = failure - time[:, None]
    hit = (lead >= rules.minimum_lead_us) & (lead <= rules.horizon_us)
    return _judge(time, known, hit, (lead >= 0) & (lead <= rules.neutral_us), failure, rules)


def overlap(time: Int64, known: Bool, start: Int64, end: Int64, rules: Rules) -> Outcome:
    """Judge alarms that should see anomalies, which are intervals [start, end] in microseconds.

    A piece is true if one of its alarms lies in an interval that no earlier piece has matched, neutral if one lies in
    an interval already matched, and false if none lies in any. Overlap with the piece's alarms counts, not with the
    silence between them.
    """
    inside = (time[:, None] >= start) & (time[:, None] <= end)
    return _judge(time, known, inside, inside.copy(), end, rules)


def failure_cost(outcome: Outcome, costs: dict[str, float]) -> float:
    """What one failure head costs on one machine: detected failures are planned repairs, missed ones unplanned."""
    repairs = outcome.detected * costs["planned"] + outcome.missed * costs["unplanned"]
    return float(repairs + outcome.false_alarms * costs["false_alarm"])


def anomaly_cost(outcome: Outcome, costs: dict[str, float]) -> float:
    """What the anomaly head costs on one machine: each event it missed, and each false alarm.

    Heads add up: a machine's cost is the sum over its failure heads and the anomaly head. A failure that the anomaly
    head saw too is paid for once, by its own head, since a detected anomaly costs nothing.
    """
    return float(outcome.missed * costs["missed_anomaly"] + outcome.false_alarms * costs["false_alarm"])
