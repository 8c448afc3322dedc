"""The bodies of a record, request and answer, as columns of Python values; whatever is no column of ours is refused.

A body is decoded in one pass into lists of the right types. A long one is decoded twice, column by column and result by
result: first to check it, then to use it, so that memory is that of its longest column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec

LONG_BYTES = 1 << 20  # a longer body is decoded piece by piece
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_KNOWN_TIMES = 1 << 15
_SHAPES = 16

Buffer = bytes | memoryview
Values = list[Any]
Table = dict[str, "Values | msgspec.Raw"]  # by column; Raw is JSON that was checked and is not decoded yet

_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_READINGS = list[float | None]
_KINDS: dict[str, Any] = {
    "datetime": list[str],
    "age": _READINGS,
    "model": list[str | None],
    **dict.fromkeys(("errorID", "comp", "failure"), list[str]),
    "finding": list[str | None],
}
_MACHINES = {False: list[_Whole], True: list[str]}  # by whether machines have names
_ANY_MACHINES = {False: list[_Whole | None], True: list[str | None]}  # where null stands for every machine
_MAINT, _FAILURES = ("datetime", "machineID", "comp"), ("datetime", "machineID", "failure")
_COLUMNS = {
    "telemetry": ("datetime", "machineID"),
    "errors": ("datetime", "machineID", "errorID"),
    "maint": _MAINT,
    "failures": _FAILURES,
    "machines": ("machineID", "model", "age"),
    "retracted_failures": _FAILURES,
    "retracted_maint": _MAINT,
    "complete_until": ("datetime", "machineID"),
}
_FINDING = "finding"  # an optional column of maint
_RETRACTED = "retracted"  # in a body, the object whose tables are ours with this and _ before their names
_decoders = {column: msgspec.json.Decoder(kind) for column, kind in _KINDS.items()}
_machines = {names: msgspec.json.Decoder(kind) for names, kind in _MACHINES.items()}
_any_machines = {names: msgspec.json.Decoder(kind) for names, kind in _ANY_MACHINES.items()}
_readings: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_READINGS)
_columns = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_raw_table = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RecordError(ValueError):
    """A record that this version cannot turn into a row."""


class _Times(dict[str, int]):
    """Microseconds UTC by RFC 3339 text, as the service accepts it. A fleet reports at the same hours.

    The compiled parser of ``data/rfc3339.py`` would do, but numba alone takes 100 MB of a shipper's memory. A test
    holds the two to each other.
    """

    def __missing__(self, text: str) -> int:
        try:
            time = datetime.fromisoformat(text.upper())
            found: int = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
        except ValueError:
            raise RecordError(f"with {text[:40]!a}, which is no time") from None
        if len(self) >= _KNOWN_TIMES:
            self.clear()
        self[text] = found
        return found


_times = _Times()


class Anomaly(msgspec.Struct):
    """The anomaly head's part of a result."""

    score: float | None
    alarm: bool


class Failure(msgspec.Struct):
    """A failure head's part of a result."""

    probability: float | None
    alarm: bool


class Result(msgspec.Struct):
    """The answer for one machine."""

    machineID: _Whole | str  # noqa: N815 - the data's own name
    datetime: str
    anomaly: Anomaly | None
    failure: dict[str, Failure | None]
    warnings: list[str]

    @property
    def time_us(self) -> int:
        """When, in microseconds UTC."""
        return _times[self.datetime]


class _Answer(msgspec.Struct):
    results: list[Result]


class _LongAnswer(msgspec.Struct):
    results: list[msgspec.Raw]


_answer = msgspec.json.Decoder(_Answer)
_long_answer = msgspec.json.Decoder(_LongAnswer)
_result = msgspec.json.Decoder(Result)


class _LongResults:
    """The results of a long answer, each decoded when its turn comes."""

    def __init__(self, raws: list[msgspec.Raw]) -> None:
        self._raws = raws

    def __iter__(self) -> Iterator[Result]:
        return map(_result.decode, self._raws)


def results_of(answer: Buffer) -> Iterable[Result] | None:
    """The results of an answer; None where the answer was not to be kept.

    Raises:
        msgspec.DecodeError, RecordError: it is no answer of ours.
    """
    if not answer:
        return None
    found: Iterable[Result]
    if len(answer) > LONG_BYTES:
        found = _LongResults(_long_answer.decode(answer).results)
    else:
        found = _answer.decode(answer).results
    for result in found:
        result.time_us  # noqa: B018 - refused here, not when half of it is in the columns
    return found


def tables_of(body: Buffer, known: tuple[str, ...]) -> dict[str, Table]:
    """The tables of a body by name; an empty body has none. Times are microseconds UTC.

    Raises:
        msgspec.DecodeError, RecordError: a table, a column or a value that is none of ours.
    """
    if not body:
        return {}
    if len(body) > LONG_BYTES:
        return _piecewise(body, known, keep=False)
    found = _shapes.decode(body, known)
    return _piecewise(body, known, keep=True) if found is None else found


def values_of(table: str, column: str, found: Values | msgspec.Raw) -> Values:
    """The values of a column that :func:`tables_of` has checked."""
    if isinstance(found, list):
        return found
    if table == "telemetry" and column not in _COLUMNS[table]:
        return _readings.decode(found)
    if column == "machineID":
        return (_any_machines if table == "complete_until" else _machines)[_is_text(found)].decode(found)
    if column not in _decoders:
        raise RecordError(f"with a column {table}.{column}, which this version does not know")
    values = _decoders[column].decode(found)
    return [_times[text] for text in values] if column == "datetime" else values


