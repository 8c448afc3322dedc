"""Operating curves: events detected against false alarms, as the threshold varies.

The threshold runs over the held-out machines' own scores, so a curve shows what a model *could* do with hindsight. What
it does is one point, whose thresholds were chosen on training machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64, Schema
from closedloop.judge.episodes import Rules
from closedloop.judge.outcomes import Judge, anomaly_judge, any_failure, failure_judge
from closedloop.judge.truth import ANOMALY, Aligned, Grid

BUDGETS = (1.0, 1.5, 2.0, 5.0)  # false alarms for each machine-year at which a curve is read
TAIL = 48  # thresholds beyond the largest budget, where a curve is only drawn

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """One point for each threshold, the highest first; the first threshold is infinity, which never alarms."""

    threshold: Float64
    event_recall: Float64
    false_alarms: Float64  # for each machine-year

    def best_at(self, false_alarms: float) -> int:
        """Index of the point with the best event recall at no more than these false alarms for each machine-year."""
        return int(np.argmax(np.where(self.false_alarms <= false_alarms, self.event_recall, -1.0)))

    def recall_at(self, false_alarms: float) -> float:
        """The event recall at that point."""
        return float(self.event_recall[self.best_at(false_alarms)])


def read(curve: Curve | None) -> dict[str, float | None]:
    """The event recall at each of the ``BUDGETS``: the part ``event_recall_at`` of ``metrics.json``."""
    return {f"{budget:g}": None if curve is None else curve.recall_at(budget) for budget in BUDGETS}


def curves(heads: Mapping[str, Aligned], grid: Grid, rules: Rules, schema: Schema) -> dict[str, Curve | None]:
    """Both curves of one model, by part of ``metrics.json``."""
    return {"failure": failure_curve(heads, grid, rules, schema), "anomaly": anomaly_curve(heads, grid, rules)}


def failure_curve(heads: Mapping[str, Aligned], grid: Grid, rules: Rules, schema: Schema) -> Curve | None:
    """The curve of all failure heads together, which share one threshold here.

    None where no head has finite scores, or nothing failed. A missing head foresees nothing.
    """
    places = [c for c, name in enumerate(schema.components) if name in heads]
    missed = sum(len(of_one[c]) for of_one in grid.failures for c in range(len(schema.components)) if c not in places)
    before = max(rules.neutral_us, rules.horizon_us)
    judged = [
        _Head(
            heads[schema.components[c]].score,
            grid.known[c],
            failure_judge(grid, c, rules),
            [(of_one[c] - before, of_one[c]) for of_one in grid.failures],
        )
        for c in places
    ]
    return _curve(judged, grid, rules, missed)


def anomaly_curve(heads: Mapping[str, Aligned], grid: Grid, rules: Rules) -> Curve | None:
    """The curve of the anomaly head; None where it has no finite scores, or there are no events."""
    if ANOMALY not in heads or grid.events is None:
        return None
    excused: Sequence[tuple[Int64, Int64]] = grid.anomalies
    if grid.events != "anomalies":
        failed = [any_failure(grid, number) for number in range(len(grid.ids))]
        excused = [(time - max(rules.neutral_us, rules.horizon_us), time) for time in failed]
    head = _Head(heads[ANOMALY].score, grid.anomaly_known, anomaly_judge(grid, rules), excused)
    return _curve([head], grid, rules, 0)


@dataclass(frozen=True)
class _Head:
    """One head's scores and known rows on the grid, how its alarms are judged, and when one may not be false.

    ``excused`` has the first and last times of such intervals for each machine.
    """

    score: Float64
    known: Bool
    judge: Judge
    excused: Sequence[tuple[Int64, Int64]]


class _Sweep:
    """The alarms of all heads while the threshold falls, row by row, and what the judge says of them.

    ``detected`` and ``false_alarms`` are sums over heads and machines. Only what a row's machine and head say is judged
    again when that row begins to alarm.
    """

    def __init__(self, heads: Sequence[_Head], grid: Grid, rules: Rules) -> None:
        self.heads, self.grid = heads, grid
        self.detected = self.false_alarms = 0
        self._owner = np.repeat(np.arange(len(grid.ids)), np.diff(grid.offsets))
        self._alarms: dict[tuple[int, int], list[int]] = {}
        self._counted: dict[tuple[int, int], tuple[int, int]] = {}
        self._bin = grid.time // rules.horizon_us
        self._certain = [head.known & ~_near(head.excused, grid, rules.horizon_us) for head in heads]
        self._bins: dict[tuple[int, int], set[int]] = {}
        self.least = 0  # false alarms that no lower threshold can undercut

    def alarm(self, places: Int64) -> None:
        """Let these rows alarm too: places in the scores of all heads, one after the other."""
        touched = set()
        for place in places.tolist():
            head, row = divmod(place, len(self._owner))
            key = head, int(self._owner[row])
            self._alarms.setdefault(key, []).append(row)
            touched.add(key)
            if self._certain[head][row]:
                self._add_certain(self._bins.setdefault(key, set()), int(self._bin[row]))
        for key in touched:
            head, machine = key
            self._alarms[key].sort()
            rows = np.array(self._alarms[key])
            outcome = self.heads[head].judge(machine, self.grid.time[rows], self.heads[head].known[rows])
            was, now = self._counted.get(key, (0, 0)), (outcome.detected, outcome.false_alarms)
            self._counted[key] = now
            self.detected += now[0] - was[0]
            self.false_alarms += now[1] - was[1]

    def _add_certain(self, bins: set[int], new: int) -> None:
        """Count a horizon that holds a row which is false for certain: of a run of such horizons, every other one."""
        if new in bins:
            return
        before = after = 0
        while new - before - 1 in bins:
            before += 1
        while new + after + 1 in bins:
            after += 1
        bins.add(new)
        self.least += (before + after + 2) // 2 - (before + 1) // 2 - (after + 1) // 2


def _near(excused: Sequence[tuple[Int64, Int64]], grid: Grid, horizon_us: int) -> Bool:
    """Whether each row lies within a horizon of an excused interval: a piece with an alarm there may not be false."""
    result = np.zeros(len(grid.time), bool)
    for number, (start, end) in enumerate(excused):
        rows = slice(grid.offsets[number], grid.offsets[number + 1])
        for first, last in zip(start.tolist(), end.tolist(), strict=True):
            result[rows] |= (grid.time[rows] >= first - horizon_us) & (grid.time[rows] <= last + horizon_us)
    return result


def _steps(order: Int64, starts: Int64, sweep: _Sweep, most: float) -> Iterator[int]:
    """Let the threshold fall; yield each step's number, every one until more than ``most`` false alarms are certain.

    A row that is known and far from every event makes its piece false whatever else alarms, and a piece is shorter than
    a horizon: such rows in two horizons that are no neighbours are two false alarms, now and at any lower threshold.
    """
    step, stops = 0, np.append(starts[1:], len(order))
    while step < len(starts) and sweep.least <= most:
        sweep.alarm(order[starts[step] : stops[step]])
        yield step
        step += 1
    if step < len(starts):
        for last in np.unique(np.geomspace(step, len(starts) - 1, TAIL).round().astype(int)).tolist():
            sweep.alarm(order[starts[step] : stops[last]])
            yield last
            step = last + 1


def _curve(heads: Sequence[_Head], grid: Grid, rules: Rules, missed: int) -> Curve | None:
    """The curve: the thresholds that no other one beats in both, silence first.

    It is exact up to the largest of the ``BUDGETS``.
    """
    pooled: Float64 = np.concatenate([*(head.score for head in heads), np.empty(0)])
    none, machines = np.empty(0, np.int64), range(len(grid.ids))
    events = missed + sum(
        len(head.judge(number, none, none.astype(bool)).lead_hours) for head in heads for number in machines
    )
    if not len(pooled) or not np.isfinite(pooled).all() or not events:
        return None
    order = np.argsort(-pooled, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(pooled[order]) != 0))
    years, sweep = float(grid.years.sum()), _Sweep(heads, grid, rules)
    best: dict[int, tuple[int, float]] = {0: (0, np.inf)}  # by events detected: false alarms, threshold
    for step in _steps(order, starts, sweep, max(BUDGETS) * years):
        if sweep.detected not in best or sweep.false_alarms < best[sweep.detected][0]:
            best[sweep.detected] = sweep.false_alarms, float(pooled[order[starts[step]]])
    fewest: float = np.inf
    detected: list[int] = []
    for count in sorted(
        best, reverse=True
    ):  # a threshold that detects less at no fewer false alarms is nobody's choice
        if best[count][0] < fewest or not count:
            detected.insert(0, count)
            fewest = best[count][0]
    false_alarms, threshold = np.array([best[count] for count in detected]).T
    return Curve(threshold, np.array(detected) / events, false_alarms / years)
