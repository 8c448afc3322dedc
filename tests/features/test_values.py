"""The value of each feature, compared with pandas and with plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from closedloop.data.schema import HOUR_US, Events, Float64, Schema, Tables
from closedloop.features.baseline import MAD_TO_DEVIATION, Constants
from closedloop.features.kernel import Features, compute
from closedloop.features.spec import FeatureSpec

Fleet = Callable[..., Tables]
SAMPLINGS = [("even", 0.0), ("even", 0.02), ("gaps", 0.0), ("jitter", 0.3)]
START_US = 1_420_092_000_000_000


SHIFT = {"shift": {"steps": 8, "weight": 0.5}}


def flat_constants(schema: Schema, location_trust: float = 0.0, scale_trust: float = 0.0) -> Constants:
    shape = (len(schema.models) + 1, len(schema.sensors))
    location = 98.0 + np.arange(np.prod(shape)).reshape(shape)  # each model and sensor has its own
    return Constants(location, location / 8, np.full(shape, location_trust), np.full(shape, scale_trust))


def run(tables: Tables, schema: Schema, constants: Constants | None = None, **params: object) -> Features:
    spec = FeatureSpec.from_params({"history_hours": 24, **params}, schema)
    return compute(tables, spec, constants or flat_constants(schema), schema)


def column(features: Features, schema: Schema, name: str, **params: object) -> Float64:
    spec = FeatureSpec.from_params({"history_hours": 24, **params}, schema)
    return features.X[spec.names.index(name)]


def by_machine(tables: Tables) -> list[slice]:
    _, offsets = tables.bounds()
    return [slice(low, high) for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def window(tables: Tables, rows: slice, row: int, sensor: int, hours: float) -> tuple[Float64, Float64]:
    """Hours before row and readings of its window, oldest first, without the missing ones."""
    time, value = tables.time[rows][: row + 1], tables.values[sensor, rows][: row + 1]  # Tables, no frame
    keep = (time > time[row] - hours * HOUR_US) & ~np.isnan(value)
    return (time[keep] - time[row]) / HOUR_US, value[keep]


@pytest.mark.parametrize(("sampling", "missing"), SAMPLINGS)
@pytest.mark.parametrize("minutes", [60, 10])
def test_rolling_means_and_deviations_are_those_of_pandas(minutes, sampling, missing, schema_of, fleet: Fleet) -> None:
    schema = schema_of(minutes)
    tables = fleet(schema, rows=400, sampling=sampling, missing=missing)
    params = {"rolling": {"windows_hours": [0.5, 3, 24]}}
    features = run(tables, schema, **params)
    for rows in by_machine(tables):
        for s, sensor in enumerate(schema.sensors):
            series = pd.Series(tables.values[s, rows], pd.to_datetime(tables.time[rows], unit="us"))
            for hours in (0.5, 3, 24):
                rolling = series.rolling(pd.Timedelta(hours=hours))
                for kind, expected in (("mean", rolling.mean()), ("std", rolling.std())):
                    actual = column(features, schema, f"{sensor}_{kind}_{hours:g}h", **params)[rows]
                    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-6 if kind == "std" else 0)


@pytest.mark.parametrize(("sampling", "missing"), SAMPLINGS)
@pytest.mark.parametrize("trust", [0.0, 0.4])
def test_ewma_and_cusum_are_deviations_from_the_baseline(
    sampling, missing, trust, schema: Schema, fleet: Fleet
) -> None:
    """The law: a baseline drawn by its trust towards the window's median and MAD, if half of the window is there."""
    tables = fleet(schema, rows=90, sampling=sampling, missing=missing)
    params = {"trend": {"half_lives_hours": [2, 6], "cusum_slack": 0.5}}
    constants = flat_constants(schema, trust, trust / 2)
    features = run(tables, schema, constants, **params)
    for m, rows in enumerate(by_machine(tables)):
        model = int(tables.machine_model[m]) if m < len(tables.machine_model) else -1  # the last row is the fleet's
        for row in range(rows.stop - rows.start):
            for s, sensor in enumerate(schema.sensors):
                hours, readings = window(tables, rows, row, s, 24)
                centre, spread = constants.location[model, s], constants.scale[model, s]
                if len(readings) >= 12:
                    median = np.median(readings)
                    mad = MAD_TO_DEVIATION * np.median(np.abs(readings - median))
                    centre, spread = centre + trust * (median - centre), spread + trust / 2 * (mad - spread)
                up = down = 0.0
                for z in (readings - centre) / spread:
                    up, down = max(up + z - 0.5, 0.0), max(down - z - 0.5, 0.0)
                expected = [np.nan if not len(readings) else up if up >= down else -down]
                for half_life in (2, 6):
                    weights = 0.5 ** (-hours / half_life)
                    mean = (weights * readings).sum() / weights.sum() if len(readings) else np.nan
                    expected.append((mean - centre) / spread)
                names = [f"{sensor}_{name}" for name in ("cusum", "ewma_2h", "ewma_6h")]
                actual = [column(features, schema, name, **params)[rows][row] for name in names]
                np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("sampling", "missing"), SAMPLINGS)
