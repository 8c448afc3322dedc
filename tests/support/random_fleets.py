"""Random small fleets: sampled evenly, with gaps or with jitter, with missing readings and events anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import closedloop.features.spec  # noqa: F401  # registers the custom features
from closedloop.data.schema import HOUR_US, Events, Schema, Tables
from closedloop.features.registry import CUSTOM

START_US = 1_420_092_000_000_000
Fleet = Callable[..., Tables]
SENSORS = tuple(dict.fromkeys(("volt", "rotate", *(sensor for item in CUSTOM.values() for sensor in item.sensors))))


def make_schema(minutes: int = 60, sensors: tuple[str, ...] = SENSORS) -> Schema:
    return Schema(
        sensors=sensors,
        components=("comp1", "comp2"),
        errors=("error1", "error2", "error3"),
        models=("model1", "model2"),
        sampling_minutes=minutes,
        ranges=((0.0, 1000.0),) * len(sensors),
    )


def make_fleet(
    schema: Schema,
    seed: int = 0,
    machines: int = 3,
    rows: int = 120,
    sampling: str = "even",
    missing: float = 0.0,
) -> Tables:
    """Machine ``machines`` is not described; events also lie outside the telemetry and on machines without any."""
    rng = np.random.default_rng(seed)
    period, ids = schema.period_us, np.arange(1, machines + 1)
    counts = rng.integers(max(rows // 2, 1), rows, machines, endpoint=True)
    times = []
    for count in counts:
        steps = np.ones(count, np.int64)
        if sampling != "even":
            steps[rng.random(count) < 0.05] += rng.integers(1, 3 * HOUR_US // period + 20)
        time = START_US + np.cumsum(steps) * period
        times.append(time + rng.integers(0, period // 3, count) if sampling == "jitter" else time)
    time, machine = np.concatenate(times), np.repeat(ids, counts)
    values = 100.0 + 10.0 * rng.standard_normal((len(schema.sensors), len(time)))
    values[rng.random(values.shape) < 0.05] = 100.0  # some readings repeat
    values[rng.random(values.shape) < missing] = np.nan
    last = int(time.max())

    def events(codes: int, times_in_hours: float) -> Events:
        n = int(rng.poisson((machines + 1) * (last - START_US) / HOUR_US / times_in_hours))
        when = rng.choice(time, n) if n and rng.random() < 0.5 else rng.integers(START_US - 10**12, last + 1, n)
        return Events.of(rng.integers(0, machines + 2, n), when, rng.integers(0, codes, n).astype(np.int16))

    described = (ids[:-1], rng.integers(-1, 2, machines - 1).astype(np.int16), rng.uniform(0, 20, machines - 1))
    return Tables.of(machine, time, values, events(3, 5.0), events(2, 60.0), events(2, 100.0), described)


@pytest.fixture(scope="session")
def schema() -> Schema:
    return make_schema()


@pytest.fixture(scope="session")
def schema_of() -> Callable[..., Schema]:
    return make_schema


@pytest.fixture(scope="session")
def random_fleet() -> Fleet:
    return make_fleet
