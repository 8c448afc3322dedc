"""Frozen baselines of each sensor of each machine model: location, scale, and how much machines differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data.machines import Id
from closedloop.data.schema import HOUR_US, DataError, Float64, Int64, Schema, Tables
from closedloop.features.medians import MAD_TO_DEVIATION, block_baselines

MIN_MACHINES = 3  # with fewer machines of a model, nothing is known of how machines differ
MIN_TRUST = 0.05  # less is noise of the estimate; a trust of 0 saves the medians of each window
MAX_TRUST = 0.95  # so that a window of equal readings does not give a scale of 0
LEVEL = "level_"  # begins the names of the arrays of levels in a bundle


@dataclass(frozen=True, eq=False)
class Levels:
    """The level of each machine that was trained on, of each machine model and of the fleet.

    ``machines`` are the numbers or names of the first rows of the arrays. The rows after them are the models' and the
    fleet's, for machines that were not trained on. What the arrays hold is said in
    :class:`~closedloop.features.levels.Norms`.
    """

    machines: tuple[Id, ...]
    location: Float64
    scale: Float64
    doubt: Float64
    gain: Float64
    single: Float64

    @cached_property
    def _place(self) -> dict[Id, int]:
        return {machine: row for row, machine in enumerate(self.machines)}

    def rows_of(self, machines: list[Id]) -> Int64:
        """The row of each machine, -1 for one that was not trained on."""
        place = self._place
        return np.array([place.get(machine, -1) for machine in machines], np.int64)

    def of_models(self) -> Levels:
        """The levels of the models and of the fleet alone."""
        own = len(self.machines)
        location, scale, doubt = (array[own:].copy() for array in (self.location, self.scale, self.doubt))
        return Levels((), location, scale, doubt, self.gain, self.single)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name; the machines as text, one a line, which no name contains."""
        text = "\n".join(map(str, self.machines)).encode()
        kind = np.array([float(bool(self.machines) and isinstance(self.machines[0], str))])
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "machines"}
        return {"machines": np.frombuffer(text, np.uint8), "has_names": kind, **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Levels:
        """The inverse of :meth:`to_arrays`.

        Raises:
            DataError: an array is missing, or the arrays do not fit each other.
        """
        names = ("machines", "has_names", "location", "scale", "doubt", "gain", "single")
        if missing := [name for name in names if name not in arrays]:
            raise DataError(f"levels: {missing[0]!r} is missing; train again")
        if len(arrays) > len(names):
            raise DataError(f"levels: {min(arrays.keys() - set(names))!r:.80} is unknown; train again")
        try:
            lines = arrays["machines"].tobytes().decode().split("\n") if arrays["machines"].size else []
            machines = tuple(lines) if arrays["has_names"].any() else tuple(map(int, lines))
        except ValueError:
            raise DataError("levels: 'machines' is not a list of machines; train again") from None
        numbers = [np.ascontiguousarray(arrays[name], np.float64) for name in names[2:]]
        found = cls(machines, *numbers)
        if len({array.shape for array in numbers[:3]}) != 1 or found.location.ndim != 2:
            raise DataError("levels: the shapes of the arrays differ; train again")
        return found

    def check(self, models: int, features: int) -> None:
        """Raise DataError where these are not usable numbers for so many models and features."""
        shape = (len(self.machines) + models + 1, features)
        of_each, of_all = ("location", "scale", "doubt"), ("gain", "single")
        for name, wanted in [*((name, shape) for name in of_each), *((name, shape[1:]) for name in of_all)]:
            array = getattr(self, name)
            if array.shape != wanted or not np.isfinite(array).all() or (name != "location" and (array < 0).any()):
                raise DataError(f"levels: {name!r} is not {wanted} usable numbers; train again")
        if (self.scale <= 0).any() or len(self._place) != len(self.machines):
            raise DataError("levels: a scale is 0, or a machine is there twice; train again")


@dataclass(frozen=True, eq=False)
class Constants:
    """What the bundle knows of the fleet, frozen at training.

    Each array has shape (models + 1, sensors), in the schema's order; the last row is the whole fleet's, for machines
    of unknown model. ``location`` and ``scale`` are in the sensor's unit. The trusts, from 0 to 1, are the weights of a
    machine's own window in its baseline; the frozen value has the rest. A trust is the share of the variance of window
    medians (for the scale, of window deviations) that lies between machines, which is the empirical Bayes estimate.
    Where machines are alike, the frozen value is the better estimate; where they differ, the machine's own window is.
    ``levels`` is None where the level family is off.
    """

    location: Float64
    scale: Float64
    location_trust: Float64
    scale_trust: Float64
    levels: Levels | None = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as the bundle stores them."""
        levels = {} if self.levels is None else self.levels.to_arrays()
        return self.by_model() | {f"{LEVEL}{name}": array for name, array in levels.items()}

    def by_model(self) -> dict[str, Float64]:
        """The arrays of each machine model."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "levels"}

    def check(self, models: int, sensors: int, level_features: int) -> None:
        """Raise DataError where these are not usable numbers for so many models, sensors and features of levels."""
        shape = (models + 1, sensors)
        for name, array in self.by_model().items():
            if array.shape != shape or not np.isfinite(array).all() or (name == "scale" and (array <= 0).any()):
                raise DataError(f"baseline {name!r} is not {shape} usable numbers; train again")
        if (self.levels is None) != (level_features == 0):
            raise DataError("it has levels without features of them, or the other way round; train again")
        if self.levels is not None:
            self.levels.check(models, level_features)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Constants:
        """The constants of a bundle: the inverse of :meth:`to_arrays`. Arrays of other names are ignored.

        Raises:
            DataError: an array is missing or the shapes differ.
        """
        names = [field.name for field in fields(cls) if field.name != "levels"]
        if missing := [name for name in names if name not in arrays]:
            raise DataError(f"baseline constants: {missing[0]!r} is missing; train again")
        columns = [np.ascontiguousarray(arrays[name], np.float64) for name in names]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 2:
            raise DataError(f"baseline constants: shapes {[c.shape for c in columns]} differ; train again")
        own = {name.removeprefix(LEVEL): array for name, array in arrays.items() if name.startswith(LEVEL)}
        location, scale, location_trust, scale_trust = columns
        return cls(location, scale, location_trust, scale_trust, Levels.from_arrays(own) if own else None)


def fit_constants(tables: Tables, schema: Schema, until_us: int, history_us: int = 72 * HOUR_US) -> Constants:
    """Robust baselines of each sensor by machine model, from telemetry up to and including ``until_us``.

    Location is the median and scale is 1.4826 times the median absolute deviation. Where that is 0, scale is the
    standard deviation, and 1 where the sensor never moved. A model without readings gets the fleet's values.
    ``history_us`` is the length of the windows whose medians the trusts compare.

    Raises:
        DataError: a sensor has no reading at all up to ``until_us``.
    """
    models = len(schema.models)
    at = np.searchsorted(tables.machine_ids, tables.machine)
    known = np.append(tables.machine_ids, 0)[at] == tables.machine if len(tables.machine_ids) else at < 0
    model = np.where(known, np.append(tables.machine_model, -1).astype(np.int64)[at], -1)
    window = tables.time // history_us
    shape = (models + 1, len(schema.sensors))
    result = Constants(np.empty(shape), np.empty(shape), np.zeros(shape), np.zeros(shape))
    for s, sensor in enumerate(schema.sensors):
        read = np.flatnonzero((tables.time <= until_us) & ~np.isnan(tables.values[s]))
        if not len(read):
            raise DataError(f"telemetry.{sensor}: no reading to take a baseline from; drop it from schema.sensors")
        values, machine = tables.values[s, read], tables.machine[read]
        starts = np.flatnonzero(np.append(True, (np.diff(machine) != 0) | (np.diff(window[read]) != 0)))
        medians, deviations = np.empty(len(starts)), np.empty(len(starts))
        block_baselines(values, np.append(starts, len(read)), medians, deviations)
        owner, owner_model = machine[starts], model[read][starts]
        for m in (models, *range(models)):
            mine = values if m == models else values[model[read] == m]
            if not len(mine):
                for array in result.by_model().values():
                    array[m, s] = array[models, s]
                continue
            middle = float(np.median(mine))
            result.location[m, s] = middle
            deviation = MAD_TO_DEVIATION * float(np.median(np.abs(mine - middle)))
            result.scale[m, s] = deviation or float(mine.std()) or 1.0
            own = slice(None) if m == models else owner_model == m
            result.location_trust[m, s] = _between(medians[own], owner[own])
            result.scale_trust[m, s] = _between(deviations[own], owner[own])
    return result


def _between(windows: Float64, machine: Int64) -> float:
    """Share of the variance of windows' values that lies between machines (one-way random effects)."""
    ids, group, counts = np.unique(machine, return_inverse=True, return_counts=True)
    if len(ids) < MIN_MACHINES or counts.max() < 2:
        return 0.0
    means = np.bincount(group, windows) / counts
    within = float(np.sum((windows - means[group]) ** 2) / np.sum(counts - 1))
    between = float(means.var(ddof=1) - within * np.mean(1 / counts))
    share = between / (between + within) if between > 0 else 0.0
    return min(share, MAX_TRUST) if share >= MIN_TRUST else 0.0
