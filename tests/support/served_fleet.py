"""What becomes of a model's answers on a fleet: days of failures foreseen or missed, and of false alarms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from closedloop.watch.live import LiveCounts
from closedloop.watch.promise import WINDOW_DAYS, LiveDecision, Promise, decide

FLOORS = {"event_recall": 0.5}


@dataclass(frozen=True)
class Service:
    """LiveCounts for each day and machine (days, machines), and what the release promised."""

    events: np.ndarray
    detected: np.ndarray
    false_alarms: np.ndarray
    promise: Promise

    def decision(self, day: int, is_open: bool = False) -> LiveDecision:
        """The decision of a day, on the days of the window up to it."""
        window = slice(max(day + 1 - WINDOW_DAYS, 0), day + 1)
        days = window.stop - window.start
        totals = (part[window].sum(axis=0).astype(float) for part in (self.detected, self.events, self.false_alarms))
        counts = LiveCounts(*totals, np.full(self.events.shape[1], days / 365))
        return decide(counts, self.promise, FLOORS, is_open=is_open)


def served(
    seed: int, machines: int = 40, days: int = 365, failures: float = 4.0, recall: float = 0.8, alarms: float = 4.0,
    recall_now: float | None = None, alarms_now: float | None = None, held_out: int = 30,
) -> Service:  # fmt: skip
    """A fleet whose machines fail, are foreseen and raise false alarms each at their own rate.

    The promise comes from another ``held_out`` machines in a third of a year. ``recall_now`` and ``alarms_now`` are
    what the model does in service, if that is not what it did on the holdout.
    """
    rng = np.random.default_rng(seed)

    def live(count: int, length: int, recall: float, alarms: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rates = rng.gamma(3, failures / 3, count) / 365
        own = rng.beta(recall * 12, (1 - recall) * 12, count)
        noisy = rng.gamma(1.5, alarms / 1.5, count) / 365
        events = rng.poisson(rates, (length, count))
        return events, rng.binomial(events, own), rng.poisson(noisy, (length, count))

    events, detected, false_alarms = live(held_out, 365 // 3, recall, alarms)
    years = held_out / 3
    promise = Promise(
        float(detected.sum() / max(events.sum(), 1)), int(events.sum()), float(false_alarms.sum() / years), years
    )
    return Service(*live(machines, days, recall_now or recall, alarms_now or alarms), promise)


def issues(service: Service) -> list[int]:
    """The days on which an issue is opened, decided anew each day."""
    opened, is_open = [], False
    for day in range(len(service.events)):
        decision = service.decision(day, is_open)
        if decision.action == "open":
            opened.append(day)
        is_open = decision.action in ("open", "keep") and (is_open or decision.action == "open")
    return opened
