"""The two Delta tables that the log goes to, and their rows from records.

One row is one record. Its tables and its results are nested columns, in which a sensor or a component is a value and no
column's name: another fleet, or a new sensor, changes no schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Any

import msgspec
from arro3.core import Array, DataType, Field, RecordBatch, Schema, list_array, struct_array

from closedloop.log.record import Record, decode

FORMAT = "1"  # of the tables; a shipper adds to no other, and a reader reads no later one
REQUESTS, FEEDBACK = "requests", "feedback"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_BATCH_BYTES = 4 << 20  # of payloads turned into columns at once: Python's objects take ten times as much


class RecordError(ValueError):
    """A record that this version cannot turn into a row."""


def _list(element: DataType) -> DataType:
    return DataType.list(Field("element", element))


def _struct(**columns: DataType) -> DataType:
    return DataType.struct([Field(name, kind) for name, kind in columns.items()])


_TEXT, _WHOLE, _NUMBER, _FLAG = DataType.string(), DataType.int64(), DataType.float64(), DataType.bool()
_TIME = DataType.timestamp("us", tz="UTC")
_PLACE = {"datetime": _list(_TIME), "machineID": _list(_WHOLE)}
_RESULT = _struct(
    machineID=_WHOLE,
    datetime=_TIME,
    anomaly=_struct(score=_NUMBER, alarm=_FLAG),
    failure=_list(_struct(component=_TEXT, probability=_NUMBER, alarm=_FLAG)),
    warnings=_list(_TEXT),
)
_ABOUT = {
    "request_id": _TEXT,
    "received": _TIME,
    "answered": _TIME,
    "caller": _TEXT,
    "status": _WHOLE,
    "model": _TEXT,
    "image": _TEXT,
    "body_sha256": _TEXT,
    "spool": _TEXT,
    "segment": _WHOLE,
    "index": _WHOLE,
}
_SCORED = {
    "telemetry": _struct(**_PLACE, sensors=_list(_struct(name=_TEXT, values=_list(_NUMBER)))),
    "errors": _struct(**_PLACE, errorID=_list(_TEXT)),
    "maint": _struct(**_PLACE, comp=_list(_TEXT)),
    "machines": _struct(machineID=_list(_WHOLE), model=_list(_TEXT), age=_list(_NUMBER)),
}
_FED = {"failures": _struct(**_PLACE, failure=_list(_TEXT)), "maint": _SCORED["maint"]}
TABLES_OF = {REQUESTS: tuple(_SCORED), FEEDBACK: tuple(_FED)}
SCHEMAS = {
    REQUESTS: Schema([Field(name, kind) for name, kind in {**_ABOUT, **_SCORED, "results": _list(_RESULT)}.items()]),
    FEEDBACK: Schema([Field(name, kind) for name, kind in {**_ABOUT, **_FED}.items()]),
}


class _Anomaly(msgspec.Struct):
    score: float
    alarm: bool


class _Failure(msgspec.Struct):
    probability: float
    alarm: bool


class _Result(msgspec.Struct):
    machineID: int  # noqa: N815 - the data's own name
    datetime: str
    anomaly: _Anomaly | None
    failure: dict[str, _Failure | None]
    warnings: list[str]


class _Answer(msgspec.Struct):
    results: list[_Result]


_columns = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_answer = msgspec.json.Decoder(_Answer)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "datetime": msgspec.json.Decoder(list[str]),
    "machineID": msgspec.json.Decoder(list[int]),
    "age": msgspec.json.Decoder(list[float | None]),
    "model": msgspec.json.Decoder(list[str | None]),
    **dict.fromkeys(("errorID", "comp", "failure"), msgspec.json.Decoder(list[str])),
}
_readings = msgspec.json.Decoder(list[float | None])


@dataclass
class Rows:
    """The rows of one segment: ``batches`` by table, and why each record that has none was left out."""

    batches: dict[str, list[RecordBatch]]
    refused: list[str]


def rows_of(spool: str, segment: int, payloads: Iterable[bytes]) -> Rows:
    """The rows of a segment's records, in their order."""
    rows = Rows({}, [])
    waiting: dict[str, list[dict[str, Any]]] = {REQUESTS: [], FEEDBACK: []}
    size = 0
    for index, payload in enumerate(payloads):
        try:
            table, row = _row(payload)
        except RecordError as error:
            rows.refused.append(f"record {index}: {error}")
            continue
        waiting[table].append({**row, "spool": spool, "segment": segment, "index": index})
        size += len(payload)
        if size > _BATCH_BYTES:
            _flush(waiting, rows)
            size = 0
    _flush(waiting, rows)
    return rows


