"""The level family: frozen for machines that were trained on, moving with the window of a new one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError, Events, Float64, Schema, Tables
from closedloop.features.baseline import Constants, Levels
from closedloop.features.kernel import compute
from closedloop.features.level_fit import fit_levels, unseen
from closedloop.features.levels import ALARM
from closedloop.features.spec import FeatureSpec, fit_constants

SCHEMA = Schema(("a", "b"), ("comp1",), (), ("model1",), 60, ((-1e9, 1e9),) * 2)
SPEC = FeatureSpec.from_params({"history_hours": 72, "level": {"half_lives_hours": [6]}}, SCHEMA)
HOURS = 40 * 24


def tables_of(values: Float64) -> Tables:
    """values (machines, sensors, hours); the machines are 1, 2, …, all of one model."""
    machines, sensors, hours = values.shape
    ids = np.arange(1, machines + 1)
    columns = np.ascontiguousarray(np.moveaxis(values, 0, 1).reshape(sensors, -1))
    described = (ids, np.zeros(machines, np.int16), np.ones(machines))
    time = np.tile(np.arange(hours) * HOUR_US, machines)
    return Tables.of(np.repeat(ids, hours), time, columns, Events.empty(), Events.empty(), None, described)


def noise(machines: int, apart: float, hours: int = HOURS, seed: int = 0) -> Float64:
    rng = np.random.default_rng(seed)
    return 50.0 + apart * rng.standard_normal((machines, 2, 1)) + rng.standard_normal((machines, 2, hours))


def fitted(tables: Tables, come_back: bool = True) -> tuple[Constants, tuple[Levels, ...]]:
    constants = fit_constants(tables, SCHEMA, 2**62, SPEC.history_us)
    return fit_levels(tables, SPEC, SCHEMA, constants, come_back)


def level(tables: Tables, constants: Constants, last_only: bool = False) -> Float64:
    """The level of sensor a, in the order of the rows."""
    return compute(tables, SPEC, constants, SCHEMA, last_only).X[SPEC.names.index("a_level_6h")]


def test_the_level_of_a_known_machine_is_the_distance_of_its_recent_mean() -> None:
    tables = tables_of(noise(3, 20.0))
    constants, _ = fitted(tables)
    assert constants.levels is not None
    assert constants.levels.machines == (1, 2, 3)
    values, weights = tables.values[0, HOURS : 2 * HOURS], 0.5 ** (np.arange(72) / 6)
    mean = (values[::-1][:72] * weights).sum() / weights.sum()
    expected = (mean - np.median(values)) / constants.levels.scale[1, 0]
    assert level(tables, constants)[2 * HOURS - 1] == pytest.approx(expected, rel=1e-9)
    assert 0.8 < level(tables, constants)[HOURS + 72 : 2 * HOURS].std() < 1.2


@pytest.mark.parametrize("apart", [0.0, 5.0, 20.0])
@pytest.mark.parametrize("machines", [1, 2, 3, 10])
def test_a_lasting_shift_of_a_known_machine_stays_visible(machines: int, apart: float) -> None:
    """Five days of five deviations: with a baseline from the window they are the baseline after three."""
    constants, _ = fitted(tables_of(noise(machines, apart)))
    later = noise(machines, apart, HOURS + 240)
    rng = np.random.default_rng(9)
    later[:, :, HOURS:] = later[:, :, :240] - noise(machines, apart)[:, :, :240] + later[:, :, :240]
    later[:, :, HOURS:] = np.median(later[:, :, :HOURS], axis=2)[:, :, None] + rng.standard_normal((machines, 2, 240))
    later[0, 0, -120:] += 5.0
    found = np.abs(level(tables_of(later), constants)).reshape(machines, -1)
    quiet = np.quantile(found[:, HOURS:-120], 0.99)
    assert quiet < 4
    assert found[0, -120 + 6 :].min() > 1.5 * quiet


@pytest.mark.parametrize("readings", [1, 2, 6, 72])
def test_a_mean_of_few_readings_lies_no_more_deviations_away_than_that_of_many(readings: int) -> None:
    """A client may send less than the whole history, and a sensor may have been silent."""
    tables = tables_of(noise(3, 20.0))
    constants, _ = fitted(tables)
    found = []
    for end in range(200, HOURS, 25):
        hour = np.arange(len(tables.time)) % HOURS
        few = tables.rows((tables.machine == 2) & (hour <= end) & (hour > end - readings))
        found.append(level(few, constants, last_only=True)[-1])
    assert 0.7 < np.std(found) < 1.4


def test_a_new_machine_moves_to_its_own_level_and_stops_while_it_is_far_from_it() -> None:
    constants, _ = fitted(tables_of(noise(10, 20.0)))
    new = tables_of(20.0 + noise(1, 0.0, 100, seed=3))
    new = replace(new, machine=new.machine + 1000)
    assert np.abs(level(new, constants)[48:]).max() < ALARM
    values = new.values.copy()
    values[0, 50:] += 2.0
    assert np.abs(level(replace(new, values=values), constants)[60:]).min() > ALARM


def test_a_new_machine_of_a_fleet_that_is_alike_is_compared_with_the_fleet() -> None:
    constants, _ = fitted(tables_of(noise(40, 0.0)))
    new = tables_of(5.0 + noise(1, 0.0, 100, seed=3))
    assert level(replace(new, machine=new.machine + 1000), constants)[-1] > ALARM


def test_machines_that_do_not_come_back_have_no_level_of_their_own() -> None:
    constants, without = fitted(tables_of(noise(5, 20.0)), come_back=False)
    assert constants.levels is not None
    assert (constants.levels.machines, without) == ((), ())


def test_a_level_that_did_not_see_a_stretch_is_further_from_it() -> None:
    """A machine whose level wanders: what training says of it is better than what comes later."""
    values = noise(1, 0.0)
    values[0, 0] += np.linspace(0, 10, HOURS)
    tables = tables_of(values)
    constants, without = fitted(tables)
    assert constants.levels is not None
    z = compute(tables, SPEC, constants, SCHEMA).X[-2:]
    honest = unseen(z, 1, constants.levels, without)
    assert np.abs(honest[0]).max() > 1.3 * np.abs(z[0]).max()
    assert np.abs(honest[1]).max() < 1.3 * np.abs(z[1]).max()


def test_scales_of_machines_that_agree_are_drawn_together_and_others_are_not() -> None:
    alike, _ = fitted(tables_of(noise(20, 5.0)))
    values = noise(20, 5.0)
    values[::2] = 50.0 + 10 * (values[::2] - 50.0)
    other, _ = fitted(tables_of(values))
    assert alike.levels is not None
    assert other.levels is not None
    assert np.ptp(alike.levels.scale[:20, 0]) < 0.05 * alike.levels.scale[-1, 0]
    assert other.levels.scale[0, 0] > 5 * other.levels.scale[1, 0]


def test_a_sensor_that_never_moved_or_was_never_read_says_nothing() -> None:
    values = noise(3, 5.0)
    values[:, 1] = 7.0
    values[2, 0] = np.nan
    tables = tables_of(values)
    constants, _ = fitted(tables)
    moved = tables_of(values + 1.0)
    X = compute(moved, SPEC, constants, SCHEMA).X
    assert np.abs(X[SPEC.names.index("b_level_6h")]).max() < 1e-9
    assert np.isnan(X[SPEC.names.index("a_level_6h")][2 * HOURS :]).all()
    assert np.isfinite(X[SPEC.names.index("a_level_6h")][: 2 * HOURS]).all()


def test_the_last_row_has_the_bits_that_it_has_among_all() -> None:
    constants, _ = fitted(tables_of(noise(2, 5.0)))
    values = noise(4, 5.0, 300, seed=4)
    values[:, :, ::7] = np.nan
    tables = tables_of(values)
    every = level(tables, constants)
    assert every[299::300].tobytes() == level(tables, constants, last_only=True).tobytes()
    window = tables.rows(tables.time > 299 * HOUR_US - SPEC.history_us)
    assert every[299::300].tobytes() == level(window, constants, last_only=True).tobytes()


@pytest.mark.parametrize("machines", [(3, 7), ("press 7", "Öfen"), ()])
def test_levels_survive_the_bundle(machines) -> None:
    shape = (len(machines) + 2, 2)
    rng = np.random.default_rng(0)
    made = Levels(machines, rng.random(shape), rng.random(shape) + 1, rng.random(shape), rng.random(2), rng.random(2))
    again = Levels.from_arrays(made.to_arrays())
    again.check(1, 2)
    assert again.machines == machines
    assert [array.tobytes() for array in made.to_arrays().values()] == [
        array.tobytes() for array in again.to_arrays().values()
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scale": None}, "'scale' is missing"),
        ({"more": np.ones(1)}, "'more' is unknown"),
        ({"machines": np.frombuffer(b"\xff\n", np.uint8)}, "not a list of machines"),
        ({"scale": np.ones((1, 2))}, "shapes"),
        ({"scale": np.zeros((4, 2))}, "a scale is 0"),
        ({"doubt": np.full((4, 2), np.nan)}, "'doubt' is not"),
        ({"gain": np.ones(3)}, "'gain' is not"),
        ({"machines": np.frombuffer(b"1\n1", np.uint8)}, "twice"),
    ],
)
def test_broken_levels_are_refused(change, why) -> None:
    good = Levels((1, 2), np.zeros((4, 2)), np.ones((4, 2)), np.zeros((4, 2)), np.ones(2), np.ones(2)).to_arrays()
    broken = {name: array for name, array in (good | change).items() if array is not None}
    with pytest.raises(DataError, match=why):
        Levels.from_arrays(broken).check(1, 2)


def test_a_spec_with_levels_needs_them() -> None:
    tables = tables_of(noise(2, 0.0))
    with pytest.raises(DataError, match="levels"):
        compute(tables, SPEC, fit_constants(tables, SCHEMA, 2**62), SCHEMA)
