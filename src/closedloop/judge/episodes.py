"""Alarm episodes: which alarms of one head on one machine are true, and which are false.

Alarms closer than ``gap`` are one episode, and an episode is cut every ``horizon``, so that a constant alarm counts as
many. Each *piece* is judged once:

======== ==============================================================================================
true     one of its alarms is the first to foresee an event
neutral  it matches no new event, and one of its alarms lies shortly before, or in, an event that was detected
false    the rest
unknown  all its alarms lie in rows whose truth is unknown (a replacement may have prevented a failure)
======== ==============================================================================================

Nothing is point-adjusted: an alarm does not count for the hours around it.
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
            DataError: the minimum lead is not below the horizon, so that no alarm could be true.
        """
        gap, lead, neutral = (judge[key] for key in ("episode_gap_hours", "minimum_lead_hours", "neutral_hours"))
        if not 0 <= lead < horizon_hours:
            raise DataError(
                f"judge.minimum_lead_hours is {lead}, labels.horizon_hours {horizon_hours}: no alarm could be true; "
                "choose a lead of at least 0 and below the horizon"
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
        """Number of events that an alarm foresaw in time."""
        return int(np.count_nonzero(~np.isnan(self.lead_hours)))

    @property
    def missed(self) -> int:
        """Number of events that no alarm foresaw in time."""
        return len(self.lead_hours) - self.detected

    @property
    def false_alarms(self) -> int:
        """Number of false pieces."""
        return int(np.count_nonzero(self.kind == FALSE))


def pieces(time: Int64, rules: Rules) -> NDArray[np.intp]:
    """The number of each alarm's piece, from 0; ``time`` holds the alarms in ascending order, in microseconds."""
    if not len(time):
        return np.empty(0, np.intp)
    opens = np.append(True, np.diff(time) >= rules.gap_us)
    since_start = time - time[np.flatnonzero(opens)][np.cumsum(opens) - 1]
    cut = np.append(0, np.diff(since_start // rules.horizon_us)) != 0
    return np.cumsum(opens | cut) - 1


def _judge(time: Int64, known: Bool, hit: Bool, excuse: Bool, ends: Int64, rules: Rules) -> Outcome:
    """Judge alarms. ``hit`` and ``excuse`` (alarms, events) say which alarm is true or neutral for which event."""
    if np.any(np.diff(time) <= 0):
        raise DataError(
            "episodes: alarm times must be strictly ascending; sort the alarms of one head on one machine by time"
        )
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
    *detected* failure are neutral, and so is a piece with such an alarm, which may begin earlier or end after the
    failure, since the cut is arbitrary and causes no second visit. Any other piece is false. So an alarm that is too
    late to act on, before a failure that was missed, is false too.

    Args:
        time: alarms of one head on one machine, ascending, in microseconds.
        known: for each alarm, whether the truth of its row is known.
        failure: times of the failures to foresee, in microseconds.
        rules: the rules of matching.
    """
    lead = failure - time[:, None]
    hit = (lead >= rules.minimum_lead_us) & (lead <= rules.horizon_us)
    return _judge(time, known, hit, (lead >= 0) & (lead <= rules.neutral_us), failure, rules)


def overlap(time: Int64, known: Bool, start: Int64, end: Int64, rules: Rules) -> Outcome:
    """Judge alarms that should detect anomalies, which are intervals [start, end] in microseconds.

    A piece is true if one of its alarms lies in an interval that no earlier piece has matched, neutral if one lies in
    an interval already matched, and false otherwise. Only the alarms of a piece count, not the time between them.
    """
    inside = (time[:, None] >= start) & (time[:, None] <= end)
    return _judge(time, known, inside, inside.copy(), end, rules)


def failure_cost(outcome: Outcome, costs: dict[str, float]) -> float:
    """Cost of one failure head on one machine: detected failures are planned repairs, missed ones unplanned."""
    repairs = outcome.detected * costs["planned"] + outcome.missed * costs["unplanned"]
    return float(repairs + outcome.false_alarms * costs["false_alarm"])


def anomaly_cost(outcome: Outcome, costs: dict[str, float]) -> float:
    """Cost of the anomaly head on one machine: each missed event and each false alarm.

    A machine's cost is the sum over its failure heads and the anomaly head. A failure that the anomaly head detects too
    is counted once, by its failure head, since a detected anomaly costs nothing.
    """
    return float(outcome.missed * costs["missed_anomaly"] + outcome.false_alarms * costs["false_alarm"])
