"""Alarm episodes: table-driven edge cases, the laws, and the cheats that must not pay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data.schema import HOUR_US, DataError
from closedloop.judge.episodes import (
    FALSE,
    NEUTRAL,
    TRUE,
    UNKNOWN,
    Outcome,
    Rules,
    anomaly_cost,
    failure_cost,
    foresee,
    overlap,
    pieces,
)

RULES = Rules(gap_us=12 * HOUR_US, horizon_us=24 * HOUR_US, minimum_lead_us=2 * HOUR_US, neutral_us=96 * HOUR_US)
COSTS = {"unplanned": 10000.0, "planned": 2000.0, "false_alarm": 250.0, "missed_anomaly": 1000.0}
JUDGE = {"episode_gap_hours": 12, "minimum_lead_hours": 2, "neutral_hours": 96}


def hours(values):
    return np.asarray(values, np.int64) * HOUR_US


def ahead(alarms, failures, unknown=()):
    known = ~np.isin(alarms, unknown)
    return foresee(hours(alarms), known, hours(failures), RULES)


def seen(alarms, intervals):
    start, end = (hours([pair[side] for pair in intervals]) for side in (0, 1))
    return overlap(hours(alarms), np.ones(len(alarms), bool), start, end, RULES)


@pytest.mark.parametrize(
    ("alarms", "number"),
    [
        ([], []),
        ([5], [0]),
        ([0, 11], [0, 0]),
        ([0, 12], [0, 1]),
        ([0, 11, 22, 23], [0, 0, 0, 0]),
        ([0, 11, 22, 24, 35, 46], [0, 0, 0, 1, 1, 1]),
        ([*range(72)], [0] * 24 + [1] * 24 + [2] * 24),
        ([0, 100, 101, 123, 124], [0, 1, 1, 2, 2]),
        ([0, 10, 20, 30, 50, 60], [0, 0, 0, 1, 2, 2]),
    ],
)
def test_alarms_closer_than_the_gap_are_one_episode_cut_every_horizon_from_its_start(alarms, number):
    found = pieces(hours(alarms), RULES)
    assert (number, np.intp) == (found.tolist(), found.dtype)


@pytest.mark.parametrize(
    ("alarms", "failures", "kinds", "leads"),
    [
        ([], [], [], []),
        ([], [100], [], [np.nan]),
        ([50], [], [FALSE], []),
        # the window of a true alarm: both ends belong to it
        ([76], [100], [TRUE], [24]),
        ([98], [100], [TRUE], [2]),
        ([75], [100], [FALSE], [np.nan]),
        ([99], [100], [FALSE], [np.nan]),
        ([100], [100], [FALSE], [np.nan]),
        ([101], [100], [FALSE], [np.nan]),
        # lead time is that of the first alarm in the window
        ([80, 85, 90], [100], [TRUE], [20]),
        ([70, 80], [100], [TRUE], [20]),
        # a later piece has nothing left to match: neutral, like any alarm up to 96 h before a detected failure
        ([76, 90], [100], [TRUE, NEUTRAL], [24]),
        ([4, 80], [100], [NEUTRAL, TRUE], [20]),
        ([3, 80], [100], [FALSE, TRUE], [20]),
        ([4], [100], [FALSE], [np.nan]),
        # one neutral alarm excuses the piece it is in: it may begin earlier and outlast the failure
        ([3, 5, 80], [100], [NEUTRAL, TRUE], [20]),
        ([80, 99, 103], [100], [TRUE, NEUTRAL], [20]),
        ([80, 99], [100], [TRUE, NEUTRAL], [20]),
        ([80, 100], [100], [TRUE, NEUTRAL], [20]),
        ([80, 101], [100], [TRUE, FALSE], [20]),
        # a tail of its own after a failure is false
        ([80, 103], [100], [TRUE, FALSE], [20]),
        ([*range(60, 140)], [100], [TRUE, NEUTRAL, FALSE, FALSE], [24]),
        # two failures: one piece may foresee both, and each is matched once
        ([90], [100, 110], [TRUE], [10, 20]),
        ([80, 105], [100, 110], [TRUE, TRUE], [20, 5]),
        ([80, 92], [100, 110], [TRUE, TRUE], [20, 18]),
        ([80], [100, 200], [TRUE], [20, np.nan]),
        ([90], [100, 100], [TRUE], [10, 10]),
    ],
)
def test_a_piece_is_true_neutral_or_false_by_its_distance_to_failures(alarms, failures, kinds, leads):
    outcome = ahead(alarms, failures)
    assert kinds == outcome.kind.tolist()
    np.testing.assert_array_equal(leads, outcome.lead_hours)


@pytest.mark.parametrize(
    ("alarms", "unknown", "kinds", "detected"),
    [
        ([50], [50], [UNKNOWN], 0),
        ([90], [90], [UNKNOWN], 0),
        ([50, 51], [51], [FALSE], 0),
        ([90, 91], [90], [TRUE], 1),
        ([50, 60, 70, 80], [50, 60, 70], [UNKNOWN, TRUE], 1),
        ([5, 80], [5], [UNKNOWN, TRUE], 1),
    ],
)
def test_alarms_in_unknown_rows_are_neither_true_nor_false(alarms, unknown, kinds, detected):
    outcome = ahead(alarms, [100], unknown)
    assert kinds == outcome.kind.tolist()
    assert detected == outcome.detected


@pytest.mark.parametrize(
    ("alarms", "intervals", "kinds", "detected"),
    [
        ([], [(10, 20)], [], 0),
        ([10], [(10, 20)], [TRUE], 1),
        ([20], [(10, 20)], [TRUE], 1),
        ([9], [(10, 20)], [FALSE], 0),
        ([21], [(10, 20)], [FALSE], 0),
        ([10], [(10, 10)], [TRUE], 1),
        # only alarms see, not the silence between them
        ([9, 11], [(10, 10)], [FALSE], 0),
        # the tail of a piece that overlaps is not blamed, a piece of its own is
        ([15, 22, 30], [(10, 20)], [TRUE], 1),
        ([15, 40], [(10, 20)], [TRUE, FALSE], 1),
        # later pieces in an interval already matched are neutral, also with a tail
        ([12, 30], [(10, 40)], [TRUE, NEUTRAL], 1),
        ([12, 38, 45], [(10, 40)], [TRUE, NEUTRAL], 1),
        ([15], [(10, 20), (12, 18)], [TRUE], 2),
        ([15], [(10, 20), (30, 40)], [TRUE], 1),
    ],
)
def test_the_anomaly_head_is_judged_by_overlap_with_intervals(alarms, intervals, kinds, detected):
    outcome = seen(alarms, intervals)
    assert kinds == outcome.kind.tolist()
    assert detected == outcome.detected
    assert len(intervals) - detected == outcome.missed


def test_pieces_carry_their_first_and_last_alarm():
    outcome = ahead([0, 8, 16, 23, 24, 80], [100])
    assert (outcome.start / HOUR_US).tolist() == [0, 24, 80]
    assert (outcome.stop / HOUR_US).tolist() == [23, 24, 80]


def test_costs_are_those_of_the_parameters():
    outcome = Outcome(np.array([5.0, np.nan, np.nan]), hours([0]), hours([0]), np.array([FALSE, TRUE, FALSE], np.int8))
    assert failure_cost(outcome, COSTS) == 2000 + 2 * 10000 + 2 * 250
    assert anomaly_cost(outcome, COSTS) == 2 * 1000 + 2 * 250


@pytest.mark.parametrize("lead", [24, 30, -1])
def test_a_least_lead_outside_the_horizon_is_refused(lead):
    with pytest.raises(DataError) as refused:
        Rules.of(JUDGE | {"minimum_lead_hours": lead}, 24)
    assert str(refused.value) == (
        f"judge.minimum_lead_hours is {lead}, labels.horizon_hours 24: no alarm could be true; "
        "choose a lead of at least 0 and below the horizon"
    )


def test_a_least_lead_of_nothing_is_allowed():
    assert Rules.of(JUDGE | {"minimum_lead_hours": 0}, 24).minimum_lead_us == 0


def test_alarms_a_microsecond_apart_are_two():
    outcome = foresee(np.array([5, 6]), np.ones(2, bool), hours([]), RULES)
    assert (outcome.start[0], outcome.stop[0]) == (5, 6)


def test_rules_come_from_the_parameters_in_hours():
    assert Rules.of(JUDGE, 24) == RULES


@pytest.mark.parametrize("alarms", [[5, 4], [5, 5]])
def test_unsorted_or_repeated_alarm_times_are_refused(alarms):
    with pytest.raises(DataError) as refused:
        ahead(alarms, [])
    assert str(refused.value) == (
        "episodes: alarm times must be strictly ascending; sort the alarms of one head on one machine by time"
    )


@pytest.mark.parametrize(("alarms", "pieces_of"), [([], 0), ([50], 1), ([50, 51, 90], 2)])
def test_an_outcome_has_one_start_stop_and_kind_for_each_piece(alarms, pieces_of):
    outcome = ahead(alarms, [100])
    assert (len(outcome.start), len(outcome.stop), len(outcome.kind)) == (pieces_of,) * 3
    assert (outcome.start.dtype, outcome.stop.dtype, outcome.kind.dtype) == (np.int64, np.int64, np.int8)


# A year of one machine, a failure every 30 days: what a cheat costs against a model that foresees half of them.
YEAR = np.arange(8760)
FAILURES = np.arange(720, 8760, 720)
HONEST = np.concatenate([np.arange(f - 20, f) for f in FAILURES[::2]])
CHEATS = {
    "constant": YEAR,
    "every second hour": YEAR[::2],
    "every 11 hours": YEAR[::11],
    "random, one hour in ten": np.flatnonzero(np.random.default_rng(5).random(8760) < 0.1),
    "delayed by a day": np.concatenate([np.arange(f, f + 24) for f in FAILURES]),
    "in the last hour": FAILURES - 1,
    "silent": np.empty(0, int),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_head_that_knows_nothing_costs_more_than_one_that_foresees_half(cheat):
    honest, cheated = (failure_cost(ahead(alarms, FAILURES), COSTS) for alarms in (HONEST, CHEATS[cheat]))
    assert honest < cheated


@pytest.mark.parametrize(
    ("cheat", "at_least"), [("constant", 300), ("every 11 hours", 300), ("random, one hour in ten", 200)]
)
def test_a_head_that_never_rests_has_hundreds_of_false_alarms(cheat, at_least):
    assert at_least < ahead(CHEATS[cheat], FAILURES).false_alarms
    assert at_least < seen(CHEATS[cheat], [(f - 48, f) for f in FAILURES]).false_alarms


@pytest.mark.parametrize("cheat", ["delayed by a day", "in the last hour", "silent"])
def test_alarms_that_come_too_late_or_never_detect_nothing(cheat):
    assert ahead(CHEATS[cheat], FAILURES).detected == 0


def test_a_perfect_head_pays_for_planned_repairs_alone():
    assert len(FAILURES) * 2000 == failure_cost(ahead(np.sort(FAILURES - 24), FAILURES), COSTS)


times = st.lists(st.integers(0, 400), unique=True, max_size=40).map(sorted)


@given(times, times, st.sets(st.integers(0, 400)), st.integers(-(10**6), 10**6))
def test_shifting_all_times_changes_nothing(alarms, failures, unknown, shift):
    moved = [np.array([*values], int) + shift for values in (alarms, failures, unknown)]
    first, second = ahead(alarms, failures, [*unknown]), ahead(*moved)
    assert first.kind.tolist() == second.kind.tolist()
    np.testing.assert_array_equal(first.lead_hours, second.lead_hours)


@given(times, times)
def test_an_alarm_far_from_everything_costs_exactly_one_false_alarm(alarms, failures):
    more = [*alarms, 1000]
    assert failure_cost(ahead(alarms, failures), COSTS) + 250 == failure_cost(ahead(more, failures), COSTS)
    spans = [(f, f + 10) for f in failures]
    assert anomaly_cost(seen(alarms, spans), COSTS) + 250 == anomaly_cost(seen(more, spans), COSTS)


@given(times, times, times)
def test_more_alarms_never_detect_fewer_failures(alarms, more, failures):
    both = sorted({*alarms, *more})
    few, many = ahead(alarms, failures), ahead(both, failures)
    assert set(np.flatnonzero(~np.isnan(few.lead_hours))) <= set(np.flatnonzero(~np.isnan(many.lead_hours)))


@given(times, times, st.sets(st.integers(0, 400)))
def test_every_detected_failure_has_a_true_piece_and_a_lead_inside_the_window(alarms, failures, unknown):
    outcome = ahead(alarms, failures, [*unknown])
    caught = outcome.lead_hours[~np.isnan(outcome.lead_hours)]
    assert ((caught >= 2) & (caught <= 24)).all()
    assert int((outcome.kind == TRUE).sum()) <= outcome.detected
    assert (outcome.detected > 0) == bool((outcome.kind == TRUE).any())
    assert len(failures) == outcome.detected + outcome.missed


@given(times, times)
def test_hiding_the_truth_of_every_row_leaves_nothing_to_blame_and_nothing_detected(alarms, failures):
    outcome = ahead(alarms, failures, alarms)
    assert {UNKNOWN} >= set(outcome.kind.tolist())
    assert outcome.detected == 0
