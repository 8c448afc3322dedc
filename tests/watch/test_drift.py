"""Drift: false alarms on fleets in which nothing moves, what is found where something does, and the tests' own laws."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moving_fleet
from closedloop.heads.drift_reference import DriftReference
from closedloop.heads.storage import pack, unpack
from closedloop.watch import drift, drift_tests
from closedloop.watch.drift import DriftTest, Look

FLEETS, WEEKS = 10, 10  # of the bench's 200 fleets and 52 weeks


@pytest.fixture(scope="module")
def steady() -> moving_fleet.World:
    return moving_fleet.world(1, machines=20)


def verdict(one: moving_fleet.World) -> drift.Drift:
    return drift.decide([one.week(0), one.week(1)])


@pytest.mark.parametrize("seed", range(FLEETS))
def test_where_nothing_moves_no_issue_is_opened(seed: int) -> None:
    """Ten fleets for ten weeks, with a season, weeks of much work, and machines that come and go."""
    one = moving_fleet.world(seed, machines=12)
    looks = [one.week(5 * number) for number in range(WEEKS)]  # all over the year, so that every season is met
    assert all(look.tests for look in looks)
    assert [] == [drift.decide(pair).moved for pair in pairwise(looks) if drift.decide(pair).moved]


@pytest.mark.parametrize(
    ("change", "subject", "kinds"),
    [
        ("mean 1", "volt", {"level", "distribution"}),
        ("scale 1.5", "volt", {"distribution"}),
        ("missing", "volt", {"missing"}),
        ("rate", "error1", {"rate"}),
    ],
)
def test_what_moves_is_found_in_two_looks(change: str, subject: str, kinds: set[str]) -> None:
    found = verdict(moving_fleet.world(3, machines=20, change=change))
    assert found.verdict == "moved"
    assert {test.kind for test in found.moved if test.subject == subject} & kinds
    assert subject in drift.in_words(found)


@pytest.mark.parametrize("seed", [10_003, 10_006, 10_010])
def test_a_shift_as_large_as_the_season_is_found_by_the_step_since_training(seed: int) -> None:
    """A year's wave of half a deviation: the level of a week is nothing unusual, but last week's was another."""
    found = verdict(moving_fleet.world(seed, machines=20, season=0.5, change="mean 1"))
    assert "step" in {test.kind for test in found.moved if test.subject == "volt"}
    assert "level" not in {test.kind for test in found.moved}
    assert "in the last weeks of training" in drift.in_words(found)


def test_a_step_is_looked_for_only_while_training_shows_what_steps_are_usual(steady) -> None:
    """35 weeks of training have four steps over six weeks that do not overlap; later a step is not tested."""
    tested = [any(test.kind == "step" for test in steady.week(number).tests) for number in (0, 5, 8, 30)]
    assert [True, True, False, False] == tested


def test_one_week_alone_opens_nothing(steady) -> None:
    moved = replace(steady.week(0), tests=[replace(test, moved=True) for test in steady.week(0).tests])
    assert "steady" == drift.decide([steady.week(0), moved]).verdict
    assert "moved" == drift.decide([moved, moved]).verdict
    assert "too little data" == drift.decide([moved]).verdict


def test_what_goes_up_and_then_down_has_not_moved() -> None:
    def at(now: float) -> Look:
        return Look(0, 1, 9, 99.0, [DriftTest("volt", "level", 5.0, now, 0.5, 1e-9, moved=True)], [])

    assert "moved" == drift.decide([at(6.0), at(7.0)]).verdict
    assert "steady" == drift.decide([at(6.0), at(4.0)]).verdict


def test_too_little_data_is_an_answer(steady) -> None:
    start = moving_fleet.START_US + moving_fleet.TRAINED_DAYS * moving_fleet.DAY_US
    week = moving_fleet.between(steady.tables, start, start + 7 * moving_fleet.DAY_US)
    few = week.select(np.unique(week.machine)[:4])
    look = moving_fleet.look(steady.drift_reference, few, np.zeros(len(few.time)))
    assert ([], 1) == (look.tests, len(look.too_little))
    assert "4 machines of the drift reference" in drift.in_words(drift.decide([look, look]))
    for weeks in (None, replace(steady.drift_reference.weeks, weeks=5.0)):
        look = moving_fleet.look(replace(steady.drift_reference, weeks=weeks), week, np.zeros(len(week.time)))
        assert [] == look.tests
        assert "6 are needed" in look.too_little[0]


def test_machines_that_join_are_named_and_move_nothing(steady) -> None:
    start = moving_fleet.START_US + moving_fleet.TRAINED_DAYS * moving_fleet.DAY_US
    week = moving_fleet.between(steady.tables, start, start + 7 * moving_fleet.DAY_US)
    strange = replace(week, machine=week.machine + 10_000, values=week.values + 1e4)
    both = replace(
        week,
        machine=np.append(week.machine, strange.machine),
        time=np.append(week.time, strange.time),
        values=np.hstack([week.values, strange.values]),
    )
    score = steady.score_of(start)
    one = moving_fleet.look(steady.drift_reference, week, score)
    assert one == moving_fleet.look(steady.drift_reference, both, np.append(score, score + 1e4))
    assert [7] == drift.decide([one, one], [7], ["errors.errorID 'x'"]).new_machines
    assert "1 new machine; not in the schema: errors.errorID 'x'" in drift.in_words(
        drift.decide([one, one], [7], ["errors.errorID 'x'"])
    )


def test_the_verdict_is_json_that_declares_its_false_alarms(steady) -> None:
    content = json.loads(json.dumps(verdict(steady).to_dict(), allow_nan=False))
    assert content["false_alarms_per_year"] <= 1
    assert {"verdict", "moved", "looks", "new_machines", "new_names", "look_days"} <= set(content)


def test_an_older_bundle_has_no_weeks_and_a_newer_one_keeps_them(steady) -> None:
    arrays = unpack("drift", pack(steady.drift_reference.to_arrays()))
    back = DriftReference.from_arrays(arrays)
    back.check(5, 3)
    assert back.weeks is not None
    assert np.array_equal(back.weeks.day_number, steady.drift_reference.weeks.day_number)
    assert 35 == back.weeks.weeks
    older = {name: array for name, array in arrays.items() if name not in vars(steady.drift_reference.weeks)}
    DriftReference.from_arrays(older).check(5, 3)
    assert DriftReference.from_arrays(older).weeks is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("day_number", np.zeros(3, np.int32), "'day_number' has the shape"),
        ("week_errors", -np.ones(3), "a variance between weeks is below 0"),
        ("week_missing", np.full(5, np.nan), "not finite"),
        ("weeks", -1.0, "'weeks' is not a number from 0"),
    ],
)
def test_weeks_that_cannot_be_are_refused(steady, name: str, value, says: str) -> None:
    forged = replace(steady.drift_reference, weeks=replace(steady.drift_reference.weeks, **{name: value}))
    with pytest.raises(ValueError, match=says):
        forged.check(5, 3)


# --- the tests --------------------------------------------------------------------------------------------------------


def test_benjamini_and_hochberg() -> None:
    p = np.array([0.04, 0.001, 0.03, 0.9, 0.011])
    assert [True, True, True, False, True] == drift_tests.benjamini_hochberg(p, 0.05).tolist()
    assert [False, True, False, False, False] == drift_tests.benjamini_hochberg(p, 0.02).tolist()
    assert [] == drift_tests.benjamini_hochberg(np.empty(0), 0.05).tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.2))
def test_fewer_are_rejected_at_a_lower_rate(p: list[float], rate: float) -> None:
    few, many = (drift_tests.benjamini_hochberg(np.array(p), level) for level in (rate / 2, rate))
    assert not (few & ~many).any()


def test_machines_that_differ_are_no_drift() -> None:
    """Each machine's own mean is taken away, and both sides keep the variance of a day."""
    rng = np.random.default_rng(0)
    machine = np.repeat(np.arange(200), 20)
    offset = rng.normal(0, 50, 200)[machine]
    before, now = (offset + rng.normal(0, 1, len(machine)) for _ in range(2))
    one, other, of_before, of_now = drift_tests.centred(before, machine, now, machine)
    assert of_before.all()
    assert of_now.all()
    assert 1 == pytest.approx(one.std(), rel=0.05)
    assert 1 == pytest.approx(other.std(), rel=0.05)
    *_, shared = drift_tests.centred(before, machine, now, machine + 100)
    assert 100 == len(np.unique(machine[shared]))


