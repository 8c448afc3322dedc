"""All that answering needs, put together once when the service starts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from closedloop.data.feedback import Feedback, FeedbackDecoder
from score.answer import Scorer
from score.auth import Scope, Tokens
from score.limits import Load
from score.log import supervisor as shipping
from score.log.journal import Journal
from score.log.supervisor import Supervisor
from score.metrics import Metrics
from score.settings import Settings

_THREAD_BYTES = 256 << 10  # a longer body would keep the probes waiting, and goes to a thread
_RECENT = 20
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Service:
    """What the routes share. ``tokens`` is None where everyone may ask, ``shipper`` where nothing is shipped.

    ``recent`` are the results answered last, ``pages`` the documents that never change, by route.
    """

    settings: Settings
    scorer: Scorer
    feedback: FeedbackDecoder
    journal: Journal
    tokens: Tokens | None
    shipper: Supervisor | None
    large: ThreadPoolExecutor
    load: Load
    served: dict[str, str | None]
    pages: dict[str, bytes]
    metrics: Metrics = field(default_factory=Metrics)
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    began: float = field(default_factory=time.monotonic)

    def caller(self, authorization: str, scope: Scope) -> str:
        """Who asks.

        Raises:
            Problem: 401 or 403, nobody who may.
        """
        return "anonymous" if self.tokens is None else self.tokens.caller(authorization, scope)

    async def work(self, answer: Callable[[bytes, str], _Answer], body: bytes, request_id: str) -> _Answer:
        """The answer to a body; a large one waits for its turn in a thread, one at a time."""
        if len(body) <= _THREAD_BYTES:
            return answer(body, request_id)
        return await asyncio.get_running_loop().run_in_executor(self.large, answer, body, request_id)

    def score(self, body: bytes, request_id: str) -> tuple[list[dict[str, Any]], bytes]:
        """The results, and the answer as it is sent.

        Raises:
            RequestError: the body was refused.
        """
        answer = self.scorer.answer(body, request_id)
        return answer["results"], msgspec.json.encode(answer)

    def take(self, body: bytes, request_id: str) -> Feedback:
        """The feedback of a body.

        Raises:
            RequestError: the body was refused.
        """
        return self.feedback(body)

    def unready(self) -> str | None:
        """Why no requests are wanted now, or None."""
        spool = self.journal.spool
        return "the service is about to stop" if self.load.stopping else spool.failure or spool.overdue

    def state(self, *, recent: bool) -> dict[str, Any]:
        """What the page shows of the moment; the results answered last only where the caller may see them."""
        journal = self.journal
        shipped = shipping.figures(self.settings.log_dir) if self.shipper else None
        return {
            "unready": self.unready(),
            "uptime_seconds": round(time.monotonic() - self.began),
            "machines_scored": self.metrics.machines,
            "offered": journal.offered,
            "stored": journal.spool.counts.records,
            "sampled_out": journal.sampled_out,
            "rejected": journal.rejected,
            "in_flight": self.load.requests,
            "unsent_segments": None if shipped is None else shipped.get("unsent_segments"),
            "recent": [_brief(result) for result in reversed(self.recent)] if recent else None,
        }


def _brief(result: dict[str, Any]) -> dict[str, Any]:
    """One result in a line: the component most likely to fail, and whether anything rings."""
    failure = {name: judged for name, judged in result["failure"].items() if judged is not None}
    likeliest = max(failure, key=lambda name: failure[name]["probability"], default=None)
    anomaly = result["anomaly"]
    return {
        "machineID": result["machineID"],
        "datetime": result["datetime"],
        "anomaly": None if anomaly is None else anomaly["score"],
        "component": likeliest,
        "probability": None if likeliest is None else failure[likeliest]["probability"],
        "alarm": bool(anomaly and anomaly["alarm"]) or any(judged["alarm"] for judged in failure.values()),
    }
