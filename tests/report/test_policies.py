"""Ways to run a fleet without a model, which a manager compares the model with."""

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US
from closedloop.judge.metrics import assess
from closedloop.judge.truth import YEAR_US, Grid, align
from closedloop.report.pictures import Seen
from closedloop.report.policies import ALWAYS, NEVER, SCHEDULE, best_age, lives, policies

PLANNED, UNPLANNED = 2.0, 10.0


def seen(fleet, model) -> Seen:
    """What a report of a model without a champion is made of."""
    truth, settings = fleet.truth, fleet.settings
    grid = Grid.of(truth, settings)
    heads = align(model, grid)
    return Seen(heads, assess(heads, grid, settings, truth.schema), None, {}, {}, grid, settings, truth)


def test_where_every_part_lives_a_year_it_is_replaced_just_before():
    found = best_age(np.ones(5), np.ones(5, bool), PLANNED, UNPLANNED)
    assert tuple(found) == pytest.approx((PLANNED, 0.0, 1.0))


def test_parts_that_do_not_age_gain_nothing_from_a_schedule():
    """Of exponential lives the best age is the longest: replacing earlier only adds replacements."""
    ages = -np.log(1 - (np.arange(2000) + 0.5) / 2000)
    found = best_age(ages, np.ones(2000, bool), PLANNED, UNPLANNED)
    assert found.cost == pytest.approx(UNPLANNED, rel=0.01)
    assert found.replacements < 0.01


def test_a_life_that_ended_without_a_failure_counts_up_to_its_end():
    """By hand: of three lives one was cut at 1 year, the others failed at 2 and 3 years."""
    found = best_age(np.array([1.0, 2.0, 3.0]), np.array([False, True, True]), PLANNED, UNPLANNED)
    assert tuple(found) == pytest.approx((PLANNED / 2, 0.0, 0.5))
    dear = best_age(np.array([1.0, 2.0, 3.0]), np.array([False, True, True]), 9.9, UNPLANNED)  # to fail is hardly worse
    assert dear.cost == pytest.approx((9.9 * 0.5 + UNPLANNED * 0.5) / 2.5)


def test_without_a_failure_there_is_no_best_age():
    assert best_age(np.array([1.0, 2.0]), np.zeros(2, bool), PLANNED, UNPLANNED) is None


def test_lives_begin_with_a_replacement_or_a_repair_and_end_with_the_next(build, fleet):
    """The failure at 300 h also has its replacement at that hour; the second component's events are no life of this."""
    tables = fleet.truth.tables
    machine = int(tables.machine[0])
    few = build.replace(
        tables.select(np.array([machine])),
        maint=build.events((machine, 100, 0), (machine, 300, 0), (machine, 340, 1)),
        failures=build.events((machine, 300, 0)),
    )
    ages, failed = lives(few, 0)
    assert failed.tolist() == [True, False]
    rest = few.time.max() - few.failures.time[0]
    assert ages == pytest.approx(np.array([200 * HOUR_US, rest]) / YEAR_US)


def test_every_way_is_judged_on_the_same_machines(fleet):
    of_model = seen(fleet, fleet.model(recall=0.9, seed=1))
    never, scheduled, always, mine = policies(of_model)
    assert [NEVER, SCHEDULE, ALWAYS, "This model"] == [never.name, scheduled.name, always.name, mine.name]
    years, failures = of_model.grid.years.sum(), of_model.grid.failure_count
    assert (never.surprises, never.actions) == pytest.approx((failures / years, 0.0))
    assert (always.surprises, scheduled.cost <= never.cost) == (0.0, True)
    assert always.actions > mine.actions > 0
    assert mine.cost < never.cost
    silent = policies(seen(fleet, fleet.model(recall=0.0, false_alarms=0.0)))
    assert silent[-1].cost == pytest.approx(silent[0].cost)
    assert silent[-1].surprises == pytest.approx(silent[0].surprises)
