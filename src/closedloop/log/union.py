"""The union of overlapping slices of one table: of rows with one key the latest, and apart the values that lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int64

_FIRST_ROWS = 1 << 12
_MOST_RESERVED = 1 << 24  # rows reserved from the start; untouched memory costs nothing
_AHEAD = 16  # rows
_FOLD_LOSERS = 1 << 21  # rows that lost and wait before repetitions are dropped


class Union:
    """Rows as int64 columns: the first ``keys`` of them are the key, the others the values, as bits where not whole.

    ``width`` is the number of columns. Each row has a rank; of rows with one key that of the highest rank wins. Rows
    stand in a table that a hash of the key finds, so memory is that of the distinct keys and of what lost.
    ``expected`` is how many rows there may be.
    """

    def __init__(self, keys: int, width: int, expected: int = 0) -> None:
        self._keys = keys
        self.width = width
        self._rows = np.empty((_FIRST_ROWS, width), np.int64)
        self._ranks = np.empty(_FIRST_ROWS, np.int64)
        self._slots = np.full(2 * _FIRST_ROWS, -1, np.int32)
        self._count = 0
        self._lost = np.empty((0, width + 1), np.int64)  # the last is the rank
        self._losers: list[Int64] = []
        self._reserve(min(expected, _MOST_RESERVED))

    def add(self, columns: list[Any], rank: Int64) -> None:
        """Add rows, one of each column."""
        if not len(rank):
            return
        added = np.empty((len(rank), self._rows.shape[1]), np.int64)
        for position, column in enumerate(columns):
            added[:, position] = column
        self._reserve(self._count + len(rank))
        lost = np.empty((len(rank), self._rows.shape[1] + 1), np.int64)
        self._count, losers, _ = _merge(
            self._rows, self._ranks, self._slots, self._count, self._keys, added, np.asarray(rank, np.int64), lost
        )
        if losers:
            self._losers.append(lost[:losers].copy())
            if sum(map(len, self._losers)) > _FOLD_LOSERS:
                self._fold()

    def result(self, machines: Int64 | None = None) -> tuple[Int64, Int64]:
        """The winning rows by key, and the distinct rows that lost with other values, both of shape (columns, rows).

        ``machines`` are the codes that the first column shall have in place of its own.
        """
        self._fold()
        won = np.empty(len(self._lost), bool)
        _equals_winner(self._rows, self._slots, self._keys, self._lost, won)
        rows, lost = self._rows[: self._count], self._lost[~won]
        del self._slots, self._ranks  # free memory for the copy in order
        if machines is not None:
            for part in (rows, lost):
                part[:, 0] = machines[part[:, 0]]
        lost = lost[_order(lost, self._keys, unique=False)]
        winners = np.empty((rows.shape[1], len(rows)), np.int64)
        _turn(rows, _order(rows, self._keys, unique=True), winners)
        return winners, np.ascontiguousarray(lost[:, :-1].T)

    def _reserve(self, most: int) -> None:
        """Reserve memory for so many rows."""
        size = len(self._rows)
        while size < most:
            size *= 2
        if size > len(self._rows):
            for name in ("_rows", "_ranks"):
                old = getattr(self, name)
                new = np.empty((size, *old.shape[1:]), np.int64)
                new[: self._count] = old[: self._count]
                setattr(self, name, new)
                del old
            self._slots = np.full(2 * size, -1, np.int32)
            _rehash(self._rows, self._slots, self._count, self._keys)

    def _fold(self) -> None:
        """Keep each distinct row that lost once, with its highest rank."""
        lost = np.concatenate([self._lost, *self._losers])
        self._losers = []
        lost = lost[np.lexsort((lost[:, -1], *lost[:, :-1].T[::-1]))]
        last = np.ones(len(lost), bool)
        last[:-1] = (lost[1:, :-1] != lost[:-1, :-1]).any(axis=1)
        self._lost = lost[last]


def _order(rows: Int64, keys: int, *, unique: bool) -> Int64:
    """The order of rows by their key; where keys are not unique, then by the rank in their last column."""
    if not len(rows):
        return np.empty(0, np.int64)
    low, high = rows[:, :keys].min(axis=0), rows[:, :keys].max(axis=0)
    spans = [int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)]
    if keys == 2 and spans[0] <= max(len(rows), _FIRST_ROWS) and unique:
        return _by_group(rows, low[0], spans[0])
    packed = np.zeros(len(rows), np.int64)
    if np.prod([float(span) for span in spans]) < 2.0**62:
        for position, span in enumerate(spans):
            packed *= span
            packed += rows[:, position] - low[position]
        if (packed[1:] > packed[:-1]).all():
            return np.arange(len(rows))
        return np.argsort(packed) if unique else np.lexsort((rows[:, -1], packed))
    return np.lexsort((rows[:, -1], *rows[:, :keys].T[::-1]))


@njit(cache=True, nogil=True)
def _by_group(rows, low, groups):  # type: ignore[no-untyped-def]
    """The order of rows by a first key of few values, then by a second one in which each group is often sorted."""
    ends = np.zeros(groups + 1, np.int64)
    for number in range(len(rows)):
        ends[rows[number, 0] - low + 1] += 1
    for group in range(groups):
        ends[group + 1] += ends[group]
    order = np.empty(len(rows), np.int64)
    second = np.empty(len(rows), np.int64)
    at = ends[:-1].copy()
    for number in range(len(rows)):
        group = rows[number, 0] - low
        order[at[group]] = number
        second[at[group]] = rows[number, 1]
        at[group] += 1
    for group in range(groups):
        times = second[ends[group] : ends[group + 1]]
        for position in range(1, len(times)):
            if times[position] < times[position - 1]:
                part = order[ends[group] : ends[group + 1]]
                part[:] = part[np.argsort(times)]
                break
    return order


@njit(cache=True, nogil=True)
def _turn(rows, order, columns):  # type: ignore[no-untyped-def]
    """Write rows in this order as columns: each row is read once."""
    for number in range(len(order)):
        for position in range(rows.shape[1]):
            columns[position, number] = rows[order[number], position]


@njit(cache=True, nogil=True, inline="always")
def _hash(row, keys):  # type: ignore[no-untyped-def]
    """A hash of a key: multiply and fold, as in SplitMix64."""
    value = np.uint64(0x9E3779B97F4A7C15)
    for position in range(keys):
        value = (value ^ np.uint64(row[position])) * np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(29)
    value *= np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def _find(rows, slots, keys, others, number, slot):  # type: ignore[no-untyped-def]
    """The slot of a row's key, from where its hash points: the one that holds it, or the empty one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    while slots[slot] >= 0:
        held = slots[slot]
        same = True
        for position in range(keys):
            if rows[held, position] != others[number, position]:
                same = False
                break
        if same:
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _merge(rows, ranks, slots, count, keys, added, rank, lost):  # type: ignore[no-untyped-def]
    """Add rows to the table; how many are in it, and how many of these or of those before them lost.

    The slots of later rows are loaded ahead, since each is a miss of the cache: this halves the time. Their sum is
    returned too, or else the compiler would leave the loads out.
    """
    losers, width, loaded = 0, added.shape[1], 0
    first = _first_slots(slots, keys, added)
    for number in range(len(added)):
        if number + _AHEAD < len(added):
            loaded += slots[first[number + _AHEAD]]
        slot = _find(rows, slots, keys, added, number, first[number])
        held = slots[slot]
        if held < 0:
            slots[slot] = count
            for position in range(width):
                rows[count, position] = added[number, position]
            ranks[count] = rank[number]
            count += 1
            continue
        same = True
        for position in range(keys, width):
            if rows[held, position] != added[number, position]:
                same = False
                break
        if same:
            ranks[held] = max(ranks[held], rank[number])
        elif rank[number] > ranks[held]:
            lost[losers, :width] = rows[held]
            lost[losers, width] = ranks[held]
            losers += 1
            rows[held] = added[number]
            ranks[held] = rank[number]
        else:
            lost[losers, :width] = added[number]
            lost[losers, width] = rank[number]
            losers += 1
    return count, losers, loaded


