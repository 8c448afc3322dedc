"""Operating curves: events detected against false alarms, as the threshold varies.

The threshold runs over the held-out machines' own scores, so a curve shows what a model *could* do with hindsight. What
it does is one point, whose thresholds were chosen on training machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from closedloop.data.schema import Float64, Schema
from closedloop.judge.episodes import Outcome, Rules
from closedloop.judge.outcomes import of_anomalies, of_failures
from closedloop.judge.truth import ANOMALY, Aligned, Grid

POINTS = 64  # thresholds of a curve
HALFWAY = 2.0  # false alarms for each machine-year: half of the points' spread lies below
BUDGETS = (1.0, 1.5, 2.0, 5.0)  # false alarms for each machine-year at which a curve is read


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
    scores = [heads[schema.components[c]].score for c in places]
    missed = sum(len(of_one[c]) for of_one in grid.failures for c in range(len(schema.components)) if c not in places)

    def judge(threshold: float) -> list[Outcome]:
        pairs = zip(places, scores, strict=True)
        return [one for c, score in pairs for one in of_failures(score >= threshold, grid, c, rules)]

    return _sweep(scores, grid, judge, missed)


def anomaly_curve(heads: Mapping[str, Aligned], grid: Grid, rules: Rules) -> Curve | None:
    """The curve of the anomaly head; None where it has no finite scores, or there are no events."""
    if ANOMALY not in heads or grid.events is None:
        return None
    score = heads[ANOMALY].score
    return _sweep([score], grid, lambda threshold: of_anomalies(score >= threshold, grid, rules), 0)


def _sweep(scores: Sequence[Float64], grid: Grid, judge: Callable[[float], list[Outcome]], missed: int) -> Curve | None:
    """The curve, with most points where it changes most: the widest step between two points is halved repeatedly."""
    pooled: Float64 = np.concatenate([*scores, np.empty(0)])
    events = missed + sum(len(one.lead_hours) for one in judge(np.inf))
    if not len(pooled) or not np.isfinite(pooled).all() or not events:
        return None
    thresholds = np.append(np.inf, np.unique(pooled)[::-1])
    years = float(grid.years.sum())

    def point(number: int) -> tuple[float, float]:
        outcomes = judge(float(thresholds[number]))
        return sum(one.detected for one in outcomes) / events, sum(one.false_alarms for one in outcomes) / years

    def step(low: int, high: int) -> float:
        (less, few), (more, many) = found[low], found[high]
        return abs(more - less) + abs(many / (many + HALFWAY) - few / (few + HALFWAY)) if high - low > 1 else 0.0

    found = {number: point(number) for number in (0, len(thresholds) - 1)}
    while len(found) < POINTS:
        low, high = max(pairwise(sorted(found)), key=lambda pair: step(*pair))
        if not step(low, high):
            break
        middle = max(math.isqrt(low * high), low + 1)  # of ranks, since few of many rows matter
        found[middle] = point(middle)
    chosen = sorted(found)
    recall, false_alarms = np.array([found[number] for number in chosen]).T
    return Curve(thresholds[chosen], recall, false_alarms)
