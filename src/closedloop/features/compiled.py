"""The compiled loops of the feature kernel. All of them live in this file, since numba's cache looks at no other.

Every sum runs over one row's window, newest reading first, whatever else is in the arrays: a fleet of years and the
last row of a request then give the same bits. Two ways through a window do the same additions in the same order:
``_block`` takes many rows at once, offset by offset, which vectorises, where sampling is even and no reading is
missing; ``_row`` takes one row anywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

HOUR_US = 3_600_000_000.0
DAY_US = 24 * HOUR_US
BLOCK = 256  # rows; the scratch of a block stays in the first-level cache


def fleet(
    low,
    high,
    last_only,
    offsets,
    time,
    values,
    model,
    age,
    error_offsets,
    error_time,
    error_code,
    maint_offsets,
    maint_time,
    maint_code,
    edges,
    rolling,
    half_lives,
    slack,
    change,
    error_windows,
    sizes,
    location,
    scale,
    trust,
    shift,
    X,
    history_hours,
):
    """Features of machines low to high - 1, written to X (features, columns) and history_hours (columns).

    The column of row r is r - shift; with ``last_only`` the column of machine m is m. See kernel.Plan for the
    arrays from ``edges`` to ``sizes``.
    """
    sensors = values.shape[0]
    per_sensor = 2 * len(rolling) + len(half_lives) + len(change) + (1 if slack >= 0 else 0)
    first_error = sensors * per_sensor + sizes[3]
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
            sizes,
            location[model[m]],
            scale[model[m]],
            trust[model[m]],
            X,
            history_hours,
        )
        f = first_error
        if len(error_windows):
            events = slice(error_offsets[m], error_offsets[m + 1])
            codes = sizes[0]
            _errors(
                begin, stop, to, time, error_time[events], error_code[events], error_windows, edges[-1], codes, f, X
            )
            f += codes * (len(error_windows) + 1)
        events = slice(maint_offsets[m], maint_offsets[m + 1])
        _maint(begin, stop, to, time, maint_time[events], maint_code[events], sizes[1], f, X)
        f += sizes[1]
        X[f, begin + to : stop + to] = age[m]
        known = model[m] < sizes[2]
        for other in range(sizes[2]):
            X[f + 1 + other, begin + to : stop + to] = (1.0 if model[m] == other else 0.0) if known else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _telemetry(
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
    sizes,
    location,
    scale,
    trust,
    X,
    history_hours,
):
    sensors = values.shape[0]
    starts = np.full((len(edges), BLOCK), start)
    sums, counts = np.empty(len(edges)), np.empty(len(edges), np.int64)
    capacity = _longest(time, start, stop, begin, edges[-1])
    decay = np.empty((len(half_lives), capacity))
    period = sizes[4]
    for block in range(begin, stop, BLOCK):
        end = min(block + BLOCK, stop)
        for e in range(len(edges)):
            p = starts[e, BLOCK - 1] if block > begin else start
            for r in range(block, end):
                while time[p] <= time[r] - edges[e]:
                    p += 1
                starts[e, r - block] = p
        for r in range(block, end):
            oldest = starts[-1, r - block]
            history_hours[r + to] = min(edges[-1], time[r] - time[oldest] + period) / HOUR_US
            for h in range(len(half_lives)):
                for k in range(r - oldest + 1):
                    decay[h, k] = _decay(time[r] - time[r - k], half_lives[h])
            for s in range(sensors):
                _row(
                    r,
                    to,
                    s,
                    values[s],
                    starts[:, r - block],
                    rolling,
                    decay,
                    slack,
                    change,
                    location[s],
                    1.0 / scale[s],
                    sums,
                    counts,
                    X,
                )


@njit(cache=True, nogil=True, error_model="numpy")
def _row(r, to, s, value, starts, rolling, decay, slack, change, location, inverse, sums, counts, X):
    """All telemetry features of one sensor at row r."""
    f = s * (2 * len(rolling) + len(decay) + len(change) + (1 if slack >= 0 else 0))
    column = r + to
    total, count, p = 0.0, 0, r
    for e in range(len(starts)):
        while p >= starts[e]:
            if not math.isnan(value[p]):
                total += value[p]
                count += 1
            p -= 1
        sums[e], counts[e] = total, count
    for w in range(len(rolling)):
        e = rolling[w]
        mean = sums[e] / counts[e]  # 0 / 0 is NaN: no reading
        squares = 0.0
        for q in range(r, starts[e] - 1, -1):
            if not math.isnan(value[q]):
                squares += (value[q] - mean) * (value[q] - mean)
        X[f, column] = mean
        X[f + 1, column] = math.sqrt(squares / (counts[e] - 1)) if counts[e] > 1 else np.nan
        f += 2
    for h in range(len(decay)):
        weighted, weights = 0.0, 0.0
        for k in range(r - starts[-1] + 1):
            if not math.isnan(value[r - k]):
                weighted += decay[h, k] * value[r - k]
                weights += decay[h, k]
        X[f, column] = (weighted / weights - location) * inverse
        f += 1
    if slack >= 0:
        up, down, highest, lowest = 0.0, 0.0, 0.0, 0.0
        for q in range(r, starts[-1] - 1, -1):
            if not math.isnan(value[q]):
                z = (value[q] - location) * inverse
                up += z - slack
                down += z + slack
                highest = max(highest, up)
                lowest = min(lowest, down)
        X[f, column] = np.nan if counts[-1] == 0 else (highest if highest >= -lowest else lowest)
        f += 1
    for c in range(len(change)):
        half, full = change[c, 0], change[c, 1]
        newer = sums[half] / counts[half]
        X[f, column] = newer - (sums[full] - sums[half]) / (counts[full] - counts[half])
        f += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _errors(begin, stop, to, time, event_time, event_code, windows, history, codes, f, X):
    """Counts of each error code in each window, and hours since the last one inside the history."""
    counts = np.zeros((codes, len(windows)), np.int64)
    oldest = np.zeros(len(windows), np.int64)
    last = np.full(codes, np.iinfo(np.int64).min)
    seen = 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            counts[event_code[seen]] += 1
            last[event_code[seen]] = event_time[seen]
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
def _maint(begin, stop, to, time, event_time, event_code, components, f, X):
    """Days since the last replacement of each component, however old."""
    never = np.iinfo(np.int64).min
    last = np.full(components, never)
    seen = 0
    for r in range(begin, stop):
        while seen < len(event_time) and event_time[seen] <= time[r]:
            last[event_code[seen]] = event_time[seen]
            seen += 1
        for c in range(components):
            X[f + c, r + to] = (time[r] - last[c]) / DAY_US if last[c] != never else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _longest(time, start, stop, begin, history):
    """Most rows that any window of rows begin to stop - 1 holds."""
    p, longest = start, 0
    for r in range(begin, stop):
        while time[p] <= time[r] - history:
            p += 1
        longest = max(longest, r - p + 1)
    return longest


@njit(cache=True, nogil=True, error_model="numpy")
def _decay(age, half_life):
    """2 ** (-age / half_life) from plain arithmetic, so that every CPU and libm gives the same bits."""
    x = age / half_life
    whole = math.floor(x)
    y = (0.5 - (x - whole)) * 0.6931471805599453
    power = 1.0
    for n in range(14, 0, -1):  # Taylor of exp on |y| <= 0.35: the rest is below 1e-17
        power = 1.0 + power * y / n
    return math.ldexp(power * 0.7071067811865476, -int(whole))
