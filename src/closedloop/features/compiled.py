"""The compiled loops over telemetry, all in one file: numba's cache notices no change in another.

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

from closedloop.data.schema import Float64, Int64
from closedloop.features.roots import two_roots

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


def telemetry(
    low: int,
    high: int,
    last_only: bool,
    offsets: Int64,
    time: Int64,
    values: Float64,
    plan: Plan,
    shift: int,
    centre: Float64,
    spread: Float64,
    X: Float64,
    history_hours: Float64,
) -> None:
    """Telemetry features of machines low to high - 1, written to X (features, columns) and history_hours (columns).

    The column of row r is r - shift; with ``last_only`` the column of machine m is m. ``centre`` and ``spread``
    (sensors, columns) are the rows' own baselines, empty where no family needs them. ``kernel`` compiles this, for
    exactly one signature.
    """
    for m in range(low, high):
        begin = offsets[m + 1] - 1 if last_only else offsets[m]
        to = m - begin if last_only else -shift
        _machine(offsets[m], offsets[m + 1], begin, to, time, values, plan, centre, spread, X, history_hours)


@njit(cache=True, nogil=True, error_model="numpy")
def _machine(
    start: int,
    stop: int,
    begin: int,
    to: int,
    time: Int64,
    values: Float64,
    plan: Plan,
    centre: Float64,
    spread: Float64,
    X: Float64,
    history_hours: Float64,
) -> None:
    """Rows begin to stop - 1 of the machine whose rows are start to stop - 1; the column of row r is r + to."""
    sensors, edges, history, capacity = len(values), len(plan.edges), plan.edges[-1], stop - start
    # scratch of a block at constant offsets of one array, which LLVM sees not to overlap
    work, sums = np.empty(4 * BLOCK), np.empty((edges, BLOCK))
    counts, clean = np.empty(edges, np.int64), np.empty(sensors, np.bool_)
    first = np.empty((edges, BLOCK), np.int64)  # of each window of each row
    oldest = start
    while time[oldest] <= time[begin] - history:
        oldest += 1
    pointers, checked, even = np.full(edges, oldest), oldest, oldest
    even_from = np.full(BLOCK, oldest)  # for each row of the block, the row from which time steps are equal
    table, ragged = np.empty((len(plan.half_lives), capacity)), np.empty((len(plan.half_lives), capacity))
    table_step, block = -1, begin
    while block < stop:
        # small blocks while the history fills: _block needs it full at the first row
        rows = min(BLOCK if time[block] - time[start] >= history else 24, stop - block)
        for r in range(checked + 1, block + rows):
            if r > even + 1 and time[r] - time[r - 1] != time[r - 1] - time[r - 2]:
                even = r - 1
            if r >= block:
                even_from[r - block] = even
        checked = block + rows - 1
        step = time[checked] - time[checked - 1] if checked > even else history
        full = rows >= 8 and block - even >= (history - 1) // step
        if full:
            if step != table_step:
                table_step = _weights(plan.half_lives, step, history, table)
            for e in range(edges):
                counts[e] = (plan.edges[e] - 1) // step + 1
                pointers[e] = block - counts[e] + 1
            hours = min(history, (counts[-1] - 1) * step + plan.period) / HOUR_US
            history_hours[block + to : block + rows + to] = hours
        else:
            for e in range(edges):
                for j in range(rows):
                    while time[pointers[e]] <= time[block + j] - plan.edges[e]:
                        pointers[e] += 1
                    first[e, j] = pointers[e]
            for j in range(rows):
                span = time[block + j] - time[first[-1, j]] + plan.period
                history_hours[block + j + to] = min(history, span) / HOUR_US

        rowwise = False
        for s in range(sensors):
            clean[s] = full and _complete(values[s, pointers[-1] : block + rows])
            rowwise |= not clean[s]
            if clean[s]:
                f = s * plan.per_sensor
                _block(block, rows, block + to, f, values[s], counts, table, centre[s], spread[s], plan, work, sums, X)
        if full and rowwise:
            for e in range(edges):
                for j in range(rows):
                    first[e, j] = pointers[e] + j
        for r in range(block, block + rows if rowwise else 0):
            j, weights = r - block, ragged
            if even_from[j] <= first[-1, j] < r:
                weights = table
                if time[r] - time[r - 1] != table_step:
                    table_step = _weights(plan.half_lives, time[r] - time[r - 1], history, table)
            else:
                for h in range(len(plan.half_lives)):
                    for k in range(r - first[-1, j] + 1):
                        ragged[h, k] = _decay(time[r] - time[r - k], plan.half_lives[h])
            for s in range(sensors):
                if not clean[s]:
                    own = (centre[s, r + to], spread[s, r + to]) if centre.size else (np.nan, np.nan)
                    f = s * plan.per_sensor
                    _row(r, r + to, f, values[s], first[:, j], weights, own, plan, sums[:, 0], counts, X)
        block += rows


@njit(cache=True, nogil=True, error_model="numpy")
def _row(
    r: int,
    column: int,
    f: int,
    value: Float64,
    first: Int64,
    weights: Float64,
    own: tuple[float, float],
    plan: Plan,
    sums: Float64,
    counts: Int64,
    X: Float64,
) -> None:
    """Features f, f + 1, … of one sensor at row r, whatever is missing and however it is sampled."""
    centre, spread = own
    total, count, p = 0.0, 0, r
    for e in range(len(first)):
        while p >= first[e]:
            if not math.isnan(value[p]):
                total += value[p]
                count += 1
            p -= 1
        sums[e], counts[e] = total, count
    for e in plan.rolling:
        mean, squares = sums[e] / counts[e], 0.0  # 0 / 0 is NaN: no reading
        for q in range(r, first[e] - 1, -1):
            if not math.isnan(value[q]):
                squares += (value[q] - mean) * (value[q] - mean)
        X[f, column] = mean
        X[f + 1, column] = math.sqrt(squares / (counts[e] - 1)) if counts[e] > 1 else np.nan
        f += 2
    for h in range(len(weights)):
        weighted, weight = 0.0, 0.0
        for k in range(r - first[-1] + 1):
            if not math.isnan(value[r - k]):
                weighted += weights[h, k] * value[r - k]
                weight += weights[h, k]
        X[f, column] = (weighted / weight - centre) / spread if weight > 0 else np.nan
        f += 1
    if plan.slack >= 0:
        # CUSUM from 0 at the window's start is the largest sum of deviations - slack over the newest k readings
        total, count, highest, lowest = 0.0, 0, 0.0, 0.0
        for q in range(r, first[-1] - 1, -1):
            if not math.isnan(value[q]):
                total += value[q] - centre
                count += 1
                drift = count * (plan.slack * spread)
                highest = total - drift if total - drift > highest else highest
                lowest = total + drift if total + drift < lowest else lowest
        X[f, column] = np.nan if count == 0 else (highest if highest >= -lowest else lowest) / spread
        f += 1
    for c in range(len(plan.change)):
        half, whole = plan.change[c, 0], plan.change[c, 1]
        X[f, column] = sums[half] / counts[half] - (sums[whole] - sums[half]) / (counts[whole] - counts[half])
        f += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _block(
    block: int,
    rows: int,
    column: int,
    f: int,
    value: Float64,
    counts: Int64,
    weights: Float64,
    centre: Float64,
    spread: Float64,
    plan: Plan,
    work: Float64,
    sums: Float64,
    X: Float64,
) -> None:
    """What ``_row`` gives, for rows block to block + rows - 1, where all windows are full, even and complete."""
    work[:rows] = 0.0
    k = 0
    for e in range(len(counts)):
        _add(work, value, block, rows, k, counts[e])
        k = counts[e]
        for j in range(rows):
            sums[e, j] = work[j]
    for e in plan.rolling:
        _divide(sums[e, :rows], counts[e], work[BLOCK:])
        X[f, column : column + rows] = work[BLOCK : BLOCK + rows]
        work[:rows] = 0.0
        _add_squares(work, value, block, rows, counts[e])
        if counts[e] > 1:
            _divide(work[:rows], counts[e] - 1, work[BLOCK:])
            _roots(work[BLOCK : BLOCK + rows], X[f + 1, column : column + rows])
        else:
            X[f + 1, column : column + rows] = np.nan
        f += 2
    for h in range(len(weights)):
        work[:rows] = 0.0
        weight = 0.0
        for k in range(counts[-1]):
            weight += weights[h, k]
        _add_weighted(work, value, block, rows, counts[-1], weights[h])
        for j in range(rows):
            X[f, column + j] = (work[j] / weight - centre[column + j]) / spread[column + j]
        f += 1
    if plan.slack >= 0:
        for sign in (1.0, -1.0):
            for j in range(rows):
                work[j], work[BLOCK + j] = 0.0, 0.0
                work[2 * BLOCK + j], work[3 * BLOCK + j] = centre[column + j], plan.slack * spread[column + j]
            _climb(work, value, block, rows, counts[-1], sign)
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


@njit(cache=True, nogil=True, error_model="numpy")
def _complete(value: Float64) -> bool:
    """Whether no reading is missing; counting them all vectorises, stopping at the first does not."""
    missing = 0
    for reading in value:
        missing += math.isnan(reading)
    return missing == 0


@njit(cache=True, nogil=True, error_model="numpy")
def _divide(values: Float64, count: int, out: Float64) -> None:
    """Write values / count to out, which must not overlap with them to be fast."""
    for j in range(len(values)):
        out[j] = values[j] / count


@njit(cache=True, nogil=True, error_model="numpy")
def _roots(values: Float64, out: Float64) -> None:
    for j in range(0, len(values) - 1, 2):
        out[j], out[j + 1] = two_roots(values[j], values[j + 1])
    if len(values) % 2:
        out[-1] = math.sqrt(values[-1])


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _climb(work: Float64, value: Float64, block: int, rows: int, high: int, sign: float) -> None:
    """Running sum and its highest value less drift; ``work`` holds sum, highest, centre and drift for each row."""
    for k in range(high):
        back, count = value[block - k : block - k + rows], k + 1.0
        for j in range(rows):
            total = work[j] + (back[j] - work[2 * BLOCK + j])
            height = sign * total - count * work[3 * BLOCK + j]
            work[j] = total
            work[BLOCK + j] = height if height > work[BLOCK + j] else work[BLOCK + j]


@njit(cache=True, nogil=True, error_model="numpy")
def _weights(half_lives: Int64, step: int, history: int, table: Float64) -> int:
    """Fill the weights of an evenly sampled window; returns its step."""
    for h in range(len(half_lives)):
        for k in range(min(table.shape[1], (history - 1) // step + 1)):
            table[h, k] = _decay(k * step, half_lives[h])
    return step


@njit(cache=True, nogil=True, error_model="numpy")
def _decay(age: int, half_life: int) -> float:
    """2 ** (-age / half_life) in plain arithmetic, since exp differs in its last bit between CPUs and libraries."""
    x = age / half_life
    whole = math.floor(x)
    y = (0.5 - (x - whole)) * LN_2  # |y| <= 0.35: Taylor's rest is below 1e-17
    power = 0.0
    for coefficient in TAYLOR:
        power = power * y + coefficient
    return math.ldexp(power * SQRT_HALF, -int(whole))
