"""The compiled loop over shifts: whether a sensor has left its baseline and is still away, how far, and since when.

A shift rises linearly from one of ``steps`` knots of the history to a later one (or still rises) and then stays. Every
such course is fitted to the row's window by least squares. Its evidence is how much better than the baseline it fits,
and all courses are weighed by their evidence, as in a Bayesian changepoint model (Barry & Hartigan 1993, J. Am. Stat.
Assoc. 88). The odds compare them with pulses that ended at some knot and with no shift at all, so that they fall as
soon as the sensor is back.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int64
from closedloop.features.names import SHIFTS
from closedloop.features.structures import Baselines, Part, Readings

HOUR_US = 3_600_000_000.0
UNSHIFTED = 12.0  # prior weight of no shift, where each course weighs 1: shifts fill a few percent of a machine's life
SQRT_HALF, LN_2 = math.sqrt(0.5), math.log(2)


class Courses(NamedTuple):
    """Which courses are weighed, and where their features are written.

    ``edges`` are the ages (µs) of the knots, 0 and the history included. ``weight`` is what one reading counts for:
    below 1, since neighbouring readings repeat each other in part. ``period`` is the sampling period (µs) and ``first``
    the first feature.
    """

    edges: Int64
    weight: float
    period: int
    first: int


@njit(nogil=True, error_model="numpy")
def shifts(part: Part, readings: Readings, courses: Courses, own: Baselines, X: Float64) -> None:
    """Write the features ``SHIFTS`` of each sensor of a part to X (features, columns).

    ``shift_odds``: log-odds that a shift is going on, 0 where it is less likely than not. ``shift_size``, in deviations
    of the baseline, ``shift_hours`` since it began and ``shift_held_hours`` since it stopped rising are means over the
    courses still going on. All are NaN where the window has no reading.
    """
    offsets, knots = readings.offsets, len(courses.edges)
    age = courses.edges / HOUR_US
    sums, previous = np.empty((5, knots)), np.full((3, knots), -1.0)
    fit, work = np.zeros((3, knots, knots)), np.empty((4, max(knots, 5), knots))
    for m in range(part.low, part.high):
        begin = offsets[m + 1] - 1 if part.last_only else offsets[m]
        to = m - begin if part.last_only else -part.shift
        for s in range(len(readings.values)):
            for r in range(begin, offsets[m + 1]):
                centre, spread = own.centre[s, r + to], own.spread[s, r + to]
                reach = _cumulate(r, offsets[m], readings.time, readings.values[s], courses, centre, spread, sums)
                known = True
                for n in range(3):
                    for k in range(knots):
                        known &= sums[n, k] == previous[n, k]
                if not known:  # all rows of even and complete telemetry share one fit
                    previous[:] = sums[:3]
                    _fit(age, sums, fit)
                found = _weigh(reach, age, sums[3], sums[4], fit, courses.weight, work)
                for n in range(len(SHIFTS)):
                    X[courses.first + len(SHIFTS) * s + n, r + to] = found[n]


@njit(nogil=True, error_model="numpy")
def _cumulate(
    r: int, start: int, time: Int64, value: Float64, courses: Courses, centre: float, spread: float, sums: Float64
) -> int:
    """Sum up the readings younger than each edge: count, age, age², deviation, age times deviation.

    Returns:
        How many edges the readings reach over: only the first where there is no reading.
    """
    edges = courses.edges
    count, a, aa, d, ad, k, oldest = 0.0, 0.0, 0.0, 0.0, 0.0, 0, -1
    q = r
    while q >= start and time[r] - time[q] < edges[-1]:
        if not math.isnan(value[q]):
            while time[r] - time[q] >= edges[k]:
                sums[0, k], sums[1, k], sums[2, k], sums[3, k], sums[4, k] = count, a, aa, d, ad
                k += 1
            oldest = time[r] - time[q]
            age, deviation = oldest / HOUR_US, (value[q] - centre) / spread
            count += 1.0
            a += age
            aa += age * age
            d += deviation
            ad += age * deviation
        q -= 1
    while k < len(edges):
        sums[0, k], sums[1, k], sums[2, k], sums[3, k], sums[4, k] = count, a, aa, d, ad
        k += 1
    reach = 1
    while reach < len(edges) and oldest >= 0 and edges[reach] <= oldest + courses.period:
        reach += 1
    return reach


@njit(nogil=True, error_model="numpy")
def _fit(age: Float64, sums: Float64, fit: Float64) -> None:
    """Write what the fit of each course needs of the readings' ages, 0 where no reading lies in the course.

    A course begins at knot i. ``fit[0, i, j]`` is 1 / rise and ``fit[1, i, j]`` 1 / (sum of squares) of a course that
    stopped rising at j and goes on; ``fit[2, i, j]`` is 1 / (number of readings) of a pulse that ended at j.
    """
    for i in range(len(age)):
        for j in range(i):
            n, a, aa = sums[0, i] - sums[0, j], sums[1, i] - sums[1, j], sums[2, i] - sums[2, j]
            rise = age[i] - age[j]
            energy = sums[0, j] + (age[i] * age[i] * n - 2.0 * age[i] * a + aa) / (rise * rise)
            fit[0, i, j] = 1.0 / rise
            fit[1, i, j] = 1.0 / energy if energy > 0.0 else 0.0
            fit[2, i, j] = 1.0 / n if n > 0.0 and j > 0 else 0.0


@njit(nogil=True, error_model="numpy")
def _weigh(
    reach: int, age: Float64, deviation: Float64, moment: Float64, fit: Float64, weight: float, work: Float64
) -> tuple[float, float, float, float]:
    """The four features, from the evidence of all courses over the first ``reach`` knots.

    Sums run over i with all j side by side, which vectorises, and over j in the end.
    """
    if reach < 2:
        return np.nan, np.nan, np.nan, np.nan
    size, gain, over, columns = work[0], work[1], work[2], work[3]
    most, on, since, large, ended = columns[0], columns[1], columns[2], columns[3], columns[4]
    most[:reach] = 0.0
    for i in range(1, reach):
        for j in range(i):
            d, ad = deviation[i] - deviation[j], moment[i] - moment[j]
            fitted = deviation[j] + (age[i] * d - ad) * fit[0, i, j]
            size[i, j] = fitted * fit[1, i, j]
            gain[i, j] = fitted * size[i, j]
            over[i, j] = d * d * fit[2, i, j]
        for j in range(i):
            higher = gain[i, j] if gain[i, j] > over[i, j] else over[i, j]
            most[j] = higher if higher > most[j] else most[j]
    best = 0.0
    for j in range(reach):
        best = max(best, most[j])
    on[:reach], since[:reach], large[:reach], ended[:reach] = 0.0, 0.0, 0.0, 0.0
    for i in range(1, reach):
        _exponentiate(gain[i, :i], best, 0.5 * weight)
        _exponentiate(over[i, 1:i], best, 0.5 * weight)
        for j in range(i):
            on[j] += gain[i, j]
            since[j] += gain[i, j] * age[i]
            large[j] += gain[i, j] * size[i, j]
        for j in range(1, i):
            ended[j] += over[i, j]
    total, hours, held, deviations, against = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(reach):
        total += on[j]
        hours += since[j]
        held += on[j] * age[j]
        deviations += large[j]
        against += ended[j]
    none = most[:1]
    none[0] = 0.0
    _exponentiate(none, best, 0.5 * weight)
    against += UNSHIFTED * (len(age) * (len(age) - 1) // 2) * none[0] + 1e-30  # so that odds end at e^69
    if total == 0.0:
        return 0.0, 0.0, 0.0, 0.0
    odds = _log(total / against) if total > against else 0.0
    return odds, deviations / total, hours / total, held / total


@njit(nogil=True, error_model="numpy")
def _exponentiate(gain: Float64, best: float, weight: float) -> None:
    """exp(weight · (gain - best)) in place, as (1 + x / 1024) ** 1024: plain arithmetic is the same anywhere."""
    for k in range(len(gain)):
        power = max(1.0 + weight * (gain[k] - best) / 1024.0, 0.0)
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        gain[k] = power


@njit(nogil=True, error_model="numpy")
def _log(x: float) -> float:
    """Natural logarithm in plain arithmetic, since the C library's differs in its last bit between processors."""
    fraction, exponent = math.frexp(x)
    if fraction < SQRT_HALF:
        fraction, exponent = 2.0 * fraction, exponent - 1
    z = (fraction - 1.0) / (fraction + 1.0)
    total = 0.0
    for n in range(21, 0, -2):  # 2 · artanh(z), |z| < 0.172
        total = total * (z * z) + 1.0 / n
    return exponent * LN_2 + 2.0 * z * total
