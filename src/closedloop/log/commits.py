"""The commits of a Delta table in a local folder, and what a power cut left of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Action = dict[str, Any]
TOOK_BACK = "tookBack"  # in the metadata of a commit that undoes others: their versions

_PARQUET = b"PAR1"
_SPOOL = re.compile("[0-9a-f]{32}")
_SHA256 = re.compile("[0-9a-f]{64}")
# How many files a commit says it added and removed; appends and compaction have different names for it. Our upkeep
# says it beside the metrics, since only deltalake fills those.
_COUNTS = {"added": ("num_added_files", "numFilesAdded"), "removed": ("num_removed_files", "numFilesRemoved")}


@dataclass(frozen=True)
class SegmentId:
    """One sealed segment: its spool's id, its number, and the sha256 of its file."""

    spool: str
    number: int
    sha256: str


@dataclass(frozen=True)
class CommitFile:
    """One commit file. ``actions`` is None where the file is not JSON lines, or not ``there``."""

    path: Path
    actions: tuple[Action, ...] | None
    there: bool = True

    @property
    def version(self) -> int:
        """The table's version after this commit."""
        return int(self.path.stem)

    @cached_property
    def info(self) -> Action:
        """The commit's metadata."""
        return next(iter(self._of("commitInfo")), {})

    @cached_property
    def added(self) -> dict[str, Action]:
        """The add actions by path."""
        return {action["path"]: action for action in self._of("add")}

    @cached_property
    def removed(self) -> dict[str, Action]:
        """The remove actions by path."""
        return {action["path"]: action for action in self._of("remove")}

    @cached_property
    def transactions(self) -> dict[str, int]:
        """The transaction version of each application id."""
        return {action["appId"]: action["version"] for action in self._of("txn")}

    @property
    def segment(self) -> SegmentId | None:
        """The segment that a shipper wrote with this commit; None for any other commit."""
        spool, number, sha256 = (self.info.get(key) for key in ("spool", "segment", "sha256"))
        if isinstance(spool, str) and isinstance(number, int) and isinstance(sha256, str):
            return SegmentId(spool, number, sha256)
        return None

    @cached_property
    def flaw(self) -> str | None:
        """What shows that the file is not the whole commit; None if nothing does."""
        if self.actions is None:
            return "is not JSON" if self.there else "is missing"
        if not self.info:
            return "has no metadata"
        if self.version == 0 and not (any(self._of("protocol")) and any(self._of("metaData"))):
            return "does not say what the table is"
        for what, keys in _COUNTS.items():
            said = next((found[key] for found in (self._metrics, self.info) for key in keys if key in found), None)
            found = len(self.added if what == "added" else self.removed)
            if isinstance(said, int) and said != found:
                return f"names {found} of {said} files {what}"
        return self._segment_flaw()

    def _segment_flaw(self) -> str | None:
        """What a shipper's commit lacks: data, the transaction of its segment, or metadata that names the segment."""
        if not self._shipped:
            return None
        segment = self.segment
        if segment is None or not _SHA256.fullmatch(segment.sha256):
            return "does not name its segment"
        if self.transactions != {segment.spool: segment.number}:
            return "lacks the transaction of its segment"
        return None if self.added else "lacks the data of its segment"

    @property
    def unknown(self) -> bool:
        """Whether the file does not say if the commit holds a segment, or which one."""
        return not self.info or (self._shipped and self.segment is None)

    @property
    def _shipped(self) -> bool:
        """Whether a shipper wrote it."""
        if TOOK_BACK in self.info:
            return False
        named = any(key in self.info for key in ("spool", "segment", "sha256"))
        return named or any(_SPOOL.fullmatch(name) for name in self.transactions)

    @property
    def _metrics(self) -> Action:
        found = self.info.get("operationMetrics")
        return found if isinstance(found, dict) else {}

    def _of(self, kind: str) -> Iterator[Action]:
        return (found for action in self.actions or () if isinstance(found := action.get(kind), dict))


def read_commit(path: Path) -> CommitFile:
    """One commit of a table."""
    try:
        actions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return CommitFile(path, None)
    whole = bool(actions) and all(isinstance(action, dict) for action in actions)
    return CommitFile(path, tuple(actions) if whole else None)


def commit_files(log: Path) -> list[Path]:
    """The files of all commits of a ``_delta_log``, oldest first."""
    return sorted(path for path in log.glob("*.json") if path.stem.isdigit())


def unsettled(log: Path) -> list[CommitFile]:
    """The commits that a power cut may have torn, oldest first; also those that are missing before a later one.

    A checkpoint is written at once after its commit, which need not have reached the disk. At the next checkpoint it
    had: each shipper syncs before its next commit. So the last checkpoint but one, and all before it, are settled.
    """
    whole = _whole_checkpoints(log)
    since = whole[-2] if len(whole) > 1 else -1
    commits = [read_commit(path) for path in commit_files(log) if int(path.stem) > since]
    return sorted([*commits, *_missing(log, commits)], key=lambda commit: commit.version)


def _missing(log: Path, commits: list[CommitFile]) -> list[CommitFile]:
    """The commits that are not there, though a later one is: versions have no gaps after a checkpoint.

    Others commit and clean up meanwhile. So each is looked for once more, and the checkpoints after that.
    """
    there = {commit.version for commit in commits}
    since = max(_whole_checkpoints(log), default=-1)
    paths = [log / f"{v:020d}.json" for v in range(since + 1, max(there, default=-1)) if v not in there]
    gone = [path for path in paths if not path.exists()]
    since = max(_whole_checkpoints(log), default=-1) if gone else since
    return [CommitFile(path, None, there=False) for path in gone if int(path.stem) > since]


def _whole_checkpoints(log: Path) -> list[int]:
    return sorted(int(path.name[:20]) for path in checkpoint_files(log) if is_whole(path))


def checkpoint_files(log: Path) -> list[Path]:
    """The checkpoints of a ``_delta_log``."""
    return sorted(log.glob("*.checkpoint.parquet"))


def is_whole(parquet: Path) -> bool:
    """Whether a Parquet file has its beginning and its end."""
    data = parquet.read_bytes()
    return len(data) > 12 and data.startswith(_PARQUET) and data.endswith(_PARQUET)


def is_short(table: Path, added: Action) -> bool:
    """Whether a data file is shorter than its commit says. A file that is gone was vacuumed."""
    try:
        return bool((table / added["path"]).stat().st_size < added["size"])
    except FileNotFoundError:
        return False
