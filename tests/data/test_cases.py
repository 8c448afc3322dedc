"""What ``make data-check`` says of files as people have them: each kind of file, and others of the same kind."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sniff, sources
from closedloop.data.reading import Read
from closedloop.data.schema import DataError
from model import data_check
from model.common import cli, params, proposed_params

PROPOSED = Path("build/data-check/params.yaml")
HOURS = 240


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def put(tmp_path):
    """Write files into a folder: a frame as CSV, text and bytes as they are."""

    def write(**contents):
        place = tmp_path / "plant"
        for name, content in contents.items():
            path = place / name.replace("__", "/").replace("_dot_", ".")
            path = path if "." in path.name else path.with_suffix(".csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pd.DataFrame):
                content.to_csv(path, index=False)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return place

    return write


@pytest.fixture
def check(capsys):
    """Check a folder; return the exit code, what was printed, and the first fix."""

    def run(place, *words):
        code = data_check.main(["--source", str(place), *words])
        said = capsys.readouterr().out
        return code, said, said.partition("  1. ")[2].partition("\n")[0]

    return run


def machines(place, table="telemetry"):
    """The machines of a table, as the proposed parameters read them."""
    asked = params.load(PROPOSED)
    frames = sources.read_frames(place, asked.columns, asked.files, asked.schema.machine_id, asked.read)
    return set(frames[table]["machineID"])


def fleet(machines=(1, 2, 3), hours=HOURS, start="2024-01-15"):
    """Hourly readings of a few machines, oldest first."""
    rng = np.random.default_rng(7)
    times = pd.date_range(start, periods=hours, freq="h").astype("str")
    parts = [
        pd.DataFrame(
            {
                "time": times,
                "machine": name,
                "temp": rng.normal(61, 2, hours).round(2),
                "vib": rng.normal(1.9, 0.2, hours).round(3),
                "press": rng.normal(4.9, 0.4, hours).round(3),
            }
        )
        for name in machines
    ]
    return pd.concat(parts, ignore_index=True)


def one(**more):
    """The readings of one machine, without a column that names it."""
    return fleet((1,)).drop(columns="machine").assign(**more)


def failures(machines=(1, 2, 3)):
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-01-20 11:00", periods=9, freq="7h").astype("str"),
            "machine": [machines[k % 3] for k in range(9)],
            "component": ["seal", "bearing", "bearing"] * 3,
        }
    )


def table(frame, **options):
    return frame.to_csv(index=False, **options)


def times_as(form, **options):
    """Readings with their times in another form."""
    frame = fleet(**options)
    return frame.assign(time=pd.to_datetime(frame["time"]).dt.strftime(form))


def fits(outcome, sensors=("temp", "vib", "press"), machines=3):
    """Assert that a run would work with these sensors and so many machines; return the proposal."""
    code, said, _ = outcome
    assert code == cli.DONE, said
    asked = params.load(PROPOSED)
    assert asked.schema.sensors == tuple(sensors)
    assert f"{'machines' if machines > 1 else 'machine'}, 20" in said.partition(f" rows of {machines} ")[2], said
    return asked


# --- how a file is written --------------------------------------------------------------------------------------------

FITS = {
    "plain": lambda: {"readings": fleet(), "failures": failures()},
    "bom": lambda: {"readings": "\ufeff" + table(fleet())},
    "crlf": lambda: {"readings": table(fleet(), lineterminator="\r\n")},
    "iso_slash": lambda: {"readings": times_as("%Y/%m/%d %H:%M")},
    "iso_zone": lambda: {"readings": times_as("%Y-%m-%dT%H:%M:%S+0200")},
    "utc_word": lambda: {"readings": times_as("%Y-%m-%d %H:%M:%S UTC")},
    "leap_day": lambda: {"readings": fleet(start="2024-02-25")},
    "upper": lambda: {"READINGS_dot_CSV": table(fleet())},
    "tab_txt": lambda: {"readings_dot_txt": table(fleet(), sep="\t")},
    "gz": lambda: {"readings_dot_csv_dot_gz": gzip.compress(table(fleet()).encode())},
    "pipe_sep": lambda: {"readings": table(fleet(), sep="|")},
    "utf16": lambda: {"readings": table(fleet(), sep="\t").encode("utf-16")},
    "preamble": lambda: {"readings": "Historian export\nPlant: 7\n\n" + table(fleet())},
    "sep_line": lambda: {"readings": "sep=;\n" + table(fleet(), sep=";")},
    "semicolon_comma": lambda: {"readings": table(fleet(), sep=";", decimal=",")},
    "subfolders": lambda: {"2024__readings": fleet()},
    "quoted_decimal_comma": lambda: {"readings": table(fleet(), decimal=",")},
    "dayfirst_dot": lambda: {"readings": times_as("%d.%m.%Y %H:%M")},
    "dayfirst_slash": lambda: {"readings": times_as("%d/%m/%Y %H:%M:%S")},
    "american": lambda: {"readings": times_as("%m/%d/%Y %I:%M %p")},
    "month_name": lambda: {"readings": times_as("%d-%b-%Y %H:%M:%S")},
    "compact": lambda: {"readings": times_as("%Y%m%d%H%M%S")},
    "nan": lambda: {"readings": fleet().assign(temp=lambda f: f["temp"].where(f.index % 90 > 2))},
    "dashes": lambda: {"readings": spoiled(fleet().astype({"temp": object}), "temp", "-", 20)},
    "unsorted": lambda: {"readings": fleet()[::-1]},
    "dup_rows": lambda: {"readings": pd.concat([fleet(), fleet().head(5)])},
    "float_ids": lambda: {"readings": fleet((12.0, 13.0, 14.0)), "failures": failures((12, 13, 14))},
    "header_only": lambda: {"readings": fleet(), "failures": "time,machine,component\n"},
    "empty_file": lambda: {"readings": fleet(), "failures": ""},
    "empty_sensor": lambda: {"readings": fleet().assign(nothing=np.nan)},
    "missing_age_model": lambda: {"readings": fleet(), "machines": "machine,model,age\n1,A,3.0\n2,B,\n3,,12.0\n"},
    "machines_without_age": lambda: {"readings": fleet(), "machines": "machine,model\n1,A\n2,B\n3,A\n"},
    "long_format": lambda: {"export": longer()},
}  # fmt: skip


def longer(**options):
    """The readings in the long format: tag, time, machine, value."""
    frame = fleet(**options).melt(["time", "machine"], var_name="tag")
    return frame.sort_values(["time", "machine"], kind="stable")[["tag", "time", "machine", "value"]]


@pytest.mark.parametrize("case", FITS)
def test_files_of_every_form_fit_at_once(case, put, check):
    asked = fits(check(put(**FITS[case]())))
    assert asked.schema.machine_id == "number"
    assert asked.schema.sampling_minutes == 60


def test_what_was_found_of_the_form_is_said_and_kept(put, check):
    text = "sep=;\r\n" + table(fleet().rename(columns={"temp": "Temp °C"}), sep=";", decimal=",")
    outcome = check(put(readings=text.encode("cp1252")))
    asked = fits(outcome, ("Temp °C", "vib", "press"))
    assert asked.read == {"separator": ";", "decimal": ",", "encoding": "cp1252", "skip_lines": 1}
    assert "separator ;, encoding cp1252, 1 line before the names of the columns, decimal mark ," in outcome[1]


def test_an_archive_a_workbook_and_parquet_with_an_index_are_read(put, check, tmp_path):
    place = put()
    place.mkdir()
    with zipfile.ZipFile(place / "readings.zip", "w") as archive:
        archive.writestr("inside/readings.csv", table(fleet()))
    fits(check(place))
    (place / "readings.zip").unlink()
    frame = fleet().assign(time=pd.to_datetime(fleet()["time"]))
    frame.to_excel(place / "readings.xlsx", index=False, startrow=2)
    fits(check(place))
    (place / "readings.xlsx").unlink()
    frame.set_index(["machine", "time"]).to_parquet(place / "readings.parquet")
    fits(check(place))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_the_unit_of_times_that_are_numbers_is_told_from_their_size(unit, factor, put, check):
    seconds = (pd.to_datetime(fleet()["time"]) - pd.Timestamp(0)) // pd.Timedelta(seconds=1)
    outcome = check(put(readings=fleet().assign(time=seconds * factor)))
    assert fits(outcome).read == {"epoch": unit}
    assert "seconds since 1970" in outcome[1]
    assert "2024-01-15 00:00 to 2024-01-24 23:00" in outcome[1]


def test_thousands_are_told_from_decimals(put, check):
    power = [f"{1000 + k:,}" for k in range(3 * HOURS)]
    outcome = check(put(readings=fleet().assign(power=power)))
    assert fits(outcome, ("temp", "vib", "press", "power")).read == {"thousands": ","}
    assert params.load(PROPOSED).schema.ranges[-1][1] > 1700
    european = table(
        fleet().assign(power=[f"{1000 + k:,}".replace(",", ".") + ",5" for k in range(3 * HOURS)]), sep=";", decimal=","
    )
    fits(check(put(readings=european)), ("temp", "vib", "press", "power"))
    low, high = params.load(PROPOSED).schema.ranges[-1]
    assert low < 1000.5
    assert 1700 < high < 3000


def test_a_comma_that_may_be_either_is_asked(put, check):
    frame = fleet()[["time", "machine"]].assign(flow=[f"{k % 7 + 1},{100 + k}" for k in range(3 * HOURS)])
    place = put(readings=table(frame, sep=";"))
    code, _, first = check(place)
    assert code == cli.REFUSED
    assert "DECIMAL=, or with THOUSANDS=," in first
    fits(check(place, "--decimal", ","), ["flow"])
    assert params.load(PROPOSED).schema.ranges[0][1] < 20
    fits(check(place, "--thousands", ","), ["flow"])
    assert params.load(PROPOSED).schema.ranges[0][1] > 5000


def test_a_day_that_may_be_a_month_is_asked(put, check):
    place = put(readings=times_as("%d/%m/%Y %H:%M", hours=200, start="2024-01-01"))
    code, _, first = check(place)
    assert code == cli.REFUSED
    assert 'TIME_FORMAT="%d/%m/%Y %H:%M" or TIME_FORMAT="%m/%d/%Y %H:%M"' in first
    outcome = check(place, "--time-format", "%d/%m/%Y %H:%M")
    assert fits(outcome).read == {"time_format": "%d/%m/%Y %H:%M"}
    assert "2024-01-01 00:00 to 2024-01-09 07:00" in outcome[1]


@pytest.mark.parametrize("clock", ["%H:%M:%S", "%H:%M", "%I:%M %p"])
@pytest.mark.parametrize("date", ["%Y-%m-%d", "%d.%m.%Y"])
def test_a_date_and_a_time_of_day_are_joined(date, clock, put, check):
    at = pd.to_datetime(fleet()["time"])
    frame = fleet().drop(columns="time")
    frame.insert(0, "Date", at.dt.strftime(date))
    frame.insert(1, "Time", at.dt.strftime(clock))
    outcome = check(put(readings=frame))
    assert fits(outcome).read["date_and_time"] == ["Date", "Time"]
    assert "Date and Time together are datetime" in outcome[1]


# --- local times ------------------------------------------------------------------------------------------------------


def local(zone, start, hours=HOURS):
    """Hourly readings with local times, without an offset."""
    at = pd.date_range(start, periods=hours, freq="h", tz="UTC").tz_convert(zone).tz_localize(None).astype("str")
    return fleet(hours=hours).assign(time=np.tile(at, 3))


@pytest.mark.parametrize(
    ("zone", "start"),
    [("Europe/Berlin", "2024-10-24"), ("America/New_York", "2024-10-30"), ("Australia/Sydney", "2024-04-02")],
)
@pytest.mark.parametrize("order", [1, -1])
def test_an_hour_that_comes_twice_asks_for_the_time_zone_and_fits_with_it(zone, start, order, put, check):
    place = put(readings=local(zone, start)[::order])
    code, said, first = check(place)
    assert code == cli.REFUSED
    assert f"TIME_ZONE={zone}" in first
    assert "keep one" not in said
    outcome = check(place, "--time-zone", zone)
    assert fits(outcome).read == {"time_zone": zone}
    assert f"{3 * HOURS} rows of 3 machines, {start} 00:00" in outcome[1]
    assert "gap" not in outcome[1]


def test_offsets_on_either_side_of_a_change_of_clocks_fit(put, check):
    at = pd.date_range("2024-03-29", periods=HOURS, freq="h", tz="Europe/Berlin")
    frame = fleet().assign(time=np.tile([time.isoformat() for time in at], 3))
    outcome = check(put(readings=frame))
    fits(outcome)
    assert "gap" not in outcome[1]


# --- whose readings they are ------------------------------------------------------------------------------------------


def test_names_with_spaces_are_read_back_and_a_broken_proposal_is_replaced(put, check, monkeypatch, tmp_path):
    monkeypatch.setattr(proposed_params, "fleet_name", lambda place: place.name)  # the name decides who is held out
    names = tuple(f"Press line {k:02} north hall" for k in range(1, 13))
    fits(check(put(readings=fleet(names, hours=120))), machines=12)
    assert machines(tmp_path / "plant") == set(names)
    PROPOSED.write_text("schema: {Press line\n")
    outcome = check(put(readings=fleet()))
    fits(outcome)
    assert "the earlier proposal cannot be read and is replaced" in outcome[1]


@pytest.mark.parametrize("names", [("A:1", "B, {2}", "#3"), ("yes", "1e3", "~"), ("Ü 1", "泵二", "м-3")])
def test_names_of_any_kind_are_machines(names, put, check):
    place = put(readings=fleet(names))
    assert fits(check(place)).schema.machine_id == "text"
    assert machines(place) == set(names)


def test_7_and_007_are_two_machines(put, check):
    place = put(readings=fleet(("7", "007", "0007")))
    outcome = check(place)
    fits(outcome)
    assert machines(place) == {"7", "007", "0007"}
    said = "machines have names (schema.machine_id: text), not all of them are plain whole numbers: 0007, 007, 7"
    assert said in outcome[1]


def test_leading_zeros_are_part_of_a_name(put, check):
    place = put(readings=fleet(("007", "008", "009")), failures=failures(("007", "008", "009")))
    assert fits(check(place)).schema.machine_id == "text"
    assert machines(place) == machines(place, "failures") == {"007", "008", "009"}


def test_the_kind_of_ids_is_proposed_from_all_tables_together(put, check):
    """One name among the failures makes the whole numbers of the readings names too."""
    place = put(readings=fleet((7, 8, "P9")), failures=failures((7, 8, 7)))
    assert fits(check(place)).schema.machine_id == "text"
    assert machines(place) == {"7", "8", "P9"}
    assert machines(place, "failures") == {"7", "8"}


def test_a_declaration_of_the_same_fleet_stays(put, check, tmp_path):
    place = put(readings=fleet(("P1", "P2", "P3")))
    assert fits(check(place)).schema.machine_id == "text"
    put(readings=fleet((1, 2, 3)))
    outcome = check(place)
    assert fits(outcome).schema.machine_id == "text"
    assert "(schema.machine_id: text), as declared: 1, 2, 3" in outcome[1]
    PROPOSED.write_text(PROPOSED.read_text().replace("machine_id: text", "machine_id: number"))
    put(readings=fleet((1, 2, "P3")))
    code, _, first = check(place)
    assert code == cli.REFUSED
    assert "telemetry.machineID: is not a whole number: 240 of 720 rows" in first
    assert "say schema.machine_id: text in params.yaml" in first


def test_a_name_that_no_machine_can_have_is_refused(put, check):
    code, _, first = check(put(readings=fleet(("P1", "P2", "P" * 129))))
    assert code == cli.REFUSED
    assert "telemetry.machineID: is no name of a machine: 240 of 720 rows: row 481" in first
    assert "a name has 1 to 128 characters" in first


def test_names_are_the_same_machine_however_a_file_writes_them(put, check):
    """White space around a name, and a letter in one or two parts."""
    place = put(readings=fleet(("Gr\u00fcn", "P2", "P3")), failures=failures((" Gru\u0308n ", "P2 ", "P3")))
    fits(check(place))
    assert machines(place, "failures") == machines(place) == {"Gr\u00fcn", "P2", "P3"}


def test_two_folders_of_one_name_are_two_fleets(put, check, tmp_path):
    sources = []
    for place, names in (("A", ("press-1", "press-2")), ("B", ("fan-1", "fan-2"))):
        put(**{f"{place}__data__readings": fleet(names)})
        asked = fits(check(tmp_path / "plant" / place / "data"), machines=2)
        assert machines(tmp_path / "plant" / place / "data") == set(names)
        sources.append(asked.source)
    assert sources[0] != sources[1]


def test_sensors_with_the_name_of_a_machine_are_no_machine(put, check):
    frame = one(pump_pressure=[5 + k % 3 for k in range(HOURS)], motor_rpm=range(1000, 1000 + HOURS))
    outcome = check(put(readings=frame))
    assert fits(outcome, ("temp", "vib", "press", "pump_pressure", "motor_rpm"), 1).read == {"machine": 1}
    assert "this is one machine, 1" in outcome[1]


@pytest.mark.parametrize("state", ["machine_state", "unit_status", "pump mode"])
def test_a_state_is_no_machine(state, put, check):
    frame = one(**{state: ["run", "run", "idle"] * (HOURS // 3)})
    outcome = check(put(readings=frame))
    fits(outcome, machines=1)
    assert f"{state} (text: run 160, idle 80)" in outcome[1]


def test_a_machine_whose_column_has_no_telling_name_is_found_by_what_it_holds(put, check):
    frame = fleet(("x", "y", "z")).rename(columns={"machine": "place"}).assign(state=["on", "on", "off"] * HOURS)
    assert fits(check(put(readings=frame))).columns["telemetry"] == {"time": "datetime", "place": "machineID"}


def test_machines_with_their_rows_side_by_side_fit(put, check):
    fits(check(put(readings=fleet(("x", "y", "z")).sort_values("time", kind="stable"))))


@pytest.mark.parametrize(
    ("name", "machine"),
    [("pump_{}", "pump_{}"), ("{}", "{}"), ("{}__log", "{}"), ("P{}-2024-01-15", "P{}"), ("P{}_20240115", "P{}")],
)
def test_where_no_column_names_the_machine_the_file_does(name, machine, put, check):
    files = {name.format(k): fleet((k,)).drop(columns="machine") for k in (1, 2, 3)}
    broken = failures(tuple(machine.format(k) for k in (1, 2, 3)))
    asked = fits(check(put(**files, failures=broken)))
    assert "{machine}" in asked.read["telemetry"]["machine_from"]
    assert asked.schema.components == ("bearing", "seal")


def test_a_folder_for_each_machine_with_a_file_for_each_day(put, check):
    frame, files = fleet(("P1", "P2")), {}
    for (name, day), rows in frame.groupby(["machine", frame["time"].str[:10]]):
        files[f"{name}__{day}"] = rows.drop(columns="machine")
    place = put(**files)
    fits(check(place), machines=2)
    assert machines(place) == {"P1", "P2"}


def test_files_of_the_same_columns_are_one_table(put, check):
    days = {f"d{day}": rows for day, rows in fleet().groupby(fleet()["time"].str[:10])}
    outcome = check(put(**days, failures=failures()))
    assert fits(outcome).files == {"telemetry": "d*.csv", "failures": "failures.csv"}
    assert f"{3 * HOURS} rows of 3 machines" in outcome[1]
    assert "failures: 9 rows" in outcome[1]


def test_days_of_one_machine_are_one_table(put, check):
    days = {f"d{day}": rows for day, rows in one().groupby(one()["time"].str[:10])}
    assert fits(check(put(**days)), machines=1).read == {"machine": 1}


def test_rows_of_several_machines_without_a_machine_are_asked_for_it(put, check):
    frame = fleet().drop(columns="machine")
    code, said, first = check(put(readings=frame))
    assert code == cli.REFUSED
    assert "MACHINE=column" in first
    assert "keep one" not in said
    odd = fleet().rename(columns={"machine": "level"})
    fits(check(put(readings=odd), "--machine", "level"))


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("M{}.{}", {"M1", "M2", "M3"}),
        ("plant/M{}/{}", {"plant/M1", "plant/M2", "plant/M3"}),
        ("M{}_{}", {"M1", "M2", "M3"}),
    ],
)
def test_tags_with_the_machine_in_their_path_are_pivoted(tag, names, put, check):
    frame = longer()
    tags = [tag.format(machine, name) for machine, name in zip(frame["machine"], frame["tag"], strict=True)]
    long = pd.DataFrame({"TagName": tags, "Timestamp": frame["time"], "Value": frame["value"], "Quality": "Good"})
    place = put(export=long)
    outcome = check(place)
    assert fits(outcome).schema.machine_id == "text"
    assert machines(place) == names
    assert f"{3 * HOURS} rows of 3 machines" in outcome[1]


def test_tags_of_one_machine_are_pivoted(put, check):
    assert fits(check(put(export=longer(machines=(1,)).drop(columns="machine"))), machines=1).read["machine"] == 1


# --- what a column holds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("Temp [°C]", "Vib (mm/s)", "Druck %"),
        ("温度", "vibración", "Δp"),
        ("failure_torque", "class_a_amp", "target_temp"),
        ("a__b", "temp_mean_6h", "x/y:z"),
    ],
)
def test_names_of_sensors_of_any_kind_are_kept(names, put, check):
    frame = fleet().set_axis(["time", "machine", *names], axis=1)
    fits(check(put(readings=frame)), names)
    spaced = frame.rename(columns=lambda name: f" {name} ")
    fits(check(put(readings=spaced)), names)


@pytest.mark.parametrize("name", ["Machine failure", "failure", "is_broken", "Fault"])
def test_a_flag_of_failure_is_offered_as_failures(name, put, check):
    flags = [int(k % 60 in (30, 31)) for k in range(HOURS)]
    outcome = check(put(readings=one(**{name: flags})))
    asked = fits(outcome, machines=1)
    assert asked.schema.components == (name,)
    assert f"failures: 4 rows: {name} 4" in outcome[1]


def test_a_flag_of_an_anomaly_is_offered_as_anomalies_and_what_follows_it_is_no_sensor(put, check):
    flags = [int(k % 60 in (30, 31)) for k in range(HOURS)]
    outcome = check(put(readings=one(anomaly=flags, TWF=flags)))
    fits(outcome, machines=1)
    assert "TWF (a label: it is set only where anomaly is" in outcome[1]
    assert "with 3 labelled anomalies" in outcome[1] or "with 2 labelled anomalies" in outcome[1]


def test_yes_and_no_is_a_sensor_and_a_state_in_words_is_not(put, check):
    frame = fleet().assign(run=[True, False, True] * HOURS, state=["run", "idle", "run"] * HOURS)
    outcome = check(put(readings=frame))
    fits(outcome, ("temp", "vib", "press", "run"))
    assert "state (text: run 480, idle 240)" in outcome[1]


@pytest.mark.parametrize("code", [-999, 9999, -9999.0, 99999])
def test_a_code_for_a_missing_reading_is_proposed_as_missing_with_its_share(code, put, check):
    outcome = check(put(readings=fleet().assign(temp=lambda f: f["temp"].where(f.index % 17 > 0, code))))
    asked = fits(outcome)
    assert asked.read == {"missing": [code]}
    assert outcome[2].startswith(f"temp is {code:g} in 43 rows (6.0%)")
    assert asked.schema.ranges[0][0] >= 0
    assert asked.schema.ranges[0][1] < 150


def test_a_range_admits_the_data_it_was_proposed_from(put, check):
    meter = fleet().assign(energy_wh=123_456_789 + 3 * np.arange(3 * HOURS), spike=[5.0] * (3 * HOURS - 1) + [4711.5])
    outcome = check(put(readings=meter))
    fits(outcome, ("temp", "vib", "press", "energy_wh", "spike"))
    assert "energy_wh only ever rises: it is a counter" in outcome[1]


def test_sensors_that_say_little_are_named(put, check):
    frame = fleet().assign(const=1.0, rare=lambda f: f["temp"].where(f.index % 40 == 0))
    outcome = check(put(readings=frame))
    said = outcome[1]
    fits(outcome, ("temp", "vib", "press", "const", "rare"))
    assert "const never changes" in said
    assert "rare is nearly silent: it has a reading in 2.5% of the rows" in said


def test_uneven_steps_are_said_and_their_median_is_the_period(put, check):
    steps = np.random.default_rng(1).integers(40, 81, HOURS)
    times = (pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(steps), unit="min")).astype("str")
    outcome = check(put(readings=one(time=times)))
    assert abs(fits(outcome, machines=1).schema.sampling_minutes - 60) <= 3
    assert "irregular: " in outcome[1]
    assert "gap" not in outcome[1]


# --- events and machines ----------------------------------------------------------------------------------------------


def orders(corrective="CM", preventive="PM"):
    return pd.DataFrame(
        {
            "wo_number": range(100, 106),
            "equipment": [1, 1, 2, 2, 3, 3],
            "reported_on": ["2024-01-17", "2024-01-19", "2024-01-18", "2024-01-20", "2024-01-19", "2024-01-22"],
            "completed_on": ["2024-01-18", "2024-01-20", "2024-01-18", "2024-01-21", "2024-01-20", "2024-01-23"],
            "wo_type": [corrective, preventive, corrective, preventive, preventive, corrective],
            "problem": ["bearing noise", "lubrication", "seal leak", "lubrication", "inspection", "bearing noise"],
        }
    )


@pytest.mark.parametrize("kinds", [("CM", "PM"), ("Corrective", "Preventive"), ("breakdown", "planned")])
def test_work_orders_of_two_kinds_are_asked_with_counts_and_fit_once_told(kinds, put, check):
    place = put(readings=fleet(), work_orders=orders(*kinds))
    code, _, first = check(place)
    assert code == cli.REFUSED
    assert f"{kinds[0]} 3" in first
    assert f'FAILURES="wo_type={kinds[0]}" MAINT="wo_type={kinds[1]}"' in first
    outcome = check(place, "--failures", f"wo_type={kinds[0]}", "--maint", f"wo_type={kinds[1]}")
    fits(outcome)
    assert "failures: 3 rows: bearing noise 2, seal leak 1" in outcome[1]
    assert "maint: 3 rows: lubrication 2, inspection 1" in outcome[1]


@pytest.mark.parametrize("content", ["", "time,machine,component\n"])
def test_a_table_without_rows_is_said_to_be_empty(content, put, check):
    outcome = check(put(readings=fleet(), failures=content))
    fits(outcome)
    assert "failures.csv is not used: the table is empty" in outcome[1]


@pytest.mark.parametrize("years", [("2015", "2018", "2020"), ("2015-03-01", "2018-01-01", "2020-12-31")])
def test_the_year_built_gives_the_age(years, put, check):
    rows = "".join(f"{k},A,{year}\n" for k, year in enumerate(years, start=1))
    outcome = check(put(readings=fleet(), machines=f"machine,model,year_built\n{rows}"))
    asked = fits(outcome)
    assert asked.read == {"machines": {"age_in": 2024}}
    assert "ages are counted in 2024" in outcome[1]


REFUSED = {
    "bad_text": (
        lambda: {"readings": fleet().astype({"temp": object}).pipe(spoiled, "temp", "Bad Input", 11)},
        "telemetry.temp: is not a number: 11 of 720 rows: row 1 (",
        "leave a missing value empty, or name what stands for it under read.missing",
    ),
    "inf": (
        lambda: {"readings": fleet().pipe(spoiled, "temp", np.inf, 2)},
        "telemetry.temp: is infinite: 2 of 720 rows: row 1 (",
        "leave a missing reading empty, or say MISSING=inf,-inf",
    ),
    "id_missing": (
        lambda: {"readings": fleet().astype({"machine": "float64"}).pipe(spoiled, "machine", np.nan, 4)},
        "telemetry.machineID: is missing: 4 of 720 rows: row 1 (",
        "fill it in",
    ),
    "machine_called_na": (
        lambda: {
            "readings": fleet()
            .astype({"machine": str})
            .pipe(spoiled, "machine", "NA", 4)
            .replace({"machine": {"2": "b"}})
        },
        "telemetry.machineID: is missing: 4 of 720 rows: row 1 (",
        "NA, NaN, None and null in a text file mean missing: call no machine so",
    ),
    "time_slip": (
        lambda: {"readings": times_as("%d.%m.%Y %H:%M").pipe(spoiled, "time", "32.01.2024 00:00", 1)},
        "telemetry.datetime: is not a time: 1 of 720 rows: row 1 (",
        "write times as",
    ),
    "negative_age": (
        lambda: {"readings": fleet(), "machines": "machine,model,age\n1,A,3\n2,B,-1\n3,A,5\n"},
        "machines.age: is below 0: 1 of 3 rows: row 2 (machineID 2, age -1.0)",
        "give years, or leave it empty",
    ),
}


def spoiled(frame, column, value, count):
    """The frame with a value in the first rows of a column."""
    frame = frame.copy()
    frame.loc[frame.index[:count], column] = value
    return frame


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_setting_can_know_is_refused_with_column_count_rows_and_fix(case, put, check):
    make, what, fix = REFUSED[case]
    code, said, first = check(put(**make()))
    assert code == cli.REFUSED, said
    assert first.startswith(what), said
    assert fix in first
    assert "drop the row" not in said


# --- workbooks with several sheets, and names that differ between files -----------------------------------------------


def workbook(place, name="book.xlsx", **sheets):
    """Write a workbook with these sheets."""
    place.mkdir(exist_ok=True)
    with pd.ExcelWriter(place / name) as book:
        for sheet, frame in sheets.items():
            frame.to_excel(book, sheet_name=sheet, index=False)
    return place


def german():
    """Readings as text with decimal commas, and as a German export calls them."""
    frame = times_as("%d.%m.%Y %H:%M", machines=("Süd/1", "Köln #7", "Weiß & Söhne"))
    for name in ("temp", "vib", "press"):
        frame[name] = frame[name].astype("str").str.replace(".", ",")
    return frame.rename(columns={"time": "Zeitstempel", "machine": "Maschine"})


def test_the_sheets_of_a_workbook_are_tables_of_their_own(put, check, tmp_path):
    broken = failures(("Süd/1", "Köln #7", "Weiß & Söhne"))
    broken.columns = ["Störung am", "Anlage", "Baugruppe"]
    notes = pd.DataFrame({"Blatt": ["Messwerte", "Störungen"], "Inhalt": ["Sensoren", "Ausfälle"]})
    place = workbook(tmp_path / "plant", Info=notes, Messwerte=german(), Störungen=broken)
    outcome = check(place)
    asked = fits(outcome)
    assert asked.files == {"telemetry": "book.xlsx/Messwerte", "failures": "book.xlsx/Störungen"}
    assert asked.read["telemetry"]["decimal"] == ","
    assert asked.schema.components == ("bearing", "seal")
    assert "book.xlsx/Info is not used" in outcome[1]
    assert machines(place) == machines(place, "failures") == {"Süd/1", "Köln #7", "Weiß & Söhne"}


def test_sheets_of_several_workbooks_are_one_table(put, check, tmp_path):
    place = tmp_path / "plant"
    for month, start in (("2024-01", "2024-01-01"), ("2024-02", "2024-02-01")):
        workbook(
            place,
            f"{month}.xlsx",
            Data=fleet(hours=120, start=start),
            Alarms=failures().rename(columns={"component": "code"}),
        )
    outcome = check(place)
    assert f"{3 * 240} rows of 3 machines" in outcome[1]
    assert fits(outcome).files["telemetry"] == "*/Data"


def test_a_sheet_for_each_machine_names_the_machine(put, check, tmp_path):
    rows = {name: fleet((name,)).drop(columns="machine") for name in ("P-1", "P-2", "P-3")}
    place = workbook(tmp_path / "plant", **rows)
    fits(check(place))
    assert machines(place) == {"P-1", "P-2", "P-3"}


def test_a_sheet_that_is_gone_is_named(put, check, tmp_path):
    place = workbook(tmp_path / "plant", Readings=fleet(), Failures=failures())
    asked = fits(check(place))
    workbook(place, Measured=fleet(), Failures=failures())
    with pytest.raises(DataError, match=r"has no sheet 'Readings', only Measured, Failures; correct it in params.yaml"):
        sources.read_frames(place, asked.columns, asked.files, asked.schema.machine_id, asked.read)


def test_cells_that_are_numbers_stand_beside_cells_with_a_decimal_comma(put, check, tmp_path):
    frame = fleet()
    frame["temp"] = [str(value).replace(".", ",") if k % 3 else value for k, value in enumerate(frame["temp"])]
    place = workbook(tmp_path / "plant", Readings=frame)
    asked = fits(check(place))
    got = sources.read_frames(place, asked.columns, asked.files, asked.schema.machine_id, asked.read)["telemetry"]
    assert got["temp"].tolist() == fleet()["temp"].tolist()


def test_files_that_cover_the_same_weeks_are_machines_though_no_time_stands_twice(put, check):
    files = {}
    for k in (1, 2, 3):  # seconds apart, so that no two machines share a time
        at = pd.date_range("2024-01-15", periods=HOURS, freq="h") + pd.to_timedelta(
            np.arange(HOURS) % 50 + 60 * k, unit="s"
        )
        files[f"WT{k:02d}"] = fleet((k,)).drop(columns="machine").assign(time=at.astype("str"))
    broken = failures(("WT01", "WT02", "WT03")).rename(columns={"machine": "turbine"})
    place = put(**files, failures=broken)
    fits(check(place))
    assert machines(place) == machines(place, "failures") == {"WT01", "WT02", "WT03"}


def test_a_machine_column_of_events_beside_readings_without_one_is_asked_about(put, check):
    """One file of readings at different times, and failures of three machines: they are not one machine's."""
    at = pd.date_range("2024-01-15", periods=HOURS, freq="h").astype("str")
    place = put(readings=one(time=at), failures=failures(("A", "B", "C")))
    code, _, first = check(place)
    assert code == cli.REFUSED
    assert "failures.csv has a column of machines, machine (A, B, C)" in first
    assert "MACHINE=one" in first
    fits(check(place, "--machine", "one"), machines=1)


