from __future__ import annotations

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Events, MachineWindow, Schema
from closedloop.judge.labels import in_failure_hour, labels

START_US = 1_420_092_000_000_000
HORIZON_US = 4 * HOUR_US


def machine(hours: int, maint: list[tuple[float, int]], failures: list[tuple[float, int]], rows=None) -> MachineWindow:
    def events(pairs: list[tuple[float, int]]) -> Events:
        when = np.array([START_US + hour * HOUR_US for hour, _ in pairs], np.int64)
        return Events.of(np.ones(len(pairs), np.int64), when, np.array([code for _, code in pairs], np.int16))

    time = START_US + np.array(range(hours) if rows is None else rows, np.int64) * HOUR_US
    values = np.zeros((1, len(time)))
    return MachineWindow(1, time, values, Events.empty(), events(maint), events(failures), 0, 1.0)


@pytest.mark.parametrize(
    ("case", "maint", "failures", "expected"),
    [
        ("nothing happens; the last horizon is unknown", [], [], "000000????"),
        ("a failure is foreseen for the horizon before it, not at it", [], [(5, 0)], "011110????"),
        ("half hours count: (t, t + horizon]", [], [(4.5, 0)], "011110????"),
        ("a failure at the horizon's very end is inside", [], [(4, 0)], "111100????"),
        ("a failure past the last row is known all the same", [], [(11, 0)], "000000?111"),
        ("another component's failure is not this one's", [], [(5, 1)], "000000????"),
        ("a replacement without a failure censors", [(5, 0)], [], "0????0????"),
        ("another component's replacement does not", [(5, 1)], [], "000000????"),
        ("the replacement that a failure forced censors nothing before it", [(5, 0)], [(5, 0)], "011110????"),
        ("a late repair censors only the rows after the failure", [(7, 0)], [(5, 0)], "01111?????"),
        ("a replacement first and a failure after it: the failure is seen", [(3, 0)], [(5, 0)], "?11110????"),
        ("a failure and a replacement outside the horizon of each other", [(1, 0)], [(8, 0)], "?0001111??"),
        ("the replacement at t itself is past", [(0, 0)], [], "000000????"),
        ("two failures in one horizon", [], [(4, 0), (5, 0)], "111110????"),
    ],
)
def test_label(case: str, maint, failures, expected: str, schema: Schema) -> None:
    found = labels(machine(10, maint, failures), schema, HORIZON_US)
    assert (len(schema.components), 10) == found.shape
    assert np.int8 == found.dtype
    assert expected == "".join("?01"[value + 1] for value in found[0].tolist()), case


def test_the_horizon_is_time_not_rows(schema: Schema) -> None:
    found = labels(machine(0, [], [(20, 0)], rows=[0, 15, 16, 17, 30]), schema, HORIZON_US)
    assert found[0].tolist() == [0, 0, 1, 1, -1]


def test_no_rows_give_no_labels(schema: Schema) -> None:
    assert (len(schema.components), 0) == labels(machine(0, [], [(1, 0)]), schema, HORIZON_US).shape


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], []),
        ([(3, 0)], [3]),
        ([(2.5, 1)], [3]),  # between two rows: the row that closes the hour
        ([(2.0001, 0), (5, 0), (5, 1)], [3, 5]),
        ([(-0.5, 0), (99, 0)], [0]),
    ],
)
def test_rows_in_a_failure_hour(failures, expected: list[int], schema: Schema) -> None:
    assert expected == np.flatnonzero(in_failure_hour(machine(8, [], failures), schema)).tolist()


def test_a_failure_hour_is_a_sampling_period(schema_of) -> None:
    found = in_failure_hour(machine(8, [], [(2.5, 0)]), schema_of(20))
    assert not found.any()
