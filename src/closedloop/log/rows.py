"""Records as rows of the Delta tables: Arrow columns, built from flat lists of all values of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

import msgspec
from arro3.core import Array, ChunkedArray, DataType, Field, RecordBatch, list_array, struct_array

from closedloop.log.bodies import RecordError, Result, Table, has_names, results_of, tables_of, values_of
from closedloop.log.record import REJECT, Reject, View, decode_view
from closedloop.log.tables import FEEDBACK, NAME, REJECTS, REQUESTS, SCHEMAS, TABLES_OF

_BATCH_BYTES = 4 << 20  # of payloads turned into columns at once
_LEAF_VALUES = (
    100_000  # Python values of a column that are held before they become Arrow: those take four times as much
)
_MACHINE = "machineID"
_PLACE = ("datetime", _MACHINE)  # of telemetry; its other columns are sensors
_TABLES = {"score": REQUESTS, "feedback": FEEDBACK, REJECT: REJECTS}  # by kind of record
_reject = msgspec.json.Decoder(Reject)
_FLAG, _OFFSET, _WHOLE = DataType.bool(), DataType.int32(), DataType.int64()


@dataclass
class Parts:
    """What one record holds: its tables by name and column, and its results, None where they were not kept.

    ``reject`` is what was wrong if the request was refused; then there are neither.
    """

    view: View
    tables: dict[str, Table]
    results: Iterable[Result] | None
    reject: Reject | None = None


Prune = Callable[[Parts], Parts | None]  # what is to be stored of a record; None for nothing


@dataclass(frozen=True)
class Refused:
    """A record without a row: its place in the segment, its payload, and why."""

    index: int
    payload: bytes
    why: str


@dataclass
class Rows:
    """The rows of one segment: ``batches`` by table, and the records that have none.

    ``later`` says whether one has what the first releases' tables had no column for: a machine's name, or a finding in
    a request.
    """

    batches: dict[str, list[RecordBatch]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    later: bool = False

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(batch.num_rows for batches in self.batches.values() for batch in batches)


def rows_of(spool: str, segment: int, payloads: Iterable[bytes], prune: Prune | None = None) -> Rows:
    """The rows of a segment's records, in their order. ``prune`` leaves out what must not be stored."""
    rows = Rows()
    builders: dict[str, _Builder] = {}
    indices = count()  # enumerate would hold the last payload
    size = 0
    for payload in payloads:
        size += len(payload)
        _add(payload, (spool, segment, next(indices)), builders, rows, prune)
        del payload  # a long one gives its memory back before its columns are put together
        if size > _BATCH_BYTES:
            _flush(builders, rows)
            size = 0
    _flush(builders, rows)
    return rows


def _add(
    payload: bytes, place: tuple[str, int, int], builders: dict[str, _Builder], rows: Rows, prune: Prune | None
) -> None:
    """Add one record to the columns of its table, or to those that were refused."""
    try:
        table, parts = _parts(payload)
    except RecordError as error:
        rows.refused.append(Refused(place[2], payload, str(error)))
        return
    kept = parts if prune is None else prune(parts)
    if kept is not None:
        if table not in builders:
            builders[table] = _Builder(table)
        builders[table].add(kept, *place)


def _flush(builders: dict[str, _Builder], rows: Rows) -> None:
    while builders:
        table, builder = builders.popitem()
        rows.later |= builder.later
        rows.batches.setdefault(table, []).append(builder.batch())


def _parts(payload: bytes) -> tuple[str, Parts]:
    """The table that a record goes to, and what it holds.

    Raises:
        RecordError: another format, or a body that is none of ours.
    """
    try:
        view = decode_view(payload)
        if view.kind not in _TABLES:
            raise RecordError(f"of kind {view.kind!r}, which this version does not know")
        table = _TABLES[view.kind]
        if table == REJECTS:
            return table, Parts(view, {}, None, _reject.decode(view.answer))
        tables = tables_of(view.request, TABLES_OF[table])
        return table, Parts(view, tables, results_of(view.answer) if table == REQUESTS else None)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise RecordError(str(error)) from None


