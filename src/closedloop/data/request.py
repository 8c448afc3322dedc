"""A scoring request: JSON columns, decoded once, straight into the tables, and refused with a pointer to each fault.

The request is a slice of the fleet's own tables (all but ``failures``), so the log of requests is training data.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numba import njit

from closedloop.data import rfc3339
from closedloop.data.schema import CODE_COLUMN, DataError, Events, Float64, Int16, Int64, Schema, Tables

_EVENT_TABLES = ("errors", "maint")
_NO_MACHINES = (np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0, np.float64))
_NO_CODE = np.empty(0, np.int16)
_NUMBERS = "write plain numbers, and null for a missing reading"


class RequestError(DataError):
    """The request was refused.

    ``errors`` lists the faults as ``{"pointer": <JSON Pointer>, "detail": <what, and how to mend it>}``; ``syntax``
    says that the body is not even JSON.
    """

    def __init__(self, errors: list[dict[str, str]], *, syntax: bool = False) -> None:
        super().__init__("; ".join(f"{error['pointer'] or '/'}: {error['detail']}" for error in errors))
        self.errors = errors
        self.syntax = syntax


def decode(body: bytes | str, schema: Schema, max_rows: int) -> Tables:
    """The tables of a request body. A service holds one :class:`Decoder`; this is the same for a single call."""
    return _decoder(schema, max_rows)(body)


class Decoder:
    """Decodes requests of one schema. Its types are generated here once, so that no request pays for it."""

    def __init__(self, schema: Schema, max_rows: int) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_request_type(schema))
        codes = {"errors": schema.errors, "maint": schema.components}
        self._codes = {table: {name: i for i, name in enumerate(names)} for table, names in codes.items()}
        self._models = {name: i for i, name in enumerate(schema.models)}

    def __call__(self, body: bytes | str) -> Tables:
        """The tables of ``body``, sorted, every telemetry key once.

        Raises:
            RequestError: the body is not a request of this schema; every faulty column is named.
        """
        if isinstance(body, str):
            try:
                body = body.encode()
            except UnicodeEncodeError as error:
                detail = f"a lone surrogate at character {error.start}: it is no Unicode text"
                raise _refusal("", detail, syntax=True) from None
        raw = self._parse(body)
        faults: list[dict[str, str]] = []
        telemetry = self._telemetry(raw.telemetry, faults)
        errors = self._events("errors", raw.errors, faults)
        maint = self._events("maint", raw.maint, faults)
        machines = self._machines(raw.machines, faults)
        if faults:
            raise RequestError(faults)
        _refuse_repeated_names(body, raw)
        machine, time, values = telemetry
        return Tables(machine, time, values, errors, maint, None, *machines)

    def _parse(self, body: bytes) -> Any:
        try:
            return self._json.decode(body)
        except msgspec.ValidationError as error:
            raise self._mistyped(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _refusal("", _syntax_detail(body, error), syntax=True) from None

    def _telemetry(self, raw: Any, faults: list[dict[str, str]]) -> tuple[Int64, Int64, Float64]:
        texts, ids, *sensors = msgspec.structs.astuple(raw)
        rows = len(texts)
        values = np.empty((len(sensors), 0))
        if not rows:
            _fault(faults, "/telemetry", "no rows: send at least one row of one machine")
        others = {"machineID": ids, **dict(zip(self._schema.sensors, sensors, strict=True))}
        if not self._even("telemetry", texts, others, faults):
            return np.empty(0, np.int64), np.empty(0, np.int64), values
        time, machine = _times("telemetry", texts, faults), _machine_ids("telemetry", ids, faults)
        values = np.array(sensors, np.float64)  # None becomes NaN
        if not faults and not _in_order(machine, time, _NO_CODE):
            order = np.lexsort((time, machine))
            machine, time, values = machine[order], time[order], np.ascontiguousarray(values[:, order])
            again = np.flatnonzero((machine[1:] == machine[:-1]) & (time[1:] == time[:-1]))
            if len(again):
                row = int(order[again[0] + 1])
                key = f"machine {ids[row]} at {_clip(texts[row])}"
                _fault(faults, f"/telemetry/datetime/{row}", f"{key} occurs twice: send each machine and time once")
        return machine, time, values

    def _events(self, table: str, raw: Any, faults: list[dict[str, str]]) -> Events:
        if raw is msgspec.UNSET:
            return Events.empty()
        texts, ids, names = msgspec.structs.astuple(raw)
        if not self._even(table, texts, {"machineID": ids, CODE_COLUMN[table]: names}, faults):
            return Events.empty()
        code = _codes(f"/{table}/{CODE_COLUMN[table]}", names, self._codes[table], faults)
        time, machine = _times(table, texts, faults), _machine_ids(table, ids, faults)
        if faults:
            return Events.empty()
        return Events(machine, time, code) if _in_order(machine, time, code) else Events.of(machine, time, code)

    def _machines(self, raw: Any, faults: list[dict[str, str]]) -> tuple[Int64, Int16, Float64]:
        if raw is msgspec.UNSET:
            return _NO_MACHINES
        ids, models, ages = msgspec.structs.astuple(raw)
        if not self._even("machines", ids, {"model": models, "age": ages}, faults, "machineID"):
            return _NO_MACHINES
        model = _codes("/machines/model", models, self._models, faults)
        age = np.array(ages, np.float64)
        if (age < 0).any():
            row = int(np.argmax(age < 0))
            _fault(faults, f"/machines/age/{row}", "below 0: give the machine's age in years")
        machine = _machine_ids("machines", ids, faults)
        if faults or len(ids) < 2:
            return machine, model, age
        order = np.argsort(machine, kind="stable")
        again = np.flatnonzero(np.diff(machine[order]) == 0)
        if len(again):
            row = int(order[again[0] + 1])
            _fault(faults, f"/machines/machineID/{row}", f"machine {ids[row]} occurs twice: describe each machine once")
        return machine[order], model[order], age[order]

    def _even(
        self, table: str, first: list, others: dict[str, list], faults: list[dict[str, str]], key: str = "datetime"
    ) -> bool:
        """Say which columns are not as long as the first, and whether there are too many rows."""
        rows, known = len(first), len(faults)
        if rows > self._max_rows:
            _fault(faults, f"/{table}", f"{rows} rows, at most {self._max_rows}: send smaller batches")
        for name, column in others.items():
            if len(column) != rows:
                detail = f"{len(column)} values, but {key} has {rows}: give every column one value a row"
                _fault(faults, f"/{table}/{_escape(name)}", detail)
        return len(faults) == known

    def _mistyped(self, message: str) -> RequestError:
        """The refusal for msgspec's ``Expected `int`, got `str` - at `$.telemetry.machineID[3]```."""
        what, _, where = message.partition(" - at `$")
        where = where.rstrip("`")
        table, _, rest = where.lstrip(".").partition(".")
        column, bracket, row = rest.rpartition("[") if rest.endswith("]") else (rest, "", "")
        pointer = "".join(f"/{_escape(part)}" for part in (table, column, row.rstrip("]")) if part)
        if what.startswith("Object contains unknown field"):
            columns = ["telemetry", *_EVENT_TABLES, "machines"] if not table else list(_columns(self._schema)[table])
            return _refusal(pointer, f"unknown name {_clip(what[30:].strip('`'))}: leave it out; known are {columns}")
        if what.startswith("Object missing required field"):
            return _refusal(pointer, f"{what[30:].strip('`')!r} is missing: add it")
        if bracket and column in self._schema.sensors:
            return _refusal(pointer, f"{what}: {_NUMBERS}")
        return _refusal(pointer, f"{what}: see the request's schema at /docs")


