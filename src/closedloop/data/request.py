"""Decode a scoring request from JSON columns into tables, or refuse it with a pointer to each fault.

A request is a slice of the fleet's own tables (all but ``failures``), so the log of requests is training data.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache, partial
from time import sleep
from typing import Any

import msgspec
import numpy as np

from closedloop.data import findings, machines, rfc3339
from closedloop.data.columns import (
    Columns,
    Faults,
    MachineNames,
    RequestError,
    codes,
    even,
    events,
    fault,
    in_order,
    machine_ids,
    parse,
    refuse_repeated_names,
    shown,
    table_type,
    times,
)
from closedloop.data.machines import clip
from closedloop.data.schema import MAX_AHEAD_US, Float64, Int16, Int64, Schema, Tables

__all__ = ["Decoder", "RequestError", "decode", "openapi"]

_EVENT_TABLES = ("errors", "maint")
_NO_MACHINES = (np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0, np.float64))
_PARTS_BYTES = 1 << 20  # a longer body is decoded column by column
_PARTS_ROWS = 10_000
_PAUSE_SECONDS = 0.001  # after each column of a long body
_raw_tables = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_NO_CODE = np.empty(0, np.int16)


def decode(body: bytes | str, schema: Schema, max_rows: int) -> Tables:
    """The tables of a request body. For many requests, keep one :class:`Decoder`."""
    return _decoder(schema, max_rows)(body)


class Decoder:
    """Decode requests of one schema. The types are generated once, when the decoder is made."""

    def __init__(
        self, schema: Schema, max_rows: int, max_machines: int = sys.maxsize, max_ahead_us: int = MAX_AHEAD_US
    ) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._max_machines = max_machines
        self._max_ahead_us = max_ahead_us
        self._has_names = schema.has_names
        self._texts = (2, 3) if schema.has_names else (1, 2)  # columns of text in tables without and with a code
        self._type = _request_type(schema)
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._type)
        codes = {"errors": schema.errors, "maint": schema.components}
        self._columns = _columns(schema)
        self._parts = {
            table: (
                table_type(table, columns, _optional(table)),
                {name: msgspec.json.Decoder(kind) for name, kind in columns.items()},
            )
            for table, columns in self._columns.items()
        }
        self._names = {table: tuple(columns) for table, columns in self._columns.items()}
        self._codes = {table: {name: i for i, name in enumerate(names)} for table, names in codes.items()}
        self._models = {name: i for i, name in enumerate(schema.models)}

    def __call__(self, body: bytes | str) -> Tables:
        """The tables of ``body``, sorted, with each telemetry key once.

        Raises:
            RequestError: the body is not a request of this schema. The error names every faulty column.
        """
        return self.read(body)[0]

    def read(self, body: bytes | str) -> tuple[Tables, bytes]:
        """The tables of ``body``, and the body as it is to be logged: with numbers for machines that have numbers.

        Raises:
            RequestError: the body is not a request of this schema. The error names every faulty column.
        """
        raw, content = self._parse(body)
        faults: Faults = []
        names = MachineNames(_machines_of(raw)) if self._has_names else None
        telemetry = self._telemetry(raw.telemetry, faults, names)
        limits = self._max_rows, self._max_ahead_us, names
        errors = events("errors", raw.errors, self._codes["errors"], faults, *limits)
        maint = events("maint", raw.maint, self._codes["maint"], faults, *limits)
        findings.check(raw.maint, faults)
        described = self._machines(raw.machines, faults, names)
        if not faults:
            findings.check_one(raw.maint, maint, faults)
        if faults:
            raise RequestError(faults)
        one, two = self._texts
        tables = [(raw.telemetry, one), (raw.errors, two), (raw.maint, two), (raw.machines, one)]
        refuse_repeated_names(content, tables, findings.strings(raw.maint))
        machine, time, values = telemetry
        called = None if names is None else names.names
        found = Tables(machine, time, values, errors, maint, None, *described, names=called)
        return found, content

    def _parse(self, body: bytes | str) -> tuple[Any, bytes]:
        if isinstance(body, bytes) and len(body) > _PARTS_BYTES and (raw := self._in_parts(body)) is not None:
            return raw, body
        return parse(self._json, body, self._columns)

    def _in_parts(self, body: bytes) -> Any:
        """What ``parse`` makes of a long body, column by column; None if it is to be refused: ``parse`` says why.

        One call would hold the interpreter for up to 0.1 s, and with it every other thread. Without the pauses another
        one gets it for a single system call at a time, and a probe takes several.
        """
        try:
            tables = {}
            for name, sent in _raw_tables.decode(body).items():
                kind, decoders = self._parts[name]
                left_out = _optional(name) - set(sent)
                columns = [
                    _decode_and_pause(decoder, sent.pop(column))
                    for column, decoder in decoders.items()
                    if column not in left_out
                ]
                if sent:
                    return None
                tables[name] = kind(*columns)
            return self._type(**tables)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            return None

    def _telemetry(self, raw: Any, faults: Faults, names: MachineNames | None) -> tuple[Int64, Int64, Float64]:
        """Machine, time and values of the telemetry, sorted."""
        columns = msgspec.structs.astuple(raw)
        texts, ids, *sensors = columns
        if not texts:
            fault(faults, "/telemetry", "no rows: send at least one row of one machine")
        if not even("telemetry", self._names["telemetry"], columns, faults, self._max_rows):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((len(sensors), 0))
        time = times("telemetry", texts, faults, self._max_ahead_us)
        machine = machine_ids("telemetry", ids, faults, names)
        values = np.array(sensors, np.float64) if len(texts) < _PARTS_ROWS else _columnwise(sensors)  # None becomes NaN
        if not faults and not in_order(machine, time, _NO_CODE):
            order = np.lexsort((time, machine))
            machine, time, values = machine[order], time[order], np.ascontiguousarray(values[:, order])
            again = np.flatnonzero((machine[1:] == machine[:-1]) & (time[1:] == time[:-1]))
            if len(again):
                row = int(order[again[0] + 1])
                key = f"machine {shown(ids[row])} at {clip(texts[row])}"
                fault(faults, f"/telemetry/datetime/{row}", f"{key} occurs twice: send each machine and time once")
        if not faults and len(machine) > self._max_machines:  # each one costs a result
            count = 1 + int(np.count_nonzero(machine[1:] != machine[:-1]))
            if count > self._max_machines:
                detail = f"{count} machines, at most {self._max_machines}: send them in several requests"
                fault(faults, "/telemetry/machineID", detail)
        return machine, time, values

    def _machines(self, raw: Any, faults: Faults, names: MachineNames | None) -> tuple[Int64, Int16, Float64]:
        """Id, model and age of the machines, sorted by id."""
        if raw is msgspec.UNSET:
            return _NO_MACHINES
        columns = ids, models, ages = msgspec.structs.astuple(raw)
        if not even("machines", self._names["machines"], columns, faults, self._max_rows) or not ids:
            return _NO_MACHINES
        model = codes("/machines/model", models, self._models, faults)
        age = np.array(ages, np.float64)
        if min(ages) < 0:
            row = int(np.argmax(age < 0))
            fault(faults, f"/machines/age/{row}", "is below 0: give the machine's age in years")
        machine = machine_ids("machines", ids, faults, names)
        if faults or len(ids) < 2:
            return machine, model, age
        order = np.argsort(machine, kind="stable")
        again = np.flatnonzero(np.diff(machine[order]) == 0)
        if len(again):
            row = int(order[again[0] + 1])
            detail = f"machine {shown(ids[row])} occurs twice: describe each machine once"
            fault(faults, f"/machines/machineID/{row}", detail)
        return machine[order], model[order], age[order]


def _machines_of(raw: Any) -> list[list[str]]:
    """The columns of a request that hold machines."""
    columns = [table.column_1 for table in (raw.telemetry, raw.errors, raw.maint) if table is not msgspec.UNSET]
    return columns if raw.machines is msgspec.UNSET else [*columns, raw.machines.column_0]


def openapi(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of a request, with an example that can be sent as it is."""
    latest = 1_420_351_200_000_000  # 2015-01-04T06:00:00Z
    rows = rfc3339.to_text(latest - schema.period_us), rfc3339.to_text(latest)
    readings = {
        name: _column({"type": ["number", "null"]}, [_reading(low, high, part) for part in (0.42, 0.43)])
        for name, (low, high) in zip(schema.sensors, schema.ranges, strict=True)
    }
    ids = partial(_ids, schema.machine_id)
    tables = {"telemetry": _table("Readings.", {"datetime": _time(*rows), "machineID": ids(2), **readings}, 1)}
    if schema.errors:
        columns = {"datetime": _time("2015-01-03T07:00:00Z"), "machineID": ids(1), "errorID": _known(schema.errors)}
        tables["errors"] = _table("Errors of the history.", columns)
    if schema.components:
        columns = {"datetime": _time("2014-12-13T06:00:00Z"), "machineID": ids(1), "comp": _known(schema.components)}
        tables["maint"] = _table("The last replacement of each component, however old.", columns)
        tables["maint"]["properties"][findings.COLUMN] = {"type": "array", "items": findings.JSON_SCHEMA}
    if schema.models:
        age = _column({"type": "number", "minimum": 0}, [18.0])
        tables["machines"] = _table(
            "What the machines are.", {"machineID": ids(1), "model": _known(schema.models), "age": age}
        )
    return {
        "type": "object",
        "description": "A slice of the fleet's tables. Times are RFC 3339, UTC where there is no offset.",
        "properties": tables,
        "required": ["telemetry"],
        "additionalProperties": False,
        "examples": [{name: properties["examples"][0] for name, properties in tables.items()}],
    }