def test_a_prefix_that_one_file_leaves_out_is_left_out_of_all(put, check):
    for readings, events in (("UNIT4.P-10{}", "P-10{}"), ("P-10{}", "plant/P-10{}")):
        names = [readings.format(k) for k in (1, 2, 3)]
        broken = failures(tuple(events.format(k) for k in (1, 2, 3)))
        place = put(readings=fleet(tuple(names)), failures=broken)
        outcome = check(place)
        assert fits(outcome).schema.components == ("bearing", "seal")
        assert machines(place) == machines(place, "failures") == {"P-101", "P-102", "P-103"}


def test_machines_of_other_names_are_shown_with_both(put, check):
    code, _, first = check(put(readings=fleet(("A1", "A2", "A3")), failures=failures(("Z1", "Z2", "Z3"))))
    assert code == cli.REFUSED
    assert "its column machine has Z1, Z2, Z3, and the readings are of A1, A2, A3; give both the same names" in first


def test_a_value_that_stands_for_missing_in_many_sensors_is_one_remark(put, check):
    frame = fleet()
    frame.loc[::9, ["temp", "vib", "press"]] = -999
    outcome = check(put(readings=frame))
    assert fits(outcome).read["missing"] == [-999]
    assert "temp is -999 in 80 rows (11.1%), far from its other readings, and so it is with vib, press: " in outcome[1]


