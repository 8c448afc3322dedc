from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.data.schema import HOUR_US, DataError, Schema, Tables
from closedloop.judge.split import cut_us, fit_until_us, held_out, split

law = settings(max_examples=30, deadline=None, derandomize=True)
names = st.text(max_size=8)
HELD = [3, 4, 10, 14]  # of machines 1 to 20


def test_three_machines_in_ten_are_held_out() -> None:
    share = held_out(np.arange(1, 20_001), "simulated", "closed-loop").mean()
    assert share == pytest.approx(0.3, abs=0.01)  # three standard deviations


@law
@given(first=st.integers(-(2**63), 2**63 - 1000), source=names, salt=names)
def test_the_rule_is_the_first_eight_bytes_of_the_hash(first: int, source: str, salt: str) -> None:
    machines = range(first, first + 200)
    digests = [hashlib.sha256(f"{salt}:{source}:{machine}".encode()).hexdigest() for machine in machines]
    expected = [int(digest[:16], 16) / 2**64 >= 0.7 for digest in digests]
    assert expected == held_out(np.array(machines), source, salt).tolist()


@law
@given(machines=st.sets(st.integers(1, 10_000), min_size=1), other=st.sets(st.integers(1, 10_000)))
def test_a_machine_is_held_out_whoever_else_is_there(machines: set[int], other: set[int]) -> None:
    alone, both = np.array(sorted(machines)), np.array(sorted(machines | other))
    expected = dict(zip(alone.tolist(), held_out(alone, "s", "x").tolist(), strict=True))
    together = dict(zip(both.tolist(), held_out(both, "s", "x").tolist(), strict=True))
    assert expected == {machine: together[machine] for machine in machines}


def test_known_machines_of_the_embedded_fleet_stay_held_out_for_ever() -> None:
    """A change of the rule would train on machines that earlier models were judged on."""
    ids = np.arange(1, 21)
    assert ids[held_out(ids, "simulated", "closed-loop")].tolist() == HELD
    assert ids[held_out(ids, "simulated", "another salt")].tolist() != HELD
    assert ids[held_out(ids, "another fleet", "closed-loop")].tolist() != HELD


def test_the_cut_is_the_start_of_the_last_third(schema: Schema, random_fleet: Callable[..., Tables]) -> None:
    tables = random_fleet(schema, rows=100)
    first, last = tables.time.min(), tables.time.max()
    assert cut_us(tables) - first == pytest.approx((last - first) * 2 / 3, abs=1)
    with pytest.raises(DataError, match="no rows"):
        cut_us(tables.select(np.array([99])))


@law
@given(seed=st.integers(0, 2**32 - 1), machines=st.integers(1, 12), horizon=st.integers(1, 30))
def test_nothing_that_trains_touches_what_judges(
    seed, machines, horizon, schema, random_fleet: Callable[..., Tables]
) -> None:
    """The law: no label of a training row and no window of a judged row crosses into the other's time or machines."""
    tables, history = random_fleet(schema, seed=seed, machines=machines, rows=60, sampling="gaps"), 24
    found = split(tables, "s", "x", "fleet", horizon * HOUR_US, history * HOUR_US)
    held = held_out(tables.machine, "s", "x")
    cut = cut_us(tables)
    assert not held[found.training].any()
    assert held[found.judged].all()
    assert ((tables.time[found.training] + (horizon + history) * HOUR_US) <= cut).all()
    assert (tables.time[found.judged] >= cut).all()
    until = fit_until_us(cut, horizon * HOUR_US, history * HOUR_US)
    assert found.training.tolist() == (~held & (tables.time <= until)).tolist()
    assert found.judged.tolist() == (held & (tables.time >= cut)).tolist()
    assert found.training_machines.tolist() == sorted(set(tables.machine[found.training].tolist()))
    assert found.cut_us == cut


def test_by_unit_every_row_of_a_machine_goes_one_way(schema: Schema, random_fleet: Callable[..., Tables]) -> None:
    tables = random_fleet(schema, machines=12, rows=10)
    found = split(tables, "s", "x", "unit", HOUR_US, HOUR_US)
    held = held_out(tables.machine, "s", "x")
    assert found.judged.tolist() == held.tolist()
    assert found.training.tolist() == (~held).tolist()
    assert found.training_machines.tolist() == sorted(set(tables.machine[~held].tolist()))
    assert found.cut_us is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, lambda rows: rows // 3),
        ({"prefix": 0.5}, lambda rows: rows // 2),
        ({"prefix": 0.001}, lambda rows: 1),
        ({"prefix": 5}, lambda rows: 5),
    ],
)
def test_by_prefix_the_first_rows_of_each_machine_train(
    asked, expected, schema, random_fleet: Callable[..., Tables]
) -> None:
    """A third where nothing is asked for, a share below 1, or a number of rows; at least one."""
    tables = replace(random_fleet(schema, machines=3, rows=30), failures=None)
    found = split(tables, "s", "x", "prefix", HOUR_US, HOUR_US, **asked)
    for machine in (1, 2, 3):
        mine = found.training[tables.machine == machine]
        first = expected(len(mine))
        assert mine.tolist() == [True] * first + [False] * (len(mine) - first)
    assert found.judged.tolist() == (~found.training).tolist()
    assert found.training_machines.tolist() == [1, 2, 3]


def test_a_machine_with_fewer_rows_than_the_prefix_judges_nothing(
    schema: Schema, random_fleet: Callable[..., Tables]
) -> None:
    found = split(random_fleet(schema, machines=2, rows=5), "s", "x", "prefix", HOUR_US, HOUR_US, 400)
    assert found.training.all()
    assert not found.judged.any()


@law
@given(seed=st.integers(0, 2**32 - 1), horizon=st.integers(1, 30), prefix=st.sampled_from([0.2, 0.6, 12]))
def test_by_prefix_no_label_that_trains_foresees_a_failure_that_judges(
    seed, horizon, prefix, schema, random_fleet
) -> None:
    tables = random_fleet(schema, seed=seed, machines=3, rows=60, sampling="gaps")
    assert tables.failures is not None
    found = split(tables, "s", "x", "prefix", horizon * HOUR_US, HOUR_US, prefix)
    for machine in (1, 2, 3):
        mine = tables.machine == machine
        first = tables.time[mine & found.judged].min()
        assert (tables.time[mine & found.training] + horizon * HOUR_US <= first).all()
        between = mine & ~found.training & ~found.judged
        assert (tables.time[between] + horizon * HOUR_US > first).all()


def test_one_row_can_train(schema: Schema, random_fleet: Callable[..., Tables]) -> None:
    found = split(random_fleet(schema, machines=1, rows=1), "s", "x", "prefix", HOUR_US, HOUR_US)
    assert found.training.tolist() == [True]


def test_an_unknown_rule_is_named(schema: Schema, random_fleet: Callable[..., Tables]) -> None:
    with pytest.raises(DataError, match=r"split\.rule: 'units' is unknown; choose one of fleet, unit, prefix"):
        split(random_fleet(schema), "s", "x", "units", HOUR_US, HOUR_US)
