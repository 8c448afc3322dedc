"""Values are corrected in the order in which they came, whatever the clock of a replica says."""

import time

import pytest

from closedloop.log import read as module
from closedloop.log.history import Bounds
from closedloop.log.sink import Sink

YEAR_US = 366 * 24 * 3_600_000_000


@pytest.fixture
def come(kit, tmp_path, sink):
    """Have a replica, by its name, receive a value and ship it; its clock may be ahead or behind."""
    numbers = iter(range(1000))

    def go(spool, value, ahead_us=0, name="volt"):
        columns = {"datetime": ["2015-01-04T06:00:00Z"], "machineID": [1]}
        columns |= {"volt": [0], "rotate": [1], "pressure": [2], "vibration": [3], name: [value]}
        time.sleep(0.002)  # commits name milliseconds
        received = time.time_ns() // 1000 + ahead_us
        kit.fill(tmp_path / spool, [kit.scored(f"r{next(numbers)}", {"telemetry": columns}, received)])
        time.sleep(0.002)
        _, said = kit.ship(tmp_path / spool, sink)
        assert [] == said

    return go


def log_of(sink, schema):
    return module.read(Sink.at(str(sink), {}), schema)


def test_a_clock_ten_years_ahead_beats_no_later_correction_of_another_replica(come, sink, schema):
    come("a", 1, ahead_us=10 * YEAR_US)
    come("b", 2)
    come("b", 3)
    assert [[3.0]] == log_of(sink, schema).tables.values[:1].tolist()


def test_later_values_of_the_replica_whose_clock_was_ahead_win_as_soon_as_they_are_later(come, sink, schema):
    come("a", 1, ahead_us=10 * YEAR_US)
    come("b", 2)
    come("b", 3)
    come("a", 4)
    assert [[4.0]] == log_of(sink, schema).tables.values[:1].tolist()


def test_a_clock_ten_years_behind_leaves_the_order_of_arrival(come, sink, schema):
    come("a", 1)
    come("b", 2, ahead_us=-10 * YEAR_US)
    come("a", 3)
    assert [[3.0]] == log_of(sink, schema).tables.values[:1].tolist()


def test_impossible_clocks_are_counted(come, sink, schema):
    come("a", 1)
    come("a", 2, ahead_us=10 * YEAR_US)
    come("b", 3)
    log = log_of(sink, schema)
    assert (3, 1) == (log.records, log.impossible_clocks)


def test_a_bound_is_the_least_time_of_the_commit_and_of_all_later_ones():
    bounds = Bounds([(1, 10), (3, 5), (2, 20), (4, 30)])
    assert [5, 5, 5, 5, 30, None] == [bounds.at(version) for version in range(6)]
