"""An operator who acts on alarms: a component that alarms is replaced, and the failure that was coming does not come.

What happens without the operator is known, since the fleet is simulated: so what a model that learned from the log of
these actions foresees can be judged on failures that nobody prevented.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from closedloop.data.schema import FINDINGS, HOUR_US, Events, Tables
from closedloop.data.simulate import ERRORS_OF, PROFILES, SENSORS, START_US, STEP, Simulation

WORN, SOUND = FINDINGS.index("worn"), FINDINGS.index("sound")
REST_HOURS = 72  # after an alarm, in which others of that component are the same one


@dataclass(frozen=True)
class Operator:
    """Acts on a share of alarms, each after a delay of up to so many hours."""

    share: float
    delay_hours: int = 8


@dataclass(frozen=True)
class Wear:
    """What leads to one failure: its first hour, the hour of the failure, and its severity in steps."""

    first: int
    failure: int
    severity: float


@dataclass(frozen=True)
class Action:
    """A replacement that the operator made, and the wear that it ended; None where the component was sound."""

    machine: int
    hour: int
    component: int
    wear: Wear | None


@dataclass(frozen=True)
class Acted:
    """The tables that the log gets, with the finding of each replacement, and what the operator did."""

    tables: Tables
    actions: list[Action]

    @property
    def prevented(self) -> int:
        return sum(action.wear is not None for action in self.actions)


def act(made: Simulation, profile: str, alarm: np.ndarray, operator: Operator, rng: np.random.Generator) -> Acted:
    """The tables of a fleet whose operator acts on alarms, ``alarm`` being (components, rows).

    A replacement after wear began and before the failure prevents it: from then on the sensor reads as if there had
    been no wear, no error of it comes, and neither the failure nor its repair happens.
    """
    tables = made.tables
    hours = len(tables.time) // len(tables.machine_ids)
    wears, actions = _wears(made, hours), []
    for machine in tables.machine_ids.tolist():
        for component in range(len(SENSORS)):
            free = 0
            for hour in np.flatnonzero(alarm[component, (machine - 1) * hours : machine * hours]).tolist():
                if hour < free:
                    continue
                free = hour + REST_HOURS
                when = hour + int(rng.integers(1, operator.delay_hours + 1))
                if rng.random() < operator.share and when < hours:
                    met = [wear for wear in wears.get((machine, component), []) if wear.first <= when < wear.failure]
                    actions.append(Action(machine, when, component, met[0] if met else None))
    return Acted(_tables(tables, actions, profile, hours), _once(actions))


def _once(actions: list[Action]) -> list[Action]:
    """Only the first action on each wear ends it; a later one finds a new component."""
    seen, kept = set(), []
    for action in actions:
        key = (action.machine, action.component, action.wear)
        again = action.wear is not None and key in seen
        seen.add(key)
        kept.append(replace(action, wear=None) if again else action)
    return kept


def seen_as(tables: Tables, how: str) -> Tables:
    """The tables with what a way of labelling knows of the findings.

    ``findings``: all of them; ``censoring``: none; ``naive``: no replacement is taken to have prevented anything.
    """
    maint = tables.maint
    known = {"censoring": -1, "naive": SOUND}
    finding = maint.finding if how == "findings" else np.full(len(maint.time), known[how], np.int16)
    return replace(tables, maint=Events(maint.machine, maint.time, maint.code, finding))


def _wears(made: Simulation, hours: int) -> dict[tuple[int, int], list[Wear]]:
    """What leads to a failure, by machine and component; what began before the first hour is left out."""
    found: dict[tuple[int, int], list[Wear]] = {}
    rows = made.anomalies[made.anomalies["leads_to_failure"]]
    first, last = (
        (rows[name].dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64) - START_US) // HOUR_US
        for name in ("start", "end")
    )
    columns = rows["machineID"].tolist(), rows["sensor"].tolist(), first.tolist(), last.tolist()
    for machine, sensor, start, end, severity in zip(*columns, rows["severity"].tolist(), strict=True):
        if start > 0 and end < hours:
            found.setdefault((machine, SENSORS.index(sensor)), []).append(Wear(start, end, severity))
    return found


def _tables(tables: Tables, actions: list[Action], profile: str, hours: int) -> Tables:
    """The tables as they are with these actions."""
    actions = _once(actions)
    values = tables.values.copy()
    errors, hour_of_error = tables.errors, (tables.errors.time - START_US) // HOUR_US
    kept = np.ones(len(hour_of_error), bool)
    gone = set()
    for action in actions:
        if (wear := action.wear) is None:
            continue
        gone.add((action.machine, wear.failure, action.component))
        _heal(values[action.component, (action.machine - 1) * hours : action.machine * hours], action, profile)
        mine = (errors.machine == action.machine) & np.isin(errors.code, ERRORS_OF[action.component])
        kept &= ~(mine & (hour_of_error > action.hour) & (hour_of_error <= wear.failure))
    maint, failures = tables.maint, tables.failures
    stays = _others(maint, gone)
    columns = [
        (a.machine, START_US + a.hour * HOUR_US, a.component, SOUND if a.wear is None else WORN) for a in actions
    ]
    machine, time, code, finding = np.array(columns, np.int64).reshape(-1, 4).T
    joined = Events.of(
        np.append(maint.machine[stays], machine),
        np.append(maint.time[stays], time),
        np.append(maint.code[stays], code).astype(np.int16),
        np.append(np.full(int(stays.sum()), SOUND), finding).astype(np.int16),
    )
    failures = failures.rows(_others(failures, gone))
    return replace(tables, values=values, errors=errors.rows(kept), maint=joined, failures=failures)


def _heal(readings: np.ndarray, action: Action, profile: str) -> None:
    """Take the wear out of a sensor's readings from the hour of the action on."""
    wear = action.wear
    length = wear.failure - wear.first + 1
    rise = np.minimum(np.arange(1, length + 1) / max(1.0, PROFILES[profile].ramp * length), 1.0)
    shift = (wear.severity * STEP[action.component] * rise)[action.hour - wear.first :]
    readings[action.hour : wear.failure + 1] -= shift
    np.maximum(readings, 0.0, out=readings)
    readings.round(6, out=readings)


def _others(events: Events, gone: set[tuple[int, int, int]]) -> np.ndarray:
    """Which events are not among these (machine, hour, component)."""
    hour = ((events.time - START_US) // HOUR_US).tolist()
    keys = zip(events.machine.tolist(), hour, events.code.tolist(), strict=True)
    return np.fromiter((key not in gone for key in keys), bool, len(hour))