def _reading(low: float, high: float, part: float) -> float:
    """A reading at a part of a sensor's range, with as few digits as the range allows."""
    return round(low + (high - low) * part, max(1, 2 - math.floor(math.log10(high - low))))


def _column(items: dict[str, Any], example: list) -> dict[str, Any]:
    """The JSON Schema of a column."""
    return {"type": "array", "items": items, "examples": [example]}


def _table(title: str, columns: dict[str, Any], fewest: int = 0) -> dict[str, Any]:
    """The JSON Schema of a table of columns with at least ``fewest`` rows."""
    for properties in columns.values():
        properties["minItems"] = fewest
    return {
        "type": "object",
        "description": f"{title} Columns of equal length.",
        "properties": columns,
        "required": list(columns),
        "additionalProperties": False,
        "examples": [{name: properties["examples"][0] for name, properties in columns.items()}],
    }


def _time(*examples: str) -> dict[str, Any]:
    """The JSON Schema of a column of times."""
    return _column({"type": "string", "format": "date-time"}, list(examples))


def _ids(kind: str, count: int) -> dict[str, Any]:
    """The JSON Schema of a column of machines, with ``count`` rows in the example."""
    return _column(machines.json_schema(kind), machines.examples(kind, 1) * count)


def _known(names: tuple[str, ...]) -> dict[str, Any]:
    """The JSON Schema of a column of names of the schema."""
    return _column({"type": "string", "enum": list(names)}, list(names[:1]))