def test_the_next_command_can_be_typed_as_it_stands(put, check, tmp_path):
    place = put(readings=fleet()).rename(tmp_path / "hall 3 (old)")
    outcome = check(place, "--sensors", "temp,vib,press", "--time-format", "%Y-%m-%d %H:%M:%S")
    fits(outcome)
    last = outcome[1].strip().splitlines()[-1]
    told = "SENSORS=temp,vib,press TIME_FORMAT='%Y-%m-%d %H:%M:%S'"
    assert f"make adopt DATA='{place}' {told} makes" in last
    (place / "readings.csv").write_text(table(fleet().assign(temp=np.inf)))
    said = check(place, "--sensors", "temp,vib,press", "--time-format", "%Y-%m-%d %H:%M:%S")[1]
    assert said.strip().endswith(f"make data-check DATA='{place}' {told}")


# --- names that break lines -------------------------------------------------------------------------------------------


def test_a_name_of_a_column_may_go_on_in_the_next_line(put, check):
    """As Excel writes a wrapped heading into a CSV file; a code 007 stays what it is."""
    frame = fleet(("007", "7", "08")).rename(columns={"temp": "Temp\n[°C]", "machine": "Machine\r\n no"})
    place = put(readings=frame)
    assert fits(check(place), ("Temp [°C]", "vib", "press")).read == {}
    assert machines(place) == {"007", "7", "08"}
    title = 'Report of "line 3"\n\n' + table(frame)
    assert fits(check(put(readings=title)), ("Temp [°C]", "vib", "press")).read == {"skip_lines": 2}


