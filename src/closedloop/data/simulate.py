"""Simulate the five tables of a fleet from a seed, and the ground truth of its anomalies.

There are two profiles of one simulation. ``azure`` has the structure measured in Microsoft's reference tables.
``default`` removes what makes those too easy: failures are not tied to maintenance visits, onsets vary, errors are
unreliable, noise is autocorrelated and sensors break. Each machine has its own random generator, so that adding
machines never changes the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from closedloop.data.schema import HOUR_US, DataError, Events, Float64, Int16, Int64, Schema, Tables

START_US = 1_420_092_000_000_000  # 2015-01-01T06:00Z, the first hour of every fleet and the hour of every visit
YEAR_HOURS = 8760
VISIT_HOURS = 15 * 24
HISTORY_VISITS = 14  # visits before the first hour, one of which replaced each component last

SENSORS = ("volt", "rotate", "pressure", "vibration")
COMPONENTS = ("comp1", "comp2", "comp3", "comp4")  # the wear of each shows on the sensor of the same position
ERRORS = ("error1", "error2", "error3", "error4", "error5")
MODELS = ("model1", "model2", "model3", "model4")

MEAN = np.array([170.0, 450.0, 100.0, 40.0])
DEVIATION = np.array([15.0, 50.0, 10.0, 5.0])
STEP = np.array([20.0, -80.0, 25.0, 10.0])
MINIMUM = 0.0  # no sensor reads below it

MODEL_SHARE = np.array([0.16, 0.17, 0.35, 0.32])
MAX_AGE_YEARS = 20
TWO_REPLACED = 0.33  # share of the visits; the others replace one component
FAILURES_PER_YEAR = np.array([1.92, 2.59, 1.31, 1.79])  # of each component, averaged over models and ages
FAILS_ON = np.array([[True] * 4, [True] * 4, [True, True, False, True], [True, True, False, True]])  # model, component
AGEING = 0.36  # relative rise of the failure rate for 10 years; gives a correlation of age and failures of 0.47

ERRORS_OF = ((0,), (1, 2), (3,), (4,))  # the errors that precede a failure of each component
ERRORS_PER_YEAR = np.array([8.2, 7.3, 5.8, 6.0, 1.8])  # at random
DECOYS_PER_YEAR = np.array([5.5, 6.5, 3.4, 3.9])  # on each sensor
CLEAR_HOURS = 24  # between a decoy or fault and any other event on its sensor

FAULTS = ("spike", "stuck", "drift")
FAULT_HOURS = ((1, 3), (12, 48), (48, 120))
FAULT_SEVERITY = ((5.0, 8.0), (1.0, 1.0), (3.0, 5.0))


@dataclass(frozen=True)
class Profile:
    """The parameters of a profile. Pairs are (least, most), hours are whole, deviations are multiples of a sensor's."""

    before_visit_hours: tuple[int, int]  # of a failure
    onset_hours: tuple[int, int]  # before a failure
    severity: tuple[float, float]  # plateau, in steps
    ramp: float  # share of the onset during which the shift rises
    error_probability: float
    error_lead_hours: tuple[int, int]  # never more than the onset
    decoy_share: float  # of DECOYS_PER_YEAR
    decoy_hours: tuple[int, int]
    decoy_error_probability: float
    coloured: float  # deviation of the AR(1) noise
    offset: float  # deviation of the machines' offsets
    load: float  # amplitude of the daily cycle
    faults_per_year: float


PROFILES = {
    "azure": Profile(
        before_visit_hours=(0, 0),
        onset_hours=(48, 48),
        severity=(1.0, 1.0),
        ramp=0.0,
        error_probability=1.0,
        error_lead_hours=(24, 24),
        decoy_share=1.0,
        decoy_hours=(48, 48),
        decoy_error_probability=0.0,
        coloured=0.0,
        offset=0.0,
        load=0.0,
        faults_per_year=0.0,
    ),
    "default": Profile(
        before_visit_hours=(1, VISIT_HOURS - 1),
        onset_hours=(36, 96),
        severity=(0.7, 1.3),
        ramp=0.5,
        error_probability=0.85,
        error_lead_hours=(2, 72),
        decoy_share=0.45,
        decoy_hours=(24, 72),
        decoy_error_probability=0.25,
        coloured=0.35,
        offset=0.10,
        load=0.12,
        faults_per_year=3.0,
    ),
}
AR1 = 0.85