@njit(cache=True, nogil=True)
def _first_slots(slots, keys, rows):  # type: ignore[no-untyped-def]
    """Where the search for each row's key begins."""
    mask = np.uint64(len(slots) - 1)
    first = np.empty(len(rows), np.uint64)
    for number in range(len(rows)):
        first[number] = _hash(rows[number], keys) & mask
    return first


@njit(cache=True, nogil=True)
def _rehash(rows, slots, count, keys):  # type: ignore[no-untyped-def]
    first = _first_slots(slots, keys, rows[:count])
    for number in range(count):
        slots[_find(rows, slots, keys, rows, number, first[number])] = number


@njit(cache=True, nogil=True)
def _equals_winner(rows, slots, keys, lost, won):  # type: ignore[no-untyped-def]
    """Which of the rows that lost have the very values that won in the end."""
    first = _first_slots(slots, keys, lost)
    for number in range(len(lost)):
        held = slots[_find(rows, slots, keys, lost, number, first[number])]
        won[number] = True
        for position in range(keys, rows.shape[1]):
            if rows[held, position] != lost[number, position]:
                won[number] = False
                break


def to_bits(values: Float64) -> Int64:
    """Floats as whole numbers that are equal where they are: -0.0 is 0.0, and every NaN the same."""
    return np.where(np.isnan(values), np.nan, values + 0.0).view(np.int64)


def from_bits(bits: Int64) -> Float64:
    """The inverse of :func:`to_bits`."""
    return np.ascontiguousarray(bits).view(np.float64)