def test_a_quotation_mark_that_is_not_closed_takes_no_lines_with_it(put):
    place = put(readings=fleet().rename(columns={"temp": 'temp"'}).to_csv(index=False, quoting=3))
    assert sniff.form_of(place / "readings.csv", Read()).skip_lines == 0


@pytest.mark.parametrize("name", ["a\nb", "x\u2028y", "# no comment", "1e5", "'", "א\u202e7"])
def test_a_component_of_any_name_is_proposed_as_it_is(name, put, check):
    outcome = check(put(readings=fleet(), failures=failures().replace("seal", name)))
    assert set(fits(outcome).schema.components) == {"bearing", name}
    assert "a\nb" not in outcome[1]


@pytest.mark.parametrize("name", ["a\nb", "x" * 300, "a\0b"])
def test_a_name_that_no_machine_can_have_is_refused_in_a_short_line(name, put, check):
    code, said, first = check(put(readings=fleet(("A", "B", name))))
    assert code == cli.REFUSED
    assert "is no name of a machine" in first
    assert "; a name has 1 to 128 characters and no control character" in first
    assert "\0" not in said
    assert "x" * 100 not in said


def test_numbers_of_more_than_64_bits_are_names(put, check):
    serials = tuple(f"3{k}0000000000000000000" for k in (1, 2, 3))
    place = put(readings=fleet(serials), failures=failures(serials))
    assert fits(check(place)).schema.machine_id == "text"
    assert machines(place) == machines(place, "failures") == set(serials)
