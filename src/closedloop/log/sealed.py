"""The sealed segments of a spool in their order, and the rows of one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from closedloop.log.frame import OPEN, SEALED, SegmentReader, damage
from closedloop.log.orders import Orders
from closedloop.log.quarantine import Kept
from closedloop.log.rows import Rows, rows_of


@dataclass
class SealedSegment:
    """A segment to be shipped: its rows without what the orders of erasure name."""

    path: Path
    spool: str
    number: int
    sha256: str
    orders: Orders
    rows: Rows
    kept: list[Kept]


def sealed(folder: Path) -> list[Path]:
    """The sealed segments in order, and none while one before it is not sealed.

    A file that is renamed while a folder is listed may be missing from the list: it is not from the second one.
    """
    last = max((path.name for path in folder.glob("*" + SEALED)), default="")
    numbers = sorted(path for suffix in (SEALED, OPEN) for path in folder.glob("*" + suffix) if path.name <= last)
    unsealed = next((i for i, path in enumerate(numbers) if path.suffix == OPEN), len(numbers))
    return numbers[:unsealed]


def read_sealed(path: Path, spool: str, standing: Orders) -> SealedSegment:
    """A segment with its rows, and what of it has none.

    Raises:
        SegmentError: the file is no segment of this spool.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        segment = SegmentReader(path, file, spool)
        rows = rows_of(spool, segment.number, segment.records(), standing.prune if standing else None)
        kept = [Kept(found.why, found.payload, index=found.index) for found in rows.refused]
        kept += _damaged(segment)
    return SealedSegment(path, spool, segment.number, sha256, standing, rows, kept)


def _damaged(segment: SegmentReader) -> list[Kept]:
    """The bytes of a segment whose records are lost, after all others were read."""
    stretches = [*segment.corrupt, *([(segment.end, segment.torn)] if segment.torn else [])]
    return [
        Kept(why, segment.stretch(offset, size), offset=offset)
        for why, (offset, size) in zip(damage(segment), stretches, strict=True)
    ]
