"""The compiled loops over medians: each row's own baseline, and the window medians that its trust is learned from."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int64
from closedloop.features.structures import Baselines, Part, Readings

MAD_TO_DEVIATION = 1.4826  # 1 / Φ⁻¹(3/4): a normal sample's median absolute deviation, in standard deviations


class Frozen(NamedTuple):
    """The bundle's baselines, each (models + 1, sensors): see :class:`~closedloop.features.baseline.Constants`.

    A window of ``history`` (µs) counts if it holds ``enough`` readings.
    """

    location: Float64
    scale: Float64
    location_trust: Float64
    scale_trust: Float64
    history: int
    enough: int


@njit(nogil=True, error_model="numpy")
def baselines(part: Part, readings: Readings, model: Int64, frozen: Frozen, own: Baselines) -> None:
    """Write the baseline of each sensor at each row of a part to ``own``.

    It is the frozen one of the machine's model, drawn by its trust towards the median and the deviation of the row's
    window, if that holds enough readings. ``model`` is that of each machine of the part.
    """
    offsets, values = readings.offsets, readings.values
    for m in range(part.low, part.high):
        start, stop = offsets[m], offsets[m + 1]
        begin = stop - 1 if part.last_only else start
        to = m - begin if part.last_only else -part.shift
        ordered, own_model = np.empty(stop - start), model[m - part.low]
        for s in range(len(values)):
            usual, width = frozen.location[own_model, s], frozen.scale[own_model, s]
            own.centre[s, begin + to : stop + to], own.spread[s, begin + to : stop + to] = usual, width
            trust, width_trust = frozen.location_trust[own_model, s], frozen.scale_trust[own_model, s]
            if trust > 0 or width_trust > 0:
                # ordered holds the readings of rows left to right - 1, filled many
                left, right, filled = start, start, 0
                for r in range(begin, stop):
                    while readings.time[left] <= readings.time[r] - frozen.history:
                        filled -= _remove(ordered, filled, values[s, left]) if left < right else 0
                        left += 1
                    right = max(left, right)
                    while right <= r:
                        filled += _insert(ordered, filled, values[s, right])
                        right += 1
                    if filled >= frozen.enough:
                        middle = _median(ordered, filled)
                        own.centre[s, r + to] += trust * (middle - usual)
                        if width_trust > 0:
                            deviation = MAD_TO_DEVIATION * _median_distance(ordered, filled, middle)
                            own.spread[s, r + to] += width_trust * (deviation - width)


@njit(nogil=True, error_model="numpy")
def _insert(ordered: Float64, n: int, value: float) -> int:
    """Insert a value into n ordered ones unless it is NaN; return how many were inserted."""
    if math.isnan(value):
        return 0
    at = _position(ordered, n, value)
    for k in range(n, at, -1):
        ordered[k] = ordered[k - 1]
    ordered[at] = value
    return 1


@njit(nogil=True, error_model="numpy")
def _remove(ordered: Float64, n: int, value: float) -> int:
    """Take a value out of n ordered ones unless it is NaN; return how many were taken."""
    if math.isnan(value):
        return 0
    for k in range(_position(ordered, n, value), n - 1):
        ordered[k] = ordered[k + 1]
    return 1


@njit(nogil=True, error_model="numpy")
def _position(ordered: Float64, n: int, value: float) -> int:
    """Position of the first of n ordered values that is not below this one."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, error_model="numpy")
def _median(ordered: Float64, n: int) -> float:
    """Median of n ordered values."""
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


@njit(nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")  # it calls nothing in another file
def block_baselines(values: Float64, edges: Int64, medians: Float64, deviations: Float64) -> None:
    """Median and robust deviation of the values between each two edges. No value may be NaN, no block empty."""
    for b in range(len(edges) - 1):
        ordered = np.sort(values[edges[b] : edges[b + 1]])
        medians[b] = _median(ordered, len(ordered))
        deviations[b] = MAD_TO_DEVIATION * _median_distance(ordered, len(ordered), medians[b])
