"""What refuses a set of tables, what only warns, and what reports it."""

import gc
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from closedloop.data import expectations, sources
from closedloop.data.expectations import Usual, validate
from closedloop.data.schema import Schema


def _put(column, at, value):
    """A change that puts a value of any type into one cell."""

    def change(frame, _):
        mixed = frame[column].astype(object)
        mixed.iloc[at] = value
        return frame.assign(**{column: mixed})

    return change


def test_a_simulated_fleet_meets_every_expectation(frames, schema):
    validation = validate(frames, schema)
    assert (validation.ok, validation.failures, validation.warnings) == (True, [], [])


def test_a_fleet_of_three_other_machines_without_failures_meets_them(schema):
    """Other sensors, 10-minute sampling, no failures, no machines; missing readings are allowed."""
    schema = replace(schema, sensors=("oil",), ranges=((-10.0, 10.0),), sampling_minutes=10)
    time = pd.date_range("2026-01-01", periods=50, freq="10min", tz="UTC")
    parts = [pd.DataFrame({"datetime": time, "machineID": machine, "oil": 1.0}) for machine in (5, 6, 7)]
    telemetry = pd.concat(parts, ignore_index=True)
    telemetry.loc[3, "oil"] = np.nan
    validation = validate({"telemetry": telemetry}, schema)
    assert (validation.ok, validation.failures, validation.warnings) == (True, [], [])


def test_telemetry_ordered_by_time_across_machines_is_in_order(frames, schema):
    frames["telemetry"] = frames["telemetry"].sort_values(["datetime", "machineID"])
    validation = validate({"telemetry": frames["telemetry"]}, schema)
    assert (validation.ok, validation.warnings) == (True, [])


def test_a_refusal_is_one_line_with_table_column_rule_count_three_rows_and_remedy(frames, schema, faults):
    frames["telemetry"] = faults.out_of_range(frames["telemetry"], [5, 105, 205, 1000], "volt", 999.0)
    validation = validate(frames, schema)
    assert not validation.ok
    assert validation.failures == [
        "telemetry.volt: is outside its range 0 to 400: 4 of 2,880 rows: "
        "row 6 (machineID 1, datetime 2015-01-01T11:00:00Z, volt 999.0); "
        "row 106 (machineID 1, datetime 2015-01-05T15:00:00Z, volt 999.0); "
        "row 206 (machineID 1, datetime 2015-01-09T19:00:00Z, volt 999.0); "
        "leave a missing reading empty, or widen schema.sensors.volt in params.yaml"
    ]


