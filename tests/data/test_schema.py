"""The schema, and the tables as NumPy columns."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data import schema as schema_module
from closedloop.data.schema import DataError, Events, Schema, Tables

RAW = {
    "sensors": {"temperature": [-40, 120], "flow": [0, 9.5]},
    "components": ["pump"],
    "errors": [],
    "models": ["a", "b"],
    "sampling_minutes": 10,
}


def test_the_reference_fleet_is_that_of_the_reference_data(schema):
    assert schema == Schema(
        sensors=("volt", "rotate", "pressure", "vibration"),
        components=("comp1", "comp2", "comp3", "comp4"),
        errors=("error1", "error2", "error3", "error4", "error5"),
        models=("model1", "model2", "model3", "model4"),
        sampling_minutes=60,
        ranges=((0.0, 400.0), (0.0, 1000.0), (0.0, 300.0), (0.0, 150.0)),
    )


def test_a_schema_is_its_dict_and_back():
    schema = Schema.from_dict(RAW)
    assert schema.sensors == ("temperature", "flow")
    assert schema.ranges == ((-40.0, 120.0), (0.0, 9.5))
    assert schema.period_us == 600_000_000
    assert schema.to_dict() == RAW
    assert Schema.from_dict(schema.to_dict()) == schema


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sensor": {}}, "unknown key 'sensor'"),
        ({"sensors": ["volt"]}, "write each sensor as 'name: [low, high]'"),
        ({"sensors": {"volt": 400}}, "write each sensor as 'name: [low, high]'"),
        ({"sensors": {"volt": ["low", "high"]}}, "write each sensor as 'name: [low, high]'"),
        ({"sensors": {}}, "name at least one sensor"),
        ({"components": ["pump", "pump"]}, "schema.components: a name occurs twice"),
        ({"sampling_minutes": 0}, "0 is not a whole number of minutes"),
        ({"sampling_minutes": 0.5}, "0.5 is not a whole number of minutes"),
    ],
)
def test_a_schema_of_the_wrong_form_is_refused_with_how_to_write_it(change, said):
    with pytest.raises(DataError) as refused:
        Schema.from_dict(RAW | change)
    assert said in str(refused.value)


@pytest.mark.parametrize("key", sorted(RAW))
def test_a_schema_without_a_key_is_refused(key):
    with pytest.raises(DataError, match=f"'{key}' is missing"):
        Schema.from_dict({name: value for name, value in RAW.items() if name != key})


events = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 2)))


def _events(rows):
    machine, time, code = np.array(rows, np.int64).reshape(-1, 3).T
    return Events.of(machine, time, code.astype(np.int16))


@given(events)
def test_events_are_a_sorted_set(rows):
    table = _events(rows)
    actual = list(zip(table.machine.tolist(), table.time.tolist(), table.code.tolist(), strict=True))
    assert actual == sorted(set(rows))
    for machine in (1, 2, 3, 4):
        part = table.slice(machine)
        assert list(zip(part.time.tolist(), part.code.tolist(), strict=True)) == [
            (time, code) for one, time, code in actual if one == machine
        ]


def _tables(order, failures=None):
    """Three rows of machine 2 and two of machine 1, in any order of the rows."""
    machine, time = np.array([2, 2, 2, 1, 1])[order], np.array([10, 20, 30, 10, 20])[order]
    readings = np.array([[1.0, 2.0, np.nan, 4.0, 5.0]])[:, order]
    described = (np.array([9, 2]), np.array([0, 1], np.int16), np.array([3.0, 4.0]))
    errors = _events([(2, 20, 0), (1, 10, 1)])
    return Tables.of(machine, time, readings, errors, Events.empty(), failures, described)


@given(st.permutations(range(5)))
def test_row_order_does_not_matter(order):
    tables = _tables(list(order))
    assert tables.machine.tolist() == [1, 1, 2, 2, 2]
    assert tables.time.tolist() == [10, 20, 10, 20, 30]
    assert tables.machine_ids.tolist() == [2, 9]
    assert tables.machine_model.tolist() == [1, 0]
    assert tables.fingerprint() == _tables([0, 1, 2, 3, 4]).fingerprint()


def test_windows_are_one_machine_each():
    first, second = _tables([0, 1, 2, 3, 4], _events([(2, 30, 0)])).windows()
    assert (first.machine, first.time.tolist(), first.model) == (1, [10, 20], -1)
    assert np.isnan(first.age)
    assert first.errors.code.tolist() == [1]
    assert first.failures.time.tolist() == []
    assert (second.machine, second.model, second.age) == (2, 1, 4.0)
    assert second.failures.time.tolist() == [30]
    assert np.array_equal([[1.0, 2.0, np.nan]], second.values, equal_nan=True)


def test_bounds_of_no_rows_are_empty():
    ids, offsets = _tables([]).bounds()
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 9))
def test_bounds_are_found_wherever_a_table_is_cut_to_be_read(machines, rows_at_once):
    tables = replace(_tables([]), machine=np.array(sorted(machines), np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_module, "ROWS_AT_ONCE", rows_at_once)
        ids, offsets = tables.bounds()
    assert sorted(set(machines)) == ids.tolist()
    assert [machines.count(machine) for machine in ids] == np.diff(offsets).tolist()
    assert (offsets[0], offsets.dtype) == (0, np.int64)


def test_selecting_machines_keeps_all_that_is_theirs():
    tables = _tables([0, 1, 2, 3, 4], _events([(2, 30, 0), (1, 20, 0)]))
    chosen = tables.select(np.array([2, 7, 2]))
    assert set(chosen.machine.tolist()) == {2}
    assert chosen.errors.machine.tolist() == [2]
    assert chosen.failures.machine.tolist() == [2]
    assert chosen.machine_ids.tolist() == [2]
    assert tables.select(np.array([1, 2, 9])).fingerprint() == tables.fingerprint()
    assert _tables([0, 1]).select(np.array([2])).failures is None


def test_choosing_rows_leaves_the_other_tables():
    tables = _tables([0, 1, 2, 3, 4])
    chosen = tables.rows(tables.time > 10)
    assert chosen.time.tolist() == [20, 20, 30]
    assert chosen.errors is tables.errors
    assert chosen.values.flags.c_contiguous


def test_the_fingerprint_sees_every_value():
    """Any changed column changes it; the sign of a zero and the payload of a NaN do not."""
    base = _tables([0, 1, 2, 3, 4])
    other_nan = np.array([0x7FF8000000000001], np.int64).view(np.float64)[0]
    changed = [
        replace(base, time=base.time + 1),
        replace(base, machine=base.machine + 1),
        replace(base, values=base.values + 1e-12),
        replace(base, errors=Events.empty()),
        replace(base, maint=base.errors),
        replace(base, failures=Events.empty()),
        replace(base, machine_ids=base.machine_ids + 1),
        replace(base, machine_model=base.machine_model + np.int16(1)),
        replace(base, machine_age=base.machine_age + 1),
    ]
    assert len({tables.fingerprint() for tables in [base, *changed]}) == 10
    zero, minus = (replace(base, values=np.full((1, 5), sign * 0.0)) for sign in (1, -1))
    assert zero.fingerprint() == minus.fingerprint()
    odd = replace(base, values=np.where(np.isnan(base.values), other_nan, base.values))
    assert odd.fingerprint() == base.fingerprint()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("components", None, "not a list"),
        ("components", "comp1", "not a list"),
        ("sampling_minutes", True, "whole number"),
        ("sensors", {"datetime": [0, 1]}, "key column"),
    ],
)
def test_what_yaml_makes_of_a_slip_is_refused_by_name(key, value, says):
    raw = {"sensors": {"volt": [0, 1]}, "components": [], "errors": [], "models": [], "sampling_minutes": 60}
    with pytest.raises(DataError, match=rf"schema\.{key}.*{says}"):
        Schema.from_dict(raw | {key: value})
