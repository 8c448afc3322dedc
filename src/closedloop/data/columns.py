"""What the decoders of JSON columns share: texts become numbers, and each fault gets a pointer and a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from time import time_ns
from typing import Any

import msgspec
import numpy as np
from numba import njit

from closedloop.data import machines, rfc3339
from closedloop.data.machines import clip
from closedloop.data.schema import CODE_COLUMN, HOUR_US, MAX_AHEAD_US, DataError, Events, Int16, Int64

Columns = dict[str, dict[str, Any]]  # the type of each column of each table
Faults = list[dict[str, str]]
NUMBERS = "write plain numbers, and null for a missing reading"
_NUMBER_AS_TEXT = re.compile(r"Expected `int(?: \| null)?`, got `str` - at `\$\..*\.?machineID\[\d+\]`$")
_WITHIN = "retracted"  # the object in feedback that has tables of its own
_raw_tables = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_raw_table = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_ids = msgspec.json.Decoder(list[int | str | None])


class RequestError(DataError):
    """The request was refused.

    ``errors`` lists the faults as ``{"pointer": <JSON Pointer>, "detail": <what is wrong, and how to fix it>}``;
    ``syntax`` says that the body is not JSON.
    """

    def __init__(self, errors: Faults, *, syntax: bool = False) -> None:
        super().__init__("; ".join(f"{error['pointer'] or '/'}: {error['detail']}" for error in errors))
        self.errors = errors
        self.syntax = syntax


def times(table: str, texts: list[str], faults: Faults, max_ahead_us: int = MAX_AHEAD_US) -> Int64:
    """A table's ``datetime`` column in microseconds UTC. Notes a fault at the first text that is no plausible time.

    A time is plausible from 1970 to ``max_ahead_us`` after this machine's clock. A year 9999 would decide where the
    data is split.
    """
    parsed, bad = rfc3339.parse(texts)
    if bad >= 0:
        detail = f"{clip(texts[bad])} is not a time: write it as 2015-01-04T06:00:00Z, to the microsecond at most"
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


class MachineNames:
    """The machines that a body names in some columns. A machine's code is its position among the sorted ``names``."""

    def __init__(self, columns: Iterable[list[str]]) -> None:
        self.names = machines.names_in(columns)
        self._code = {name: code for code, name in enumerate(self.names)}
        self._wrong = {name: why for name in self.names if (why := machines.fault_of(name)) is not None}

    def check(self, table: str, ids: list[Any], faults: Faults) -> None:
        """Note a fault at the first name of a column that no machine can have."""
        if self._wrong and (row := next((i for i, name in enumerate(ids) if name in self._wrong), None)) is not None:
            fault(faults, f"/{table}/machineID/{row}", f"{clip(ids[row])} {self._wrong[ids[row]]}")

    def codes(self, table: str, ids: list[str], faults: Faults) -> Int64:
        """The codes of a column, which is checked."""
        self.check(table, ids, faults)
        if len(self.names) == 1:
            return np.zeros(len(ids), np.int64)
        code = self._code
        return np.array([code[name] for name in ids], np.int64)


def machine_ids(table: str, ids: list[Any], faults: Faults, names: MachineNames | None = None) -> Int64:
    """The ids as int64, or their codes where machines have names. Notes a fault at the first id that cannot be one."""
    if names is not None:
        return names.codes(table, ids, faults)
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        row = next(i for i, number in enumerate(ids) if not -(2**63) <= number < 2**63)
        fault(faults, f"/{table}/machineID/{row}", "does not fit in 64 bits: give the machine a smaller number")
        return np.zeros(len(ids), np.int64)


def codes(pointer: str, names: list[str], known: dict[str, int], faults: Faults) -> Int16:
    """The index of each name among the known ones. Notes a fault at the first unknown name."""
    indices = [known.get(name, -1) for name in names]
    if -1 in indices:
        row = indices.index(-1)
        fault(faults, f"{pointer}/{row}", f"unknown name {clip(names[row])}: known are {list(known)}")
    return np.array(indices, np.int16)


