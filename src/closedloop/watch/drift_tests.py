"""The tests of drift, each of one week of a fleet against the drift reference of a bundle.

Readings of one machine are alike, and a season moves all machines at once. Tests that took readings for independent
would always fire. Here machines are clusters, and what weeks differed by in the training tables counts as chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from closedloop.data.schema import Float64, Int64

Bool = NDArray[np.bool_]

MINIMUM_DAYS_OF_A_MACHINE = 3  # in the drift reference, so that its own mean is known
FOLDS = 5
LAST_WEEKS = 2  # of the drift reference: more average the noise of a week, and are longer ago
MINIMUM_STEPS = 4  # in the drift reference, that do not overlap
PSEUDO_LOOKS = 16  # weeks of the drift reference that show what the classifier finds by chance
_RIDGE = 0.1  # of the variance, so that columns which repeat each other can be inverted


def benjamini_hochberg(p: Float64, rate: float) -> Bool:
    """Which hypotheses are rejected, where of all rejections a share ``rate`` is expected to be false.

    Where nothing is wrong, the chance of any rejection is at most ``rate``: Benjamini and Hochberg 1995, for p-values
    that do not depend on each other negatively.
    """
    order = np.argsort(p)
    holds = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    rejected = np.zeros(len(p), bool)
    rejected[order[: holds.max() + 1 if len(holds) else 0]] = True
    return rejected


def centred(
    before: Float64, machine_before: Int64, now: Float64, machine_now: Int64
) -> tuple[Float64, Float64, Bool, Bool]:
    """Machine-day means less each machine's own mean in the drift reference, of machines that both sides know.

    Machines differ, and which of them run changes: that is no drift. Returned are the means of both sides and which of
    the days they are. Both are scaled by what estimating a machine's mean from k days does to their variance:
    k / (k - 1) before and k / (k + 1) now.
    """
    ids, index = np.unique(machine_before, return_inverse=True)
    there = ~np.isnan(before)
    days = np.bincount(index[there], minlength=len(ids))
    mean = np.bincount(index[there], before[there], len(ids)) / np.maximum(days, 1)
    known = ids[days >= MINIMUM_DAYS_OF_A_MACHINE]
    of_before = there & np.isin(machine_before, known) & np.isin(machine_before, machine_now)
    of_now = ~np.isnan(now) & np.isin(machine_now, known)
    at = np.searchsorted(ids, machine_now[of_now])
    k_before, k_now = days[index[of_before]], days[at]
    return (
        (before[of_before] - mean[index[of_before]]) * np.sqrt(k_before / (k_before - 1)),
        (now[of_now] - mean[at]) * np.sqrt(k_now / (k_now + 1)),
        of_before,
        of_now,
    )


def kolmogorov_smirnov(before: Float64, week: Int64, now: Float64) -> tuple[float, float]:
    """Distance between the distributions of machine-day means, and its p-value.

    What a distance is by chance, the weeks of the drift reference show: each is compared with the others. Where weeks
    differ by a shift that all machines share, the distance is proportional to it, and over its root mean square it is
    Student's t. Where they differ by the noise of single machines, its tail is shorter than that, and the p-value is
    on the safe side. (Kolmogorov's own distribution would take the days for independent.)

    Args:
        before: means of the drift reference.
        week: the week of each of them.
        now: means of the week that is looked at.
    """
    found = _distance(np.sort(before), np.sort(now))
    chance = []
    for one in whole_weeks(week):
        mine = week == one
        chance.append(_distance(np.sort(before[~mine]), np.sort(before[mine])))
    usual = float(np.sqrt(np.mean(np.square(chance)) * (1 + 1 / len(chance))))
    if usual == 0:
        return found, float(found == 0)
    return found, float(2 * stats.t.sf(found / usual, len(chance) - 1))


def _distance(one: Float64, other: Float64) -> float:
    """Kolmogorov and Smirnov's distance between two sorted samples."""
    both = np.append(one, other)
    shares = [np.searchsorted(side, both, side="right") / len(side) for side in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def whole_weeks(week: Int64) -> Int64:
    """The weeks that have at least half as many days as most."""
    numbers, count = np.unique(week, return_counts=True)
    whole: Int64 = numbers[count >= np.median(count) / 2]
    return whole


def step(before: Float64, week: Int64, now: Float64, now_week: float) -> tuple[float, float] | None:
    """How far the level has gone since the last weeks of the drift reference, and the p-value of that.

    A season moves all machines far over a year and little from one week to the next, so this finds a shift that the
    season hides from the other tests. By chance a level goes as far as it went between weeks of the drift reference
    that are as far apart; over the root mean square of these steps it is Student's t, with as many degrees of freedom
    as there are steps that do not overlap, less one. None where there are too few of those.

    Args:
        before: centred means of the drift reference.
        week: the week of each of them.
        now: centred means of the week that is looked at.
        now_week: the week that is looked at, which may lie between two weeks of the drift reference.
    """
    whole = whole_weeks(week)
    apart = max(1, int(np.ceil(now_week - whole[-1])))
    free = len(whole) // (apart + LAST_WEEKS - 1) - 1
    if free < MINIMUM_STEPS - 1:
        return None
    level = np.full(int(whole[-1] - whole[0]) + 1, np.nan)
    for one in whole:
        level[one - whole[0]] = before[week == one].mean()
    base = np.mean([level[k : len(level) - LAST_WEEKS + 1 + k] for k in range(LAST_WEEKS)], axis=0)
    steps = level[LAST_WEEKS - 1 + apart :] - base[: len(base) - apart]
    steps = steps[~np.isnan(steps)]
    if np.isnan(base[-1]) or len(steps) < MINIMUM_STEPS:
        return None
    found = float(now.mean() - base[-1])
    usual = float(np.sqrt(np.mean(steps**2) * (1 + 1 / len(steps))))
    if usual == 0:
        return found, float(found == 0)
    return found, float(2 * stats.t.sf(abs(found) / usual, free))


def rao_scott(before: Int64, now: Int64, covariance: Float64, weeks: float) -> tuple[float, float]:
    """χ² of the shares of bins over what it is by chance, and its p-value.

    Rao and Scott's second-order correction (1981): χ² is scaled so that its mean and its variance are those which the
    covariance of the difference gives. That is known from so many ``weeks``, hence F in place of χ².
    """
    share, share_now = before / before.sum(), now / now.sum()
    floor = np.maximum(share, 1 / (2 * before.sum()))
    found = float(np.sum((share_now - share) ** 2 / floor))
    ratio = covariance / floor[:, None]
    first, second = float(np.trace(ratio)), float(np.trace(ratio @ ratio))
    if first <= 0 or second <= 0:
        return found, float(found == 0)
    return found / first, float(stats.f.sf(found / first, first**2 / second, weeks - 1))


def share_test(before: float, now: Float64, rows: Float64, variance: float, weeks: float) -> float:
    """p-value of a share of rows that was ``before``; ``now`` and ``rows`` are counts for each machine.

    ``variance`` is that of one week's share, known from so many ``weeks``.
    """
    share = now.sum() / rows.sum()
    of_machines = float(np.sum((now - share * rows) ** 2) / rows.sum() ** 2 * len(rows) / max(len(rows) - 1, 1))
    spread = of_machines + variance * (1 + 1 / weeks)
    if spread <= 0:
        return float(share == before)
    return float(2 * stats.t.sf(abs(share - before) / np.sqrt(spread), min(weeks, len(rows)) - 1))


def poisson(before: int, days_before: float, now: Int64, days: Float64, dispersion: float, gone: float) -> float:
    """p-value of the rate of an error; ``now`` and ``days`` are counts and machine-days of each machine.

    Given their sum, two Poisson counts of equal rates are binomial. Both are divided by how much more than Poisson's
    they vary: between weeks (``dispersion``), and between machines as far as those of the drift reference are ``gone``.
    """
    expected = now.sum() * days / days.sum()
    met = expected > 0
    of_machines = float(np.sum((now[met] - expected[met]) ** 2 / expected[met]) / max(met.sum() - 1, 1))
    over = max(1.0, dispersion) + gone * of_machines
    few, all_ = round(now.sum() / over), round((before + now.sum()) / over)
    if not all_:
        return 1.0
    return float(stats.binomtest(few, all_, days.sum() / (days.sum() + days_before)).pvalue)


# --- a classifier that tells now from before --------------------------------------------------------------------------


def classifier(
    before: Float64, machine_before: Int64, week: Int64, now: Float64, machine_now: Int64
) -> tuple[float, float]:
    """How well a classifier tells this week's machine-days from earlier ones (area under the curve), and its p-value.

    A linear discriminant on the columns and their squares, on machines that it was not fitted to. What it finds by
    chance is what it finds between a week of the drift reference and the others; the p-value is Student's t of this
    week among those.

    Args:
        before: columns of the drift reference (columns, days), centred, 0 where there is no mean.
        machine_before: the machine of each of its days.
        week: the week of each of its days.
        now: the same columns of the week that is looked at.
        machine_now: the machine of each of its days.
    """
    scale = before.std(axis=1, keepdims=True)
    scale[scale == 0] = 1.0
    old, new = (np.vstack([values / scale, (values / scale) ** 2 - 1]) for values in (before, now))
    usual = whole_weeks(week)
    usual = usual[np.linspace(0, len(usual) - 1, min(PSEUDO_LOOKS, len(usual))).astype(int)]
    size = int(np.median(np.unique(week, return_counts=True)[1]))
    picked = np.random.default_rng(0).permutation(new.shape[1])[
        :size
    ]  # as many days as a week of the drift reference has
    chance = []
    for one in usual:
        mine = week == one
        chance.append(_apart(old[:, ~mine], machine_before[~mine], old[:, mine], machine_before[mine]))
    area = _apart(old, machine_before, new[:, picked], machine_now[picked])
    spread = max(float(np.std(chance, ddof=1)), 0.01) * np.sqrt(1 + 1 / len(chance))
    return area, float(stats.t.sf((area - np.mean(chance)) / spread, len(chance) - 1))


def _apart(one: Float64, machine_one: Int64, other: Float64, machine_other: Int64) -> float:
    """Area under the curve of a discriminant between two sets of days, out of fold, folds grouped by machine."""
    X = np.hstack([one, other])
    y = np.append(np.zeros(one.shape[1], bool), np.ones(other.shape[1], bool))
    fold = np.unique(np.append(machine_one, machine_other), return_inverse=True)[1] % FOLDS
    parts = [[X[:, (fold == k) & (y == side)] for side in (False, True)] for k in range(FOLDS)]
    count = np.array([[part.shape[1] for part in both] for both in parts], np.float64)  # (folds, sides)
    sums = np.array([[part.sum(axis=1) for part in both] for both in parts])  # (folds, sides, columns)
    products = np.array([sum(part @ part.T for part in both) for both in parts])  # (folds, columns, columns)
    score = np.zeros(len(y))
    for k in range(FOLDS):
        fit = np.arange(FOLDS) != k
        n = count[fit].sum(axis=0)
        if not n.all():
            continue
        centre = sums[fit].sum(axis=0) / n[:, None]
        spread = (products[fit].sum(axis=0) - (centre.T * n) @ centre) / n.sum()
        spread[np.diag_indices_from(spread)] += _RIDGE * (1e-6 + np.diag(spread))
        score[fold == k] = np.linalg.solve(spread, centre[1] - centre[0]) @ (
            X[:, fold == k] - centre.mean(axis=0)[:, None]
        )
    ones = np.sort(score[y])
    below, up_to = (np.searchsorted(ones, score[~y], side=side).mean() for side in ("left", "right"))
    return float(1 - (below + up_to) / 2 / len(ones))  # of a tie, half counts
