"""What the drift reference holds, and that it is enough to tell a fleet that moved from one that did not.

The two tests of drift here are those that DESIGN names, from the stored arrays alone. A machine's readings are alike,
so machines are what is drawn: KS permutes them between the stored ones and the sample, and the threshold of PSI
follows from the covariance of the bins' shares between them.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from closedloop.data.schema import HOUR_US, Events, Tables
from closedloop.data.simulate import simulate
from closedloop.heads import drift_reference_fit
from closedloop.heads.drift_reference import BINS, MOST_DAYS, QUANTILES, DriftReference
from closedloop.heads.drift_reference_fit import fit_drift_reference
from closedloop.heads.storage import pack, unpack
from simulated_fleet import SCHEMA

SHIFT, ERROR_RATE, SAMPLES = 10.0, 0.05, 12  # volts: two thirds of a deviation of the readings


def fleet(seed: int) -> Tables:
    """20 machines, 60 days; machines of every seed differ by a tenth of a deviation."""
    return simulate("default", 20, 60, seed, SCHEMA).tables


@pytest.fixture(scope="module")
def stored() -> DriftReference:
    """As a later commit finds it in a bundle."""
    return DriftReference.from_arrays(unpack("reference", pack(fit_drift_reference(fleet(1), SCHEMA).to_arrays())))


def rejected(p: list[float]) -> list[str]:
    """The sensors that Benjamini and Hochberg's procedure rejects."""
    order = np.argsort(p)
    holds = np.flatnonzero(np.array(p)[order] <= ERROR_RATE * np.arange(1, len(p) + 1) / len(p))
    return sorted(SCHEMA.sensors[k] for k in order[: holds.max() + 1]) if len(holds) else []


def ks(stored: DriftReference, tables: Tables) -> list[str]:
    """Sensors whose machine-day means moved: Kolmogorov and Smirnov's distance, machines permuted."""
    now, rng = fit_drift_reference(tables, SCHEMA), np.random.default_rng(0)
    machines = np.append(stored.day_machine, now.day_machine + 10**9)  # the same number may be another machine
    found = []
    for means in np.concatenate([stored.day_means, now.day_means], axis=1)[: len(SCHEMA.sensors)]:
        there = np.flatnonzero(~np.isnan(means))
        ids, machine = np.unique(machines[there[np.argsort(means[there])]], return_inverse=True)

        def distance(of_reference, machine=machine):
            mine = of_reference[machine]
            return np.abs(np.cumsum(mine) / mine.sum() - np.cumsum(~mine) / (~mine).sum()).max()

        own = ids < 10**9
        chance = [distance(rng.permutation(own)) for _ in range(199)]
        found.append((1 + np.sum(chance >= distance(own))) / 200)
    return rejected(found)


def psi(stored: DriftReference, tables: Tables, clustered: bool = True) -> list[str]:
    """Sensors whose population stability index passes its χ² threshold, which Satterthwaite's two moments give.

    Not ``clustered``: the threshold of independent readings.
    """
    found, machine = [], np.unique(tables.machine, return_inverse=True)[1]
    for c, values in enumerate(tables.values):
        counts, covariance = drift_reference_fit.shares(values, stored.edges[c], machine)
        before, now = stored.counts[c] / stored.counts[c].sum(), counts / counts.sum()
        middle, index = (before + now) / 2, float(np.sum((now - before) * np.log(now / before)))
        both = stored.covariance[c] + covariance
        if not clustered:
            both = (np.diag(middle) - np.outer(middle, middle)) * (1 / counts.sum() + 1 / stored.counts[c].sum())
        ratio = both / middle[:, None]
        first, second = np.trace(ratio), np.trace(ratio @ ratio)
        found.append(chi2.sf(index * first / second, first**2 / second))
    return rejected(found)


@pytest.mark.parametrize("test", [ks, psi])
def test_another_sample_of_the_same_fleet_is_no_drift(test, stored):
    """At most one sample in twenty may alarm, so three of twelve would be a surprise (p = 0.02)."""
    assert sum(bool(test(stored, fleet(seed))) for seed in range(2, 2 + SAMPLES)) <= 2


@pytest.mark.parametrize("test", [ks, psi])
def test_a_shifted_sensor_is_found_and_no_other_accused(test, stored):
    tables = fleet(2)
    values = tables.values.copy()
    values[0] += SHIFT
    assert test(stored, replace(tables, values=values)) == ["volt"]


def test_a_sensor_that_spreads_wider_is_found_by_its_bins(stored):
    """Machine-day means hardly move: one test does not replace the other."""
    tables = fleet(2)
    values = tables.values.copy()
    values[1] = 450 + (values[1] - 450) * 1.3
    assert psi(stored, replace(tables, values=values)) == ["rotate"]


def test_without_the_covariance_the_same_fleet_would_nearly_always_alarm(stored):
    """What it is stored for: to a threshold of independent readings, machines of one fleet are drift."""
    alarms = [bool(psi(stored, fleet(seed), clustered=False)) for seed in range(2, 2 + SAMPLES)]
    assert sum(alarms) >= SAMPLES - 2


