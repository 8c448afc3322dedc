"""A fleet read in parts gives the same tables as a fleet read as a whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake

from closedloop.data import sources, stream
from closedloop.data.schema import DataError, Events, Schema
from closedloop.data.stream import Stream

SCHEMA = Schema.from_dict(
    {
        "sensors": {"volt": [0, 500], "rotate": [0, 900]},
        "components": ["pump", "seal"],
        "errors": ["e1", "007"],
        "models": ["m"],
        "sampling_minutes": 60,
    }
)
NAMED = replace(SCHEMA, machine_id="text")
TIMES = pd.date_range("2020-01-01", periods=30, freq="h", tz="UTC")


@pytest.fixture
def frames():
    """Three machines, negative and large ids among them, rows in no order, readings missing."""
    rng = np.random.default_rng(0)
    ids = np.repeat([-5, 7, 2**53 + 1], len(TIMES))
    telemetry = pd.DataFrame({"datetime": np.tile(TIMES, 3), "machineID": ids})
    telemetry["volt"], telemetry["rotate"] = rng.normal(170, 9, (2, len(ids)))
    telemetry.loc[rng.random(len(ids)) < 0.1, "volt"] = np.nan
    telemetry["remark"] = "no column of ours"
    errors = pd.DataFrame({"datetime": TIMES[:3], "machineID": [7, 7, -5], "errorID": ["007", "e1", "007"]})
    maint = pd.DataFrame({"datetime": TIMES[:1], "machineID": [7], "comp": ["seal"]})
    machines = pd.DataFrame({"machineID": [7, 8], "model": ["m", "m"], "age": [3.0, 4.0]})
    return {
        "telemetry": telemetry.sample(frac=1, random_state=1, ignore_index=True),
        "errors": errors,
        "maint": maint,
        "machines": machines,
    }


def store(frames, folder, how, prefix="PdM_"):
    folder.mkdir(parents=True, exist_ok=True)
    for table, frame in frames.items():
        path = folder / f"{prefix}{table}"
        if how == "csv":
            frame.to_csv(path.with_suffix(".csv"), index=False)
        elif how == "parquet":
            frame.to_parquet(path.with_suffix(".parquet"), index=False)
        else:
            for half in (frame.iloc[::2], frame.iloc[1::2]):
                write_deltalake(path, half.reset_index(drop=True), mode="append")
    return folder


def all_of(parts):
    """The telemetry of the parts one after the other, and their events and descriptions."""
    parts = list(parts)
    return (
        np.concatenate([part.machine for part in parts]).tolist(),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.values for part in parts], axis=1),
        [Events(*(np.concatenate([getattr(getattr(part, name), column) for part in parts])
                  for column in ("machine", "time", "code"))) for name in ("errors", "maint")],
        np.concatenate([part.machine_ids for part in parts]).tolist(),
        len(parts),
    )  # fmt: skip


@pytest.mark.parametrize("how", ["csv", "parquet", "delta"])
@pytest.mark.parametrize("rows_at_once", [1, 60, 10**6])
def test_the_parts_together_are_the_tables_read_whole(how, rows_at_once, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "ROWS", 11)  # a machine's rows lie in several blocks
    whole = sources.frames_to_tables(frames, SCHEMA, {})
    found = Stream(store(frames, tmp_path / "fleet", how), SCHEMA, {})
    assert {-5: 30, 7: 30, 2**53 + 1: 30} == found.rows
    machines, time, values, events, described, count = all_of(found.parts(rows_at_once))
    assert {1: 3, 60: 2, 10**6: 1}[rows_at_once] == count
    assert whole.machine.tolist() == machines
    np.testing.assert_array_equal(whole.time, time)
    np.testing.assert_array_equal(whole.values, values)
    for expected, told in zip((whole.errors, whole.maint), events, strict=True):
        for column in ("machine", "time", "code"):
            np.testing.assert_array_equal(getattr(expected, column), getattr(told, column))
    assert [7] == described  # machine 8 has no telemetry


@pytest.mark.parametrize("how", ["csv", "parquet", "delta"])
def test_one_file_is_the_telemetry(how, frames, tmp_path):
    folder = store({"telemetry": frames["telemetry"]}, tmp_path / "fleet", how, prefix="")
    (path,) = folder.iterdir()
    (tables,) = Stream(path, SCHEMA, {}).parts(1000)
    assert (90, 0, 0) == (len(tables.time), len(tables.errors.time), len(tables.machine_ids))


def test_names_of_your_own_and_machines_with_names(frames, tmp_path):
    mapping = {"telemetry": {"when": "datetime", "asset": "machineID"}, "errors": {"asset": "machineID"}}
    names = {-5: "007", 7: "7", 2**53 + 1: " big"}  # in another order than the numbers
    telemetry = frames["telemetry"].rename(columns={"datetime": "when", "machineID": "asset"})
    errors = frames["errors"].rename(columns={"machineID": "asset"})
    for frame in (telemetry, errors):
        frame["asset"] = frame["asset"].map(names)
    telemetry.to_csv(tmp_path / "sensors.csv", index=False, sep=";")
    errors.to_csv(tmp_path / "alarms.csv", index=False)
    files = {"telemetry": "sensors.csv", "errors": "alarms.csv"}
    found = Stream(tmp_path, NAMED, mapping, files)
    assert ["007", "7", "big"] == list(found.rows)
    whole = sources.frames_to_tables(sources.read_frames(tmp_path, mapping, files, "text"), NAMED, {})
    for rows in (30, 60, 90):
        parts = list(found.parts(rows))
        assert [name for part in parts for name in part.names] == list(found.rows)
        called = np.concatenate([part.named(part.machine) for part in parts])
        np.testing.assert_array_equal(whole.named(whole.machine), called)
        np.testing.assert_array_equal(whole.values, np.concatenate([part.values for part in parts], axis=1))
        errors = np.concatenate([part.named(part.errors.machine) for part in parts])
        np.testing.assert_array_equal(whole.named(whole.errors.machine), errors)


@pytest.mark.parametrize("padding", ["", " "])
@pytest.mark.parametrize("how", ["csv", "parquet", "delta"])
def test_named_machines_are_read_in_parts_from_every_form(frames, tmp_path, how, padding):
    """Also where a file pads a name, so that it cannot choose rows by itself."""
    named = {table: frame.astype({"machineID": str}) for table, frame in frames.items()}
    named["telemetry"]["machineID"] += padding
    place = store(named, tmp_path / how, how)
    whole = sources.frames_to_tables(named, NAMED, {})
    parts = list(Stream(place, NAMED, {}).parts(31))
    assert 3 == len(parts)
    np.testing.assert_array_equal(whole.values, np.concatenate([part.values for part in parts], axis=1))
    assert [name for name in whole.names if name != "8"] == [name for part in parts for name in part.names]
    assert ["7"] == [name for part in parts for name in part.named(part.machine_ids)]


def test_files_that_are_written_in_another_way_are_read_in_blocks_too(frames, tmp_path, monkeypatch):
    """A file for each machine, with decimal commas, times of day apart, and readings in the long format."""
    monkeypatch.setattr(stream, "ROWS", 11)
    telemetry = frames["telemetry"].replace({"machineID": 2**53 + 1}, 9)
    whole = sources.frames_to_tables({"telemetry": telemetry}, SCHEMA, {})
    for machine, rows in telemetry.groupby("machineID"):
        at = pd.to_datetime(rows["datetime"], utc=True)
        apart = rows.drop(columns=["datetime", "machineID"]).assign(
            day=at.dt.strftime("%d.%m.%Y"), clock=at.dt.strftime("%H:%M:%S")
        )
        apart.to_csv(tmp_path / f"M{machine}.csv", index=False, sep=";", decimal=",")
    read = {"decimal": ",", "date_and_time": ["day", "clock"], "time_format": "%d.%m.%Y %H:%M:%S",
            "machine_from": "M{machine}.csv"}  # fmt: skip
    found = Stream(tmp_path, SCHEMA, {}, {"telemetry": "M*.csv"}, read)
    machines, times, values, *_ = all_of(found.parts(60))
    assert whole.machine.tolist() == machines
    np.testing.assert_array_equal(whole.time, times)
    np.testing.assert_allclose(whole.values, values, rtol=1e-12)

    long = telemetry.melt(["datetime", "machineID"], var_name="tag")
    long.to_csv(tmp_path / "long.csv", index=False)
    found = Stream(tmp_path, SCHEMA, {}, {"telemetry": "long.csv"}, {"tag": "tag", "value": "value"})
    machines, _, values, *_ = all_of(found.parts(60))
    assert whole.machine.tolist() == machines
    np.testing.assert_array_equal(whole.values, values)


def test_the_sheets_of_a_workbook_are_read_in_parts(frames, tmp_path):
    tables = {table: frame.replace({"machineID": 2**53 + 1}, 9) for table, frame in frames.items()}
    whole = sources.frames_to_tables(tables, SCHEMA, {})
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        for table, frame in tables.items():
            texts = {"datetime": frame["datetime"].astype("str")} if "datetime" in frame else {}
            frame.assign(**texts).to_excel(book, sheet_name=table, index=False)
    found = Stream(tmp_path, SCHEMA, {}, {table: f"book.xlsx/{table}" for table in tables}, {})
    machines, _, values, *_ = all_of(found.parts(60))
    assert whole.machine.tolist() == machines
    np.testing.assert_allclose(whole.values, values, rtol=1e-12)  # a workbook has 15 digits


def test_a_prefix_that_is_left_out_does_not_hide_the_rows_of_a_parquet_file(frames, tmp_path):
    """The file cannot choose the rows of machines by itself, since it has other names for them."""
    named = {"telemetry": frames["telemetry"].astype({"machineID": str})}
    whole = sources.frames_to_tables(named, NAMED, {})
    prefixed = named["telemetry"].assign(machineID="plant/" + named["telemetry"]["machineID"])
    prefixed.to_parquet(tmp_path / "PdM_telemetry.parquet", index=False)
    parts = list(Stream(tmp_path, NAMED, {}, read={"machine_prefix": "plant/"}).parts(31))
    assert 3 == len(parts)
    np.testing.assert_array_equal(whole.values, np.concatenate([part.values for part in parts], axis=1))


REFUSALS = {
    "no such place": (lambda folder, frames: None, "no such file or folder"),
    "no telemetry": (lambda folder, frames: store({"errors": frames["errors"]}, folder, "csv"), "no telemetry is"),
    "twice": (
        lambda folder, frames: [store(frames, folder, how) for how in ("csv", "delta")],
        "PdM_telemetry.csv and PdM_telemetry are the same table",
    ),
    "no rows": (
        lambda folder, frames: store({"telemetry": frames["telemetry"].head(0)}, folder, "csv"),
        "no rows; give at least one",
    ),
    "no bytes": (
        lambda folder, frames: (folder.mkdir(), (folder / "PdM_telemetry.csv").write_bytes(b"")),
        "PdM_telemetry.csv: cannot be read as csv: No columns",
    ),
    "no Parquet": (
        lambda folder, frames: (folder.mkdir(), (folder / "PdM_telemetry.parquet").write_bytes(b"hello")),
        "PdM_telemetry.parquet: cannot be read",
    ),
    "no Delta": (lambda folder, frames: (folder / "telemetry/_delta_log").mkdir(parents=True), "telemetry: cannot be"),
    "no machines": (
        lambda folder, frames: store({"telemetry": frames["telemetry"].drop(columns="machineID")}, folder, "parquet"),
        "telemetry.machineID: the column is missing",
    ),
    "a sensor missing": (
        lambda folder, frames: store({"telemetry": frames["telemetry"].drop(columns="volt")}, folder, "csv"),
        "telemetry.volt: the column is missing",
    ),
    "machine as a fraction": (
        lambda folder, frames: store(with_value(frames, "machineID", 1.5), folder, "csv"),
        "telemetry.machineID: '1.5' is not a whole number",
    ),
    "machine missing": (
        lambda folder, frames: store(with_value(frames, "machineID", None), folder, "parquet"),
        "telemetry.machineID: is missing in some row",
    ),
    "a reading as text": (
        lambda folder, frames: store(with_value(frames, "volt", "high"), folder, "csv"),
        "telemetry.volt: is not a number: 1 of 60 rows",
    ),
    "a code unknown": (
        lambda folder, frames: store(frames | {"errors": frames["errors"].assign(errorID="e9")}, folder, "csv"),
        "errors.errorID: is not one of e1, 007",
    ),
}


def with_value(frames, column, value):
    telemetry = frames["telemetry"].astype({column: object})
    telemetry.loc[3, column] = value
    return {**frames, "telemetry": telemetry}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_fit_is_refused_with_one_line_that_names_it(name, frames, tmp_path):
    make, why = REFUSALS[name]
    frames = {**frames, "telemetry": frames["telemetry"].replace({"machineID": 2**53 + 1}, 9)}
    make(tmp_path / "fleet", frames)
    with pytest.raises(DataError) as caught:
        list(Stream(tmp_path / "fleet", SCHEMA, {}).parts(60))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_says_whose_rows_it_counted(frames, tmp_path):
    broken = {**frames, "telemetry": frames["telemetry"].assign(volt=np.inf)}
    with pytest.raises(DataError, match=r"is infinite.*\(rows counted among those of machines -5 to 7\)"):
        list(Stream(store(broken, tmp_path / "fleet", "parquet"), SCHEMA, {}).parts(60))


def test_a_file_that_is_named_must_be_there_and_a_form_we_read(frames, tmp_path):
    with pytest.raises(DataError, match=r"files.telemetry: .*none.csv is not there"):
        Stream(tmp_path, SCHEMA, {}, {"telemetry": "none.csv"})
    (tmp_path / "table.docx").write_bytes(b"")
    with pytest.raises(DataError, match="neither a text file, a workbook, Parquet nor a Delta table"):
        Stream(tmp_path / "table.docx", SCHEMA, {})


def test_a_file_that_grows_meanwhile_is_noticed(frames, tmp_path):
    folder = store({"telemetry": frames["telemetry"].head(80)}, tmp_path / "fleet", "csv")
    found = Stream(folder, SCHEMA, {})
    store({"telemetry": frames["telemetry"]}, folder, "csv")
    with pytest.raises(DataError, match="the file changed while it was read"):
        list(found.parts(1000))
