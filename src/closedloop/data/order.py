"""Rows in order, and numbers in one form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def increases(machine: NDArray[np.int64], time: NDArray[np.int64]) -> bool:
    """Return whether rows are sorted by machine and time, no key twice."""
    same = machine[1:] == machine[:-1]
    return bool(np.all((machine[1:] > machine[:-1]) | (same & (time[1:] > time[:-1]))))


def canonical(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same numbers with equal bits where they are equal: no -0.0, and one kind of NaN."""
    return np.where(np.isnan(column), np.nan, column + 0.0)
