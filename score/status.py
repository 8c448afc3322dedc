"""The live figures of one service: the source of both ``/metrics`` and ``/state``, and of the readiness probe."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from score.auth import Tokens
from score.limits import Load
from score.log.journal import Journal
from score.log.supervisor import Supervisor, shipper_report
from score.model_counts import ModelCounts

_RECENT = 20


@dataclass
class ServiceStatus:
    """Reads each figure where it is counted, and counts the results that were answered.

    ``model`` counts what was in them.

    ``served`` names what is served: model, bundle, data, commit and image. ``tokens`` is None with ``AUTH=open``,
    ``supervisor`` is None where the log is not shipped.
    """

    served: dict[str, str | None]
    load: Load
    journal: Journal
    tokens: Tokens | None
    supervisor: Supervisor | None
    log_dir: Path
    model: ModelCounts
    machines_scored: int = 0
    _recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _start: float = field(default_factory=time.monotonic)

    def scored(self, results: list[dict[str, Any]], *, show: bool = True) -> None:
        """Count the results of one answer, and keep the newest ones for the page if they are to be shown."""
        self.machines_scored += len(results)
        if show:
            self._recent.extend(results[-_RECENT:])

    def unready(self) -> str | None:
        """Why the service accepts no requests now; None if it does."""
        spool = self.journal.spool
        return "the service is stopping" if self.load.stopping else spool.failure or spool.overdue

    def shipping(self) -> dict[str, Any] | None:
        """The shipper's last report; None if there is none, or nothing is shipped."""
        return None if self.supervisor is None else shipper_report(self.log_dir)

    def state(self, *, recent: bool) -> dict[str, Any]:
        """The body of ``/state``; it contains the last results only if ``recent``."""
        journal, shipping = self.journal, self.shipping()
        return {
            "unready": self.unready(),
            "uptime_seconds": round(time.monotonic() - self._start),
            "machines_scored": self.machines_scored,
            "offered": journal.offered,
            "stored": journal.stored,
            "sampled_out": journal.sampled_out,
            "dry_run": journal.dry_run,
            "rejected": journal.rejected,
            "in_flight": self.load.requests,
            "unsent_segments": None if shipping is None else shipping.get("unsent_segments"),
            "recent": [_summary(result) for result in reversed(self._recent)] if recent else None,
        }


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    """One result in short: the component most likely to fail, and whether any head raised an alarm."""
    failure = {name: head for name, head in result["failure"].items() if head is not None}
    likeliest = max(failure, key=lambda name: failure[name]["probability"], default=None)
    anomaly = result["anomaly"]
    return {
        "machineID": result["machineID"],
        "datetime": result["datetime"],
        "anomaly": None if anomaly is None else anomaly["score"],
        "component": likeliest,
        "probability": None if likeliest is None else failure[likeliest]["probability"],
        "alarm": bool(anomaly and anomaly["alarm"]) or any(head["alarm"] for head in failure.values()),
    }
