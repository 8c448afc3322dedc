"""Rows that came before a time are left out of a table's newest version: for good, unless a pin keeps them.

Rows go in the order in which they arrived, so that a clock that was behind lets nothing go too early: a row counts as
no older than any that came before it. A clock that was ahead keeps its row, and all that came later, until then: too
long and never too short. The bounds of :mod:`closedloop.log.history` are of no use here, since one commit of a clock
that was behind makes everything before it look old.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from closedloop.log.lease import Lease
from closedloop.log.rewrite import ARRIVAL, Data, ScratchFolder, Table, exchange
from closedloop.log.sink import SinkError

_BEHIND_SECONDS = 300.0  # that a right clock may be behind the store's
_AHEAD_SECONDS = 86_400.0


@dataclass(frozen=True)
class Expired:
    """What an expiry left out, or would: rows, and the bytes of the files that held nothing else.

    ``split`` is the one file that held younger rows too, and was written again without the others.
    """

    rows: int = 0
    files: int = 0
    bytes: int = 0
    split: str | None = None


def expire(table: Table, lease: Lease, before_us: int, say: Callable[[str], None], *, dry_run: bool = False) -> Expired:
    """Leave out all rows that came before a time, in microseconds UTC.

    Read the table after the lease was taken: the lease is a commit, and so tells what time it is in the store.

    Raises:
        SinkError: this machine's clock and the store's differ; nothing has changed.
        SinkError, DeltaError, OSError, ValueError: the sink refused; nothing has changed.
    """
    if not dry_run:
        _compare_clocks(table)
    whole: list[Data] = []
    newest = -(1 << 63)
    with ScratchFolder(table) as scratch:
        split: tuple[Data, int, int] | None = None
        for file in table.files:
            lease.renew()
            rows, first_young, newest = _young(table, scratch, file, before_us, newest)
            if first_young is not None:
                split = (file, first_young, rows) if rows else None
                break
            whole.append(file)
        done = Expired(
            sum(file.rows for file in whole) + (split[2] if split else 0),
            len(whole),
            sum(file.size for file in whole),
            split[0].path if split else None,
        )
        if dry_run or not done.rows:
            return done
        added = []
        if split is not None:
            file, first, rows = split
            written = scratch.write(scratch.rows(file, f"{ARRIVAL} >= {first}"), first, file.last)
            if written is None or written.rows != file.rows - rows:
                raise ValueError(f"{table.name}: {file.path} does not hold the rows that it names")
            added.append(written)
        removed = [*whole, *([split[0]] if split else [])]
        exchange(table, lease, removed, added, {"upkeep": "expire"}, changes=True)
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