def uniform(p: list[float]) -> bool:
    """Whether small p-values are no more frequent than they say."""
    p = np.array(p)
    return all((p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p)) for level in (0.01, 0.05, 0.2))


def weeks_of(rng, season: float) -> tuple[np.ndarray, np.ndarray]:
    """Days of 20 machines for 31 weeks, and their week; a week's common shift has this deviation."""
    week = np.tile(np.repeat(np.arange(31), 7), 20)
    return rng.normal(0, 1, len(week)) + rng.normal(0, season, 31)[week] if season else rng.normal(
        0, 1, len(week)
    ), week


@pytest.mark.parametrize("season", [0.0, 0.5, 2.0])
def test_p_values_of_levels_hold_whatever_weeks_share(season: float) -> None:
    rng, found = np.random.default_rng(3), []
    for _ in range(200):
        days, week = weeks_of(rng, season)
        last = week == 30
        found.append(drift_tests.kolmogorov_smirnov(days[~last], week[~last], days[last])[1])
    assert uniform(found)


def test_a_level_that_moves_further_than_weeks_do_is_found() -> None:
    days, week = weeks_of(np.random.default_rng(4), 0.1)
    last = week == 30
    assert 1e-5 > drift_tests.kolmogorov_smirnov(days[~last], week[~last], days[last] + 2)[1]
    assert (1.0, 0.0) == drift_tests.kolmogorov_smirnov(np.zeros(70), np.repeat(np.arange(10), 7), np.ones(7))
    assert (0.0, 1.0) == drift_tests.kolmogorov_smirnov(np.zeros(70), np.repeat(np.arange(10), 7), np.zeros(7))


