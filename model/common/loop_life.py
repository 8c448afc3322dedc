"""The life of the demonstration's fleet: what its machines ask the service, and what people report, day by day.

The fleet is simulated in a world that moves (:class:`closedloop.data.simulate.Move`). Before it is served it has a
history, from which the first model learns. Reports are late, each by its own delay, so that the log never knows all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import FINDINGS, HOUR_US, Events, Int64, Schema, Tables
from closedloop.data.simulate import START_US, Move, simulate

PROFILE = "default"
# New controllers: two sensors are calibrated otherwise, wear of comp2 shows as the contrary, and codes have changed.
LEVEL, WEAR, CODE = (1.0, 0.0, -1.0, 0.0), (1.0, -1.0, 1.0, 1.0), (3, 0, 0, 4, 1)
HISTORY_HOURS = 72  # that a request holds
VOUCHED_DAYS = 10  # after which people say that everything was reported
LATEST_REPORT_DAYS = 9


@dataclass(frozen=True)
class LifePlan:
    """How large the demonstration is, and on which day of the service what happens.

    Machines are asked every ``every_hours``, ``at_once`` of them in a request. On day ``pinned`` the log joins the
    pinned data, from ``moved`` on the world is another one, on day ``looked`` people look at drift and live quality,
    on day ``retrained`` the next model is trained, and it is served until day ``end``.
    """

    machines: int = 120
    history: int = 75
    pinned: int = 2
    moved: int = 8
    looked: int = 42
    retrained: int = 90
    end: int = 104
    every_hours: int = 6
    at_once: int = 30
    seed: int = 7


SMALL = LifePlan(machines=60, end=97, every_hours=12, at_once=60)  # as the tests run it


class Life:
    """What happens to the fleet, whoever watches. Days count from the day on which it is served first."""

    def __init__(self, plan: LifePlan, schema: Schema) -> None:
        self.plan, self.schema = plan, schema
        move = Move(plan.history + plan.moved, LEVEL, WEAR, CODE)
        days = plan.history + plan.end
        self.tables = simulate(PROFILE, plan.machines, days, plan.seed, schema, move).tables
        hours = 24 * days
        self._time = self.tables.time[:hours]
        self._values = self.tables.values.reshape(len(schema.sensors), plan.machines, hours)
        self._reported, self._findings = _reports(self.tables, plan.seed)

    def at(self, day: float) -> int:
        """The time of a day of the service, in microseconds UTC."""
        return START_US + round((self.plan.history + day) * 24) * HOUR_US

    def history(self) -> Tables:
        """The tables before the first day."""
        return self.until(0)

    def until(self, day: float) -> Tables:
        """The tables before a day, with everything that had happened by then."""
        end, whole = self.at(day), self.tables
        failures = whole.failures or Events.empty()
        return replace(
            whole.rows(whole.time < end),
            errors=whole.errors.rows(whole.errors.time < end),
            maint=whole.maint.rows(whole.maint.time < end),
            failures=failures.rows(failures.time < end),
        )

    def requests(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """Yield the bodies of the requests of days ``start`` to ``end``."""
        first, last = (24 * (self.plan.history + day) for day in (start, end))
        for hour in range(first + self.plan.every_hours - 1, last, self.plan.every_hours):
            for number in range(0, self.plan.machines, self.plan.at_once):
                yield self._request(hour, np.arange(number, min(number + self.plan.at_once, self.plan.machines)))

    def reports(self, start: int, end: int, *, everything: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the bodies of the feedback of days ``start`` to ``end``; once a week people vouch for all machines.

        With ``everything`` the last of them reports all that has happened, and vouches for it.
        """
        for day in range(start + 1, end + 1):
            whole = everything and day == end
            body = self._report(day - 1, day, whole=whole)
            if whole or day % 7 == 0:
                known = day if whole else day - VOUCHED_DAYS
                body["complete_until"] = {"datetime": [to_text(self.at(known) - HOUR_US)], "machineID": [None]}
            if body:
                yield body

    def _request(self, hour: int, machines: Int64) -> dict[str, Any]:
        """The body of a request of some machines at an hour: their last three days."""
        first, ids = max(hour + 1 - HISTORY_HOURS, 0), self.tables.machine_ids[machines]
        until = int(self._time[hour])
        texts = [to_text(int(time)) for time in self._time[first : hour + 1]]
        sent = self._values[:, machines, first : hour + 1].reshape(len(self.schema.sensors), -1)
        telemetry = {
            "datetime": texts * len(machines),
            "machineID": np.repeat(ids, len(texts)).tolist(),
            **dict(zip(self.schema.sensors, sent.tolist(), strict=True)),
        }
        errors, maint = self.tables.errors, self.tables.maint
        recent = np.isin(errors.machine, ids) & (errors.time > until - HISTORY_HOURS * HOUR_US) & (errors.time <= until)
        described = np.isin(self.tables.machine_ids, ids)
        return {
            "telemetry": telemetry,
            "errors": _columns(errors.rows(recent), self.schema.errors, "errorID"),
            "maint": _columns(_last(maint.rows(np.isin(maint.machine, ids) & (maint.time <= until))),
                              self.schema.components, "comp"),
            "machines": {
                "machineID": ids.tolist(),
                "model": [self.schema.models[code] for code in self.tables.machine_model[described].tolist()],
                "age": self.tables.machine_age[described].tolist(),
            },
        }  # fmt: skip

    def _report(self, start: int, end: int, *, whole: bool) -> dict[str, Any]:
        """What is reported from one day to another of failures and replacements that happened in service."""
        body = {}
        for name, column in (("failures", "failure"), ("maint", "comp")):
            events: Events = getattr(self.tables, name)
            reported = self._reported[name]
            late = np.minimum(reported, self.at(end) - 1) if whole else reported
            there = (events.time >= self.at(0)) & (events.time < self.at(end)) & (late >= self.at(start))
            there &= late < self.at(end)
            if there.any():
                body[name] = _columns(events.rows(there), self.schema.components, column)
                if name == "maint":
                    body[name]["finding"] = [FINDINGS[k] if k >= 0 else None for k in self._findings[there].tolist()]
        return body


