"""Frozen baselines: where each sensor of each machine model lies, how far it spreads, how far machines differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from closedloop.data.schema import HOUR_US, DataError, Float64, Schema, Tables

MAD_TO_DEVIATION = 1.4826  # 1 / Φ⁻¹(3/4): the median absolute deviation of a normal sample, in standard deviations
MIN_MACHINES = 3  # fewer machines of a model say nothing about how machines differ


@dataclass(frozen=True, eq=False)
class Constants:
    """What the bundle knows of the fleet, frozen at training.

    Each array has shape (models + 1, sensors), in the order of the schema; the last row is the whole fleet's, used
    for machines of unknown model. ``location`` and ``scale`` are in the sensor's unit. ``trust``, between 0 and 1, is
    the weight of a machine's own window median in its baseline (the rest is ``location``): the share of the variance of
    window medians that lies between machines rather than within them.
    """

    location: Float64
    scale: Float64
    trust: Float64

    def to_arrays(self) -> dict[str, Float64]:
        """The arrays by name, for the bundle."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float64]) -> Constants:
        """The inverse of :meth:`to_arrays`.

        Raises:
            DataError: an array is missing or the shapes differ.
        """
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in arrays]:
            raise DataError(f"baseline constants: {missing[0]!r} is missing; train again")
        columns = [np.ascontiguousarray(arrays[name], np.float64) for name in names]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 2:
            raise DataError(f"baseline constants: shapes {[c.shape for c in columns]} differ; train again")
        return cls(*columns)


def fit_constants(tables: Tables, schema: Schema, until_us: int, history_us: int = 72 * HOUR_US) -> Constants:
    """Robust location and scale of each sensor by machine model, from telemetry up to and including ``until_us``.

    Location is the median and scale 1.4826 times the median absolute deviation (the standard deviation where that is 0,
    and 1 in the sensor's unit where the sensor never moved). A model without readings gets the fleet's values.

    Raises:
        DataError: a sensor has no reading at all up to ``until_us``.
    """
    rows = tables.time <= until_us
    models = np.full(len(tables.machine_ids), -1, np.int64)
    models[:] = tables.machine_model
    at = np.minimum(np.searchsorted(tables.machine_ids, tables.machine), max(len(models) - 1, 0))
    model = np.full(len(tables.machine), -1, np.int64)
    if len(models):
        model = np.where(tables.machine_ids[at] == tables.machine, models[at], -1)
    block = tables.time // history_us
    shape = (len(schema.models) + 1, len(schema.sensors))
    location, scale, trust = np.empty(shape), np.ones(shape), np.zeros(shape)
    for s, sensor in enumerate(schema.sensors):
        read = rows & ~np.isnan(tables.values[s])
        if not read.any():
            raise DataError(f"telemetry.{sensor}: no reading to take a baseline from; drop the sensor from the schema")
        for m in (len(schema.models), *range(len(schema.models))):
            mine = read if m == len(schema.models) else read & (model == m)
            if not mine.any():
                location[m, s], scale[m, s], trust[m, s] = location[-1, s], scale[-1, s], trust[-1, s]
                continue
            values = tables.values[s, mine]
            location[m, s] = np.median(values)
            deviation = MAD_TO_DEVIATION * float(np.median(np.abs(values - location[m, s])))
            scale[m, s] = deviation or float(values.std()) or 1.0
            trust[m, s] = _between(values, tables.machine[mine], block[mine])
    return Constants(location, scale, trust)


def _between(values: Float64, machine: np.ndarray, block: np.ndarray) -> float:
    """Share of the variance of window medians that lies between machines (one-way random effects)."""
    edges = np.flatnonzero((np.diff(machine) != 0) | (np.diff(block) != 0)) + 1
    starts = np.concatenate(([0], edges))
    medians = np.array([np.median(part) for part in np.split(values, edges)])
    owner = machine[starts]
    ids, counts = np.unique(owner, return_counts=True)
    ids, counts = ids[counts > 1], counts[counts > 1]
    if len(ids) < MIN_MACHINES:
        return 0.0
    own = [medians[owner == machine_id] for machine_id in ids.tolist()]
    within = float(np.mean([part.var(ddof=1) for part in own]))
    means = np.array([part.mean() for part in own])
    between = float(means.var(ddof=1) - within * np.mean(1.0 / counts))
    return 0.0 if between <= 0.0 else between / (between + within)
