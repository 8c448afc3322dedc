"""Batches: the answers of the service, in a file that is complete or absent."""

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from closedloop.data import sources
from closedloop.data.rfc3339 import parse
from closedloop.data.schema import DataError
from closedloop.data.simulate import simulate
from closedloop.data.stream import Stream
from closedloop.heads.bundle import load
from closedloop.judge.truth import PredictionTable
from model import batch
from model.common.predictions import predict
from simulated_fleet import PARAMS_FILE, SCHEMA

COLUMNS = ["machineID", "datetime", "head", "score", "alarm"]


@pytest.fixture(scope="module")
def schema():
    return SCHEMA


@pytest.fixture(scope="module")
def fleet(schema):
    """Five machines with missing hours and readings."""
    tables = simulate("default", 5, 20, 4, schema).tables
    rng = np.random.default_rng(0)
    tables.values[:, rng.random(len(tables.time)) < 0.03] = np.nan
    return tables.rows(rng.random(len(tables.time)) > 0.05)


@pytest.fixture(scope="module")
def folder(fleet, schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    sources.write_tables(fleet, schema, folder)
    return folder


def run(*words, **settings):
    return subprocess.run(
        [sys.executable, "-m", "model.batch", "--params", PARAMS_FILE, *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, **settings,
    )  # fmt: skip


def sorted_columns(table):
    order = np.lexsort((table.head.astype(str), table.time, table.machine))
    return [getattr(table, name)[order].tolist() for name in ("machine", "time", "head", "score", "alarm")]


@pytest.mark.parametrize("every_row", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 1000, 10**6])
def test_a_batch_has_the_bits_of_the_bundle_however_machines_are_grouped(
    every_row, rows_at_once, tiny_bundle, fleet, folder, schema, tmp_path
):
    bundle = load(tiny_bundle)
    written = batch.score(
        bundle, Stream(folder, schema, {}), tmp_path / "answers.parquet", every_row, rows_at_once=rows_at_once
    )
    table = PredictionTable.read(tmp_path / "answers.parquet")
    expected = predict(bundle, fleet, last_only=not every_row)
    assert sorted_columns(expected) == [
        getattr(table, name).tolist() for name in ("machine", "time", "head", "score", "alarm")
    ]
    assert written == len(table.time) == 3 * (len(fleet.time) if every_row else 5)


def test_the_file_does_not_depend_on_how_machines_are_grouped(tiny_bundle, folder, schema, tmp_path):
    bundle = load(tiny_bundle)
    for rows in (1, 10**6):
        batch.score(bundle, Stream(folder, schema, {}), tmp_path / f"{rows}.csv", True, rows_at_once=rows)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "1000000.csv").read_bytes()


def test_csv_and_parquet_hold_the_same_answers(tiny_bundle, fleet, folder, schema, tmp_path):
    """Text has every bit of a score, and times as requests write them."""
    for name in ("answers.csv", "answers.parquet"):
        batch.score(load(tiny_bundle), Stream(folder, schema, {}), tmp_path / name, False)
    text = pd.read_csv(tmp_path / "answers.csv")
    table = PredictionTable.read(tmp_path / "answers.parquet")
    assert COLUMNS == list(text.columns) == pq.read_schema(tmp_path / "answers.parquet").names
    assert table.score.tolist() == text["score"].tolist()
    assert table.alarm.tolist() == text["alarm"].tolist()
    times, bad = parse(text["datetime"].tolist())
    assert bad == -1
    assert table.time.tolist() == times.tolist()


@pytest.mark.parametrize("form", ["csv", "delta"])
def test_the_command_reads_csv_and_delta_and_prints_progress(form, tiny_bundle, fleet, folder, schema, tmp_path):
    for table, frame in sources.tables_to_frames(fleet, schema).items():
        if form == "csv":
            frame.to_csv(tmp_path / f"PdM_{table}.csv", index=False)
        else:
            write_deltalake(tmp_path / table, frame)
    out = tmp_path / "new" / "answers.parquet"
    done = run("--data", tmp_path, "--bundle", tiny_bundle, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"5 of 5 machines, {len(fleet.time):,} of {len(fleet.time):,} rows" in done.stderr
    expected = predict(load(tiny_bundle), fleet, last_only=True)
    found = PredictionTable.read(out)
    assert sorted_columns(expected) == sorted_columns(found)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--data", "none"], "error: none: no such file or folder"),
        (["--out", "answers.xlsx"], "the suffix gives the format; choose .parquet or .csv"),
        (["--bundle", "none"], "error: bundle none: "),
        (["--params", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_usage_is_one_line_and_2(words, why, tiny_bundle, folder, tmp_path):
    given = {"--data": folder, "--bundle": tiny_bundle, "--out": "answers.csv"} | dict([words])
    done = run(*[word for pair in given.items() for word in pair], cwd=tmp_path)
    assert done.returncode == 2
    assert why in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_half_way_leaves_the_earlier_file_and_nothing_beside_it(tiny_bundle, fleet, schema, tmp_path):
    (tmp_path / "fleet").mkdir()
    frames = sources.tables_to_frames(fleet, schema)
    frames["telemetry"].loc[len(fleet.time) - 1, "volt"] = np.inf  # of the last machine
    frames["telemetry"].to_parquet(tmp_path / "fleet" / "PdM_telemetry.parquet")
    out = tmp_path / "out" / "answers.parquet"
    out.parent.mkdir()
    out.write_bytes(b"before")
    with pytest.raises(DataError, match=r"telemetry.volt: is infinite"):
        batch.score(load(tiny_bundle), Stream(tmp_path / "fleet", schema, {}), out, True, rows_at_once=1)
    assert b"before" == out.read_bytes()
    assert [out] == list(out.parent.iterdir())


def test_killed_half_way_it_leaves_the_earlier_file(tiny_bundle, folder, schema, tmp_path):
    out = tmp_path / "answers.parquet"
    out.write_bytes(b"before")
    code = (
        "import sys, time; from pathlib import Path; from model import batch;"
        "complete = batch.complete(Path(sys.argv[1]));"
        "temporary = complete.__enter__(); temporary.write_bytes(b'half'); print('half', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "half\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert b"before" == out.read_bytes()


def test_memory_does_not_grow_with_the_fleet(tiny_bundle, schema, tmp_path, monkeypatch):
    """With ten times the machines no part has more rows."""
    held = []
    real = batch.predict
    monkeypatch.setattr(
        batch, "predict", lambda *words, **options: (held.append(len(words[1].time)), real(*words, **options))[1]
    )
    for machines in (2, 20):
        folder = tmp_path / str(machines)
        sources.write_tables(simulate("default", machines, 20, 4, schema).tables, schema, folder)
        batch.score(load(tiny_bundle), Stream(folder, schema, {}), tmp_path / "out.csv", False, rows_at_once=960)
    assert {960} == set(held)
    assert 11 == len(held)