def _flush(waiting: dict[str, list[dict[str, Any]]], rows: Rows) -> None:
    for table, found in waiting.items():
        if found:
            schema = SCHEMAS[table]
            columns = [_array(schema.field(name).type, [row[name] for row in found]) for name in schema.names]
            rows.batches.setdefault(table, []).append(RecordBatch.from_arrays(columns, schema=schema))
            found.clear()


def _row(payload: bytes) -> tuple[str, dict[str, Any]]:
    """The table that a record goes to, and its row without its place.

    Raises:
        RecordError: a later format, or a body that is none of ours.
    """
    try:
        record = decode(payload)
        if record.kind not in ("score", "feedback"):
            raise RecordError(f"of kind {record.kind!r}, which this version does not know")
        table = REQUESTS if record.kind == "score" else FEEDBACK
        row = _about(record) | _tables(record.request, TABLES_OF[table])
        if table == REQUESTS:
            row["results"] = _results(record.answer)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise RecordError(str(error)) from None
    return table, row


def _about(record: Record) -> dict[str, Any]:
    return {
        "request_id": record.request_id,
        "received": record.received_us,
        "answered": record.answered_us,
        "caller": record.caller,
        "status": record.status,
        "model": record.model,
        "image": record.image,
        "body_sha256": hashlib.sha256(record.request).hexdigest(),
    }


def _tables(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """Each known table of a body as a nested value, None where it is not there; an empty body has none."""
    found = _columns.decode(body) if body else {}
    if unknown := sorted(set(found) - set(known)):
        raise RecordError(f"with a table {unknown[0]!r}, which this version does not know")
    return {name: _table(name, found[name]) if name in found else None for name in known}


def _table(name: str, raw: dict[str, msgspec.Raw]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    sensors: list[dict[str, Any]] = []
    for column, text in raw.items():
        if name == "telemetry" and column not in _PLACE:
            sensors.append({"name": column, "values": _readings.decode(text)})
        elif column in _decoders:
            columns[column] = _decoders[column].decode(text)
        else:
            raise RecordError(f"with a column {name}.{column}, which this version does not know")
    if name == "telemetry":
        columns["sensors"] = sensors
    if "datetime" in columns:
        columns["datetime"] = [_microseconds(text) for text in columns["datetime"]]
    lengths = {len(values) for column, values in columns.items() if column != "sensors"}
    lengths |= {len(sensor["values"]) for sensor in sensors}
    if len(lengths) > 1:
        raise RecordError(f"with columns of {name} that differ in length")
    return columns


def _results(answer: bytes) -> list[dict[str, Any]] | None:
    """The answer's results; None where the answer was not to be kept."""
    if not answer:
        return None
    return [
        {
            "machineID": result.machineID,
            "datetime": _microseconds(result.datetime),
            "anomaly": None if result.anomaly is None else msgspec.structs.asdict(result.anomaly),
            "failure": [
                {
                    "component": component,
                    "probability": None if chance is None else chance.probability,
                    "alarm": None if chance is None else chance.alarm,
                }
                for component, chance in result.failure.items()
            ],
            "warnings": result.warnings,
        }
        for result in _answer.decode(answer).results
    ]


@lru_cache(maxsize=1 << 15)  # a fleet reports at the same hours
def _microseconds(text: str) -> int:
    """An RFC 3339 time as the service accepts it, without the compiled parser: numba alone would take 100 MB here."""
    try:
        time = datetime.fromisoformat(text.upper())
        return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    except ValueError:
        raise RecordError(f"with {text[:40]!a}, which is no time") from None


def _array(kind: DataType, values: list[Any]) -> Array:
    """Python values as an Arrow array: lists for lists, dicts for structs, None for null."""
    if DataType.is_list(kind):
        field = _present(kind.value_field)
        offsets = Array([0, *accumulate(0 if value is None else len(value) for value in values)], DataType.int32())
        flat = [item for value in values if value is not None for item in value]
        return list_array(offsets, _array(field.type, flat), type=kind, mask=_nulls(values))
    if DataType.is_struct(kind):
        fields = list(kind.fields)
        children = [
            _array(field.type, [None if value is None else value.get(field.name) for value in values])
            for field in fields
        ]
        return struct_array(children, fields=fields, mask=_nulls(values))
    if kind == _TIME:
        return Array(values, _WHOLE).cast(_TIME)
    return Array(values, kind)


def _present(field: Field | None) -> Field:
    assert field is not None  # noqa: S101 - every list has one
    return field


def _nulls(values: list[Any]) -> Array:
    return Array([value is None for value in values], _FLAG)
