"""What the decoders of JSON columns share: texts to numbers, and each fault with a pointer to it and its mend."""

from __future__ import annotations

import json
from time import time_ns
from typing import Any

import msgspec
import numpy as np
from numba import njit

from closedloop.data import rfc3339
from closedloop.data.schema import CODE_COLUMN, HOUR_US, MAX_AHEAD_US, DataError, Events, Int16, Int64

Columns = dict[str, dict[str, Any]]  # the type of each column of each table
Faults = list[dict[str, str]]
NUMBERS = "write plain numbers, and null for a missing reading"


class RequestError(DataError):
    """The request was refused.

    ``errors`` lists the faults as ``{"pointer": <JSON Pointer>, "detail": <what, and how to mend it>}``; ``syntax``
    says that the body is not even JSON.
    """

    def __init__(self, errors: Faults, *, syntax: bool = False) -> None:
        super().__init__("; ".join(f"{error['pointer'] or '/'}: {error['detail']}" for error in errors))
        self.errors = errors
        self.syntax = syntax


def times(table: str, texts: list[str], faults: Faults, max_ahead_us: int = MAX_AHEAD_US) -> Int64:
    """Microseconds UTC of a table's ``datetime`` column; names the first text that is none, or is not plausible.

    A time is plausible from 1970 to ``max_ahead_us`` after this machine's clock: one of the year 9999 would decide
    where the data is split.
    """
    parsed, bad = rfc3339.parse(texts)
    if bad >= 0:
        detail = f"{clip(texts[bad])} is no time: write it as 2015-01-04T06:00:00Z, to the microsecond at most"
        fault(faults, f"/{table}/datetime/{bad}", detail)
        return parsed
    now = time_ns() // 1000
    row = _first_outside(parsed, now + max_ahead_us)
    if row >= 0:
        what = "before 1970" if parsed[row] < 0 else f"more than {max_ahead_us / HOUR_US:g} hours ahead of the clock"
        here = rfc3339.to_text(now // 1_000_000 * 1_000_000)
        detail = f"{clip(texts[row])} is {what} (here it is {here}): correct the sender's clock or the time's form"
        fault(faults, f"/{table}/datetime/{row}", detail)
    return parsed


@njit(cache=True, nogil=True)
def _first_outside(times: Int64, last: int) -> int:
    """The index of the first time that is before 1970 or after ``last``, or -1."""
    for row in range(len(times)):
        if times[row] < 0 or times[row] > last:
            return row
    return -1


def machine_ids(table: str, ids: list[int], faults: Faults) -> Int64:
    """The ids as int64; names the first that does not fit."""
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        row = next(i for i, number in enumerate(ids) if not -(2**63) <= number < 2**63)
        fault(faults, f"/{table}/machineID/{row}", "does not fit in 64 bits: give the machine a smaller number")
        return np.zeros(len(ids), np.int64)


def codes(pointer: str, names: list[str], known: dict[str, int], faults: Faults) -> Int16:
    """The index of each name among the known ones; names the first that is unknown."""
    indices = [known.get(name, -1) for name in names]
    if -1 in indices:
        row = indices.index(-1)
        fault(faults, f"{pointer}/{row}", f"unknown name {clip(names[row])}: known are {list(known)}")
    return np.array(indices, np.int16)


def events(
    table: str, sent: Any, known: dict[str, int], faults: Faults, max_rows: int, max_ahead_us: int = MAX_AHEAD_US
) -> Events:
    """A table of events, sorted, exact repetitions dropped; empty where it was not sent, or has a fault."""
    if sent is msgspec.UNSET:
        return Events.empty()
    columns = texts, ids, names = msgspec.structs.astuple(sent)
    if not even(table, ("datetime", "machineID", CODE_COLUMN[table]), columns, faults, max_rows) or not texts:
        return Events.empty()
    code = codes(f"/{table}/{CODE_COLUMN[table]}", names, known, faults)
    time, machine = times(table, texts, faults, max_ahead_us), machine_ids(table, ids, faults)
    if faults:
        return Events.empty()
    return Events(machine, time, code) if in_order(machine, time, code) else Events.of(machine, time, code)


@njit(cache=True, nogil=True)
def in_order(machine: Int64, time: Int64, code: Int16) -> bool:
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


def parse(decoder: msgspec.json.Decoder[Any], body: bytes | str, schema_columns: Columns) -> tuple[Any, bytes]:
    """The body as the decoder's type, unchecked yet beyond its types; and the body in bytes.

    Raises:
        RequestError: the body is no JSON, or of other types.
    """
    if isinstance(body, str):
        try:
            body = body.encode()
        except UnicodeEncodeError as error:
            detail = f"a lone surrogate at character {error.start}: it is no Unicode text"
            raise refusal("", detail, syntax=True) from None
    try:
        return decoder.decode(body), body
    except msgspec.ValidationError as error:
        raise _mistyped(str(error), schema_columns) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal("", _syntax_detail(body, error), syntax=True) from None


def table_type(table: str, columns: dict[str, Any]) -> type[msgspec.Struct]:
    """A struct of columns; a column's name may be any text, so its fields are ``column_0`` and so on."""
    fields = [(f"column_{i}", kind) for i, kind in enumerate(columns.values())]
    rename = dict(zip((name for name, _ in fields), columns, strict=True))
    return msgspec.defstruct(table, fields, rename=rename, forbid_unknown_fields=True)


def even(table: str, names: tuple[str, ...], columns: tuple[list, ...], faults: Faults, max_rows: int) -> bool:
    """Whether all columns are as long as the first and no longer than ``max_rows``; says which are not."""
    rows = len(columns[0])
    if rows <= max_rows and {*map(len, columns)} == {rows}:
        return True
    if rows > max_rows:
        fault(faults, f"/{table}", f"{rows} rows, at most {max_rows}: send smaller batches")
    for name, column in zip(names, columns, strict=True):
        if len(column) != rows:
            detail = f"{len(column)} values, but {names[0]} has {rows}: give every column one value a row"
            fault(faults, f"/{table}/{escape(name)}", detail)
    return False


def refuse_repeated_names(body: bytes, tables: list[tuple[Any, int]]) -> None:
    """Refuse an object that has a name twice, where msgspec would silently take the last.

    ``tables`` are the decoded ones, each with the number of its columns that hold text. A body whose quotes are just
    those of the strings that were decoded repeats nothing; any other is looked at.
    """
    strings = 0
    for table, texts in tables:
        if table is not msgspec.UNSET:
            strings += 1 + len(table.__struct_fields__) + texts * len(table.column_0)
    if body.count(b'"') == 2 * strings:
        return
    whole = json.loads(body, object_pairs_hook=list)
    for pointer, pairs in [("", whole), *((f"/{escape(name)}", pairs) for name, pairs in whole)]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise refusal(f"{pointer}/{escape(name)}", "occurs twice in one object: give each name once")
            seen.add(name)


def _mistyped(message: str, columns: Columns) -> RequestError:
    """The refusal for msgspec's ``Expected `int`, got `str` - at `$.telemetry.machineID[3]```."""
    what, _, where = message.partition(" - at `$")
    where = where.rstrip("`")
    table, _, rest = where.lstrip(".").partition(".")
    column, bracket, row = rest.rpartition("[") if rest.endswith("]") else (rest, "", "")
    pointer = "".join(f"/{escape(part)}" for part in (table, column, row.rstrip("]")) if part)
    if what.startswith("Object contains unknown field"):
        known = list(columns[table]) if table else list(columns)
        return refusal(pointer, f"unknown name {clip(what[30:].strip('`'))}: leave it out; known are {known}")
    if what.startswith("Object missing required field"):
        return refusal(pointer, f"{what[30:].strip('`')!r} is missing: add it")
    if bracket and columns.get(table, {}).get(column) == list[float | None]:
        return refusal(pointer, f"{what}: {NUMBERS}")
    return refusal(pointer, f"{what}: see the request's schema at /docs")


def _syntax_detail(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "the body is empty: send one JSON object"
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
        return f"NaN and Infinity are no JSON (byte {position}): {NUMBERS}"
    return f"{message}: send one JSON object"


def refusal(pointer: str, detail: str, *, syntax: bool = False) -> RequestError:
    """The refusal of a body with one fault."""
    return RequestError([{"pointer": pointer, "detail": detail}], syntax=syntax)


def fault(faults: Faults, pointer: str, detail: str) -> None:
    """Note a fault."""
    faults.append({"pointer": pointer, "detail": detail})


def escape(name: str) -> str:
    """One step of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def clip(text: str) -> str:
    """The text as a caller may see it again: short, whatever was sent."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")