def has_names(machines: Values) -> bool:
    """Whether a column of machines holds names, and not numbers."""
    return isinstance(next((machine for machine in machines if machine is not None), None), str)


def _is_text(column: msgspec.Raw) -> bool:
    return b'"' in bytes(column)


def _piecewise(body: Buffer, known: tuple[str, ...], *, keep: bool) -> dict[str, Table]:
    """Each column decoded for itself, and kept or decoded again when it is used."""
    found = _columns.decode(body)
    retracted = {f"{_RETRACTED}_{name}": _raw_table.decode(raw) for name, raw in found.pop(_RETRACTED, {}).items()}
    top = {name for name in known if not name.startswith(_RETRACTED)}
    if unknown := sorted((set(found) - top) | (set(retracted) - set(known))):
        raise RecordError(f"with a table {unknown[0]!r}, which this version does not know")
    tables: dict[str, Table] = {}
    for name, columns in {**found, **retracted}.items():
        lengths = set()
        tables[name] = {}
        for column, raw in columns.items():
            if name != "telemetry" and column not in _names(name, ()):
                raise RecordError(f"with a column {name}.{column}, which this version does not know")
            values = values_of(name, column, raw)
            lengths.add(len(values))
            tables[name][column] = values if keep else raw
        if len(lengths) > 1:
            raise RecordError(f"with columns of {name} that differ in length")
    return tables


class _Shape(NamedTuple):
    """The tables that a body may have, its sensors, and whether its machines have names."""

    known: tuple[str, ...]
    sensors: tuple[str, ...]
    names: bool


class _Shapes:
    """Decoders of whole bodies in one pass, the last used first.

    There is one for each set of tables and sensors, with numbers or names of machines, that was met.
    """

    def __init__(self) -> None:
        self._decoders: dict[_Shape, msgspec.json.Decoder[Any]] = {}

    def decode(self, body: Buffer, known: tuple[str, ...]) -> dict[str, Table] | None:
        """The tables, or None where something in the body is unusual; then it takes the long way."""
        for shape in [shape for shape in reversed(self._decoders) if shape.known == known]:
            try:
                found = self._decoders[shape].decode(body)
            except msgspec.ValidationError:
                continue
            self._decoders[shape] = self._decoders.pop(shape)
            return _lists(found, known, shape.sensors)
        shape = self._shape(body, known)
        if shape in self._decoders:
            return None
        self._decoders[shape] = msgspec.json.Decoder(_body_type(shape))
        if len(self._decoders) > _SHAPES:
            del self._decoders[next(iter(self._decoders))]
        return None

    @staticmethod
    def _shape(body: Buffer, known: tuple[str, ...]) -> _Shape:
        found = _columns.decode(body)
        sensors = tuple(column for column in found.get("telemetry", {}) if column not in _COLUMNS["telemetry"])
        tables = [*found.values(), *(_raw_table.decode(raw) for raw in found.get(_RETRACTED, {}).values())]
        return _Shape(known, sensors, any(_is_text(table["machineID"]) for table in tables if "machineID" in table))


_shapes = _Shapes()


def _body_type(shape: _Shape) -> type[msgspec.Struct]:
    """A struct of the known tables, each of which may be missing; a column's name may be any text."""
    known, sensors = shape.known, shape.sensors
    tables: list[tuple[str, Any, Any]] = []
    retracted: list[tuple[str, Any, Any]] = []
    for name in known:
        machines = _ANY_MACHINES if name == "complete_until" else _MACHINES
        kinds = {"machineID": machines[shape.names]} | {x: _KINDS[x] for x in _COLUMNS[name] if x in _KINDS}
        names = _names(name, sensors)
        fields: list[Any] = [(f"column_{i}", kinds.get(column, _READINGS)) for i, column in enumerate(names)]
        if name == "maint":
            fields[-1] = (fields[-1][0], _KINDS[_FINDING] | msgspec.UnsetType, msgspec.UNSET)
        rename = {f"column_{i}": column for i, column in enumerate(names)}
        table = msgspec.defstruct(name, fields, rename=rename, forbid_unknown_fields=True, gc=False)
        inner = name.removeprefix(_RETRACTED + "_")
        (tables if inner == name else retracted).append((inner, table | msgspec.UnsetType, msgspec.UNSET))
    if retracted:
        both = msgspec.defstruct(_RETRACTED, retracted, forbid_unknown_fields=True, gc=False)
        tables.append((_RETRACTED, both | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct("Body", tables, forbid_unknown_fields=True)


def _names(table: str, sensors: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that a table of a body may have."""
    if table == "telemetry":
        return _COLUMNS[table] + sensors
    return (*_COLUMNS[table], _FINDING) if table == "maint" else _COLUMNS[table]


def _lists(found: Any, known: tuple[str, ...], sensors: tuple[str, ...]) -> dict[str, Table]:
    """The columns of a decoded body, with times as numbers."""
    tables: dict[str, Table] = {}
    retracted = getattr(found, _RETRACTED, msgspec.UNSET)
    for name in known:
        inner = name.removeprefix(_RETRACTED + "_")
        struct = getattr(found if inner == name else retracted, inner, msgspec.UNSET)
        if struct is msgspec.UNSET:
            continue
        names = _names(name, sensors)
        table: Table = {
            column: values
            for column, values in zip(names, msgspec.structs.astuple(struct), strict=True)
            if values is not msgspec.UNSET
        }
        if len({*map(len, table.values())}) > 1:
            raise RecordError(f"with columns of {name} that differ in length")
        if "datetime" in table:
            table["datetime"] = [_times[text] for text in struct.column_0]
        tables[name] = table
    return tables
