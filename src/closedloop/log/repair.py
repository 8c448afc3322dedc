"""Repair of a Delta table in a local folder after a power cut: torn commits are undone, and their segments come again.

Nobody syncs a commit's files before its name is there, so a power cut can leave a name without its bytes. A segment is
removed only after a sync of the whole file system, so the segment of a torn commit is still in its spool.

- Undoing is a commit of its own, after all others. No commit is removed and no version number is used again, so a
  version means the same rows for ever. A version whose rows are not known any more names a data file that does not
  exist: reading it fails.
- A shipper undoes a commit only if its segment lies in the shipper's own spool, and a commit without a segment (of
  upkeep) only while each file that it removed exists. Otherwise nothing is changed: see ``halt.py``.
- Where a commit cannot be read, what its writer announced tells whose it was (``attempts.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from closedloop.log import pins
from closedloop.log.attempts import FOLDER, Attempts, announced
from closedloop.log.commits import (
    TOOK_BACK,
    CommitFile,
    SegmentId,
    checkpoint_files,
    commit_files,
    is_short,
    is_whole,
    unsettled,
)
from closedloop.log.durable import sync_disk, sync_folder
from closedloop.log.frame import SEALED, segment_name
from closedloop.log.sink import Sink
from closedloop.log.state import SpoolError, make_folder, read_state
from closedloop.log.undo import RepairError, replace_unreadable, undo, undo_without_segments

__all__ = [
    "LostCheckpoint",
    "RepairError",
    "Spools",
    "damage",
    "give_up",
    "lost_checkpoint",
    "put_aside",
    "take_back_torn",
]

GIVEN_UP = "_given_up"  # in the sink: tables that no one can read any more


@dataclass(frozen=True)
class Spools:
    """The spools whose segments count as still there."""

    folders: tuple[Path, ...]

    def hold(self, segment: SegmentId) -> bool:
        """Whether a segment lies in one of the spools, byte for byte."""
        return any(self._holds(folder, segment) for folder in self.folders)

    def attempted(self, table: str, version: int) -> SegmentId | None:
        """The segment that one of the spools' shippers was writing as this version."""
        found = (Attempts(folder).segment(table, version) for folder in self.folders)
        return next((segment for segment in found if segment is not None), None)

    @staticmethod
    def _holds(folder: Path, segment: SegmentId) -> bool:
        path = folder / segment_name(segment.number, SEALED)
        try:
            spool, _ = read_state(folder)
            with path.open("rb") as file:
                return (spool, hashlib.file_digest(file, "sha256").hexdigest()) == (segment.spool, segment.sha256)
        except (SpoolError, FileNotFoundError):
            return False


def take_back_torn(table: Path, spools: Spools) -> list[int]:
    """Undo the torn commits of a table, and those that rest on them; their versions.

    Raises:
        RepairError: a torn commit must not be undone. Nothing was changed.
    """
    log = table / "_delta_log"
    if not log.exists():
        return []
    with _alone(log):
        found = unsettled(log)
        _finish(table, found)
        commits = _pending(found)
        torn = _torn(table, commits)
        _remove_torn_checkpoints(table)
        if not torn:
            return []
        segments = _segments(table.name, commits, spools)
        undone = _with_dependents(commits, torn, segments)
        _refuse_unsafe(table, commits, undone, torn, spools)
        undo(table, commits, undone, segments)
        return undone


def damage(table: Path) -> dict[int, str]:
    """The versions of a table whose commits are torn, and what is wrong with each."""
    log = table / "_delta_log"
    return _torn(table, _pending(unsettled(log))) if log.exists() else {}


def give_up(table: Path) -> None:
    """Undo the torn commits of a table, whatever is lost by it, so that the rest can be read again.

    Data files stay where they are, also those that only an unreadable commit named. What rests on a torn commit stays.
    """
    log = table / "_delta_log"
    with _alone(log):
        found = unsettled(log)
        _finish(table, found)
        commits = _pending(found)
        torn = sorted(_torn(table, commits))
        if torn:
            undo_without_segments(table, commits, torn)


@dataclass(frozen=True)
class LostCheckpoint:
    """A torn checkpoint that alone said which files a table has."""

    path: Path
    version: int
    why: str


def lost_checkpoint(table: Path) -> LostCheckpoint | None:
    """The torn checkpoint of a table that cannot be made again from its commits; None if there is none."""
    log = table / "_delta_log"
    found = {path: is_whole(path) for path in checkpoint_files(log)}
    torn = [path for path, whole in found.items() if not whole]
    if not torn:
        return None
    whole = max((int(path.name[:20]) for path, is_good in found.items() if is_good), default=-1)
    present = {int(path.stem) for path in commit_files(log)}
    last = int(torn[-1].name[:20])
    missing = next((version for version in range(whole + 1, last + 1) if version not in present), None)
    if missing is None:
        return None
    return LostCheckpoint(torn[-1], last, f"checkpoint {last} is torn, and version {missing} before it is gone")


