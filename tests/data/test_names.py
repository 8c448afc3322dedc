"""Sensors and components may have any names: brackets, %, °, quotes, slashes, other letters."""

from __future__ import annotations

import json

import pytest

from closedloop.data.columns import RequestError
from closedloop.data.request import decode
from closedloop.data.schema import DataError, Schema

SENSORS = ("Temp [°C]", "Füllstand %", "압력/bar", "a:b {x} 'q' ~1", "motor.temp[0]", "x`")
SCHEMA = Schema.from_dict(
    {
        "sensors": {name: [0, 100] for name in SENSORS},
        "components": ["Lager #1 (öst)", "ポンプ", "a/b~c"],
        "errors": ["E [7]", "=SUM(A1)"],
        "models": ["型式 2", "m\\n"],
        "sampling_minutes": 60,
    }
)


def body(**changed: object) -> dict:
    telemetry = {"datetime": ["2015-01-04T05:00:00Z", "2015-01-04T06:00:00Z"], "machineID": [1, 1]}
    telemetry |= {name: [1.5, None] for name in SENSORS} | changed
    return {
        "telemetry": telemetry,
        "errors": {"datetime": ["2015-01-03T07:00:00Z"], "machineID": [1], "errorID": ["E [7]"]},
        "maint": {"datetime": ["2014-12-13T06:00:00Z"], "machineID": [1], "comp": ["a/b~c"]},
        "machines": {"machineID": [1], "model": ["m\\n"], "age": [18]},
    }


def refused(content: dict) -> dict:
    with pytest.raises(RequestError) as error:
        decode(json.dumps(content).encode(), SCHEMA, 100)
    (only,) = error.value.errors
    return only


def pointed(content: dict, pointer: str) -> object:
    """What a JSON Pointer (RFC 6901) points to."""
    found: object = content
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found[int(step)] if isinstance(found, list) else found[step]  # type: ignore[index]
    return found


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_request_with_any_names_is_read(ascii_only):
    decode(json.dumps(body(), ensure_ascii=ascii_only).encode(), SCHEMA, 100)


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("wrong", ["text", [1.5, "text"], [1.5]])
def test_a_fault_points_to_its_place_whatever_the_name(name, wrong):
    content = body(**{name: wrong})
    pointer = refused(content)["pointer"]
    assert pointed(content, pointer) == ("text" if wrong != [1.5] else wrong)


@pytest.mark.parametrize("name", ["Temp [°F]", "x]", "[", "a/b", "~", "motor.temp[1]"])
def test_an_unknown_name_is_said_whatever_it_is(name):
    said = refused(body(**{name: [1, 2]}))
    assert ascii(name) in said["detail"]


@pytest.mark.parametrize("name", ['the "hot" end', "C:\\temp", "two\nlines"])
def test_a_name_that_no_request_can_have_is_refused_before_anything_is_trained(name):
    with pytest.raises(DataError, match="cannot have; rename the column"):
        Schema.from_dict(SCHEMA.to_dict() | {"sensors": {name: [0, 1]}})
