"""An append-only log on one disk: an append is acknowledged when its record is durable, never before.

One thread writes: it takes all that waits, writes it at once, syncs once, and wakes all who wait for it (group commit).
It gets what one turn of the event loop appended at once: woken for each record, it would sync for one or two.
A spool's folder holds ``lock`` (flock: one writer), ``state`` (the spool's id and the next segment's number, never
derived from the files present), at most one ``.open`` segment and any number of sealed ``.seg`` ones, which a shipper
may take away. Local file systems only: NFS keeps neither the lock nor the order of writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal

from closedloop.log.backlog import LOOK_SECONDS, Backlog
from closedloop.log.frame import OPEN, SEALED, Segment, SegmentError, damage, read_segment
from closedloop.log.segment import OpenSegment, cut_and_seal
from closedloop.log.state import SpoolError, lock, make_folder, read_state, write_state

__all__ = ["Counts", "Durability", "Entry", "Spool", "SpoolError", "SpoolFull", "read"]

Durability = Literal["fsync", "os", "off"]
_BATCH_BYTES = 8 << 20  # a commit longer than this would keep its first waiters too long
_SEGMENT_BYTES = 1024  # more than what a segment adds to its one record
_Item = tuple[bytes, asyncio.Future[None], bool]  # payload, who waits, and whether it is an aside


class SpoolFull(SpoolError):  # noqa: N818 - said like queue.Full
    """Too much waits for the disk, or to be shipped: try again soon."""


@dataclass
class Counts:
    """What a spool has done since it was opened, and what its recovery found.

    ``asides`` are records that are counted for themselves: ``records`` and ``lost`` are without them.
    """

    records: int = 0
    asides: int = 0
    bytes: int = 0
    commits: int = 0
    failures: int = 0
    lost: int = 0  # acknowledged at once (``off``), and then refused by the disk
    sealed: int = 0
    recovered: int = 0
    torn_bytes: int = 0
    corrupt: int = 0


class Spool:
    """The one writer of a folder.

    Args:
        folder: made if it does not exist.
        durability: ``fsync`` acknowledges when the record is on disk, ``os`` when the kernel has it (lost in a power
            cut), ``off`` at once (lost in a crash).
        segment_bytes: a segment is sealed when it is this long,
        segment_seconds: or this long after its first record.
        queue_bytes: what may wait for the disk before :class:`SpoolFull`.
        retry_seconds: pause between attempts to write again after the disk has failed.
        limit_bytes: what may wait to be shipped before :class:`SpoolFull`,
        limit_seconds: or how long. It ends by itself when a shipper has taken the segments away.

    Raises:
        SpoolError: another process holds the folder, or its state is damaged or lost.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durability: Durability = "fsync",
        segment_bytes: int = 16 << 20,
        segment_seconds: float = 60.0,
        queue_bytes: int = 64 << 20,
        retry_seconds: float = 1.0,
        limit_bytes: int | None = None,
        limit_seconds: float | None = None,
    ) -> None:
        self._folder = folder
        self._durability = durability
        self._segment_bytes = segment_bytes
        # sealed and shipped well within the time that a record may wait
        self._segment_seconds = min(segment_seconds, (limit_seconds or math.inf) / 2)
        self._queue_bytes = queue_bytes
        self._limit_bytes = limit_bytes
        self._retry_seconds = retry_seconds
        self._gathered: deque[_Item] = deque()  # in this turn of the event loop
        self._queue: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._pending_bytes = 0
        self._failure: str | None = None
        self._acknowledged: dict[Path, int] = {}  # how much of a segment that the disk refused was acknowledged
        self.counts = Counts()
        make_folder(folder)
        self._lock = lock(folder / "lock")
        self._crowded = False  # a record was refused: what is not sealed should be, to be shipped
        try:
            self.id, self._next = read_state(folder)
            self._segment: OpenSegment | None = self._begin()
            self.backlog = Backlog(folder, limit_bytes, limit_seconds)
        except BaseException:
            os.close(self._lock)
            raise
        self._thread = Thread(target=self._write_all, name="spool", daemon=True)
        self._thread.start()

    @property
    def largest(self) -> float:
        """Bytes of the longest record that an empty spool takes; a longer one is refused however often it is tried."""
        limit = math.inf if self._limit_bytes is None else self._limit_bytes - _SEGMENT_BYTES
        return min(self._queue_bytes, limit)

    @property
    def failure(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._failure

    @property
    def overdue(self) -> str | None:
        """Why no record is taken until a shipper has caught up, or None."""
        return self._too_much(0) if self.backlog.limited else None

    def append(self, payload: bytes, *, aside: bool = False) -> asyncio.Future[None]:
        """A future that is done when the record is as durable as the spool promises; it fails with SpoolError.

        An ``aside`` is counted for itself. Call it in the event loop's thread, always of one loop.

        Raises:
            SpoolFull: too much waits for the disk, or to be shipped.
            SpoolError: the disk has failed, or the spool is closed.
        """
        if self._failure is not None:
            raise SpoolError(self._failure)
        if self._pending_bytes + len(payload) > self._queue_bytes:
            raise SpoolFull(f"{self._pending_bytes} bytes wait for the disk")
        if self.backlog.limited and (reason := self._too_much(len(payload))):
            self._crowded = True
            raise SpoolFull(reason)
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if self._durability == "off":
            future.set_result(None)
        self._pending_bytes += len(payload)
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append((payload, future, aside))
        return future

    def _hand_over(self) -> None:
        """Give the writer what was gathered: once, though ``close`` may do so from another thread at the same time."""
        items: list[_Item] = []
        with contextlib.suppress(IndexError):
            while True:
                items.append(self._gathered.popleft())
        if self._thread.is_alive():
            self._queue.put(items)
        else:
            self._answer(items, SpoolError(self._failure or "the spool is closed"))

    def _too_much(self, more: int) -> str | None:
        """Why a record of so many bytes may not be added to what waits to be shipped."""
        segment = self._segment
        size, first = (0, None) if segment is None else (segment.size, segment.first_record)
        return self.backlog.refusal(size + self._pending_bytes + more, first)

    def close(self) -> None:
        """Write what waits, seal the segment and let the folder go. Blocks; closing twice is harmless."""
        if self._thread.is_alive():
            self._hand_over()
            self._queue.put(None)
            self._thread.join()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write_all(self) -> None:
        """The writer thread."""
        batch: list[_Item] = []
        reason = "the writer has stopped"
        try:
            while True:
                batch, closing = self._take()
                self._commit(batch)
                batch = []
                if closing:
                    break
                self._turn()
            reason = "the spool is closed"
            if self._segment is not None:
                self._segment.seal()
        finally:  # whatever happened, nobody waits for ever
            self._failure = self._failure or reason
            with contextlib.suppress(Empty):
                while True:
                    batch += self._queue.get_nowait() or []
            self._answer(batch, SpoolError(self._failure))

    def _take(self) -> tuple[list[_Item], bool]:
        """What waits, as soon as there is something or something else is due; and whether the spool is to close."""
        batch: list[_Item] = []
        size = 0
        try:
            items = self._queue.get(timeout=self._patience())
            while items is not None:
                batch += items
                size += sum(len(payload) for payload, _, _ in items)
                if size >= _BATCH_BYTES:
                    return batch, False
                items = self._queue.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _patience(self) -> float | None:
        """Seconds until there is something to do without a new record; None for ever."""
        if self._segment is None:
            return self._retry_seconds
        rest = self._segment.remaining(self._segment_seconds)
        if not self.backlog.limited:
            return rest
        return LOOK_SECONDS if rest is None else min(rest, LOOK_SECONDS)

    def _commit(self, batch: list[_Item]) -> None:
        if not batch:
            return
        if self._segment is None:
            self._refuse(batch, self._failure or "no segment")
            return
        try:
            size = self._segment.append([payload for payload, _, _ in batch], sync=self._durability == "fsync")
        except OSError as error:
            self._fail(error)
            self._refuse(batch, self._failure or str(error))
            return
        asides = _asides(batch)
        self.counts.records += len(batch) - asides
        self.counts.asides += asides
        self.counts.bytes += size
        self.counts.commits += 1
        self._answer(batch, None)

    def _refuse(self, batch: list[_Item], reason: str) -> None:
        if self._durability == "off":
            self.counts.lost += len(batch) - _asides(batch)
        self._answer(batch, SpoolError(reason))

    def _turn(self) -> None:
        """Begin the next segment when this one is full or old, or after a failure when the disk may work again."""
        segment = self._segment
        try:
            if segment is None:
                self._segment = self._begin()
                self._failure = None
            elif self._is_due(segment):
                segment.seal()
                self._segment = None  # it counts as sealed from here on
                self.counts.sealed += 1
                self.backlog.look(begun=segment.first_record)
                self._segment = self._begin()
            elif self.backlog.due:
                self.backlog.look()
        except OSError as error:
            self._fail(error)

    def _is_due(self, segment: OpenSegment) -> bool:
        """Whether a segment is to be sealed."""
        crowded, self._crowded = self._crowded and segment.first_record is not None, False
        return crowded or segment.size >= self._segment_bytes or segment.remaining(self._segment_seconds) == 0.0

    def _fail(self, error: OSError) -> None:
        """Give the segment up: after a failed sync its descriptor would lie, so it is never written or synced again."""
        self.counts.failures += 1
        self._failure = f"the disk refused the log: {error.strerror or error}"
        if self._segment is not None:
            self._acknowledged[self._segment.path] = self._segment.size
            self._segment.abandon()
            self._segment = None

    def _begin(self) -> OpenSegment:
        """Recover and seal what was left open, then begin a segment under a number never used before."""
        for path in sorted(self._folder.glob("*" + OPEN)):
            self._recover(path, self._acknowledged.get(path))
        self._acknowledged.clear()
        number = self._next
        write_state(self._folder, self.id, number + 1)
        self._next = number + 1
        return OpenSegment(self._folder, self.id, number)

    def _recover(self, path: Path, acknowledged: int | None) -> None:
        """Cut a segment after its last whole record (or after what was acknowledged, if known) and seal it."""
        found = read_segment(path, self.id)
        end = found.end if acknowledged is None else min(acknowledged, found.end)
        if acknowledged is None:
            self.counts.recovered += len(found.records)
            self.counts.torn_bytes += found.torn
            self.counts.corrupt += len(found.corrupt)
        cut_and_seal(path, end)

    def _answer(self, batch: list[_Item], error: SpoolError | None) -> None:
        """Wake all who wait for the batch, in one call into their loop."""
        if batch:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                batch[0][1].get_loop().call_soon_threadsafe(self._resolve, batch, error)

    def _resolve(self, batch: list[_Item], error: SpoolError | None) -> None:
        for payload, future, _ in batch:
            self._pending_bytes -= len(payload)
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _asides(batch: list[_Item]) -> int:
    return sum(aside for _, _, aside in batch)


@dataclass(frozen=True)
class Entry:
    """One record and its place: (spool, segment, index) is its identity, and the order in which it was written."""

    spool: str
    segment: int
    index: int
    payload: bytes


def segments(folder: Path, spool: str | None, report: Callable[[str], None]) -> Iterator[tuple[Path, Segment]]:
    """The segments of a folder in order, while a writer and a shipper may be at work; ``report`` hears of bad ones."""
    for path in sorted([*folder.glob("*" + SEALED), *folder.glob("*" + OPEN)]):
        present = path if path.exists() else path.with_suffix(SEALED)  # the writer may just have sealed it
        try:
            segment = read_segment(present, spool)
        except FileNotFoundError:  # the shipper has just taken it away
            continue
        except SegmentError as error:
            report(str(error))
            continue
        if segment.header_damaged:
            report(f"{present}: the header is damaged")
        yield present, segment


def read(folder: Path, report: Callable[[str], None]) -> Iterator[Entry]:
    """Every whole record of a folder, in the order written; ``report`` hears of each loss, in one line."""
    try:
        spool, _ = read_state(folder)
    except SpoolError as error:
        report(str(error))
        spool = None
    for path, segment in segments(folder, spool, report):
        for lost in damage(segment):
            report(f"{path}: {lost}")
        for index, payload in enumerate(segment.records):
            yield Entry(segment.spool, segment.number, index, payload)
