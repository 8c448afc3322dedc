"""Live quality: answers joined to what came true, what was promised, and who needs attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import served_fleet
from closedloop.data.marks import Marks
from closedloop.data.schema import HOUR_US, Events, Tables
from closedloop.judge.episodes import Rules
from closedloop.judge.truth import ANOMALY, JudgeSettings
from closedloop.log.answers import Answers
from closedloop.watch import attention
from closedloop.watch.live import Answered, LiveCounts, live
from closedloop.watch.promise import Promise, decide, issue
from random_fleets import START_US, make_schema

SCHEMA = make_schema()
HOURS, YEAR = 1000, 8760
SETTINGS = JudgeSettings(
    Rules(12 * HOUR_US, 24 * HOUR_US, 2 * HOUR_US, 96 * HOUR_US),
    {"unplanned": 10000.0, "planned": 2000.0, "false_alarm": 250.0, "missed_anomaly": 1000.0},
    {},
)


def us(hour: float) -> int:
    return START_US + round(hour * HOUR_US)


def events(*rows: tuple[int, int]) -> Events:
    """Events of comp1 from (machine, hour)."""
    machine, hour = (np.array([row[k] for row in rows], np.int64) for k in range(2))
    return Events.of(machine, START_US + hour * HOUR_US, np.zeros(len(rows), np.int16))


def fleet(failures: Events, *until: int, maint: Events | None = None) -> Tables:
    """Machines 1, 2, … with a row each hour of a thousand, known up to these hours."""
    ids = np.arange(1, len(until) + 1)
    rows = len(ids) * HOURS
    return Tables.of(
        np.repeat(ids, HOURS), np.tile(START_US + np.arange(HOURS) * HOUR_US, len(ids)),
        np.zeros((len(SCHEMA.sensors), rows)), Events.empty(), maint or Events.empty(), failures,
        (ids, (ids % 2).astype(np.int16), np.ones(len(ids))), Marks.of(ids, np.array([us(hour) for hour in until])),
    )  # fmt: skip


def answered(machines: int, alarms: dict[int, list[int]], every: int = 1, until: int = HOURS) -> Answered:
    """Answers of comp1's head at every n-th hour, with alarms at these hours of these machines."""
    hours = np.arange(0, until, every)
    machine = np.repeat(np.arange(1, machines + 1), len(hours))
    hour = np.tile(hours, machines)
    alarm = np.array([h in alarms.get(m, []) for m, h in zip(machine.tolist(), hour.tolist(), strict=True)])
    head = np.full(len(machine), "comp1", object)
    return Answered("sha256:m", machine, START_US + hour * HOUR_US, head, np.where(alarm, 0.9, 0.01), alarm)


def figures(answers: Answered, tables: Tables, since: int = 0) -> dict:
    return live(answers, tables, SCHEMA, "fleet", SETTINGS, since).figures


def test_answers_are_judged_by_what_came_true() -> None:
    tables = fleet(events((1, 200), (2, 300)), 999, 999)
    found = live(answered(2, {1: [190, 600]}), tables, SCHEMA, "fleet", SETTINGS)
    assert (2000, 2, 2) == tuple(found.figures[name] for name in ("answers", "machines", "failures"))
    assert found.figures["machine_years"] == pytest.approx(2 * HOURS / YEAR)
    assert 0.5 == found.figures["event_recall"]["estimate"]
    assert found.figures["false_alarms_per_machine_year"]["estimate"] == pytest.approx(YEAR / 2000)
    assert {"lower_quartile": 10, "median": 10, "upper_quartile": 10} == found.figures["lead_time_hours"]
    assert 0 == found.figures["asked_too_late"]
    assert {"model1", "model2"} == set(found.figures["by_machine_model"])
    assert [1.0, 0.0] == [
        found.figures["by_machine_model"][name]["event_recall"]["estimate"] for name in ("model2", "model1")
    ]
    assert ([1, 0], [1, 1], [1, 0]) == tuple(
        part.tolist() for part in (found.counts.detected, found.counts.events, found.counts.false_alarms)
    )


