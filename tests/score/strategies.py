"""Hypothesis strategies from the service's own JSON Schema: valid requests, and mutations of them."""

import datetime as dt
import json

from hypothesis import strategies as st

OFFSETS = ("", "Z", "+00:00", "-08:00", "+14:00")
HOSTILE = [
    None, True, False, 0, -1, 1.5, 10**400, 2**63, -(2**63) - 1, "", "1", "NaN", "\x00", "\ud800",
    "2015-13-01T00:00:00Z", "comp1 ", [], {}, [[]], [None], {"": {}}, "x" * 10_000, float("nan"), float("inf"),
    -float("inf"),
]  # fmt: skip


def inlined(schema, document):
    """A schema of a document with each ``$ref`` replaced by what it names."""
    if isinstance(schema, list):
        return [inlined(part, document) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {
        key: part if key == "examples" else inlined(part, document) for key, part in schema.items() if key != "$ref"
    }
    if "$ref" not in schema:
        return rest
    return {**inlined(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document), **rest}


def text_of(instant, offset):
    """A time in RFC 3339 with this offset; without an offset it is UTC."""
    shift = dt.timedelta(hours=int(offset[:3])) if offset[:1] in ("+", "-") else dt.timedelta()
    return (instant + shift).isoformat() + offset


def cell(schema):
    """A value allowed by the schema of a column's items."""
    if "anyOf" in schema:
        return st.one_of(*map(cell, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "null":
        return st.none()
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    numbers = st.floats(min_value=schema.get("minimum"), allow_nan=False, allow_infinity=False)
    return numbers if schema["type"] == "number" else st.none() | numbers


@st.composite
def table(draw, name, schema, few):
    """A table with columns of equal length, without duplicate keys where the service refuses them.

    A replacement has one finding, so those have no duplicates either.
    """
    columns = schema["properties"]
    fewest = columns["machineID"]["minItems"]
    ids = st.sampled_from(few) if "datetime" in columns else st.integers(-(2**63), 2**63 - 1)
    times = st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2025, 12, 31))
    keys = st.tuples(ids, times) if "datetime" in columns else st.tuples(ids)
    rows = draw(st.lists(keys, min_size=fewest, max_size=8, unique=name in ("telemetry", "machines", "maint")))
    left_out = {column for column in columns if column not in schema["required"] and draw(st.booleans())}
    drawn = {}
    for column, items in columns.items():
        if column in left_out:
            continue
        if column == "machineID":
            drawn[column] = [key[0] for key in rows]
        elif column == "datetime":
            drawn[column] = [text_of(key[1], draw(st.sampled_from(OFFSETS))) for key in rows]
        else:
            drawn[column] = [draw(cell(items["items"])) for _ in rows]
    return drawn


@st.composite
def valid_requests(draw, schema):
    """A request allowed by the schema: telemetry and any other tables, in any order."""
    few = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3))
    names = [name for name in schema["properties"] if name == "telemetry" or draw(st.booleans())]
    body = {name: draw(table(name, schema["properties"][name], few)) for name in names}
    return {name: body[name] for name in draw(st.permutations(names))}


def places(value, path=()):
    """The path of every value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@st.composite
def mutated_requests(draw, schema):
    """The bytes of a valid request with a value replaced, removed, added or doubled, or with bytes changed."""
    body = draw(valid_requests(schema))
    if draw(st.booleans()):
        data = bytearray(json.dumps(body).encode())
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 3))] = draw(
                st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"}", b"\\"])
            )
        return bytes(data)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(body))))
        if not path:
            return json.dumps(draw(st.sampled_from(HOSTILE))).encode()
        *steps, last = path
        inside = body
        for step in steps:
            inside = inside[step]
        deed = draw(st.sampled_from(["replace", "take out", "add"]))
        if deed == "replace":
            inside[last] = draw(st.sampled_from(HOSTILE))
        elif deed == "take out":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(st.sampled_from(["failures", "failure", "", "__proto__", "Volt"]))] = draw(
                st.sampled_from(HOSTILE)
            )
        else:
            inside.insert(last, draw(st.sampled_from([*HOSTILE, inside[last]])))
    return json.dumps(body).encode()
