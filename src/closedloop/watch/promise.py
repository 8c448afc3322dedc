"""Is a served model as good as its release promised: one decision a day, and the issue that says so.

The promise is what the release's holdout showed, which is uncertain itself: a recall of 0.9 on ten failures promises
little. So both are counted, and the test asks how likely so few foreseen failures, or so many false alarms, are for a
model that is as good as its holdout said. Cost is shown and not tested, since it follows how often machines fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from closedloop.data.schema import Float64
from closedloop.judge.compare import holm
from closedloop.watch.live import LiveCounts

WINDOW_DAYS = 90  # of matured answers that are judged each day
OPENS_BELOW = 0.01  # of all tests of a day together; tests/bench/live_rates.py shows what that means for a year
CLOSES_ABOVE = 0.1  # so that an issue does not come and go from day to day
MINIMUM_EVENTS = 5  # failures; of fewer nothing can be said
MINIMUM_YEARS = 1.0  # machine-years


@dataclass(frozen=True)
class Promise:
    """What the holdout of a release showed: recall and false alarms, on how many failures and machine-years."""

    event_recall: float
    failures: int
    false_alarms_per_machine_year: float
    machine_years: float

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Promise | None:
        """From the content of ``metrics.json``; None where it has no failures to promise anything with."""
        figures, holdout = metrics["failure"], metrics["holdout"]
        if not figures or figures["event_recall"] is None or not holdout["machine_years"]:
            return None
        return cls(
            float(figures["event_recall"]),
            int(holdout["failures"]),
            float(figures["false_alarms_per_machine_year"]),
            float(holdout["machine_years"]),
        )


@dataclass(frozen=True)
class LiveDecision:
    """What becomes of the issue on a model: ``action`` is ``open``, ``keep``, ``close`` or ``none``.

    ``verdict`` is ``worse``, ``as promised``, ``too little data`` or ``no promise``; ``reasons`` say what is worse, one
    sentence each. ``p`` has each test's p-value.
    """

    action: str
    verdict: str
    reasons: list[str]
    p: dict[str, float]


def decide(
    counts: LiveCounts | None, promise: Promise | None, floors: Mapping[str, float], *, is_open: bool = False
) -> LiveDecision:
    """Whether a model is significantly worse than promised, or below the floor of its recall.

    Args:
        counts: what became of its answers in the last ``WINDOW_DAYS``.
        promise: of its release; None where that is not known.
        floors: section ``gate.floors`` of ``params.yaml``.
        is_open: whether an issue on this is open already.
    """
    if counts is None or counts.events.sum() < MINIMUM_EVENTS or counts.years.sum() < MINIMUM_YEARS:
        there = (0, 0.0) if counts is None else (int(counts.events.sum()), float(counts.years.sum()))
        reason = (
            f"{there[0]} matured failures in {there[1]:.2f} machine-years; "
            f"{MINIMUM_EVENTS} and {MINIMUM_YEARS:g} are needed"
        )
        return LiveDecision("keep" if is_open else "none", "too little data", [reason], {})
    tests = _tests(counts, promise, floors)
    if not tests:
        return LiveDecision("keep" if is_open else "none", "no promise", ["what its release promised is not known"], {})
    p = {name: value for name, (value, _) in tests.items()}
    rejected, _ = holm(list(p.values()), [1.0] * len(p), OPENS_BELOW)
    reasons = [said for (_, said), reject in zip(tests.values(), rejected, strict=True) if reject]
    recovered = min(p.values()) * len(p) > CLOSES_ABOVE
    if reasons:
        return LiveDecision("keep" if is_open else "open", "worse", reasons, p)
    if is_open and not recovered:
        return LiveDecision("keep", "worse", ["it has not recovered yet"], p)
    return LiveDecision("close" if is_open else "none", "as promised", [], p)


def _tests(
    counts: LiveCounts, promise: Promise | None, floors: Mapping[str, float]
) -> dict[str, tuple[float, str]]:  # fmt: skip
    """The p-value of each test, and what it says where it rejects."""
    recall = counts.detected.sum() / counts.events.sum()
    rate = counts.false_alarms.sum() / counts.years.sum()
    tests = {}
    if promise is not None and promise.failures:
        said = (
            f"it foresaw {recall:.0%} of {counts.events.sum():.0f} failures, promised were {promise.event_recall:.0%}"
        )
        tests["event_recall"] = (_fewer(counts, promise.event_recall, promise.failures), said)
        said = (
            f"it raises {rate:.2f} false alarms per machine-year, promised were "
            f"{promise.false_alarms_per_machine_year:.2f}"
        )
        tests["false_alarms_per_machine_year"] = (_more(counts, promise), said)
    if "event_recall" in floors:
        floor = floors["event_recall"]
        said = f"it foresaw {recall:.0%} of {counts.events.sum():.0f} failures, the floor is {floor:.0%}"
        over = _overdispersion(counts.detected, floor * counts.events, counts.events * floor * (1 - floor))
        tests["floor of event_recall"] = (
            float(stats.binom.cdf(counts.detected.sum() / over, round(counts.events.sum() / over), floor)),
            said,
        )
    return tests


def _fewer(counts: LiveCounts, recall: float, failures: int) -> float:
    """The p-value of so few foreseen failures, for a recall that is known from so many failures (beta-binomial)."""
    over = _overdispersion(counts.detected, recall * counts.events, counts.events * recall * (1 - recall))
    a, b = recall * failures + 0.5, (1 - recall) * failures + 0.5  # Jeffreys' prior
    n = round(counts.events.sum() / over)
    return float(stats.betabinom.cdf(np.floor(counts.detected.sum() / over + 1e-9), n, a, b))


def _more(counts: LiveCounts, promise: Promise) -> float:
    """The p-value of so many false alarms, for a rate that is known from so many machine-years (negative binomial)."""
    rate = max(counts.false_alarms.sum() / counts.years.sum(), promise.false_alarms_per_machine_year)
    over = _overdispersion(counts.false_alarms, rate * counts.years, rate * counts.years)
    before = promise.false_alarms_per_machine_year * promise.machine_years / over + 0.5
    share = promise.machine_years / (promise.machine_years + counts.years.sum())
    return float(stats.nbinom.sf(np.ceil(counts.false_alarms.sum() / over - 1e-9) - 1, before, share))


def _overdispersion(found: Float64, expected: Float64, variance: Float64) -> float:
    """How many times as much counts vary between machines as single events do, at least 1.

    Machines that fail, or alarm falsely, more than others make their events worth less than as many of all machines.
    """
    met = variance > 0
    if met.sum() < 2:
        return 1.0
    excess = found[met] - expected[met] * found[met].sum() / max(expected[met].sum(), 1e-12)
    return max(1.0, float(np.sum(excess**2) / np.sum(variance[met]) * met.sum() / (met.sum() - 1)))


def issue(model: str, decision: LiveDecision) -> dict[str, str]:
    """Title and text of the issue on a model."""
    name = model.removeprefix("sha256:")[:12]
    lines = [f"- {reason}" for reason in decision.reasons]
    text = [
        f"Model `{name}` is significantly worse in service than its release promised, on the matured answers of the "
        f"last {WINDOW_DAYS} days:",
        "",
        *lines,
        "",
        "The page `build/monitor/index.html` of this run shows the figures for each machine model. What can be done: "
        "see whether the world has moved (`make drift`), retrain on the log, or roll back to an earlier release.",
        "This issue closes by itself once the model is as good as promised again.",
    ]
    return {"title": f"Model {name} does worse in service than promised", "body": "\n".join(text)}
