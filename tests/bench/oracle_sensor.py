"""The oracle's look at one sensor: an exact filter over all that ``simulate.py`` may be showing there.

A hypothesis is the kind of an event, its start and its length, hour by hour; a severity is integrated. The coloured
noise is whitened by its best linear predictor, and each hypothesis' shape with it, so that the likelihood of an hour
needs two sums: of evidence times shape, and of the shape's squares. An event that has ended stays a hypothesis for the
hours in which nothing else may start (and in which the predictor still echoes it), then joins what is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from closedloop.data import simulate as sim

PROFILE = sim.PROFILES["default"]
CLEAR, HORIZON, LEAST_LEAD = sim.CLEAR_HOURS, 24, 2
ONSET, DECOY, ERROR_LEAD = PROFILE.onset_hours, PROFILE.decoy_hours, PROFILE.error_lead_hours
LENGTHS = np.arange(min(ONSET[0], DECOY[0]), max(ONSET[1], DECOY[1]) + 1)  # of wear and decoys, less the first hour
LONGEST = int(LENGTHS[-1])
P_ERROR, P_DECOY_ERROR = PROFILE.error_probability, PROFILE.decoy_error_probability
DRIFT = sim.FAULT_HOURS[2]
DRIFT_LENGTHS = np.arange(DRIFT[0], DRIFT[1] + 1)
SPIKE = sim.FAULT_SEVERITY[0]

PREDICTED_FROM = 72  # readings that predict the next
RING = 160  # starts that are remembered, in hours
FOREVER = 10**6
BEHIND = math.exp(-8)  # a start whose best hypothesis is so unlikely is dropped; truth is, once in e^8 times


def nodes(limits: tuple[float, float], count: int) -> tuple[float, float, int]:
    """First node, step and number of the midpoint rule over a severity."""
    step = (limits[1] - limits[0]) / count
    return limits[0] + step / 2, step, count


WEAR_NODES, DRIFT_NODES = nodes(PROFILE.severity, 8), nodes(sim.FAULT_SEVERITY[2], 4)
SLOPE_EDGES = np.linspace(sim.FAULT_SEVERITY[2][0] / DRIFT[1], sim.FAULT_SEVERITY[2][1] / DRIFT[0], 17)
SLOPES = (SLOPE_EDGES[:-1] + SLOPE_EDGES[1:]) / 2  # of drifts, in deviations an hour
SLOPE_SHARE = np.diff(
    np.clip((SLOPE_EDGES[:, None] * DRIFT_LENGTHS - sim.FAULT_SEVERITY[2][0]) / np.ptp(sim.FAULT_SEVERITY[2]), 0, 1)
    .mean(axis=1)
)  # fmt: skip

# What the filter says of one hour: shares of 1. A failure in this cycle of visits or in the next whose onset has begun:
# inside the horizon, inside it and early enough to act, at all. Then another event that shows, and all but failures.
NOW_SOON, NOW_LATE, NOW, NEXT_SOON, NEXT_LATE, NEXT, OTHER, HEALTHY = range(8)


@dataclass(frozen=True)
class Knowledge:
    """What an oracle may use; ``ramp`` says whether a ramp's length may tell how long the event will last."""

    errors: bool = True
    telemetry: bool = True
    ramp: bool = True
    memory_hours: int = FOREVER


class Rates(NamedTuple):
    """Events that start in an hour: decoys and drifts of one length, and spikes."""

    decoy: float
    drift: float
    spike: float


class Shapes(NamedTuple):
    """Whitened shapes, (lengths, hours since the start), in units of severity, and their summed squares."""

    wear: np.ndarray
    wear_power: np.ndarray
    drift: np.ndarray
    drift_power: np.ndarray


