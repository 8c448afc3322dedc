"""Sensors and components may have any names: brackets, %, °, quotes, slashes, other letters."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.columns import RequestError
from closedloop.data.guess import guess
from closedloop.data.proposed import Asked
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


def test_a_component_that_is_called_as_the_anomaly_head_is_refused():
    """Predictions, answers in the log and metrics tell the heads apart by their names alone."""
    with pytest.raises(DataError, match="'anomaly' is what the head beside the components is called"):
        Schema.from_dict(SCHEMA.to_dict() | {"components": ["seal", "anomaly"]})


ROWS = 48
UNWRITABLE = {'the "hot" end': "the 'hot' end", "C:\\temp": "C:/temp", "a\tb": "a b"}


def readings(folder, names):
    """Hourly readings of two machines, with these names of columns."""
    rows = [
        {"time": f"2026-01-{1 + hour // 24:02} {hour % 24:02}:00", "asset": f"press {machine}"}
        | {name: round(10 + n + machine / 10 + hour * 0.37 % 1, 3) for n, name in enumerate(names)}
        for machine in (1, 2)
        for hour in range(ROWS)
    ]
    (folder / "plant").mkdir()
    pd.DataFrame(rows).to_csv(folder / "plant" / "readings.csv", index=False)
    return folder / "plant"


def test_a_column_whose_name_no_request_can_have_is_proposed_under_another_name(tmp_path):
    plant = readings(tmp_path, [*UNWRITABLE, "plain"])
    found = guess(plant)
    assert [*UNWRITABLE.values(), "plain"] == found.sensors
    assert UNWRITABLE.items() <= found.columns["telemetry"].items()
    assert "plain" not in found.columns["telemetry"]
    Schema.from_dict(SCHEMA.to_dict() | {"sensors": {name: [0, 100] for name in found.sensors}})
    frame = sources.read_frames(plant, found.columns, found.files, "text", found.read)["telemetry"]
    assert {*found.sensors} <= {*frame.columns}
    assert 2 * ROWS == frame["the 'hot' end"].notna().sum()


def test_what_people_say_of_a_column_is_its_name_in_the_file(tmp_path):
    found = guess(readings(tmp_path, [*UNWRITABLE, "plain"]), Asked(sensors=["C:\\temp"]))
    assert ["C:/temp"] == found.sensors


def test_two_columns_never_get_one_name(tmp_path):
    plant = readings(tmp_path, ["a 'b'", 'a "b"', "a 'b\""])
    found = guess(plant)
    assert ["a 'b'", "a 'b' 2", "a 'b' 3"] == found.sensors
    frame = sources.read_frames(plant, found.columns, found.files, "text", found.read)["telemetry"]
    assert [10.1, 11.1, 12.1] == frame.loc[0, found.sensors].tolist()


def test_a_sensor_that_is_called_as_a_key_column_gets_another_name(tmp_path):
    plant = readings(tmp_path, ["plain"])
    table = pd.read_csv(plant / "readings.csv").assign(datetime=0.5, machineID=lambda frame: frame["plain"] * 2)
    table.to_csv(plant / "readings.csv", index=False)
    found = guess(plant, Asked(time="time", machine="asset", sensors=["plain", "machineID", "datetime"]))
    assert ["plain", "machineID 2", "datetime 2"] == found.sensors
    frame = sources.read_frames(plant, found.columns, found.files, "text", found.read)["telemetry"]
    assert ("press 1", 20.2, 0.5) == tuple(frame.loc[0, ["machineID", "machineID 2", "datetime 2"]])


def test_a_tag_that_no_request_can_have_is_a_fault_that_says_so(tmp_path):
    """Readings in the long form name their sensors in rows, which ``columns:`` cannot rename."""
    wide = pd.read_csv(readings(tmp_path, ['the "hot" end', "plain"]) / "readings.csv")
    long = wide.melt(["time", "asset"], var_name="tag", value_name="value")
    long.to_csv(tmp_path / "plant" / "readings.csv", index=False)
    (fault,) = guess(tmp_path / "plant").faults
    assert fault == (
        "readings.csv: the tag 'the \"hot\" end' has a quotation mark, a backslash or a control character, which the "
        "names of a request cannot have: rename it in your files"
    )