class _Leaf:
    """Values of one type."""

    def __init__(self, kind: DataType) -> None:
        self._kind = kind
        self._chunks: list[Array] = []
        self.values: list[Any] = []

    def extend(self, values: list[Any]) -> None:
        """Add values; None for null."""
        self.values += values
        self.settle()

    def settle(self) -> None:
        """Turn what is held into Arrow if it is much."""
        if len(self.values) > _LEAF_VALUES:
            self._chunks.append(self._array())
            self.values = []

    def array(self) -> Array:
        """All of them, which are then gone from here."""
        chunks, self._chunks = [*self._chunks, self._array()], []
        self.values = []
        return chunks[0] if len(chunks) == 1 else ChunkedArray(chunks, self._kind).combine_chunks()

    def _array(self) -> Array:
        if DataType.is_timestamp(self._kind):
            return Array(self.values, _WHOLE).cast(self._kind)
        return Array(self.values, self._kind)


class _List:
    """Lists of values, one for each row: their lengths, None where there is no list."""

    def __init__(self, kind: DataType) -> None:
        self._kind = kind
        self._lengths: list[int | None] = []
        self.leaf = _Leaf(_element(kind))

    def add(self, values: list[Any] | None) -> None:
        """Add one row."""
        if values is None:
            self._lengths.append(None)
        else:
            self._lengths.append(len(values))
            self.leaf.extend(values)

    def array(self) -> Array:
        """All rows."""
        return _lists(self._kind, self._lengths, self.leaf.array())


class _Table:
    """One table of each row: a struct of lists of one length; telemetry has its sensors as a list of their own."""

    def __init__(self, name: str, kind: DataType) -> None:
        self._name, self._kind = name, kind
        self._present: list[bool] = []
        self._lists = {part.name: _List(part.type) for part in kind.fields if part.name != "sensors"}
        self._own = [column for column in self._lists if column not in (_MACHINE, NAME)]
        self.names = self.findings = False
        self._sensors = _Sensors(kind) if len(self._lists) < len(kind.fields) else None

    def add(self, table: Table | None) -> None:
        """Add one row's table; None where it has none."""
        self._present.append(table is not None)
        found = {} if table is None else table
        for column in self._own:
            self._lists[column].add(values_of(self._name, column, found[column]) if column in found else None)
        machines = values_of(self._name, _MACHINE, found[_MACHINE]) if _MACHINE in found else None
        names = machines is not None and has_names(machines)
        self.names |= names
        self.findings |= "finding" in found
        self._lists[_MACHINE].add(None if names else machines)
        self._lists[NAME].add(machines if names else None)
        if self._sensors is not None:
            others = [column for column in found if column not in _PLACE]
            self._sensors.add(None if table is None else others, self._name, found)

    def array(self) -> Array:
        """All rows."""
        arrays = {column: found.array() for column, found in self._lists.items()}
        if self._sensors is not None:
            arrays["sensors"] = self._sensors.array()
        return struct_array(
            [arrays[part.name] for part in self._kind.fields],
            fields=list(self._kind.fields),
            mask=_nulls(self._present),
        )


class _Sensors:
    """The sensors of each row: a list of names with their readings."""

    def __init__(self, telemetry: DataType) -> None:
        self._kind = next(part.type for part in telemetry.fields if part.name == "sensors")
        self._fields = list(_element(self._kind).fields)
        self._lengths: list[int | None] = []
        self._names, self._readings = _Leaf(self._fields[0].type), _List(self._fields[1].type)

    def add(self, names: list[str] | None, table: str, found: Table) -> None:
        """Add one row's sensors."""
        self._lengths.append(None if names is None else len(names))
        self._names.extend(names or [])
        for name in names or []:
            self._readings.add(values_of(table, name, found[name]))

    def array(self) -> Array:
        """All rows."""
        sensors = struct_array([self._names.array(), self._readings.array()], fields=self._fields)
        return _lists(self._kind, self._lengths, sensors)


