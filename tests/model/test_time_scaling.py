"""One factor scales every length of time in params.yaml, for short, fast and slow fleets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data.schema import HOUR_US, DataError, microseconds
from closedloop.features.spec import FeatureSpec
from closedloop.judge.truth import JudgeSettings
from model.common import params
from model.common.time_scaling import history, scale, tidy, training_hours

RAW = params.load().raw
HISTORY = RAW["features"]["history_hours"]
minutes = st.sampled_from([1, 2, 5, 7, 10, 15, 20, 30, 60, 120, 1440])


@given(hours=st.floats(0.01, 5000), sampling=minutes, least=st.integers(1, 10))
def test_a_length_is_an_exact_multiple_of_the_sampling_period_near_what_was_asked(hours, sampling, least):
    found = microseconds(tidy(hours, sampling, least))
    period = sampling * 60_000_000
    assert found % period == 0
    assert found >= least * period
    most = max(least * period, hours * HOUR_US * 1.07, hours * HOUR_US + period / 2)
    assert min(hours * HOUR_US * 0.93, hours * HOUR_US - period / 2) <= found <= most + 1


def test_an_hourly_fleet_of_years_keeps_every_length():
    assert history(HISTORY, 8760, 60) == HISTORY
    assert RAW == scale(RAW, HISTORY, 60)


@pytest.mark.parametrize(
    ("span_hours", "sampling", "expected"),
    [
        (400 / 60, 1, 1.35),  # SKAB: a fifth of 400 minutes, 80 of them, to three minutes
        (14 * 24, 10, 67),  # three weeks, of which two train
        (8760, 10, HISTORY),
        (500 * 24, 1440, 72 * 24),  # daily rows: as many readings
        (100 * 24, 1440, 20 * 24),
        (1, 10, 10 * 10 / 60),  # never fewer than ten readings
    ],
)
def test_the_history_is_the_one_asked_for_or_a_fifth_of_the_training_time(span_hours, sampling, expected):
    assert expected == pytest.approx(history(72, span_hours, sampling))


@given(share=st.floats(0.002, 30), sampling=minutes)
def test_a_scaled_file_is_one_that_every_command_accepts(share, sampling):
    """Windows lie within the history, the lead is below the horizon, and every feature that is named exists."""
    schema = params.load().schema.to_dict() | {"sampling_minutes": sampling}
    found = scale(RAW, history(HISTORY, 5 * HISTORY * share, sampling), sampling) | {"schema": schema}
    asked = params.parse(found)
    spec = FeatureSpec.from_params(asked.features, asked.schema)
    rules = JudgeSettings.from_params(found).rules
    assert 0 < rules.minimum_lead_us < rules.horizon_us == asked.horizon_us
    skipped = {reason.partition(":")[0] for reason in spec.skipped}
    for name in set(asked.anomaly["features"]) - skipped:
        assert name in spec.names or f"{asked.schema.sensors[0]}_{name}" in spec.names


def test_the_budget_grows_as_the_lengths_shrink():
    found = scale(RAW, HISTORY / 54, 1)
    assert found["anomaly"]["alarms_per_machine_year"] == pytest.approx(
        54 * RAW["anomaly"]["alarms_per_machine_year"], rel=0.05
    )
    assert found["judge"]["costs"] == RAW["judge"]["costs"]
    assert found["gate"] == RAW["gate"]


@pytest.mark.parametrize(
    ("rule", "prefix", "hours"),
    [("fleet", 1 / 3, 60), ("unit", 1 / 3, 90), ("prefix", 0.2, 18), ("prefix", 400, 40 / 6)],
)
def test_the_training_time_is_what_the_split_rule_leaves(rule, prefix, hours):
    assert hours == pytest.approx(training_hours(90, rule, prefix, 1))
    assert training_hours(3, "prefix", 400, 1) == 3


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("labels", "horizon_hours", True, "must be a number"),
        ("labels", "horizon_hours", float("nan"), "must be a number above 0"),
        ("judge", "neutral_hours", float("inf"), "must be a number above 0"),
        ("split", "prefix", 0, "must be a number above 0"),
        ("split", "prefix", 1.5, "a share below 1 or a whole number of rows"),
        ("split", "prefix", "third", "must be a number"),
    ],
)
def test_a_value_that_is_no_length_is_named(section, key, value, says):
    with pytest.raises(DataError, match=rf"{section}\.{key} is .*{says}"):
        params.parse(RAW | {section: RAW[section] | {key: value}})


@pytest.mark.parametrize("minutes", [7, 65, 69, 123])  # of the last three the product is just below the whole number
def test_hours_that_are_not_whole_are_exact_microseconds(minutes):
    judge = RAW["judge"] | {"minimum_lead_hours": 0.1}
    asked = params.parse(RAW | {"labels": {"horizon_hours": minutes / 60}, "judge": judge})
    assert asked.horizon_us == minutes * 60_000_000


def test_a_lead_that_rounds_up_to_the_horizon_stays_below_it():
    found = scale(RAW | {"judge": RAW["judge"] | {"minimum_lead_hours": 23}}, HISTORY / 54, 1)
    rules = JudgeSettings.from_params(found).rules
    assert rules.minimum_lead_us < rules.horizon_us
