"""The thresholds at which a score is an alarm, chosen on training machines only.

The anomaly head has a budget of alarms and sees no label. Of the thresholds at which the out-of-fold probabilities of a
failure head would have cost least but for noise, it gets the one nearest to what the costs imply. Costs are counted in
episodes, as the judge counts them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from scipy.stats import chi2

from closedloop.data.schema import Float64
from closedloop.judge.episodes import Rules, failure_cost, foresee, pieces
from closedloop.judge.truth import Bool, Grid, JudgeSettings

CANDIDATES = 40
CONFIDENCE = 0.95  # that the rate of alarm episodes is within the budget
NOISE = (
    0.25  # standard errors of the additional cost; with 1 the cost on other machines is the same, and alarms are more
)
LEAST = 1e-12  # a probability this near to 0 or 1 counts as this near


def budget_threshold(grid: Grid, score: Float64, alarms_per_machine_year: float, rules: Rules) -> float:
    """Return the lowest threshold whose alarm episodes on all machines stay within the budget, with confidence.

    Few episodes in a short time say little of their rate, so the upper limit of the rate must be within the budget.
    Where not even a time without any could show that, no row of training may alarm.

    ``score`` has one value for each row of the grid, and a score at or above the threshold is an alarm. Episodes merge
    as the threshold falls, so their number need not grow all the way; it is searched by the rank of the score. Where
    the highest score itself occurs too often, the threshold is just above it.
    """
    allowed = _most_episodes(alarms_per_machine_year * float(grid.years.sum()))
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


def _most_episodes(expected: float) -> int:
    """Return the largest count whose upper limit, as the mean of a Poisson distribution, is within what is expected.

    The limit is exact (Garwood 1936). The answer is 0 where that of no episode at all, the rule of three, is above it.
    """
    low, high = 0, math.ceil(expected) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if chi2.ppf(CONFIDENCE, 2 * middle + 2) / 2 <= expected else (low, middle)
    return low


def cost_threshold(
    grid: Grid, component: int, probability: Float64, settings: JudgeSettings
) -> tuple[float, tuple[float, float]]:
    """Return the threshold of a component, and the plateau (low, high) on which it was chosen.

    The plateau is the range around the least cost where the additional cost, summed over machines, is within
    ``NOISE`` standard errors of its differences between machines, after the rule of Breiman et al. (1984). Where in it
    the least cost lies is chance, and so the threshold is its point nearest to the probability from which an alarm is
    worth its cost.

    ``probability`` has one value for each row of the grid. The least cost is sought at ranks that grow geometrically,
    from the highest probability to the tenth of the rows; each edge is then found between two of them by bisection.
    """
    ordered = np.sort(probability)[::-1]
    ranks = np.unique(np.geomspace(1, max(2, len(probability) // 10), CANDIDATES).astype(int)) - 1

    def costs(rank: int) -> Float64:
        return np.array(_costs(grid, component, probability >= ordered[rank], settings))

    found = [costs(rank) for rank in ranks]
    best = int(np.argmin(np.sum(found, axis=1)))

    def within(of_machines: Float64) -> bool:
        extra = of_machines - found[best]
        return bool(extra.sum() <= NOISE * extra.std(ddof=1) * math.sqrt(len(extra)))

    def edge(step: int) -> int:
        """Return the last rank of the plateau in the direction of the step."""
        at = best
        while 0 <= at + step < len(ranks) and within(found[at + step]):
            at += step
        if not 0 <= at + step < len(ranks):
            return int(ranks[at])
        inside, outside = int(ranks[at]), int(ranks[at + step])
        while abs(outside - inside) > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if within(costs(middle)) else (inside, middle)
        return inside

    high, low = float(ordered[edge(-1)]), float(ordered[edge(1)])
    lower = float(ordered[ordered < low][0]) if ordered[-1] < low else low  # above it, the alarms are the same
    implied = _worth_an_alarm(settings.costs)
    if implied <= lower:
        return min(_middle(lower, low), low), (lower, high)  # rounding must not put it above the rows that alarm
    return min(implied, high), (lower, high)


def _worth_an_alarm(costs: Mapping[str, float]) -> float:
    """Return the probability from which an alarm is cheaper than none, by what its outcomes cost (Elkan 2001)."""
    saved = costs["unplanned"] - costs["planned"]
    return costs["false_alarm"] / (costs["false_alarm"] + saved) if saved > 0 else 1.0


def _costs(grid: Grid, component: int, alarm: Bool, settings: JudgeSettings) -> list[float]:
    """Return the cost of one component's alarms (a mask over the rows of the grid) on each machine."""
    assert grid.known is not None  # noqa: S101  # failure heads are trained only where failures are known
    known, costs = grid.known[component], []
    for machine, (low, high) in enumerate(pairwise(grid.offsets.tolist())):
        at = low + np.flatnonzero(alarm[low:high])
        outcome = foresee(grid.time[at], known[at], grid.failures[machine][component], settings.rules)
        costs.append(failure_cost(outcome, settings.costs))
    return costs


def _middle(low: float, high: float) -> float:
    """Return the probability in the middle of two on the logit scale."""
    odds = [min(max(each, LEAST), 1 - LEAST) for each in (low, high)]
    logit = sum(math.log(each / (1 - each)) for each in odds) / 2
    return 1 / (1 + math.exp(-logit))
