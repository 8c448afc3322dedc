"""The union of overlapping slices of one table: of rows with one key the latest, and apart the values that lost."""

from __future__ import annotations

import numpy as np

from closedloop.data.schema import Float64, Int64

_FOLD_ROWS = 1 << 21  # rows that wait before repetitions are dropped, so that memory is that of the distinct rows


class Union:
    """Rows as int64 columns: the first ``keys`` of them are the key, the others the values, as bits where not whole.

    ``width`` is the number of columns. Each row has a rank; of rows with one key that of the highest rank wins.
    """

    def __init__(self, keys: int, width: int) -> None:
        self._keys = keys
        self._rows = np.empty((width + 1, 0), np.int64)  # the last is the rank
        self._waiting: list[Int64] = []

    def add(self, columns: list[Int64], rank: Int64) -> None:
        """Add rows, one of each column."""
        self._waiting.append(np.array([*columns, rank], np.int64))
        if sum(rows.shape[1] for rows in self._waiting) > _FOLD_ROWS:
            self._fold()

    def result(self) -> tuple[Int64, Int64]:
        """The winning rows by key, and the distinct rows that lost with other values, both of shape (columns, rows)."""
        self._fold()
        rows = self._rows
        rows = rows[:, np.lexsort((rows[-1], *rows[: self._keys][::-1]))]
        last = _changes(rows[: self._keys])
        return rows[:-1, last], rows[:-1, ~last]

    def _fold(self) -> None:
        """Keep each distinct row once, with its highest rank."""
        rows = np.concatenate([self._rows, *self._waiting], axis=1)
        self._waiting = []
        rows = rows[:, np.lexsort((rows[-1], *rows[:-1][::-1]))]
        self._rows = rows[:, _changes(rows[:-1])]


def _changes(columns: Int64) -> np.ndarray:
    """Which rows are the last before another one, of sorted columns."""
    last = np.ones(columns.shape[1], bool)
    last[:-1] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
    return last


def to_bits(values: Float64) -> Int64:
    """Floats as whole numbers that are equal where they are: -0.0 is 0.0, and every NaN the same."""
    return np.where(np.isnan(values), np.nan, values + 0.0).view(np.int64)


def from_bits(bits: Int64) -> Float64:
    """The inverse of :func:`to_bits`."""
    return np.ascontiguousarray(bits).view(np.float64)