def test_its_size_does_not_grow_with_the_fleet_and_the_same_tables_give_the_same_bytes():
    sizes = []
    for machines in (40, 80):
        tables = simulate("default", machines, 60, 1, SCHEMA).tables
        packed = pack(fit_drift_reference(tables, SCHEMA).to_arrays())
        assert pack(fit_drift_reference(tables, SCHEMA).to_arrays()) == packed
        sizes.append(len(packed))
    assert sizes[0] == sizes[1] < 100_000


def test_the_sample_of_machine_days_is_of_every_machine_and_each_mean_is_a_days():
    tables = simulate("default", 40, 60, 1, SCHEMA).tables
    found = fit_drift_reference(tables, SCHEMA)
    found.check(4, 5)
    assert len(found.day_machine) == MOST_DAYS
    assert np.unique(found.day_machine).tolist() == list(range(1, 41))
    days = tables.values[0, tables.machine == 7]
    start = int(tables.time[0] % drift_reference_fit.DAY_US // HOUR_US)
    means = {round(float(part.mean()), 9) for part in np.split(days, range(24 - start, len(days), 24))}
    sampled = found.day_means[0, found.day_machine == 7]
    assert {round(value, 9) for value in sampled[~np.isnan(sampled)].tolist()} <= means  # the last is half a day


def small(values: list[list[float]], machine: list[int] | None = None, hours: int = 1) -> Tables:
    """Rows every so many hours from midnight, of one machine if not said otherwise."""
    columns = np.array(values, np.float64)
    ids = np.zeros(columns.shape[1], np.int64) if machine is None else np.array(machine, np.int64)
    time = np.concatenate([np.arange(np.sum(ids == one)) * hours * HOUR_US for one in np.unique(ids)])
    none, undescribed = Events.empty(), (np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0))
    return Tables.of(ids, time, columns, none, none, None, undescribed)


ONE = replace(SCHEMA, sensors=("oil",), ranges=((-10.0, 10.0),), errors=("low", "hot"))


def test_quantiles_edges_counts_and_missing_are_those_of_the_readings():
    column = [float("nan")] * 25 + list(range(75))
    found = fit_drift_reference(small([column]), ONE)
    assert found.quantiles[0].tolist() == np.quantile(np.arange(75), QUANTILES).tolist()
    assert {7, 8} == set(found.counts[0].tolist())  # tenths of 75
    assert found.counts[0].tolist() == np.histogram(range(75), [-1, *found.edges[0], 99])[0].tolist()
    assert found.missing.tolist() == [0.25]
    assert found.machine_days == 100 / 24


def test_a_score_is_one_more_column():
    tables = fleet(1)
    score = np.arange(len(tables.time), dtype=float)
    found = fit_drift_reference(tables, SCHEMA, score)
    found.check(5, 5)
    assert found.quantiles[4].tolist() == np.quantile(score, QUANTILES).tolist()
    np.testing.assert_array_equal(found.day_means[:4], fit_drift_reference(tables, SCHEMA).day_means)


def test_the_covariance_is_that_of_a_mean_over_machines():
    """Where machines have equally many readings a share is the mean of the machines' own."""
    tables = fleet(1)
    found = fit_drift_reference(tables, SCHEMA)
    edges = [-np.inf, *found.edges[2], np.inf]
    own = np.array([np.histogram(tables.values[2, tables.machine == m], edges)[0] for m in range(1, 21)]) / (60 * 24)
    np.testing.assert_allclose(found.covariance[2], np.cov(own.T) / 20, rtol=1e-9, atol=1e-15)


def test_days_stand_for_machines_where_there_is_but_one():
    found = fit_drift_reference(small([np.random.default_rng(0).normal(size=240).tolist()]), ONE)
    assert found.day_machine.tolist() == [0] * 10
    assert np.trace(found.covariance[0]) > 0


def test_a_day_with_less_than_half_of_its_readings_has_no_mean():
    column = np.ones(48)
    column[11:24] = np.nan  # 11 of 24 left
    column[24:36] = np.nan  # 12 of 24 left
    found = fit_drift_reference(small([column.tolist()]), ONE)
    np.testing.assert_array_equal(found.day_means, [[np.nan, 1.0]])


def test_a_sensor_read_every_third_day_has_a_mean_for_each_reading():
    found = fit_drift_reference(small([[1.0, 2.0, 3.0]], hours=72), replace(ONE, sampling_minutes=3 * 24 * 60))
    assert found.day_means.tolist() == [[1.0, 2.0, 3.0]]
    assert found.machine_days == 9


def test_errors_count_while_their_machine_is_seen():
    """Not those after a machine's last training row: training must not see them."""
    tables = small([[1.0] * 10], machine=[1] * 4 + [2] * 6)
    hours = np.array([-1, 0, 3, 4, 5, 5, 6])
    errors = Events.of(np.array([1, 1, 1, 1, 2, 2, 2]), hours * HOUR_US, np.array([0, 1, 1, 1, 0, 1, 1], np.int16))
    found = fit_drift_reference(replace(tables, errors=errors), ONE)
    assert found.error_counts.tolist() == [1, 3]


def test_a_sensor_that_never_moves_has_a_reference():
    found = fit_drift_reference(small([[5.0] * 48]), ONE)
    found.check(1, 2)
    assert found.counts[0].tolist() == [0] * (BINS - 1) + [48]
