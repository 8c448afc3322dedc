"""Outcomes of a head's alarms on each machine, from which every figure by episode is counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Int64
from closedloop.judge.episodes import Outcome, Rules, foresee, overlap
from closedloop.judge.truth import Grid

Bool = NDArray[np.bool_]


Judge = Callable[[int, Int64, Bool], Outcome]  # of alarms: the machine's place in the grid, their times, known rows


def failure_judge(grid: Grid, component: int, rules: Rules) -> Judge:
    """How one machine's alarms of one component's head are judged."""
    return lambda number, time, known: foresee(time, known, grid.failures[number][component], rules)


def anomaly_judge(grid: Grid, rules: Rules) -> Judge:
    """How one machine's alarms of the anomaly head are judged, on the events that ``grid.events`` names."""
    if grid.events == "anomalies":
        return lambda number, time, known: overlap(time, known, *grid.anomalies[number], rules)
    return lambda number, time, known: foresee(time, known, any_failure(grid, number), rules)


def of_failures(alarm: Bool, grid: Grid, component: int, rules: Rules) -> list[Outcome]:
    """The outcome of one component's head on each machine; ``alarm`` has one entry for each row of the grid."""
    return _by_machine(alarm, grid, grid.known[component], failure_judge(grid, component, rules))


def of_anomalies(alarm: Bool, grid: Grid, rules: Rules) -> list[Outcome]:
    """The outcome of the anomaly head on each machine."""
    return _by_machine(alarm, grid, grid.anomaly_known, anomaly_judge(grid, rules))


def any_failure(grid: Grid, number: int) -> Int64:
    """Times at which any component of a machine fails, without duplicates."""
    return np.unique(np.concatenate(grid.failures[number]))


def _by_machine(alarm: Bool, grid: Grid, known: Bool, judge_one: Judge) -> list[Outcome]:
    result = []
    for number in range(len(grid.ids)):
        rows = slice(grid.offsets[number], grid.offsets[number + 1])
        at = np.flatnonzero(alarm[rows])
        result.append(judge_one(number, grid.time[rows][at], known[rows][at]))
    return result
