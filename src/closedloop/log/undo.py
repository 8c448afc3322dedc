"""The commit that undoes torn ones, and what stands in for them so that the log can be read again.

No commit is removed and no version number is used again. A version whose rows are not known any more names a data file
that does not exist.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from deltalake import DeltaTable

from closedloop.log.commits import TOOK_BACK, Action, CommitFile, SegmentId, commit_files, read_commit
from closedloop.log.durable import sync_file, sync_folder
from closedloop.log.sink import Sink


class RepairError(RuntimeError):
    """A table is damaged, and undoing that could lose records. ``why`` has one line for each reason."""

    def __init__(self, why: list[str]) -> None:
        super().__init__("; ".join(why))
        self.why = why


def undo(table: Path, commits: list[CommitFile], undone: list[int], segments: dict[int, SegmentId]) -> None:
    """Write the commit that undoes others, then replace what cannot be read. ``segments`` are those of all commits."""
    log = table / "_delta_log"
    chosen = [commit for commit in commits if commit.version in undone]
    removed = _files_of(commits, undone)
    if any(commit.flaw for commit in chosen):  # it may have added files that it does not name any more
        known = {path for commit in map(read_commit, commit_files(log)) for path in commit.added}
        known |= _active(table, undone[0] - 1)
        removed += sorted(path.name for path in table.glob("*.parquet") if path.name not in known)
    actions = [_remove(path) for path in removed]
    back = {path for commit in chosen for path in commit.removed} - set(removed)
    actions += [_add_again(log, undone[0] - 1, path) for path in sorted(back)]
    for spool in sorted({segment.spool for version, segment in segments.items() if version in undone}):
        actions.append({"txn": {"appId": spool, "version": _transaction(table, undone[0] - 1, spool)}})
    _write_undo(log, commits, undone, actions)
    replace_unreadable(table, commits, undone)


def undo_without_segments(table: Path, commits: list[CommitFile], undone: list[int]) -> None:
    """Undo commits whose segments nobody has: nothing that they removed comes back."""
    _write_undo(table / "_delta_log", commits, undone, [_remove(path) for path in _files_of(commits, undone)])
    replace_unreadable(table, commits, undone)


def _write_undo(log: Path, commits: list[CommitFile], undone: list[int], actions: list[Action]) -> None:
    """Commit the undoing under a number of its own; another process's commit of that number makes it fail."""
    poisoned = [_remove(_poison(commit.version)) for commit in commits if commit.version in undone and commit.flaw]
    info = {"timestamp": time.time_ns() // 1_000_000, "operation": "REPAIR", "operationParameters": {}}
    version = max(int(path.stem) for path in commit_files(log)) + 1
    text = _lines([{"commitInfo": {**info, TOOK_BACK: undone}}, *actions, *poisoned])
    fresh = _durable(log / f"_repair_{version}.tmp", text)
    try:
        os.link(fresh, log / f"{version:020d}.json")
    finally:
        fresh.unlink()
    sync_folder(log)


def replace_unreadable(table: Path, commits: list[CommitFile], undone: list[int]) -> None:
    """Make the log readable again: what was in a torn commit is not known, and its version must not be read."""
    log = table / "_delta_log"
    for commit in commits:
        if commit.version not in undone or not commit.flaw:
            continue
        if commit.version == 0:  # it has no rows: that of any new table stands in
            scratch = table.with_name(f".repair-{os.getpid()}")
            Sink(str(scratch)).create(table.name)
            text = (scratch / table.name / "_delta_log" / commit.path.name).read_text(encoding="utf-8")
            shutil.rmtree(scratch)
        else:
            info = {"timestamp": time.time_ns() // 1_000_000, "operation": "REPAIR", "operationParameters": {}}
            poison = {**_file(_poison(commit.version)), "modificationTime": 0}
            text = _lines([{"commitInfo": info}, {"add": poison}])
        _durable(log / f"_repair_{commit.version}.tmp", text).rename(commit.path)
    sync_folder(log)


def _files_of(commits: list[CommitFile], undone: list[int]) -> list[str]:
    return [path for commit in commits if commit.version in undone for path in commit.added]


def _active(table: Path, version: int) -> set[str]:
    """The data files of a version."""
    if version < 0:
        return set()
    return {Path(path).name for path in DeltaTable(table, version=version).file_uris()}


def _transaction(table: Path, version: int, spool: str) -> int:
    """The number of the last segment of a spool at a version; 0 before its first."""
    return 0 if version < 0 else DeltaTable(table, version=version).transaction_version(spool) or 0


def _add_again(log: Path, before: int, path: str) -> Action:
    """The action by which a file was added to the table first."""
    for commit in map(read_commit, reversed(commit_files(log))):
        if path in commit.added:
            return {"add": {**commit.added[path], "dataChange": False}}
    return _add_from_checkpoint(log.parent, before, path)


def _add_from_checkpoint(table: Path, version: int, path: str) -> Action:
    """The action by which a file is added whose commit was cleaned up, as the table still knows it."""
    found = DeltaTable(table, version=version).get_add_actions()
    names = ("path", "size_bytes", "modification_time", "num_records")
    for name, size, modified, rows in zip(*(found.column(name).to_pylist() for name in names), strict=True):
        if name == path:
            stats = json.dumps({"numRecords": rows})
            add = {**_file(path), "size": size, "modificationTime": modified, "stats": stats, "dataChange": False}
            return {"add": add}
    raise RepairError([f"{table.name}: no commit says any more how {path} was added"])


def _remove(path: str) -> Action:
    now = time.time_ns() // 1_000_000
    return {"remove": {**_file(path), "deletionTimestamp": now, "extendedFileMetadata": True}}


def _file(path: str) -> Action:
    return {"path": path, "partitionValues": {}, "size": 1, "dataChange": True}


def _poison(version: int) -> str:
    """The name of the data file that does not exist: whoever reads the version learns why it cannot be read."""
    return f"version-{version}-was-torn-and-taken-back.parquet"


def _lines(actions: list[Action]) -> str:
    return "\n".join(json.dumps(action) for action in actions)


def _durable(path: Path, text: str) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        sync_file(file.fileno())
    return path
