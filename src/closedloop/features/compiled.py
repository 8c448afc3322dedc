"""The compiled loops over telemetry.

Every sum runs over one row's window, newest reading first, whatever else is in the arrays: years of a fleet and the
last row of a request give the same bits. Two ways through a window make the same additions in the same order.
``blocks`` takes many rows at once, offset by offset, which vectorises, where sampling is even, the history full and no
reading missing; ``_row`` takes one row anywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64
from closedloop.features.blocks import BLOCK, block_features, complete
from closedloop.features.structures import Baselines, Block, Part, Plan, Readings, Scratch, Span, Window

HOUR_US = 3_600_000_000.0
LN_2, SQRT_HALF = math.log(2), math.sqrt(0.5)
TAYLOR = tuple(1 / math.factorial(n) for n in range(14, -1, -1))


@njit(nogil=True, error_model="numpy")
def telemetry(part: Part, readings: Readings, plan: Plan, own: Baselines, X: Float64, history_hours: Float64) -> None:
    """Write the telemetry features of a part to X (features, columns), and ``history_hours`` (columns)."""
    offsets = readings.offsets
    for m in range(part.low, part.high):
        begin = offsets[m + 1] - 1 if part.last_only else offsets[m]
        to = m - begin if part.last_only else -part.shift
        span = Span(offsets[m], offsets[m + 1], begin, to)
        _machine(span, readings.time, readings.values, plan, own, X, history_hours)


@njit(nogil=True, error_model="numpy")
def _machine(
    span: Span, time: Int64, values: Float64, plan: Plan, own: Baselines, X: Float64, history_hours: Float64
) -> None:
    """Write the features of one machine, block by block."""
    scratch, history = _scratch(span, time, plan), plan.edges[-1]
    clean = np.empty(len(values), np.bool_)
    even = scratch.pointers[0]
    unseen, table_step, row = even + 1, -1, span.begin
    while row < span.stop:
        # small blocks while the history fills: blocks need it full at the first row
        rows = min(BLOCK if time[row] - time[span.start] >= history else 24, span.stop - row)
        block = Block(row, rows, row + span.to)
        even = _find_even(block, unseen, even, time, scratch.even_from)
        unseen = row + rows
        step = time[unseen - 1] - time[unseen - 2] if unseen - 1 > even else history
        full = rows >= 8 and row - even >= (history - 1) // step
        if full:
            if step != table_step:
                table_step = _weights(plan.half_lives, step, history, scratch.table)
            _even_windows(block, step, plan, scratch, history_hours)
        else:
            _any_windows(block, time, plan, scratch, history_hours)
        all_clean = True
        for s in range(len(values)):
            clean[s] = full and complete(values[s, scratch.pointers[-1] : unseen])
            all_clean &= clean[s]
            if clean[s]:
                block_features(block, s * plan.per_sensor, values[s], own.centre[s], own.spread[s], plan, scratch, X)
        if full and not all_clean:
            for e in range(len(plan.edges)):
                for j in range(rows):
                    scratch.first[e, j] = scratch.pointers[e] + j
        if not all_clean:
            table_step = _rows(block, clean, table_step, time, values, plan, own, scratch, X)
        row += rows


@njit(nogil=True, error_model="numpy")
def _scratch(span: Span, time: Int64, plan: Plan) -> Scratch:
    """Memory for one machine; the pointers are the first row of the history of row ``begin``."""
    oldest, edges = span.start, len(plan.edges)
    while time[oldest] <= time[span.begin] - plan.edges[-1]:
        oldest += 1
    weights = (len(plan.half_lives), span.stop - span.start)
    return Scratch(
        np.empty(4 * BLOCK),
        np.empty((edges, BLOCK)),
        np.empty(edges, np.int64),
        np.full(edges, oldest),
        np.empty((edges, BLOCK), np.int64),
        np.full(BLOCK, oldest),
        np.empty(weights),
        np.empty(weights),
    )


@njit(nogil=True, error_model="numpy")
def _find_even(block: Block, unseen: int, even: int, time: Int64, even_from: Int64) -> int:
    """Look at the steps from row ``unseen`` to the block's end; return the row from which they are equal."""
    for r in range(unseen, block.row + block.rows):
        if r > even + 1 and time[r] - time[r - 1] != time[r - 1] - time[r - 2]:
            even = r - 1
        if r >= block.row:
            even_from[r - block.row] = even
    return even


@njit(nogil=True, error_model="numpy")
def _even_windows(block: Block, step: int, plan: Plan, scratch: Scratch, history_hours: Float64) -> None:
    """Find the windows of the block's first row where all steps are equal; the other rows' move along."""
    for e in range(len(plan.edges)):
        scratch.counts[e] = (plan.edges[e] - 1) // step + 1
        scratch.pointers[e] = block.row - scratch.counts[e] + 1
    hours = min(plan.edges[-1], (scratch.counts[-1] - 1) * step + plan.period) / HOUR_US
    history_hours[block.column : block.column + block.rows] = hours


@njit(nogil=True, error_model="numpy")
def _any_windows(block: Block, time: Int64, plan: Plan, scratch: Scratch, history_hours: Float64) -> None:
    """Find the windows of each row, whatever the steps."""
    first, pointers = scratch.first, scratch.pointers
    for e in range(len(plan.edges)):
        for j in range(block.rows):
            while time[pointers[e]] <= time[block.row + j] - plan.edges[e]:
                pointers[e] += 1
            first[e, j] = pointers[e]
    for j in range(block.rows):
        held = time[block.row + j] - time[first[-1, j]] + plan.period
        history_hours[block.column + j] = min(plan.edges[-1], held) / HOUR_US


