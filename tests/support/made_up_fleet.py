"""A made-up fleet of any schema, with lengths of time that suit any parameters.

Before each failure of a component one sensor drifts over the horizon, by eight deviations, so that any model that works
sees it. A fleet without components has the same drifts and no table of failures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from closedloop.data.schema import Events, Float64, Schema, Tables

START_US = 1_420_092_000_000_000  # 2015-01-01T06:00Z, on the grid of every period of whole minutes that divides an hour
DRIFT_DEVIATIONS = 8.0


@dataclass(frozen=True)
class Fleet:
    """The tables, and for each telemetry row how far a drift has come: 0 where there is none, 1 at its end."""

    tables: Tables
    drift: Float64


def make_up(schema: Schema, history_us: int, horizon_us: int, failures: int, machines: int = 12) -> Fleet:
    """Machines with so many failures of each component, one after the other, each after a long healthy time."""
    rng = np.random.default_rng(1)
    period, parts = schema.period_us, max(len(schema.components), 1)
    lead, quiet = max(horizon_us // period, 1), 2 * max(history_us, horizon_us) // period
    each = -(-failures * parts // machines) + 1
    rows = int(quiet + each * (quiet + lead))
    low, high = schema.limits.T[:, :, None]
    deviation = (high - low) / 40
    values, drifts, ends = [], [], []
    for machine in range(machines):
        readings = (low + high) / 2 + deviation * rng.normal(size=(len(schema.sensors), rows))
        drift = np.zeros(rows)
        for turn in range(each):
            end = int((turn + 1) * (quiet + lead) + rng.integers(0, quiet // 2 + 1))
            part = (machine + turn) % parts
            ramp = np.arange(1, lead + 1) / lead
            sign = 1 - 2 * (part // len(schema.sensors) % 2)
            sensor = part % len(schema.sensors)
            readings[sensor, end - lead : end] += sign * DRIFT_DEVIATIONS * deviation[sensor] * ramp
            drift[end - lead : end] = ramp
            ends.append((machine + 1, START_US + end * period, part))
        values.append(readings)
        drifts.append(drift)
    ids = np.arange(1, machines + 1)
    failed = Events.of(*(np.array(column, np.int64) for column in zip(*ends, strict=True)))
    failed = Events(failed.machine, failed.time, failed.code.astype(np.int16))
    some = rng.integers(0, len(failed.time), 3 * len(failed.time))
    codes = rng.integers(0, max(len(schema.errors), 1), len(some)).astype(np.int16)
    errors = Events.of(failed.machine[some], failed.time[some] - period * rng.integers(1, quiet, len(some)), codes)
    known = bool(schema.components)
    models = rng.integers(0, len(schema.models), machines) if schema.models else np.empty(0)
    return Fleet(
        Tables(
            machine=np.repeat(ids, rows),
            time=np.tile(START_US + period * np.arange(rows), machines),
            values=np.concatenate(values, axis=1),
            errors=errors if schema.errors else Events.empty(),
            maint=failed if known else Events.empty(),
            failures=failed if known else None,
            machine_ids=ids[: len(models)],
            machine_model=models.astype(np.int16),
            machine_age=np.full(len(models), 5.0),
            names=tuple(f"machine {n:04}" for n in range(machines + 1)) if schema.has_names else None,
        ),
        np.concatenate(drifts),
    )
