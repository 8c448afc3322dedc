"""Compare two models on the same machines: which differences are proven, and which are noise.

Rows of one machine resemble each other, so the machine is the unit. Each question is a ratio of two sums over machines,
and is answered by a one-sided t test on the machines' differences. To ask whether Σa / Σb exceeds a limit
L is to ask whether the mean of a - L·b is above 0; the limits that such a test would not refuse are Fieller's interval
(Fieller 1954, J. R. Stat. Soc. B 16:175), which for equal exposures is the ordinary paired t interval.

Costs are not normal: one missed failure, which is rare, outweighs all false alarms together, and where none happens to
fall into the holdout, the machines agree for the wrong reason. So costs carry the variance of one more failure that
only one of the two would have foreseen. ``tests/bench/gate_error_rates.py`` shows the error rates with it. Without it,
8 % of models that raise fewer alarms and foresee less are wrongly found better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from closedloop.data.schema import Float64
from closedloop.judge.metrics import Assessment
from closedloop.judge.truth import JudgeSettings

POWER = 0.8  # of the test that "would decide"

# Limits of the guardrails that params.yaml does not set. Each leaves a margin for harmless differences.
BRIER_RATIO = 1.10
CALIBRATION_EXCESS = 0.20  # of the failures seen, this share more expected in the wrong bin of probability
SEGMENT_COST_RATIO = 1.25


@dataclass(frozen=True)
class Ratio:
    """Σ above / Σ below over machines; ``below`` is not negative, ``unseen`` is a variance added to that of Σ above."""

    above: Float64
    below: Float64
    unseen: float = 0.0

    @property
    def estimate(self) -> float | None:
        """The ratio, None where the denominator is 0."""
        return float(self.above.sum() / self.below.sum()) if self.below.sum() > 0 else None

    def p_above(self, limit: float) -> float:
        """One-sided p of the hypothesis that the ratio is at most ``limit``."""
        excess = self.above - limit * self.below
        mean, error = float(excess.mean()), self._error(excess)
        if error == 0:
            return 0.0 if mean > 0 and len(excess) > 1 else 1.0
        return float(stats.t.sf(mean / error, len(excess) - 1))

    def interval(self, alpha: float) -> tuple[float | None, float | None]:
        """Bounds below and above, each one-sided at ``alpha``; None where there is no such bound."""
        n = len(self.above)
        if n < 2 or self.estimate is None:
            return None, None
        t2 = float(stats.t.isf(alpha, n - 1)) ** 2 / n
        (saa, sab), (_, sbb) = np.cov(self.above, self.below)
        saa += self.unseen / n
        a, b = float(self.above.mean()), float(self.below.mean())
        # The limits L with (a - L·b)² = t²·s²(a - L·b)/n
        square, half, constant = b * b - t2 * sbb, a * b - t2 * sab, a * a - t2 * saa
        root = max(half * half - square * constant, 0.0) ** 0.5
        if square > 0:
            return float((half - root) / square), float((half + root) / square)
        if square == 0 or half * half <= square * constant:
            return None, None
        low, high = (half + root) / square, (half - root) / square  # the interval is what lies outside these two
        return (float(high), None) if self.estimate >= high else (None, float(low))

    def _error(self, values: Float64) -> float:
        """Standard error of the mean."""
        n = len(values)
        spread = float(np.std(values, ddof=1)) if n > 1 else 0.0
        if spread <= 1e-12 * float(np.abs(values).max(initial=0)):  # a constant's deviation is rounding, not evidence
            spread = 0.0
        return ((spread**2 + self.unseen / n) / n) ** 0.5


@dataclass(frozen=True)
class Comparison:
    """What is proven. ``delta`` is the champion's cost minus the challenger's, for each machine-year.

    ``low`` is a bound at the error rate of the verdict *better*, ``high`` at the level that Holm's procedure gives to
    the question whether the challenger is worse. So ``low`` > 0 means *better* and ``high`` < 0 *worse*. Likewise
    ``low`` of a guardrail is a bound at its own level; beyond the limit, the guardrail is broken.
    ``machines_to_decide`` is how many machines like these would prove a difference as large as the estimate four times
    in five; None where there is no difference.
    """

    delta: dict[str, float | None]
    better: bool
    worse: bool
    guardrails: list[dict[str, Any]]
    machines_to_decide: int | None


def holm(p: Sequence[float], weight: Sequence[float], alpha: float) -> tuple[list[bool], list[float]]:
    """Which hypotheses Holm's weighted step-down procedure rejects, and the level at which each was decided.

    The chance that any true hypothesis is rejected is at most ``alpha``. Once one is kept, all that follow are kept, at
    the shares they have then (Holm 1979, Scand. J. Stat. 6:65).
    """
    rejected, level = [False] * len(p), [alpha] * len(p)
    remaining, stopped = sum(weight), False
    for number in sorted(range(len(p)), key=lambda i: p[i] / weight[i]):
        level[number] = alpha * weight[number] / remaining
        rejected[number] = not stopped and p[number] <= level[number]
        stopped = not rejected[number]
        if not stopped:
            remaining -= weight[number]
    return rejected, level


def _calibration_excess(champion: Assessment, challenger: Assessment) -> Ratio:
    """How much more of the challenger's expected failures lie in the wrong bin, as a share of those seen.

    The calibration error of a model is Σ over bins |expected - seen|; a machine's part in it carries the sign of the
    bin's whole sum, so that the parts add up to it.
    """

    def part(one: Assessment) -> Float64:
        gap = one.predicted - one.observed
        return (gap * np.sign(gap.sum(axis=0))).sum(axis=1)

    return Ratio(part(challenger) - part(champion), champion.observed.sum(axis=1))


def compare(
    champion: Assessment,
    challenger: Assessment,
    settings: JudgeSettings,
    models: Sequence[str],
    supervised: bool = True,
) -> Comparison:
    """Compare two models, machine by machine.

    Half of the error rate is spent on the question whether the challenger costs more, an eighth on each guardrail (the
    segments share one).

    Args:
        champion: assessment of the model to beat.
        challenger: assessment of the other, on the same grid.
        settings: costs, and of ``gate`` the ``error_rate``, ``false_alarm_ratio`` and ``minimum_machines``.
        models: names of the machine models: each is a segment that must not become much worse.
        supervised: whether there are failure heads, and so probabilities to judge.
    """
    alpha, costs = float(settings.gate["error_rate"]), settings.costs
    surprise = costs["unplanned"] - costs["planned"] if supervised else costs["missed_anomaly"]
    delta = Ratio(champion.cost - challenger.cost, challenger.years, surprise**2)
    loss = Ratio(-delta.above, delta.below, delta.unseen)
    questions = _questions(champion, challenger, float(settings.gate["false_alarm_ratio"]), supervised)
    segments = _segments(champion, challenger, models, surprise**2)
    large = [question for size, question in segments if size >= settings.gate["minimum_machines"]]
    small = [question for size, question in segments if 0 < size < settings.gate["minimum_machines"]]
    weight = [4.0] + [1.0] * len(questions) + [1 / len(large) for _ in large]
    questions += large

    rejected, level = holm([loss.p_above(0), *(q.ratio.p_above(q.limit) for q in questions)], weight, alpha)
    guardrails = [q.answer(level[i], not rejected[i]) for i, q in enumerate(questions, start=1)]
    low, high = delta.interval(alpha)[0], delta.interval(level[0])[1]
    return Comparison(
        delta={"estimate": delta.estimate, "low": low, "high": high},
        better=delta.p_above(0) <= alpha,
        worse=rejected[0],
        guardrails=guardrails + [q.answer(alpha, None) for q in small],
        machines_to_decide=_machines_to_decide(delta, alpha, level[0]),
    )


@dataclass(frozen=True)
class _Question:
    """Whether the ratio is above its limit."""

    name: str
    ratio: Ratio
    limit: float

    def answer(self, alpha: float, holds: bool | None) -> dict[str, Any]:
        """An entry of ``guardrails`` in ``decision.json``; ``holds`` is None for a segment too small to be judged."""
        low, high = self.ratio.interval(alpha)
        found = {"name": self.name, "estimate": self.ratio.estimate, "low": low, "high": high}
        return found | {"limit": self.limit, "holds": holds}


def _questions(champion: Assessment, challenger: Assessment, limit: float, supervised: bool) -> list[_Question]:
    """The guardrails over all machines; ``limit`` is that of the false alarms."""
    questions = [_Question("false_alarm_ratio", Ratio(challenger.false_alarms, champion.false_alarms), limit)]
    if supervised:
        brier = Ratio(challenger.squared_error, champion.squared_error)
        questions.append(_Question("brier_ratio", brier, BRIER_RATIO))
        questions.append(_Question("calibration_excess", _calibration_excess(champion, challenger), CALIBRATION_EXCESS))
    return questions


def _segments(
    champion: Assessment, challenger: Assessment, models: Sequence[str], unseen: float
) -> list[tuple[int, _Question]]:
    """The guardrail of each machine model, with its number of machines."""
    result = []
    for number, name in enumerate(models):
        mine = challenger.model == number
        ratio = Ratio(challenger.cost[mine], champion.cost[mine], unseen)
        result.append((int(mine.sum()), _Question(f"segment_cost_ratio:{name}", ratio, SEGMENT_COST_RATIO)))
    return result


def _machines_to_decide(delta: Ratio, better: float, worse: float) -> int | None:
    """Number of machines like these that prove the estimated difference with POWER, at these two error rates."""
    n = len(delta.above)
    if n < 2 or not delta.estimate:
        return None
    variance = float(np.var(delta.above - delta.estimate * delta.below, ddof=1)) + delta.unseen / n
    spread = variance**0.5 / abs(float(delta.above.mean()))
    quantile = stats.norm.isf(better if delta.estimate > 0 else worse) + stats.norm.isf(1 - POWER)
    return max(n + 1, int(np.ceil((quantile * spread) ** 2)))