def test_nothing_is_judged_before_it_is_known() -> None:
    """The same alarm is unknown, then false, then true, as reports come in."""
    alarm = answered(1, {1: [500]})
    unknown, false = (figures(alarm, fleet(events(), until)) for until in (510, 600))
    true = figures(alarm, fleet(events((1, 510)), 600))
    assert [0.0, YEAR / 601, 0.0] == pytest.approx(
        [one["false_alarms_per_machine_year"]["estimate"] for one in (unknown, false, true)]
    )
    assert [None, None, 1.0] == [one["event_recall"]["estimate"] for one in (unknown, false, true)]
    nothing = figures(alarm, fleet(events((1, 510)), -9999))
    assert (0.0, 0) == (nothing["machine_years"], nothing["failures"])


def test_a_failure_before_which_nobody_asked_is_no_fault_of_the_model() -> None:
    found = figures(answered(1, {}, until=400), fleet(events((1, 200), (1, 700)), 999))
    assert (1, 1) == (found["failures"], found["asked_too_late"])


def test_a_service_that_is_asked_every_six_hours_watches_all_the_time() -> None:
    hourly, seldom = (figures(answered(1, {}, every), fleet(events(), 999)) for every in (1, 6))
    assert seldom["machine_years"] == pytest.approx(hourly["machine_years"], rel=0.01)
    daily = figures(answered(1, {}, 24), fleet(events(), 999))
    assert daily["machine_years"] == pytest.approx(hourly["machine_years"] / 2, rel=0.05)  # 12 hours of each day


def test_only_answers_since_a_time_count() -> None:
    found = figures(answered(1, {1: [100, 600]}), fleet(events(), 999), us(500))
    assert 500 == found["answers"]
    assert found["false_alarms_per_machine_year"]["estimate"] == pytest.approx(YEAR / 500)
    assert {"answers": 0, "machines": 0} == figures(answered(1, {}), fleet(events(), 999), us(2000))


# --- what was promised ------------------------------------------------------------------------------------------------

PROMISE = Promise(0.8, 40, 4.0, 10.0)
TOLD_LITTLE = replace(PROMISE, failures=2)
FLOORS = {"event_recall": 0.5}


def counts(detected: int, failures: int, false_alarms: int, machines: int = 40, years: float = 0.25) -> LiveCounts:
    """LiveCounts that are spread evenly over machines."""

    def spread(total: int) -> np.ndarray:
        return np.bincount(np.arange(total) % machines, minlength=machines).astype(float)

    return LiveCounts(spread(detected), spread(failures), spread(false_alarms), np.full(machines, years))


@pytest.mark.parametrize(
    ("case", "live_counts", "promise", "is_open", "action", "verdict"),
    [
        ("as promised", counts(32, 40, 40), PROMISE, False, "none", "as promised"),
        ("better than promised", counts(40, 40, 1), PROMISE, False, "none", "as promised"),
        ("a little worse is noise", counts(28, 40, 50), PROMISE, False, "none", "as promised"),
        ("foresees far less", counts(12, 40, 40), PROMISE, False, "open", "worse"),
        ("alarms far more", counts(32, 40, 120), PROMISE, False, "open", "worse"),
        ("an open issue is kept", counts(12, 40, 40), PROMISE, True, "keep", "worse"),
        ("not yet recovered", counts(23, 40, 40), PROMISE, True, "keep", "worse"),
        ("but that would open none", counts(23, 40, 40), PROMISE, False, "none", "as promised"),
        ("recovered", counts(32, 40, 40), PROMISE, True, "close", "as promised"),
        ("on few failures little was promised", counts(12, 40, 40), TOLD_LITTLE, False, "none", "as promised"),
        ("below the floor without a promise", counts(5, 40, 40), None, False, "open", "worse"),
        ("above it without a promise", counts(30, 40, 400), None, False, "none", "as promised"),
        ("too few failures", counts(0, 4, 40), PROMISE, False, "none", "too little data"),
        ("too few failures close nothing", counts(0, 4, 40), PROMISE, True, "keep", "too little data"),
        ("too short a time", counts(0, 40, 40, years=0.01), PROMISE, False, "none", "too little data"),
        ("no answer at all", None, PROMISE, False, "none", "too little data"),
    ],
)
def test_decision(case: str, live_counts, promise, is_open: bool, action: str, verdict: str) -> None:
    found = decide(live_counts, promise, FLOORS, is_open=is_open)
    assert (action, verdict) == (found.action, found.verdict), (case, found)
    assert bool(found.reasons) == (verdict in ("worse", "too little data"))


