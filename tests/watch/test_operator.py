"""The operator of tests/bench/operator_bias.py: what it changes of a fleet, and what it leaves as it was."""

import numpy as np
import pytest

from acting_operator import SOUND, WORN, Operator, act, seen_as
from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import SENSORS, START_US, simulate
from simulated_fleet import SCHEMA

MACHINES, DAYS = 30, 120
HOURS = 24 * DAYS


@pytest.fixture(scope="module")
def made():
    return simulate("default", MACHINES, DAYS, 4, SCHEMA)


@pytest.fixture(scope="module")
def foreseen(made):
    """Alarms in the day before each failure, and one false alarm on each machine in hour 10."""
    alarm = np.zeros((len(SENSORS), MACHINES * HOURS), bool)
    failures = made.tables.failures
    for machine, time, code in zip(failures.machine, failures.time, failures.code, strict=True):
        hour = int((time - START_US) // HOUR_US) + (machine - 1) * HOURS
        alarm[code, max(hour - 24, 0) : hour] = True
    alarm[0, 10::HOURS] = True
    return alarm


def acted(made, alarm, share, delay=4):
    return act(made, "default", alarm, Operator(share, delay), np.random.default_rng(1))


def keys(events):
    return set(zip(events.machine.tolist(), events.time.tolist(), events.code.tolist(), strict=True))


def test_who_never_acts_changes_nothing_but_that_findings_are_known(made, foreseen):
    found = acted(made, foreseen, 0.0)
    assert (0, []) == (found.prevented, found.actions)
    np.testing.assert_array_equal(made.tables.values, found.tables.values)
    for name in ("errors", "maint", "failures"):
        assert keys(getattr(made.tables, name)) == keys(getattr(found.tables, name))


def test_who_always_acts_prevents_what_was_foreseen_and_its_repair(made, foreseen):
    found = acted(made, foreseen, 1.0)
    failed, left = keys(made.tables.failures), keys(found.tables.failures)
    assert left < failed
    assert len(left) < 0.1 * len(failed)
    assert found.prevented == len(failed) - len(left)
    assert not (failed - left) & keys(found.tables.maint)
    assert (found.tables.maint.finding == WORN).sum() == found.prevented


def test_a_false_alarm_that_is_acted_on_finds_the_component_sound(made, foreseen):
    found = acted(made, foreseen, 1.0)
    early = [action for action in found.actions if action.hour <= 10 + 4 and action.component == 0]
    assert len(early) >= MACHINES - 2
    assert all(action.wear is None for action in early)


def test_a_healed_sensor_reads_as_if_there_had_been_no_wear(made, foreseen):
    found = acted(made, foreseen, 1.0)
    change = (found.tables.values - made.tables.values).reshape(len(SENSORS), MACHINES, HOURS)
    touched = np.zeros(change.shape, bool)
    for action in found.actions:
        if action.wear is not None:
            touched[action.component, action.machine - 1, action.hour : action.wear.failure + 1] = True
    assert (change[~touched] == 0).all()
    assert (change[touched] != 0).mean() > 0.99
    volt = found.tables.values[0].reshape(MACHINES, HOURS)[touched[0]]
    assert abs(volt.mean() - 170) < 3  # 20 above it before


def test_half_of_the_alarms_prevent_about_half(made, foreseen):
    whole, half = (acted(made, foreseen, share).prevented for share in (1.0, 0.5))
    assert 0.3 * whole < half < 0.7 * whole


def test_the_ways_of_labelling_differ_in_findings_alone(made, foreseen):
    tables = acted(made, foreseen, 0.9).tables
    assert set(seen_as(tables, "naive").maint.finding.tolist()) == {SOUND}
    assert set(seen_as(tables, "censoring").maint.finding.tolist()) == {-1}
    assert set(seen_as(tables, "findings").maint.finding.tolist()) == {WORN, SOUND}
