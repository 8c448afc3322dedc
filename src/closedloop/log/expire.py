"""Rows that came before a time are left out of a table's newest version: for good, unless a pin keeps them.

Rows go in the order in which they arrived, so that a clock that was behind lets nothing go too early: a row counts as
no older than any that came before it. A clock that was ahead keeps its row, and all that came later, until then: too
long and never too short. The bounds of :mod:`closedloop.log.history` are of no use here, since one commit of a clock
that was behind makes everything before it look old.

Of feedback, retractions and marks of completeness stay, without the events of their record: a retraction is final and a
mark never decreases, so what comes later must still meet them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from closedloop.log.lease import Lease
from closedloop.log.rewrite import ARRIVAL, Data, ScratchFolder, Table, exchange
from closedloop.log.sink import SinkError
from closedloop.log.tables import FEEDBACK

_BEHIND_SECONDS = 300.0  # that a right clock may be behind the store's
_AHEAD_SECONDS = 86_400.0
_STAYS = " OR ".join(f"{name} IS NOT NULL" for name in ("retracted_failures", "retracted_maint", "complete_until"))
_EVENTS = ("failures", "maint")


@dataclass(frozen=True)
class Expired:
    """What an expiry left out, or would: rows, and the bytes of the files that held nothing else.

    ``split`` is the one file that held younger rows too, and was written again without the others. ``kept`` counts the
    old rows of feedback that stay for their retractions and marks.
    """

    rows: int = 0
    files: int = 0
    bytes: int = 0
    split: str | None = None
    kept: int = 0


@dataclass(frozen=True)
class _Old:
    """A file with old rows: which they are, in SQL, and the first commit of what is left of it.

    Of its rows so many are ``young``, ``kept`` though old, and ``gone``; ``full`` of those kept still have events.
    """

    file: Data
    old: str
    first: int
    young: int
    kept: int
    gone: int
    full: int

    @property
    def left(self) -> int:
        """How many rows stay."""
        return self.young + self.kept


def expire(table: Table, lease: Lease, before_us: int, say: Callable[[str], None], *, dry_run: bool = False) -> Expired:
    """Leave out all rows that came before a time, in microseconds UTC.

    Read the table after the lease was taken: the lease is a commit, and so tells what time it is in the store.

    Raises:
        SinkError: this machine's clock and the store's differ; nothing has changed.
        SinkError, DeltaError, OSError, ValueError: the sink refused; nothing has changed.
    """
    if not dry_run:
        _compare_clocks(table)
    found: list[_Old] = []
    newest = -(1 << 63)
    with ScratchFolder(table) as scratch:
        for file in table.files:
            lease.renew()
            rows, first_young, newest = _young(table, scratch, file, before_us, newest)
            if rows or first_young is None:
                found.append(_look(table.name, scratch, file, rows, first_young))
            if first_young is not None:
                break
        changed = [each for each in found if not each.left or each.gone or each.full]
        whole = [each.file for each in changed if not each.left]
        done = Expired(
            sum(each.gone for each in changed),
            len(whole),
            sum(file.size for file in whole),
            next((each.file.path for each in changed if each.young), None),
            sum(each.kept for each in found),
        )
        if dry_run or not (done.rows or any(each.full for each in changed)):
            return done
        added = []
        for each in (each for each in changed if each.left):
            stays = f"NOT ({each.old})" + (f" OR {_STAYS}" if each.kept else "")
            batches = scratch.rows(each.file, stays, _EVENTS if each.kept else (), each.old)
            written = scratch.write(batches, each.first, each.file.last)
            if written is None or written.rows != each.left:
                raise ValueError(f"{table.name}: {each.file.path} does not hold the rows that it names")
            added.append(written)
        exchange(table, lease, [each.file for each in changed], added, {"upkeep": "expire"}, changes=True)
    say(f"{table.name}: {done.rows:,} rows are no longer in the newest version")
    return done


def _compare_clocks(table: Table) -> None:
    """Refuse where this machine's clock is not near that of the store, by the file of the newest commit.

    Raises:
        SinkError: that is so.
    """
    ahead = time.time() - table.listing.commits[table.version].modified
    if not -_BEHIND_SECONDS <= ahead <= _AHEAD_SECONDS:
        side = "after" if ahead > 0 else "before"
        raise SinkError(
            f"{table.name}: this machine's clock is {abs(ahead):,.0f} s {side} the newest "
            "commit in the store, so the age of a record is not known: nothing was removed; set the clock, run it again"
        )


def _look(name: str, scratch: ScratchFolder, file: Data, rows: int, first_young: int | None) -> _Old:
    """What an expiry does to a file of which so many rows are old."""
    old = "true" if first_young is None else f"{ARRIVAL} < {first_young}"
    kept = full = 0
    if name == FEEDBACK:
        events = " OR ".join(f"{column} IS NOT NULL" for column in _EVENTS)
        statement = (
            f"SELECT count(*) AS kept, count(CASE WHEN {events} THEN 1 END) AS full FROM rows "  # noqa: S608
            f"WHERE {old} AND ({_STAYS})"
        )
        ((kept, full),) = [
            (batch.column("kept").to_pylist()[0], batch.column("full").to_pylist()[0])
            for batch in scratch.query(file, statement)
        ]
    first = file.first if kept or first_young is None else first_young
    return _Old(file, old, first, file.rows - rows, kept, rows - kept, full)


def _young(
    table: Table, scratch: ScratchFolder, file: Data, before_us: int, newest: int
) -> tuple[int, int | None, int]:
    """The rows of a file that are too old, the first commit of it that is not, and the time that the next rows have."""
    arrivals = str(file.first) if file.raw else ARRIVAL
    statement = (
        f"SELECT {arrivals} AS commit, max(CAST(received AS BIGINT)) AS time, count(*) AS rows FROM rows "  # noqa: S608
        "GROUP BY 1 ORDER BY 1"
    )
    old = 0
    for batch in scratch.query(file, statement):
        columns = [batch.column(name).to_pylist() for name in ("commit", "time", "rows")]
        for commit, time_us, rows in zip(*columns, strict=True):
            newest = max(newest, time_us)
            if newest >= before_us:
                return old, commit, newest
            old += rows
    return old, None, newest
