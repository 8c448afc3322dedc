"""Learn the level of each machine from its training rows.

Location and scale are of each machine by itself, so differences between machines are in neither. What a short record
does not tell is borrowed: a scale is drawn towards its model's by as much as machines' scales agree, which is the
moderated variance of Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3(1)), and a machine that was not trained on begins at
its model's location with the variance between machines as its doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma

from closedloop.data.machines import Id
from closedloop.data.schema import Float64, Int64, Schema, Tables
from closedloop.features.baseline import Constants, Levels
from closedloop.features.kernel import iter_machines
from closedloop.features.medians import MAD_TO_DEVIATION
from closedloop.features.spec import FeatureSpec

STILL = np.finfo(np.float64).max  # scale of a sensor that never moved: it cannot lie away from its level
ROUNDING = 1e-9  # a smaller deviation, as a share of the readings, is rounding
RESTING = 12.0  # robust deviations: a mean of which one in ten lies further away rests most of the time
PACED = 64  # machines that tell how fast the mean forgets: more take time and tell the same
LAGS = 100
PSEUDO = 2.0  # machines one scale apart that are always supposed: two machines say little of how machines differ
MOST = 1000.0  # degrees of freedom that a model may lend
BLOCKS = 5


@dataclass(frozen=True, eq=False)
class Measured:
    """What the training rows of each machine say: location and variance (machines, features), rows (machines).

    ``pace`` (features) is the number of rows after which the mean has forgotten where it was, and ``single`` (features)
    how much more a reading varies than the mean, in multiples of the mean's variance.
    """

    location: Float64
    variance: Float64
    rows: Int64
    pace: Float64
    single: Float64


def fit_levels(
    tables: Tables, spec: FeatureSpec, schema: Schema, constants: Constants, come_back: bool = True
) -> tuple[Constants, tuple[Levels, ...]]:
    """The constants with the level of each machine of the tables, and the levels that :func:`unseen` needs.

    The latter are fitted without each of ``BLOCKS`` stretches of every machine's time in turn. Where these machines do
    not ``come_back``, since each runs until it fails, every machine is a new one: the constants have the levels of the
    models alone, and there are none of the latter. Where the level family is off, the constants stay as they are.
    """
    if not spec.level_us:
        return constants, ()
    ids, offsets = tables.bounds()
    means, models = recent_means(tables, spec, schema, constants), _models(tables, ids, schema)
    machines, block = tuple(tables.named(ids).tolist()), np.concatenate([_blocks(n) for n in np.diff(offsets).tolist()])

    def fitted(used: NDArray[np.bool_]) -> Levels:
        return _levels(_measure(tables.values, means, offsets, used, len(spec.level_us)), models, machines, schema)

    whole = fitted(np.ones(len(tables.time), bool))
    if not come_back:
        return replace(constants, levels=whole.of_models()), ()
    return replace(constants, levels=whole), tuple(fitted(block != b) for b in range(BLOCKS))


def unseen(z: Float64, machine: Id, levels: Levels, without: tuple[Levels, ...]) -> Float64:
    """The level features (features, rows) of a training machine, each from levels that did not see its stretch.

    ``z`` are those of all its rows. A threshold that is counted on these also holds for the rows that come later.
    Where a mean is of few readings, the distance between the two levels counts as that of a whole history would.
    """
    row = levels.machines.index(machine)
    mean = z * levels.scale[row][:, None] + levels.location[row][:, None]
    block = _blocks(z.shape[1])
    location = np.array([other.location[row] for other in without])[block].T
    return (mean - location) / np.array([other.scale[row] for other in without])[block].T


def _blocks(rows: int) -> Int64:
    """The stretch of each of a machine's rows."""
    return np.arange(rows) * BLOCKS // rows


def recent_means(tables: Tables, spec: FeatureSpec, schema: Schema, constants: Constants) -> Float64:
    """The mean that each level feature compares (features, rows), in the sensor's unit."""
    kept = [n for n, group in enumerate(spec.groups) if group in ("maint", "machine", "level")]
    bare = replace(
        spec,
        names=tuple(spec.names[n] for n in kept),
        groups=tuple(spec.groups[n] for n in kept),
        rolling_us=(),
        half_lives_us=(),
        cusum_slack=None,
        change_us=(),
        shift_steps=0,
        error_windows_us=None,
        custom=(),
    )
    features = len(schema.sensors) * len(spec.level_us)
    shape = (len(schema.models) + 1, features)
    nothing = np.zeros(features)
    unit = Levels((), np.zeros(shape), np.ones(shape), np.zeros(shape), nothing, nothing)
    found, start = np.empty((features, len(tables.time))), 0
    for part in iter_machines(tables, bare, replace(constants, levels=unit), schema):
        stop = start + len(part.time)
        found[:, start:stop] = part.X[-features:]
        start = stop
    return found


def _models(tables: Tables, ids: Int64, schema: Schema) -> Int64:
    """The model of each machine; the number of models where it is not known."""
    described = dict(zip(tables.machine_ids.tolist(), tables.machine_model.tolist(), strict=True))
    own = np.array([described.get(machine, -1) for machine in ids.tolist()], np.int64)
    return np.where(own < 0, len(schema.models), own)