@njit(nogil=True, error_model="numpy")
def _rows(
    block: Block,
    clean: NDArray[np.bool_],
    table_step: int,
    time: Int64,
    values: Float64,
    plan: Plan,
    own: Baselines,
    scratch: Scratch,
    X: Float64,
) -> int:
    """Write the features of the sensors that are not clean, row by row; return the step of ``scratch.table``."""
    for r in range(block.row, block.row + block.rows):
        j, weights = r - block.row, scratch.ragged
        column, oldest = block.column + j, scratch.first[-1, j]
        if scratch.even_from[j] <= oldest < r:
            weights = scratch.table
            if time[r] - time[r - 1] != table_step:
                table_step = _weights(plan.half_lives, time[r] - time[r - 1], plan.edges[-1], weights)
        else:
            for h in range(len(plan.half_lives)):
                for k in range(r - oldest + 1):
                    weights[h, k] = decay(time[r] - time[r - k], plan.half_lives[h])
        for s in range(len(values)):
            if not clean[s]:
                based = own.centre.size > 0
                centre = own.centre[s, column] if based else np.nan
                spread = own.spread[s, column] if based else np.nan
                window = Window(r, column, values[s], scratch.first[:, j], weights, centre, spread)
                _row(window, s * plan.per_sensor, plan, scratch, X)
    return table_step


@njit(nogil=True, error_model="numpy")
def _row(window: Window, f: int, plan: Plan, scratch: Scratch, X: Float64) -> None:
    """Write features f, f + 1, … of one sensor at one row, whatever is missing and however it is sampled."""
    sums, counts, column = scratch.sums, scratch.counts, window.column
    f = _row_means(window, f, plan, scratch, X)
    for h in range(len(window.weights)):
        weighted, weight = 0.0, 0.0
        for k in range(window.row - window.first[-1] + 1):
            if not math.isnan(window.value[window.row - k]):
                weighted += window.weights[h, k] * window.value[window.row - k]
                weight += window.weights[h, k]
        X[f, column] = (weighted / weight - window.centre) / window.spread if weight > 0 else np.nan
        f += 1
    if plan.slack >= 0:
        X[f, column] = _row_cusum(window, plan.slack)
        f += 1
    for c in range(len(plan.change)):
        half, whole = plan.change[c, 0], plan.change[c, 1]
        older = (sums[whole, 0] - sums[half, 0]) / (counts[whole] - counts[half])
        X[f, column] = sums[half, 0] / counts[half] - older
        f += 1


@njit(nogil=True, error_model="numpy")
def _row_means(window: Window, f: int, plan: Plan, scratch: Scratch, X: Float64) -> int:
    """Sum up each window, and write its mean and deviation; return the next feature."""
    value, first, column = window.value, window.first, window.column
    total, count, p = 0.0, 0, window.row
    for e in range(len(first)):
        while p >= first[e]:
            if not math.isnan(value[p]):
                total += value[p]
                count += 1
            p -= 1
        scratch.sums[e, 0], scratch.counts[e] = total, count
    for e in plan.rolling:
        count = scratch.counts[e]
        mean, squares = scratch.sums[e, 0] / count, 0.0  # 0 / 0 is NaN: no reading
        for q in range(window.row, first[e] - 1, -1):
            if not math.isnan(value[q]):
                squares += (value[q] - mean) * (value[q] - mean)
        X[f, column] = mean
        X[f + 1, column] = math.sqrt(squares / (count - 1)) if count > 1 else np.nan
        f += 2
    return f


@njit(nogil=True, error_model="numpy")
def _row_cusum(window: Window, slack: float) -> float:
    """CUSUM from 0 at the window's start: the largest sum of deviations - slack over the newest k readings."""
    total, count, highest, lowest = 0.0, 0, 0.0, 0.0
    for q in range(window.row, window.first[-1] - 1, -1):
        if not math.isnan(window.value[q]):
            total += window.value[q] - window.centre
            count += 1
            drift = count * (slack * window.spread)
            highest = total - drift if total - drift > highest else highest
            lowest = total + drift if total + drift < lowest else lowest
    return np.nan if count == 0 else (highest if highest >= -lowest else lowest) / window.spread


@njit(nogil=True, error_model="numpy")
def _weights(half_lives: Int64, step: int, history: int, table: Float64) -> int:
    """Fill the weights of an evenly sampled window; return its step."""
    for h in range(len(half_lives)):
        for k in range(min(table.shape[1], (history - 1) // step + 1)):
            table[h, k] = decay(k * step, half_lives[h])
    return step


@njit(nogil=True, error_model="numpy")
def decay(age: int, half_life: int) -> float:
    """2 ** (-age / half_life) in plain arithmetic, since exp differs in its last bit between CPUs and libraries."""
    x = age / half_life
    whole = math.floor(x)
    y = (0.5 - (x - whole)) * LN_2  # |y| <= 0.35: Taylor's rest is below 1e-17
    power = 0.0
    for coefficient in TAYLOR:
        power = power * y + coefficient
    return math.ldexp(power * SQRT_HALF, -int(whole))
