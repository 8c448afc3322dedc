"""What a sink holds, for a person who keeps it: files, bytes, commits, pins, orders of erasure, owners, a halt."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from closedloop.log import history, orders, pins
from closedloop.log.halt import halted
from closedloop.log.lease import held_until
from closedloop.log.sink import Sink
from closedloop.log.store import Store
from closedloop.log.tables import SCHEMAS


@dataclass(frozen=True)
class TableState:
    """A table as it is now. ``files`` and ``bytes`` are of the newest version, ``all_`` also of older ones.

    ``small_files`` are those that shippers wrote and nobody compacted. ``leased_until`` is when the owner of its upkeep
    must be done, in seconds since 1970, or None.
    """

    version: int
    rows: int
    files: int
    small_files: int
    bytes: int
    all_files: int
    all_bytes: int
    commits: int
    checkpoints: int
    log_bytes: int
    oldest: str | None
    newest: str | None
    leased_until: float | None


def status(sink: Sink) -> dict[str, Any]:
    """The state of a sink as JSON knows it.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink does not answer.
    """
    store = Store(sink)
    return {
        "sink": sink.place,
        "asked": time.time(),
        "halted": halted(sink),
        "tables": {name: asdict(state) for name in SCHEMAS if (state := _state(sink, store, name)) is not None},
        "pins": [
            {"id": pin.id, "kind": pin.kind, "versions": pin.versions, "unreadable": pin.unreadable}
            for pin in pins.find(sink)
        ],
        "erasures": [str(order) for order in orders.find(sink).orders],
    }


def _state(sink: Sink, store: Store, name: str) -> TableState | None:
    opened = sink.open(name)
    if opened is None:
        return None
    found = opened.get_add_actions(flatten=True)
    columns: dict[str, Any] = {field: found.column(field).to_pylist() for field in found.column_names}
    listing = history.listing(store, name)
    everything = store.list(name)
    log = [file for file in everything if file.path.startswith(history.log_of(name))]
    data = [file for file in everything if not file.path.startswith(f"{name}/_")]
    return TableState(
        version=opened.version(),
        rows=sum(columns["num_records"]),
        files=len(columns["path"]),
        small_files=sum(history.arrivals(path) is None for path in columns["path"]),
        bytes=sum(columns["size_bytes"]),
        all_files=len(data),
        all_bytes=sum(file.size for file in data),
        commits=len(listing.commits),
        checkpoints=len(listing.checkpoints),
        log_bytes=sum(file.size for file in log),
        oldest=_text(min, columns.get("min.received", [])),
        newest=_text(max, columns.get("max.received", [])),
        leased_until=held_until(opened),
    )


def _text(choose: Any, times: list[datetime | None]) -> str | None:
    known = [time for time in times if time is not None]
    return choose(known).isoformat() if known else None
