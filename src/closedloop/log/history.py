"""The commits of a table, as its ``_delta_log`` holds them: what each added and removed, from which segment, and when.

``DeltaTable.history`` is no help: where commits were cleaned away it goes on counting as if they were there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from closedloop.log.sink import SinkError
from closedloop.log.store import File, Store

LAST_CHECKPOINT = "_last_checkpoint"
COMPACTED = "compact-"  # begins the name of a file that upkeep wrote; the rest is its first and last commit
_DIGITS = 20


@dataclass(frozen=True)
class Commit:
    """One commit. ``time_us`` is when its writer's clock says that it was made.

    ``segment`` is None where the commit brought none; ``seen`` is then the version from which upkeep wrote it, if it
    did. ``added`` and ``removed`` are paths below the table.
    """

    version: int
    time_us: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    spool: str | None = None
    segment: int | None = None
    sha256: str | None = None
    seen: int | None = None


class _Path(msgspec.Struct):
    path: str


class _Info(msgspec.Struct):
    timestamp: int
    spool: str | None = None
    segment: int | None = None
    sha256: str | None = None
    seen: int | None = None


class _Action(msgspec.Struct):
    add: _Path | None = None
    remove: _Path | None = None
    info: _Info | None = msgspec.field(default=None, name="commitInfo")


_decoder = msgspec.json.Decoder(_Action)


def log_of(table: str) -> str:
    """The folder of a table's commits."""
    return f"{table}/_delta_log"


def commit_path(table: str, version: int) -> str:
    """The path of a commit."""
    return f"{log_of(table)}/{version:0{_DIGITS}}.json"


def checkpoint_path(table: str, version: int) -> str:
    """The path of a checkpoint in one file, as deltalake writes it."""
    return f"{log_of(table)}/{version:0{_DIGITS}}.checkpoint.parquet"


@dataclass(frozen=True)
class Listing:
    """What a ``_delta_log`` holds, by version."""

    commits: dict[int, File]
    checkpoints: dict[int, list[File]]


def listing(store: Store, table: str) -> Listing:
    """The commits and checkpoints that are there now."""
    found = Listing({}, {})
    for file in store.list(log_of(table)):
        name = file.path.rpartition("/")[2]
        if not name[:_DIGITS].isdigit():
            continue
        version = int(name[:_DIGITS])
        if name[_DIGITS:] == ".json":
            found.commits[version] = file
        elif name[_DIGITS:].startswith(".checkpoint"):
            found.checkpoints.setdefault(version, []).append(file)
    return found


def read(store: Store, table: str, versions: Iterable[int]) -> dict[int, Commit]:
    """The commits of these versions by version, without those that have gone.

    Raises:
        SinkError: one is damaged.
    """
    paths = {commit_path(table, version): version for version in sorted(versions)}
    return {paths[path]: _commit(path, paths[path], content) for path, content in store.read_many(paths)}


def _commit(path: str, version: int, content: bytes) -> Commit:
    try:
        actions = [_decoder.decode(line) for line in content.splitlines() if line]
        info = next(action.info for action in actions if action.info is not None)
    except (msgspec.DecodeError, StopIteration):
        raise SinkError(f"{path} is damaged: start a shipper, which takes back what a power cut tore") from None
    return Commit(
        version=version,
        time_us=info.timestamp * 1000 + 999,  # to the end of the millisecond that it names
        added=tuple(action.add.path for action in actions if action.add is not None),
        removed=tuple(action.remove.path for action in actions if action.remove is not None),
        spool=info.spool,
        segment=info.segment,
        sha256=info.sha256,
        seen=info.seen,
    )


def first_added(commits: dict[int, Commit]) -> dict[str, int]:
    """The commit that brought each file: of several the first, since a repair adds again what an undone one removed."""
    return {path: version for version in sorted(commits, reverse=True) for path in commits[version].added}


def compacted_name(first: int, last: int, unique: str, memory: int) -> str:
    """The name of a file that holds the rows of these commits, so that names sort as rows arrived.

    Its last part is how many bytes of memory the rows take, which their size on the disk does not tell.
    """
    return f"{COMPACTED}{first:012}-{last:012}-{unique}-{memory}.parquet"


def memory_of(name: str) -> int | None:
    """How many bytes of memory the rows of a file of upkeep take; None if its name does not say so."""
    last = name.removesuffix(".parquet").rpartition("-")[2]
    return int(last) if name.startswith(COMPACTED) and name.count("-") > 3 and last.isdecimal() else None


def arrivals(name: str) -> tuple[int, int] | None:
    """The first and last commit whose rows a file of upkeep holds; None for a file of a shipper."""
    if not name.startswith(COMPACTED):
        return None
    first, last, _ = name.removeprefix(COMPACTED).split("-", 2)
    return int(first), int(last)


class Bounds:
    """The latest time at which a row can have been received, by the commit that brought it.

    A row was received before its commit and before each later one was made. So the least of their times bounds it,
    whatever the clock of its own replica said. With one replica that clock wrote all of them: then there is no bound.

    Args:
        points: pairs of a version and the time of a commit that is not earlier.
    """

    def __init__(self, points: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(points)
        self.versions = [version for version, _ in ordered]
        self.times = list(accumulate((time for _, time in reversed(ordered)), min))[::-1]

    def at(self, version: int) -> int | None:
        """The bound of a row that came with this commit; None if no commit from it on is known."""
        position = bisect_left(self.versions, version)
        return self.times[position] if position < len(self.times) else None


def points_of(commits: dict[int, Commit], floors: Iterable[Any], until: int) -> list[tuple[int, int]]:
    """The points for :class:`Bounds` of the commits that are there and of those that were cleaned away."""
    kept = [(commit.version, commit.time_us) for commit in commits.values() if commit.version <= until]
    return kept + [(start, time_us) for start, end, time_us in floors if end <= until]
