"""The oracle's look at one machine: four sensors, each followed on its own, and what they have in common.

That is the daily load, known from the past, and the visits: a failure's prior is uniform over the pairs (failure,
onset) of its cycle between two visits, and who is replaced at one visit is weighed jointly over the components. A
replacement off the grid of visits is a failure, and ends all guessing about what its sensor showed before.
"""

from __future__ import annotations

import itertools

import numpy as np
import oracle_sensor as chain

from closedloop.data import simulate as sim
from closedloop.data.schema import HOUR_US, MachineWindow

PROFILE, COMPONENTS = chain.PROFILE, range(len(sim.COMPONENTS))
REPLACED = [({c}, (1 - sim.TWO_REPLACED) / len(COMPONENTS)) for c in COMPONENTS]  # at one visit, with its probability
REPLACED += [({c, d}, sim.TWO_REPLACED / 6) for c, d in itertools.combinations(COMPONENTS, 2)]
SHARE_REPLACED = sum(probability for members, probability in REPLACED if 0 in members)


def _quiet(raw: np.ndarray, failures: list[np.ndarray]) -> np.ndarray:
    """Whether each reading of (sensors, hours) shows nothing but noise, as far as a robust look back can tell."""
    quiet = np.abs(raw) < chain.SPIKE[0] - 0.5
    quiet[:, 1:] &= np.diff(raw, axis=1) != 0
    for row, mine, failed in zip(raw, quiet, failures, strict=True):
        mean = np.convolve(np.where(mine, row, 0.0), np.ones(24) / 24, mode="same")
        off = np.abs(mean - np.median(mean)) > 0.8
        mine &= np.convolve(off, np.ones(73), mode="same") < 0.5
        for failure in failed[(failed >= 0) & (failed < len(row))]:
            mine[max(failure - chain.LONGEST, 0) : failure + 1] = False
    return quiet


def residuals(window: MachineWindow, failures: list[np.ndarray], begin: int, knowledge: chain.Knowledge) -> np.ndarray:
    """Readings in deviations, less what the hours before ``begin`` say of the machine's offsets and daily load."""
    raw = (window.values - sim.MEAN[:, None]) / sim.DEVIATION[:, None]
    if knowledge.memory_hours < chain.FOREVER:
        return raw
    angle = 2 * np.pi / 24 * np.arange(raw.shape[1])
    wave = np.array([np.sin(angle), np.cos(angle)])
    quiet = _quiet(raw[:, :begin], failures)
    slow = 1 + PROFILE.coloured**2 * (1 + sim.AR1) / (1 - sim.AR1)  # variance of a mean, times its hours
    shrunk = quiet.sum(axis=1, keepdims=True) + slow / PROFILE.offset**2
    offset, load = np.zeros((len(raw), 1)), np.zeros(raw.shape[1])
    for _ in range(3):
        offset = np.where(quiet, (raw - load)[:, :begin], 0.0).sum(axis=1, keepdims=True) / shrunk
        phase = (np.where(quiet, (raw - offset)[:, :begin], 0.0) * wave[:, None, :begin]).sum(axis=(1, 2))
        load = PROFILE.load * (phase / np.hypot(*phase)) @ wave
    return raw - offset - load


def pairs(after: np.ndarray) -> np.ndarray:
    """How many pairs (failure, onset) of the cycle before a visit at hour 0 have their onset after this hour."""
    onset = np.arange(chain.ONSET[0], chain.ONSET[1] + 1)
    return np.maximum(-1 - np.maximum(-sim.VISIT_HOURS, after[:, None] + onset), 0).sum(axis=1)


def chance_to_fail(model: int, age: float) -> np.ndarray:
    """Of each component that is replaced at a visit."""
    replaced = SHARE_REPLACED * sim.YEAR_HOURS / sim.VISIT_HOURS
    rate = sim.FAILURES_PER_YEAR / (sim.MODEL_SHARE @ sim.FAILS_ON) * sim.FAILS_ON[model]
    return rate * (1 + sim.AGEING * (age / 10 - 1)) / replaced


def rates(component: int) -> chain.Rates:
    """Decoys and faults that start in a free hour: more than in any hour, since events keep clear of each other."""
    decoys = sim.DECOYS_PER_YEAR[component] * PROFILE.decoy_share
    fault = PROFILE.faults_per_year / len(sim.FAULTS) / len(sim.SENSORS)
    onset, decoy = sum(chain.ONSET) / 2, sum(chain.DECOY) / 2
    taken = sim.FAILURES_PER_YEAR[component] * (onset + decoy + 2 * chain.CLEAR) + decoys * (decoy + chain.CLEAR)
    hours = sim.YEAR_HOURS - taken
    of_decoy, of_drift = (limits[1] - limits[0] + 1 for limits in (chain.DECOY, chain.DRIFT))
    return chain.Rates(decoys / hours / of_decoy, fault / hours / of_drift, fault / hours)