def _reports(tables: Tables, seed: int) -> tuple[dict[str, Int64], Int64]:
    """When each failure and each replacement is reported, and what was found at each replacement.

    A component that was replaced though it had not failed was sound: the simulator replaces none that is worn.
    """
    rng = np.random.default_rng(seed)
    failures = tables.failures or Events.empty()

    def keys(events: Events) -> set[tuple[int, ...]]:
        return set(zip(events.machine.tolist(), events.time.tolist(), events.code.tolist(), strict=True))

    failed = keys(failures)
    maint = zip(tables.maint.machine.tolist(), tables.maint.time.tolist(), tables.maint.code.tolist(), strict=True)
    findings = np.array([-1 if key in failed else FINDINGS.index("sound") for key in maint], np.int64)
    late = {
        name: events.time + rng.integers(1, 24 * LATEST_REPORT_DAYS, len(events.time)) * HOUR_US
        for name, events in (("failures", failures), ("maint", tables.maint))
    }
    return late, findings


def _columns(events: Events, names: tuple[str, ...], column: str) -> dict[str, list[Any]]:
    """Events as columns of a body."""
    return {
        "datetime": [to_text(time) for time in events.time.tolist()],
        "machineID": events.machine.tolist(),
        column: [names[code] for code in events.code.tolist()],
    }


def _last(maint: Events) -> Events:
    """The last replacement of each component of each machine."""
    order = np.lexsort((maint.time, maint.code, maint.machine))
    machine, code = maint.machine[order], maint.code[order]
    last = np.append((machine[1:] != machine[:-1]) | (code[1:] != code[:-1]), True)[: len(machine)]
    chosen = order[last]
    return Events.of(maint.machine[chosen], maint.time[chosen], maint.code[chosen])