def test_p_values_of_shares_hold_where_weeks_differ() -> None:
    """χ² of independent readings would reject nearly always: readings of a week are alike."""
    rng, found = np.random.default_rng(5), []
    for _ in range(300):
        shares = rng.dirichlet(np.full(10, 30.0), 31)
        counts = (shares * 5000).round().astype(np.int64)
        covariance = np.cov(counts[:30] / counts[:30].sum(axis=1, keepdims=True), rowvar=False) * (1 + 1 / 30)
        found.append(drift_tests.rao_scott(counts[:30].sum(axis=0), counts[30], covariance, 30)[1])
    assert uniform(found)


def test_p_values_of_rates_hold_where_errors_come_in_bursts() -> None:
    rng, found = np.random.default_rng(6), []
    for _ in range(300):
        weekly = rng.negative_binomial(5, 0.2, 31)  # variance five times the mean
        over = weekly[:30].var(ddof=1) / weekly[:30].mean()
        share = rng.multinomial(weekly[30], np.full(20, 0.05))
        found.append(drift_tests.poisson(int(weekly[:30].sum()), 4200.0, share, np.full(20, 7.0), over, 0.0))
    assert uniform(found)
    often = np.full(20, 5)
    assert 1e-6 > drift_tests.poisson(300, 4200.0, often, np.full(20, 7.0), 1.0, 0.0)
    assert 1.0 == drift_tests.poisson(0, 4200.0, np.zeros(20, np.int64), np.full(20, 7.0), 1.0, 0.0)


def test_a_share_of_missing_readings() -> None:
    rows = np.full(20, 168.0)
    assert 1.0 == drift_tests.share_test(0.0, np.zeros(20), rows, 0.0, 30)
    assert 1e-4 > drift_tests.share_test(0.01, rows * 0.1, rows, 1e-6, 30)
    assert 0.2 < drift_tests.share_test(0.01, rows * 0.1, rows, 0.01, 30)


def test_a_classifier_finds_what_no_single_sensor_shows() -> None:
    """Two sensors that go together move apart, each by less than it varies."""
    rng = np.random.default_rng(7)
    week, machine = np.tile(np.repeat(np.arange(30), 7), 20), np.repeat(np.arange(20), 210)
    shared = rng.normal(0, 1, len(week))
    before = np.array([shared, shared + rng.normal(0, 0.3, len(week))])
    mine = np.repeat(np.arange(20), 7)
    same = rng.normal(0, 1, 140)
    now = np.array([same, same + rng.normal(0, 0.3, 140)])
    area, p = drift_tests.classifier(before, machine, week, now, mine)
    assert 0.01 < p
    assert area < 0.6
    area, p = drift_tests.classifier(before, machine, week, now + np.array([[0.6], [-0.6]]), mine)
    assert p < 1e-4
    assert area > 0.8
