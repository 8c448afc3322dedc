"""A request is decoded into tables, or refused with a pointer to every fault. Nothing is silently converted."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import time_ns

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data import columns, request, rfc3339
from closedloop.data.request import Decoder, RequestError, decode, openapi
from closedloop.data.schema import HOUR_US, Schema
from simulated_fleet import SCHEMA

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLE = json.loads((GOLDEN / "request.json").read_text())


def changed(table, column, value):
    return {**EXAMPLE, table: {**EXAMPLE[table], column: value}}


def errors_of(request, max_rows=1000):
    body = request if isinstance(request, bytes | str) else json.dumps(request)
    with pytest.raises(RequestError) as caught:
        decode(body, SCHEMA, max_rows)
    assert {"pointer", "detail"} == set().union(*caught.value.errors)
    return caught.value.errors


def pointer_of(request):
    (error,) = errors_of(request)
    return error["pointer"]


COLUMNS = '{"datetime": […], "machineID": […], "volt": […], …}'
PANDAS = "; to_dict('list') of a pandas frame is that"


@pytest.mark.parametrize(
    ("body", "pointer", "form"),
    [
        ({"telemetry": [{"machineID": 1, "datetime": "2015-01-04T06:00:00Z", "volt": 170.0}]}, "/telemetry", COLUMNS),
        ([{"machineID": 1, "datetime": "2015-01-04T06:00:00Z"}], "", f'{{"telemetry": {COLUMNS}}}'),
        ({**EXAMPLE, "machines": []}, "/machines", '{"machineID": […], "model": […], "age": […]}'),
    ],
    ids=["rows of a table", "only rows", "no rows"],
)
def test_rows_in_place_of_columns_are_told_the_form_to_send(body, pointer, form):
    said = f"Expected `object`, got `array`: send columns, not rows, as {form}{PANDAS}"
    assert [{"pointer": pointer, "detail": said}] == errors_of(body)


def test_one_row_whose_values_are_no_lists_is_told_to_make_lists():
    (error,) = errors_of(changed("telemetry", "volt", 170.0))
    assert "/telemetry/volt" == error["pointer"]
    assert error["detail"].endswith("a column is a list with one value for each row, write […]")


@pytest.mark.parametrize("path", sorted((GOLDEN / "requests").iterdir()), ids=lambda path: path.stem)
def test_the_corpus_is_answered_as_its_names_say(path):
    status, body = path.name[:3], path.read_bytes()
    if status == "200":
        decode(body, SCHEMA, 1000)
        return
    with pytest.raises(RequestError) as caught:
        decode(body, SCHEMA, 1000)
    assert status == ("400" if caught.value.syntax else "422")
    assert caught.value.errors
    assert len(str(caught.value)) < 1000


def test_the_golden_request_gives_the_tables_it_shows():
    tables = decode((GOLDEN / "request.json").read_bytes(), SCHEMA, 1000)
    assert tables.machine.tolist() == [1, 1]
    assert tables.time.tolist() == [1_420_347_600_000_000, 1_420_351_200_000_000]
    assert tables.values.tolist() == [[171.2, 168.9], [442.0, 451.3], [99.8, 101.2], [40.1, 39.7]]
    assert tables.maint.code.tolist() == [1]
    assert tables.errors.code.tolist() == [0]
    assert tuple(c.tolist() for c in (tables.machine_ids, tables.machine_model, tables.machine_age)) == (
        [1],
        [2],
        [18.0],
    )
    assert tables.failures is None


def test_text_and_bytes_are_the_same_request():
    text = json.dumps(EXAMPLE)
    assert decode(text, SCHEMA, 10).fingerprint() == decode(text.encode(), SCHEMA, 10).fingerprint()


@given(st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter(order):
    hours = [f"2015-01-04T{hour:02d}:00:00Z" for hour in (3, 4, 5)] * 2
    columns = {"datetime": hours, "machineID": [7, 7, 7, -2, -2, -2]}
    columns |= {sensor: [float(i) for i in range(6)] for sensor in SCHEMA.sensors}
    straight = decode(json.dumps({"telemetry": columns}), SCHEMA, 10)
    shuffled = {name: [column[i] for i in order] for name, column in columns.items()}
    assert straight.fingerprint() == decode(json.dumps({"telemetry": shuffled}), SCHEMA, 10).fingerprint()


def test_null_is_a_missing_reading():
    values = decode(json.dumps(changed("telemetry", "volt", [None, 168.9])), SCHEMA, 10).values
    assert np.isnan(values[0]).tolist() == [True, False]
    assert not np.isnan(values[1:]).any()


def test_an_event_sent_twice_is_one_event():
    events = {"datetime": ["2015-01-03T07:00:00Z"] * 3, "machineID": [1] * 3, "errorID": ["error1", "error1", "error2"]}
    errors = decode(json.dumps({**EXAMPLE, "errors": events}), SCHEMA, 10).errors
    assert errors.code.tolist() == [0, 1]
    assert len(errors.time) == len(errors.machine) == 2


def test_a_finding_is_checked_and_kept_in_the_body_and_changes_no_table():
    found = {**EXAMPLE, "maint": {**EXAMPLE["maint"], "finding": ["worn"]}}
    tables, body = Decoder(SCHEMA, 10).read(json.dumps(found))
    assert decode(json.dumps(EXAMPLE), SCHEMA, 10).fingerprint() == tables.fingerprint()
    assert found == json.loads(body)
    assert "/maint/finding/0" == pointer_of(changed("maint", "finding", ["rusty"]))
    assert "/maint/finding" == pointer_of(changed("maint", "finding", []))
    twice = {name: column * 2 for name, column in EXAMPLE["maint"].items()}
    assert "/maint/finding/1" == pointer_of({**EXAMPLE, "maint": {**twice, "finding": ["worn", "sound"]}})


def test_machines_may_be_described_in_any_order():
    machines = {"machineID": [9, 1, 4], "model": ["model4", "model1", "model2"], "age": [9.0, 1.0, 4.0]}
    tables = decode(json.dumps({**EXAMPLE, "machines": machines}), SCHEMA, 10)
    assert tables.machine_ids.tolist() == [1, 4, 9]
    assert tables.machine_model.tolist() == [0, 1, 3]
    assert tables.machine_age.tolist() == [1.0, 4.0, 9.0]


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("2000-02-29T00:00:00Z", True),
        ("1900-02-29T00:00:00Z", False),
        ("2016-02-29T00:00:00Z", True),
        ("2015-04-31T00:00:00Z", False),
        ("2015-01-04T05:00:00+23:59", True),
        ("2015-01-04T05:00:00+24:00", False),
        ("2015-01-04T05:00:00+00:60", False),
        ("2015-01-04T05:00:00+0100", False),
        ("2015-01-04T05:00:00.123456", True),
        ("2015-01-04T05:00:00.", False),
        ("2015-13-04T05:00:00Z", False),
        ("2015-01-00T05:00:00Z", False),
        ("2015-01-04T05:60:00Z", False),
    ],
)
def test_the_calendar_and_the_clock_are_kept(text, fine):
    assert (rfc3339.parse([text])[1] == -1) == fine


def test_every_column_of_the_right_type_comes_out_in_it():
    tables = decode(json.dumps(EXAMPLE), SCHEMA, 10)
    assert [np.int64, np.int64, np.float64] == [c.dtype for c in (tables.machine, tables.time, tables.values)]
    assert [np.int16, np.int16] == [tables.errors.code.dtype, tables.maint.code.dtype]
    assert tables.values.flags.c_contiguous


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        (changed("telemetry", "volt", [171.2, "x"]), "/telemetry/volt/1"),
        (changed("telemetry", "volt", [171.2]), "/telemetry/volt"),
        (changed("telemetry", "datetime", ["2015-01-04T05:00:00Z", "yesterday"]), "/telemetry/datetime/1"),
        (changed("telemetry", "datetime", ["2015-01-04T05:00:00Z\n", "2015-01-04T06:00:00Z"]), "/telemetry/datetime/0"),
        (changed("telemetry", "datetime", ["2015-01-04T05:00:00Z"] * 2), "/telemetry/datetime/1"),
        (changed("telemetry", "machineID", [1, 2**63]), "/telemetry/machineID/1"),
        (changed("errors", "errorID", ["nope"]), "/errors/errorID/0"),
        (changed("maint", "comp", ["nope"]), "/maint/comp/0"),
        (changed("machines", "model", ["nope"]), "/machines/model/0"),
        (changed("machines", "age", [-0.5]), "/machines/age/0"),
        (changed("telemetry", "a/b~c", [1, 2]), "/telemetry"),
        ({}, ""),
        (json.dumps(EXAMPLE).replace('"volt"', '"volt": [], "volt"'), "/telemetry/volt"),
        (json.dumps(EXAMPLE)[:-1] + ', "errors": {}}', "/errors"),
    ],
)
def test_a_refusal_points_at_the_fault(request_, pointer):
    assert pointer == pointer_of(request_)


def test_every_faulty_column_is_named_at_once():
    request = changed("telemetry", "volt", [1.0])
    request["errors"] = {**EXAMPLE["errors"], "errorID": ["nope"]}
    assert [error["pointer"] for error in errors_of(request)] == ["/telemetry/volt", "/errors/errorID/0"]


def test_each_table_may_have_so_many_rows_and_no_more():
    request = {"telemetry": {name: column[:1] for name, column in EXAMPLE["telemetry"].items()}}
    decode(json.dumps(request), SCHEMA, 1)
    (error,) = errors_of({"telemetry": EXAMPLE["telemetry"]}, max_rows=1)
    assert error["pointer"] == "/telemetry"
    assert "2 rows, at most 1" in error["detail"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused_with_the_remedy(text):
    (error,) = errors_of(json.dumps(EXAMPLE).replace("171.2", text))
    assert "null for a missing reading" in error["detail"]


def test_what_the_caller_sent_comes_back_short():
    (error,) = errors_of(changed("errors", "errorID", ["\N{SNOWMAN}" * 100_000]))
    assert len(error["detail"]) < 600
    assert error["detail"].isascii()


def test_a_lone_surrogate_in_text_is_no_text():
    (error,) = errors_of('{"\ud800": 1}')
    assert "surrogate" in error["detail"]


def test_a_sensor_may_have_any_name():
    raw = {**SCHEMA.to_dict(), "sensors": {"Volume Flow.Rate[0]/~": [0, 1], "class": [0, 1], "": [0, 1]}}
    decoder = Decoder(Schema.from_dict(raw), 10)
    columns = {"datetime": ["2015-01-04T05:00:00Z"], "machineID": [1], **{name: [0.5] for name in raw["sensors"]}}
    assert decoder(json.dumps({"telemetry": columns})).values.tolist() == [[0.5], [0.5], [0.5]]
    with pytest.raises(RequestError) as caught:
        decoder(json.dumps({"telemetry": {**columns, "Volume Flow.Rate[0]/~": ["x"]}}))
    assert caught.value.errors[0]["pointer"] == "/telemetry/Volume Flow.Rate[0]~1~0/0"


def test_a_name_may_hold_quotes_and_backslashes():
    raw = {**SCHEMA.to_dict(), "errors": ['say "no"', "\\"]}
    decoder = Decoder(Schema.from_dict(raw), 10)
    events = {"datetime": ["2015-01-04T05:00:00Z"] * 2, "machineID": [1, 1], "errorID": ["\\", 'say "no"']}
    assert decoder(json.dumps({"telemetry": EXAMPLE["telemetry"], "errors": events})).errors.code.tolist() == [0, 1]


@pytest.mark.parametrize("sensors", [{}, {"flow": [0, 0.01], "offset": [-3e-7, -2e-7], "pulses": [1e12, 1e12 + 1]}])
def test_the_example_in_the_documentation_can_be_sent_as_it_is(sensors):
    """Its readings are plausible ones, whatever the unit."""
    schema = Schema.from_dict(SCHEMA.to_dict() | ({"sensors": sensors} if sensors else {}))
    tables = decode(json.dumps(openapi(schema)["examples"][0]), schema, 10)
    assert schema.period_us == int(tables.time[1] - tables.time[0])
    for values, (low, high) in zip(tables.values, schema.ranges, strict=True):
        assert ((low <= values) & (values <= high)).all()


def test_a_fleet_without_codes_needs_no_table_of_them():
    raw = {**SCHEMA.to_dict(), "errors": [], "components": [], "models": []}
    schema = Schema.from_dict(raw)
    assert list(openapi(schema)["properties"]) == ["telemetry"]
    decode(json.dumps({"telemetry": EXAMPLE["telemetry"]}), schema, 10)


ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.none() | ZONES | st.just(UTC))


@given(st.lists(MOMENTS, max_size=5), st.sampled_from("T t"))
def test_times_are_what_python_reads_in_them(moments, separator):
    texts = [moment.isoformat(separator) for moment in moments]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [(m if m.tzinfo else m.replace(tzinfo=UTC)) - epoch for m in moments]
    times, bad = rfc3339.parse(texts)
    assert bad == -1
    assert [span // timedelta(microseconds=1) for span in expected] == times.tolist()


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_time_written_is_the_time_read(time_us):
    times, bad = rfc3339.parse([rfc3339.to_text(time_us)])
    assert (-1, [time_us]) == (bad, times.tolist())


FAULTS = st.text(max_size=25) | st.from_regex(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}[.:Z+0-9-]{0,9}"
)


@given(st.lists(FAULTS, min_size=1, max_size=3))
def test_what_is_read_as_a_time_is_one(texts):
    """Every text that the parser accepts, Python accepts with the same value."""
    times, bad = rfc3339.parse(texts)
    for text, time in zip(texts[: bad if bad >= 0 else None], times.tolist(), strict=False):
        moment = datetime.fromisoformat(text.upper())
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        assert time == (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["telemetry", "errors", "maint", "machines"]), st.integers(0, 5), JSON)
def test_whatever_stands_in_a_column_is_read_or_refused_and_never_breaks(table, column, value):
    name = list(EXAMPLE[table])[column % len(EXAMPLE[table])]
    body = json.dumps(changed(table, name, value))
    try:
        decode(body, SCHEMA, 1000)
    except RequestError as error:
        json.dumps(error.errors).encode()


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_read_or_refused(body):
    with pytest.raises(RequestError):
        decode(body, SCHEMA, 1000)


def ahead(hours):
    """The time so many hours from now."""
    return rfc3339.to_text(time_ns() // 1000 + int(hours * HOUR_US))


@pytest.mark.parametrize("table", ["telemetry", "errors", "maint"])
def test_times_before_1970_or_more_than_a_day_ahead_are_refused_with_the_place_and_the_clock(table):
    for when, said in [
        ("1969-12-31T23:59:59.999999Z", "is before 1970 (here it is 20"),
        ("9999-12-31T23:59:59.999999Z", "is more than 24 hours ahead of the clock (here it is 20"),
        (ahead(24.1), "is more than 24 hours ahead of the clock"),
    ]:
        times = [*EXAMPLE[table]["datetime"][:-1], when]
        (error,) = errors_of(changed(table, "datetime", times))
        assert f"/{table}/datetime/{len(times) - 1}" == error["pointer"]
        assert said in error["detail"]
        assert "correct the sender's clock or the time's form" in error["detail"]
    for when in ("1970-01-01T00:00:00Z", ahead(23.9)):
        decode(json.dumps(changed(table, "datetime", [*EXAMPLE[table]["datetime"][:-1], when])), SCHEMA, 1000)


def test_how_far_ahead_a_time_may_lie_is_a_setting():
    body = json.dumps(changed("telemetry", "datetime", [*EXAMPLE["telemetry"]["datetime"][:-1], ahead(30)]))
    Decoder(SCHEMA, 1000, max_ahead_us=31 * HOUR_US)(body)
    with pytest.raises(RequestError, match="more than 29 hours ahead"):
        Decoder(SCHEMA, 1000, max_ahead_us=29 * HOUR_US)(body)


def test_a_long_body_is_decoded_in_parts_to_the_same_tables_and_refusals(monkeypatch):
    """Column by column, for the sake of other threads; the corpus of requests is read and refused as in one piece."""
    bodies = [path.read_bytes() for path in sorted((GOLDEN / "requests").iterdir())]
    now = time_ns()
    monkeypatch.setattr(columns, "time_ns", lambda: now)  # a refusal says what time it is
    whole = [outcome(body) for body in bodies]
    monkeypatch.setattr(request, "_PARTS_BYTES", 0)
    monkeypatch.setattr(request, "_PARTS_ROWS", 0)
    assert whole == [outcome(body) for body in bodies]
    assert Decoder(SCHEMA, 10)._in_parts(json.dumps(EXAMPLE).encode()) is not None


def outcome(body):
    try:
        tables = decode(body, SCHEMA, 1000)
    except RequestError as error:
        return error.errors, error.syntax
    arrays = (tables.machine, tables.time, tables.values, tables.errors.time, tables.maint.code, tables.machine_age)
    return [array.tobytes() for array in arrays]