def _combine(of_sensor: np.ndarray, chance: np.ndarray, visit: np.ndarray, worn: np.ndarray) -> dict[str, np.ndarray]:
    """Weigh jointly who is replaced at the next visit, given every sensor: what :func:`ask` returns.

    Each weight comes twice: for a component that is replaced at the next visit, and for one that is not.
    """
    hours = np.arange(len(visit))
    parts: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []
    for c in COMPONENTS:
        w = of_sensor[c].T
        failed = worn[c] > visit - sim.VISIT_HOURS  # in this cycle, so it was to be replaced at its end
        again, fails = SHARE_REPLACED * chance[c], np.where(failed, 0.0, chance[c])
        start = np.maximum(hours, worn[c])
        ahead_now = pairs(start - visit) / np.maximum(pairs(worn[c] - visit), 1)  # share of those not yet begun
        next_visit = visit + sim.VISIT_HOURS
        ahead_next = pairs(start - next_visit) / pairs(worn[c] - next_visit)
        quiet = 1 - again + again * ahead_next

        def both(now: np.ndarray, later: np.ndarray, fails=fails, failed=failed) -> tuple[np.ndarray, np.ndarray]:
            return (1 - fails) * later + fails * now, np.where(failed, 0.0, later)

        none_now = w[chain.HEALTHY] * quiet + again * w[chain.NEXT]
        unjudged = np.where(~failed & (visit <= hours + chain.HORIZON), none_now - again * w[chain.NEXT_SOON], 0.0)
        parts.append(
            {
                "all": both(w[chain.NOW] + w[chain.HEALTHY] * ahead_now, none_now),
                "soon": both(w[chain.NOW_SOON], again * w[chain.NEXT_SOON]),
                "late": both(w[chain.NOW_LATE], again * w[chain.NEXT_LATE]),
                "ahead": both(w[chain.NOW], again * w[chain.NEXT]),
                "other": both(w[chain.OTHER] * ahead_now, w[chain.OTHER] * quiet),
                "unjudged": ((1 - fails) * unjudged, np.zeros(len(visit))),
            }
        )

    def weight(component: int, part: str) -> np.ndarray:
        total = np.zeros(len(visit))
        for members, probability in REPLACED:
            product = np.full(len(visit), probability)
            for c in COMPONENTS:
                product *= parts[c][part if c == component else "all"][0 if c in members else 1]
            total += product
        return total

    everything = weight(0, "all")
    found = {part: np.array([weight(c, part) for c in COMPONENTS]) / everything for part in parts[0]}
    shows = np.where(worn == hours, 1.0, found["other"] + found["ahead"])
    judged = 1 - found["unjudged"]
    return {"soon": found["soon"] / judged, "late": found["late"] / judged, "ahead": found["ahead"], "shows": shows}


def ask(window: MachineWindow, begin: int, knowledge: chain.Knowledge) -> dict[str, np.ndarray]:
    """The oracle's answers for one machine, from hour ``begin`` on; some hundred hours later it has settled.

    Returns (components, hours) each: ``soon``, P(failure in the horizon), given that the row is judged; ``late``, the
    same early enough to act; ``ahead``, P(a failure whose onset has begun); ``shows``, P(the sensor shows an event).
    """
    hours = np.arange(len(window.time))
    replaced = (window.maint.time - sim.START_US) // HOUR_US
    phase = int(np.bincount(replaced[replaced <= 0] % sim.VISIT_HOURS).argmax())  # known from the first hour on
    visit = phase + ((hours - phase) // sim.VISIT_HOURS + 1) * sim.VISIT_HOURS  # the next one
    off_grid = replaced % sim.VISIT_HOURS != phase
    failures = [replaced[off_grid & (window.maint.code == c)] for c in COMPONENTS]
    worn = np.full((len(COMPONENTS), len(hours)), -chain.FOREVER)  # the last failure
    for mine, failed in zip(worn, failures, strict=True):
        for failure in failed:
            mine[max(failure, 0) :] = failure

    residual = residuals(window, failures, begin, knowledge)
    same = np.diff(window.values, axis=1, prepend=np.nan) == 0
    weights, deviation = chain.predictor(knowledge)
    at = (window.errors.time - sim.START_US) // HOUR_US
    of_sensor = np.zeros((len(COMPONENTS), len(hours), 8))
    of_sensor[:, :begin, chain.HEALTHY] = 1.0
    for c, codes in enumerate(sim.ERRORS_OF if knowledge.errors else [()] * len(COMPONENTS)):
        errors = [np.bincount(at[window.errors.code == code] + 1, minlength=len(hours) + 1) for code in codes]
        before = np.cumsum(np.reshape(errors, (len(codes), len(hours) + 1)), axis=1)
        prior = np.array([np.where(worn[c] > visit - sim.VISIT_HOURS, 0.0, 1 / np.maximum(pairs(worn[c] - visit), 1)),
                          1 / pairs(worn[c] - visit - sim.VISIT_HOURS)]).T  # fmt: skip
        chain.follow(
            residual[c], same[c] & knowledge.telemetry, worn[c] == hours, begin, weights, deviation,
            chain.shapes(c, knowledge), before.astype(float), sim.ERRORS_PER_YEAR[list(codes)] / sim.YEAR_HOURS, visit,
            prior, rates(c), knowledge.memory_hours, knowledge.telemetry, of_sensor[c],
        )  # fmt: skip
    return _combine(of_sensor, chance_to_fail(window.model, window.age), visit, worn)
