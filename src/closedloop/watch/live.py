"""Live quality: what came true of the answers that were given, for each model and each machine model.

Only what is known counts, as in every other judgement: answers up to a machine's maturity mark, and of the rows before
a replacement those whose finding is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64, Schema, Tables
from closedloop.judge.compare import Ratio
from closedloop.judge.episodes import Outcome
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.truth import ANOMALY, YEAR_US, Grid, JudgeSettings, PredictionTable, Truth, align

BOUND = 0.05  # each bound of an interval is one-sided at this level, as in the report


@dataclass(frozen=True)
class Answered:
    """The answers of one model: machine, time (microseconds), head (a name), score and alarm, of each head's answer.

    A machine is its number, or its position among the names of the tables.
    """

    model: str
    machine: Int64
    time: Int64
    head: NDArray[np.object_]
    score: Float64
    alarm: NDArray[np.bool_]


@dataclass(frozen=True)
class Live:
    """How one model did: ``figures`` as JSON, ``counts`` for each machine, and the times that were judged."""

    model: str
    figures: dict[str, Any]
    counts: LiveCounts | None


@dataclass(frozen=True)
class LiveCounts:
    """What the failure heads did on each machine, all components together."""

    detected: Float64
    events: Float64
    false_alarms: Float64
    years: Float64


def live(
    answers: Answered, tables: Tables, schema: Schema, source: str, settings: JudgeSettings, since_us: int = 0
) -> Live:
    """Judge one model's answers since a time.

    Args:
        answers: of one model.
        tables: the log's tables with their marks, so that what is not yet known is left out.
        schema: the fleet's schema.
        source: the fleet's name.
        settings: rules and costs.
        since_us: answers for earlier rows do not count.
    """
    rows = answered_rows(answers, tables) & (tables.time >= since_us)
    figures: dict[str, Any] = {"answers": int(rows.sum()), "machines": len(np.unique(tables.machine[rows]))}
    if not rows.any():
        return Live(answers.model, figures, None)
    grid = Grid.of(Truth(tables.rows(rows), schema, source), settings)
    grid = replace(grid, years=_watched_years(grid, tables, settings))
    table = PredictionTable(tables.named(answers.machine), answers.time, answers.head, answers.score, answers.alarm)
    heads = {name: head for name, head in align(table, grid).items() if name in (*schema.components, ANOMALY)}
    found = assess(heads, grid, settings, schema)
    every = np.ones(len(grid.ids), bool)
    figures |= {"machine_years": float(grid.years.sum()), **_figures(found, every)}
    figures["lead_time_hours"] = _lead_times(found)
    figures["asked_too_late"] = _asked_too_late(grid, tables, settings, since_us)
    figures["by_machine_model"] = {
        schema.models[number] if number >= 0 else "unknown": {"machines": int(mine.sum())} | _figures(found, mine)
        for number in np.unique(grid.model).tolist()
        if (mine := grid.model == number).any()
    }
    return Live(answers.model, figures, _counts(found))


def answered_rows(answers: Answered, tables: Tables) -> NDArray[np.bool_]:
    """Which telemetry rows the model answered for."""
    given = np.unique(np.array([answers.machine, answers.time]), axis=1)
    rows = np.zeros(len(tables.time), bool)
    ids, offsets = tables.bounds()
    for machine, start, stop in zip(ids.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        low, high = np.searchsorted(given[0], [machine, machine + 1])
        rows[start:stop] = np.isin(tables.time[start:stop], given[1, low:high])
    return rows


def _watched_years(grid: Grid, tables: Tables, settings: JudgeSettings) -> Float64:
    """How long each machine was watched: from each answer to the next, at most as long as alarms of one episode last.

    A service that is asked every six hours watches as many hours as one that is asked every hour.
    """
    years = np.zeros(len(grid.ids))
    until = None if tables.marks is None else tables.marks.at(grid.ids)
    for number, (start, stop) in enumerate(zip(grid.offsets[:-1], grid.offsets[1:], strict=True)):
        time = grid.time[start:stop]
        step = np.minimum(np.diff(time), settings.rules.gap_us)
        usual = int(np.median(step)) if len(step) else 0
        spans = np.append(step, usual)
        years[number] = spans[time <= until[number]].sum() if until is not None else spans.sum()
    return years / YEAR_US


def _figures(found: Assessment, machines: NDArray[np.bool_]) -> dict[str, Any]:
    """Each figure of some machines with its interval, over machines."""
    years, counts = found.years[machines], _counts(found)
    ratios = {"cost_per_machine_year": (Ratio(found.cost[machines], years), np.inf)}
    if counts is not None:
        events = counts.events[machines]
        predicted, observed = (part[machines].sum(axis=1) for part in (found.predicted, found.observed))
        ratios |= {
            "event_recall": (Ratio(counts.detected[machines], events), 1.0),
            "false_alarms_per_machine_year": (Ratio(counts.false_alarms[machines], years), np.inf),
            "calibration": (Ratio(predicted, observed), np.inf),  # failures expected over failures seen
        }
    result: dict[str, Any] = {"failures": 0 if counts is None else int(counts.events[machines].sum())}
    for name, (ratio, most) in ratios.items():
        low, high = ratio.interval(BOUND)
        result[name] = {
            "estimate": ratio.estimate,
            "low": None if low is None else max(low, 0.0),
            "high": None if high is None else min(high, most),
        }
    return result


def _counts(found: Assessment) -> LiveCounts | None:
    """What the failure heads did; None where failures are not known."""
    chosen = [outcomes for head, outcomes in found.outcomes.items() if head != ANOMALY]
    if not chosen:
        return None

    def total(count: Callable[[Outcome], int]) -> Float64:
        return np.array([[count(outcome) for outcome in head] for head in chosen], np.float64).sum(axis=0)

    detected = total(lambda outcome: outcome.detected)
    events = detected + total(lambda outcome: outcome.missed)
    return LiveCounts(detected, events, total(lambda outcome: outcome.false_alarms), found.years)


def _lead_times(found: Assessment) -> dict[str, float] | None:
    """Median and quartiles of the hours from the first true alarm to the failure; None where none was foreseen."""
    hours = [one.lead_hours for head, of_head in found.outcomes.items() if head != ANOMALY for one in of_head]
    lead = np.concatenate([*hours, np.empty(0)])
    lead = lead[~np.isnan(lead)]
    if not len(lead):
        return None
    low, median, high = np.quantile(lead, [0.25, 0.5, 0.75]).tolist()
    return {"lower_quartile": low, "median": median, "upper_quartile": high}


def _asked_too_late(grid: Grid, tables: Tables, settings: JudgeSettings, since_us: int) -> int:
    """Matured failures before which the service was not asked in time, so that no model could have foreseen them."""
    if tables.failures is None:
        return 0
    judged = sum(len(of_one) for of_machine in grid.failures for of_one in of_machine)
    failed = tables.failures.rows(np.isin(tables.failures.machine, grid.ids))
    mature = failed.time >= since_us + settings.rules.horizon_us
    if tables.marks is not None:
        mature &= failed.time <= tables.marks.at(failed.machine)
    return max(int(mature.sum()) - judged, 0)
