"""What a person says of how files are written holds for the files that it fits, and breaks no other of the folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from model import data_check
from model.common import cli, params

HOURS = 200
PARTS = ["Kugellager", "Dichtung", "Kugellager"] * 2


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Check files of a folder, by name; return the exit code, what was printed, and the tables as proposed."""
    monkeypatch.chdir(tmp_path)

    def run(files, *words):
        place = tmp_path / "plant"
        place.mkdir(exist_ok=True)
        for name, content in files.items():
            (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        code = data_check.main(["--source", str(place), *words])
        said = capsys.readouterr().out
        if code != cli.DONE:
            return code, said.partition("  1. ")[2].partition("\n")[0], {}
        asked = params.load(params.Path("build/data-check/params.yaml"))
        frames = sources.read_frames(place, asked.columns, asked.files, asked.schema.machine_id, asked.read)
        return code, said, frames

    return run


def readings(start="2024-01-01"):
    """Hourly readings of three machines, in nine days on which any day may be a month."""
    rng = np.random.default_rng(3)
    times = np.tile(pd.date_range(start, periods=HOURS, freq="h"), 3)
    values = {name: rng.normal(60, 3, 3 * HOURS).round(2) for name in ("temp", "flow")}
    return pd.DataFrame({"time": times, "machine": np.repeat(["P1", "Süd 2", "P3"], HOURS)} | values)


def failures():
    times = pd.date_range("2024-01-03 05:00", periods=6, freq="13h")
    return pd.DataFrame({"time": times, "machine": ["P1", "Süd 2", "P3"] * 2, "component": PARTS})


def text(frame, form="%Y-%m-%d %H:%M", **options):
    """A table as text, with its times in a format, or as numbers where that is a unit."""
    if form in ("s", "ms"):
        times = (frame["time"] - pd.Timestamp(0)) // pd.Timedelta(1, form)
    else:
        times = frame["time"].dt.strftime(form)
    return frame.assign(time=times).to_csv(index=False, **options)


def whole(frames):
    """Assert that both tables are as they were made."""
    expected = {"telemetry": readings(), "failures": failures()}
    for table, frame in expected.items():
        got = frames[table].sort_values(["machineID", "datetime"])
        frame = frame.sort_values(["machine", "time"])
        assert got["datetime"].dt.tz_localize(None).tolist() == frame["time"].tolist(), table
        assert got["machineID"].tolist() == frame["machine"].tolist()
    got = frames["telemetry"].sort_values(["machineID", "datetime"])
    assert got["flow"].tolist() == readings().sort_values(["machine", "time"])["flow"].tolist()


DAY_FIRST, MONTH_FIRST = "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"
TIMES = {
    "a day that may be a month, beside ISO": (DAY_FIRST, "%Y-%m-%d %H:%M", ["--time-format", DAY_FIRST]),
    "the same, of the failures": ("%Y-%m-%d %H:%M", MONTH_FIRST, ["--time-format", MONTH_FIRST]),
    "the same, beside numbers": ("ms", MONTH_FIRST, ["--time-format", MONTH_FIRST]),
    "two formats, one order": (DAY_FIRST, f"{DAY_FIRST}:%S", ["--time-format", DAY_FIRST]),
    "a unit beside ISO": ("ms", "%Y-%m-%d %H:%M", ["--epoch", "ms"]),
    "a unit beside another": ("ms", "s", ["--epoch", "ms"]),
    "a unit beside another, of the failures": ("ms", "s", ["--epoch", "s"]),
    "a unit beside a number that is a date": ("s", "%Y%m%d%H%M%S", ["--epoch", "s"]),
    "a form that is not known": ("%Y-%m-%d-%H.%M", "%d %b %Y %H:%M:%S %z", ["--time-format", "%Y-%m-%d-%H.%M"]),
    "the same, of the failures alone": ("%Y-%m-%d %H:%M", "%Hh%M %d|%m|%Y", ["--time-format", "%Hh%M %d|%m|%Y"]),
}


@pytest.mark.parametrize("case", TIMES)
def test_what_is_said_of_times_holds_for_the_tables_that_it_reads(case, check):
    ours, theirs, words = TIMES[case]
    events = failures().assign(time=failures()["time"].dt.tz_localize("UTC")) if "%z" in theirs else failures()
    code, said, frames = check({"readings.csv": text(readings(), ours), "failures.csv": text(events, theirs)}, *words)
    assert code == cli.DONE, said
    whole(frames)


FORMS = {
    "separator": ({"sep": ";"}, {}, ["--separator", ";"]),
    "separator of the failures": ({"sep": ","}, {"sep": "|"}, ["--separator", "|"]),
    "separator beside decimal commas": ({"sep": ";", "decimal": ","}, {}, ["--separator", ","]),
    "decimal": ({"sep": ";", "decimal": ","}, {}, ["--decimal", ","]),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_mark_that_is_said_holds_for_the_files_that_it_fits(case, check):
    ours, theirs, words = FORMS[case]
    ages = "machine,model,age\nP1,A,3.5\nSüd 2,B,4.25\nP3,A,1\n"
    code, said, frames = check(
        {
            "readings.csv": text(readings(), **ours),
            "failures.csv": text(failures(), **theirs),
            "machines.csv": ages,
        },
        *words,
    )
    assert code == cli.DONE, said
    whole(frames)
    assert sorted(frames["machines"]["age"]) == [1, 3.5, 4.25]


def test_a_thousands_mark_holds_for_the_files_that_have_it(check):
    frame = readings().assign(power=[f"1,{k:03}" for k in range(3 * HOURS)])
    ages = "machine;model;age\nP1;A;3,5\nSüd 2;B;4,25\nP3;A;1\n"
    files = {"readings.csv": text(frame, sep=";"), "failures.csv": text(failures()), "machines.csv": ages}
    code, said, frames = check(files, "--thousands", ",")
    assert code == cli.DONE, said
    whole(frames)
    assert frames["telemetry"]["power"].between(1000, 1599).all()
    assert sorted(frames["machines"]["age"]) == [1, 3.5, 4.25]


@pytest.mark.parametrize("said", ["utf-8", "cp1252", "utf-16"])
def test_an_encoding_holds_for_the_files_that_are_written_so(said, check):
    files = {"readings.csv": text(readings()).encode("cp1252"), "failures.csv": text(failures()).encode("utf-8")}
    files |= {"alarms.csv": text(failures().rename(columns={"component": "code"})).encode("utf-16")}
    code, printed, frames = check(files, "--encoding", said)
    assert code == cli.DONE, printed
    whole(frames)
    assert len(frames["errors"]) == 6


def test_lines_to_skip_are_skipped_where_they_stand(check):
    ages = "machine,model,age\nP1,A,3.5\nSüd 2,B,4.25\nP3,A,1\n"
    title = "Historian,export,of,plant\nall,machines,in,2024\n"  # as many cells as the table
    files = {"readings.csv": title + text(readings()), "failures.csv": text(failures()), "machines.csv": ages}
    code, said, frames = check(files, "--skip-lines", "2")
    assert code == cli.DONE, said
    whole(frames)
    assert len(frames["machines"]) == 3


@pytest.mark.parametrize("words", [[], ["--machine", "file"]])
@pytest.mark.parametrize("column", ["unit", "serial"])
def test_a_column_that_is_the_same_in_all_files_is_no_machine_where_each_file_is_one(words, column, check):
    files = {
        f"{name}.csv": text(rows.drop(columns="machine").assign(**{column: "hall 3"}))
        for name, rows in readings().groupby("machine")
    }
    code, said, frames = check(files | {"failures.csv": text(failures())}, *words)
    assert code == cli.DONE, said
    whole(frames)


def test_each_file_is_a_machine_where_that_is_said_though_a_column_could_be_one(check):
    """Each file has a serial number of its own; the failures know the names of the files."""
    files = {
        f"{name}.csv": text(rows.assign(machine=f"{7000 + k}"))
        for k, (name, rows) in enumerate(readings().groupby("machine"))
    }
    code, said, frames = check(files | {"failures.csv": text(failures())}, "--machine", "file")
    assert code == cli.DONE, said
    whole(frames)


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M", "s"])
def test_a_zone_that_lacks_one_of_the_times_is_refused_before_that_time_is_shifted(form, check):
    """An hour is skipped in Berlin on 31 March; seconds since 1970 are of no zone."""
    code, first, _ = check({"readings.csv": text(readings("2024-03-28"), form)}, "--time-zone", "Europe/Berlin")
    assert code == (cli.DONE if form == "s" else cli.REFUSED), first
    if form != "s":
        skipped = pd.Timestamp("2024-03-31 02:00").strftime(form)
        assert first.startswith(f"readings.csv has {skipped} in time, a time that clocks skip in Europe/Berlin")


NOWHERE = {
    "time_format": (
        "%d.%m.%Y",
        "TIME_FORMAT=%d.%m.%Y fits none of the times: readings.csv has 2024-01-01 00:00 in time",
    ),
    "epoch": ("s", "EPOCH=s fits none of the times: readings.csv has 2024-01-01 00:00 in time, read as ISO 8601"),
    "separator": ("|", "SEPARATOR=| fits none of the files: readings.csv has ','; failures.csv has ','"),
    "encoding": (
        "utf-16",
        "ENCODING=utf-16 fits none of the files: readings.csv has 'utf-8'; failures.csv has 'utf-8'",
    ),
    "skip_lines": ("3", "SKIP_LINES=3 fits none of the files: readings.csv has 0; failures.csv has 0"),
    "decimal": (",", "DECIMAL=, fits none of the files: readings.csv has '.'"),
}


@pytest.mark.parametrize("key", NOWHERE)
def test_what_fits_no_file_is_one_clear_error(key, check):
    value, error = NOWHERE[key]
    files = {"readings.csv": text(readings()), "failures.csv": text(failures().assign(cost=1.5))}
    code, first, _ = check(files, f"--{key.replace('_', '-')}", value)
    assert code == cli.REFUSED
    assert first.startswith(error)
    assert first.endswith("; correct it, or leave it out where that is right")


def test_events_whose_times_are_of_no_known_form_are_asked_about_and_not_lost(check):
    files = {"readings.csv": text(readings()), "breakdowns.csv": text(failures(), "%Hh%M %d|%m|%Y")}
    code, first, _ = check(files)
    assert code == cli.REFUSED
    assert first.startswith("breakdowns.csv: time has 05h00 03|01|2024, and that form of time is not known")
    assert "TIME=time TIME_FORMAT=" in first


@pytest.mark.parametrize(("unit", "epoch"), [("ms", "ms"), ("s", "s"), ("ms", "excel")])
def test_a_number_that_is_no_time_is_refused_with_its_row(unit, epoch, check, tmp_path):
    """A code among times that are numbers, however far off; also against parameters that were fine before."""
    good = {"readings.csv": text(readings(), unit)}
    lines = good["readings.csv"].splitlines()
    lines[5] = "1e300" + lines[5][lines[5].index(",") :]
    bad = {"readings.csv": "\n".join(lines)}
    if unit != epoch:
        assert check(bad, "--epoch", epoch)[1].startswith("EPOCH=excel fits none of the times: readings.csv has 170406")
        return
    slip = "telemetry.datetime: is not a time: 1 of 600 rows: row 5 ("
    assert check(bad, "--epoch", epoch)[1].startswith(slip)
    assert check(good, "--epoch", epoch)[0] == cli.DONE
    kept = (tmp_path / "build/data-check/params.yaml").rename(tmp_path / "mine.yaml")
    assert check(bad, "--params", str(kept))[1].startswith(slip)
