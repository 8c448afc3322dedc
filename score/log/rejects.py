"""What was refused with 4xx: a bounded sample of it goes to the log, as records of their own kind."""

from __future__ import annotations

import time
from asyncio import Future
from typing import Any

import msgspec

from closedloop.log.record import REJECT, Record, Reject, encode
from closedloop.log.spool import Spool, SpoolError
from score.problems import Problem
from score.settings import Settings

_FIRST_BYTES = 512  # of a body
_DETAIL_CHARACTERS = 1000
_ABOUT_BYTES = 500  # of a record, besides its body and its detail
_PER_SECOND = 5.0  # of one status: a flood of one kind hides no other
_BYTES_PER_SECOND, _BYTES_AT_ONCE = 2048.0, 256.0 * 1024
_TABLES = frozenset({"telemetry", "errors", "maint", "machines"})


class _Allowance:
    """An amount that grows again with time, up to ``most``."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second, self._most = per_second, most
        self.left, self._since = most, time.monotonic()

    def grow(self) -> float:
        """What is left now."""
        now = time.monotonic()
        self.left = min(self._most, self.left + (now - self._since) * self._per_second)
        self._since = now
        return self.left


class Rejects:
    """Writes a sample of the refused requests to the spool, and never delays or fails an answer.

    At most 5 a second of one status, 2 KiB a second in all, and none while the log waits for the shipper with half of
    LOG_MAX_BYTES: what was acknowledged goes first. ``stored``, ``left_out`` and ``failed`` count them.
    """

    def __init__(self, spool: Spool, settings: Settings) -> None:
        self.on = settings.log_rejects
        self.left_out = self.failed = 0
        self._spool = spool
        self._fields = settings.log_fields
        self._image = settings.image
        self._limit_bytes = settings.log_max_bytes
        self._bytes = _Allowance(_BYTES_PER_SECOND, _BYTES_AT_ONCE)
        self._statuses: dict[int, _Allowance] = {}

    @property
    def stored(self) -> int:
        """How many are in the log."""
        return self._spool.counts.asides

    def admit(self, status: int) -> bool:
        """Whether a refusal is in the sample; counts it if it is not."""
        if not self.on:
            return False
        allowed = self._statuses.setdefault(status, _Allowance(_PER_SECOND, _PER_SECOND))
        most = _FIRST_BYTES + _DETAIL_CHARACTERS + _ABOUT_BYTES
        if allowed.grow() < 1 or self._bytes.grow() < most or self._busy():
            self.left_out += 1
            return False
        allowed.left -= 1
        return True

    def keep(self, problem: Problem, about: Reject, state: dict[str, Any], model: str) -> None:
        """Write one refusal that was admitted; do not wait for it. ``state`` is the request's."""
        body: bytes = state.get("body", b"")
        detail = about.detail[:_DETAIL_CHARACTERS]
        if not self._fields >= _TABLES:  # the body's first bytes may be of any table, and its faults quote it
            body, detail = b"", "" if problem.errors is not None else detail
        now_us = time.time_ns() // 1000
        record = Record(
            kind=REJECT,
            request_id=state["request_id"],
            received_us=state.get("received_us", now_us),
            answered_us=now_us,
            caller=state.get("caller", "") if "caller" in self._fields else "",
            status=problem.status,
            model=model,
            image=self._image if "image" in self._fields else "",
            request=body[:_FIRST_BYTES],
            answer=msgspec.json.encode(msgspec.structs.replace(about, detail=detail)),
        )
        payload = encode(record)
        self._bytes.left -= len(payload)
        try:
            self._spool.append(payload, aside=True).add_done_callback(self._settle)
        except SpoolError:
            self.failed += 1

    def _busy(self) -> bool:
        """Whether the log has no room to spare."""
        spool, limit = self._spool, self._limit_bytes
        return spool.failure is not None or (limit is not None and spool.backlog.bytes > limit // 2)

    def _settle(self, written: Future[None]) -> None:
        if written.cancelled() or written.exception() is not None:
            self.failed += 1