@dataclass(frozen=True)
class Move:
    """A world that is another one from a day on: what sensors read, how wear shows, and which code an error has.

    Nothing of it is drawn, so everything before that day, and every failure and visit after it, stays as it was.

    ``level`` moves the mean of each sensor, in its deviations. ``wear`` multiplies the step of each component's wear,
    and ``code`` gives the new code of each error.
    """

    from_day: int
    level: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    wear: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    code: tuple[int, int, int, int, int] = (0, 1, 2, 3, 4)

    @property
    def hour(self) -> int:
        """The first hour of it."""
        return 24 * self.from_day


@dataclass(frozen=True)
class Simulation:
    """A fleet and its ground truth.

    ``anomalies`` has a row for each event that shows on a sensor: ``machineID, start, end`` (UTC, first and last hour),
    ``sensor, kind`` (degradation, decoy, spike, stuck, drift), ``severity`` (in steps for degradation and decoy, in
    nominal deviations for spike and drift, 1 for stuck) and ``leads_to_failure``. A model must never see it.
    """

    tables: Tables
    anomalies: pd.DataFrame


@dataclass(frozen=True)
class _Shown:
    """One event on one sensor: rows ``start`` to ``end``, both included."""

    sensor: int
    start: int
    end: int
    kind: str
    severity: float