def _measure(values: Float64, means: Float64, offsets: Int64, used: NDArray[np.bool_], halves: int) -> Measured:
    """Location, variance and pace, from the rows that are ``used``."""
    machines, features = len(offsets) - 1, len(means)
    location, variance = np.full((machines, features), np.nan), np.full((machines, features), np.nan)
    ratio = np.full((machines, features), np.nan)
    for m in range(machines):
        own = np.flatnonzero(used[offsets[m] : offsets[m + 1]]) + offsets[m]
        for f in range(features):
            readings = values[f // halves, own]
            readings = readings[~np.isnan(readings)]
            if len(readings):
                location[m, f] = np.median(readings)
                variance[m, f] = _variance(means[f, own], location[m, f])
                if variance[m, f] > 0:
                    ratio[m, f] = _variance(readings, location[m, f]) / variance[m, f]
    rows = np.add.reduceat(used.astype(np.int64), offsets[:-1])
    longest = np.sort(np.argsort(-rows, kind="stable")[:PACED])
    whole = [means[:, offsets[m] : offsets[m + 1]] for m in longest.tolist()]
    pace = np.array([_pace([own[f] for own in whole]) for f in range(features)])
    known = [each[~np.isnan(each)] for each in ratio.T]
    single = np.array([max(0.0, float(np.median(each)) - 1.0) if len(each) else 0.0 for each in known])
    return Measured(location, variance, rows, pace, single)


def _variance(means: Float64, location: float) -> float:
    """Robust variance about the location; the plain one where the mean rests most of the time. 0 if it is rounding."""
    away = np.abs(means[~np.isnan(means)] - location)
    middle, far = np.quantile(away, [0.5, 0.9]).tolist()
    deviation = MAD_TO_DEVIATION * middle
    if far > RESTING * deviation or deviation <= ROUNDING * abs(location):
        deviation = math.sqrt(float(np.mean(away**2)))
    return deviation**2 if deviation > ROUNDING * max(abs(location), np.finfo(np.float64).tiny) else 0.0


def _pace(series: list[Float64]) -> float:
    """The first lag, in rows, at which the autocorrelation of the series is below 1 / e."""
    longest = max(map(len, series))
    centred = [own - np.nanmean(own) for own in series if np.isfinite(own).any() and np.nanstd(own) > 0]
    for lag in range(1, longest // 2, max(1, longest // (2 * LAGS))):
        shares = [
            float(np.nanmean(own[lag:] * own[:-lag]) / np.nanmean(own**2))
            for own in centred
            if np.isfinite(own[lag:] * own[:-lag]).any()
        ]
        if not shares or math.fsum(shares) / len(shares) < 1 / math.e:
            return float(lag)
    return max(1.0, longest / 2)


def _levels(measured: Measured, models: Int64, machines: tuple[Id, ...], schema: Schema) -> Levels:
    """The levels of machines, models and fleet from what was measured."""
    count, features = measured.location.shape
    shape = (count + len(schema.models) + 1, features)
    result = Levels(
        machines, np.zeros(shape), np.full(shape, STILL), np.zeros(shape), 0.5 / measured.pace, measured.single
    )
    free = np.maximum(float(np.median(measured.rows)) / (2.0 * measured.pace) - 1.0, 1.0)
    for f in range(features):
        moved = measured.variance[:, f] > 0  # false for NaN
        for row in range(count, len(result.location)):
            mine = moved & (models == row - count) if row < len(result.location) - 1 else moved
            mine = mine if mine.any() else moved
            if mine.any():
                _of_model(result, row, f, measured.location[mine, f], measured.variance[mine, f], free[f])
        for m in np.flatnonzero(~np.isnan(measured.location[:, f])).tolist():
            result.location[m, f] = measured.location[m, f]
        for m in range(count):
            row = count + models[m]
            if np.isnan(measured.location[m, f]):  # it has no reading of this sensor: as a machine that is new
                for array in (result.location, result.scale, result.doubt):
                    array[m, f] = array[row, f]
            elif moved.any():
                lent = _agreement(measured.variance[moved & (models == models[m]), f], free[f])
                usual = result.scale[row, f] ** 2
                mean = (free[f] * measured.variance[m, f] + lent * usual) / (free[f] + lent)
                result.scale[m, f] = math.sqrt(mean * (1.0 + 1.0 / (free[f] + 1.0))) if mean > 0 else STILL
    return result


def _of_model(levels: Levels, row: int, f: int, location: Float64, variance: Float64, free: float) -> None:
    """Write the level of a model (or of the fleet) from those of its machines."""
    usual = math.exp(math.fsum(map(math.log, variance.tolist())) / len(variance))
    middle = float(np.median(location))
    within = usual / (free + 1.0)  # of the location itself
    apart = max(0.0, math.fsum(((location - middle) ** 2).tolist()) - (len(location) - 1) * within)
    levels.location[row, f], levels.scale[row, f] = middle, math.sqrt(usual)
    levels.doubt[row, f] = (PSEUDO + apart / usual) / (PSEUDO + len(location) - 1)


def _agreement(variance: Float64, free: float) -> float:
    """Degrees of freedom that the model lends: many where the machines' variances agree (Smyth 2004, section 6.2)."""
    if len(variance) < 3:
        return 0.0
    logs = [math.log(each) for each in variance.tolist()]
    mean = math.fsum(logs) / len(logs)
    spread = math.fsum((each - mean) ** 2 for each in logs) / (len(logs) - 1) - float(polygamma(1, free / 2))
    low, high = 0.05, MOST / 2  # bisection: the trigamma function falls
    if spread <= float(polygamma(1, high)):
        return MOST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(polygamma(1, middle)) > spread else (low, middle)
    return 2 * low
