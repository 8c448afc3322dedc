"""What a model costs beside ways to run a fleet without one: never act, act always, replace on a schedule.

The schedule is age replacement: a component is replaced when it reaches an age, or when it fails before. With the
survival function S of its lives, the long-run cost of the age T is, for each year of a machine,

    (planned · S(T) + unplanned · (1 - S(T))) / ∫₀ᵀ S(u) du

(Barlow and Hunter, Optimum preventive maintenance policies, Operations Research 8, 1960). S is the estimate of Kaplan
and Meier (1958): a life that ends without a failure counts up to its end. The best age of each component is chosen with
hindsight, on the very machines that judge the model, so the schedule is better here than a real one could be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from closedloop.data.schema import Float64, Int64, Tables
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.truth import ANOMALY, YEAR_US, Aligned, Bool, Grid
from closedloop.report.pictures import Seen

NEVER, SCHEDULE, ALWAYS = "Never act", "Best schedule", "Act always"


@dataclass(frozen=True)
class Policy:
    """What a way to run the fleet comes to, each figure for each machine-year.

    ``cost`` is in currency, ``surprises`` are failures that nothing foresaw (anomalies, where no failures are known),
    ``actions`` are alarms or planned replacements that somebody acted on.
    """

    name: str
    cost: float
    surprises: float
    actions: float


class Schedule(NamedTuple):
    """What replacing one component at an age comes to, each figure for each machine-year."""

    cost: float
    failures: float
    replacements: float


def policies(seen: Seen) -> list[Policy]:
    """Return the ways without a model, then the champion where there is one, and the model; all on the same machines.

    Empty where nothing is judged.
    """
    grid, settings, schema = seen.grid, seen.settings, seen.truth.schema
    if not seen.mine.outcomes:
        return []
    never = _of_model(NEVER, assess({}, grid, settings, schema), grid)
    ways = [never]
    if grid.supervised:
        ways.append(_on_schedule(seen, never))
    heads = dict.fromkeys((*schema.components, ANOMALY), _always(grid))
    ways.append(_of_model(ALWAYS, assess(heads, grid, settings, schema), grid))
    if seen.theirs is not None:
        ways.append(_of_model("The champion", seen.theirs, grid))
    return [*ways, _of_model("This model", seen.mine, grid)]


def table(seen: Seen) -> dict[str, Any] | None:
    """Return the policies as a table of the report; None where nothing is judged."""
    rows = [[one.name, f"{one.cost:,.0f}", f"{one.surprises:,.2f}", f"{one.actions:,.1f}"] for one in policies(seen)]
    events = "Failures" if seen.grid.supervised else "Anomalies"
    head = ["Per machine-year", "Cost", f"{events} not foreseen", "Acted"]
    note = (
        "All on the same machines, with the costs of params.yaml. Who never acts repairs what has failed. To act is to "
        "follow an alarm, true or false, or to replace a component by schedule. The best schedule replaces each "
        "component at the age that was cheapest on these very machines, which nobody knows beforehand."
    )
    return {"head": head, "rows": rows, "note": note} if rows else None


def _of_model(name: str, one: Assessment, grid: Grid) -> Policy:
    years = float(one.years.sum())
    events = [head for head in one.outcomes if (head != ANOMALY) == grid.supervised]
    missed = sum(outcome.missed for head in events for outcome in one.outcomes[head])
    acted = sum(outcome.detected + outcome.false_alarms for head in one.outcomes.values() for outcome in head)
    return Policy(name, float(one.cost.sum()) / years, missed / years, acted / years)


def _always(grid: Grid) -> Aligned:
    """An alarm in every row."""
    rows = len(grid.time)
    return Aligned(np.ones(rows), np.ones(rows, bool), np.zeros(rows, bool), 0)


def _on_schedule(seen: Seen, never: Policy) -> Policy:
    """The schedule; a component that no age would have made cheaper runs until it fails."""
    costs, years = seen.settings.costs, float(seen.grid.years.sum())
    saved = fewer = planned = 0.0
    for code in range(len(seen.truth.schema.components)):
        rate = sum(len(machine[code]) for machine in seen.grid.failures) / years
        ages, failed = lives(seen.truth.tables, code)
        cheapest = best_age(ages, failed, costs["planned"], costs["unplanned"])
        if cheapest is not None and cheapest.cost < costs["unplanned"] * rate:
            saved += costs["unplanned"] * rate - cheapest.cost
            fewer += rate - cheapest.failures
            planned += cheapest.replacements
    return Policy(SCHEDULE, never.cost - saved, never.surprises - fewer, planned)


def lives(tables: Tables, code: int) -> tuple[Float64, Bool]:
    """Return how long each life of a component lasted and whether a failure ended it.

    A life begins with a replacement or a failure, which is repaired; one whose beginning is not known is left out. It
    ends with the next of these, or with the machine's last row.

    Returns:
        Ages in years, and booleans; both of shape (lives,).
    """
    begins: list[int] = []
    ends: list[int] = []
    failed: list[bool] = []
    for window in tables.windows():
        marks: dict[int, bool] = {}
        for events, ending in ((window.maint, False), (window.failures, True)):  # at the same time it is a failure
            marks |= dict.fromkeys(events.time[events.code == code].tolist(), ending)
        times = sorted(marks)
        last = int(window.time[-1])
        begins += times
        ends += [*times[1:], max(last, times[-1])] if times else []
        failed += [*(marks[time] for time in times[1:]), False] if times else []
    ages: Int64 = np.array(ends, np.int64) - np.array(begins, np.int64)
    return ages / YEAR_US, np.array(failed, bool)


def best_age(ages: Float64, failed: Bool, planned: float, unplanned: float) -> Schedule | None:
    """Return the cheapest age at which to replace a component; None where none has failed.

    Args:
        ages: of each life, in years, of shape (lives,).
        failed: whether a failure ended it.
        planned: cost of a planned replacement.
        unplanned: cost of a failure.
    """
    at, ended = np.unique(ages[failed & (ages > 0)], return_counts=True)  # the best moments are just before a failure
    if not len(at):
        return None
    at_risk = len(ages) - np.searchsorted(np.sort(ages), at)
    alive = np.append(1.0, np.cumprod(1 - ended / at_risk))[:-1]  # before each of these ages
    lasted = np.cumsum(alive * np.diff(at, prepend=0.0))
    cost = (planned * alive + unplanned * (1 - alive)) / lasted
    best = int(cost.argmin())
    return Schedule(*(float(each[best]) for each in (cost, (1 - alive) / lasted, alive / lasted)))
