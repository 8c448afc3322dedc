"""Custom features: registering and compiling them, and the same bits in training and serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError, Events, Float64, Schema, Tables
from closedloop.features.custom import unchanged_hours
from closedloop.features.custom_calls import compiled, slow
from closedloop.features.kernel import compute
from closedloop.features.registry import CUSTOM, Custom, feature
from closedloop.features.spec import FeatureSpec, fit_constants

Fleet = Callable[..., Tables]
HISTORY_HOURS = max(24 * 7, *(item.window_us // HOUR_US + 1 for item in CUSTOM.values()))
PARAMS = {"history_hours": HISTORY_HOURS}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Custom]:
    """A function that registers a custom feature for one test only."""
    registered = dict(CUSTOM)
    monkeypatch.setattr("closedloop.features.registry.CUSTOM", registered)
    monkeypatch.setattr("closedloop.features.spec.CUSTOM", registered)
    monkeypatch.setattr("closedloop.features.kernel.CUSTOM", registered)
    monkeypatch.setattr("closedloop.features.custom_calls.CUSTOM", registered)

    def add(function: Callable[..., float], name: str = "mine", window_hours: float = 5, sensors: Any = None) -> Custom:
        feature(name, unit="1", window_hours=window_hours, sensors=sensors)(function)
        return registered[name]

    return add


def run(tables: Tables, schema: Schema, name: str, last_only: bool = False) -> Float64:
    spec = FeatureSpec.from_params(PARAMS, schema)
    constants = fit_constants(tables, schema, 2**62)
    return compute(tables, spec, constants, schema, last_only).X[spec.names.index(name)]


@pytest.mark.parametrize("name", CUSTOM)
def test_every_registered_feature_is_used_alike_everywhere(name: str, schema: Schema, fleet: Fleet) -> None:
    """Training, a request with one window of the past, any other batch: the same bits."""
    custom = CUSTOM[name]
    for sampling, missing in (("even", 0.0), ("gaps", 0.02), ("jitter", 0.3)):
        tables = fleet(schema, rows=150, sampling=sampling, missing=missing)
        expected = run(tables, schema, name)
        for row in range(0, len(tables.time), 17):
            now = tables.time[row]
            keep = (tables.machine == tables.machine[row]) & (tables.time <= now)
            keep &= tables.time > now - custom.window_us
            window = Tables.of(
                tables.machine[keep],
                tables.time[keep],
                tables.values[:, keep],
                Events.empty(),
                Events.empty(),
                None,
                (tables.machine_ids, tables.machine_model, tables.machine_age),
            )
            spec = FeatureSpec.from_params(PARAMS, schema)
            constants = fit_constants(tables, schema, 2**62)
            answer = compute(window, spec, constants, schema, last_only=True).X[spec.names.index(name)]
            assert expected[row : row + 1].tobytes() == answer.tobytes()


@pytest.mark.parametrize("sampling", ["even", "jitter"])
def test_it_sees_its_window_oldest_first(sampling: str, register, schema: Schema, fleet: Fleet) -> None:
    def mine(hours: Float64, rotate: Float64, volt: Float64) -> float:
        return rotate[0] * 1e6 + volt[-1] * 1e3 + hours[0] + len(volt) / 100

    assert compiled(register(mine))[1] == ""
    tables = fleet(schema, sampling=sampling)
    found = run(tables, schema, "mine")
    for row in range(len(tables.time)):
        past = (tables.machine == tables.machine[row]) & (tables.time <= tables.time[row])
        inside = np.flatnonzero(past & (tables.time > tables.time[row] - 5 * HOUR_US))
        hours = (tables.time[inside] - tables.time[row]) / HOUR_US
        assert mine(hours, tables.values[1, inside], tables.values[0, inside]) == found[row]


@pytest.mark.parametrize("sensors", [1, 2, 3, 4])
@pytest.mark.parametrize("hours", [False, True])
def test_compiled_and_plain_python_agree(sensors, hours, register, schema: Schema, fleet: Fleet, monkeypatch) -> None:
    functions: dict[tuple[int, bool], Callable[..., float]] = {
        (1, False): lambda volt: volt.max(),
        (2, False): lambda volt, rotate: volt.max() - rotate[0],
        (3, False): lambda volt, rotate, pressure: volt.max() - rotate[0] + pressure[-1],
        (4, False): lambda volt, rotate, pressure, vibration: volt.max() - rotate[0] + pressure[-1] + len(vibration),
        (1, True): lambda hours, volt: volt.max() + hours[0],
        (2, True): lambda hours, volt, rotate: volt.max() - rotate[0] + hours[0],
        (3, True): lambda hours, volt, rotate, pressure: volt.max() - rotate[0] + pressure[-1] + hours[0],
        (4, True): lambda hours, volt, rotate, pressure, vibration: hours[0] - rotate[0] + pressure[-1] + vibration[0],
    }
    custom = register(functions[sensors, hours])
    tables = fleet(schema, sampling="gaps")
    assert compiled(custom)[1] == ""
    expected = run(tables, schema, "mine")
    monkeypatch.setattr("closedloop.features.custom_calls.compiled", lambda custom: (custom.function, "as if refused"))
    assert expected.tobytes() == run(tables, schema, "mine").tobytes()


def test_what_numba_refuses_is_called_from_python_and_says_so(register, schema: Schema, fleet: Fleet) -> None:
    def mine(volt: Float64) -> float:
        return float({"largest": np.nanmax}["largest"](volt))

    function, reason = compiled(register(mine))
    assert function is mine
    assert not reason.startswith("Failed in")
    assert slow(("mine", *CUSTOM)) == [f"mine: {reason}"]
    tables = fleet(schema, machines=1, rows=20)
    assert tables.values[0, 0] == run(tables, schema, "mine")[0]


def test_more_sensors_than_can_be_compiled_are_taken_too(register, schema_of, fleet: Fleet) -> None:
    register(lambda a, b, c, d, e: a[-1] + e[-1])
    schema = schema_of(60, tuple("abcde"))
    tables = fleet(schema, rows=10)
    assert slow(("mine",)) == ["mine: more than 4 sensors"]
    assert run(tables, schema, "mine").tolist() == (tables.values[0] + tables.values[4]).tolist()


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("mistake", ["outside", "raises"])
def test_a_function_that_fails_is_named(numba, mistake, register, schema: Schema, fleet: Fleet, monkeypatch) -> None:
    """Without checked bounds an index outside the window would read other rows of the machine."""

    def outside(volt: Float64) -> float:
        return volt[-3]

    def raises(volt: Float64) -> float:
        if len(volt) < 3:
            raise ValueError("too few")
        return 0.0

    register({"outside": outside, "raises": raises}[mistake])
    if not numba:
        monkeypatch.setattr("closedloop.features.custom_calls.compiled", lambda custom: (custom.function, ""))
    with pytest.raises(DataError, match="custom feature 'mine' raised"):
        run(fleet(schema, rows=20), schema, "mine")


@pytest.mark.parametrize("numba", [True, False])
def test_a_function_cannot_change_the_telemetry(numba, register, schema: Schema, fleet: Fleet, monkeypatch) -> None:
    def mine(volt: Float64) -> float:
        volt[0] = 0.0
        return 0.0

    custom = register(mine)
    if not numba:
        monkeypatch.setattr("closedloop.features.custom_calls.compiled", lambda custom: (custom.function, ""))
    else:
        assert compiled(custom)[1]
    with pytest.raises(DataError, match="must not write to its arguments"):
        run(fleet(schema, rows=20), schema, "mine")


def test_a_fleet_without_its_sensor_leaves_it_out(register, schema_of) -> None:
    register(lambda volt, humidity: 0.0)
    spec = FeatureSpec.from_params(PARAMS, schema_of(60, ("volt", "rotate")))
    assert "mine" not in spec.names
    assert "mine: this fleet has no sensor 'humidity'" in spec.skipped


def test_a_window_longer_than_the_history_leaves_it_out(register, schema: Schema) -> None:
    """A fleet of short series has a short history, and must not fail because of a feature made for another fleet."""
    register(lambda volt: 0.0, window_hours=HISTORY_HOURS + 1)
    spec = FeatureSpec.from_params(PARAMS, schema)
    assert "mine" not in spec.names
    window = f"{HISTORY_HOURS + 1}h is longer than features.history_hours ({HISTORY_HOURS}h)"
    assert f"mine: its window of {window}" in spec.skipped


@pytest.mark.parametrize("hours", [False, True])
def test_a_sensor_that_no_argument_can_be_called_after_is_named(hours, register, schema_of, fleet: Fleet) -> None:
    functions: dict[bool, Callable[..., float]] = {
        False: lambda load, oil: load[-1] * 1e3 - oil[0],
        True: lambda hours, load, oil: load[-1] * 1e3 - oil[0] + hours[-1],
    }
    custom = register(functions[hours], sensors=["load %", "oil [°C]"])
    assert compiled(custom)[1] == ""
    schema = schema_of(60, ("oil [°C]", "flow", "load %"))
    tables = fleet(schema, machines=1, rows=4)
    assert run(tables, schema, "mine").tolist() == (tables.values[2] * 1e3 - tables.values[0, 0]).tolist()


@pytest.mark.parametrize(
    ("sensors", "message"),
    [
        (["load %"], r"sensors names 1, and the function takes 2 \(load, oil\); name one sensor for each"),
        (["a", "b", "c"], "sensors names 3, and the function takes 2"),
        ("load %", r"must be a list of names; write sensors=\['load %'\]"),
        ([1, "b"], "must be a list of names, each a text"),
        (b"ab", "must be a list of names, each a text"),
        ({"a", "b"}, "must be a list of names, each a text"),  # a set has no order
        ((name for name in "ab"), "must be a list of names, each a text"),
    ],
)
def test_names_that_do_not_fit_the_arguments_are_refused(sensors, message: str, register) -> None:
    with pytest.raises(DataError, match=message):
        register(lambda load, oil: 0.0, sensors=sensors)


def test_a_taken_name_is_refused(register) -> None:
    register(lambda volt: 0.0)
    with pytest.raises(DataError, match="'mine' is defined twice"):
        register(lambda volt: 0.0)


def test_a_name_that_another_family_gives_is_refused(register, schema: Schema) -> None:
    register(lambda volt: 0.0, name="comp1_days_since")
    with pytest.raises(DataError, match="two features are named 'comp1_days_since'"):
        FeatureSpec.from_params(PARAMS, schema)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 0.0, "name no sensor"),
        (lambda hours: 0.0, "name no sensor"),
        (lambda volt, hours: 0.0, "'hours' comes before the sensors"),
        (lambda *volt: 0.0, "plain arguments"),
        (lambda volt=1: 0.0, "plain arguments"),
        (lambda volt, *, rotate: 0.0, "plain arguments"),
    ],
)
def test_arguments_that_name_nothing_are_refused(function, message: str, register) -> None:
    with pytest.raises(DataError, match=message):
        register(function)


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_a_window_must_be_positive(hours: float, register) -> None:
    with pytest.raises(DataError, match="window_hours"):
        register(lambda volt: 0.0, window_hours=hours)


def test_the_example_is_compiled() -> None:
    assert slow(("unchanged_hours",)) == []


def test_the_decorator_gives_the_function_back() -> None:
    hours = np.array([-2.0, -1.0, 0.0])
    moving = np.array([1.0, 2.0, 3.0])
    assert unchanged_hours(hours, moving, moving, moving, moving) == 0
    assert unchanged_hours(hours, moving, moving, np.ones(3), np.array([2.0, 1.0, 1.0])) == 2
    assert unchanged_hours(hours, moving, moving, moving, np.array([2.0, 1.0, 1.0])) == 1
    assert unchanged_hours(hours, moving, moving, moving, np.array([1.0, 1.0, np.nan])) == 0
