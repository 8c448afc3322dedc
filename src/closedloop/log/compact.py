"""Many small files of a table as few large ones, in the order of arrival.

Files that lie side by side and are of one size class become one, as in a log-structured merge tree: each byte is
written again a few times in all, and not each time. A file that is large enough is left alone for good, so that pins
of different weeks share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from arro3.core import RecordBatch

from closedloop.log import history
from closedloop.log.lease import Lease
from closedloop.log.rewrite import Data, ScratchFolder, Table, exchange

FAN_IN = 8  # files of a size class, side by side, before they become one
_SMALLEST_CLASS = 32 << 10
_CLASS_RATIO = 8
_LARGE_LEAST, _LARGE_MOST, _LARGE_SHARE = 16 << 20, 48 << 20, 256
_MOST_MEMORY = 256 << 20  # of the rows that become one file: they are in memory at once, about three times over
_GROUP_BYTES = 2 << 20  # of files of shippers that are read at once
_MOST_FILES = 512  # that become one at once: progress is kept after each


@dataclass(frozen=True)
class Compacted:
    """What a compaction did, or would do: files and their bytes before and after, and the rows in them."""

    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows: int = 0


def plan(files: list[Data], *, everything: bool = False, each_raw: bool = False) -> list[Data] | None:
    """The files that should become one next; None if none should.

    Args:
        files: those of the table, in the order of arrival.
        everything: also two files are enough, whatever their size class below the largest.
        each_raw: also a single file of a shipper is written again, so that nothing needs the commit that brought it.
    """
    large = min(max(_LARGE_LEAST, sum(file.size for file in files) // _LARGE_SHARE), _LARGE_MOST)
    limits = [large]
    while not everything and limits[0] // _CLASS_RATIO >= _SMALLEST_CLASS:
        limits.insert(0, limits[0] // _CLASS_RATIO)
    for smaller, limit in pairwise([0, *limits]):
        for run, full in _runs(files, limit, large):  # files of smaller classes between them go along, and do not count
            if sum(file.size >= smaller for file in run) >= (2 if everything else FAN_IN):
                return run
            if full and limit == large and 2 * max(file.size for file in run) <= sum(file.size for file in run):
                return run
    return next(([file] for file in files if file.raw), None) if each_raw else None


def _runs(files: list[Data], limit: int, large: int) -> Iterator[tuple[list[Data], bool]]:
    """Files side by side that are each smaller than the limit, and together not much larger than a large one.

    As far as it is known their rows fit into memory together. Each run comes with whether it is full. Then it becomes
    one that is large enough, however few its files are, unless most of it is in one of them already.
    """
    run: list[Data] = []
    size = memory = 0
    for file in files:
        small = file.size < limit
        full = size >= large or (small and memory + file.memory > _MOST_MEMORY)
        if run and (full or not small or len(run) >= _MOST_FILES):
            yield run, full
            run, size, memory = [], 0, 0
        if small:
            run.append(file)
            size += file.size
            memory += file.memory
    yield run, size >= large


def compact(
    table: Table,
    lease: Lease,
    say: Callable[[str], None],
    *,
    everything: bool = False,
    each_raw: bool = False,
    dry_run: bool = False,
) -> tuple[Table, Compacted]:
    """Compact until there is nothing to do; the table as it is then, and what was done.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink refused; what was done until then is whole.
    """
    done = Compacted()
    if dry_run:
        files = list(table.files)
        while (run := plan(files, everything=everything, each_raw=each_raw)) is not None:
            name = history.compacted_name(0, 0, "", sum(file.memory for file in run))
            merged = Data(name, sum(file.size for file in run), sum(file.rows for file in run), 0, 0)
            done = _sum(done, run, merged.size, merged.rows)
            files[files.index(run[0]) : files.index(run[-1]) + 1] = [merged]
        return table, done
    while (run := plan(table.files, everything=everything, each_raw=each_raw)) is not None:
        lease.renew()
        with ScratchFolder(table) as scratch:
            run, rows = _read(scratch, run, lease)
            written = scratch.write(rows, run[0].first, run[-1].last)
            del rows
            if written is None or written.rows != sum(file.rows for file in run):
                raise ValueError(f"{table.name}: {run[0].path} and those after it do not hold the rows that they name")
            exchange(table, lease, run, [written], {"upkeep": "compact"}, changes=False)
        done = _sum(done, run, written.action.size, written.rows)
        say(f"{table.name}: {len(run)} files became one of {written.rows:,} rows and {written.action.size:,} bytes")
        table = Table(table.sink, table.name, table)
    return table, done


def _read(scratch: ScratchFolder, run: list[Data], lease: Lease) -> tuple[list[Data], list[RecordBatch]]:
    """Files of a run, side by side, whose rows fit into memory together, and the rows.

    They are two or more, or one of which nothing was known: so each time fewer files are left, or more is known.
    """
    rows: list[RecordBatch] = []
    memory = number = 0
    groups = list(_groups(run))[::-1]
    while groups:
        group = groups.pop()
        found = list(scratch.raw_rows(group) if len(group) > 1 else scratch.rows(group[0]))
        size = sum(batch.nbytes for batch in found)
        lease.renew()
        if memory + size > _MOST_MEMORY and len(group) > 1:  # they compress well: how many fit?
            groups += [[file] for file in reversed(group)]
            continue
        memory += size
        if number and memory > _MOST_MEMORY:
            if number > 1 or not run[0].known:
                return run[:number], rows
            if not group[0].known:
                return group, found
        rows += found
        number += len(group)
    return run, rows


def _groups(run: list[Data]) -> Iterator[list[Data]]:
    """The files of a run that are read at once: small ones of shippers side by side, any other alone."""
    group: list[Data] = []
    for file in run:
        if group and not (file.raw and sum(each.size for each in group) + file.size <= _GROUP_BYTES):
            yield group
            group = []
        group.append(file)
        if not file.raw:
            yield group
            group = []
    if group:
        yield group


def _sum(done: Compacted, run: list[Data], size: int, rows: int) -> Compacted:
    return Compacted(
        done.files_before + len(run),
        done.files_after + 1,
        done.bytes_before + sum(file.size for file in run),
        done.bytes_after + size,
        done.rows + rows,
    )
