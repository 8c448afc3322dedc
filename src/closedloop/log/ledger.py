"""What outlives the commits of a table: kept beside it, in ``_upkeep/<table>.json``, before a commit is removed.

A shipper asks here for the newest segment of its spool (:func:`newest_shipped`) when no commit names it any more.
"""

from __future__ import annotations

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