def test_change_is_the_newer_half_less_the_older(sampling, missing, schema: Schema, fleet: Fleet) -> None:
    tables = fleet(schema, rows=90, sampling=sampling, missing=missing)
    params = {"change": {"windows_hours": [5, 24]}}
    features = run(tables, schema, **params)
    for rows in by_machine(tables):
        for row in range(rows.stop - rows.start):
            for hours in (5, 24):
                before, readings = window(tables, rows, row, 0, hours)
                newer = before > -hours / 2
                known = newer.any() and not newer.all()
                expected = readings[newer].mean() - readings[~newer].mean() if known else np.nan
                actual = column(features, schema, f"volt_change_{hours}h", **params)[rows][row]
                np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


def one_machine(schema: Schema, hours: list[float], errors: list[tuple[float, int]], maint: list[tuple[float, int]]):
    def events(pairs: list[tuple[float, int]]) -> Events:
        when = np.array([START_US + hour * HOUR_US for hour, _ in pairs], np.int64)
        return Events.of(np.full(len(pairs), 4), when, np.array([code for _, code in pairs], np.int16))

    time = np.array([START_US + hour * HOUR_US for hour in hours], np.int64)
    values = np.full((len(schema.sensors), len(hours)), 100.0)
    machines = (np.array([4]), np.array([1], np.int16), np.array([7.5]))
    return Tables.of(np.full(len(hours), 4), time, values, events(errors), events(maint), None, machines)


def test_errors_are_counted_in_the_window_and_their_age_given_inside_the_history(schema: Schema) -> None:
    hours = [0, 3, 4, 23, 24, 25, 27, 60]
    tables = one_machine(schema, hours, errors=[(0, 0), (0.5, 0), (3, 0), (24.5, 1), (-30, 2)], maint=[])
    params = {"errors": {"windows_hours": [3, 24]}}
    features = run(tables, schema, **params)

    def of(name: str) -> list[float]:
        return column(features, schema, name, **params).tolist()

    assert of("error1_count_3h") == [1, 2, 1, 0, 0, 0, 0, 0]
    assert of("error1_count_24h") == [1, 3, 3, 3, 2, 1, 0, 0]
    np.testing.assert_equal(of("error1_hours_since"), [0, 0, 1, 20, 21, 22, np.nan, np.nan])
    np.testing.assert_equal(of("error2_hours_since"), [np.nan] * 5 + [0.5, 2.5, np.nan])
    np.testing.assert_equal(of("error3_hours_since"), [np.nan] * 8)


def test_days_since_a_replacement_reach_back_for_ever(schema: Schema) -> None:
    tables = one_machine(schema, [0, 12, 36], errors=[], maint=[(-24 * 400, 0), (12, 0), (13, 1)])
    features = run(tables, schema)
    assert column(features, schema, "comp1_days_since").tolist() == [400, 0, 1]
    np.testing.assert_equal(column(features, schema, "comp2_days_since"), [np.nan, np.nan, 23 / 24])


def test_age_and_model_are_missing_where_the_machine_is_not_described(schema: Schema) -> None:
    known = run(one_machine(schema, [0, 1], [], []), schema)
    assert column(known, schema, "age").tolist() == [7.5, 7.5]
    assert column(known, schema, "model=model1").tolist() == [0, 0]
    assert column(known, schema, "model=model2").tolist() == [1, 1]
    unmodelled = replace(one_machine(schema, [0, 1], [], []), machine_model=np.array([-1], np.int16))
    assert column(run(unmodelled, schema), schema, "age").tolist() == [7.5, 7.5]
    undescribed = replace(unmodelled, machine_ids=np.array([5]))
    assert np.isnan(column(run(undescribed, schema), schema, "age")).all()
    for name in ("model=model1", "model=model2"):
        for tables in (unmodelled, undescribed):
            assert np.isnan(column(run(tables, schema), schema, name)).all()


def test_history_is_what_the_window_holds(schema: Schema) -> None:
    features = run(one_machine(schema, [0, 1, 10, 40, 41], [], []), schema)
    assert features.history_hours.tolist() == [1, 2, 11, 1, 2]
    assert run(one_machine(schema, list(range(30)), [], []), schema).history_hours.max() == 24


