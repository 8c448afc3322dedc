"""The compiled loops of the feature kernel, all in one file: numba's cache notices no change in another.

Every sum runs over one row's window, newest reading first, whatever else is in the arrays: years of a fleet and the
last row of a request give the same bits. Two ways through a window make the same additions in the same order.
``_block`` takes many rows at once, offset by offset, which vectorises, where sampling is even, the history full and no
reading missing; ``_row`` takes one row anywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int16, Int64

HOUR_US = 3_600_000_000.0
DAY_US = 24 * HOUR_US
NEVER = np.iinfo(np.int64).min
BLOCK = 256  # rows: what a block touches stays in the first-level cache
MAD_TO_DEVIATION = 1.4826  # 1 / Φ⁻¹(3/4): a normal sample's median absolute deviation, in standard deviations
LN_2, SQRT_HALF = math.log(2), math.sqrt(0.5)
TAYLOR = tuple(1 / math.factorial(n) for n in range(14, -1, -1))


def fleet(
    low: int,
    high: int,
    last_only: bool,
    offsets: Int64,
    time: Int64,
    values: Float64,
    model: Int64,
    age: Float64,
    error_bounds: Int64,
    error_time: Int64,
    error_code: Int16,
    maint_bounds: Int64,
    maint_time: Int64,
    maint_code: Int16,
    edges: Int64,
    rolling: Int64,
    half_lives: Int64,
    slack: float,
    change: Int64,
    error_windows: Int64,
    sizes: Int64,
    location: Float64,
    scale: Float64,
    location_trust: Float64,
    scale_trust: Float64,
    shift: int,
    X: Float64,
    history_hours: Float64,
) -> None:
    """Features of machines low to high - 1, written to X (features, columns) and history_hours (columns).

    The column of row r is r - shift; with ``last_only`` the column of machine m is m. ``kernel.Plan`` says what the
    arrays from ``edges`` to ``sizes`` hold; the bounds are the first and last + 1 event of each machine. ``kernel``
    compiles this, for one signature.
    """
    per_sensor = 2 * len(rolling) + len(half_lives) + (1 if slack >= 0 else 0) + len(change)
    for m in range(low, high):
        start, stop = offsets[m], offsets[m + 1]
        begin = stop - 1 if last_only else start
        to = m - begin if last_only else -shift
        _telemetry(
            start,
            stop,
            begin,
            to,
            time,
            values,
            edges,
            rolling,
            half_lives,
            slack,
            change,
            sizes[4],
            location[model[m]],
            scale[model[m]],
            location_trust[model[m]],
            scale_trust[model[m]],
            X,
            history_hours,
        )
        f = len(values) * per_sensor + sizes[3]
        if sizes[0]:
            events = slice(error_bounds[0, m], error_bounds[1, m])
            _errors(
                begin, stop, to, time, error_time[events], error_code[events], error_windows, edges[-1], f, sizes, X
            )
            f += sizes[0] * (len(error_windows) + 1)
        events = slice(maint_bounds[0, m], maint_bounds[1, m])
        _maint(begin, stop, to, time, maint_time[events], maint_code[events], f, sizes, X)
        f += sizes[1]
        X[f, begin + to : stop + to] = age[m]
        for other in range(sizes[2]):
            f += 1
            X[f, begin + to : stop + to] = np.nan if model[m] == sizes[2] else 1.0 if model[m] == other else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _telemetry(
    start: int,
    stop: int,
    begin: int,
    to: int,
    time: Int64,
    values: Float64,
    edges: Int64,
    rolling: Int64,
    half_lives: Int64,
    slack: float,
    change: Int64,
    period: int,
    location: Float64,
    scale: Float64,
    location_trust: Float64,
    scale_trust: Float64,
    X: Float64,
    history_hours: Float64,
) -> None:
    """Rows begin to stop - 1 of the machine whose rows are start to stop - 1."""
    sensors, history = len(values), edges[-1]
    per_sensor = 2 * len(rolling) + len(half_lives) + (1 if slack >= 0 else 0) + len(change)
    trend = slack >= 0 or len(half_lives) > 0
    # scratch at constant offsets of one array, which LLVM sees not to overlap
    work, sums = np.empty(4 * BLOCK), np.empty((len(edges), BLOCK))
    counts, clean = np.empty(len(edges), np.int64), np.empty(sensors, np.bool_)
    first, pointers = np.empty((len(edges), BLOCK), np.int64), np.full(len(edges), start)
    even_from = np.empty(BLOCK, np.int64)  # for each row of the block, the row from which time steps are equal
    capacity, table_step = stop - start, -1
    table, ragged = np.empty((len(half_lives), capacity)), np.empty((len(half_lives), capacity))
    ordered, filled = np.empty((sensors, capacity)), np.zeros(sensors, np.int64)
    left, right = start, start  # ``ordered`` holds the readings of rows left to right - 1
    centre, spread = np.empty((sensors, BLOCK)), np.empty((sensors, BLOCK))

    block, checked, even = begin, start, start
    while block < stop:
        # small blocks while the history fills: _block needs it full at the first row
        rows = min(BLOCK if time[block] - time[start] >= history else 24, stop - block)
        for e in range(len(edges)):
            for j in range(rows):
                while time[pointers[e]] <= time[block + j] - edges[e]:
                    pointers[e] += 1
                first[e, j] = pointers[e]
        oldest = first[-1]
        if block == begin:
            left = right = checked = even = oldest[0]
            even_from[0] = even
        for r in range(checked + 1, block + rows):
            if r > even + 1 and time[r] - time[r - 1] != time[r - 1] - time[r - 2]:
                even = r - 1
            if r >= block:
                even_from[r - block] = even
        checked = block + rows - 1
        for j in range(rows):
            history_hours[block + j + to] = min(history, time[block + j] - time[oldest[j]] + period) / HOUR_US

        step = time[checked] - time[checked - 1] if checked > oldest[0] else 0
        full = rows >= 8 and even <= oldest[0] and (block - oldest[0] + 1) * step >= history
        if full and step != table_step:
            table_step = _weights(half_lives, step, history, table)
        for e in range(len(edges)):
            counts[e] = block - first[e, 0] + 1
        rowwise = False
        for s in range(sensors):
            clean[s] = full
            for r in range(oldest[0], block + rows if full else 0):
                clean[s] &= not math.isnan(values[s, r])
            rowwise |= not clean[s]
            if trend and (location_trust[s] > 0 or scale_trust[s] > 0):
                enough = (history + 2 * period - 1) // (2 * period)
                filled[s] = _baseline(
                    block,
                    rows,
                    left,
                    right,
                    oldest,
                    values[s],
                    ordered[s],
                    filled[s],
                    enough,
                    location[s],
                    scale[s],
                    location_trust[s],
                    scale_trust[s],
                    centre[s],
                    spread[s],
                )
            else:
                centre[s, :rows], spread[s, :rows] = location[s], scale[s]
            if clean[s]:
                _block(
                    block,
                    rows,
                    block + to,
                    s * per_sensor,
                    values[s],
                    counts,
                    rolling,
                    table,
                    slack,
                    change,
                    centre[s],
                    spread[s],
                    work,
                    sums,
                    X,
                )
        left, right = oldest[rows - 1], block + rows
        if rowwise:
            for j in range(rows):
                r = block + j
                weights = ragged
                if even_from[j] <= oldest[j] < r:
                    weights = table
                    if time[r] - time[r - 1] != table_step:
                        table_step = _weights(half_lives, time[r] - time[r - 1], history, table)
                else:
                    for h in range(len(half_lives)):
                        for k in range(r - oldest[j] + 1):
                            ragged[h, k] = _decay(time[r] - time[r - k], half_lives[h])
                for s in range(sensors):
                    if not clean[s]:
                        _row(
                            r,
                            r + to,
                            s * per_sensor,
                            values[s],
                            first[:, j],
                            rolling,
                            weights,
                            slack,
                            change,
                            centre[s, j],
                            spread[s, j],
                            sums[:, 0],
                            counts,
                            X,
                        )
        block += rows


@njit(cache=True, nogil=True, error_model="numpy")
def _row(
    r: int,
    column: int,
    f: int,
    value: Float64,
    first: Int64,
    rolling: Int64,
    weights: Float64,
    slack: float,
    change: Int64,
    centre: float,
    spread: float,
    sums: Float64,
    counts: Int64,
    X: Float64,
) -> None:
    """Features f, f + 1, … of one sensor at row r, whatever is missing and however it is sampled."""
    total, count, p = 0.0, 0, r
    for e in range(len(first)):
        while p >= first[e]:
            if not math.isnan(value[p]):
                total += value[p]
                count += 1
            p -= 1
        sums[e], counts[e] = total, count
    for e in rolling:
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
        X[f, column] = (weighted / weight - centre) / spread
        f += 1
    if slack >= 0:
        # CUSUM from 0 at the window's start is the largest sum of deviations - slack over the newest k readings
        total, count, highest, lowest = 0.0, 0, 0.0, 0.0
        for q in range(r, first[-1] - 1, -1):
            if not math.isnan(value[q]):
                total += value[q] - centre
                count += 1
                drift = count * (slack * spread)
                highest = total - drift if total - drift > highest else highest
                lowest = total + drift if total + drift < lowest else lowest
        X[f, column] = np.nan if count == 0 else (highest if highest >= -lowest else lowest) / spread
        f += 1
    for c in range(len(change)):
        half, whole = change[c, 0], change[c, 1]
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
    rolling: Int64,
    weights: Float64,
    slack: float,
    change: Int64,
    centre: Float64,
    spread: Float64,
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
    for e in rolling:
        for j in range(rows):
            work[j], work[BLOCK + j] = 0.0, sums[e, j] / counts[e]
            X[f, column + j] = work[BLOCK + j]
        _add_squares(work, value, block, rows, counts[e])
        for j in range(rows):
            X[f + 1, column + j] = math.sqrt(work[j] / (counts[e] - 1)) if counts[e] > 1 else np.nan
        f += 2
    for h in range(len(weights)):
        work[:rows] = 0.0
        weight = 0.0
        for k in range(counts[-1]):
            weight += weights[h, k]
        _add_weighted(work, value, block, rows, counts[-1], weights[h])
        for j in range(rows):
            X[f, column + j] = (work[j] / weight - centre[j]) / spread[j]
        f += 1
    if slack >= 0:
        for sign in (1.0, -1.0):
            for j in range(rows):
                work[j], work[BLOCK + j] = 0.0, 0.0
                work[2 * BLOCK + j], work[3 * BLOCK + j] = centre[j], slack * spread[j]
            _climb(work, value, block, rows, counts[-1], sign)
            for j in range(rows):
                extreme = sign * work[BLOCK + j] / spread[j]
                if sign > 0 or -extreme > X[f, column + j]:
                    X[f, column + j] = extreme
        f += 1
    for c in range(len(change)):
        half, whole = change[c, 0], change[c, 1]
        for j in range(rows):
            newer, older = sums[half, j] / counts[half], (sums[whole, j] - sums[half, j])
            X[f, column + j] = newer - older / (counts[whole] - counts[half])
        f += 1


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
def _baseline(
    block: int,
    rows: int,
    left: int,
    right: int,
    oldest: Int64,
    value: Float64,
    ordered: Float64,
    filled: int,
    enough: int,
    location: float,
    scale: float,
    location_trust: float,
    scale_trust: float,
    centre: Float64,
    spread: Float64,
) -> int:
    """Each row's own baseline: the frozen one, drawn by its trust towards the window's median and deviation.

    ``ordered`` holds the readings of rows left to right - 1 in order, ``filled`` many; returns how many at the end.
    """
    for j in range(rows):
        while right <= block + j:
            if not math.isnan(value[right]):
                at = _position(ordered, filled, value[right])
                for k in range(filled, at, -1):
                    ordered[k] = ordered[k - 1]
                ordered[at] = value[right]
                filled += 1
            right += 1
        while left < oldest[j]:
            if not math.isnan(value[left]):
                filled -= 1
                for k in range(_position(ordered, filled + 1, value[left]), filled):
                    ordered[k] = ordered[k + 1]
            left += 1
        centre[j], spread[j] = location, scale
        if filled >= enough:
            middle = _median(ordered, filled)
            centre[j] += location_trust * (middle - location)
            if scale_trust > 0:
                spread[j] += scale_trust * (MAD_TO_DEVIATION * _median_distance(ordered, filled, middle) - scale)
    return filled


@njit(cache=True, nogil=True, error_model="numpy")
def _position(ordered: Float64, n: int, value: float) -> int:
    """First of the n ordered values that is not below this one."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _median(ordered: Float64, n: int) -> float:
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


