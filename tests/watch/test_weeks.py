"""Weeks of a model's answers: what was foreseen and missed in each, and false alarms."""

from __future__ import annotations

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Events, Tables
from closedloop.judge.episodes import Rules
from closedloop.judge.truth import JudgeSettings
from closedloop.watch.live import Answered
from closedloop.watch.weeks import weeks
from random_fleets import START_US, make_schema

SCHEMA = make_schema()
HOURS = 24 * 21
COSTS = {"unplanned": 10000.0, "planned": 2000.0, "false_alarm": 250.0, "missed_anomaly": 1000.0}
SETTINGS = JudgeSettings(Rules(12 * HOUR_US, 24 * HOUR_US, 2 * HOUR_US, 96 * HOUR_US), COSTS, {})


def fleet(*failures: tuple[int, int]) -> Tables:
    """Two machines with a row each hour of three weeks, and failures of comp1 at (machine, hour)."""
    machine, hour = (np.array([row[k] for row in failures], np.int64) for k in range(2))
    events = Events.of(machine, START_US + hour * HOUR_US, np.zeros(len(failures), np.int16))
    ids = np.array([1, 2])
    return Tables.of(
        np.repeat(ids, HOURS), np.tile(START_US + np.arange(HOURS) * HOUR_US, 2),
        np.zeros((len(SCHEMA.sensors), 2 * HOURS)), Events.empty(), Events.empty(), events,
        (ids, np.zeros(2, np.int16), np.ones(2)),
    )  # fmt: skip


def answered(alarms: dict[int, list[int]], hours: range) -> Answered:
    """Answers of comp1's head at these hours, with alarms at some of them."""
    machine, hour = np.repeat([1, 2], len(hours)), np.tile(np.array(hours), 2)
    alarm = np.array([h in alarms.get(m, []) for m, h in zip(machine.tolist(), hour.tolist(), strict=True)], bool)
    head = np.full(len(machine), "comp1", object)
    return Answered("m", machine, START_US + hour * HOUR_US, head, np.where(alarm, 0.9, 0.01), alarm)


def of(answers: Answered, tables: Tables):
    return weeks(answers, tables, SCHEMA, "fleet", SETTINGS, START_US, 3)


def test_each_failure_and_each_false_alarm_counts_in_its_own_week() -> None:
    tables = fleet((1, 100), (2, 24 * 8), (1, 24 * 9))
    found = of(answered({1: [90, 24 * 18]}, range(HOURS)), tables)
    assert [1, 0, 0] == found.foreseen.tolist()
    assert [0, 2, 0] == found.missed.tolist()
    assert [0, 0, 1] == found.false_alarms.tolist()
    assert found.years == pytest.approx(np.full(3, 2 * 168 / 8760))


def test_a_service_that_is_asked_less_often_watches_as_long() -> None:
    found = of(answered({}, range(0, HOURS, 6)), fleet((1, 100)))
    assert found.years == pytest.approx(np.full(3, 2 * 168 / 8760))


def test_weeks_without_answers_have_nothing_and_a_model_that_never_answered_too() -> None:
    first_week = of(answered({1: [90]}, range(168)), fleet((1, 100), (2, 400)))
    assert [True, False, False] == (first_week.years > 0).tolist()
    assert (1, 0) == (first_week.foreseen.sum(), first_week.missed.sum())
    never = of(answered({}, range(0)), fleet((1, 100)))
    assert 0 == never.years.sum() == never.foreseen.sum() + never.missed.sum()


def test_totals_are_those_of_the_weeks() -> None:
    found = of(answered({1: [90, 24 * 18]}, range(HOURS)), fleet((1, 100), (2, 24 * 8)))
    whole, last = found.total(slice(None)), found.total(slice(2, None))
    assert (2, 0.5) == (whole["failures"], whole["event_recall"])
    assert (0, None) == (last["failures"], last["event_recall"])
    assert whole["false_alarms_per_machine_year"] == pytest.approx(1 / (2 * 504 / 8760))