def put_aside(table: Path, why: str) -> Path:
    """Move a table that cannot be read any more out of the way, so that shippers begin a new one; where it is now.

    Its ledger goes with it, since a new table's versions begin at 0 again, and its pins become unreadable.
    """
    sink = Sink(str(table.parent))
    for pin in pins.find(sink):
        if table.name in pin.versions and pin.unreadable is None:
            pins.mark_unreadable(sink, pin, why)
    aside = table.parent / GIVEN_UP / f"{table.name}-{time.time_ns() // 1000}"
    make_folder(aside)
    for path in (table.parent / FOLDER).glob(f"{table.name}.*"):
        path.rename(aside / path.name)
    table.rename(aside / table.name)  # last: run again, a killed one finds it
    sync_disk(table.parent)
    return aside


@contextlib.contextmanager
def _alone(log: Path) -> Iterator[None]:
    """One repair at a time; another one waits, and finds a whole table."""
    descriptor = os.open(log, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _pending(commits: list[CommitFile]) -> list[CommitFile]:
    """The unsettled commits that no repair has undone."""
    undone = _undone(commits)
    return [commit for commit in commits if commit.version not in undone]


def _undone(commits: list[CommitFile]) -> set[int]:
    return {version for commit in commits for version in commit.info.get(TOOK_BACK, ())}


def _finish(table: Path, commits: list[CommitFile]) -> None:
    """Replace what a repair has undone and was killed before it replaced: until then nobody can read the table."""
    left = _undone(commits) & {commit.version for commit in commits if commit.flaw}
    if left:
        replace_unreadable(table, commits, sorted(left))


def _torn(table: Path, commits: list[CommitFile]) -> dict[int, str]:
    """Why each torn commit counts as one: its file is not whole, or a data file that is still in use is short."""
    torn = {commit.version: commit.flaw for commit in commits if commit.flaw}
    removed: set[str] = set()
    for commit in reversed(commits):
        for path, added in commit.added.items():
            if path not in removed and is_short(table, added):
                torn.setdefault(commit.version, f"has a data file that is cut short ({path})")
        removed |= commit.removed.keys()
    return dict(sorted(torn.items()))


def _segments(table: str, commits: list[CommitFile], spools: Spools) -> dict[int, SegmentId]:
    """The segment of each commit that has one; where the file does not say, what our own shipper was writing then."""
    known = {commit.version: commit.segment or spools.attempted(table, commit.version) for commit in commits}
    return {version: segment for version, segment in known.items() if segment is not None}


def _with_dependents(commits: list[CommitFile], torn: dict[int, str], segments: dict[int, SegmentId]) -> list[int]:
    """The torn commits, later ones of the same spool, and those that removed a file which one of these added."""
    undone = set(torn)
    while True:
        files = {path for commit in commits if commit.version in undone for path in commit.added}
        spools = {segments[version].spool for version in undone if version in segments}
        more = {
            commit.version
            for commit in commits
            if commit.version > min(undone)
            and (
                files & commit.removed.keys()
                or (commit.version in segments and segments[commit.version].spool in spools)
            )
        }
        if more <= undone:
            return sorted(undone)
        undone |= more


def _refuse_unsafe(
    table: Path, commits: list[CommitFile], undone: list[int], torn: dict[int, str], spools: Spools
) -> None:
    """Raise for each commit that must not be undone."""
    segments = _segments(table.name, commits, spools)
    of_upkeep = announced(table.parent, table.name)
    why = []
    for commit in (commit for commit in commits if commit.version in undone and commit.version > 0):
        what = torn.get(commit.version, "rests on a torn commit")
        segment = segments.get(commit.version)
        if segment is not None:
            if not spools.hold(segment):
                at = f"segment {segment.number} of spool {segment.spool}"
                why.append(f"{table.name}: version {commit.version} {what}, and its {at} is not in this spool")
        elif commit.unknown and commit.version != of_upkeep:
            why.append(f"{table.name}: version {commit.version} {what}, and nothing tells which segment it holds")
        elif gone := [path for path in commit.removed if not (table / path).exists()]:
            why.append(f"{table.name}: version {commit.version} {what}, and {gone[0]}, which it replaced, is gone")
    if why:
        raise RepairError(why)


def _remove_torn_checkpoints(table: Path) -> None:
    """Remove checkpoints that are not whole, as long as commits say what they held.

    Raises:
        RepairError: commits before such a checkpoint are gone.
    """
    log = table / "_delta_log"
    if lost := lost_checkpoint(table):
        raise RepairError([f"{table.name}: {lost.why}"])
    torn = [path for path in checkpoint_files(log) if not is_whole(path)]
    if not torn:
        return
    for path in [log / "_last_checkpoint", *torn]:
        path.unlink(missing_ok=True)
    sync_folder(log)
