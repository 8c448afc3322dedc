"""The simulator keeps the promises of its two profiles. Bounds are about four standard errors of a fleet of 300."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.data import simulate
from closedloop.data.schema import HOUR_US, DataError
from closedloop.data.simulate import COMPONENTS, DEVIATION, ERRORS, ERRORS_OF, MEAN, SENSORS, START_US, STEP

MACHINES, DAYS = 300, 365
HOURS = 24 * DAYS


class Fleet:
    """A simulated fleet whose times are hours since its first row."""

    def __init__(self, profile, schema):
        made = simulate.simulate(profile, MACHINES, DAYS, 11, schema)
        self.tables, self.anomalies = made.tables, made.anomalies.copy()
        self.values = self.tables.values.reshape(4, MACHINES, HOURS)
        for name in ("start", "end"):
            times = self.anomalies[name].dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
            self.anomalies[name] = (times - START_US) // HOUR_US
        self.wear = self.anomalies[self.anomalies["leads_to_failure"]]
        self.decoys = self.anomalies[self.anomalies["kind"] == "decoy"]

    def events(self, name):
        table = getattr(self.tables, name)
        return list(
            zip(table.machine.tolist(), ((table.time - START_US) // HOUR_US).tolist(), table.code.tolist(), strict=True)
        )

    def healthy(self):
        """Mask, shape (sensors, machines, hours), of the readings that no anomaly touches."""
        mask = np.ones(self.values.shape, bool)
        for row in self.anomalies.itertuples():
            mask[SENSORS.index(row.sensor), row.machineID - 1, row.start : row.end + 1] = False
        return mask


@pytest.fixture(scope="module")
def azure(schema):
    return Fleet("azure", schema)


@pytest.fixture(scope="module")
def default(schema):
    return Fleet("default", schema)


@pytest.fixture(scope="module", params=["azure", "default"])
def fleet(request):
    return request.getfixturevalue(request.param)


def test_a_seed_gives_the_same_bits_for_ever(schema):
    """A changed hash is a changed fleet, and then every pin of a simulated fleet must move."""
    expected = {
        "azure": "sha256:629640f1a86a7af14f0911b913301b54b857b715faa4068f8f5a78958922cc18",
        "default": "sha256:5f731b7db01397e72e5f673b8fc809da3b8bf1226c2b32aebdfa361824227209",
    }
    actual = {profile: simulate.simulate(profile, 4, 60, 7, schema).tables.fingerprint() for profile in expected}
    assert expected == actual


def test_profiles_and_seeds_differ(schema):
    fingerprints = {
        simulate.simulate(profile, 1, 5, seed, schema).tables.fingerprint()
        for profile in ("azure", "default")
        for seed in (0, 1)
    }
    assert len(fingerprints) == 4


@settings(max_examples=15, deadline=None)
@given(
    profile=st.sampled_from(["azure", "default"]),
    few=st.integers(1, 3),
    more=st.integers(1, 4),
    days=st.integers(1, 120),
    seed=st.integers(0, 2**40),
)
def test_adding_machines_never_changes_the_others(schema, profile, few, more, days, seed):
    small = simulate.simulate(profile, few, days, seed, schema)
    large = simulate.simulate(profile, few + more, days, seed, schema)
    assert small.tables.fingerprint() == large.tables.select(small.tables.machine_ids).fingerprint()
    shared = large.anomalies[large.anomalies["machineID"] <= few]
    assert small.anomalies.equals(shared)


@settings(max_examples=15, deadline=None)
@given(profile=st.sampled_from(["azure", "default"]), days=st.integers(1, 60), seed=st.integers(0, 1000))
def test_any_fleet_is_whole(schema, profile, days, seed):
    """Rows are hourly without a gap, errors and failures lie inside them, and each failure has a degradation."""
    made = simulate.simulate(profile, 2, days, seed, schema)
    tables, end_us = made.tables, START_US + 24 * days * HOUR_US
    assert (4, 2 * 24 * days) == tables.values.shape
    for window in tables.windows():
        assert window.time[0] == 1_420_092_000_000_000  # 2015-01-01T06:00Z
        assert np.all(np.diff(window.time) == HOUR_US)
        for events in (window.errors, window.failures):
            assert np.all((events.time >= START_US) & (events.time < end_us))
        assert np.all(window.maint.time < end_us)
    assert len(tables.failures.time) == made.anomalies["leads_to_failure"].sum()
    assert np.all(made.anomalies["start"] <= made.anomalies["end"])


def test_values_have_six_decimals_and_are_never_below_zero(azure, schema, monkeypatch):
    assert np.array_equal(azure.tables.values.round(6), azure.tables.values)
    monkeypatch.setattr(simulate, "MEAN", np.array([170.0, 450.0, 100.0, 5.0]))
    assert simulate.simulate("azure", 1, 30, 7, schema).tables.values[3].min() == 0.0


def test_machine_models_and_ages_are_those_of_microsofts_data(fleet):
    shares = np.bincount(fleet.tables.machine_model, minlength=4) / MACHINES
    assert np.allclose([0.16, 0.17, 0.35, 0.32], shares, atol=0.08)
    ages = fleet.tables.machine_age
    assert (ages.min(), ages.max()) == (0, 20)
    assert ages.mean() == pytest.approx(10, abs=1.5)


def test_failures_come_7_6_times_a_year_and_more_with_age(fleet):
    failures = np.bincount(fleet.tables.failures.machine, minlength=MACHINES + 1)[1:]
    assert failures.mean() == pytest.approx(7.6, abs=0.5)
    assert np.corrcoef(failures, fleet.tables.machine_age)[0, 1] == pytest.approx(0.47, abs=0.11)


def test_comp3_fails_on_model1_and_model2_only(fleet):
    failures = fleet.tables.failures
    models = set(fleet.tables.machine_model[failures.machine[failures.code == 2] - 1].tolist())
    assert {0, 1} == models
    for component in (0, 1, 3):
        assert {0, 1, 2, 3} == set(
            fleet.tables.machine_model[failures.machine[failures.code == component] - 1].tolist()
        )


def test_visits_come_every_15_days_at_06_00_on_the_machines_own_phase(fleet):
    """A failed component is replaced at its failure, every other one at a visit."""
    planned = set(fleet.events("maint")) - set(fleet.events("failures"))
    phase = {(machine, hour % 360) for machine, hour, _ in planned if hour > 0}
    assert {machine for machine, _ in phase} == set(range(1, MACHINES + 1))
    assert len(phase) == MACHINES
    assert {hours for _, hours in phase} == set(range(0, 360, 24))  # the first row is at 06:00


def test_a_visit_replaces_one_component_or_a_third_of_the_time_two(azure):
    visits = Counter((machine, hour) for machine, hour, _ in azure.events("maint") if hour > 0)
    assert set(Counter(machine for machine, _ in visits).values()) == {24, 25}
    assert set(visits.values()) == {1, 2}
    assert np.mean([count == 2 for count in visits.values()]) == pytest.approx(0.33, abs=0.025)


def test_each_component_was_replaced_by_the_first_row(fleet):
    """The last replacements before the first row are spread over 14 visits, 210 days."""
    before = [(machine, code, hour) for machine, hour, code in fleet.events("maint") if hour <= 0]
    assert {(machine, code) for machine in range(1, MACHINES + 1) for code in range(4)} == {key[:2] for key in before}
    hours = np.array([hour for *_, hour in before])
    assert hours.min() >= -14 * 360
    assert hours.mean() - 12 == pytest.approx(-6.5 * 360, abs=0.6 * 360)


def test_a_failed_component_is_replaced_as_it_fails(fleet):
    assert set(fleet.events("failures")) <= set(fleet.events("maint"))


def _phase(fleet):
    """Hours of each machine's visits after a multiple of 15 days."""
    planned = set(fleet.events("maint")) - set(fleet.events("failures"))
    return {machine: hour % 360 for machine, hour, _ in planned if hour > 0}