def predictor(knowledge: Knowledge) -> tuple[np.ndarray, float]:
    """Weights of the last readings, newest first, that predict the next one best, and the deviation of what is left."""
    lag = np.arange(PREDICTED_FROM + 1)
    covariance = (lag == 0) + PROFILE.coloured**2 * sim.AR1**lag
    if knowledge.memory_hours < FOREVER:  # offset and load are noise to those who cannot have learned them
        covariance = covariance + PROFILE.offset**2 + PROFILE.load**2 / 2 * np.cos(2 * np.pi / 24 * lag)
    matrix = covariance[np.abs(lag[:-1, None] - lag[None, :-1])]
    weights = np.linalg.solve(matrix, covariance[1:])
    return weights, float(np.sqrt(covariance[0] - weights @ covariance[1:]))


def shapes(sensor: int, knowledge: Knowledge) -> Shapes:
    """The shapes of wear (and decoys) and of a drift as the predictor leaves them over."""
    weights, deviation = predictor(knowledge)
    answer = np.append(1.0, -weights) / deviation
    gain = sim.STEP[sensor] / sim.DEVIATION[sensor]

    def whitened(rows: list[np.ndarray], hours: int) -> np.ndarray:
        return np.array([np.convolve(np.append(row, np.zeros(hours)), answer)[:hours] for row in rows])

    def rise(length: int) -> np.ndarray:
        ramp = PROFILE.ramp * ((length if knowledge.ramp else LENGTHS.mean()) + 1)
        return np.minimum(np.arange(1, length + 2) / max(1.0, ramp), 1.0)

    wear = whitened([gain * rise(length) for length in LENGTHS], LONGEST + 1 + CLEAR)
    drift = whitened([np.arange(1, length + 1) / length for length in DRIFT_LENGTHS], DRIFT[1] + CLEAR)
    return Shapes(wear, np.cumsum(wear**2, axis=1), drift, np.cumsum(drift**2, axis=1))


@njit(nogil=True, error_model="numpy")
def _recent(evidence, shape, power, at, hours, memory):
    """Both sums over the last ``memory`` hours only, for a shape that is ``hours`` old."""
    total = 0.0
    for back in range(memory):
        total += evidence[at - back] * shape[hours - back]
    return total, power[hours] - power[hours - memory]


@njit(nogil=True, error_model="numpy", inline="always")
def _mean(a, b, log_weight, points):
    """``exp(log_weight)`` times the mean over severities v of ``exp(v a - v² b / 2)``."""
    first, step, count = points
    term = math.exp(first * a - first**2 * b / 2 + log_weight)
    ratio = math.exp(step * a - (first * step + step**2 / 2) * b)
    shrink = math.exp(-(step**2) * b)
    total = 0.0
    for _ in range(count):
        total += term
        term *= ratio
        ratio *= shrink
    return total / count


@njit(nogil=True, error_model="numpy", inline="always")
def _slope_mean(a, b, log_weight):
    """The same over the slopes of drifts in either direction; ``a`` and ``b`` belong to a slope of one an hour."""
    total = 0.0
    for node in range(len(SLOPES)):
        slope = SLOPES[node]
        weight = math.exp(slope * abs(a) - slope**2 * b / 2 + log_weight)
        total += SLOPE_SHARE[node] * weight * (1 + math.exp(-2 * slope * abs(a))) / 2
    return total


@njit(nogil=True, error_model="numpy", inline="always")
def _errors_of_failure(failure, length, t, oldest, errors_before, error_rate):
    """Likelihood ratio of the errors from hour ``oldest`` to t: each code announces the failure once, or does not."""
    first, last = failure - min(length, ERROR_LEAD[1]), failure - ERROR_LEAD[0]
    unseen = max(0, last - max(t, first - 1)) + max(0, min(oldest, last + 1) - first)
    low, high = max(first, oldest, 0), min(t, last)
    ratio = 1.0
    for code in range(len(error_rate)):
        count = errors_before[code, high + 1] - errors_before[code, low] if high >= low else 0
        ratio *= 1 - P_ERROR + P_ERROR * (count / error_rate[code] + unseen) / (last - first + 1)
    return ratio


