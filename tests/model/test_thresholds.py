"""A failure head's threshold is the sensible one of those that cost the same, not the edge that one sample drew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US
from closedloop.judge.truth import Grid
from judged_fleet import make
from model.common.thresholds import _most_episodes, budget_threshold, cost_threshold


@pytest.fixture(scope="module")
def fleet():
    """The settings, the grid, and which rows lie in the 20 hours before a failure of the first component."""
    made = make(machines=16)
    grid = Grid.of(made.truth, made.settings)
    before = np.zeros(len(grid.time), bool)
    for machine, (low, high) in enumerate(zip(grid.offsets[:-1], grid.offsets[1:], strict=True)):
        lead = grid.failures[machine][0] - grid.time[low:high, None]
        before[low:high] = ((lead > 0) & (lead <= 20 * HOUR_US)).any(axis=1)
    return made.settings, grid, before


def logit(probability):
    return np.log(probability / (1 - probability))


WORTH = 250 / 8250  # a false alarm costs 250, a failure that is foreseen saves 8,000


def test_between_two_separate_groups_it_is_what_the_costs_imply(fleet):
    """A failure that scores a little less than the training machines' must raise an alarm; a healthy row must not."""
    settings, grid, before = fleet
    noise = np.random.default_rng(0).uniform(0, 1, len(before))
    probability = np.where(before, 0.985 + 0.01 * noise, 1e-5 * (1 + noise))
    threshold, (low, high) = cost_threshold(grid, 0, probability, settings)
    assert 1e-5 <= low <= 2e-5
    assert 0.985 <= high <= 0.995
    assert threshold == pytest.approx(WORTH)


def test_a_probability_that_all_failures_share_still_raises_alarms(fleet):
    settings, grid, before = fleet
    for certain in (0.7, 1.0):
        probability = np.where(before, certain, 0.0)
        threshold, _ = cost_threshold(grid, 0, probability, settings)
        assert threshold == pytest.approx(WORTH)
    threshold, _ = cost_threshold(grid, 0, np.where(before, 0.01, 0.0), settings)
    assert 0 < threshold <= 0.01


def test_a_threshold_that_costs_more_than_noise_is_not_on_the_plateau(fleet):
    """Every machine has healthy rows at 0.3 to 0.4, which would all be false alarms."""
    settings, grid, before = fleet
    noise = np.random.default_rng(1).uniform(0, 1, len(before))
    probability = np.where(before, 0.8 + 0.1 * noise, np.where(noise < 0.05, 0.3 + 2 * noise, 0.001 * noise))
    threshold, (low, high) = cost_threshold(grid, 0, probability, settings)
    assert 0.3 < low < threshold <= 0.8 <= high


def spread(settings, grid, before, seed):
    """The standard deviation of the threshold's logit over 15 draws of the machines of one fleet."""
    rng = np.random.default_rng(seed)
    own = np.repeat(2 * rng.standard_normal(len(grid.ids)), np.diff(grid.offsets))
    probability = 1 / (1 + np.exp(-(np.where(before, own, -8.0) + rng.standard_normal(len(before)))))
    chosen = []
    for _ in range(15):
        machines = rng.choice(len(grid.ids), len(grid.ids))
        rows = np.concatenate([np.arange(grid.offsets[m], grid.offsets[m + 1]) for m in machines])
        drawn = replace(
            grid,
            offsets=np.append(0, np.cumsum(np.diff(grid.offsets)[machines])),
            time=grid.time[rows],
            known=grid.known[:, rows],
            failures=tuple(grid.failures[m] for m in machines),
        )
        threshold, (low, high) = cost_threshold(drawn, 0, probability[rows], settings)
        assert low < threshold <= high
        chosen.append(logit(threshold))
    return np.std(chosen)


def test_it_is_stable_when_the_machines_are_drawn_again(fleet):
    """Machines differ in how high they score before a failure. The threshold of least cost varies by 1.4 here."""
    found = [spread(*fleet, seed) for seed in range(6)]
    assert np.mean(found) < 0.8


def test_a_short_time_promises_no_rate(fleet):
    """A budget of one or two episodes in all the time of training: one that was seen says nothing of the next time."""
    settings, grid, _ = fleet
    score = np.random.default_rng(2).uniform(0, 1, len(grid.time))
    years = float(grid.years.sum())
    assert budget_threshold(grid, score, 1.4 / years, settings.rules) > score.max()
    assert budget_threshold(grid, score, 2.9 / years, settings.rules) > score.max()
    assert budget_threshold(grid, score, 4.8 / years, settings.rules) == score.max()


def test_a_long_time_uses_nearly_all_of_its_budget():
    assert [0, 0, 1, 14, 180, 970] == [_most_episodes(expected) for expected in (0.2, 2.9, 4.8, 22.0, 204.0, 1023.0)]
    assert all(_most_episodes(0.1 * n) <= 0.1 * n for n in range(200))