def events(
    table: str,
    sent: Any,
    known: dict[str, int],
    faults: Faults,
    max_rows: int,
    max_ahead_us: int = MAX_AHEAD_US,
    names: MachineNames | None = None,
    within: str = "",
) -> Events:
    """A table of events, sorted, without repeated rows. It is empty if it was not sent or has a fault.

    ``names`` are the machines of the body, None where machines have numbers. ``within`` comes before the table's name
    in pointers, for a table that is part of another object.
    """
    if sent is msgspec.UNSET:
        return Events.empty()
    columns = texts, ids, sent_codes = msgspec.structs.astuple(sent)[:3]
    where, column = within + table, CODE_COLUMN[table]
    if not even(where, ("datetime", "machineID", column), columns, faults, max_rows) or not texts:
        return Events.empty()
    code = codes(f"/{where}/{column}", sent_codes, known, faults)
    time, machine = times(where, texts, faults, max_ahead_us), machine_ids(where, ids, faults, names)
    if faults:
        return Events.empty()
    return Events(machine, time, code) if in_order(machine, time, code) else Events.of(machine, time, code)


@njit(cache=True, nogil=True)
def in_order(machine: Int64, time: Int64, code: Int16) -> bool:
    """Whether (machine, time, code if any) strictly increases, so that rows are sorted and no key occurs twice."""
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
    """The body decoded, with only its types checked, and the body in bytes.

    Where machines have numbers, a body that has them as text is decoded as if it had numbers, and so it is returned:
    what is logged of it has one form.

    Raises:
        RequestError: the body is not JSON, or a value has the wrong type.
    """
    if isinstance(body, str):
        try:
            body = body.encode()
        except UnicodeEncodeError as error:
            detail = f"a lone surrogate at character {error.start}: send valid Unicode text"
            raise refusal("", detail, syntax=True) from None
    try:
        return decoder.decode(body), body
    except msgspec.ValidationError as error:
        if _NUMBER_AS_TEXT.match(str(error)) and (plain := _with_numbers(body)) is not None:
            return parse(decoder, plain, schema_columns)
        raise _mistyped(str(error), schema_columns) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal("", _syntax_detail(body, error), syntax=True) from None


def _with_numbers(body: bytes) -> bytes | None:
    """The body with numbers where it has machines as text, such as ``"12"``; None where it has another fault.

    Raises:
        RequestError: a text is no number, or an object has a name twice, which could not be told afterwards.
    """
    try:
        tables = _raw_tables.decode(body)
        within = {name: _raw_table.decode(raw) for name, raw in tables.get(_WITHIN, {}).items()}
        texts = sum(_to_numbers(f"/{name}", table) for name, table in tables.items())
        texts += sum(_to_numbers(f"/{_WITHIN}/{name}", table) for name, table in within.items())
    except (msgspec.MsgspecError, RecursionError):
        return None
    if within:
        tables[_WITHIN] = {name: msgspec.Raw(msgspec.json.encode(table)) for name, table in within.items()}
    plain = msgspec.json.encode(tables)
    if body.count(b'"') != plain.count(b'"') + 2 * texts:
        _refuse_repeated("", json.loads(body, object_pairs_hook=list))
    return plain


def _to_numbers(pointer: str, table: dict[str, msgspec.Raw]) -> int:
    """Write the machines of a table as numbers; return how many were texts."""
    if "machineID" not in table:
        return 0
    ids = _any_ids.decode(table["machineID"])
    numbers = [machines.whole(found) if isinstance(found, str) else found for found in ids]
    for row, (found, number) in enumerate(zip(ids, numbers, strict=True)):
        if number is None and found is not None:
            detail = f"{clip(str(found))} is no whole number of 64 bits: machines have numbers here"
            raise refusal(f"{pointer}/machineID/{row}", detail)
    table["machineID"] = msgspec.Raw(msgspec.json.encode(numbers))
    return sum(isinstance(found, str) for found in ids)


def table_type(table: str, columns: dict[str, Any], optional: frozenset[str] = frozenset()) -> type[msgspec.Struct]:
    """A msgspec struct of columns. A column may have any name, so the fields are named ``column_0`` and so on.

    The ``optional`` columns are the last ones; they are UNSET where they were not sent.
    """
    fields: list[Any] = []
    for i, (column, kind) in enumerate(columns.items()):
        field = (f"column_{i}", kind)
        fields.append((field[0], kind | msgspec.UnsetType, msgspec.UNSET) if column in optional else field)
    rename = {f"column_{i}": column for i, column in enumerate(columns)}
    return msgspec.defstruct(table, fields, rename=rename, forbid_unknown_fields=True)


def even(table: str, names: tuple[str, ...], columns: tuple[list, ...], faults: Faults, max_rows: int) -> bool:
    """Whether all columns are as long as the first and no longer than ``max_rows``. Notes a fault for each other."""
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


