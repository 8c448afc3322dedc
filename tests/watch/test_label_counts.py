"""What became of the labels, counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from closedloop.data.marks import Marks
from closedloop.data.schema import HOUR_US, Events, Tables
from closedloop.judge.labels import labels
from closedloop.watch.label_counts import label_counts, mostly_censored
from random_fleets import START_US, make_schema

SCHEMA = make_schema()
HORIZON_US = 4 * HOUR_US


def events(*rows: tuple[int, int, int], finding: tuple[int, ...] | None = None) -> Events:
    machine, hour, code = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    found = None if finding is None else np.array(finding, np.int16)
    return Events.of(machine, START_US + hour * HOUR_US, code.astype(np.int16), found)


def fleet(maint: Events, failures: Events, *until: int) -> Tables:
    """Machines 1 and 2 with a row each hour of a hundred."""
    time = START_US + np.arange(100) * HOUR_US
    described = (np.array([1, 2]), np.zeros(2, np.int16), np.ones(2))
    tables = Tables.of(np.repeat([1, 2], 100), np.tile(time, 2), np.zeros((len(SCHEMA.sensors), 200)), Events.empty(),
                       maint, failures, described)  # fmt: skip
    return replace(tables, marks=Marks.of(np.array([1, 2]), START_US + np.array(until) * HOUR_US)) if until else tables


def test_every_row_and_every_event_is_counted_once() -> None:
    maint = events((1, 20, 0), (1, 40, 0), (1, 60, 1), (2, 30, 0), (2, 50, 1), finding=(-1, 0, 1, -1, -1))
    found = label_counts(fleet(maint, events((1, 80, 1), (2, 30, 0)), 99, 60), SCHEMA, HORIZON_US)
    assert found == {
        "positive": 4 + 4 + 4,  # hours before 40, 80, and before the failure of machine 2
        "healthy": (2 * 96 - 4 - 12 + 4) + (2 * 57 - 4 - 4),
        "censored": 4 + 4,
        "immature": 2 * 4 + 2 * 4 + 2 * 39,
        "failures": 2,
        "prevented": 1,
        "found_sound": 1,
        "censoring": 2,  # at 20, and at 50 on machine 2; that at 30 is a repair
    }


def test_without_marks_they_are_the_counts_of_the_labels(random_fleet) -> None:
    tables = random_fleet(SCHEMA)
    tables = replace(tables, failures=events((1, 30, 0), (2, 40, 1)))
    found = label_counts(tables, SCHEMA, HORIZON_US)
    label = np.concatenate([labels(window, SCHEMA, HORIZON_US) for window in tables.windows()], axis=1)
    assert [(label == value).sum() for value in (1, 0)] == [found["positive"], found["healthy"]]
    assert (label == -1).sum() == found["censored"] + found["immature"]


def test_a_machine_that_nobody_vouches_for_is_immature_as_a_whole() -> None:
    tables = fleet(events((1, 20, 0)), events((1, 30, 0)), -9999, -9999)
    assert 2 * 2 * 100 == label_counts(tables, SCHEMA, HORIZON_US)["immature"]
    assert 0 == sum(label_counts(tables, SCHEMA, HORIZON_US).values()) - 400


@pytest.mark.parametrize(("censoring", "expected"), [(5, False), (6, True)])
def test_censoring_hides_most_failures(censoring: int, expected: bool) -> None:
    assert expected == mostly_censored({"censoring": censoring, "failures": 3, "prevented": 2})