def test_without_promise_and_floor_nothing_is_said() -> None:
    assert "no promise" == decide(counts(1, 40, 40), None, {}).verdict


def test_events_of_one_machine_count_less_than_as_many_of_all() -> None:
    even = counts(32, 40, 80)
    one = replace(even, false_alarms=np.append(80.0, np.zeros(39)))
    assert decide(even, PROMISE, {}).p["false_alarms_per_machine_year"] < 0.01
    assert decide(one, PROMISE, {}).p["false_alarms_per_machine_year"] > 0.05


def test_the_issue_says_what_and_what_can_be_done() -> None:
    text = issue("sha256:0123456789abcdef", decide(counts(12, 40, 120), PROMISE, FLOORS))
    assert "Model 0123456789ab does worse in service than promised" == text["title"]
    assert "- it foresaw 30% of 40 failures, promised were 80%" in text["body"]
    assert "- it raises 12.00 false alarms per machine-year, promised were 4.00" in text["body"]
    assert "make drift" in text["body"]


def test_a_promise_is_what_the_holdout_showed() -> None:
    metrics = {
        "failure": {"event_recall": 0.9, "false_alarms_per_machine_year": 2.0},
        "holdout": {"failures": 11, "machine_years": 3.5},
    }
    assert Promise(0.9, 11, 2.0, 3.5) == Promise.of(metrics)
    assert Promise.of(metrics | {"failure": None}) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_model_that_does_what_it_promised_gets_no_issue_in_a_year(seed: int) -> None:
    """The bench simulates 200 fleets; an issue in a year is allowed, none in ten of them is what it finds."""
    service = served_fleet.served(seed)
    assert [] == [day for day in range(0, 365, 7) if service.decision(day).action == "open"]


def test_a_model_that_got_much_worse_gets_an_issue_that_stays() -> None:
    service = served_fleet.served(3, recall_now=0.3)
    assert min(served_fleet.issues(service)) < 90
    assert "keep" == service.decision(364, is_open=True).action


# --- attention --------------------------------------------------------------------------------------------------------


def given(one: Answered) -> Answers:
    zeros = np.zeros(len(one.time), np.int64)
    return Answers((one.model,), ("comp1",), zeros, one.machine, one.time, zeros, one.score, one.alarm)


def test_machines_that_alarm_now_or_fell_silent_need_attention() -> None:
    tables = fleet(events(), 999, 999, 999, 999)
    one = answered(4, {1: [999], 2: [500], 3: [999]})
    silent = (one.machine == 4) & (one.time > us(900))
    kept = Answered(one.model, *(column[~silent] for column in (one.machine, one.time, one.head, one.score, one.alarm)))
    found = attention.machines(kept, given(kept), tables)
    assert [(1, ["comp1 fails soon, probability 0.90"]), (3, ["comp1 fails soon, probability 0.90"]),
            (4, ["no answer for 99 hours"])] == [(each.machine, each.reasons) for each in found]  # fmt: skip
    visited = replace(tables, maint=events((1, 1000)))
    assert [3, 4] == [each.machine for each in attention.machines(kept, given(kept), visited)]


def test_a_timeline_is_two_weeks_of_all_heads() -> None:
    one = answered(2, {1: [990]})
    heads = replace(one, head=np.full(len(one.head), ANOMALY, object), score=one.score * 0 + 7)
    both = Answered(one.model, *(np.concatenate([getattr(one, name), getattr(heads, name)])
                                 for name in ("machine", "time", "head", "score", "alarm")))  # fmt: skip
    time, score, alarm = attention.timeline(both, 1)
    assert (14 * 24, us(999)) == (len(time), time[-1])
    assert 0.9 == score.max()
    assert [us(990)] == time[alarm].tolist()
    assert [0, 0, 0] == [len(part) for part in attention.timeline(both, 77)]
