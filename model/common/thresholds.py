"""The thresholds at which a score is an alarm, chosen on training machines only.

The anomaly head has a budget of alarms and sees no label. A failure head gets the threshold at which its out-of-fold
probabilities would have cost least, where costs are counted in episodes, as the judge counts them.
"""

from __future__ import annotations

import numpy as np

from closedloop.data.schema import Float64
from closedloop.judge.episodes import Rules, failure_cost, foresee, pieces
from closedloop.judge.truth import Grid, JudgeSettings

CANDIDATES = 40


def budget_threshold(grid: Grid, score: Float64, alarms_per_machine_year: float, rules: Rules) -> float:
    """Return the lowest threshold whose alarm episodes on all machines stay within the budget.

    ``score`` has one value for each row of the grid, and a score at or above the threshold is an alarm. Episodes merge
    as the threshold falls, so their number need not grow all the way; it is searched by the rank of the score. Where
    the highest score itself occurs too often, the threshold is just above it.
    """
    allowed = alarms_per_machine_year * float(grid.years.sum())
    ordered = np.sort(score)

    def episodes(threshold: float) -> int:
        count = 0
        for low, high in zip(grid.offsets[:-1], grid.offsets[1:], strict=True):
            numbers = pieces(grid.time[low:high][score[low:high] >= threshold], rules)
            count += int(numbers[-1]) + 1 if len(numbers) else 0
        return count

    few, many = 1, len(ordered)  # rows in alarm: the answer lies between
    while many - few > max(1, few // 100):
        middle = (few + many) // 2
        if episodes(float(ordered[-middle])) <= allowed:
            few = middle
        else:
            many = middle
    threshold = float(ordered[-few])
    return threshold if episodes(threshold) <= allowed else float(np.nextafter(ordered[-1], np.inf))


def cost_threshold(grid: Grid, component: int, probability: Float64, settings: JudgeSettings) -> float:
    """Return the threshold of least cost for one component; of two that cost the same, the higher one.

    ``probability`` has one value for each row of the grid. The candidates are probabilities at ranks that grow
    geometrically, from the highest one to the tenth of the rows.
    """
    ranks = np.unique(np.geomspace(1, max(2, len(probability) // 10), CANDIDATES).astype(int))
    candidates = np.unique(np.sort(probability)[-ranks])[::-1]
    assert grid.known is not None  # noqa: S101  # failure heads are trained only where failures are known
    known = grid.known[component]

    def cost(threshold: float) -> float:
        total = 0.0
        for machine, (low, high) in enumerate(zip(grid.offsets[:-1], grid.offsets[1:], strict=True)):
            at = low + np.flatnonzero(probability[low:high] >= threshold)
            failures = grid.failures[machine][component]
            total += failure_cost(foresee(grid.time[at], known[at], failures, settings.rules), settings.costs)
        return total

    costs = [cost(float(threshold)) for threshold in candidates]
    return float(candidates[int(np.argmin(costs))])
