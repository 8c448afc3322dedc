"""A Delta table in a local folder after a power cut: commits whose bytes did not reach the disk are taken back.

Nobody syncs a commit's files before its name is there, so a power cut can leave a name and no bytes, which no reader
could pass. A segment goes only after a sync of the whole file system, so what is torn, and all that came after it, is
still in a spool and is shipped again. A running shipper never sees its own or another's commit torn.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from closedloop.log.segment import sync_folder

_PARQUET = b"PAR1"


def take_back_torn(table: Path) -> list[int]:
    """Remove the first torn commit of a table and all after it; their versions."""
    log = table / "_delta_log"
    commits = sorted(path for path in log.glob("*.json") if path.stem.isdigit())
    torn = next((path for path in _recent(log, commits) if _is_torn(table, path)), None)
    taken = [] if torn is None else [path for path in commits if path >= torn]
    first = int(taken[0].stem) if taken else None
    stale = [path for path in log.glob("*.checkpoint.parquet") if _is_stale(path, first)]
    if not taken and not stale:
        return []
    for path in [log / "_last_checkpoint", *stale, *reversed(taken)]:  # the newest first: no gap if this is ended, too
        path.unlink(missing_ok=True)
    sync_folder(log)
    return [int(path.stem) for path in taken]


def _recent(log: Path, commits: list[Path]) -> Iterator[Path]:
    """The commits that no whole checkpoint holds: it was written after they were synced, or is itself in doubt."""
    whole = [int(path.name[:20]) for path in log.glob("*.checkpoint.parquet") if not _is_stale(path, None)]
    since = sorted(whole)[-2] if len(whole) > 1 else -1
    return (path for path in commits if int(path.stem) > since)


def _is_torn(table: Path, commit: Path) -> bool:
    """Whether a commit is no JSON, or one of its files is shorter than it says. A file that is gone was vacuumed."""
    try:
        actions = [json.loads(line) for line in commit.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return True
    for action in actions:
        added = action.get("add")
        if added:
            with contextlib.suppress(FileNotFoundError):
                if (table / added["path"]).stat().st_size < added["size"]:
                    return True
    return not actions


def _is_stale(checkpoint: Path, first_torn: int | None) -> bool:
    """Whether a checkpoint is no whole file, or holds a commit that is taken back."""
    data = checkpoint.read_bytes()
    whole = len(data) > 12 and data.startswith(_PARQUET) and data.endswith(_PARQUET)
    return not whole or (first_torn is not None and int(checkpoint.name[:20]) >= first_torn)
