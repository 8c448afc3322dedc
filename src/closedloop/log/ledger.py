"""What outlives the commits of a table: kept beside it, in ``_upkeep/<table>.json``, before a commit is removed.

A shipper asks here for the newest segment of its spool (:func:`newest_shipped`) when no commit names it any more.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from closedloop.log.attempts import FOLDER
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store


class Shipped(msgspec.Struct, frozen=True):
    """A segment that the table holds, and the sha256 of its file."""

    segment: int
    sha256: str


class Ledger(msgspec.Struct):
    """What a table's removed commits said.

    ``shipped`` is the newest segment of each spool. ``floors`` holds triples of first version, last version and the
    least time of the commits between them, for :class:`closedloop.log.history.Bounds`. ``unreferenced`` names the files
    that no version held when upkeep last looked: it removes what it finds so a second time.
    """

    shipped: dict[str, Shipped] = msgspec.field(default_factory=dict)
    floors: list[tuple[int, int, int]] = msgspec.field(default_factory=list)
    unreferenced: list[str] = msgspec.field(default_factory=list)
    format: int = 1


def merged(
    floors: Iterable[tuple[int, int, int]], kept: Iterable[int], spans: Iterable[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """Floors as few as say the same: two that follow each other become one, unless a version or a row could tell.

    A version tells if it lies after one and before the end of the other. A row tells if it came after the first began
    and no later than the second, and its file does not know the second: whoever wrote a file of upkeep knew all commits
    up to its last one.

    Args:
        floors: triples as in the ledger.
        kept: the versions that pins keep.
        spans: the first and the last commit of each file of any version that can be read.
    """
    versions, files = list(kept), list(spans)
    found: list[tuple[int, int, int]] = []
    for start, end, least in sorted(floors):
        if found:
            first, until, time = found[-1]
            low, high = min(until, end), max(until, end)
            told = any(low <= version < high for version in versions)
            if not told and not any(begin <= start and first < last < end for begin, last in files):
                found[-1] = (first, high, min(time, least))
                continue
        found.append((start, end, least))
    return found


def _path(table: str) -> str:
    return f"{FOLDER}/{table}.json"


def load(store: Store, table: str) -> Ledger:
    """The ledger of a table; an empty one where nothing was removed yet.

    Raises:
        SinkError: it is damaged, or of another format.
    """
    content = store.read(_path(table))
    if content is None:
        return Ledger()
    try:
        found = msgspec.json.decode(content, type=Ledger)
    except msgspec.DecodeError as error:
        raise SinkError(f"{_path(table)} is damaged ({error}): restore it from a backup of the sink") from None
    if found.format != 1:
        raise SinkError(
            f"{_path(table)} has format {found.format}, this version knows 1: use the version that wrote it"
        )
    return found


def save(store: Store, table: str, ledger: Ledger) -> None:
    """Replace the ledger of a table, durably."""
    store.write(_path(table), msgspec.json.encode(ledger) + b"\n")


def newest_shipped(sink: Sink, table: str, spool: str) -> Shipped | None:
    """The newest segment of a spool among the commits that were removed; None if they brought none.

    Raises:
        SinkError: the ledger is damaged.
        OSError: the sink does not answer.
    """
    return load(Store(sink), table).shipped.get(spool)
