"""Fleets of which nobody knows better that nothing is wrong, and the ways in which they can move.

A fleet has machines that differ, noise that remembers, a daily load, a season over the year, weeks of much and of
little work, errors that come in bursts, readings that fall out, and machines that leave and others that join.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter

from closedloop.data.schema import HOUR_US, Events, Schema, Tables
from closedloop.heads.drift_reference import DriftReference
from closedloop.heads.drift_reference_fit import DAY_US, fit_drift_reference
from closedloop.watch import drift

SCHEMA = Schema(
    sensors=("volt", "rotate", "pressure", "vibration"),
    components=("comp1",),
    errors=("error1", "error2", "error3"),
    models=("model1",),
    sampling_minutes=60,
    ranges=((-1e6, 1e6),) * 4,
)
TRAINED_DAYS, WATCHED_DAYS = 245, 364
START_US = 1_420_070_400_000_000  # 2015-01-01, a Thursday, as was 1970-01-01: weeks begin together
NOISE = 1.0  # a sensor's nominal deviation: shifts are given in it

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class World:
    """A fleet for 245 days of training and 364 days after: its tables, its drift reference, a score for each row."""

    tables: Tables
    score: np.ndarray
    drift_reference: DriftReference

    def week(self, number: int) -> drift.Look:
        """The look at a week, the first after training being 0."""
        start = START_US + (TRAINED_DAYS + 7 * number) * DAY_US
        return look(self.drift_reference, between(self.tables, start, start + 7 * DAY_US), self.score_of(start))

    def score_of(self, start: int) -> np.ndarray:
        """The anomaly score of the rows of a week."""
        return self.score[(self.tables.time >= start) & (self.tables.time < start + 7 * DAY_US)]


def look(drift_reference: DriftReference, tables: Tables, score: np.ndarray) -> drift.Look:
    return drift.look(drift_reference, tables, score, SCHEMA)


def between(tables: Tables, start: int, end: int) -> Tables:
    """The tables of a stretch of time."""
    errors = tables.errors.rows((tables.errors.time >= start) & (tables.errors.time < end))
    return replace(tables.rows((tables.time >= start) & (tables.time < end)), errors=errors)


def score_of(values: np.ndarray) -> np.ndarray:
    """A stand-in for an anomaly score: how far the sensor is off that is off the most."""
    return np.nanmax(np.abs(np.where(np.isnan(values), 0.0, values)), axis=0)


def world(
    seed: int, machines: int = 30, season: float = 0.25, weeks: float = 0.1, turnover: float = 0.3, change: str = ""
) -> World:
    """A fleet in which nothing moves but what always does, or with a change from the first day after training on.

    ``season`` is the amplitude of the year's wave and ``weeks`` the deviation of a week's common load, in deviations of
    the noise; ``turnover`` the share of machines that are replaced by others in the watched year. ``change`` is one of
    ``CHANGES``.
    """
    rng = np.random.default_rng(seed)
    days = TRAINED_DAYS + WATCHED_DAYS
    hours, sensors = 24 * days, len(SCHEMA.sensors)
    t = np.arange(hours)
    phase, wave = rng.uniform(0, 2 * np.pi, sensors), season * rng.uniform(0, 1, sensors)
    common = wave[:, None] * np.sin(2 * np.pi * t / (24 * 365) + phase[:, None])
    load = np.repeat(rng.normal(0, weeks, days // 7 + 1), 7 * 24)[:hours]
    common = common + rng.uniform(0, 1, (sensors, 1)) * load
    rates = rng.uniform(0.01, 0.04, len(SCHEMA.errors))
    replaced = round(turnover * machines)
    parts, errors = [], []
    for number in range(machines + replaced):
        joins, leaves = 0, hours
        if number < replaced:
            leaves = 24 * (TRAINED_DAYS + int(rng.integers(WATCHED_DAYS)))
        elif number >= machines:
            joins = 24 * (TRAINED_DAYS + int(rng.integers(WATCHED_DAYS)))
        parts_of = slice(joins, leaves)
        offset, size = rng.normal(0, 0.5, (sensors, 1)), rng.uniform(0.8, 1.2, (sensors, 1))
        noise = rng.normal(0, 1, (sensors, hours))
        memory = lfilter([np.sqrt(1 - 0.85**2)], [1, -0.85], rng.normal(0, 1, (sensors, hours)))
        daily = 0.2 * np.sin(2 * np.pi * (t + rng.integers(24)) / 24)
        values = offset + common + daily + size * (0.94 * noise + 0.35 * memory)
        for gap in rng.integers(0, hours, rng.poisson(days / 60)):
            values[rng.integers(sensors), gap : gap + rng.integers(1, 48)] = np.nan
        values = changed(values, change, number, machines, rng)
        parts.append((np.full(hours, number)[parts_of], t[parts_of], values[:, parts_of]))
        errors += errors_of(number, rates, parts_of, hours, change, rng)
    machine, time, values = (np.concatenate([part[k] for part in parts], axis=-1) for k in range(3))
    when = np.array([hour for _, hour, _ in errors], np.int64)
    tables = Tables.of(
        machine, START_US + time * HOUR_US, values,
        Events.of(np.array([one for one, _, _ in errors]), START_US + when * HOUR_US,
                  np.array([code for _, _, code in errors], np.int16)),
        Events.empty(), None, (np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0)),
    )  # fmt: skip
    end = START_US + TRAINED_DAYS * DAY_US
    trained = between(tables, START_US, end)
    score = score_of(tables.values)
    return World(tables, score, fit_drift_reference(trained, SCHEMA, score[tables.time < end]))


def errors_of(number: int, rates, there: slice, hours: int, change: str, rng) -> list[tuple[int, int, int]]:
    """Errors of a machine in bursts: one machine has many, and one error brings another."""
    found = []
    frailty = rng.gamma(4, 1 / 4)
    for code, rate in enumerate(rates):
        times = rng.integers(0, hours, rng.poisson(rate * frailty * hours / 24))
        if change == "rate" and code == 0:
            after = 24 * TRAINED_DAYS
            times = np.append(times, rng.integers(after, hours, rng.poisson(4 * rate * frailty * (hours - after) / 24)))
        again = times[rng.random(len(times)) < 0.2] + rng.integers(1, 24)
        times = np.unique(np.append(times, again))
        found += [(number, int(hour), code) for hour in times if there.start <= hour < there.stop]
    return found


CHANGES = {
    "mean 0.25": "one sensor's mean moves by 0.25 deviations",
    "mean 0.5": "one sensor's mean moves by half a deviation",
    "mean 1": "one sensor's mean moves by one deviation",
    "scale 1.5": "one sensor's deviation grows by half",
    "stuck": "one sensor of every third machine repeats its last reading",
    "missing": "a tenth of one sensor's readings fall out",
    "rate": "one error becomes five times as frequent",
}


def changed(values: np.ndarray, change: str, number: int, machines: int, rng) -> np.ndarray:
    """The readings of a machine with a change of its first sensor from the end of training on."""
    kind, _, size = change.partition(" ")
    after = values[0, 24 * TRAINED_DAYS :]
    if kind == "mean":
        after += float(size) * NOISE
    elif kind == "scale":
        middle = np.nanmean(after)
        after[:] = middle + float(size) * (after - middle)
    elif kind == "stuck" and number % 3 == 0:
        after[:] = values[0, 24 * TRAINED_DAYS - 1] if not np.isnan(values[0, 24 * TRAINED_DAYS - 1]) else 0.0
    elif kind == "missing":
        after[rng.random(len(after)) < 0.1] = np.nan
    return values


def issues(one: World, weeks: int = WATCHED_DAYS // 7) -> list[tuple[int, list[str]]]:
    """The weeks in which an issue would be opened, with what moved: a verdict ``moved`` after one that was not."""
    looks = [one.week(number) for number in range(weeks)]
    opened, was_open = [], False
    for number in range(1, weeks):
        verdict = drift.decide(looks[number - 1 : number + 1])
        if verdict.verdict == "moved" and not was_open:
            opened.append((number, [f"{test.subject} {test.kind}" for test in verdict.moved]))
        was_open = verdict.verdict == "moved"
    return opened