def _decode_and_pause(decoder: msgspec.json.Decoder[Any], column: msgspec.Raw) -> Any:
    values = decoder.decode(column)
    sleep(_PAUSE_SECONDS)
    return values


def _columnwise(sensors: list[list[float | None]]) -> Float64:
    values = np.empty((len(sensors), len(sensors[0]) if sensors else 0))
    for row, readings in zip(values, sensors, strict=True):
        row[:] = readings
        sleep(_PAUSE_SECONDS)
    return values


@lru_cache(maxsize=8)
def _decoder(schema: Schema, max_rows: int) -> Decoder:
    return Decoder(schema, max_rows)


def _columns(schema: Schema) -> Columns:
    """The type of each column of each table."""
    machine = list[str] if schema.has_names else list[int]
    event = {"datetime": list[str], "machineID": machine}
    return {
        "telemetry": {**event, **dict.fromkeys(schema.sensors, list[float | None])},
        "errors": {**event, "errorID": list[str]},
        "maint": {**event, "comp": list[str], findings.COLUMN: findings.TYPE},
        "machines": {"machineID": machine, "model": list[str], "age": list[float]},
    }


def _optional(table: str) -> frozenset[str]:
    """The columns that a table need not have; a sensor may have such a name too."""
    return findings.OPTIONAL if table == "maint" else frozenset()


def _request_type(schema: Schema) -> type[msgspec.Struct]:
    tables = {table: table_type(table, columns, _optional(table)) for table, columns in _columns(schema).items()}
    optional = [(name, tables[name] | msgspec.UnsetType, msgspec.UNSET) for name in (*_EVENT_TABLES, "machines")]
    return msgspec.defstruct("Request", [("telemetry", tables["telemetry"]), *optional], forbid_unknown_fields=True)