def test_azure_fails_at_visits(azure):
    phase = _phase(azure)
    assert {0} == {(phase[machine] - hour) % 360 for machine, hour, _ in azure.events("failures")}


def test_default_fails_uniformly_in_the_15_days_before_a_visit(default):
    """Off the grid: never in the hour of a visit. Uniform: each third of the 15 days has a third of the failures."""
    phase = _phase(default)
    before = [(phase[machine] - hour) % 360 for machine, hour, _ in default.events("failures")]
    assert min(before) > 0
    shares = np.histogram(before, bins=[1, 120, 240, 360])[0] / len(before)
    assert np.allclose(1 / 3, shares, atol=0.045)


def test_azure_steps_for_48_hours_on_the_components_own_sensor(azure):
    expected = [(machine, hour - 48, hour, SENSORS[code]) for machine, hour, code in azure.events("failures")]
    actual = [
        (row.machineID, row.end - 48, row.end, row.sensor)
        for row in azure.wear.itertuples()
        if row.start == max(row.end - 48, 0)
    ]
    assert sorted(expected) == sorted(actual)


@pytest.mark.parametrize(("sensor", "step"), [("volt", 20), ("rotate", -80), ("pressure", 25), ("vibration", 10)])
def test_azure_wear_and_decoys_are_the_same_step(azure, sensor, step):
    """Nothing an hour before, all of it from the first hour to the last, nothing an hour after."""
    row = SENSORS.index(sensor)
    for events in (azure.wear, azure.decoys):
        events = events[(events["sensor"] == sensor) & (events["start"] > 0) & (events["end"] < HOURS - 1)]
        stretches = [azure.values[row, e.machineID - 1, e.start - 1 : e.end + 2] for e in events.itertuples()]
        assert {51} == {len(stretch) for stretch in stretches}
        mean = np.mean(stretches, axis=0) - MEAN[row]
        wide = 4.5 * DEVIATION[row] / np.sqrt(len(stretches))
        assert np.allclose([0] + [step] * 49 + [0], mean, atol=wide)
        assert mean[1:-1].mean() == pytest.approx(step, abs=wide / 7)


