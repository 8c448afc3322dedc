"""Which file of an unknown folder is taken for which table, and which column for which."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.guess import guess
from closedloop.data.schema import DataError


@pytest.fixture
def put(tmp_path):
    """Write frames, or text, as files of a folder."""

    def write(**files):
        for stem, content in files.items():
            if isinstance(content, str):
                (tmp_path / f"{stem}.csv").write_text(content)
            else:
                content.to_csv(tmp_path / f"{stem}.csv", index=False)
        return tmp_path

    return write


def readings(**more):
    """Three machines, ten readings each, with unknown column names."""
    time = pd.date_range("2026-01-01", periods=10, freq="10min").strftime("%Y-%m-%d %H:%M:%S")
    rows = {"timestamp": np.tile(time, 3), "asset": np.repeat(["a", "b", "c"], 10), "temp": np.arange(30) / 4}
    return pd.DataFrame(rows | more)


def events(**code):
    return pd.DataFrame({"when": ["2026-01-01 01:00", "2026-01-01 02:00"], "asset": ["a", "c"]} | code)


MAPPED = {"timestamp": "datetime", "asset": "machineID"}
WHEN = {"when": "datetime", "asset": "machineID"}


def test_a_folder_of_a_strangers_tables_is_understood(put):
    folder = put(
        sensors=readings(rpm=np.arange(30)),
        breakdowns=events(part=["seal", "shaft"], cost=[12.5, 3.0]),
        service_orders=events(item=["seal", "seal"], hours=[1.5, 2.0]),
        alarms=events(code=[7, 9]),
        assets=pd.DataFrame({"asset": ["a", "b", "c"], "type": ["x", "x", "y"], "age_years": [1, 2, 3]}),
    )
    found = guess(folder)
    assert found.files == {
        "telemetry": "sensors.csv",
        "failures": "breakdowns.csv",
        "maint": "service_orders.csv",
        "errors": "alarms.csv",
        "machines": "assets.csv",
    }
    assert found.columns == {
        "telemetry": MAPPED,
        "failures": WHEN | {"part": "failure"},
        "maint": WHEN | {"item": "comp"},
        "errors": WHEN | {"code": "errorID"},
        "machines": {"asset": "machineID", "type": "model", "age_years": "age"},
    }
    assert found.sensors == ["temp", "rpm"]
    assert found.faults == []


def test_the_reference_layout_needs_no_names_and_no_mapping(folder):
    found = guess(folder)
    assert (found.files, found.faults) == ({}, [])
    assert set(found.columns) == {"telemetry", "errors", "maint", "failures", "machines"}
    assert not any(found.columns.values())
    assert found.sensors == ["volt", "rotate", "pressure", "vibration"]


def test_machines_of_the_reference_layout_may_lack_a_column(folder):
    machines = pd.read_csv(folder / "PdM_machines.csv").drop(columns="age")
    machines.to_csv(folder / "PdM_machines.csv", index=False)
    assert set(guess(folder).columns) == {"telemetry", "errors", "maint", "failures", "machines"}
    frames = sources.read_frames(folder, {}, read={})
    assert frames["machines"]["age"].isna().all()


def test_parquet_and_times_with_a_type_are_read_as_well(tmp_path):
    frame = readings()
    frame.assign(timestamp=pd.to_datetime(frame["timestamp"])).to_parquet(tmp_path / "scada_export.parquet")
    found = guess(tmp_path)
    assert (found.files, found.columns) == ({"telemetry": "scada_export.parquet"}, {"telemetry": MAPPED})


def test_semicolons_and_tabs_separate_too(put, tmp_path):
    for separator in (";", "\t"):
        readings().to_csv(tmp_path / "sensors.csv", index=False, sep=separator)
        assert guess(tmp_path).sensors == ["temp"]


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("operator", ["Ann"] * 30, "operator (text: Ann 30)"),
        ("anomaly", [0, 1] * 15, "anomaly (a label: a model must not see it)"),
        ("RUL", range(30), "RUL (a label: a model must not see it)"),
        ("spare", [np.nan] * 30, "spare (empty)"),
        ("Unnamed: 0", range(30), "Unnamed: 0 (a row number)"),
    ],
)
def test_a_column_that_only_looks_like_a_sensor_is_left_aside_with_the_reason(put, column, values, why):
    found = guess(put(sensors=readings(**{column: values})))
    assert found.sensors == ["temp"]
    assert found.aside["sensors.csv"] == [f"not a sensor: {why}"]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (readings().drop(columns="asset"), "several rows at one time and no column that says which machine"),
        (readings(timestamp=["05/01/2026 10:00"] * 30), 'TIME_FORMAT="%d/%m/%Y %H:%M" or TIME_FORMAT="%m/%d/%Y %H:%M"'),
        (readings(temp=["high"] * 30), "export the readings of your sensors as one table"),
    ],
)
def test_what_telemetry_lacks_is_said_with_what_settles_it(put, frame, says):
    found = guess(put(sensors=frame))
    assert len(found.faults) == 1
    assert says in found.faults[0]


def test_events_without_a_code_are_a_fault(put):
    found = guess(put(sensors=readings(), failures=events(cost=[1.5, 2.5])))
    assert found.faults == ["failures.csv looks like failures and lacks a column that says which component failed"]


def test_a_log_of_readings_is_telemetry_whatever_its_name(put):
    found = guess(put(machine_log=readings(rpm=np.arange(30))))
    assert found.files == {"telemetry": "machine_log.csv"}


def test_a_long_log_of_one_sensor_is_telemetry_too(put):
    rows = pd.concat([readings()] * 4).assign(timestamp=pd.date_range("2026-01-01", periods=120, freq="h").astype(str))
    assert guess(put(log=rows)).sensors == ["temp"]


def test_two_files_with_the_same_columns_are_one_table(put):
    found = guess(put(january=readings(), february=readings().head(20)))
    assert found.files == {"telemetry": "*.csv"}
    assert found.names == {"telemetry": "february.csv and 1 more of the same columns"}


def test_two_files_of_one_table_with_other_columns_are_not_mixed_up(put):
    found = guess(put(january=readings(), february=readings(rpm=range(30))))
    assert found.files == {"telemetry": "february.csv"}
    assert found.aside["january.csv"] == [
        "looks like telemetry, as february.csv does, with other columns: give it the same columns if it is"
    ]


@pytest.mark.parametrize("name", ["Unplanned stops", "stoppages", "Stillstände"])
def test_stops_with_minutes_lost_are_failures_and_no_second_telemetry(put, name):
    found = guess(put(**{"sensors": readings(), name: events(cause=["belt", "motor"], minutes=[12.5, 40.0])}))
    assert found.columns["failures"] == WHEN | {"cause": "failure"}
    assert (found.sensors, found.faults) == (["temp"], [])


def test_a_table_of_events_without_a_telling_name_is_told_what_to_be_called(put):
    found = guess(put(sensors=readings(), book=events(cause=["belt", "motor"], minutes=[12.5, 40.0])))
    assert "book.csv" in found.aside
    assert "if each row is an event, say which kind in its name, such as failures (cause)" in found.aside["book.csv"][0]


def test_a_file_of_something_else_is_left_aside(put):
    found = guess(put(sensors=readings(), costs="item,price\nbolt,3\nnut,1\n", broken='a,b\n"1,2\n'))
    assert found.aside["costs.csv"] == ["no column of times was found in it"]
    assert "cannot be read as csv" in found.aside["broken.csv"][0]
    assert [found.aside["broken.csv"][0] in fault for fault in found.faults] == [True]  # rows would be lost


def test_a_place_without_tables_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.csv, \.parquet or \.xlsx file; export"):
        guess(tmp_path)
    with pytest.raises(DataError, match="is not a folder; give the folder"):
        guess(tmp_path / "none")