DAMAGES = {
    "missing column": (
        "telemetry",
        lambda frame, _: frame.drop(columns="rotate"),
        "telemetry.rotate: the column is missing: the table has datetime, machineID, volt, pressure, vibration; add",
    ),
    "no reading": (
        "telemetry",
        lambda frame, _: frame.assign(pressure=np.nan),
        "telemetry.pressure: has no reading at all: found 0 in 2,880 rows; export it",
    ),
    "no rows": ("telemetry", lambda frame, _: frame.iloc[:0], "telemetry.datetime: there are no rows"),
    "text for a number": (
        "telemetry",
        _put("volt", 7, "n/a"),
        "telemetry.volt: is not a number: 1 of 2,880 rows: "
        "row 8 (machineID 1, datetime 2015-01-01T13:00:00Z, volt n/a);",
    ),
    "no time": (
        "telemetry",
        _put("datetime", 8, "2015-02-30"),
        "telemetry.datetime: is not a time: 1 of 2,880 rows: row 9 (machineID 1, datetime 2015-02-30); write times as",
    ),
    "before 1970": (
        "telemetry",
        lambda frame, _: frame.assign(datetime=frame["datetime"].where(frame.index > 0, pd.Timestamp(-1, tz="UTC"))),
        "telemetry.datetime: is before 1970: 1 of 2,880 rows: row 1 (machineID 1, datetime 1969-12-31T23:59:59.999999Z)"
        "; correct the clock or the export that wrote it",
    ),
    "the year 9999": (
        "telemetry",
        lambda frame, _: frame.assign(
            datetime=frame["datetime"].where(frame.index < 2875, frame["datetime"] + pd.DateOffset(years=7984))
        ),
        "telemetry.datetime: is more than 24 hours ahead of this machine's clock: 5 of 2,880 rows: "
        "row 2876 (machineID 3, datetime 9999-02-",
    ),
    "an event ahead of the clock": (
        "failures",
        _put("datetime", 0, pd.Timestamp.now("UTC").floor("us") + pd.Timedelta(hours=25)),
        "failures.datetime: is more than 24 hours ahead of this machine's clock: 1 of ",
    ),
    "no whole number": (
        "errors",
        _put("machineID", 0, "M1"),
        "errors.machineID: is not a whole number: 1 of ",
    ),
    "missing key": (
        "telemetry",
        _put("machineID", 9, None),
        "telemetry.machineID: is missing: 1 of 2,880 rows: row 10 (machineID missing, datetime 2015-01-01T15:00:00Z);",
    ),
    "infinite": ("telemetry", _put("volt", 0, np.inf), "telemetry.volt: is outside its range 0 to 400: 1 of 2,880"),
    "duplicate": (
        "telemetry",
        lambda frame, faults: faults.duplicate(frame, [5, 6]),
        "telemetry.machineID, datetime: the key occurs more than once: 4 of 2,882 rows: "
        "row 6 (machineID 1, datetime 2015-01-01T11:00:00Z); row 7 (machineID 1, datetime 2015-01-01T11:00:00Z);",
    ),
    "duplicate event": (
        "maint",
        lambda frame, _: pd.concat([frame, frame.iloc[[0]]]),
        "maint.machineID, datetime, comp: the key occurs more than once: 2 of ",
    ),
    "duplicate machine": (
        "machines",
        lambda frame, _: pd.concat([frame, frame.iloc[[0]]]),
        "machines.machineID: the key occurs more than once: 2 of 4 rows: row 1 (machineID 1); row 4 (machineID 1);",
    ),
    "out of order": (
        "telemetry",
        lambda frame, faults: faults.out_of_order(frame, [2]),
        "telemetry.datetime: is before the machine's previous row: 1 of 2,880 rows: "
        "row 3 (machineID 1, datetime 2015-01-01T07:00:00Z); sort the table by machineID and datetime",
    ),
    "unknown code": (
        "errors",
        _put("errorID", 1, "error9"),
        "errors.errorID: is not one of error1, error2, error3, error4, error5: 1 of ",
    ),
    "unknown component": ("failures", _put("failure", 0, "gearbox"), "failures.failure: is not one of comp1, comp2,"),
    "unknown model": (
        "machines",
        _put("model", 0, "model5"),
        "machines.model: is not one of model1, model2, model3, model4: 1 of 3 rows: row 1 (machineID 1, model model5);",
    ),
    "negative age": (
        "machines",
        _put("age", 2, -1.0),
        "machines.age: is below 0: 1 of 3 rows: row 3 (machineID 3, age",
    ),
    "event of an unknown machine": (
        "errors",
        _put("machineID", 0, 77),
        "errors.machineID: is not in telemetry: 1 of ",
    ),
    "undescribed machine": (
        "machines",
        lambda frame, _: frame.iloc[:2],
        "telemetry.machineID: is not in machines: 960 of 2,880 rows: row 1921 (machineID 3, datetime",
    ),
}


def _damaged(frames, faults, damage):
    """Telemetry and the damaged table, and the expected line."""
    table, change, said = damage
    some = {"telemetry": frames["telemetry"], table: frames[table]}
    return some | {table: change(frames[table], faults)}, said


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_and_named_once(frames, schema, faults, name):
    """One line for each damage: its consequences are not reported too."""
    damaged, said = _damaged(frames, faults, DAMAGES[name])
    validation = validate(damaged, schema)
    assert not validation.ok
    assert len(validation.failures) == 1
    assert validation.failures[0].startswith(said)
    assert "\n" not in validation.failures[0]


def test_tables_without_telemetry_are_refused(frames, schema):
    validation = validate({"machines": frames["machines"]}, schema)
    assert validation.failures == ["telemetry: the table is missing; it is the only one that is required"]


