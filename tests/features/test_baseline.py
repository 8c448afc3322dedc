from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError, Events, Float64, Schema, Tables
from closedloop.features.baseline import MAD_TO_DEVIATION, MAX_TRUST, Constants, fit_constants

SCHEMA = Schema(("a", "b"), ("comp1",), (), ("model1", "model2", "model3"), 60, ((0.0, 1.0),) * 2)
EVER = 2**62


def tables_of(values: Float64, models: list[int]) -> Tables:
    """values (machines, sensors, hours); the machines are 1, 2, …"""
    machines, sensors, hours = values.shape
    ids = np.arange(1, machines + 1)
    columns = np.moveaxis(values, 0, 1).reshape(sensors, -1)
    described = (ids, np.array(models, np.int16), np.ones(machines))
    machine, time = np.repeat(ids, hours), np.tile(np.arange(hours) * HOUR_US, machines)
    return Tables.of(machine, time, columns, Events.empty(), Events.empty(), None, described)


def normal(machines: int, between: float = 0.0, hours: int = 720, noise: Float64 | float = 1.0) -> Float64:
    rng = np.random.default_rng(3)
    offsets = between * rng.standard_normal((machines, 2, 1))
    return 50.0 + offsets + np.reshape(noise, (-1, 1, 1)) * rng.standard_normal((machines, 2, hours))


def test_location_is_the_median_and_scale_the_mad_of_each_model() -> None:
    values = normal(6)
    values[3:] += 20.0
    values[:, 1] *= 3.0
    found = fit_constants(tables_of(values, [0, 0, 0, 1, 1, 1]), SCHEMA, EVER)
    assert (4, 2) == found.location.shape == found.scale.shape
    for row, part in ((0, values[:3]), (1, values[3:]), (3, values)):
        readings = np.moveaxis(part, 1, 0).reshape(2, -1)
        medians = np.median(readings, axis=1)
        mads = MAD_TO_DEVIATION * np.median(np.abs(readings - medians[:, None]), axis=1)
        np.testing.assert_allclose(found.location[row], medians)
        np.testing.assert_allclose(found.scale[row], mads)


def test_a_model_without_readings_and_a_machine_without_a_model_get_the_fleets() -> None:
    found = fit_constants(tables_of(normal(3), [0, -1, 0]), SCHEMA, EVER)
    for array in found.to_arrays().values():
        assert array[3].tolist() == array[2].tolist() == array[1].tolist()
    assert found.location[0].tolist() != found.location[3].tolist()


def test_rows_after_the_time_and_missing_ones_are_not_used() -> None:
    values = normal(3)
    expected = fit_constants(tables_of(values[:, :, :400], [0, 0, 0]), SCHEMA, EVER)
    values[:, :, 400:] = 1e6
    values = np.insert(values, [7, 90], np.nan, axis=2)
    found = fit_constants(tables_of(values, [0, 0, 0]), SCHEMA, 401 * HOUR_US)
    for name in ("location", "scale"):
        assert expected.to_arrays()[name].tolist() == found.to_arrays()[name].tolist()


def test_machines_that_are_alike_are_not_trusted_to_know_better() -> None:
    found = fit_constants(tables_of(normal(40), [0] * 40), SCHEMA, EVER)
    assert found.location_trust.max() < 0.1
    assert found.scale_trust.max() < 0.1


def test_machines_that_differ_are_trusted_by_how_much_they_differ() -> None:
    """With offsets of s and window medians that vary by w, the trust is s² / (s² + w²); w² is π / 2 · 1 / 72."""
    window = np.pi / 2 / 72
    for between in (0.15, 0.5):
        found = fit_constants(tables_of(normal(200, between), [0] * 200), SCHEMA, EVER)
        expected = between**2 / (between**2 + window)
        np.testing.assert_allclose(found.location_trust[3], expected, atol=0.08)
    assert fit_constants(tables_of(normal(20, 50.0), [0] * 20), SCHEMA, EVER).location_trust.max() == MAX_TRUST


def test_machines_of_different_noise_are_trusted_with_their_own_scale() -> None:
    noise = np.random.default_rng(0).choice([1.0, 4.0], 30)
    found = fit_constants(tables_of(normal(30, noise=noise), [0] * 30), SCHEMA, EVER)
    assert found.scale_trust[3].min() > 0.8


def test_two_machines_say_nothing_of_how_machines_differ() -> None:
    found = fit_constants(tables_of(normal(2, 5.0), [0, 0]), SCHEMA, EVER)
    assert found.location_trust.max() == found.scale_trust.max() == 0


def test_a_sensor_that_hardly_or_never_moved_still_has_a_scale() -> None:
    values = np.full((3, 2, 100), 5.0)
    values[0, 0, 0] = 8.0
    found = fit_constants(tables_of(values, [0, 0, 0]), SCHEMA, EVER)
    assert values[:, 0].std() == pytest.approx(found.scale[3, 0])
    assert found.scale[3, 1] == 1


def test_a_sensor_without_a_reading_is_refused() -> None:
    values = normal(2)
    values[:, 1] = np.nan
    with pytest.raises(DataError, match=r"telemetry\.b: no reading"):
        fit_constants(tables_of(values, [0, 0]), SCHEMA, EVER)


def test_they_survive_the_bundle(schema: Schema, fleet: Callable[..., Tables]) -> None:
    found = fit_constants(fleet(schema), schema, EVER)
    again = Constants.from_arrays(found.to_arrays())
    for name, array in found.to_arrays().items():
        assert array.tobytes() == again.to_arrays()[name].tobytes()
    broken = found.to_arrays()
    del broken["scale"]
    with pytest.raises(DataError, match="'scale' is missing"):
        Constants.from_arrays(broken)
    with pytest.raises(DataError, match="differ"):
        Constants.from_arrays(broken | {"scale": np.ones((1, 2))})
