"""Whether a table holds a segment: by the transaction of its spool, and the sha256 that its commit carries."""

from __future__ import annotations

from collections.abc import Callable

from deltalake import DeltaTable

Settled = Callable[[str, int], str | None]  # spool, segment number; None if it does not know

_NEWEST = 4  # commits among which a segment is that was written just now
_LOOK_BACK = 64  # commits in which a segment that was shipped already is looked for, before all are


class ShipError(RuntimeError):
    """A segment was not shipped, and stays. The message is one line."""


def holds(table: DeltaTable, spool: str, number: int, sha256: str, settled: Settled | None = None) -> bool:
    """Whether a table holds a segment. ``settled`` knows those whose commits were removed from the table's history.

    Raises:
        ShipError: it holds another one under the same number, or later ones and not this.
    """
    version = table.transaction_version(spool)
    if version is None or version < number:
        return False
    found = _commit(table, spool, number)
    if found is None and settled is not None:
        found = settled(spool, number)
    where = f"segment {number} of spool {spool}"
    if found is None:
        raise ShipError(f"{where} stays: the sink has later ones of this spool and not this one: is the volume a copy?")
    if found != sha256:
        raise ShipError(f"{where} stays: the sink has another one of this number: is the volume a copy or a backup?")
    return True


def _commit(table: DeltaTable, spool: str, number: int) -> str | None:
    """The sha256 in the commit of a segment; None if there is no such commit."""
    for limit in (_NEWEST, _LOOK_BACK, None):
        for commit in table.history(limit):
            if commit.get("spool") == spool and commit.get("segment") == number:
                return str(commit["sha256"])
    return None
