"""Reading the five tables from files of any kind, writing them, and what is refused."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.data import sources
from closedloop.data.schema import HOUR_US, DataError, Events, Schema, Tables


def _utc(text):
    return int(pd.Timestamp(text, tz="UTC").value // 1000)


def _readings(tables):
    return tables.values


# --- files and back ---------------------------------------------------------------------------------------------------


def test_csv_files_of_the_reference_layout_give_the_tables(folder, simulation, schema):
    assert sources.read_tables(folder, schema, {}).fingerprint() == simulation.tables.fingerprint()


def test_written_tables_read_back_with_the_same_fingerprint(tmp_path, simulation, schema):
    sources.write_tables(simulation.tables, schema, tmp_path / "new")
    assert sources.read_tables(tmp_path / "new", schema, {}).fingerprint() == simulation.tables.fingerprint()


times = st.integers(0, 10**9).map(lambda seconds: seconds * 1_000_000)
readings = st.one_of(st.floats(-1e9, 1e9), st.just(float("nan")))


@st.composite
def any_tables(draw, schema):
    keys = draw(st.lists(st.tuples(st.integers(0, 2**40), times), unique=True, max_size=6))
    machine, time = np.array(keys, np.int64).reshape(-1, 2).T
    numbers = draw(st.lists(readings, min_size=4 * len(keys), max_size=4 * len(keys)))

    def events(codes):
        rows = draw(st.lists(st.tuples(st.integers(0, 9), times, st.integers(0, codes - 1)), max_size=4))
        columns = np.array(rows, np.int64).reshape(-1, 3).T
        return Events.of(columns[0], columns[1], columns[2].astype(np.int16))

    ids = draw(st.lists(st.integers(0, 2**40), unique=True, max_size=4))
    models = np.array([draw(st.integers(-1, 3)) for _ in ids], np.int16)
    ages = np.array([draw(st.one_of(st.floats(0, 99), st.just(float("nan")))) for _ in ids])
    failures = draw(st.sampled_from([None, Events.empty(), events(4)]))
    described = (np.array(ids, np.int64), models, ages)
    return Tables.of(machine, time, np.array(numbers).reshape(4, -1), events(5), events(4), failures, described)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_tables_survive_frames_and_files(data, schema, tmp_path_factory):
    """Missing readings, models and ages, empty tables and the absence of failures included."""
    tables = data.draw(any_tables(schema))
    frames = sources.tables_to_frames(tables, schema)
    assert sources.frames_to_tables(frames, schema, {}).fingerprint() == tables.fingerprint()
    folder = tmp_path_factory.mktemp("tables")
    sources.write_tables(tables, schema, folder)
    assert sources.read_tables(folder, schema, {}).fingerprint() == tables.fingerprint()


def test_tables_without_failures_do_not_inherit_those_of_an_earlier_writing(tmp_path, simulation, schema):
    sources.write_tables(simulation.tables, schema, tmp_path)
    sources.write_tables(replace(simulation.tables, failures=None), schema, tmp_path)
    assert sources.read_tables(tmp_path, schema, {}).failures is None


def test_only_telemetry_is_required(folder, schema):
    for name in ("errors", "maint", "failures", "machines"):
        (folder / f"PdM_{name}.csv").unlink()
    tables = sources.read_tables(folder, schema, {})
    assert tables.failures is None
    assert [len(tables.errors.time), len(tables.maint.time), len(tables.machine_ids)] == [0, 0, 0]


def test_a_location_says_what_it_holds(folder):
    (folder / "PdM_maint.csv").unlink()
    assert sources.discover(folder) == {
        "format": "azure-pdm",
        "source": folder.name,
        "tables": ["telemetry", "errors", "failures", "machines"],
        "split": None,
        "schema": None,
    }


# --- times, names and types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2015-01-04 06:00:00", "2015-01-04T06:00:00"),
        ("2015-01-04T06:00:00Z", "2015-01-04T06:00:00"),
        ("2015-01-04T06:00:00.250+00:00", "2015-01-04T06:00:00.250"),
        ("2015-01-04 06:00:00+02:00", "2015-01-04T04:00:00"),
        ("2015-01-04T06:00:00-05:30", "2015-01-04T11:30:00"),
    ],
)
def test_times_without_an_offset_are_utc_and_others_are_converted(tmp_path, schema, text, utc):
    """Also side by side in one column."""
    head = "datetime,machineID,volt,rotate,pressure,vibration\n"
    (tmp_path / "PdM_telemetry.csv").write_text(f"{head}{text},1,1,2,3,4\n2016-01-01 00:00:00,1,1,2,3,4\n")
    assert sources.read_tables(tmp_path, schema, {}).time.tolist() == [_utc(utc), _utc("2016-01-01")]


@pytest.mark.parametrize(
    "dtype", ["datetime64[s]", "datetime64[ns]", "datetime64[us, UTC]", "datetime64[ms, Asia/Tokyo]"]
)
def test_typed_times_of_any_unit_and_zone_are_converted(frames, simulation, schema, dtype):
    unit, *zone = dtype[11:-1].split(", ")
    times = frames["telemetry"]["datetime"].dt.as_unit(unit)
    times = times.dt.tz_convert(zone[0]) if zone else times.dt.tz_localize(None)
    assert str(times.dtype) == dtype
    frames["telemetry"]["datetime"] = times
    assert sources.frames_to_tables(frames, schema, {}).fingerprint() == simulation.tables.fingerprint()


def test_columns_are_renamed_as_params_yaml_says(folder, simulation, schema):
    for name, names in (
        ("telemetry", {"datetime": "timestamp", "machineID": "asset"}),
        ("errors", {"errorID": "code"}),
    ):
        path = folder / f"PdM_{name}.csv"
        pd.read_csv(path).rename(columns=names).to_csv(path, index=False)
    columns = {"telemetry": {"timestamp": "datetime", "asset": "machineID"}, "errors": {"code": "errorID"}}
    assert sources.read_tables(folder, schema, columns).fingerprint() == simulation.tables.fingerprint()


def test_frames_are_renamed_too_and_two_columns_may_change_places(frames, simulation, schema):
    frames["telemetry"] = frames["telemetry"].rename(columns={"volt": "rotate", "rotate": "volt"})
    columns = {"telemetry": {"volt": "rotate", "rotate": "volt"}}
    assert sources.frames_to_tables(frames, schema, columns).fingerprint() == simulation.tables.fingerprint()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"telemtry": {}}, "'telemtry' must be one of telemetry, errors, maint, failures, machines"),
        ({"telemetry": "datetime"}, "'telemetry' must be one of"),
        (
            {"telemetry": {"when": "datetime"}},
            "columns.telemetry: the table has no column 'when', only datetime, machineID",
        ),
        ({"telemetry": {"volt": "rotate"}}, "'volt' is mapped to 'rotate', but the table already has a"),
        ({"telemetry": {"volt": "a", "rotate": "a"}}, "columns.telemetry: two columns have the same new name"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(folder, columns, said):
    with pytest.raises(DataError) as refused:
        sources.read_frames(folder, columns)
    assert said in str(refused.value)


def test_codes_stay_text_and_leading_zeros_stay(tmp_path, schema):
    schema = replace(schema, sensors=("volt",), ranges=((0, 1),), errors=("007", "7"), models=("1", "2"))
    (tmp_path / "PdM_telemetry.csv").write_text("datetime,machineID,volt\n2015-01-01,1,1\n")
    (tmp_path / "PdM_errors.csv").write_text("datetime,machineID,code\n2015-01-01,1,7\n2015-01-02,1,007\n")
    (tmp_path / "PdM_machines.csv").write_text("machineID,model,age\n1,2,3\n")
    tables = sources.read_tables(tmp_path, schema, {"errors": {"code": "errorID"}})
    assert tables.errors.code.tolist() == [1, 0]
    assert tables.machine_model.tolist() == [1]


def test_a_sensor_may_be_called_like_a_column_of_another_table(schema):
    schema = replace(schema, sensors=("model", "comp"), ranges=((0, 1), (0, 1)))
    frame = pd.DataFrame({"datetime": ["2015-01-01"], "machineID": [1], "model": [0.5], "comp": [0.25]})
    assert _readings(sources.frames_to_tables({"telemetry": frame}, schema, {})).tolist() == [[0.5], [0.25]]


def test_columns_that_nobody_asked_for_are_left_aside(frames, simulation, schema):
    frames["telemetry"]["note"] = "fine"
    assert sources.frames_to_tables(frames, schema, {}).fingerprint() == simulation.tables.fingerprint()


def test_an_empty_cell_is_a_missing_reading(tmp_path, schema):
    head = "datetime,machineID,volt,rotate,pressure,vibration\n"
    (tmp_path / "PdM_telemetry.csv").write_text(f"{head}2015-01-01,1,,2,3,4\n")
    values = _readings(sources.read_tables(tmp_path, schema, {}))
    assert np.array_equal([[np.nan], [2.0], [3.0], [4.0]], values, equal_nan=True)


# --- refusals ---------------------------------------------------------------------------------------------------------


def _change(table, column, values):
    """Put these values into the first rows of a column."""

    def change(frames):
        frame = frames[table]
        mixed = frame[column].astype(object)
        mixed.iloc[: len(values)] = values
        frames[table] = frame.assign(**{column: mixed})

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_change("telemetry", "datetime", ["soon"] * 4), "telemetry.datetime: is not a time: 4 of 2,880 rows: row 1 ("),
        (_change("telemetry", "datetime", ["2015-02-30"]), "telemetry.datetime: is not a time: 1 of 2,880 rows"),
        (
            _change("telemetry", "datetime", [None]),
            "row 1 (machineID 1, datetime missing); fill it in",
        ),
        (_change("errors", "machineID", ["M1"]), "errors.machineID: is not a whole number: 1 of "),
        (_change("errors", "machineID", [1.5]), "errors.machineID: is not a whole number: 1 of "),
        (_change("errors", "machineID", [2.0**63]), "errors.machineID: is not a whole number: 1 of "),
        (_change("telemetry", "machineID", [None]), "telemetry.machineID: is missing: 1 of 2,880 rows: row 1 ("),
        (
            _change("telemetry", "volt", ["n/a"]),
            "datetime 2015-01-01T06:00:00Z, volt n/a); leave a missing value empty",
        ),
        (_change("telemetry", "volt", [float("inf")]), "telemetry.volt: is infinite: 1 of 2,880 rows"),
        (_change("maint", "comp", ["comp9"]), "maint.comp: is not one of comp1, comp2, comp3, comp4: 1 of "),
        (_change("failures", "failure", [None]), "failures.failure: is missing: 1 of "),
        (_change("machines", "model", ["m9", "m8"]), "2 of 3 rows: row 1 (machineID 1, model m9); row 2 (machineID 2,"),
        (_change("machines", "machineID", [3]), "machines.machineID: the key occurs twice: 1 of 3 rows: row 3"),
        (lambda frames: frames["telemetry"].pop("rotate"), "telemetry.rotate: the column is missing; the table has "),
        (lambda frames: frames["telemetry"].pop("rotate"), "add it, or map yours under columns.telemetry in params.y"),
        (lambda frames: frames["machines"].pop("age"), "machines.age: the column is missing"),
        (lambda frames: frames.pop("telemetry"), "telemetry: the table is missing"),
        (lambda frames: frames.update(sensors=frames["machines"]), "sensors: not a table; known are telemetry, errors"),
    ],
)
def test_a_refusal_names_table_column_rule_count_rows_and_remedy(frames, schema, damage, said):
    damage(frames)
    with pytest.raises(DataError) as refused:
        sources.frames_to_tables(frames, schema, {})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("column", ["datetime", "machineID", "volt"])
def test_a_column_of_another_kind_is_refused_whole(frames, schema, column):
    """A number is not a time, a truth value is not a machine, a time is not a reading."""
    wrong = {"datetime": 1_420_092_000, "machineID": True, "volt": pd.Timestamp("2015-01-01")}[column]
    frames["telemetry"][column] = wrong
    with pytest.raises(DataError, match=rf"telemetry.{column}: is not a .*: 2,880 of 2,880 rows"):
        sources.frames_to_tables(frames, schema, {})


def test_a_duplicate_telemetry_key_is_refused_with_three_of_its_rows(frames, schema, faults):
    frames["telemetry"] = faults.duplicate(frames["telemetry"], [5, 6, 7, 8])
    with pytest.raises(DataError) as refused:
        sources.frames_to_tables(frames, schema, {})
    assert str(refused.value) == (
        "telemetry.machineID, datetime: the key occurs twice: 4 of 2,884 rows: "
        "row 7 (machineID 1, datetime 2015-01-01T11:00:00Z); row 9 (machineID 1, datetime 2015-01-01T12:00:00Z); "
        "row 11 (machineID 1, datetime 2015-01-01T13:00:00Z); see which column tells these rows apart, "
        "and map it under columns in params.yaml, or correct the time"
    )


def test_rows_out_of_order_are_sorted(frames, simulation, schema, faults):
    frames["telemetry"] = faults.out_of_order(frames["telemetry"], [3, 900, 1500])
    assert sources.frames_to_tables(frames, schema, {}).fingerprint() == simulation.tables.fingerprint()


def test_unreadable_places_and_files_are_refused(tmp_path, folder, schema):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        sources.discover(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no data is recognised; put PdM_telemetry\.csv"):
        sources.read_frames(empty, {})
    (folder / "PdM_errors.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"PdM_errors\.csv and PdM_errors\.parquet are the same table"):
        sources.read_tables(folder, schema, {})
    (folder / "PdM_errors.csv").unlink()
    with pytest.raises(DataError, match=r"PdM_errors\.parquet: cannot be read as parquet"):
        sources.read_tables(folder, schema, {})
    (folder / "PdM_errors.parquet").unlink()
    for broken in (b"", b"\xff\xfe\x00", b'datetime,machineID\n"1,2\n'):
        (folder / "PdM_errors.csv").write_bytes(broken)
        with pytest.raises(DataError, match=r"PdM_errors\.csv: cannot be read as csv"):
            sources.read_tables(folder, schema, {})


# --- anomalies --------------------------------------------------------------------------------------------------------


def test_anomalies_are_read_beside_the_tables(folder, simulation):
    assert sources.read_anomalies(folder) is None
    simulation.anomalies.to_parquet(folder / "anomalies.parquet", index=False)
    assert sources.read_anomalies(folder).equals(simulation.anomalies)
    (folder / "anomalies.parquet").unlink()
    simulation.anomalies.to_csv(folder / "PdM_anomalies.csv", index=False)
    assert sources.read_anomalies(folder).equals(simulation.anomalies)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("machineID,start\n1,2015-01-01\n", "the column end is missing"),
        ("machineID,start,end\n1,2015-01-01,later\n", "end is missing or is not a time in some rows"),
        ("machineID,start,end\n,2015-01-01,2015-01-01\n", "machineID is missing or is not a whole number in some rows"),
    ],
)
def test_anomalies_without_an_interval_are_refused(folder, text, said):
    (folder / "anomalies.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        sources.read_anomalies(folder)


# --- public sets ------------------------------------------------------------------------------------------------------


def _read(location):
    found = sources.discover(location)
    schema = Schema.from_dict(found["schema"])
    return found, schema, sources.read_tables(location, schema, {})


def _cmapss_rows(cycles):
    """Unit u lives cycles[u - 1] cycles; each reading tells its column, unit and cycle."""
    rows = [
        [unit, cycle, *(100 * column + unit + cycle / 1000 for column in range(24))]
        for unit, last in enumerate(cycles, start=1)
        for cycle in range(1, last + 1)
    ]
    return "".join(" ".join(map(str, row)) + "  \n" for row in rows)


def test_cmapss_units_run_to_failure(tmp_path):
    with gzip.open(tmp_path / "train_FD001.txt.gz", "wt") as file:
        file.write(_cmapss_rows([3, 5]))
    found, schema, tables = _read(tmp_path)
    assert (found["format"], found["split"]) == ("cmapss", {"rule": "unit"})
    assert found["tables"] == ["telemetry", "failures", "machines"]
    assert schema.sensors == ("setting1", "setting2", "setting3", *(f"sensor{i}" for i in range(1, 22)))
    assert (schema.components, schema.models) == (("engine",), ("FD001",))
    assert tables.machine.tolist() == [1] * 3 + [2] * 5
    assert np.all(np.diff(tables.time[tables.machine == 2]) == HOUR_US)
    last = [tables.time[tables.machine == unit][-1] for unit in (1, 2)]
    assert tables.failures.time.tolist() == last
    assert _readings(tables)[23].tolist() == [
        2300 + unit + c / 1000 for unit, n in ((1, 3), (2, 5)) for c in range(1, n + 1)
    ]
    assert sources.read_anomalies(tmp_path) is None


def test_cmapss_subsets_do_not_share_units_and_a_file_is_a_place(tmp_path):
    for subset in ("FD001", "FD003"):
        (tmp_path / f"train_{subset}.txt").write_text(_cmapss_rows([2]))
    _, schema, tables = _read(tmp_path)
    assert tables.machine_ids.tolist() == [1001, 3001]
    assert schema.models == ("FD001", "FD003")
    assert tables.machine_model.tolist() == [0, 1]
    assert _read(tmp_path / "train_FD003.txt")[2].machine_ids.tolist() == [1]


SKAB_HEAD = "datetime;Accelerometer1RMS;Volume Flow RateRMS"


def test_skab_files_are_machines_and_readings_are_minutes(tmp_path):
    """A skipped second is not a gap; each run of anomaly = 1 is one interval, both ends included."""
    (tmp_path / "valve1").mkdir()
    flags = [0, 1, 1, 0, 1]
    rows = [f"2020-03-09 10:14:3{2 * i};{i}.5;32.0;{flag}.0;0.0" for i, flag in enumerate(flags)]
    (tmp_path / "valve1" / "12.csv").write_text("\n".join([f"{SKAB_HEAD};anomaly;changepoint", *rows]))
    (tmp_path / "anomaly-free.csv").write_text(f"{SKAB_HEAD}\n2020-02-08 13:30:47;1.5;2.5\n")
    found, schema, tables = _read(tmp_path)
    assert (found["format"], found["tables"]) == ("skab", ["telemetry"])
    assert found["split"] == {"rule": "prefix", "prefix": 400}  # the published protocol
    assert (schema.sensors, schema.sampling_minutes) == (("Accelerometer1RMS", "Volume Flow RateRMS"), 1)
    assert tables.machine.tolist() == [0] + [112] * 5
    minute = 60_000_000
    start = _utc("2020-03-09 10:14:30")
    assert tables.time[1:].tolist() == [start + i * minute for i in range(5)]
    assert _readings(tables)[0].tolist() == [1.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert tables.failures is None
    anomalies = sources.read_anomalies(tmp_path)
    assert anomalies["machineID"].tolist() == [112, 112]
    spans = [[_utc(str(t)[:19]) for t in anomalies[name]] for name in ("start", "end")]
    assert spans == [[start + 1 * minute, start + 4 * minute], [start + 2 * minute, start + 4 * minute]]
    assert _read(tmp_path / "valve1")[2].machine_ids.tolist() == []
    assert set(_read(tmp_path / "valve1")[2].machine.tolist()) == {112}


NAB = "timestamp,value\n" + "".join(
    f"2013-12-02 21:{minute}:00,{value}\n" for minute, value in ((15, 73.9), (20, 74.9), (15, 1.0), (25, 75.1))
)


def test_nab_series_are_machines_with_labelled_windows(tmp_path):
    """Of readings that repeat a time, as when clocks go back, the first counts."""
    (tmp_path / "b.csv").write_text(NAB)
    (tmp_path / "a.csv").write_text(NAB)
    window = ["2013-12-02 21:20:00.000000", "2013-12-02 21:25:00.000000"]
    (tmp_path / "windows.json").write_text(json.dumps({"realKnownCause/b.csv": [window], "x/c.csv": [window]}))
    found, schema, tables = _read(tmp_path)
    assert (found["format"], found["split"]) == ("nab", {"rule": "prefix", "prefix": 0.15})
    assert (schema.sensors, schema.sampling_minutes) == (("value",), 5)
    assert tables.machine.tolist() == [1, 1, 1, 2, 2, 2]
    assert _readings(tables).tolist() == [[73.9, 74.9, 75.1] * 2]
    anomalies = sources.read_anomalies(tmp_path)
    assert anomalies["machineID"].tolist() == [2]
    assert [_utc(str(anomalies[name][0])[:19]) for name in ("start", "end")] == [_utc(text[:19]) for text in window]
    assert anomalies["kind"].tolist() == ["labelled"]
    (tmp_path / "windows.json").unlink()
    assert sources.read_anomalies(tmp_path).empty


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train_FD001.txt", "1 1 2 3\n", "not a C-MAPSS table of unit, cycle and 24 readings"),
        ("train_FD001.txt", "", "not a C-MAPSS table"),
        ("train_FD001.txt", _cmapss_rows([1]).replace("1 1 ", "one 1 "), "not a C-MAPSS table"),
        ("valve9.csv", "datetime;Accelerometer1RMS;x\n", "not a file of SKAB; its files are anomaly-free.csv and"),
        ("anomaly-free.csv", "datetime;Accelerometer1RMS;x\n", "not a table of SKAB"),
        ("anomaly-free.csv", "datetime;Accelerometer1RMS;x\nsoon;1;2\n", "not a table of SKAB"),
        ("series.csv", "timestamp,value\nsoon,1\n", "not a series of NAB"),
    ],
)
def test_a_public_set_that_cannot_be_read_is_refused_with_its_name(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: {said}"):
        sources.discover(tmp_path)


def test_nab_windows_of_another_form_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text(NAB)
    for text in ("[1]", "{"):
        (tmp_path / "windows.json").write_text(text)
        with pytest.raises(DataError, match=r"windows\.json: not the windows of NAB"):
            sources.read_anomalies(tmp_path)
