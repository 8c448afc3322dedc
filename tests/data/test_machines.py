"""Machines by their numbers or their names: in frames, tables, requests and feedback."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from closedloop.data import feedback, machines, sources
from closedloop.data.columns import RequestError
from closedloop.data.feedback import FeedbackDecoder
from closedloop.data.request import Decoder, openapi
from closedloop.data.schema import DataError, Schema
from simulated_fleet import SCHEMA

NAMED = replace(SCHEMA, machine_id="text")
SMALL = Schema(("volt",), ("comp1",), ("e1",), ("m1",), 60, ((0.0, 400.0),))
SMALL_NAMED = replace(SMALL, machine_id="text")
NAMES = ("Pump A/7", "Grün", "泵 2", "7", "007", "12.0", "~")
DECOMPOSED = "Gru\u0308n"  # ü as two characters
NOT_NAMES = {
    "": "is empty",
    "   ": "is empty",
    " P1": "begins or ends with white space",
    "P1\u00a0": "begins or ends with white space",
    "P\t1": "holds a control character",
    "P\u20281": "holds a control character",
    DECOMPOSED: "is not in Unicode's form NFC",
    "P" * 129: "has 129 characters",
}


def request(ids, **others):
    """A request with one row of each of these machines; their hours rise."""
    times = [f"2015-01-04T{hour:02}:00:00Z" for hour in range(len(ids))]
    telemetry = {"datetime": times, "machineID": list(ids), "volt": [float(hour) for hour in range(len(ids))]}
    return json.dumps({"telemetry": telemetry, **others}).encode()


def refusal(decode, body):
    with pytest.raises(RequestError) as refused:
        decode(body)
    return refused.value.errors


# --- the declaration --------------------------------------------------------------------------------------------------


def test_the_kind_is_declared_and_a_number_where_it_is_not():
    raw = SMALL.to_dict()
    assert "machine_id" not in raw
    assert SMALL == Schema.from_dict(raw) == Schema.from_dict(raw | {"machine_id": "number"})
    assert SMALL_NAMED == Schema.from_dict(SMALL_NAMED.to_dict())
    with pytest.raises(DataError, match=r"schema\.machine_id: 'name' is unknown; choose one of number, text"):
        Schema.from_dict(raw | {"machine_id": "name"})


@pytest.mark.parametrize("name", [*NAMES, "P" * 128])
def test_a_name_may_hold_anything_that_can_be_read(name):
    assert machines.fault_of(name) is None
    assert machines.canonical(f" {name}\n") == name


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_no_machine_can_be_called_is_said(name):
    assert NOT_NAMES[name] in machines.fault_of(name)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_fleet_keeps_its_names_through_files_and_tables(frames, tmp_path):
    names = {1: "Pump A/7", 2: "007", 3: "Grün"}
    for frame in frames.values():
        frame["machineID"] = frame["machineID"].map(names)
    tables = sources.frames_to_tables(frames, NAMED, {})
    assert ("007", "Grün", "Pump A/7") == tables.names  # sorted, so that the order is the same everywhere
    assert list(tables.names) == tables.named(tables.bounds()[0]).tolist()
    sources.write_tables(tables, NAMED, tmp_path)
    assert tables.fingerprint() == sources.read_tables(tmp_path, NAMED, {}).fingerprint()
    again = sources.tables_to_frames(tables, NAMED)
    expected = frames["telemetry"].sort_values(["machineID", "datetime"], ignore_index=True)
    assert expected["machineID"].tolist() == again["telemetry"]["machineID"].tolist()
    for table in ("errors", "maint", "failures", "machines"):
        assert set(frames[table]["machineID"]) == set(again[table]["machineID"])


def test_names_change_nothing_but_what_machines_are_called(frames, simulation):
    """A fleet whose names sort as its numbers do has the same arrays, to the bit."""
    for frame in frames.values():
        frame["machineID"] = frame["machineID"].map(lambda number: f"press {number}")
    named, numbered = sources.frames_to_tables(frames, NAMED, {}), simulation.tables
    for window, other in zip(named.windows(), numbered.windows(), strict=True):
        assert f"press {other.machine}" == named.names[window.machine]
        assert (other.model, other.age) == (window.model, window.age)
        np.testing.assert_array_equal(other.values, window.values)
        for table in ("errors", "maint", "failures"):
            np.testing.assert_array_equal(getattr(other, table).time, getattr(window, table).time)
            np.testing.assert_array_equal(getattr(other, table).code, getattr(window, table).code)


def test_the_fingerprint_is_that_of_the_names_and_not_of_who_else_is_there(frames):
    for frame in frames.values():
        frame["machineID"] = frame["machineID"].map(lambda number: f"press {number}")
    tables = sources.frames_to_tables(frames, NAMED, {})
    chosen = tables.select(np.array(tables.codes(["press 2", "press 3"]), np.int64))
    alone = {name: frame[frame["machineID"] != "press 1"] for name, frame in frames.items()}
    assert sources.frames_to_tables(alone, NAMED, {}).fingerprint() == chosen.fingerprint()
    renamed = {name: frame.replace({"press 3": "press 4"}) for name, frame in alone.items()}
    assert sources.frames_to_tables(renamed, NAMED, {}).fingerprint() != chosen.fingerprint()


@pytest.mark.parametrize("column", [pd.Series([7.0, 8.0, np.nan]), pd.Series([7, 8, None], dtype="Int64")])
def test_whole_numbers_of_a_fleet_with_names_are_written_without_a_fraction(column, tmp_path):
    """As Parquet and Excel store a column of ids with a gap."""
    frame = pd.DataFrame({"datetime": pd.Timestamp("2015-01-01", tz="UTC"), "machineID": column, "volt": 1.0})
    frame.dropna().to_parquet(tmp_path / "PdM_telemetry.parquet", index=False)
    assert ("7", "8") == sources.read_tables(tmp_path, SMALL_NAMED, {}).names


@pytest.mark.parametrize(("written", "number"), [("12", 12), ("12.0", 12), ("007", 7), ("-5", -5)])
def test_a_fleet_with_numbers_reads_them_however_they_are_written(written, number, tmp_path):
    (tmp_path / "PdM_telemetry.csv").write_text(f"datetime,machineID,volt\n2015-01-01,{written},1\n")
    assert [number] == sources.read_tables(tmp_path, SMALL, {}).machine.tolist()
    named = sources.read_tables(tmp_path, SMALL_NAMED, {})
    assert [written] == named.named(named.machine).tolist()


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_request_has_the_names_of_the_files(name):
    others = {"machines": {"machineID": [name], "model": ["m1"], "age": [3]},
              "errors": {"datetime": ["2015-01-03T07:00:00Z"], "machineID": [name], "errorID": ["e1"]}}  # fmt: skip
    tables = Decoder(SMALL_NAMED, 10)(request([name, name], **others))
    for column in (tables.machine, tables.errors.machine, tables.machine_ids):
        assert {name} == set(tables.named(column).tolist())


def test_machines_of_a_request_are_in_the_order_of_their_names_in_all_tables():
    others = {"machines": {"machineID": ["c", "a"], "model": ["m1", "m1"], "age": [3, 1]},
              "errors": {"datetime": ["2015-01-03T07:00:00Z"], "machineID": ["d"], "errorID": ["e1"]}}  # fmt: skip
    tables = Decoder(SMALL_NAMED, 10)(request(["b", "a", "b", "7", "007"], **others))
    assert ("007", "7", "a", "b", "c", "d") == tables.names
    assert ["007", "7", "a", "b", "b"] == tables.named(tables.machine).tolist()
    assert [[4, 3, 1, 0, 2]] == tables.values.tolist()
    assert (["a", "c"], [1, 3]) == (tables.named(tables.machine_ids).tolist(), tables.machine_age.tolist())
    assert ["d"] == tables.named(tables.errors.machine).tolist()


@pytest.mark.parametrize("name", NOT_NAMES)
def test_a_request_must_call_a_machine_as_it_is_called(name):
    """The first row of the name is pointed at. Nothing is changed in silence, so no machine has two names."""
    (error,) = refusal(Decoder(SMALL_NAMED, 10), request(["P1", name, name]))
    assert "/telemetry/machineID/1" == error["pointer"]
    assert NOT_NAMES[name] in error["detail"]


@pytest.mark.parametrize(("ids", "got"), [([7], "int"), (["P1", 7], "int"), ([7.5], "float"), ([None], "null")])
def test_a_fleet_with_names_refuses_numbers_and_says_how_to_write_them(ids, got):
    (error,) = refusal(Decoder(SMALL_NAMED, 10), request(ids))
    assert f"/telemetry/machineID/{len(ids) - 1}" == error["pointer"]
    assert f"Expected `str`, got `{got}`: machines have names here, write them in quotes" in error["detail"]


@pytest.mark.parametrize("ids", [["12", "12"], [12, "12"], ["012", "12.0"], ["+12", 12]])
def test_a_fleet_with_numbers_takes_them_as_text_and_logs_numbers(ids):
    """What the shipper writes, and what erasure looks for, has one form."""
    tables, logged = Decoder(SMALL, 10).read(request(ids))
    assert [12, 12] == tables.machine.tolist()
    assert [12, 12] == json.loads(logged)["telemetry"]["machineID"]
    body = request([12, 12])
    assert body is Decoder(SMALL, 10).read(body)[1]  # plain numbers are logged as they came


@pytest.mark.parametrize("text", ["P1", "", "12.5", "1e3", "0x1", "9" * 19, "١٢", " 12"])
def test_a_text_that_is_no_whole_number_is_refused_where_machines_have_numbers(text):
    (error,) = refusal(Decoder(SMALL, 10), request([1, "2", text]))
    assert "/telemetry/machineID/2" == error["pointer"]
    assert "is no whole number of 64 bits: machines have numbers here" in error["detail"]


@pytest.mark.parametrize("place", ["telemetry", "table"])
def test_a_repeated_name_is_refused_in_a_body_with_numbers_as_text_too(place):
    body = request(["1"])
    twice = b'"volt": [0.0], "volt": [0.0]' if place == "table" else b'"volt": [0.0]'
    body = body.replace(b'"volt": [0.0]', twice)
    if place == "telemetry":
        body = body[:-1] + b", " + body[1:]
    (error,) = refusal(Decoder(SMALL, 10), body)
    assert "occurs twice in one object" in error["detail"]


def test_a_repeated_name_is_refused_where_machines_have_names():
    body = request(["P1"], errors={"datetime": [], "machineID": [], "errorID": []})
    (error,) = refusal(Decoder(SMALL_NAMED, 10), body.replace(b'"errorID": []', b'"errorID": [], "errorID": []'))
    assert "/errors/errorID" == error["pointer"]


def test_a_key_that_occurs_twice_names_the_machine():
    body = request(["P1", "P1"]).replace(b"T01:00", b"T00:00")
    (error,) = refusal(Decoder(SMALL_NAMED, 10), body)
    assert "machine 'P1' at '2015-01-04T00:00:00Z' occurs twice" in error["detail"]


def test_ten_thousand_named_machines_are_one_request():
    names = [f"press {number}" for number in range(10_000)]
    body = {"telemetry": {"datetime": ["2015-01-04T00:00:00Z"] * 10_000, "machineID": names, "volt": [1.0] * 10_000}}
    tables = Decoder(SMALL_NAMED, 20_000, 10_000)(json.dumps(body).encode())
    assert sorted(names) == list(tables.names) == tables.named(tables.machine).tolist()


# --- feedback ---------------------------------------------------------------------------------------------------------


def fed(ids, table="failures"):
    columns = {"datetime": ["2015-01-05T06:00:00Z"] * len(ids), "machineID": ids}
    code = {"failures": "failure", "maint": "comp"}.get(table)
    return columns if code is None else {**columns, code: ["comp1"] * len(ids)}


def test_feedback_has_names_in_every_part():
    body = {
        "failures": fed(["b"]),
        "maint": {**fed(["a"], "maint"), "finding": ["worn"]},
        "retracted": {"maint": fed(["c"], "maint")},
        "complete_until": fed([None, "d"], "complete_until"),
    }
    found = FeedbackDecoder(SMALL_NAMED, 10)(json.dumps(body))
    assert ("a", "b", "c", "d") == found.names
    assert [1, 0, 2] == [int(e.machine[0]) for e in (found.failures, found.maint, found.retracted["maint"])]
    assert [None, "d"] == [machine for machine, _ in found.complete_until]


def test_feedback_of_numbers_as_text_is_logged_as_numbers():
    body = {"failures": fed(["007"]), "retracted": {"maint": fed(["8", 9], "maint")},
            "complete_until": fed([None, "9"], "complete_until")}  # fmt: skip
    found = FeedbackDecoder(SMALL, 10)(json.dumps(body))
    logged = json.loads(found.body)
    assert [7] == logged["failures"]["machineID"] == found.failures.machine.tolist()
    assert [8, 9] == logged["retracted"]["maint"]["machineID"]
    assert [None, 9] == logged["complete_until"]["machineID"] == [machine for machine, _ in found.complete_until]


@pytest.mark.parametrize(
    ("schema", "body", "pointer", "detail"),
    [
        (SMALL_NAMED, {"failures": fed([7])}, "/failures/machineID/0", "machines have names here"),
        (
            SMALL_NAMED,
            {"complete_until": fed([None, 7], "")},
            "/complete_until/machineID/1",
            "machines have names here",
        ),
        (SMALL_NAMED, {"complete_until": fed([None, "a "], "")}, "/complete_until/machineID/1", "white space"),
        (SMALL_NAMED, {"retracted": {"maint": fed(["\n"], "maint")}}, "/retracted/maint/machineID/0", "is empty"),
        (SMALL, {"failures": fed(["P1"])}, "/failures/machineID/0", "is no whole number"),
        (SMALL, {"retracted": {"failures": fed(["P1"])}}, "/retracted/failures/machineID/0", "is no whole number"),
        (SMALL, {"complete_until": fed([None, "P1"], "")}, "/complete_until/machineID/1", "is no whole number"),
        (
            SMALL_NAMED,
            {"failures": fed(["a", "P1"]), "retracted": {"failures": fed(["P1"])}},
            "/retracted/failures",
            "the event of machine 'P1' at 2015-01-05T06:00:00Z is also reported",
        ),
    ],
)
def test_faulty_machines_of_feedback_are_pointed_at(schema, body, pointer, detail):
    (error,) = refusal(FeedbackDecoder(schema, 10), json.dumps(body))
    assert (pointer, True) == (error["pointer"], detail in error["detail"]), error


@pytest.mark.parametrize("schema", [SMALL, SMALL_NAMED])
def test_the_documented_examples_are_accepted(schema):
    (example,) = openapi(schema)["examples"]
    tables = Decoder(schema, 10)(json.dumps(example))
    (told,) = feedback.openapi(schema)["examples"]
    FeedbackDecoder(schema, 10)(json.dumps(told))
    expected = "machine-1" if schema.has_names else 1
    assert {expected} == set(tables.named(tables.machine).tolist())
    column = openapi(schema)["properties"]["telemetry"]["properties"]["machineID"]
    assert column["items"]["type"] == ("string" if schema.has_names else ["integer", "string"])
