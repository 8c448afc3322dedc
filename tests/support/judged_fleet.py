"""A small fleet made by hand, and models of known quality to judge on it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Events, Schema, Tables
from closedloop.judge.truth import Intervals, JudgeSettings, PredictionTable, Truth

START_US = 1_420_092_000_000_000  # 2015-01-01T06:00Z
SCHEMA = Schema(
    sensors=("volt",),
    components=("comp1", "comp2"),
    errors=("error1",),
    models=("model1", "model2"),
    sampling_minutes=60,
    ranges=((0.0, 400.0),),
)
PARAMS = {
    "labels": {"horizon_hours": 24},
    "judge": {
        "episode_gap_hours": 12,
        "minimum_lead_hours": 2,
        "neutral_hours": 96,
        "costs": {"unplanned": 10000, "planned": 2000, "false_alarm": 250, "missed_anomaly": 1000},
    },
    "gate": {
        "on_inconclusive": "ship",
        "minimum_machines": 5,
        "minimum_failures": 10,
        "error_rate": 0.05,
        "false_alarm_ratio": 1.10,
        "floors": {"event_recall": 0.5, "pr_auc": 0.3},
    },
}


def tables(machines: int, hours: int, failures: Events | None, maint: Events | None = None) -> Tables:
    """Machines 1, 2, …, models in turn, one reading each hour from START_US on."""
    ids = np.arange(1, machines + 1)
    return Tables(
        machine=np.repeat(ids, hours),
        time=np.tile(START_US + np.arange(hours) * HOUR_US, machines),
        values=np.zeros((1, machines * hours)),
        errors=Events.empty(),
        maint=maint or Events.empty(),
        failures=failures,
        machine_ids=ids,
        machine_model=((ids - 1) % 2).astype(np.int16),
        machine_age=np.zeros(machines),
    )


def events(*rows: tuple[int, int, int]) -> Events:
    """Events from (machine, hour since START_US, code)."""
    machine, hour, code = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Events.of(machine, START_US + hour * HOUR_US, code.astype(np.int16))


@dataclass(frozen=True)
class JudgedFleet:
    """A truth and what it takes to answer it."""

    truth: Truth
    settings: JudgeSettings

    def model(
        self, recall: float = 0.8, false_alarms: float = 3.0, seed: int = 0, **of_machine: float
    ) -> PredictionTable:
        """Answers of a model that foresees a share of the events, with so many false alarms for each head and year.

        A probability is 0.6 to 0.9 in the 20 hours before a failure that it foresees, about 0.002 elsewhere.
        ``recall_of_1=0.2`` gives machine 1 its own recall.
        """
        rng = np.random.default_rng(seed)
        table = self.truth.tables
        heads = {}
        for c, name in enumerate(self.truth.schema.components):
            score = rng.uniform(0.0, 0.004, len(table.time))
            score[self._before(c, recall, rng, of_machine) & (score < 1)] += 0.6
            self._mark(score, false_alarms, rng)
            heads[name] = (score, score >= 0.5)
        score = rng.uniform(0.0, 0.4, len(table.time))
        if self.truth.anomalies is not None:
            for machine, start, end in zip(*vars(self.truth.anomalies).values(), strict=True):
                if rng.random() < recall:
                    score[(table.machine == machine) & (table.time >= start) & (table.time <= end)] += 0.6
        else:
            for c in range(len(self.truth.schema.components)):
                score[self._before(c, recall, rng, of_machine)] += 0.6
        self._mark(score, false_alarms, rng)
        heads["anomaly"] = (score, score >= 0.5)
        return PredictionTable.of(table.machine, table.time, heads)

    def _before(self, component: int, recall: float, rng: np.random.Generator, of_machine: dict[str, float]):
        table, result = self.truth.tables, np.zeros(len(self.truth.tables.time), bool)
        if table.failures is None:
            return result
        mine = table.failures.code == component
        for machine, time in zip(table.failures.machine[mine], table.failures.time[mine], strict=True):
            if rng.random() < of_machine.get(f"recall_of_{machine}", recall):
                lead = time - table.time
                result |= (table.machine == machine) & (lead > 0) & (lead <= 20 * HOUR_US)
        return result

    def _mark(self, score, rate: float, rng: np.random.Generator) -> None:
        count = rng.poisson(rate * len(score) / 8760)
        score[rng.integers(0, len(score), count)] = 0.7


def make(
    machines: int = 20, hours: int = 2000, per_machine: int = 4, seed: int = 3, supervised: bool = True
) -> JudgedFleet:
    """A fleet with some failures for each machine, and an anomaly in the 40 hours before each."""
    rng = np.random.default_rng(seed)
    rows = [
        (machine, int(hour), int(rng.integers(0, 2)))
        for machine in range(1, machines + 1)
        for hour in np.linspace(150, hours - 50, per_machine) + rng.integers(-40, 40, per_machine)
    ]
    failed = events(*rows)
    anomalies = Intervals(failed.machine, failed.time - 40 * HOUR_US, failed.time - HOUR_US)
    truth = Truth(tables(machines, hours, failed if supervised else None), SCHEMA, "hand-made", anomalies, START_US)
    return JudgedFleet(truth, JudgeSettings.from_params(PARAMS))


@pytest.fixture(scope="session")
def fleet() -> JudgedFleet:
    return make()


@pytest.fixture(scope="session")
def build():
    """What a test needs to make a fleet of its own."""

    class Build:
        fleet = staticmethod(make)
        tables = staticmethod(tables)
        events = staticmethod(events)
        start_us, schema, params = START_US, SCHEMA, PARAMS
        replace = staticmethod(replace)

    return Build
