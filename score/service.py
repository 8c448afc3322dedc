"""What the routes share: made once when the service starts, and found in ``request.state.service``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from starlette.types import Scope as AsgiScope

from closedloop.data.feedback import Feedback, FeedbackDecoder
from closedloop.log.record import Reject
from score.answer import Scorer
from score.auth import Scope, Tokens
from score.limits import Load
from score.log.journal import Journal
from score.metrics import Metrics
from score.model_counts import AT_ONCE
from score.problems import Problem
from score.settings import Settings
from score.status import ServiceStatus

# the header of a request that is answered and not logged, and its only value
DRY_RUN, ON = b"closed-loop-dry-run", b"1"
# what costs more goes to a thread: 64 such requests at once on the event loop would keep the probes waiting for 64 ms
_LOOP_MICROSECONDS = 1000.0
_THREAD_BYTES = 256 << 10  # a longer body goes to the thread without another look
_BYTE_MICROSECONDS = 0.01  # of a body, to decode it and to compute its features
_MACHINE_MICROSECONDS = 10.0  # of its answer
_Answer = TypeVar("_Answer")


class _Telemetry(msgspec.Struct):
    machineID: list[int | str]  # noqa: N815 - the column's name


class _Machines(msgspec.Struct):
    telemetry: _Telemetry


_machines = msgspec.json.Decoder(_Machines)


class Scored(NamedTuple):
    """The results of a request, its answer in JSON, and its body, as they are logged.

    ``shown`` and ``seen`` are the results and the answer that people get: there no machine alarms that is untouched.
    """

    results: list[dict[str, Any]]
    content: bytes
    body: bytes
    shown: list[dict[str, Any]]
    seen: bytes


@dataclass(frozen=True)
class Service:
    """The parts of a running service.

    ``tokens`` is None with ``AUTH=open`` and ``AUTH=platform``. ``large`` is the thread for large bodies. ``pages`` are
    the documents that never change, by route.
    """

    settings: Settings
    scorer: Scorer
    feedback: FeedbackDecoder
    journal: Journal
    tokens: Tokens | None
    large: ThreadPoolExecutor
    load: Load
    status: ServiceStatus
    metrics: Metrics
    pages: dict[str, bytes]

    def caller(self, authorization: str, scope: Scope) -> str:
        """The caller's name.

        Raises:
            Problem: 401 without a known token, 403 without the scope.
        """
        if self.tokens is None:
            return "platform" if self.settings.behind_platform else "anonymous"
        return self.tokens.caller(authorization, scope)

    async def work(
        self, answer: Callable[[bytes, str], _Answer], body: bytes, request_id: str, *, dear: bool = False
    ) -> _Answer:
        """Return ``answer(body, request_id)``; in a thread, one at a time, if it is ``dear`` or costs much."""
        if not dear and _is_cheap(body, texts=2 if self.scorer.bundle.schema.has_names else 1):
            return answer(body, request_id)
        return await asyncio.get_running_loop().run_in_executor(self.large, self._work, answer, body, request_id)

    def _work(self, answer: Callable[[bytes, str], _Answer], body: bytes, request_id: str) -> _Answer:
        if self.load.untaken_bytes > self.load.max_bytes:  # clients take their answers more slowly than they are made
            self.load.shed["answers"] += 1
            raise Problem(503, "too many answers wait to be taken: try again later", headers={"Retry-After": "1"})
        return answer(body, request_id)

    async def count(self, results: list[dict[str, Any]]) -> None:
        """Count what the model answered; that of many machines in the thread."""
        if len(results) <= AT_ONCE:
            self.status.model.add(results)
        else:
            await asyncio.get_running_loop().run_in_executor(self.large, self.status.model.add, results)

    async def keep_reject(self, scope: AsgiScope, problem: Problem, read: int) -> None:
        """Keep a refused request among the log's rejects, if it is in the sample; its answer has been sent.

        ``read`` is how many bytes of its body were read.
        """
        if not self.journal.rejects.admit(problem.status):
            return
        state = scope["state"]
        body: bytes | None = state.get("body")
        sha256 = "" if body is None else await self._sha256(body)
        about = Reject(scope["path"], problem.title, problem.detail, read, sha256)
        self.journal.rejects.keep(problem, about, state, self.scorer.manifest.model_digest)

    async def _sha256(self, body: bytes) -> str:
        if len(body) <= _THREAD_BYTES:
            return hashlib.sha256(body).hexdigest()
        digest = await asyncio.get_running_loop().run_in_executor(self.large, hashlib.sha256, body)
        return digest.hexdigest()

    def score(self, body: bytes, request_id: str, parts: frozenset[str] = frozenset()) -> Scored:
        """The answer to a request, as it is logged and as people are to see it, with the parts of it that they ask for.

        Raises:
            RequestError: the body was refused.
            Problem: 413, the record of such a request could never be logged, or the answer with its parts is too long.
        """
        tables, logged = self.scorer.decode.read(body)
        machines = 1 + int(np.count_nonzero(tables.machine[1:] != tables.machine[:-1]))
        self.journal.admit(len(body) + machines * self.scorer.result_bytes)
        answer = self.scorer.answer_tables(tables, request_id)
        content, shown = msgspec.json.encode(answer), self.scorer.shown(answer["results"])
        if parts:
            told = self.scorer.explainer.add(shown, tables, parts)
            seen = msgspec.json.encode(answer | {"results": told})
            if len(seen) > self.scorer.max_answer_bytes:
                raise Problem(413, f"the answer has {len(seen)} bytes: send fewer machines, or ask for less in include")
        else:
            hidden = shown is not answer["results"]
            seen = msgspec.json.encode(answer | {"results": shown}) if hidden else content
        return Scored(answer["results"], content, logged, shown, seen)

    def take(self, body: bytes, request_id: str) -> Feedback:
        """The feedback in a body.

        Raises:
            RequestError: the body was refused.
        """
        return self.feedback(body)


def dry_run_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The value of the header DRY_RUN, of a repeated one the first; None without it."""
    return next((value.strip() for name, value in headers if name == DRY_RUN), None)


def _is_cheap(body: bytes, texts: int) -> bool:
    """Whether the event loop may answer a body itself, by an estimate that costs a twentieth of the answer.

    The machines cost most. Each has a time, which is a string, and maybe a name, which is one too (``texts``), so that
    the quotes bound their number; where that is not enough, they are counted.
    """
    if len(body) > _THREAD_BYTES:
        return False
    rest = (_LOOP_MICROSECONDS - len(body) * _BYTE_MICROSECONDS) / _MACHINE_MICROSECONDS
    if body.count(b'"') <= 2 * texts * rest:
        return True
    try:
        return len(set(_machines.decode(body).telemetry.machineID)) <= rest
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # refused soon, or feedback
        return False
