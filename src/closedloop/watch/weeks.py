"""What became of a model's answers week by week: failures foreseen and missed, and false alarms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from closedloop.data.schema import HOUR_US, Float64, Int64, Schema, Tables
from closedloop.judge.episodes import FALSE
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.truth import ANOMALY, YEAR_US, Grid, JudgeSettings, PredictionTable, Truth, align
from closedloop.watch.live import Answered, answered_rows

WEEK_US = 7 * 24 * HOUR_US


@dataclass(frozen=True)
class ByWeek:
    """One entry for each week: its start (microseconds UTC), what became of its failures, its false alarms.

    ``years`` are the machine-years of each week in which a service watched.
    """

    start: Int64
    foreseen: Int64
    missed: Int64
    false_alarms: Int64
    years: Float64

    def total(self, weeks: slice) -> dict[str, float | None]:
        """Failures, the share foreseen, and false alarms for each machine-year, of some weeks together."""
        foreseen, missed = int(self.foreseen[weeks].sum()), int(self.missed[weeks].sum())
        years = float(self.years[weeks].sum())
        return {
            "failures": foreseen + missed,
            "event_recall": foreseen / (foreseen + missed) if foreseen + missed else None,
            "false_alarms_per_machine_year": float(self.false_alarms[weeks].sum()) / years if years else None,
        }


def weeks(
    answers: Answered, tables: Tables, schema: Schema, source: str, settings: JudgeSettings, start_us: int, count: int
) -> ByWeek:
    """Judge one model's answers in so many weeks from a time on; a week without answers has zeros.

    Args:
        answers: of one model.
        tables: what is known of the fleet.
        schema: the fleet's schema.
        source: the fleet's name.
        settings: rules and costs.
        start_us: start of the first week.
        count: how many weeks.
    """
    start = start_us + WEEK_US * np.arange(count, dtype=np.int64)
    rows = answered_rows(answers, tables)
    if not rows.any():
        none = np.zeros(count, np.int64)
        return ByWeek(start, none, none, none, np.zeros(count))
    grid = Grid.of(Truth(tables.rows(rows), schema, source), settings)
    table = PredictionTable(tables.named(answers.machine), answers.time, answers.head, answers.score, answers.alarm)
    heads = {name: head for name, head in align(table, grid).items() if name in schema.components}
    found = assess(heads, replace(grid, years=np.maximum(grid.years, 1e-9)), settings, schema)
    foreseen, missed, false = _times(found, grid)
    step = min(settings.rules.gap_us, int(np.median(np.diff(np.unique(grid.time)))))  # one answer watches so long
    years = _by_week(grid.time, start_us, count) * step / YEAR_US
    by_week = [_by_week(times, start_us, count) for times in (foreseen, missed, false)]
    return ByWeek(start, by_week[0], by_week[1], by_week[2], years)


def _times(found: Assessment, grid: Grid) -> tuple[Int64, Int64, Int64]:
    """When failures happened that were foreseen, and that were missed, and when false alarms began."""
    foreseen, missed, false = ([np.empty(0, np.int64)] for _ in range(3))
    for component, (_, outcomes) in enumerate(item for item in found.outcomes.items() if item[0] != ANOMALY):
        for machine, outcome in enumerate(outcomes):
            at = np.asarray(grid.failures[machine][component], np.int64)
            early = ~np.isnan(outcome.lead_hours)
            foreseen.append(at[early])
            missed.append(at[~early])
            false.append(outcome.start[outcome.kind == FALSE])
    return np.concatenate(foreseen), np.concatenate(missed), np.concatenate(false)


def _by_week(times: Int64, start_us: int, count: int) -> Int64:
    """How many of these times each week has."""
    number = (times - start_us) // WEEK_US
    return np.bincount(number[(number >= 0) & (number < count)], minlength=count).astype(np.int64)
