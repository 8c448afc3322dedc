"""Files that one cannot take at their word: no names of columns, a line of units, a second sheet, a broken archive."""

from __future__ import annotations

import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from model import data_check
from model.common import cli, params

HOURS = 120


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Write files by name, text or bytes, into a folder; a frame is written as CSV."""
    monkeypatch.chdir(tmp_path)

    def write(files):
        for name, content in files.items():
            path = tmp_path / "plant" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = content.to_csv(index=False) if isinstance(content, pd.DataFrame) else content
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "plant"

    return write


@pytest.fixture
def check(plant, capsys):
    """Check files; return the exit code, what was printed, and the first fix."""

    def run(files, *words):
        code = data_check.main(["--source", str(plant(files)), *words])
        said = capsys.readouterr().out
        return code, said, said.partition("  1. ")[2].partition("\n")[0]

    return run


def proposed():
    """The parameters that the check has proposed."""
    return params.load(params.Path("build/data-check/params.yaml"))


def readings(machines=("P1", "P2", "P3")):
    """Hourly readings of each machine."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "ts": np.tile(pd.date_range("2024-03-01", periods=HOURS, freq="h").astype("str"), len(machines)),
            "asset": np.repeat(machines, HOURS),
            "Temp": rng.normal(60, 3, HOURS * len(machines)).round(2),
            "Flow": rng.normal(120, 9, HOURS * len(machines)).round(1),
        }
    )


# --- names of columns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machines", [(1, 2, 3), ("P1", "P2", "P3")])
def test_a_file_without_names_of_columns_is_refused_before_its_first_row_is_lost(machines, check):
    code, said, first = check({"readings.csv": readings(machines).to_csv(index=False, header=False)})
    assert code == cli.REFUSED, said
    assert first.startswith("readings.csv has no line with the names of its columns"), said
    assert "add such a line" in first


def test_numbers_as_names_of_sensors_are_names(check):
    frame = readings().rename(columns={"Temp": "101", "Flow": "102"})
    assert check({"readings.csv": frame})[0] == cli.DONE
    assert proposed().schema.sensors == ("101", "102")


def test_a_form_of_times_that_is_not_known_is_asked_with_the_flag_that_settles_it(check):
    frame = readings().assign(ts=lambda rows: pd.to_datetime(rows["ts"]).dt.strftime("%Y-%m-%d-%H.%M.%S"))
    code, _, first = check({"readings.csv": frame})
    assert code == cli.REFUSED
    assert first.startswith("readings.csv: ts has 2024-03-01-00.00.00, and that form of time is not known")
    assert "TIME=ts TIME_FORMAT=" in first
    assert check({"readings.csv": frame}, "--time", "ts", "--time-format", "%Y-%m-%d-%H.%M.%S")[0] == cli.DONE


@pytest.mark.parametrize("time", ["", "[UTC]"])
def test_a_line_of_units_is_the_first_fix_and_nothing_is_to_be_filled_in(time, check):
    head, _, rows = readings().to_csv(index=False).partition("\n")
    files = {"readings.csv": f"{head}\n{time},,°C,m³/h\n{rows}"}
    code, said, first = check(files)
    assert code == cli.REFUSED, said
    assert first.startswith("readings.csv: the line below the names of its columns holds no reading, but °C, m³/h:")
    assert check({"readings.csv": f"{head}\n{rows}"})[0] == cli.DONE
    slip = rows.replace(rows.split(",")[2], "Bad", 1)  # a slip in the first row is no line of units
    assert "telemetry.Temp: is not a number: 1 of 360 rows" in check({"readings.csv": f"{head}\n{slip}"})[2]


# --- files that cannot be read ----------------------------------------------------------------------------------------


def two_in_one():
    """A zip archive of two files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.csv", "ts,Temp\n")
        archive.writestr("b.csv", "ts,Temp\n")
    return out.getvalue()


BROKEN = {
    "day.csv.gz": b"not a gzip file",
    "cut.csv.gz": gzip.compress(readings().to_csv(index=False).encode())[:-400],
    "turned.csv.gz": gzip.compress(b"a,b\n" * 9)[:12] + b"\xff" * 60,
    "day.xlsx": b"not a workbook",
    "day.parquet": b"PAR1",
    "day.zip": b"not an archive",
    "two.zip": two_in_one(),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("alone", [True, False])
def test_a_file_that_cannot_be_read_is_the_first_fix_and_names_the_file(name, alone, check):
    code, said, first = check({name: BROKEN[name]} if alone else {name: BROKEN[name], "readings.csv": readings()})
    assert code == cli.REFUSED, said
    assert f"/{name}: " in first, said
    assert "; " in first


def test_a_note_beside_the_tables_is_no_broken_file(check):
    note = "Read me, please.\nThis, that, and more, were measured.\nEnd\n"
    assert check({"readings.csv": readings(), "notes.txt": note})[0] == cli.DONE