def openapi(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of a request, with an example that can be sent as it is."""

    def column(items: dict[str, Any], example: list) -> dict[str, Any]:
        return {"type": "array", "items": items, "examples": [example]}

    def table(title: str, columns: dict[str, Any], fewest: int = 0) -> dict[str, Any]:
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

    def time(*examples: str) -> dict[str, Any]:
        return column({"type": "string", "format": "date-time"}, list(examples))

    def ids(count: int) -> dict[str, Any]:
        return column({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, [1] * count)

    def names(known: tuple[str, ...]) -> dict[str, Any]:
        return column({"type": "string", "enum": list(known)}, list(known[:1]))

    latest = 1_420_351_200_000_000  # 2015-01-04T06:00:00Z
    rows = rfc3339.to_text(latest - schema.period_us), rfc3339.to_text(latest)
    readings = {
        name: column({"type": ["number", "null"]}, [round(low + (high - low) * part, 1) for part in (0.42, 0.43)])
        for name, (low, high) in zip(schema.sensors, schema.ranges, strict=True)
    }
    tables = {"telemetry": table("Readings.", {"datetime": time(*rows), "machineID": ids(2), **readings}, 1)}
    if schema.errors:
        columns = {"datetime": time("2015-01-03T07:00:00Z"), "machineID": ids(1), "errorID": names(schema.errors)}
        tables["errors"] = table("Errors of the history.", columns)
    if schema.components:
        columns = {"datetime": time("2014-12-13T06:00:00Z"), "machineID": ids(1), "comp": names(schema.components)}
        tables["maint"] = table("The last replacement of each component, however old.", columns)
    if schema.models:
        age = column({"type": "number", "minimum": 0}, [18.0])
        tables["machines"] = table(
            "What the machines are.", {"machineID": ids(1), "model": names(schema.models), "age": age}
        )
    return {
        "type": "object",
        "description": "A slice of the fleet's tables. Times are RFC 3339, UTC where there is no offset.",
        "properties": tables,
        "required": ["telemetry"],
        "additionalProperties": False,
        "examples": [{name: properties["examples"][0] for name, properties in tables.items()}],
    }


@lru_cache(maxsize=8)
def _decoder(schema: Schema, max_rows: int) -> Decoder:
    return Decoder(schema, max_rows)


def _columns(schema: Schema) -> dict[str, dict[str, Any]]:
    """The type of each column of each table."""
    event = {"datetime": list[str], "machineID": list[int]}
    return {
        "telemetry": {**event, **dict.fromkeys(schema.sensors, list[float | None])},
        "errors": {**event, "errorID": list[str]},
        "maint": {**event, "comp": list[str]},
        "machines": {"machineID": list[int], "model": list[str], "age": list[float]},
    }


def _request_type(schema: Schema) -> type[msgspec.Struct]:
    def table_type(table: str, columns: dict[str, Any]) -> type[msgspec.Struct]:
        fields = [(f"column_{i}", kind) for i, kind in enumerate(columns.values())]  # a sensor's name may be any text
        rename = dict(zip((name for name, _ in fields), columns, strict=True))
        return msgspec.defstruct(table, fields, rename=rename, forbid_unknown_fields=True)

    tables = {table: table_type(table, columns) for table, columns in _columns(schema).items()}
    optional = [(name, tables[name] | msgspec.UnsetType, msgspec.UNSET) for name in (*_EVENT_TABLES, "machines")]
    return msgspec.defstruct("Request", [("telemetry", tables["telemetry"]), *optional], forbid_unknown_fields=True)


def _times(table: str, texts: list[str], faults: list[dict[str, str]]) -> Int64:
    times, bad = rfc3339.parse(texts)
    if bad >= 0:
        detail = f"{_clip(texts[bad])} is no time: write it as 2015-01-04T06:00:00Z, to the microsecond at most"
        _fault(faults, f"/{table}/datetime/{bad}", detail)
    return times


def _machine_ids(table: str, ids: list[int], faults: list[dict[str, str]]) -> Int64:
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        row = next(i for i, number in enumerate(ids) if not -(2**63) <= number < 2**63)
        _fault(faults, f"/{table}/machineID/{row}", "does not fit in 64 bits: give the machine a smaller number")
        return np.zeros(len(ids), np.int64)


def _codes(pointer: str, names: list[str], known: dict[str, int], faults: list[dict[str, str]]) -> Int16:
    codes = [known.get(name, -1) for name in names]
    if -1 in codes:
        row = codes.index(-1)
        _fault(faults, f"{pointer}/{row}", f"unknown name {_clip(names[row])}: known are {list(known)}")
    return np.array(codes, np.int16)


@njit(cache=True, nogil=True)
def _in_order(machine: Int64, time: Int64, code: Int16) -> bool:
    """Whether (machine, time, code if any) strictly increases: then it is sorted, and no key occurs twice."""
    for i in range(1, len(machine)):
        if machine[i] != machine[i - 1]:
            rises = machine[i] > machine[i - 1]
        elif time[i] != time[i - 1]:
            rises = time[i] > time[i - 1]
        else:
            rises = len(code) > 0 and code[i] > code[i - 1]
        if not rises:
            return False
    return True


def _refuse_repeated_names(body: bytes, raw: Any) -> None:
    """Refuse an object that has a name twice, where msgspec would silently take the last.

    A body whose quotes are just those of the strings that were decoded repeats nothing; any other is looked at.
    """
    strings = 0
    for table, texts in ((raw.telemetry, 1), (raw.errors, 2), (raw.maint, 2), (raw.machines, 1)):
        if table is not msgspec.UNSET:
            strings += 1 + len(table.__struct_fields__) + texts * len(table.column_0)
    if body.count(b'"') == 2 * strings:
        return
    whole = json.loads(body, object_pairs_hook=list)
    for pointer, pairs in [("", whole), *((f"/{_escape(name)}", pairs) for name, pairs in whole)]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _refusal(f"{pointer}/{_escape(name)}", "occurs twice in one object: give each name once")
            seen.add(name)


def _syntax_detail(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "the body is empty: send a JSON object with telemetry"
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "the body starts with a byte order mark: send plain UTF-8"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start} is not UTF-8: send the body as UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply: a request is an object of objects of arrays"
    message = str(error)
    position = message.rpartition("(byte ")[2].rstrip(")")
    near = body[int(position) : int(position) + 9] if position.isdigit() else b""
    if near.lstrip(b"-").startswith((b"NaN", b"nan", b"Inf", b"inf")):
        return f"NaN and Infinity are no JSON (byte {position}): {_NUMBERS}"
    return f"{message}: send one JSON object"


def _refusal(pointer: str, detail: str, *, syntax: bool = False) -> RequestError:
    return RequestError([{"pointer": pointer, "detail": detail}], syntax=syntax)


def _fault(faults: list[dict[str, str]], pointer: str, detail: str) -> None:
    faults.append({"pointer": pointer, "detail": detail})


def _escape(name: str) -> str:
    """One step of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _clip(text: str) -> str:
    """The text as a caller may see it again: short, whatever was sent."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")
