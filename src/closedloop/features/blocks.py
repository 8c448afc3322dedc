"""Telemetry features of many rows at once, where all windows are full, evenly sampled and complete.

The window offsets are in the outer loop and the rows in the inner one, which vectorises. Each row still sums newest
reading first, as :mod:`~closedloop.features.compiled` does row by row, and so gets the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from closedloop.data.schema import Float64
from closedloop.features.structures import Block, Plan, Scratch

BLOCK = 256  # rows: what a block touches stays in the first-level cache


@njit(nogil=True, error_model="numpy")
def block_features(
    block: Block, f: int, value: Float64, centre: Float64, spread: Float64, plan: Plan, scratch: Scratch, X: Float64
) -> None:
    """Write features f, f + 1, … of one sensor, for all rows of a block."""
    rows, column, work, sums, counts = block.rows, block.column, scratch.work, scratch.sums, scratch.counts
    f = _block_means(block, f, value, plan, scratch, X)
    for h in range(len(plan.half_lives)):
        work[:rows] = 0.0
        weight = 0.0
        for k in range(counts[-1]):
            weight += scratch.table[h, k]
        _add_weighted(work, value, block.row, rows, counts[-1], scratch.table[h])
        for j in range(rows):
            X[f, column + j] = (work[j] / weight - centre[column + j]) / spread[column + j]
        f += 1
    if plan.slack >= 0:
        for sign in (1.0, -1.0):
            for j in range(rows):
                work[j], work[BLOCK + j] = 0.0, 0.0
                work[2 * BLOCK + j], work[3 * BLOCK + j] = centre[column + j], plan.slack * spread[column + j]
            _climb(work, value, block.row, rows, counts[-1], sign)
            for j in range(rows):
                extreme = sign * work[BLOCK + j] / spread[column + j]
                if sign > 0 or -extreme > X[f, column + j]:
                    X[f, column + j] = extreme
        f += 1
    for c in range(len(plan.change)):
        half, whole = plan.change[c, 0], plan.change[c, 1]
        for j in range(rows):
            newer, older = sums[half, j] / counts[half], (sums[whole, j] - sums[half, j])
            X[f, column + j] = newer - older / (counts[whole] - counts[half])
        f += 1


@njit(nogil=True, error_model="numpy")
def _block_means(block: Block, f: int, value: Float64, plan: Plan, scratch: Scratch, X: Float64) -> int:
    """Sum up each window, and write its mean and deviation; return the next feature."""
    rows, column, work, sums, counts = block.rows, block.column, scratch.work, scratch.sums, scratch.counts
    work[:rows] = 0.0
    k = 0
    for e in range(len(counts)):
        _add(work, value, block.row, rows, k, counts[e])
        k = counts[e]
        for j in range(rows):
            sums[e, j] = work[j]
    for e in plan.rolling:
        _divide(sums[e, :rows], counts[e], work[BLOCK:])
        X[f, column : column + rows] = work[BLOCK : BLOCK + rows]
        work[:rows] = 0.0
        _add_squares(work, value, block.row, rows, counts[e])
        if counts[e] > 1:
            _divide(work[:rows], counts[e] - 1, work[BLOCK:])
            _roots(work[BLOCK : BLOCK + rows], X[f + 1, column : column + rows])
        else:
            X[f + 1, column : column + rows] = np.nan
        f += 2
    return f


@njit(nogil=True, error_model="numpy")
def complete(value: Float64) -> bool:
    """Whether no reading is missing. Counting all of them vectorises, stopping at the first does not."""
    missing = 0
    for reading in value:
        missing += math.isnan(reading)
    return missing == 0


@njit(nogil=True, error_model="numpy")
def _divide(values: Float64, count: int, out: Float64) -> None:
    """Write values / count to out. It is fast where the two do not overlap."""
    for j in range(len(values)):
        out[j] = values[j] / count


@njit(nogil=True, error_model="numpy")
def _roots(values: Float64, out: Float64) -> None:
    """Write the square roots of the values to out."""
    for j in range(len(values)):
        out[j] = math.sqrt(values[j])


@njit(nogil=True, error_model="numpy")
def _add(work: Float64, value: Float64, block: int, rows: int, low: int, high: int) -> None:
    """Add the readings low to high - 1 rows back. Four offsets at once save three loads and stores of the sum."""
    while low + 4 <= high:
        back = value[block - low - 3 : block - low + rows]
        for j in range(rows):
            work[j] = work[j] + back[j + 3] + back[j + 2] + back[j + 1] + back[j]
        low += 4
    for k in range(low, high):
        back = value[block - k : block - k + rows]
        for j in range(rows):
            work[j] += back[j]


@njit(nogil=True, error_model="numpy")
def _add_squares(work: Float64, value: Float64, block: int, rows: int, high: int) -> None:
    """Add the squared distances of the newest readings from ``work[BLOCK:]``."""
    low = 0
    while low + 4 <= high:
        back = value[block - low - 3 : block - low + rows]
        for j in range(rows):
            mean = work[BLOCK + j]
            d, c, b, a = back[j + 3] - mean, back[j + 2] - mean, back[j + 1] - mean, back[j] - mean
            work[j] = work[j] + d * d + c * c + b * b + a * a
        low += 4
    for k in range(low, high):
        back = value[block - k : block - k + rows]
        for j in range(rows):
            work[j] += (back[j] - work[BLOCK + j]) * (back[j] - work[BLOCK + j])


@njit(nogil=True, error_model="numpy")
def _add_weighted(work: Float64, value: Float64, block: int, rows: int, high: int, weights: Float64) -> None:
    """Add the newest readings times their weights."""
    low = 0
    while low + 4 <= high:
        back = value[block - low - 3 : block - low + rows]
        d, c, b, a = weights[low], weights[low + 1], weights[low + 2], weights[low + 3]
        for j in range(rows):
            work[j] = work[j] + d * back[j + 3] + c * back[j + 2] + b * back[j + 1] + a * back[j]
        low += 4
    for k in range(low, high):
        back = value[block - k : block - k + rows]
        for j in range(rows):
            work[j] += weights[k] * back[j]


@njit(nogil=True, error_model="numpy")
def _climb(work: Float64, value: Float64, block: int, rows: int, high: int, sign: float) -> None:
    """Add to each row's running sum, and keep its highest value less drift.

    ``work`` holds sum, highest value, centre and drift of each row.
    """
    for k in range(high):
        back, count = value[block - k : block - k + rows], k + 1.0
        for j in range(rows):
            total = work[j] + (back[j] - work[2 * BLOCK + j])
            height = sign * total - count * work[3 * BLOCK + j]
            work[j] = total
            work[BLOCK + j] = height if height > work[BLOCK + j] else work[BLOCK + j]
