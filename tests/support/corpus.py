"""Good and hostile requests of any fleet, of the same kinds as those of the reference fleet in tests/golden/requests.

Each is named by the status that it must get. What a schema cannot have is left out: a repeated error, where it has no
error codes. For the reference fleet they are the very bytes of the golden files (tests/data/test_corpus.py).
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from closedloop.data.schema import Schema

Body = dict[str, Any]
EXTREME_NUMBERS, EXTREME_NAMES = (-(2**63), 2**63 - 1), ("-", "泵" * 128)
START = datetime(2015, 1, 1, tzinfo=UTC)
HISTORY_ROWS = 72
TIMES = {  # a time that is refused, beside a good one
    "time-after-year-9999": "9999-12-31T23:59:59-00:01",
    "time-american": "01/04/2015 06:00",
    "time-before-1970": "1969-12-31T23:59:59.999999Z",
    "time-before-year-1": "0001-01-01T00:00:00+00:01",
    "time-date-only": "2015-01-04",
    "time-empty": "",
    "time-hour-24": "2015-01-04T24:00:00Z",
    "time-in-the-year-9999": "9999-12-31T23:59:59.999999Z",
    "time-infinity": "infinity",
    "time-leap-second": "2016-12-31T23:59:60Z",
    "time-line-break": "2015-01-04T06:00:00Z\n",
    "time-no-such-day": "2015-02-29T00:00:00Z",
    "time-now": "now",
    "time-nul": "2015-01-04T06:00:00\0",
    "time-null": None,
    "time-other-digits": "\uff12\uff1015-01-04T06:00:00Z",
    "time-seven-digits": "2015-01-04T06:00:00.1234567Z",
    "time-two-in-one": "2015-01-04T06:00:00Z\n2015-01-04T07:00:00Z",
    "time-year-0": "0000-01-01T00:00:00Z",
}
DEPTH = 6000
_EMPTY: Body = {
    "errors": {"datetime": [], "machineID": [], "errorID": []},
    "maint": {"datetime": [], "machineID": [], "comp": []},
    "machines": {"machineID": [], "model": [], "age": []},
}


def machine_id(schema: Schema, number: int) -> int | str:
    """A machine, as a request of this fleet names it. Every one of the corpus comes from here."""
    return f"machine-{number}" if schema.has_names else number


def corpus(schema: Schema, example: Body) -> dict[str, bytes]:
    """The bodies by name, ``STATUS-what-is-odd``, made from an example request with two rows of one machine."""
    made = dict(_good(schema, example))
    made |= {f"422-{name}": _bytes(body) for name, body in _refused(schema, example)}
    made |= {f"422-{name}": body for name, body in _odd_json(schema, example)}
    return made | {f"400-{name}": body for name, body in _no_json(schema, example)}


def _bytes(body: Any) -> bytes:
    return json.dumps(body).encode()


def _changed(example: Body, table: str, **columns: Any) -> Body:
    """The example with these columns of a table; a column of None is left out."""
    body = copy.deepcopy(example)
    for name, column in columns.items():
        body[table][name] = column
    return body


def _with_codes(schema: Schema, example: Body) -> Body:
    """The example with an error, also where the schema knows none: then it is refused, if it is read at all."""
    at, name = example["telemetry"]["datetime"][0], (*schema.errors, "error1")[0]
    errors = example.get("errors") or {"datetime": [at], "machineID": [machine_id(schema, 1)], "errorID": [name]}
    return {"telemetry": example["telemetry"], "errors": errors} | {k: v for k, v in example.items() if k != "errors"}


def _with_machine(schema: Schema, example: Body) -> Body:
    """The example with a described machine, also where the schema knows no model."""
    model = (*schema.models, "model1")[0]
    return copy.deepcopy(example) | {
        "machines": example.get("machines") or {"machineID": [machine_id(schema, 1)], "model": [model], "age": [18]}
    }


def _rows(schema: Schema, numbers: list[int], machine: int = 1) -> Body:
    """Telemetry of a machine in these sampling periods from START on, with readings inside the plausible range."""
    times = [(START + timedelta(minutes=schema.sampling_minutes * n)).strftime("%Y-%m-%dT%H:%M:%SZ") for n in numbers]
    readings = {
        sensor: [round(low + (high - low) * (0.4 + 0.03 * ((5 * n + s) % 7)), 4) for n in numbers]
        for s, (sensor, (low, high)) in enumerate(zip(schema.sensors, schema.ranges, strict=True))
    }
    return {"datetime": times, "machineID": [machine_id(schema, machine)] * len(numbers), **readings}


def _good(schema: Schema, example: Body) -> Iterator[tuple[str, bytes]]:
    """Requests that are answered."""
    first, *others = schema.sensors
    telemetry = example["telemetry"]
    values = telemetry[first]
    machines = [_rows(schema, list(range(30)), machine) for machine in (3, 1, 2)]
    events = {name: table for name, table in example.items() if name in ("errors", "maint")}
    extreme = EXTREME_NAMES if schema.has_names else EXTREME_NUMBERS
    bodies: dict[str, Body] = {
        "a-gap": {"telemetry": _rows(schema, [0, 1, 4, 5])},
        "empty-events": {"telemetry": telemetry} | _EMPTY,
        "id-as-text": _changed(example, "telemetry", machineID=["1", "1"]),
        "minus-zero": _changed(example, "telemetry", **{first: [-0.0, 0.0]}),
        "missing-readings": _changed(
            example, "telemetry", **{first: [None, values[1]]}, **{name: [None, None] for name in others[:1]}
        ),
        "negative-and-huge-ids": _changed(example, "telemetry", machineID=list(extreme)),
        "no-readings-at-all": _changed(example, "telemetry", **{name: [None, None] for name in schema.sensors}),
        "offsets-and-fractions": _changed(example, "telemetry", datetime=_with_offsets(telemetry["datetime"])),
        "outside-the-plausible": _changed(example, "telemetry", **{first: [1e300, -1e300]}),
        "rows-out-of-order": {"telemetry": _rows(schema, [4, 3, 2, 1, 0])},
        "three-machines": {"telemetry": {name: [v for one in machines for v in one[name]] for name in machines[0]}},
        "two-hours": example,
        "whole-history": {"telemetry": _rows(schema, list(range(HISTORY_ROWS)))},
    }
    if "errors" in events:
        twice = {name: column * 2 for name, column in events["errors"].items()}
        bodies["a-repeated-event"] = _changed(example, "errors", **twice)
    if "maint" in events:
        bodies["the-first-moment-of-1970"] = _changed(example, "maint", datetime=["1970-01-01T00:00:00Z"])
        both = {name: column * 2 for name, column in events["maint"].items()}
        bodies["findings"] = _changed(example, "maint", **both, finding=["worn", None])
    if events:
        late = {"errors": "2015-06-01T23:59:59Z", "maint": "2016-01-01T00:00:00Z"}
        body = example
        for name in events:
            body = _changed(body, name, datetime=[late[name]])
        bodies["events-in-the-future"] = body
    if len(example) > 1:
        bodies["telemetry-only"] = {"telemetry": telemetry}
        body = example
        for name, number in (("errors", 99), ("maint", 98), ("machines", 97)):
            body = _changed(body, name, machineID=[machine_id(schema, number)]) if name in example else body
        bodies["events-of-others"] = body
    for name, body in bodies.items():
        yield f"200-{name}", _bytes(body)
    text = json.dumps(example)
    yield "200-escaped-names", text.replace(json.dumps(first), _escaped(first), 1).encode()
    yield "200-white-space", json.dumps(example, indent=7, separators=(",", " \t:\r\n")).encode()
    hundredth = Decimal(repr(values[1])).scaleb(-2)
    yield "200-whole-numbers-and-exponents", _cells(text, example, f"[{int(values[0])}, {hundredth:f}e2]")


def _with_offsets(times: list[str]) -> list[str]:
    """The two times half a second later with an offset, and with a blank and microseconds and without one."""
    first, second = (datetime.fromisoformat(text) for text in times)
    ahead = (first + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    return [f"{ahead}.5+02:00", second.strftime("%Y-%m-%d %H:%M:%S") + ".123456"]


def _refused(schema: Schema, example: Body) -> Iterator[tuple[str, Any]]:
    """JSON that is no request of this schema."""
    first, telemetry = schema.sensors[0], example["telemetry"]
    values, times, ids = telemetry[first], telemetry["datetime"], telemetry["machineID"]
    coded, described = _with_codes(schema, example), _with_machine(schema, example)
    code, one = coded["errors"]["errorID"][0], [machine_id(schema, 1)]

    def cells(column: Any) -> Body:
        return _changed(example, "telemetry", **{first: column})

    def named(column: Any) -> Body:
        return _changed(example, "telemetry", machineID=column)

    def errors(**columns: Any) -> Body:
        return _changed(coded, "errors", **columns)

    replaced = example.get("maint") or {"datetime": times[:1], "machineID": one, "comp": [""]}
    yield from {"array": [], "null": None, "number": 1, "string": "telemetry", "true": True, "empty-object": {}}.items()
    yield "a-thousand-names", {f"n{n}": n for n in range(1000)}
    for name, age in (("as-text", "18"), ("negative", -1), ("null", None)):
        yield f"age-{name}", _changed(described, "machines", age=[age])
    yield "code-null", errors(errorID=[None])
    yield "code-very-long", errors(errorID=["x" * 5000])
    yield "code-with-nul", errors(errorID=[f"{code}\0"])
    yield "column-as-object", cells({"0": 1})
    yield "column-as-scalar", cells(values[0])
    yield "columns-of-unequal-length", cells(values[:1])
    yield "duplicate-key", _changed(example, "telemetry", datetime=["2015-01-04T06:00:00Z"] * 2)
    twice = ["2015-01-04T06:00:00Z", "2015-01-04T07:00:00+01:00"]
    yield "duplicate-key-by-offset", _changed(example, "telemetry", datetime=twice)
    yield "empty-batch", example | {"telemetry": {name: [] for name in telemetry}}
    yield "event-in-the-year-9999", errors(datetime=["9999-12-31T23:59:59.999999Z"])
    yield "events-of-unequal-length", errors(machineID=[machine_id(schema, 1), machine_id(schema, 2)])
    for name, finding in (("as-number", [1]), ("null-column", None), ("shorter", []), ("unknown", ["rusty"])):
        yield f"finding-{name}", example | {"maint": replaced | {"finding": finding}}
    yield "failures-are-no-request", example | {"failures": {"datetime": [], "machineID": [], "failure": []}}
    yield "id-as-bool", named([True, True])
    yield "id-as-float", named([*one, 1.0])
    yield "id-as-fraction", named([*one, 1.5])
    yield ("id-as-number", named([1, 1])) if schema.has_names else ("id-as-name", named(["Pump A", "1"]))
    yield "id-beyond-64-bits", named([*one, 2**63])
    yield "id-null", named([machine_id(schema, 1), None])
    models = [(*schema.models, "model1", "model2")[n] for n in (0, min(1, max(len(schema.models) - 1, 0)))]
    yield "machine-twice", example | {"machines": {"machineID": one * 2, "model": models, "age": [1, 2]}}
    for what, table, column in (("datetime", "telemetry", "datetime"), ("sensor", "telemetry", first)):
        yield f"missing-{what}", example | {table: {k: v for k, v in telemetry.items() if k != column}}
    yield "missing-error-code", coded | {"errors": {k: v for k, v in coded["errors"].items() if k != "errorID"}}
    yield "missing-telemetry", {k: v for k, v in coded.items() if k != "telemetry"}
    other = _other_case(first, schema.sensors)
    yield "name-of-other-case", example | {"telemetry": {other if k == first else k: v for k, v in telemetry.items()}}
    yield "null-errors", coded | {"errors": None}
    yield "null-telemetry", example | {"telemetry": None}
    yield "number-as-bool", cells([True, values[1]])
    yield "number-as-object", cells([{}, values[1]])
    yield "number-as-text", cells([str(values[0]), values[1]])
    yield "proto", {"__proto__" if k == "machines" else k: v for k, v in described.items()}
    yield "telemetry-as-rows", example | {"telemetry": [{"machineID": machine_id(schema, 1)}]}
    yield "time-as-number", _changed(example, "telemetry", datetime=[1420347600, 1420351200])
    for name, text in TIMES.items():
        yield name, _changed(example, "telemetry", datetime=[times[0], text])
    yield "unknown-column", example | {"telemetry": {**telemetry, _unknown("humidity", schema.sensors): [1, 2]}}
    both = {name: column * 2 for name, column in replaced.items()}
    yield "two-findings", example | {"maint": both | {"finding": ["worn", "sound"]}}
    yield "unknown-component", example | {"maint": replaced | {"comp": [_unknown("comp9", schema.components)]}}
    yield "unknown-error", errors(errorID=[_unknown("error6", schema.errors)])
    yield "unknown-model", _changed(described, "machines", model=[_unknown("model5", schema.models)])
    yield "unknown-table", example | {"weather": {}}
    assert len(ids) == len(values) == len(times) == 2


def _odd_json(schema: Schema, example: Body) -> Iterator[tuple[str, bytes]]:
    """JSON that a library cannot write, and no request of this schema."""
    first, text = schema.sensors[0], json.dumps(example)
    name, values = json.dumps(first), example["telemetry"][first]
    column = f"{name}: {json.dumps(values)}"

    def cell(written: str) -> bytes:
        return _cells(text, example, f"[{written}, {json.dumps(values[1])}]")

    yield "deep-array", b"[" * DEPTH + b"]" * DEPTH
    yield "deep-in-a-column", cell("[" * DEPTH + "]" * DEPTH)
    yield "deep-object", b'{"telemetry":' * 5000 + b"1" + b"}" * 5000
    yield "deep-unclosed", b"[" * DEPTH
    yield "number-of-400-digits", cell("9" * 400)
    yield "too-large-number", cell("1e999")
    yield "too-small-number", cell("-1e999")
    ids = json.dumps(example["telemetry"]["machineID"])
    many = f"[{json.dumps(machine_id(schema, 1))}, {'9' * 5000}]"
    yield "number-of-5000-digits", text.replace(f'"machineID": {ids}', f'"machineID": {many}', 1).encode()
    yield "repeated-column", text.replace(column, f"{name}: [1, 2], {column}", 1).encode()
    yield "repeated-column-escaped", text.replace(column, f"{_escaped(first)}: [1, 2], {column}", 1).encode()
    table = list(example)[-1]
    yield "repeated-table", f'{text[:-1]}, "{table}": {json.dumps(example[table])}}}'.encode()


def _no_json(schema: Schema, example: Body) -> Iterator[tuple[str, bytes]]:
    """Bodies that are no JSON, or no UTF-8."""
    coded = _with_codes(schema, example)
    text, values = json.dumps(coded), coded["telemetry"][schema.sensors[0]]
    code = json.dumps(coded["errors"]["errorID"][0])
    digits = f"{abs(values[0]):g}"

    def cell(written: str) -> bytes:
        return _cells(text, coded, f"[{written}, {json.dumps(values[1])}]")

    def named(written: bytes) -> bytes:
        """The body with this as the code of its error."""
        head, _, tail = text.partition(f'"errorID": [{code}')
        return head.encode() + b'"errorID": [' + written + tail.encode()

    yield "bare-word", b"hello"
    yield "byte-order-mark", b"\xef\xbb\xbf" + text.encode()
    yield "comment", (text[:-1] + "/* */}").encode()
    yield "empty", b""
    yield "encoded-surrogate", named(b'"err\xed\xa0\x80r1"')
    yield "form", b"telemetry=1&machineID=2"
    yield "gzip", gzip.compress(text.encode(), mtime=0)
    yield "hexadecimal", cell("0xAB")
    for name, written in (("nan", "NaN"), ("infinity", "Infinity"), ("minus-infinity", "-Infinity")):
        yield name, cell(written)
    yield "invalid-utf-8", named(b'"err\xffr1"')
    yield "leading-zero", cell(f"0{digits}")
    yield "lone-surrogate", named(b'"\\ud800"')
    yield "nul-byte", named(code[:-1].encode() + b'\0"')
    yield "plus-sign", cell(f"+{digits}")
    yield "raw-control-character", named(code[:-1].encode() + b'\1"')
    yield "single-quotes", text.replace('"', "'").encode()
    yield "surrogates-in-wrong-order", named(b'"\\udc00\\ud800"')
    yield "trailing-comma", _cells(text, coded, json.dumps(values)[:-1] + ",]")
    yield "truncated", text[:-20].encode()
    yield "two-documents", (text * 2).encode()
    yield "utf-16", text.encode("utf-16")
    yield "white-space-only", b" \n\t"


def _cells(text: str, body: Body, column: str) -> bytes:
    """The text of a body with this in place of its first sensor's column."""
    first = list(body["telemetry"])[2]
    name = json.dumps(first)
    before = f"{name}: {json.dumps(body['telemetry'][first])}"
    assert text.count(before) == 1, before
    return text.replace(before, f"{name}: {column}").encode()


def _escaped(name: str) -> str:
    """The name as JSON, with an escape for a character that needs none, or is escaped anyway."""
    at = min(1, len(name) - 1)
    written = json.dumps(name[at])[1:-1]
    escaped = written if written[0] == "\\" else f"\\u{ord(name[at]):04x}"
    return json.dumps(name[:at])[:-1] + escaped + json.dumps(name[at + 1 :])[1:]


def _other_case(name: str, taken: tuple[str, ...]) -> str:
    """The name with other capitals; where it has no letters, with a blank behind it."""
    choices = (name[0].upper() + name[1:], name.swapcase(), f"{name} ")
    return next(changed for changed in choices if changed != name and changed not in taken)


def _unknown(name: str, taken: tuple[str, ...]) -> str:
    """A name that the schema does not have."""
    while name in taken:
        name += "_"
    return name