def test_a_gap_is_honoured_not_bridged(schema: Schema) -> None:
    """Two readings 10 hours apart are neighbours in the table, but do not share a window of 3 hours."""
    tables = one_machine(schema, [0, 1, 11], [], [])
    tables.values[0] = [10.0, 20.0, 90.0]
    params = {"rolling": {"windows_hours": [3]}}
    features = run(tables, schema, **params)
    assert column(features, schema, "volt_mean_3h", **params).tolist() == [10, 15, 90]
    assert np.isnan(column(features, schema, "volt_std_3h", **params)[2])


def test_a_still_sensor_deviates_by_nothing(schema: Schema) -> None:
    params = {"rolling": {"windows_hours": [3, 24]}}
    features = run(one_machine(schema, list(range(60)), [], []), schema, **params)
    for hours in (3, 24):
        assert column(features, schema, f"volt_std_{hours}h", **params)[1:].tolist() == [0] * 59


def evidence(hours: Float64, deviation: Float64, span: float, steps: int, weight: float) -> list[float]:
    """The four shift features of one window, the plainest way: every course is drawn and fitted by itself."""
    edges = 24 * np.arange(steps + 1) / steps
    inside = edges <= span
    going: list[tuple[float, ...]] = []
    over = []
    for i in np.flatnonzero(inside[1:]) + 1:
        for j in range(i):
            course = np.clip((edges[i] - hours) / (edges[i] - edges[j]), 0.0, 1.0)
            if (course @ course) > 0:
                size = (course @ deviation) / (course @ course)
                going.append((size * (course @ deviation), size, edges[i], edges[j]))
            else:
                going.append((0.0, 0.0, edges[i], edges[j]))
            if j > 0:
                pulse = (hours >= edges[j]) & (hours < edges[i])
                over.append(deviation[pulse].sum() ** 2 / max(pulse.sum(), 1))
    if not going:
        return [np.nan] * 4
    best = max([0.0, *(one[0] for one in going), *over])

    def weighed(gain: float) -> float:
        return max(1 + weight / 2 * (gain - best) / 1024, 0.0) ** 1024

    w = np.array([weighed(one[0]) for one in going])
    against = sum(weighed(gain) for gain in over) + 12 * (steps * (steps + 1) // 2) * weighed(0.0)
    if w.sum() == 0:
        return [0.0] * 4
    return [max(np.log(w.sum() / against), 0.0), *(w @ np.array(going)[:, 1:] / w.sum())]


@pytest.mark.parametrize(("sampling", "missing"), SAMPLINGS)
@pytest.mark.parametrize("away", [0.0, 3.0])
def test_shifts_weigh_every_course_by_its_evidence(sampling, missing, away, schema: Schema, fleet: Fleet) -> None:
    tables = fleet(schema, machines=2, rows=60, sampling=sampling, missing=missing)
    constants = flat_constants(schema)
    for rows in by_machine(tables):
        tables.values[0, rows][-15:] += away * constants.scale[0, 0]
    features = run(tables, schema, constants, **SHIFT)
    odds = []
    for window_of, rows in zip(tables.windows(), by_machine(tables), strict=True):
        for row in range(rows.stop - rows.start):
            hours, value = window(tables, rows, row, 0, 24)
            deviation = (value - constants.location[window_of.model, 0]) / constants.scale[window_of.model, 0]
            span = -hours[0] + schema.period_us / HOUR_US if len(hours) else 0.0
            expected = evidence(-hours, deviation, span, 8, 0.5)
            names = ("shift_odds", "shift_size", "shift_hours", "shift_held_hours")
            found = [column(features, schema, f"{schema.sensors[0]}_{name}", **SHIFT)[rows][row] for name in names]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
            odds.append(expected[0])
    assert (np.nanmax(odds) > 2) == (away > 0)  # and the case is not an idle one


def test_the_odds_of_a_shift_fall_as_soon_as_it_is_over(schema: Schema, fleet: Fleet) -> None:
    tables, constants = fleet(schema, machines=1, rows=200), flat_constants(schema)
    known = schema.models.index("model1") if len(tables.machine_model) else -1
    tables.values[0] = (
        constants.location[known, 0]
        + constants.scale[known, 0] * np.where(np.arange(200) % 2, 1, -1)[: tables.values.shape[1]]
    )
    start, stop = 40, 60
    tables.values[0, start:stop] += 3 * constants.scale[known, 0]
    features = run(tables, schema, constants, **SHIFT)
    odds, since = (column(features, schema, f"{schema.sensors[0]}_shift_{name}", **SHIFT) for name in ("odds", "hours"))
    assert np.nanmax(odds[:start]) == 0
    assert odds[start + 10 : stop].min() > 5
    assert odds[stop + 6] == 0
    assert since[stop - 1] == pytest.approx(20, abs=4)