@njit(nogil=True, error_model="numpy", inline="always")
def _errors_of_decoy(start, length, t, oldest, errors_before, error_rate):
    """The same for a decoy, which may show one error of any of the codes."""
    end, codes = start + length, len(error_rate)
    low, high = max(start, oldest, 0), min(t, end)
    announced = float(end - high + max(0, min(oldest, end + 1) - start))
    for code in range(codes):
        if high >= low:
            announced += (errors_before[code, high + 1] - errors_before[code, low]) / error_rate[code] / codes
    return 1 - P_DECOY_ERROR + P_DECOY_ERROR * announced / (length + 1)


# long: one compiled loop over time, whose state is two dozen scalars
@njit(nogil=True, error_model="numpy")
def follow(
    residual, same, failed, begin, weights, deviation, shapes, errors_before, error_rate, visit, prior, rates, memory,
    telemetry, result,
):  # fmt: skip
    """Follow one sensor from hour ``begin`` on and write ``result`` (hours, 8).

    ``residual`` (deviations, less offset and load) is corrected as faults and failures are met; ``same`` marks a
    reading equal to the one before (stuck, or a spike that lasts), ``failed`` a failure of the sensor's component.
    ``errors_before`` (codes, hours + 1) counts the errors that announce it, ``error_rate`` those at random in an hour;
    no codes where errors are not to be used. ``visit`` is each hour's next visit, ``prior`` (hours, 2) what one pair
    (failure, onset) is among those of this cycle and of the next.
    """
    evidence = np.zeros(len(residual))
    born = np.full(RING, -FOREVER)
    wear_base, event_base = np.full(RING, -np.inf), np.full(RING, -np.inf)  # weight of what was free at the start
    wear_sum, drift_sum = np.zeros((RING, len(LENGTHS))), np.zeros((RING, len(DRIFT_LENGTHS)))
    wear_lives, drift_lives = np.zeros(RING, np.bool_), np.zeros(RING, np.bool_)
    free = scale = 0.0  # logarithms: the weight of what shows nothing and may start something; the unit of weights
    event_after = wear_after = begin - 1  # what starts, starts later
    for t in range(begin, len(residual)):
        guess = 0.0
        for back in range(len(weights)):
            guess += weights[back] * residual[t - 1 - back]
        if failed[t] or same[t]:  # no doubt about what it showed
            wear_lives[:], drift_lives[:] = False, False
            free = scale = 0.0
            event_after = t + CLEAR
            if failed[t]:
                residual[max(t - LONGEST, 0) : t + 1] = 0.0
            else:
                residual[t] = guess
                wear_after = t + CLEAR
            result[t, OTHER] = result[t, HEALTHY] = 1.0
            continue
        e = evidence[t] = (residual[t] - guess) / deviation if telemetry else 0.0
        oldest = t - memory + 1  # hour from which errors are seen
        slot = t % RING
        born[slot], wear_sum[slot], drift_sum[slot] = t, 0.0, 0.0
        wear_base[slot] = free if t > wear_after else -np.inf
        event_base[slot] = free if t > event_after else -np.inf
        wear_lives[slot] = t > min(wear_after, event_after)
        drift_lives[slot] = telemetry and t > event_after

        now_soon = now_late = now = next_soon = next_late = next_ = shown = over = merged = 0.0
        for k in range(min(t - begin, RING - 1) + 1):
            start = t - k
            slot = start % RING
            if born[slot] != start:
                continue
            if wear_lives[slot] and k <= LONGEST + CLEAR:
                base = max(wear_base[slot], event_base[slot])
                as_wear, as_event = math.exp(wear_base[slot] - base), math.exp(event_base[slot] - base)
                best = 0.0
                for j in range(max(0, k - CLEAR - LENGTHS[0]), len(LENGTHS)):
                    length, a, b = LENGTHS[j], 0.0, 0.0
                    if telemetry:
                        wear_sum[slot, j] += e * shapes.wear[j, k]
                        a, b = wear_sum[slot, j], shapes.wear_power[j, k]
                        if k >= memory:
                            a, b = _recent(evidence, shapes.wear[j], shapes.wear_power[j], t, k, memory)
                    weight = _mean(a, b, base - scale, WEAR_NODES)
                    best = max(best, weight)
                    failure = start + length
                    if as_wear > 0 and length >= ONSET[0] and k < length and failure != visit[t]:
                        likely = weight * as_wear * prior[t, 0 if failure < visit[t] else 1]
                        likely *= _errors_of_failure(failure, length, t, oldest, errors_before, error_rate)
                        soon, late = failure - t <= HORIZON, LEAST_LEAD <= failure - t <= HORIZON
                        if failure < visit[t]:
                            now, now_soon, now_late = now + likely, now_soon + likely * soon, now_late + likely * late
                        else:
                            next_, next_soon = next_ + likely, next_soon + likely * soon
                            next_late += likely * late
                    if as_event > 0 and length <= DECOY[1]:
                        likely = weight * as_event * rates.decoy
                        if len(error_rate):
                            likely *= _errors_of_decoy(start, length, t, oldest, errors_before, error_rate)
                        if k <= length:
                            shown += likely
                        else:
                            over += likely
                            merged += likely * (k == length + CLEAR)
                if telemetry and k >= 8 and best < BEHIND:
                    wear_lives[slot] = False
            if not drift_lives[slot] or k >= DRIFT[1] + CLEAR:
                continue
            if k < DRIFT[0]:  # no drift has ended, and only the slope matters
                drift_sum[slot] += e * shapes.drift[0, k] * DRIFT[0] / DRIFT_LENGTHS
                a, b = drift_sum[slot, 0] * DRIFT[0], shapes.drift_power[0, k] * DRIFT[0] ** 2
                best = _slope_mean(a, b, event_base[slot] - scale)
                shown += best * rates.drift * len(DRIFT_LENGTHS)
            else:
                best = 0.0
                for j in range(max(0, k - CLEAR + 1 - DRIFT[0]), len(DRIFT_LENGTHS)):
                    drift_sum[slot, j] += e * shapes.drift[j, k]
                    a, b = drift_sum[slot, j], shapes.drift_power[j, k]
                    if k >= memory:
                        a, b = _recent(evidence, shapes.drift[j], shapes.drift_power[j], t, k, memory)
                    # half, since after two days the other direction is out of the question
                    weight = _mean(abs(a), b, event_base[slot] - scale, DRIFT_NODES) / 2
                    best = max(best, weight)
                    if k < DRIFT_LENGTHS[j]:
                        shown += weight * rates.drift
                    else:
                        over += weight * rates.drift
                        merged += weight * rates.drift * (k == DRIFT_LENGTHS[j] + CLEAR - 1)
            if k >= CLEAR and best < BEHIND:
                drift_lives[slot] = False

        spike = 0.0
        if telemetry and t > event_after and SPIKE[0] - 0.3 <= abs(residual[t]) <= SPIKE[1] + 0.3:
            density = math.exp(-e * e / 2) / math.sqrt(2 * math.pi) / deviation
            spike = math.exp(free - scale) * rates.spike / (2 * (SPIKE[1] - SPIKE[0])) / density
        healthy = math.exp(free - scale) + shown + over
        total = healthy + now + next_
        if spike > total:  # taken for one
            wear_lives[:], drift_lives[:] = False, False
            free = scale = 0.0
            event_after = wear_after = t + CLEAR
            residual[t] = guess
            result[t, OTHER], result[t, HEALTHY] = spike / (spike + total), 1.0
            continue
        total += spike
        result[t, NOW_SOON], result[t, NOW_LATE], result[t, NOW] = now_soon / total, now_late / total, now / total
        result[t, NEXT_SOON], result[t, NEXT_LATE] = next_soon / total, next_late / total
        result[t, NEXT] = next_ / total
        result[t, OTHER], result[t, HEALTHY] = (shown + spike) / total, (healthy + spike) / total
        if merged > 0:
            ended = scale + math.log(merged)
            free = max(free, ended) + math.log1p(math.exp(-abs(free - ended)))
        scale += math.log(total)
