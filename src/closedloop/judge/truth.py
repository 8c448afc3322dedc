"""What is judged: a model's predictions and what really happened, aligned on one grid of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from closedloop.data.machines import Id, codes_in, named
from closedloop.data.schema import (
    HOUR_US,
    DataError,
    Float64,
    Int16,
    Int64,
    MachineWindow,
    Schema,
    Tables,
    microseconds,
)
from closedloop.judge.episodes import Rules
from closedloop.judge.labels import UNKNOWN, events_of, in_failure_hour, labels, matured, with_delay

Bool = NDArray[np.bool_]
Ids = Int64 | NDArray[np.object_]  # numbers of machines, or their names

ANOMALY = "anomaly"
YEAR_US = 8760 * HOUR_US
NEVER_US = 2**63 - 1
COSTS = ("unplanned", "planned", "false_alarm", "missed_anomaly")


@dataclass(frozen=True)
class JudgeSettings:
    """How a commit judges: horizon and episode rules, costs (in the user's currency) and the section ``gate:``.

    ``delay_us`` is after how long silence counts as health in a log; None where only those who report can say so.
    """

    rules: Rules
    costs: dict[str, float]
    gate: dict[str, Any]
    delay_us: int | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> JudgeSettings:
        """From the content of ``params.yaml``.

        Raises:
            DataError: a key is missing.
        """
        try:
            judge, gate = params["judge"], params["gate"]
            rules = Rules.of(judge, params["labels"]["horizon_hours"])
            hours = params["labels"].get("reporting_delay_hours")
            delay = None if hours is None else microseconds(hours)
            return cls(rules, {key: float(judge["costs"][key]) for key in COSTS}, dict(gate), delay)
        except KeyError as error:
            raise DataError(
                f"params.yaml: the judge needs the key {error}; add it under judge:, gate: or labels:"
            ) from None


@dataclass(frozen=True)
class PredictionTable:
    """``predictions.parquet``: for each machine, time and head a score and whether it is an alarm.

    ``machine`` holds numbers, or names as objects. ``head`` is ``anomaly`` or a component. A component's score is its
    probability of failure within the horizon.
    """

    machine: Ids
    time: Int64
    head: NDArray[np.object_]
    score: Float64
    alarm: Bool

    @classmethod
    def of(cls, machine: Ids, time: Int64, heads: Mapping[str, tuple[Float64, Bool]]) -> PredictionTable:
        """A table of the (score, alarm) of each head; a head that the model lacks has no rows."""
        count, n = len(heads), len(machine)
        return cls(
            machine[np.tile(np.arange(n), count)],
            np.tile(time, count),
            np.repeat(np.array(list(heads), object), n),
            np.concatenate([score for score, _ in heads.values()]) if count else np.empty(0),
            np.concatenate([alarm for _, alarm in heads.values()]) if count else np.empty(0, bool),
        )

    def arrow(self) -> pa.Table:
        """The table in the form in which it is written."""
        columns = {
            "machineID": pa.array(self.machine, pa.string() if self.machine.dtype == object else pa.int64()),
            "datetime": pa.array(self.time, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "head": pa.array(self.head, pa.string()),
            "score": pa.array(self.score, pa.float64(), from_pandas=False),
            "alarm": pa.array(self.alarm, pa.bool_()),
        }
        return pa.table(columns)

    def write(self, path: Path) -> None:
        """Write the table as Parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.arrow(), path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> PredictionTable:
        """Read what :meth:`write` wrote. A score that is null becomes NaN, an alarm that is null is refused.

        Raises:
            DataError: the file is missing, is not Parquet, or lacks a column.
        """
        try:
            table = pq.read_table(path, columns=["machineID", "datetime", "head", "score", "alarm"])
            if nulls := [name for name in ("machineID", "datetime", "head", "alarm") if table[name].null_count]:
                raise DataError(
                    f"{path}: column {nulls[0]} has nulls; write the file again with python -m model.predict"
                )
            kind = table["machineID"].type
            has_names = pa.types.is_string(kind) or pa.types.is_large_string(kind)
            return cls(
                table["machineID"].cast(pa.string() if has_names else pa.int64()).to_numpy(),
                table["datetime"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(),
                table["head"].cast(pa.string()).to_numpy(),
                table["score"].cast(pa.float64()).to_numpy(),
                table["alarm"].to_numpy(),
            )
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(
                f"{path}: cannot be read as predictions ({' '.join(str(error).split())}); run python -m model.predict"
            ) from error


@dataclass(frozen=True)
class Intervals:
    """Known anomalies: closed intervals [start, end] in microseconds, of whatever kind."""

    machine: Int64
    start: Int64
    end: Int64

    @classmethod
    def of(cls, table: Any, names: tuple[str, ...] | None = None) -> Intervals:
        """From a frame with the columns ``machineID, start, end`` (no other column of ``anomalies`` is needed).

        ``names`` are those of the tables that these anomalies belong to; one of another machine is of none of them.
        """

        def microseconds(name: str) -> Int64:
            column = table[name]
            if getattr(column.dtype, "tz", None) is not None:
                column = column.dt.tz_convert("UTC").dt.tz_localize(None)
            return column.to_numpy().astype("datetime64[us]").astype(np.int64)

        ids = table["machineID"]
        machine = ids.to_numpy().astype(np.int64) if names is None else codes_in(names, ids.astype(str))
        return cls(machine, microseconds("start"), microseconds("end"))


@dataclass(frozen=True)
class Truth:
    """What happened to the machines that are judged.

    ``tables`` may begin before ``since_us``, since a model needs history to answer; rows and events from that time on
    count. ``since_us`` is one time for all machines, or one for each judged machine. ``source`` is the fleet's name and
    ``rule`` its split rule; they tell whether a model was trained on what it is judged on.
    """

    tables: Tables
    schema: Schema
    source: str
    anomalies: Intervals | None = None
    since_us: int | Mapping[int, int] = 0
    rule: str = "fleet"

    def since(self, machine: int) -> int:
        """Time from which a machine's rows are judged, in microseconds; ``NEVER_US`` where none is."""
        return self.since_us if isinstance(self.since_us, int) else self.since_us.get(machine, NEVER_US)


@dataclass(frozen=True)
class Grid:
    """The truth, row by row: every telemetry row that is judged, sorted by machine and time.

    ``label`` (1, 0, or -1 where unknown) and ``known`` have shape (components, rows), ``anomalous`` and
    ``anomaly_known`` (rows); ``failures`` (a tuple over components) and ``anomalies`` (start, end) hold the events of
    each machine. A failure that was prevented, since a replacement found the component worn, is one of ``failures``.
    ``years`` counts rows up to the maturity mark; of later ones nothing is known. ``supervised`` says that there is a
    failure table; ``events`` what the anomaly head is judged on: ``anomalies``, ``failures`` or nothing. ``ids`` are
    numbers or positions in ``names``, as in the tables.
    """

    ids: Int64
    names: tuple[str, ...] | None
    offsets: Int64
    time: Int64
    model: Int16
    years: Float64
    supervised: bool
    label: NDArray[np.int8]
    known: Bool
    failures: tuple[tuple[Int64, ...], ...]
    events: str | None
    anomalous: Bool
    anomaly_known: Bool
    anomalies: tuple[tuple[Int64, Int64], ...]

    @classmethod
    def of(cls, truth: Truth, settings: JudgeSettings) -> Grid:
        """The grid of the truth. A failure or anomaly that no judged row could have detected is not an event.

        Raises:
            DataError: no telemetry row lies in the judged time.
        """
        supervised = truth.tables.failures is not None
        tables = with_delay(truth.tables, settings.delay_us)
        windows = [window for window in tables.windows() if (window.time >= truth.since(window.machine)).any()]
        if not windows:
            raise DataError(
                "the truth has no telemetry row in the judged time; check the cut and the held-out machines"
            )
        times, mature, label, known, failures, anomalous, anomalies = zip(
            *(_of_machine(window, truth, settings, supervised) for window in windows), strict=True
        )
        rows = np.array([len(time) for time in times], np.int64)
        grid = cls(
            ids=np.array([window.machine for window in windows], np.int64),
            names=truth.tables.names,
            offsets=np.append(0, np.cumsum(rows)),
            time=np.concatenate(times),
            model=np.array([window.model for window in windows], np.int16),
            years=np.array([rows.sum() for rows in mature]) * truth.schema.period_us / YEAR_US,
            supervised=supervised,
            label=np.concatenate(label, axis=1),
            known=np.concatenate(known, axis=1),
            failures=failures,
            events="anomalies" if truth.anomalies is not None else "failures" if supervised else None,
            anomalous=np.concatenate(anomalous),
            anomaly_known=np.ones(rows.sum(), bool),
            anomalies=anomalies,
        )
        if grid.events != "failures":
            return grid
        ahead = ((grid.label == 1) & grid.known).any(axis=0)
        return replace(grid, anomalous=ahead, anomaly_known=ahead | grid.known.all(axis=0))

    @property
    def machines(self) -> list[Id]:
        """What the machines are called."""
        return named(self.names, self.ids).tolist()

    @property
    def failure_count(self) -> int:
        """Failures that are judged, over all machines and components."""
        return sum(len(of_one) for machine in self.failures for of_one in machine)

    @property
    def event_count(self) -> int:
        """Failures that are judged, or anomalies where there is no failure table."""
        return self.failure_count if self.supervised else sum(len(start) for start, _ in self.anomalies)


def _of_machine(
    window: MachineWindow, truth: Truth, settings: JudgeSettings, supervised: bool
) -> tuple[Int64, Bool, NDArray[np.int8], Bool, tuple[Int64, ...], Bool, tuple[Int64, Int64]]:
    """One machine's part of the grid: time, matured rows, label, known, failures, anomalous and anomalies."""
    judged = window.time >= truth.since(window.machine)
    time, components = window.time[judged], range(len(truth.schema.components))
    label: NDArray[np.int8] = np.full((len(components), len(time)), UNKNOWN, np.int8)
    if supervised:
        label = labels(window, truth.schema, settings.rules.horizon_us)[:, judged]
    mature = matured(window)[judged]
    known = (label != UNKNOWN) & ~in_failure_hour(window, truth.schema)[judged] & mature
    failed = [events_of(window, c) for c in components]
    failures = tuple(_foreseeable(failed[c], time[known[c]], settings.rules) for c in components)
    start, end = _met(truth.anomalies, window.machine, time)
    anomalous: Bool = np.logical_or.reduce((time[:, None] >= start) & (time[:, None] <= end), axis=1)
    return time, mature, label, known, failures, anomalous, (start, end)


def _met(anomalies: Intervals | None, machine: int, time: Int64) -> tuple[Int64, Int64]:
    """Start and end of the anomalies of a machine that hold at least one of its rows."""
    if anomalies is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    mine = anomalies.machine == machine
    start, end = anomalies.start[mine], anomalies.end[mine]
    met = np.searchsorted(time, end, "right") > np.searchsorted(time, start, "left")
    return start[met], end[met]


def _foreseeable(failure: Int64, known_time: Int64, rules: Rules) -> Int64:
    """The failures with at least one known row between the horizon and the least lead before them."""
    first = np.searchsorted(known_time, failure - rules.horizon_us, "left")
    last = np.searchsorted(known_time, failure - rules.minimum_lead_us, "right")
    return failure[last > first]


@dataclass(frozen=True)
class Aligned:
    """One head's answers on the grid: NaN and False where there is none. ``twice`` counts rows with several answers."""

    score: Float64
    alarm: Bool
    absent: Bool
    twice: int

    @property
    def missing(self) -> int:
        """Rows without an answer."""
        return int(self.absent.sum())


def _coded(ids: Ids, names: tuple[str, ...] | None) -> Int64:
    """The machines of predictions as the grid has them; -1, which is no machine with a name, for any other.

    Raises:
        DataError: the predictions call machines by numbers and the tables by names, or the other way round.
    """
    if (ids.dtype == object) != (names is not None):
        kinds = ("numbers", "names") if names is not None else ("names", "numbers")
        raise DataError(f"predictions: machines have {kinds[0]}, and in the judged tables {kinds[1]}; predict again")
    return ids.astype(np.int64) if names is None else codes_in(names, ids.tolist())


def align(table: PredictionTable, grid: Grid) -> dict[str, Aligned]:
    """The predictions on the grid, by head; rows outside the grid are left out."""
    low = int(grid.time.min())
    span = int(grid.time.max()) - low + 1
    machine = _coded(table.machine, grid.names)
    index = np.minimum(np.searchsorted(grid.ids, machine), len(grid.ids) - 1)
    inside = (grid.ids[index] == machine) & (table.time >= low) & (table.time < low + span)
    key = index * span + (table.time - low)
    grid_key = np.repeat(np.arange(len(grid.ids)), np.diff(grid.offsets)) * span + (grid.time - low)
    row = np.minimum(np.searchsorted(grid_key, np.where(inside, key, 0)), len(grid_key) - 1)
    inside &= grid_key[row] == key
    result = {}
    for head in sorted(set(table.head.tolist())):
        mine = inside & (table.head == head)
        times = np.bincount(row[mine], minlength=len(grid_key))
        score, alarm = np.full(len(grid_key), np.nan), np.zeros(len(grid_key), bool)
        score[row[mine]], alarm[row[mine]] = table.score[mine], table.alarm[mine]
        result[head] = Aligned(score, alarm, times == 0, int((times > 1).sum()))
    return result
