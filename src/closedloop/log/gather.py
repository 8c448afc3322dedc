"""What the records of a log hold, gathered batch by batch: the union of each table, and what feedback says besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from closedloop.data.machines import Id, codes_in
from closedloop.data.schema import CODE_COLUMN, FINDINGS, DataError, Float64, Int64, Schema
from closedloop.log.orders import Orders
from closedloop.log.tables import NAME, TABLES_OF
from closedloop.log.union import Union, to_bits

RETRACTED = {"retracted_failures": "failures", "retracted_maint": "maint"}
UNTIL = "complete_until"
MACHINE = "machineID"
_FOLD_MARKS = 1 << 21  # marks that wait before only the latest of each machine is kept


class Aside(NamedTuple):
    """A row that names something which the schema does not have. ``time`` is microseconds UTC, None for a machine.

    ``column`` is the table and the column of the name, such as ``errors.errorID``.
    """

    column: str
    machine: Id
    time: int | None
    name: str


@dataclass(frozen=True)
class CompleteUntil:
    """Up to when everything has been reported, in microseconds UTC: of ``every`` machine, and of those ``named``."""

    every: int | None
    named: dict[Id, int]

    def of(self, machine: Id) -> int | None:
        """The time for a machine: the latest that covers it; None where there is none."""
        times = [time for time in (self.every, self.named.get(machine)) if time is not None]
        return max(times, default=None)


class Names:
    """Positions of names: those of the schema first, then any other in the order in which they were met."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = len(known)
        self.names = list(known)

    def codes(self, texts: pa.Array) -> Int64:
        """The position of each name, -1 where there is none."""
        texts = texts.cast(pa.string())
        found = self._find(texts)
        if len(new := pc.unique(texts.filter(pc.and_(found.is_null(), texts.is_valid())))):
            self.names += new.to_pylist()
            found = self._find(texts)
        codes: Int64 = found.fill_null(-1).to_numpy().astype(np.int64)
        return codes

    def _find(self, texts: pa.Array) -> pa.Array:
        return pc.index_in(texts, pa.array(self.names, pa.string()))


