"""Which versions of the tables are pinned: one file ``_pins/<id>.json`` in the sink for each pin.

Whoever pins a version (a proposal, ``main``, a release) puts one; who closes or replaces it removes it. Upkeep keeps
exactly these versions readable, and needs no credential but the sink's.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from closedloop.log.store import Store

FOLDER = "_pins"
# No pin, but a file that releases cannot read whose compaction loses columns that they do not know. Their upkeep then
# stops before it begins; their shippers, which read no pin, go on.
GUARD = "needs-a-newer-release"
_GUARD = {
    "id": GUARD,
    "kind": "guard",
    "why": "a release from before the names of machines would compact the log without them: update it",
}
Kind = Literal["proposal", "main", "release"]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Pin(msgspec.Struct, frozen=True):
    """The versions that someone relies on, by table. ``id`` is for instance ``main``, ``pr-17`` or ``release-v1.4``.

    ``unreadable`` says since which erasure its rows are not all there any more; None while they are.
    """

    id: str
    kind: Kind
    versions: dict[str, int]
    commit: str = ""
    unreadable: str | None = None


def put(sink: Sink, pin: Pin) -> None:
    """Write a pin, in place of the one with its id, and make sure that its versions can be read.

    Raises:
        SinkError: the id is no file name, or a version cannot be read.
        OSError: the sink does not answer.
    """
    if not _ID.fullmatch(pin.id):
        raise SinkError(f"{pin.id!r} is no id of a pin: use letters, digits, and . _ -")
    store = Store(sink)
    store.sync()  # a commit that nobody has synced may be torn, and its version is then unreadable for ever
    before = store.read(_path(pin.id))
    store.write(_path(pin.id), msgspec.json.encode(pin) + b"\n")
    for table, version in pin.versions.items():  # after the write: from then on upkeep leaves the version alone
        try:
            trouble = "it is not there" if sink.open(table, version) is None else None
        except (SinkError, *FAULTS) as error:
            trouble = one_line(error)
        if trouble is not None:
            _restore(store, pin.id, before)
            raise SinkError(f"{table} cannot be pinned at version {version}: {trouble}; pin its newest version")


def _restore(store: Store, name: str, before: bytes | None) -> None:
    if before is None:
        store.delete(_path(name))
    else:
        store.write(_path(name), before)


def remove(sink: Sink, name: str) -> bool:
    """Remove a pin; whether it was there."""
    store = Store(sink)
    there = bool(_ID.fullmatch(name)) and store.read(_path(name)) is not None
    if there:
        store.delete(_path(name))
    return there


def find(sink: Sink) -> list[Pin]:
    """All pins, by id.

    Raises:
        SinkError: one cannot be understood: what it pins is not known, so nothing may be removed.
        OSError: the sink does not answer.
    """
    pins = []
    for path, content in Store(sink).read_json(FOLDER):
        if path == _path(GUARD):
            continue
        try:
            pins.append(msgspec.json.decode(content, type=Pin))
        except msgspec.DecodeError as error:
            raise SinkError(f"{path} is no pin ({error}): repair or remove it; until then nothing is removed") from None
    return pins


def guard(sink: Sink) -> None:
    """Stop the upkeep of releases that would lose what the log now holds, durably.

    Raises:
        OSError: the sink does not answer.
    """
    store = Store(sink)
    if store.read(_path(GUARD)) is None:
        store.write(_path(GUARD), msgspec.json.encode(_GUARD) + b"\n")


def kept(pins: list[Pin], table: str) -> dict[int, list[str]]:
    """The versions of a table that must stay readable, each with the ids of its pins."""
    versions: dict[int, list[str]] = {}
    for pin in pins:
        if pin.unreadable is None and table in pin.versions:
            versions.setdefault(pin.versions[table], []).append(pin.id)
    return versions


def mark_unreadable(sink: Sink, pin: Pin, why: str) -> None:
    """Let a pin say that an erasure took rows out of its versions."""
    Store(sink).write(_path(pin.id), msgspec.json.encode(msgspec.structs.replace(pin, unreadable=why)) + b"\n")


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"
