"""One owner at a time for the upkeep of a table: a lease in the table itself, as the version of an application id.

Taking it is a commit that fails if any other came between, so of two that try at once one gets it. It ends by itself:
a process that was killed is waited for. Nothing is lost if two own it, by wrong clocks: every commit of upkeep fails
when the table has changed, and what is removed is what no kept version needs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import TracebackType

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from closedloop.log.attempts import announce
from closedloop.log.halt import refuse
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store

APP = "closedloop.upkeep"
SECONDS = 120.0
_SALT = 1000  # two that take it in one microsecond are told apart


class Held(SinkError):  # noqa: N818 - said like a state
    """Another process owns the upkeep of the table."""


class Lease:
    """The ownership of a table's upkeep, as a context.

    Args:
        sink: where the table is.
        table: its name.
        seconds: how long it lasts without :meth:`renew`.
        wait: how long to wait for another owner before :class:`Held`.
        say: hears in one line that it waits.

    Raises:
        Held: another process has it.
        SinkError: the sink is halted.
        DeltaError, OSError, ValueError: the sink does not answer.
    """

    def __init__(
        self, sink: Sink, table: str, *, seconds: float = SECONDS, wait: float = 0.0, say: Callable[[str], None]
    ) -> None:
        self._sink, self._table, self._seconds, self._wait, self._say = sink, table, seconds, wait, say
        self._mine: int | None = None

    def __enter__(self) -> Lease:
        refuse(self._sink)
        deadline = time.monotonic() + self._wait
        said = False
        while (left := self._take()) > 0:
            if time.monotonic() >= deadline:
                raise Held(
                    f"{self._table}: another process compacts, expires or erases, or was killed less than "
                    f"{self._seconds:.0f} s ago: try again in {left:.0f} s"
                )
            if not said:
                self._say(f"{self._table}: another process is at work, or was killed; waiting up to {self._wait:g} s")
                said = True
            time.sleep(min(left, 1.0, max(0.01, deadline - time.monotonic())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):  # told to end: the lease ends by itself
            return
        while (opened := self._opened()).transaction_version(APP) == self._mine:
            if self._commit(opened, 0.0):
                break

    def renew(self) -> None:
        """Keep it for as long again.

        Raises:
            Held: it ran out, and another process has it.
        """
        if self._mine is not None and self._until(self._mine) - time.time() > self._seconds / 2:
            return
        while True:
            opened = self._opened()
            if opened.transaction_version(APP) != self._mine:
                raise Held(f"{self._table}: another process took over: what was done is whole, run it again")
            if self._commit(opened, self._seconds):
                return

    def _take(self) -> float:
        """Take it; the seconds that another one still has it, or 0."""
        while True:
            opened = self._opened()
            current = opened.transaction_version(APP)
            left = 0.0 if current is None else self._until(current) - time.time()
            if 0 < left <= self._seconds * 2:  # longer than any lease: a wrong clock wrote it
                return left
            if self._commit(opened, self._seconds):
                return 0.0

    def _commit(self, opened: DeltaTable, seconds: float) -> bool:
        """Whether the lease is now as asked: no other commit came between."""
        mine = int((time.time() + seconds) * 1e6) * _SALT + random.randrange(_SALT)  # noqa: S311
        announce(Store(self._sink), self._table, opened.version() + 1)
        properties = CommitProperties(max_commit_retries=0, app_transactions=[Transaction(APP, mine)])
        try:
            opened.create_write_transaction([], "append", opened.schema(), commit_properties=properties)
        except CommitFailedError:
            time.sleep(random.uniform(0, 0.02))  # noqa: S311
            return False
        self._mine = mine
        return True

    def _opened(self) -> DeltaTable:
        opened = self._sink.open(self._table)
        if opened is None:
            raise SinkError(f"{self._table} has gone from {self._sink.place}")
        return opened

    @staticmethod
    def _until(version: int) -> float:
        return version / _SALT / 1e6


def held_until(opened: DeltaTable) -> float | None:
    """When the lease of a table ends, in seconds since 1970; None if nobody has it."""
    version = opened.transaction_version(APP)
    until = None if version is None else version / _SALT / 1e6
    return until if until is not None and until > time.time() else None
