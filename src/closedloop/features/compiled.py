"""The compiled loops over telemetry.

Every sum runs over one row's window, newest reading first, whatever else is in the arrays: years of a fleet and the
last row of a request give the same bits. Two ways through a window make the same additions in the same order.
``_block`` takes many rows at once, offset by offset, which vectorises, where sampling is even, the history full and no
reading missing; ``_row`` takes one row anywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64
from closedloop.features.structures import Baselines, Block, Part, Readings, Scratch, Span, Window

HOUR_US = 3_600_000_000.0
BLOCK = 256  # rows: what a block touches stays in the first-level cache
LN_2, SQRT_HALF = math.log(2), math.sqrt(0.5)
TAYLOR = tuple(1 / math.factorial(n) for n in range(14, -1, -1))


class Plan(NamedTuple):
    """The telemetry families of a spec as the loops read them.

    ``edges``: ascending window lengths whose sums are needed (µs), the history last; ``rolling``: for each rolling
    window its edge; ``half_lives`` (µs); ``change``: for each change the edges of its newer half and of the whole.
    ``slack`` is -1 where there is no CUSUM, ``per_sensor`` the number of features of a sensor.
    """

    edges: Int64
    rolling: Int64
    half_lives: Int64
    slack: float
    change: Int64
    period: int
    per_sensor: int


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
        # small blocks while the history fills: _block needs it full at the first row
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
            clean[s] = full and _complete(values[s, scratch.pointers[-1] : unseen])
            all_clean &= clean[s]
            if clean[s]:
                _block(block, s * plan.per_sensor, values[s], own.centre[s], own.spread[s], plan, scratch, X)
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
                    weights[h, k] = _decay(time[r] - time[r - k], plan.half_lives[h])
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
def _block(
    block: Block, f: int, value: Float64, centre: Float64, spread: Float64, plan: Plan, scratch: Scratch, X: Float64
) -> None:
    """Write what ``_row`` gives, for all rows of a block where all windows are full, even and complete."""
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
def _complete(value: Float64) -> bool:
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


@njit(nogil=True, error_model="numpy")
def _weights(half_lives: Int64, step: int, history: int, table: Float64) -> int:
    """Fill the weights of an evenly sampled window; return its step."""
    for h in range(len(half_lives)):
        for k in range(min(table.shape[1], (history - 1) // step + 1)):
            table[h, k] = _decay(k * step, half_lives[h])
    return step


@njit(nogil=True, error_model="numpy")
def _decay(age: int, half_life: int) -> float:
    """2 ** (-age / half_life) in plain arithmetic, since exp differs in its last bit between CPUs and libraries."""
    x = age / half_life
    whole = math.floor(x)
    y = (0.5 - (x - whole)) * LN_2  # |y| <= 0.35: Taylor's rest is below 1e-17
    power = 0.0
    for coefficient in TAYLOR:
        power = power * y + coefficient
    return math.ldexp(power * SQRT_HALF, -int(whole))