@njit(cache=True, nogil=True, error_model="numpy")
def _median_distance(ordered: Float64, n: int, middle: float) -> float:
    """Median of the distances of n ordered values from their median, walking outwards from it."""
    low, high = n // 2 - 1, n // 2
    previous, distance = 0.0, 0.0
    for _ in range(n // 2 + 1):
        previous = distance
        if low >= 0 and (high >= n or middle - ordered[low] <= ordered[high] - middle):
            distance = middle - ordered[low]
            low -= 1
        else:
            distance = ordered[high] - middle
            high += 1
    return distance if n % 2 else (previous + distance) / 2


@njit(cache=True, nogil=True, error_model="numpy")
def block_baselines(values: Float64, edges: Int64, medians: Float64, deviations: Float64) -> None:
    """Median and robust deviation of the values between each two edges. No value may be NaN, no block empty."""
    for b in range(len(edges) - 1):
        ordered = np.sort(values[edges[b] : edges[b + 1]])
        medians[b] = _median(ordered, len(ordered))
        deviations[b] = MAD_TO_DEVIATION * _median_distance(ordered, len(ordered), medians[b])


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


@njit(cache=True, nogil=True, error_model="numpy")
def _errors(
    begin: int,
    stop: int,
    to: int,
    time: Int64,
    event_time: Int64,
    event_code: Int16,
    windows: Int64,
    history: int,
    f: int,
    sizes: Int64,
    X: Float64,
) -> None:
    """Counts of each error code in each window, and hours since the last one inside the history."""
    codes = sizes[0]
    counts, oldest = np.zeros((codes, len(windows)), np.int64), np.zeros(len(windows), np.int64)
    last, seen = np.full(codes, NEVER), 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            for w in range(len(windows)):
                counts[event_code[seen], w] += 1
            seen += 1
        for w in range(len(windows)):
            while oldest[w] < seen and event_time[oldest[w]] <= time[r] - windows[w]:
                counts[event_code[oldest[w]], w] -= 1
                oldest[w] += 1
        row = f
        for code in range(codes):
            for w in range(len(windows)):
                X[row + w, r + to] = counts[code, w]
            recent = last[code] > time[r] - history
            X[row + len(windows), r + to] = (time[r] - last[code]) / HOUR_US if recent else np.nan
            row += len(windows) + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _maint(
    begin: int,
    stop: int,
    to: int,
    time: Int64,
    event_time: Int64,
    event_code: Int16,
    f: int,
    sizes: Int64,
    X: Float64,
) -> None:
    """Days since the last replacement of each component, however old."""
    components = sizes[1]
    last, seen = np.full(components, NEVER), 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            seen += 1
        for c in range(components):
            X[f + c, r + to] = np.nan if last[c] == NEVER else (time[r] - last[c]) / DAY_US