WARNINGS = {
    "gap": (
        "telemetry",
        lambda frame, faults: faults.missing(frame, [10, 11, 2000]),
        "telemetry.datetime: comes after a gap of more than 60 minutes: 2 of 2,877 rows: "
        "row 11 (machineID 1, datetime 2015-01-01T18:00:00Z); row 1999 (machineID 3, datetime 2015-01-04T15:00:00Z);",
    ),
    "silent sensor": (
        "telemetry",
        lambda frame, _: frame.assign(volt=frame["volt"].where(frame.index % 10 > 0)),
        "telemetry.volt: has no reading in more than 5% of the rows: 288 of 2,880 rows: row 1 (",
    ),
    "machine without telemetry": (
        "machines",
        lambda frame, _: pd.concat([frame, frame.iloc[[0]].assign(machineID=9)]),
        "machines.machineID: is not in telemetry: 1 of 4 rows: row 4 (machineID 9);",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_be_right_only_warns(frames, schema, faults, name):
    damaged, said = _damaged(frames, faults, WARNINGS[name])
    validation = validate(damaged, schema)
    assert (validation.ok, validation.failures) == (True, [])
    assert len(validation.warnings) == 1
    assert validation.warnings[0].startswith(said)


def test_another_sampling_period_than_the_schemas_is_said(frames, schema):
    validation = validate(frames, replace(schema, sampling_minutes=50))
    assert validation.ok
    assert (
        "telemetry.datetime: most rows are not 50 minutes after the machine's previous one: found 60 in 2,880 rows; "
        "set schema.sampling_minutes in params.yaml to the sampling period"
    ) in validation.warnings


@pytest.mark.parametrize("minutes", [10, 360])
def test_a_sampling_period_that_is_wrong_by_far_is_refused(frames, schema, minutes):
    """Else machine-years, false alarms a year and the budget of alarms are off by the same factor."""
    assert validate(frames, replace(schema, sampling_minutes=minutes)).failures == [
        f"telemetry.datetime: the median step of a machine is not {minutes} minutes, so machine-years and what is "
        "counted in them are wrong: found 60 in 2,880 rows; "
        "set schema.sampling_minutes in params.yaml to the sampling period"
    ]


def test_machines_of_one_row_each_have_no_step(frames, schema):
    first = frames["telemetry"].groupby("machineID").head(1)
    assert validate(frames | {"telemetry": first}, schema).failures == []


def test_an_unread_csv_is_validated_like_typed_frames(folder, schema):
    """Text that reads as a time or a number is converted; other text is shown as it is in the file."""
    raw = {name: pd.read_csv(folder / f"PdM_{name}.csv", dtype=str) for name in ("telemetry", "errors", "machines")}
    assert validate(raw, schema).failures == []
    raw["telemetry"].loc[2, "vibration"] = "1,5"
    assert validate(raw, schema).failures == [
        "telemetry.vibration: is not a number: 1 of 2,880 rows: "
        "row 3 (machineID 1, datetime 2015-01-01T08:00:00Z, vibration 1,5); "
        "leave a missing value empty, or name what stands for it under read.missing in params.yaml"
    ]


VOLT = Usual(low=100.0, high=250.0, missing=0.1)


def _readings(frames, readings):
    """The frames with these readings of volt in the first rows."""
    telemetry = frames["telemetry"].copy()
    telemetry["volt"] = np.append(readings, np.full(len(telemetry) - len(readings), 170.0))
    return frames | {"telemetry": telemetry}


@pytest.mark.parametrize(("outside", "warned"), [(28, 0), (29, 1)])
def test_readings_outside_the_usual_range_warn_above_one_in_a_hundred(frames, schema, outside, warned):
    readings = [99.9, 250.1, 100.0, 250.0] + [99.0] * (outside - 2)
    validation = validate(_readings(frames, readings), schema, {"volt": VOLT})
    assert (validation.ok, validation.failures) == (True, [])
    assert len(validation.warnings) == warned
    for said in validation.warnings:
        assert said == (
            "telemetry.volt: lies outside 100 to 250, where 99.8% of the training data's readings lie: "
            "29 of 2,880 rows: "
            "row 1 (machineID 1, datetime 2015-01-01T06:00:00Z, volt 99.9); "
            "row 2 (machineID 1, datetime 2015-01-01T07:00:00Z, volt 250.1); "
            "row 5 (machineID 1, datetime 2015-01-01T10:00:00Z, volt 99.0); "
            "see whether the sensor or its work changed; a model trained on it learns the new range"
        )


@pytest.mark.parametrize(
    ("before", "silent", "said"),
    [
        (0.0, 28, ""),
        (
            0.0,
            29,
            "has no reading in more than 1% of the rows; the training data had none in 0.0%: 29 of 2,880 rows",
        ),
        (0.1, 604, ""),  # twice the gaps, and a hundredth
        (
            0.1,
            605,
            "has no reading in more than 21% of the rows; the training data had none in 10.0%: 605 of 2,880",
        ),
        (0.8, 2592, ""),  # half of the readings
        (
            0.8,
            2593,
            "has no reading in more than 90% of the rows; the training data had none in 80.0%: 2,593 of 2,880",
        ),
    ],
)
def test_a_sensor_that_is_silent_more_than_it_was_warns(frames, schema, before, silent, said):
    damaged = _readings(frames, [np.nan] * silent)
    validation = validate(damaged, schema, {"volt": replace(VOLT, missing=before)})
    assert (validation.ok, validation.failures) == (True, [])
    assert len(validation.warnings) == bool(said)
    assert not said or validation.warnings[0].startswith(f"telemetry.volt: {said}")


def test_training_data_of_other_sensors_changes_nothing(frames, schema):
    assert validate(frames, schema, {"oil": VOLT}).result["tables"].keys() == frames.keys()
    assert validate(frames, schema, {"oil": VOLT}).warnings == []


def test_frames_are_left_as_they_are(frames, schema):
    before = frames["telemetry"].copy()
    validate({"telemetry": frames["telemetry"]}, schema)
    pd.testing.assert_frame_equal(frames["telemetry"], before)


def test_no_copy_of_the_rows_is_left_in_memory(frames, schema):
    """great_expectations keeps what it was given last until the process ends, of a fleet that is 64 bytes a row."""
    before = {id(one) for one in gc.get_objects() if isinstance(one, pd.DataFrame)}
    validate(frames, schema)
    gc.collect()
    left = [one for one in gc.get_objects() if isinstance(one, pd.DataFrame) and id(one) not in before]
    assert [] == [list(one.columns) for one in left if one.size]


def test_the_result_is_json_with_the_verdict_and_every_expectation(frames, schema, faults, capfd):
    """The result is JSON, and great_expectations draws no progress bars."""
    frames["telemetry"] = faults.out_of_range(frames["telemetry"], [0], "volt", -1.0)
    validation = validate(frames, schema)
    result = json.loads(json.dumps(validation.result))
    assert result["ok"] is False
    assert result["failures"] == validation.failures
    assert set(result["tables"]) == {"telemetry", "errors", "maint", "failures", "machines"}
    telemetry = result["tables"]["telemetry"]
    assert telemetry["statistics"]["unsuccessful_expectations"] == 1
    failed = [one for one in telemetry["expectations"] if not one["success"]]
    assert [one["expectation_type"] for one in failed] == ["expect_column_values_to_be_between"]
    assert failed[0]["result"]["partial_unexpected_list"] == [-1.0]
    assert capfd.readouterr().err == ""


def page_of(frames, schema, folder):
    page = expectations.write_docs(validate(frames, schema), folder)
    assert page == folder / "index.html"
    assert list(folder.iterdir()) == [page]
    return page.read_text(encoding="utf-8")


def test_data_docs_are_one_page_that_fetches_nothing_and_shows_every_table(frames, schema, tmp_path):
    page = page_of(frames, schema, tmp_path / "docs")
    assert "The data is valid" in page
    for table in frames:
        asked = re.search(rf"<b>{table}</b>: (\d+) of (\d+) expectations met", page)
        assert asked[1] == asked[2] > "0"
    assert not any(word in page for word in ("<script", "<link", "src=", "url(", "@import"))
    assert not any(word in page for word in ("xception", "np.float64"))  # it shows what it cannot write as a traceback


def test_data_docs_begin_with_what_was_refused_and_open_its_table(frames, schema, tmp_path):
    frames["errors"] = _put("errorID", 1, "<script>alert(1)</script>")(frames["errors"], None)
    page = page_of(frames, schema, tmp_path / "docs")
    assert "The data was refused" in page
    assert re.findall(r"<details (open)?>\s*<summary><b>(\w+)", page.replace("<details>", "<details >")) == [
        ("open" if table == "errors" else "", table) for table in frames
    ]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2  # in our line, and among its unexpected values
    assert "<script" not in page


def test_a_rule_that_cannot_be_asked_is_never_a_pass():
    config = SimpleNamespace(type="expect_x", meta={"column": "volt", "rule": "is odd", "remedy": ""})
    crashed = SimpleNamespace(
        result={}, expectation_config=config, exception_info={"('metric', …)": {"raised_exception": True}}
    )
    with pytest.raises(RuntimeError, match=r"could not check whether telemetry\.volt is odd"):
        expectations._line("telemetry", pd.DataFrame(), crashed)


def test_a_cmapss_like_schema_without_error_codes_is_valid(tmp_path):
    rows = [[1, cycle, *range(24)] for cycle in range(1, 4)]
    (tmp_path / "train_FD001.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    schema = Schema.from_dict(sources.discover(tmp_path)["schema"])
    validation = validate(sources.read_frames(tmp_path, {}), schema)
    assert (validation.failures, validation.warnings) == ([], [])