class _Results:
    """The results of each row."""

    def __init__(self, kind: DataType) -> None:
        self._kind = kind
        self.names = False
        self._lengths: list[int | None] = []
        kinds = {part.name: part.type for part in _element(kind).fields}
        self._machine, self._time = _Leaf(kinds[_MACHINE]), _Leaf(kinds["datetime"])
        self._machine_name = _Leaf(kinds[NAME])
        self._anomaly, self._failure = kinds["anomaly"], kinds["failure"]
        self._score, self._alarm = (_Leaf(part.type) for part in self._anomaly.fields)
        self._judged: list[bool] = []
        self._component, self._probability, self._rings = (_Leaf(part.type) for part in _element(self._failure).fields)
        self._components: list[int | None] = []
        self._warnings = _List(kinds["warnings"])

    def add(self, results: Iterable[Result] | None) -> None:
        """Add one row's results; None where they were not kept."""
        if results is None:
            self._lengths.append(None)
            return
        length = 0
        for result in results:
            length += 1
            named = isinstance(result.machineID, str)
            self.names |= named
            self._machine.values.append(None if named else result.machineID)
            self._machine_name.values.append(result.machineID if named else None)
            self._time.values.append(result.time_us)
            anomaly = result.anomaly
            self._judged.append(anomaly is not None)
            self._score.values.append(None if anomaly is None else anomaly.score)
            self._alarm.values.append(None if anomaly is None else anomaly.alarm)
            self._components.append(len(result.failure))
            for component, chance in result.failure.items():
                self._component.values.append(component)
                self._probability.values.append(None if chance is None else chance.probability)
                self._rings.values.append(None if chance is None else chance.alarm)
            self._warnings.add(result.warnings)
            if not length % 1000:
                self._settle()
        self._lengths.append(length)

    def array(self) -> Array:
        """All rows."""
        anomaly = struct_array(
            [self._score.array(), self._alarm.array()], fields=list(self._anomaly.fields), mask=_nulls(self._judged)
        )
        chances = [leaf.array() for leaf in (self._component, self._probability, self._rings)]
        failures = struct_array(chances, fields=list(_element(self._failure).fields))
        failure = _lists(self._failure, self._components, failures)
        columns = [self._machine.array(), self._time.array(), anomaly, failure, self._warnings.array()]
        columns.append(self._machine_name.array())
        return _lists(self._kind, self._lengths, struct_array(columns, fields=list(_element(self._kind).fields)))

    def _settle(self) -> None:
        for leaf in (self._machine, self._machine_name, self._time, self._score, self._alarm):
            leaf.settle()
        for leaf in (self._component, self._probability, self._rings):
            leaf.settle()


class _Builder:
    """The rows of one Delta table."""

    def __init__(self, table: str) -> None:
        self._schema = SCHEMAS[table]
        nested = {*TABLES_OF[table], "results"}
        kinds = {name: self._schema.field(name).type for name in self._schema.names}
        self._about = {name: _Leaf(kind) for name, kind in kinds.items() if name not in nested}
        self._tables = {name: _Table(name, kinds[name]) for name in TABLES_OF[table]}
        self._results = _Results(kinds["results"]) if "results" in kinds else None

    def add(self, parts: Parts, spool: str, segment: int, index: int) -> None:
        """Add one record."""
        view = parts.view
        about = {
            "request_id": view.request_id,
            "received": view.received_us,
            "answered": view.answered_us,
            "caller": view.caller,
            "status": view.status,
            "model": view.model,
            "image": view.image,
            "body_sha256": hashlib.sha256(view.request).hexdigest(),
            "spool": spool,
            "segment": segment,
            "index": index,
        }
        if parts.reject is not None:
            about |= msgspec.structs.asdict(parts.reject)
            about["body"] = bytes(view.request).decode(errors="backslashreplace")
        for name, leaf in self._about.items():
            leaf.values.append(about[name])
        for name, table in self._tables.items():
            table.add(parts.tables.get(name))
        if self._results is not None:
            self._results.add(parts.results)

    @property
    def later(self) -> bool:
        """As of :class:`Rows`."""
        parts: list[_Table | _Results] = [*self._tables.values(), *([self._results] if self._results else [])]
        return any(part.names for part in parts) or (
            self._results is not None and any(table.findings for table in self._tables.values())
        )

    def batch(self) -> RecordBatch:
        """All records."""
        columns = {name: leaf.array() for name, leaf in self._about.items()}
        columns |= {name: table.array() for name, table in self._tables.items()}
        if self._results is not None:
            columns["results"] = self._results.array()
        return RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)


def _lists(kind: DataType, lengths: list[int | None], values: Array) -> Array:
    """A list array."""
    offsets = Array([0, *accumulate(length or 0 for length in lengths)], _OFFSET)
    return list_array(offsets, values, type=kind, mask=_nulls([length is not None for length in lengths]))


def _nulls(present: list[bool]) -> Array:
    return Array([not here for here in present], _FLAG)


def _element(kind: DataType) -> DataType:
    element: Field | None = kind.value_field
    assert element is not None  # noqa: S101 - every list has one
    return element.type