def test_azure_readings_are_white_noise_of_the_nominal_deviation(azure):
    healthy = azure.healthy()
    for row, (mean, deviation) in enumerate(((170, 15), (450, 50), (100, 10), (40, 5))):
        clean = azure.values[row][healthy[row]]
        assert clean.mean() == pytest.approx(mean, abs=deviation / 200)
        assert clean.std() == pytest.approx(deviation, rel=0.005)
    units = (azure.values[0] - MEAN[0]) / DEVIATION[0]
    pairs = healthy[0][:, 1:] & healthy[0][:, :-1]
    assert np.mean((units[:, 1:] * units[:, :-1])[pairs]) == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(("profile", "share"), [("azure", 1.0), ("default", 0.45)])
def test_decoys_come_as_often_as_promised(request, profile, share):
    fleet = request.getfixturevalue(profile)
    counts = fleet.decoys["sensor"].value_counts()
    for sensor, per_year in zip(SENSORS, (5.5, 6.5, 3.4, 3.9), strict=True):
        expected = per_year * share * MACHINES
        assert counts[sensor] == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert counts.sum() / MACHINES == pytest.approx(19.3 * share, rel=0.05)


def test_what_a_sensor_shows_never_overlaps(fleet):
    """Decoys, faults and degradations of a sensor do not overlap."""
    for _, shown in fleet.anomalies.groupby(["machineID", "sensor"]):
        shown = shown.sort_values("start")
        gap = shown["start"].to_numpy()[1:] - shown["end"].to_numpy()[:-1]
        wear = (shown["kind"] == "degradation").to_numpy()
        assert np.all(gap > np.where(wear[1:] & wear[:-1], 0, 24))


def test_a_sensor_without_room_shows_fewer_decoys_and_never_overlapping_ones(schema, monkeypatch):
    monkeypatch.setattr(simulate, "DECOYS_PER_YEAR", np.full(4, 600.0))
    monkeypatch.setattr(simulate, "FAILURES_PER_YEAR", np.zeros(4))
    decoys = simulate.simulate("azure", 1, 30, 7, schema).anomalies.sort_values(["sensor", "start"])
    assert set(decoys["sensor"].value_counts()) <= set(range(4, 11))  # of about 49 that were asked for
    same = decoys["sensor"].to_numpy()[1:] == decoys["sensor"].to_numpy()[:-1]
    clear = (decoys["start"].to_numpy()[1:] - decoys["end"].to_numpy()[:-1]) > np.timedelta64(24, "h")
    assert np.all(clear[same])
    assert simulate.simulate("azure", 1, 2, 7, schema).anomalies.empty  # 49 hours have no room in 48


def test_faults_need_room_too(schema, monkeypatch):
    profile = replace(simulate.PROFILES["default"], faults_per_year=20_000.0, decoy_share=0.0)
    monkeypatch.setitem(simulate.PROFILES, "default", profile)
    faults = simulate.simulate("default", 1, 3, 7, schema).anomalies
    assert 0 < len(faults) < 30  # of about 160 that were asked for


def test_azure_errors_announce_each_failure_by_24_hours(azure):
    errors = set(azure.events("errors"))
    for machine, hour, component in azure.events("failures"):
        for code in {0: [0], 1: [1, 2], 2: [3], 3: [4]}[component]:
            assert (machine, hour - 24, code) in errors


