"""Outcomes of a head's alarms on each machine, from which every figure by episode is counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Int64
from closedloop.judge.episodes import Outcome, Rules, foresee, overlap
from closedloop.judge.truth import Grid

Bool = NDArray[np.bool_]


def of_failures(alarm: Bool, grid: Grid, component: int, rules: Rules) -> list[Outcome]:
    """The outcome of one component's head on each machine; ``alarm`` has one entry for each row of the grid."""

    def judge_one(number: int, time: Int64, known: Bool) -> Outcome:
        return foresee(time, known, grid.failures[number][component], rules)

    return _by_machine(alarm, grid, grid.known[component], judge_one)


def of_anomalies(alarm: Bool, grid: Grid, rules: Rules) -> list[Outcome]:
    """The outcome of the anomaly head on each machine, judged on the events that ``grid.events`` names."""

    def judge_one(number: int, time: Int64, known: Bool) -> Outcome:
        if grid.events == "anomalies":
            return overlap(time, known, *grid.anomalies[number], rules)
        return foresee(time, known, _any_failure(grid, number), rules)

    return _by_machine(alarm, grid, grid.anomaly_known, judge_one)


def _any_failure(grid: Grid, number: int) -> Int64:
    """Times at which any component of a machine fails, without duplicates."""
    return np.unique(np.concatenate(grid.failures[number]))


def _by_machine(
    alarm: Bool, grid: Grid, known: Bool, judge_one: Callable[[int, Int64, Bool], Outcome]
) -> list[Outcome]:
    result = []
    for number in range(len(grid.ids)):
        rows = slice(grid.offsets[number], grid.offsets[number + 1])
        at = np.flatnonzero(alarm[rows])
        result.append(judge_one(number, grid.time[rows][at], known[rows][at]))
    return result