def refuse_repeated_names(body: bytes, tables: list[tuple[Any, int]], strings: int = 0) -> None:
    """Raise RequestError where an object has a name twice. msgspec would silently take the last value.

    ``tables`` are the decoded tables, each with the number of its text columns; ``strings`` counts the strings outside
    of them. The check is cheap in the usual case: if the body has exactly the quotes of the decoded strings, no name is
    repeated. Any other body is parsed again.
    """
    for table, texts in tables:
        if table is not msgspec.UNSET:
            strings += 1 + len(table.__struct_fields__) + texts * len(table.column_0)
    if body.count(b'"') != 2 * strings:
        _refuse_repeated("", json.loads(body, object_pairs_hook=list))


def _refuse_repeated(pointer: str, found: Any) -> None:
    """Refuse a repeated name in an object, or in one within it. Objects are lists of pairs."""
    if not isinstance(found, list) or not found or not isinstance(found[0], tuple):
        return
    seen: set[str] = set()
    for name, value in found:
        where = f"{pointer}/{escape(name)}"
        if name in seen:
            raise refusal(where, "occurs twice in one object: give each name once")
        seen.add(name)
        _refuse_repeated(where, value)


def _mistyped(message: str, columns: Columns) -> RequestError:
    """The refusal that corresponds to msgspec's ``Expected `int`, got `str` - at `$.telemetry.machineID[3]```."""
    what, _, where = message.partition(" - at `$")
    where = where.removesuffix("`")
    table, _, rest = where.lstrip(".").partition(".")
    within, known_columns = [table], columns.get(table, {})
    while isinstance(inner := known_columns.get(rest.partition(".")[0]), dict):  # a table in an object of tables
        name, _, rest = rest.partition(".")
        within, known_columns = [*within, name], inner
    of_row = rest.endswith("]") and rest not in known_columns  # a name may end so: Temp [°C]
    column, bracket, row = rest.rpartition("[") if of_row else (rest, "", "")
    pointer = "".join(f"/{escape(part)}" for part in (*within, column, row.rstrip("]")) if part)
    if what.startswith("Object contains unknown field"):
        known = list(known_columns) if table else list(columns)
        return refusal(pointer, f"unknown name {clip(what[30:].strip('`'))}: leave it out; known are {known}")
    if what.startswith("Object missing required field"):
        return refusal(pointer, f"{what[30:].strip('`')!r} is missing: add it")
    if bracket and column == "machineID":
        return refusal(pointer, _no_machine(what, known_columns.get(column)))
    if bracket and known_columns.get(column) == list[float | None]:
        return refusal(pointer, f"{what}: {NUMBERS}")
    if what == "Expected `object`, got `array`":
        form = (
            f"send columns, not rows, as {_form(known_columns or columns)}; to_dict('list') of a pandas frame is that"
        )
        return refusal(pointer, f"{what}: {form}")
    if what.startswith("Expected `array`") and column in known_columns:
        return refusal(pointer, f"{what}: a column is a list with one value for each row, write […]")
    return refusal(pointer, f"{what}: see the request's schema at /docs")


def _form(kinds: dict[str, Any]) -> str:
    """How an object of these columns is written, or one of tables of columns."""
    name, kind = next(iter(kinds.items()))
    if isinstance(kind, dict):
        return f"{{{json.dumps(name, ensure_ascii=False)}: {_form(kind)}}}"
    columns = [f"{json.dumps(name, ensure_ascii=False)}: […]" for name in list(kinds)[:3]]
    return f"{{{', '.join([*columns, '…'] if len(kinds) > 3 else columns)}}}"


def _no_machine(what: str, kind: Any) -> str:
    """Why a value is no machine, where numbers or names are expected."""
    if kind in (list[str], list[str | None]):
        return f"{what}: machines have names here, write them in quotes as the fleet's files do"
    return f"{what}: machines have numbers here, write whole numbers"


def _syntax_detail(body: bytes, error: Exception) -> str:
    """Why a body is not JSON, and how to fix it."""
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
        return f"NaN and Infinity are not JSON (byte {position}): {NUMBERS}"
    return f"{message}: send one JSON object"


def refusal(pointer: str, detail: str, *, syntax: bool = False) -> RequestError:
    """The error for a body with one fault."""
    return RequestError([{"pointer": pointer, "detail": detail}], syntax=syntax)


def fault(faults: Faults, pointer: str, detail: str) -> None:
    """Add a fault to the list."""
    faults.append({"pointer": pointer, "detail": detail})


def escape(name: str) -> str:
    """The name as one step of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def shown(machine: int | str) -> str:
    """A machine as an error names it."""
    return clip(machine) if isinstance(machine, str) else str(machine)