@pytest.mark.parametrize(("profile", "announced", "decoyed"), [("azure", 1.0, 0.0), ("default", 0.85, 0.25)])
def test_random_errors_come_as_often_as_promised(request, profile, announced, decoyed):
    fleet = request.getfixturevalue(profile)
    counts = np.bincount(fleet.tables.errors.code)
    failures = np.bincount(fleet.tables.failures.code)
    decoys = fleet.decoys["sensor"].value_counts()
    for component, codes in enumerate(ERRORS_OF):
        for code in codes:
            extra = announced * failures[component] + decoyed * decoys[SENSORS[component]] / len(codes)
            expected = (8.2, 7.3, 5.8, 6.0, 1.8)[code] * MACHINES
            assert counts[code] - extra == pytest.approx(expected, abs=3 * np.sqrt(expected))


def test_default_onsets_and_severities_are_spread(default):
    whole = default.wear[default.wear["start"] > 0]
    onset = whole["end"] - whole["start"]
    assert (onset.min(), onset.max()) == (36, 96)
    assert onset.mean() == pytest.approx(66, abs=1.6)
    assert default.wear["severity"].min() == pytest.approx(0.7, abs=0.01)
    assert default.wear["severity"].max() == pytest.approx(1.3, abs=0.01)
    length = default.decoys["end"] - default.decoys["start"]
    assert (length.min(), length.max()) == (24, 72)
    assert length.mean() == pytest.approx(48, abs=1.2)


@pytest.mark.parametrize("sensor", range(4))
def test_default_wear_ramps_up_to_a_plateau(default, sensor):
    """In steps and shares of the severity: an eighth of the way up after an eighth of the ramp, flat from half on."""
    events = default.anomalies[
        (default.anomalies["sensor"] == SENSORS[sensor])
        & default.anomalies["kind"].isin(["degradation", "decoy"])
        & (default.anomalies["start"] > 0)
    ]
    at = {share: [] for share in (0.125, 0.25, 0.5, 0.75, 1.0)}
    for e in events.itertuples():
        for share, seen in at.items():
            hour = round(e.start - 1 + share * (e.end - e.start + 1))
            reading = default.values[sensor, e.machineID - 1, hour] - MEAN[sensor]
            seen.append(reading / STEP[sensor] / e.severity)
    noise = 1.1 * DEVIATION[sensor] / abs(STEP[sensor]) / np.sqrt(len(events))
    for share, expected in ((0.125, 0.25), (0.25, 0.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)):
        assert np.mean(at[share]) == pytest.approx(expected, abs=4.5 * noise)


def test_default_errors_announce_most_failures_at_a_random_lead(default):
    """85 % of them, from 2 hours before to the onset or 72 hours. Errors at random add less than 0.02 to the share."""
    errors = set(default.events("errors"))
    onset = {(e.machineID, e.end, SENSORS.index(e.sensor)): e.end - e.start for e in default.wear.itertuples()}
    fired, leads = [], []
    for machine, hour, component in default.events("failures"):
        if hour < 96:
            continue
        latest = min(onset[machine, hour, component], 72)
        for code in ERRORS_OF[component]:
            seen = [lead for lead in range(2, latest + 1) if (machine, hour - lead, code) in errors]
            fired.append(bool(seen))
            leads += [(lead - 2) / (latest - 2) for lead in seen]
    assert np.mean(fired) == pytest.approx(0.85, abs=0.03)
    shares = np.histogram(leads, bins=3)[0] / len(leads)
    assert np.allclose(1 / 3, shares, atol=0.04)


def test_a_quarter_of_the_default_decoys_has_an_error_of_its_component(default):
    errors = set(default.events("errors"))
    mute = {code: rate / 8760 for code, rate in enumerate((8.2, 7.3, 5.8, 6.0, 1.8))}
    seen, chance = [], []
    for e in default.decoys.itertuples():
        codes = ERRORS_OF[SENSORS.index(e.sensor)]
        hours = range(e.start, e.end + 1)
        seen.append(any((e.machineID, hour, code) in errors for hour in hours for code in codes))
        chance.append(1 - np.exp(-len(hours) * sum(mute[code] for code in codes)))
    expected = 1 - 0.75 * (1 - np.mean(chance))
    assert np.mean(seen) == pytest.approx(expected, abs=4 * np.sqrt(0.25 * 0.75 / len(seen)))