class Gathered:
    """The unions of all tables. ``rows`` is how many rows of telemetry there may be.

    Where the schema's machines have names, the unions have their positions in ``machines``, in the order in which they
    were met; :meth:`sorted_machines` gives those in the order of the names. ``foreign`` counts the rows of machines
    that have a number where the schema's have names, or the other way round: they are in no union.
    """

    def __init__(self, schema: Schema, erased: Orders, rows: int) -> None:
        self._schema, self._erased = schema, erased
        self.components, self.errors = Names(schema.components), Names(schema.errors)
        self.models, self.findings = Names(schema.models), Names(FINDINGS)
        self.unions = {
            "telemetry": Union(2, 2 + len(schema.sensors), rows),
            **{table: Union(3, 3) for table in (*CODE_COLUMN, *RETRACTED)},
            "machines": Union(1, 3),
            "findings": Union(3, 4),
        }
        self.machines = Names(()) if schema.has_names else None
        self.foreign = 0
        self._every: int | None = None
        self._marks: list[Int64] = []

    def add(self, table: str, batch: pa.RecordBatch, rank: Int64) -> None:
        """Add what a batch of records holds; records of a rank below 0 do not count."""
        if (rank < 0).any():
            batch, rank = batch.filter(pa.array(rank >= 0)), rank[rank >= 0]
        for name in TABLES_OF[table]:
            column = batch.column(name)
            columns = {field.name: part for field, part in zip(column.type, column.flatten(), strict=True)}
            if name == UNTIL:
                self._add_marks(columns)
                continue
            columns = self._own(columns)
            _require_machines(f"{table}.{name}", columns)
            record = pc.list_parent_indices(columns[MACHINE]).to_numpy()
            added = [self._codes(columns[MACHINE].flatten()), *self._values(name, columns, record)]
            if "finding" in columns:
                added.append(self._findings(columns["finding"], record))
            kept = self._kept(added[0])
            if kept is not None:
                added, record = [values[kept] for values in added], record[kept]
            if "finding" in columns:
                known = added[3] >= 0
                self.unions["findings"].add([values[known] for values in added], rank[record[known]])
            self.unions[name].add(added[: self.unions[name].width], rank[record])

    def complete_until(self) -> CompleteUntil:
        """The latest marks."""
        machine, time = self._folded()
        ids = machine if self.machines is None else np.array(self.machines.names, object)[machine]
        return CompleteUntil(self._every, dict(sorted(zip(ids.tolist(), time.tolist(), strict=True))))

    def sorted_machines(self) -> tuple[tuple[str, ...] | None, Int64 | None]:
        """The names of all machines, sorted, and for each position in ``machines`` the one among them.

        What an order of erasure names is not among them: it has no rows, and its position is -1.
        """
        if self.machines is None:
            return None, None
        names = tuple(sorted(set(self.machines.names) - self._erased.machines))
        return names, codes_in(names, self.machines.names)

    def _own(self, columns: dict[str, pa.ListArray]) -> dict[str, pa.ListArray]:
        """The columns of a table with ``machineID`` as the schema has it, without the rows of other machines.

        A record has numbers or names, and the column of the other kind is null in it.
        """
        columns = dict(columns)
        numbers, names = columns[MACHINE], columns.pop(NAME)
        columns[MACHINE], other = (numbers, names) if self.machines is None else (names, numbers)
        foreign = pc.list_value_length(other).fill_null(0).to_numpy()
        if not foreign.any():
            return columns
        self.foreign += int(foreign.sum())
        keep = pa.array(foreign == 0)
        return {name: pc.if_else(keep, column, pa.scalar(None, column.type)) for name, column in columns.items()}

    def _codes(self, machines: pa.Array) -> Int64:
        """The machines as the unions have them."""
        return machines.to_numpy() if self.machines is None else self.machines.codes(machines)

    def _values(self, name: str, columns: dict[str, pa.ListArray], record: Int64) -> list[np.ndarray]:
        """The columns of a table in a batch, without the machine."""
        if name == "machines":
            age = to_bits(_floats(columns["age"].flatten()))
            return [self.models.codes(columns["model"].flatten()), age]
        if name == "telemetry":
            readings = [to_bits(values) for values in _readings(columns["sensors"], record, self._schema)]
            return [_times(columns["datetime"]), *readings]
        code = columns[CODE_COLUMN[RETRACTED.get(name, name)]].flatten()
        names = self.errors if name == "errors" else self.components
        return [_times(columns["datetime"]), names.codes(code)]

    def _findings(self, column: pa.ListArray, record: Int64) -> Int64:
        """The finding of each row, -1 where there is none; a record without the column is null in it."""
        codes = np.full(len(record), -1, np.int64)
        if column.null_count == len(column):
            return codes
        codes[np.isin(record, pc.list_parent_indices(column).to_numpy())] = self.findings.codes(column.flatten())
        return codes

    def _add_marks(self, columns: dict[str, pa.ListArray]) -> None:
        """Add marks; those of every machine name none, and so are stored among the numbers."""
        record, every_time = pc.list_parent_indices(columns["datetime"]).to_numpy(), _times(columns["datetime"])
        for column, own in ((MACHINE, self.machines is None), (NAME, self.machines is not None)):
            machine = columns[column].flatten()
            time = every_time[np.isin(record, pc.list_parent_indices(columns[column]).to_numpy())]
            named = machine.is_valid().to_numpy(zero_copy_only=False)
            if not named.all():
                latest = int(time[~named].max())
                self._every = latest if self._every is None else max(latest, self._every)
            if not own:
                self.foreign += int(named.sum())
                continue
            ids = self._codes(machine.drop_null())
            marks = np.array([ids, time[named]], np.int64)
            kept = self._kept(ids)
            self._marks.append(marks if kept is None else marks[:, kept])
        if sum(found.shape[1] for found in self._marks) > _FOLD_MARKS:
            self._marks = [self._folded()]

    def _folded(self) -> Int64:
        """The latest mark of each named machine, shape (2, machines)."""
        marks = np.concatenate([np.empty((2, 0), np.int64), *self._marks], axis=1)
        marks = marks[:, np.lexsort(marks[::-1])]
        last = np.ones(marks.shape[1], bool)
        last[:-1] = marks[0, 1:] != marks[0, :-1]
        return marks[:, last]

    def _kept(self, machine: Int64) -> np.ndarray | None:
        """Which rows no order of erasure names; None for all."""
        if not self._erased.machines:
            return None
        ids = machine.astype(str) if self.machines is None else np.array(self.machines.names, str)[machine]
        return ~np.isin(ids, sorted(self._erased.machines))


def _require_machines(table: str, columns: dict[str, pa.ListArray]) -> None:
    """Refuse rows whose machines are gone.

    Raises:
        DataError: there are some.
    """
    rows = columns["model" if "model" in columns else "datetime"]
    if lost := len(rows.flatten()) - len(columns[MACHINE].flatten()):
        raise DataError(
            f"{table}: {lost:,} rows have lost the names of their machines: a release that knows no names compacted "
            "the log; read a version from before, or restore the sink from a backup"
        )


def _readings(sensors: pa.ListArray, record: Int64, schema: Schema) -> Iterator[Float64]:
    """The readings of each sensor of the schema, one for each row of ``record``; NaN where it was not sent."""
    sender = pc.list_parent_indices(sensors).to_numpy()
    names, values = sensors.flatten().flatten()
    for sensor in schema.sensors:
        chosen = pc.equal(names, sensor)
        sent = _floats(values.filter(chosen).flatten())
        if len(sent) == len(record):  # every record sent it
            yield sent
            continue
        readings = np.full(len(record), np.nan)
        readings[np.isin(record, sender[chosen.to_numpy(zero_copy_only=False)])] = sent
        yield readings


def _times(column: pa.ListArray) -> Int64:
    return column.flatten().cast(pa.int64()).to_numpy()


def _floats(column: pa.Array) -> Float64:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)  # null becomes NaN