class _Machine:
    """One simulated machine. Times are whole hours since the first row."""

    def __init__(self, profile: Profile, hours: int, seed: int, machine: int, move: Move | None) -> None:
        self.profile, self.hours, self.move = profile, hours, move
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, machine])))
        self.model = int(self.rng.choice(len(MODELS), p=MODEL_SHARE))
        self.age = int(self.rng.integers(0, MAX_AGE_YEARS, endpoint=True))
        self.errors: list[tuple[int, int]] = []  # (hour, code)
        self.maint: list[tuple[int, int]] = []
        self.failures: list[tuple[int, int]] = []
        self.shown: list[_Shown] = []
        self._visits()
        self._decoys()
        self._random_errors()
        self._faults()
        if move is not None:
            self.errors = [(hour, code if hour < move.hour else move.code[code]) for hour, code in self.errors]
        self.readings = self._readings()

    def _between(self, limits: tuple[int, int]) -> int:
        """A whole number within the limits, both included."""
        return int(self.rng.integers(*limits, endpoint=True))

    def _happens(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def _count(self, per_year: float) -> int:
        """How many events happen at this yearly rate."""
        return int(self.rng.poisson(per_year * self.hours / YEAR_HOURS))

    def _visits(self) -> None:
        """Draw the replacements every 15 days on the machine's own phase, and the failures before some of them."""
        first = 24 * self._between((1, 15))
        for component in range(len(COMPONENTS)):
            self.maint.append((first - VISIT_HOURS * self._between((1, HISTORY_VISITS)), component))
        rate = FAILURES_PER_YEAR / (MODEL_SHARE @ FAILS_ON) * FAILS_ON[self.model]
        replaced_per_year = (1 + TWO_REPLACED) / len(COMPONENTS) * YEAR_HOURS / VISIT_HOURS
        fails = rate * (1 + AGEING * (self.age / 10 - 1)) / replaced_per_year
        for visit in range(first, self.hours + self.profile.before_visit_hours[1], VISIT_HOURS):
            replaced = self.rng.permutation(len(COMPONENTS))[: 2 if self._happens(TWO_REPLACED) else 1].tolist()
            for component in replaced:
                # a failed component is replaced at its failure, as in the reference tables
                at = self._failure(component, visit) if self._happens(fails[component]) else visit
                if at < self.hours:
                    self.maint.append((at, component))

    def _failure(self, component: int, visit: int) -> int:
        """Draw a failure before the visit (azure: at it), its onset and the errors before it; return its hour."""
        worn = [shown.end for shown in self.shown if shown.sensor == component]
        while True:  # onsets of a component must not overlap: such a failure is drawn again
            failure = visit - self._between(self.profile.before_visit_hours)
            onset = self._between(self.profile.onset_hours)
            if not worn or failure - onset > worn[-1]:
                break
        if not 0 < failure < self.hours:
            return failure  # it happened before the first row, or will after the last
        self.failures.append((failure, component))
        severity = float(self.rng.uniform(*self.profile.severity))
        self.shown.append(_Shown(component, failure - onset, failure, "degradation", severity))
        least, most = self.profile.error_lead_hours
        for code in ERRORS_OF[component]:
            if self._happens(self.profile.error_probability):
                self.errors.append((failure - self._between((least, min(most, onset))), code))
        return failure

    def _place(self, sensor: int, length: int) -> int | None:
        """The first of ``length`` hours in which the sensor shows nothing else; None if no place is found."""
        for _ in range(50):
            if length >= self.hours:
                return None
            start = self._between((1, self.hours - length))
            if all(
                start > shown.end + CLEAR_HOURS or start + length + CLEAR_HOURS <= shown.start
                for shown in self.shown
                if shown.sensor == sensor
            ):
                return start
        return None

    def _decoys(self) -> None:
        """Draw decoys: shifts that look like wear, but no failure follows."""
        for sensor, per_year in enumerate(DECOYS_PER_YEAR * self.profile.decoy_share):
            for _ in range(self._count(per_year)):
                length = self._between(self.profile.decoy_hours)
                severity = float(self.rng.uniform(*self.profile.severity))
                start = self._place(sensor, length + 1)
                if start is None:
                    continue
                self.shown.append(_Shown(sensor, start, start + length, "decoy", severity))
                if self._happens(self.profile.decoy_error_probability):
                    code = int(self.rng.choice(ERRORS_OF[sensor]))
                    self.errors.append((self._between((start, start + length)), code))

    def _random_errors(self) -> None:
        """Draw errors that have no cause."""
        for code, per_year in enumerate(ERRORS_PER_YEAR):
            hours = self.rng.integers(0, self.hours, self._count(per_year))
            self.errors.extend((hour, code) for hour in hours.tolist())

    def _faults(self) -> None:
        """Draw sensor faults, on healthy machines too."""
        for _ in range(self._count(self.profile.faults_per_year)):
            kind, sensor = self._between((0, len(FAULTS) - 1)), self._between((0, len(SENSORS) - 1))
            length = self._between(FAULT_HOURS[kind])
            severity = float(self.rng.uniform(*FAULT_SEVERITY[kind]))
            start = self._place(sensor, length)
            if start is not None:
                self.shown.append(_Shown(sensor, start, start + length - 1, FAULTS[kind], severity))

    def _readings(self) -> Float64:
        """Telemetry, shape (sensors, hours)."""
        rng, profile, shape = self.rng, self.profile, (len(SENSORS), self.hours)
        units = rng.standard_normal(shape)
        if profile.coloured:
            units += profile.coloured * _ar1(rng.standard_normal(shape))
        units += profile.offset * rng.standard_normal((len(SENSORS), 1))
        units += profile.load * np.sin(2 * np.pi / 24 * (np.arange(self.hours) + rng.uniform(0, 24)))
        values: Float64 = MEAN[:, None] + DEVIATION[:, None] * units
        if self.move is not None:
            values[:, self.move.hour :] += (DEVIATION * self.move.level)[:, None]
        for shown in self.shown:
            sensor, length = shown.sensor, shown.end - shown.start + 1
            row = values[sensor]
            stretch = slice(max(shown.start, 0), shown.end + 1)
            if shown.kind == "stuck":
                row[stretch] = row[shown.start - 1]
            elif shown.kind == "spike":  # it replaces the reading: the sum of both might leave the plausible range
                row[stretch] = MEAN[sensor] + self._sign() * shown.severity * DEVIATION[sensor]
            elif shown.kind == "drift":
                rise = np.arange(1, length + 1) / length
                row[stretch] += self._sign() * shown.severity * DEVIATION[sensor] * rise
            else:
                ramp = max(1.0, profile.ramp * length)
                rise = np.minimum(np.arange(1, length + 1) / ramp, 1.0)
                step = STEP[sensor]
                if self.move is not None and shown.kind == "degradation" and shown.start >= self.move.hour:
                    step = step * self.move.wear[sensor]
                row[stretch] += (shown.severity * step * rise)[stretch.start - shown.start :]
        clipped: Float64 = np.maximum(values, MINIMUM)
        return clipped.round(6)

    def _sign(self) -> float:
        """-1 or 1, equally likely."""
        return float(self.rng.choice((-1.0, 1.0)))


def _ar1(innovations: Float64) -> Float64:
    """Stationary AR(1) noise with standard deviation 1 along the last axis, from white noise.

    ``1 / (1 - φB) = (1 + φB)(1 + φ²B²)(1 + φ⁴B⁴)…``; after ten factors the rest, φ^1024, is below rounding.
    """
    noise = innovations * np.sqrt(1 - AR1**2)
    noise[:, 0] = innovations[:, 0]
    for power in range(10):
        lag = 2**power
        noise[:, lag:] += AR1**lag * noise[:, :-lag]
    return noise


def _events(fleet: list[_Machine], name: str, hours: int) -> Events:
    """One table of events of the whole fleet. Errors from before the first row are dropped; maintenance is kept."""
    columns: list[tuple[int, int, int]] = []
    for machine, life in enumerate(fleet, start=1):
        columns += [(machine, hour, code) for hour, code in getattr(life, name) if hour >= 0 or name == "maint"]
    if not columns:
        return Events.empty()
    machine_ids, at, codes = np.array(columns, np.int64).T
    return Events.of(machine_ids, START_US + at * HOUR_US, codes.astype(np.int16))


def _anomalies(fleet: list[_Machine]) -> pd.DataFrame:
    """The table of all anomalies of the fleet, sorted."""
    rows = sorted(
        (machine, max(shown.start, 0), shown.sensor, shown.end, shown.kind, shown.severity)
        for machine, life in enumerate(fleet, start=1)
        for shown in life.shown
    )
    machine, start, sensor, end, kind, severity = zip(*rows, strict=True) if rows else ((),) * 6

    def time(hours: tuple[int, ...]) -> pd.Series:
        return pd.Series(pd.to_datetime(START_US + np.array(hours, np.int64) * HOUR_US, unit="us", utc=True))

    return pd.DataFrame(
        {
            "machineID": np.array(machine, np.int64),
            "start": time(start),
            "end": time(end),
            "sensor": pd.Series([SENSORS[i] for i in sensor], dtype="str"),
            "kind": pd.Series(list(kind), dtype="str"),
            "severity": np.array(severity, np.float64),
            "leads_to_failure": np.array([name == "degradation" for name in kind], bool),
        }
    )


def simulate(profile: str, machines: int, days: int, seed: int, schema: Schema, move: Move | None = None) -> Simulation:
    """Simulate machines 1 to ``machines``, hourly for ``days`` days from 2015-01-01T06:00Z, in a world that may move.

    Raises:
        DataError: the profile is unknown, a size is too small, or the schema is not that of the reference data: the
            simulator knows no other names.
    """
    if profile not in PROFILES:
        raise DataError(f"simulate: profile {profile!r} is not known; choose one of {', '.join(PROFILES)}")
    for name, value, least in (("machines", machines, 1), ("days", days, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise DataError(f"simulate: {name} is {value!r}; it must be a whole number, {least} or more")
    known = {"sensors": SENSORS, "components": COMPONENTS, "errors": ERRORS, "models": MODELS, "sampling_minutes": 60}
    for key, names in known.items():
        if getattr(schema, key) != names:
            raise DataError(
                f"simulate: schema.{key} is {getattr(schema, key)!r}, and the simulator knows only {names!r}; "
                "restore it in params.yaml, or bring your own tables with DATA=path"
            )
    hours = 24 * days
    fleet = [_Machine(PROFILES[profile], hours, seed, machine, move) for machine in range(1, machines + 1)]
    ids: Int64 = np.arange(1, machines + 1, dtype=np.int64)
    model: Int16 = np.array([life.model for life in fleet], np.int16)
    tables = Tables(
        machine=np.repeat(ids, hours),
        time=np.tile(START_US + HOUR_US * np.arange(hours, dtype=np.int64), machines),
        values=np.concatenate([life.readings for life in fleet], axis=1),
        errors=_events(fleet, "errors", hours),
        maint=_events(fleet, "maint", hours),
        failures=_events(fleet, "failures", hours),
        machine_ids=ids,
        machine_model=model,
        machine_age=np.array([life.age for life in fleet], np.float64),
    )
    return Simulation(tables, _anomalies(fleet))