def test_default_noise_is_coloured_with_offsets_and_a_daily_cycle(default):
    """Deviation of the machines' means, amplitude of the day, variance and covariances; all in deviations."""
    healthy = default.healthy()
    units = (default.values - MEAN[:, None, None]) / DEVIATION[:, None, None]
    units[~healthy] = np.nan
    means = np.nanmean(units, axis=2)
    assert means.std() == pytest.approx(0.10, abs=0.012)
    units -= means[:, :, None]
    by_hour = np.nanmean(units.reshape(4, MACHINES, DAYS, 24), axis=2)
    cycle = 2 / 24 * np.abs(by_hour @ np.exp(-2j * np.pi * np.arange(24) / 24))
    assert cycle.mean() == pytest.approx(0.12, abs=0.006)
    units -= np.tile(by_hour, DAYS)
    variance, lags = np.nanmean(units**2), [np.nanmean(units[..., lag:] * units[..., :-lag]) for lag in (1, 2, 20)]
    assert variance == pytest.approx(1 + 0.35**2, abs=0.01)
    assert np.allclose([0.35**2 * 0.85**lag for lag in (1, 2, 20)], lags, atol=0.004)


def test_coloured_noise_follows_the_recursion_of_ar1():
    white = np.random.default_rng(0).standard_normal((2, 3000))
    expected = white.copy()
    for t in range(1, 3000):
        expected[:, t] = 0.85 * expected[:, t - 1] + np.sqrt(1 - 0.85**2) * white[:, t]
    assert np.allclose(expected, simulate._ar1(white), rtol=0, atol=1e-12)


def test_default_sensors_break_three_times_a_year(default):
    broken = default.anomalies[default.anomalies["kind"].isin(["spike", "stuck", "drift"])]
    assert len(broken) == pytest.approx(3 * MACHINES, abs=4 * np.sqrt(3 * MACHINES))
    for kind in ("spike", "stuck", "drift"):
        assert (broken["kind"] == kind).sum() == pytest.approx(MACHINES, abs=4 * np.sqrt(MACHINES))


def _faults(fleet, kind):
    """Row of the sensor, severity, and the readings of each fault, the one before it first."""
    for e in fleet.anomalies[fleet.anomalies["kind"] == kind].itertuples():
        row = SENSORS.index(e.sensor)
        yield row, e.severity, fleet.values[row, e.machineID - 1, e.start - 1 : e.end + 1]


def test_a_stuck_sensor_repeats_its_last_reading(default):
    for _, _, shown in _faults(default, "stuck"):
        assert len(shown) > 12
        assert np.all(shown == shown[0])


def test_a_spike_reads_its_severity_above_or_below_the_mean(default):
    above = []
    for row, severity, shown in _faults(default, "spike"):
        either = [max(MEAN[row] + sign * severity * DEVIATION[row], 0) for sign in (-1, 1)]
        assert np.any([np.allclose(shown[1:], level, rtol=0, atol=1e-6) for level in either])
        above.append(shown[1] > MEAN[row])
    assert np.mean(above) == pytest.approx(0.5, abs=0.12)


def test_a_drift_grows_to_its_severity(default):
    """Upwards or downwards: the mean square of the last readings, over the noise, is that of the ramp's end."""
    squares = [
        np.mean(((shown[-8:] - MEAN[row]) / DEVIATION[row]) ** 2) / severity**2
        for row, severity, shown in _faults(default, "drift")
    ]
    starts = [np.mean(((shown[1:5] - MEAN[row]) / DEVIATION[row]) ** 2) for row, _, shown in _faults(default, "drift")]
    assert np.mean(squares) == pytest.approx(0.96, abs=0.08)
    assert np.mean(starts) == pytest.approx(1.15, abs=0.25)


def test_azure_sensors_never_break(azure):
    assert {"degradation", "decoy"} == set(azure.anomalies["kind"])


def test_simulated_values_lie_in_the_plausible_ranges(fleet, schema):
    for values, (low, high) in zip(fleet.tables.values, schema.ranges, strict=True):
        assert low <= values.min()
        assert values.max() <= high


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sensors": ("volt", "rotate", "pressure", "temperature")}, "schema.sensors"),
        ({"components": COMPONENTS[:3]}, "schema.components"),
        ({"errors": ERRORS[::-1]}, "schema.errors"),
        ({"models": ("a", "b", "c", "d")}, "schema.models"),
        ({"sampling_minutes": 10}, "schema.sampling_minutes"),
    ],
)
def test_a_schema_that_the_simulator_does_not_know_is_refused(schema, change, said):
    with pytest.raises(DataError, match=f"{said} is .* bring your own tables"):
        simulate.simulate("azure", 1, 1, 0, replace(schema, **change))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"profile": "gcp"}, "profile 'gcp' is not known; choose one of azure, default"),
        ({"machines": 0}, "machines is 0"),
        ({"days": 1.5}, "days is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_size_that_makes_no_fleet_is_refused(schema, asked, said):
    with pytest.raises(DataError, match=said):
        simulate.simulate(**({"profile": "azure", "machines": 1, "days": 1, "seed": 0} | asked), schema=schema)
