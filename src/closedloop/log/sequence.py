"""The order of all records of a log, whatever the clocks of the replicas said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from closedloop.data.schema import Int64
from closedloop.log.files import ARRIVAL, BOUNDED, Files
from closedloop.log.history import Bounds

REPLAYED, ERASED = -1, -2  # instead of a rank
_TOLERANCE_US = 60_000_000  # clocks that are kept in step differ by less
_COLUMNS = ["spool", "segment", "index", "request_id", "body_sha256", "caller", "received", ARRIVAL, BOUNDED]
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ranks:
    """The rank of each record in the order of all; ``REPLAYED`` or ``ERASED`` for one that does not count."""

    rank: Int64
    replayed: int
    erased: int
    impossible: int


class Records:
    """Who each record is and when it came, in the order in which files hold them.

    Args:
        callers: of whom no record counts.
    """

    def __init__(self, callers: Iterable[str]) -> None:
        self._callers = pa.array(sorted(callers), pa.string())
        self._numbers: list[list[Int64]] = []  # segment, index, received, arrival, bounded time
        self._spools: list[pa.Array] = []
        self._once: list[pa.Array] = []
        self._erased: list[np.ndarray] = []
        self.impossible = 0

    def add(self, table: str, files: Files) -> None:
        """Add the records of a table."""
        for batch in files.batches(_COLUMNS):
            received, arrival = _whole(batch, "received"), _whole(batch, ARRIVAL)
            bound = _bounds(files.bounds, arrival)
            self.impossible += int((received - _TOLERANCE_US > bound).sum())
            known = _whole(batch.set_column(8, BOUNDED, pc.coalesce(batch[BOUNDED], batch["received"])), BOUNDED)
            self._numbers.append([_whole(batch, "segment"), _whole(batch, "index"), arrival, np.minimum(known, bound)])
            self._spools.append(batch["spool"])
            once = pc.binary_join_element_wise(table, batch["request_id"], batch["body_sha256"], "\n")
            self._once.append(once)
            self._erased.append(pc.is_in(batch["caller"], self._callers).to_numpy(zero_copy_only=False))

    def columns(self) -> tuple[Int64, Int64, Int64, Int64, Int64, Int64, np.ndarray]:
        """Spool, segment, index, arrival, time, identity (equal for the same request), and whether it was erased."""
        if not self._numbers:
            none = np.empty(0, np.int64)
            return none, none, none, none, none, none, np.empty(0, bool)
        segment, index, arrival, time = (np.concatenate(parts) for parts in zip(*self._numbers, strict=True))
        return (
            _codes(self._spools),
            segment,
            index,
            arrival,
            time,
            _codes(self._once),
            np.concatenate(self._erased),
        )


def rank(records: Records) -> Ranks:
    """The order of all records."""
    spool, segment, index, arrival, time, once, erased = records.columns()
    order = np.lexsort((index, segment, spool))
    time = time[order]
    starts = [0, *(np.flatnonzero(np.diff(spool[order])) + 1).tolist(), len(order)]
    for start, stop in pairwise(starts):
        time[start:stop] = np.maximum.accumulate(time[start:stop])
    spool, segment, index, arrival = spool[order], segment[order], index[order], arrival[order]
    final = np.lexsort((index, segment, spool, arrival, time))
    order = order[final]  # positions of the records, from the first to the last
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    again = np.ones(len(order), bool)
    ordered = order[~erased[order]]
    again[ordered[np.unique(once[ordered], return_index=True)[1]]] = False
    again &= ~erased
    ranks[again], ranks[erased] = REPLAYED, ERASED
    return Ranks(ranks, int(again.sum()), int(erased.sum()), records.impossible)


def _whole(batch: pa.RecordBatch, name: str) -> Int64:
    return batch[name].cast(pa.int64()).to_numpy(zero_copy_only=False)


def _bounds(bounds: Bounds, arrival: Int64) -> Int64:
    """The bound of each row by its arrival; the largest number where there is none."""
    times = np.array([*bounds.times, _NONE], np.int64)
    return times[np.searchsorted(np.array(bounds.versions, np.int64), arrival)]


def _codes(parts: list[pa.Array]) -> Int64:
    """Equal numbers for equal texts."""
    encoded = pa.chunked_array(parts).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
