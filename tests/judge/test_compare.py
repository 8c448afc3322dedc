"""The statistics of the gate: intervals, Holm, and what a guardrail says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from closedloop.judge.compare import Ratio, compare, holm
from closedloop.judge.metrics import BIN_EDGES, Assessment


def assessment(cost, false_alarms=None, squared_error=None, predicted=None, model=None, years=None) -> Assessment:
    n = len(cost)
    bins = np.zeros((n, len(BIN_EDGES) + 1))
    observed = bins.copy()
    observed[:, 5] = 10
    return Assessment(
        metrics={},
        ids=np.arange(n),
        model=np.zeros(n, np.int16) if model is None else np.asarray(model, np.int16),
        years=np.full(n, 0.5) if years is None else np.asarray(years, float),
        cost=np.asarray(cost, float),
        false_alarms=np.ones(n) if false_alarms is None else np.asarray(false_alarms, float),
        squared_error=np.ones(n) if squared_error is None else np.asarray(squared_error, float),
        rows=np.full(n, 1000.0),
        predicted=observed if predicted is None else predicted,
        observed=observed,
    )


def guardrail(comparison, name):
    return next(one for one in comparison.guardrails if one["name"] == name)


def test_equal_exposures_give_the_ordinary_paired_t_interval():
    values = np.random.default_rng(1).normal(3, 2, 20)
    low, high = Ratio(values, np.ones(20)).interval(0.05)
    expected = stats.t.interval(0.9, 19, values.mean(), stats.sem(values))
    assert (pytest.approx(expected[0]), pytest.approx(expected[1])) == (low, high)
    assert pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue) == Ratio(
        values, np.ones(20)
    ).p_above(0)


def test_a_variance_for_the_unseen_widens_the_interval_as_one_more_machine_sum_would():
    values = np.random.default_rng(1).normal(3, 2, 20)
    low, high = Ratio(values, np.ones(20), unseen=400.0).interval(0.05)
    error = (values.var(ddof=1) / 20 + 400 / 20**2) ** 0.5
    assert pytest.approx(2 * stats.t.isf(0.05, 19) * error) == high - low


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    rng = np.random.default_rng(2)
    below = rng.gamma(4, 1, (2000, 20))
    above = 1.5 * below + rng.normal(0, 1, (2000, 20))
    bounds = [Ratio(a, b).interval(0.05) for a, b in zip(above, below, strict=True)]
    assert abs(np.mean([low > 1.5 for low, _ in bounds]) - 0.05) < 0.015
    assert abs(np.mean([high < 1.5 for _, high in bounds]) - 0.05) < 0.015


positive = st.lists(st.floats(0, 100), min_size=3, max_size=12)


@given(st.data(), positive, st.floats(0.1, 3), st.sampled_from([0.01, 0.05]))
def test_a_bound_above_the_limit_and_a_small_p_say_the_same(data, below, limit, alpha):
    above = data.draw(st.lists(st.floats(0, 100), min_size=len(below), max_size=len(below)))
    ratio = Ratio(np.array(above), np.array(below))
    low, high = ratio.interval(alpha)
    if low is None or high is None or abs(low - limit) < 1e-6:
        return
    assert (low > limit) == (ratio.p_above(limit) < alpha)
    assert low <= ratio.estimate * (1 + 1e-9) + 1e-9
    assert ratio.estimate <= high * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        ([1.0], [1.0], (None, None)),
        ([1.0, 2.0], [0.0, 0.0], (None, None)),
        ([5.0, 6.0, 5.0, 6.0], [1.0, 0.0, 0.0, 0.0], ("bound", None)),
        ([-5.0, -6.0, -5.0, -6.0], [1.0, 0.0, 0.0, 0.0], (None, "bound")),
        ([1.0, -1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], (None, None)),
    ],
)
def test_where_the_denominator_is_not_proven_positive_a_bound_may_be_missing(above, below, expected):
    found = Ratio(np.array(above), np.array(below)).interval(0.05)
    assert tuple("bound" if one is not None else None for one in found) == expected


@pytest.mark.parametrize(("value", "p"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)])
def test_differences_without_spread_are_proof_or_nothing(value, p):
    assert Ratio(np.full(5, value), np.ones(5)).p_above(0) == p


def test_one_machine_proves_nothing():
    assert Ratio(np.array([1.0]), np.ones(1)).p_above(0) == 1.0


@pytest.mark.parametrize(
    ("p", "weight", "refused", "level"),
    [
        ([0.001, 0.02, 0.04], [1, 1, 1], [True, True, True], [0.05 / 3, 0.025, 0.05]),
        ([0.04, 0.001, 0.03], [1, 1, 1], [False, True, False], [0.025, 0.05 / 3, 0.025]),
        ([0.02, 0.02, 0.02], [1, 1, 1], [False, False, False], [0.05 / 3] * 3),
        ([0.02, 0.02], [3, 1], [True, True], [0.0375, 0.05]),
        ([0.04, 0.02], [3, 1], [False, False], [0.0375, 0.0125]),
        ([0.04, 0.012], [3, 1], [True, True], [0.05, 0.0125]),
    ],
)
def test_holm_steps_down_by_weight_and_stops_at_the_first_that_stands(p, weight, refused, level):
    found = holm(p, weight, 0.05)
    assert (refused, pytest.approx(level)) == found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_holm_refuses_at_least_what_bonferroni_does_and_reports_levels_that_agree(p, alpha):
    refused, level = holm(p, [1.0] * len(p), alpha)
    for number, value in enumerate(p):
        assert refused[number] or value > alpha / len(p)
        assert refused[number] == (value <= level[number])


RNG = np.random.default_rng(4)
COST = RNG.poisson(2.5, 20) * 8000.0


def test_a_proven_saving_is_better_and_its_lower_bound_is_positive(fleet):
    found = compare(assessment(COST + 4000), assessment(COST), fleet.settings, ["model1"])
    assert (found.better, found.worse) == (True, False)
    assert found.delta["estimate"] == 8000
    assert 0 < found.delta["low"] < 8000 < found.delta["high"]


def test_a_proven_loss_is_worse_and_its_upper_bound_is_negative(fleet):
    found = compare(assessment(COST), assessment(COST + 4000), fleet.settings, ["model1"])
    assert (found.better, found.worse) == (False, True)
    assert found.delta["high"] < 0


def test_the_same_costs_are_neither_and_need_no_more_machines(fleet):
    found = compare(assessment(COST), assessment(COST), fleet.settings, ["model1"])
    assert (found.better, found.worse, found.machines_to_decide) == (False, False, None)
    assert found.delta["estimate"] == 0


def test_a_saving_so_small_that_one_rare_failure_could_undo_it_is_not_proven(fleet):
    """Every machine saves the same 250, so a bare t test would be certain; one missed failure costs 8,000 more."""
    found = compare(assessment(COST + 250), assessment(COST), fleet.settings, ["model1"])
    assert found.better is False


def test_every_guardrail_names_its_limit(fleet):
    rails = compare(assessment(COST), assessment(COST), fleet.settings, ["model1"]).guardrails
    assert {one["name"]: one["limit"] for one in rails} == {
        "false_alarm_ratio": 1.10,
        "brier_ratio": 1.10,
        "calibration_excess": 0.20,
        "segment_cost_ratio:model1": 1.25,
    }


def test_the_machines_that_would_decide_follow_from_error_rate_and_power(fleet):
    """Four times in five, so the mean must lie (1.645 + 0.842) standard errors from 0; one unseen failure counts."""
    noise = np.tile([4000.0, -4000.0], 10)
    found = compare(assessment(COST + noise + 1000), assessment(COST), fleet.settings, [])
    variance = noise.var(ddof=1) + 8000**2 / 20
    assert found.machines_to_decide == int(np.ceil((1.6449 + 0.8416) ** 2 * variance / 1000**2))


def test_longer_exposure_weighs_more(fleet):
    years = np.where(np.arange(20) < 10, 1.0, 0.1)
    found = compare(assessment(COST + 1100 * years, years=years), assessment(COST, years=years), fleet.settings, [])
    assert pytest.approx(1100) == found.delta["estimate"]


def test_more_machines_are_asked_for_when_the_difference_is_smaller(fleet):
    noise = RNG.normal(0, 4000, 20)
    needed = [
        compare(
            assessment(COST + noise - noise.mean() + saved), assessment(COST), fleet.settings, []
        ).machines_to_decide
        for saved in (800, 400)
    ]
    assert 20 < needed[0] < needed[1]
    assert pytest.approx(4, rel=0.05) == needed[1] / needed[0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("false_alarm_ratio", {"false_alarms": np.arange(20) % 3 + 3}),
        ("brier_ratio", {"squared_error": 1.5 + 0.1 * (np.arange(20) % 3)}),
        ("calibration_excess", {"predicted": np.full((20, 10), 1.0)}),
    ],
)
def test_a_guardrail_far_beyond_its_limit_is_broken_and_its_bound_says_so(fleet, name, change):
    found = compare(assessment(COST), assessment(COST, **change), fleet.settings, ["model1"])
    rail = guardrail(found, name)
    assert rail["holds"] is False
    assert rail["limit"] < rail["low"] <= rail["estimate"]
    assert all(one["holds"] for one in found.guardrails if one["name"] != name)
    assert found.worse is False


def test_a_guardrail_beyond_its_limit_by_chance_holds(fleet):
    some = np.zeros(20)
    some[3] = 30.0
    rail = guardrail(compare(assessment(COST), assessment(COST, 1 + some), fleet.settings, []), "false_alarm_ratio")
    assert rail["estimate"] > rail["limit"]
    assert rail["holds"] is True


def test_a_calibration_excess_adds_up_over_bins(fleet):
    """One of ten seen failures of each machine is expected in another bin: 1 too few there, 1 too many here."""
    predicted = assessment(COST).observed.copy()
    predicted[:, 5] -= 1
    predicted[:, 2] += 1
    found = compare(assessment(COST), assessment(COST, predicted=predicted), fleet.settings, [])
    assert pytest.approx(0.2) == guardrail(found, "calibration_excess")["estimate"]


def test_a_machine_model_that_becomes_much_worse_is_caught_though_the_fleet_gains(fleet):
    model = np.arange(20) // 10
    cost = np.full(20, 40000.0) + 1000 * (np.arange(20) % 4)
    found = compare(
        assessment(cost, model=model),
        assessment(np.where(model == 1, cost * 1.8, cost * 0.1), model=model),
        fleet.settings,
        ["model1", "model2"],
    )
    assert guardrail(found, "segment_cost_ratio:model1")["holds"] is True
    assert guardrail(found, "segment_cost_ratio:model2")["holds"] is False
    assert found.delta["estimate"] > 0


def test_a_segment_of_few_machines_is_shown_and_not_judged(fleet):
    model = np.where(np.arange(20) < 4, 1, 0)
    found = compare(
        assessment(COST + 1, model=model),
        assessment(np.where(model == 1, COST * 50, COST), model=model),
        fleet.settings,
        ["model1", "model2", "model3"],
    )
    assert guardrail(found, "segment_cost_ratio:model2")["holds"] is None
    assert not [one for one in found.guardrails if one["name"].endswith("model3")]


def test_a_champion_without_a_single_false_alarm_leaves_no_ratio_yet_many_are_caught(fleet):
    none = np.zeros(20)
    quiet = guardrail(compare(assessment(COST, none), assessment(COST, none), fleet.settings, []), "false_alarm_ratio")
    loud = guardrail(
        compare(assessment(COST, none), assessment(COST, none + 3), fleet.settings, []), "false_alarm_ratio"
    )
    assert (quiet["estimate"], quiet["holds"]) == (None, True)
    assert (loud["estimate"], loud["holds"]) == (None, False)


def test_without_failure_heads_there_are_no_probabilities_to_judge(fleet):
    found = compare(assessment(COST), assessment(COST), fleet.settings, [], supervised=False)
    assert [one["name"] for one in found.guardrails] == ["false_alarm_ratio"]
