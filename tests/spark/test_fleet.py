"""How batches of rows become whole machines, and what is refused: without Spark, which only moves the rows."""

import sys
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from closedloop.data.schema import HOUR_US, DataError, Schema
from closedloop.spark import fleet as fleets
from closedloop.spark import session
from simulated_fleet import SCHEMA

HOURS = 30


def long(*frames):
    batches = [
        batch
        for table, frame in frames
        for batch in fleets._typed(iter([pa.RecordBatch.from_pandas(frame)]), table, SCHEMA, {})
    ]
    order = [("machineID", "ascending"), ("kind", "ascending"), ("time", "ascending"), ("name", "ascending")]
    return pa.Table.from_batches(batches).sort_by(order)


def readings(machines):
    time = pd.date_range("2015-01-01", periods=HOURS, freq="h")
    rng = np.random.default_rng(0)
    each = [
        pd.DataFrame({"datetime": time, "machineID": m} | {s: rng.normal(size=HOURS) for s in SCHEMA.sensors})
        for m in machines
    ]
    return pd.concat(each, ignore_index=True)


def seen(tables):
    """Which machines came together, and how many rows and errors each has."""
    ids, offsets = tables.bounds()
    errors = [len(window.errors.time) for window in tables.windows()]
    return pa.table(
        {"machine": ids, "rows": np.diff(offsets), "errors": errors, "together": np.full(len(ids), len(ids))}
    )


@pytest.mark.parametrize("of_a_batch", [1, 7, 30, 31, 1000])
def test_a_machine_is_whole_however_its_rows_are_divided(monkeypatch, of_a_batch):
    monkeypatch.setattr(fleets, "ROWS", 45)
    error = pd.DataFrame({"datetime": pd.to_datetime(["2015-01-01T05:00"]), "machineID": 4, "errorID": "error1"})
    rows = long(("telemetry", readings([3, 4, 5, 9])), ("errors", error))
    batches = iter(rows.to_batches(max_chunksize=of_a_batch))
    found = pa.Table.from_batches(fleets._each(batches, seen, SCHEMA, ("telemetry", "errors")))
    assert found["machine"].to_pylist() == [3, 4, 5, 9]
    assert found["rows"].to_pylist() == [HOURS] * 4
    assert found["errors"].to_pylist() == [0, 1, 0, 0]
    assert max(found["together"].to_pylist()) < 4 or of_a_batch == 1000  # none waits for the end


def test_a_machine_that_only_has_errors_gets_no_answer():
    error = pd.DataFrame({"datetime": pd.to_datetime(["2015-01-01T05:00"]), "machineID": 4, "errorID": "error1"})
    assert [*fleets._each(iter(long(("errors", error)).to_batches()), seen, SCHEMA, ("errors", "telemetry"))] == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("machineID", "x", "telemetry.machineID: 'x' is not a whole number"),
        ("datetime", "soon", "telemetry.datetime: 'soon' is not a time"),
        ("volt", "high", "telemetry.volt: 'high' is not a number"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(column, value, said):
    frame = readings([1]).astype({column: "str"})
    frame.loc[3, column] = value
    with pytest.raises(DataError, match=said):
        long(("telemetry", frame))


def test_a_column_that_is_missing_is_named():
    with pytest.raises(DataError, match=r"telemetry.volt: the column is missing; the table has datetime, machineID"):
        long(("telemetry", readings([1]).drop(columns="volt")))


def test_names_of_machines_stay_names():
    named = Schema.from_dict(SCHEMA.to_dict() | {"machine_id": "text"})
    frame = readings([1]).assign(machineID="Pump A/7")
    (batch,) = fleets._typed(iter([pa.RecordBatch.from_pandas(frame)]), "telemetry", named, {})
    (answer,) = fleets._each(iter([batch]), names_of, named, ("telemetry",))
    assert answer.to_pydict() == {"name": ["Pump A/7"], "last": [int(frame["datetime"].iloc[-1].timestamp()) * 10**6]}
    assert (HOURS - 1) * HOUR_US + int(frame["datetime"].iloc[0].timestamp()) * 10**6 == answer["last"][0].as_py()


def names_of(tables):
    """The names of the machines, and their last times."""
    ids, offsets = tables.bounds()
    return pa.table({"name": list(tables.named(ids)), "last": tables.time[offsets[1:] - 1]})


def test_other_files_are_refused(tmp_path):
    (tmp_path / "PdM_telemetry.csv").write_text("datetime,machineID\n")
    with pytest.raises(DataError, match=r"spark reads Parquet, CSV with a header, or Delta tables, not a\.xlsx"):
        fleets._read(None, "telemetry", [tmp_path / "a.xlsx"])


def test_a_machine_without_spark_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^engine: spark: pyspark is not installed; run: make spark$"):
        session.session()
    monkeypatch.setattr(session, "find_spec", lambda name: name)
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "there is no java in JAVA_HOME=/nowhere; install Java 17" in str(session.missing())
    monkeypatch.setenv("SPARK_REMOTE", "sc://spark.example:15002")
    assert session.missing() is None  # the server has its own


def test_on_databricks_its_own_session_is_used_and_no_java_is_looked_for(monkeypatch):
    """Serverless compute shows no Java, and a session that another thread has started is not this thread's."""
    asked = []
    builder = type("Builder", (), {"getOrCreate": lambda self: asked.append("a session") or "theirs"})()
    sql = types.ModuleType("pyspark.sql")
    sql.SparkSession = type("S", (), {"builder": builder, "getActiveSession": staticmethod(lambda: None)})
    monkeypatch.setitem(sys.modules, "pyspark", types.ModuleType("pyspark"))
    monkeypatch.setitem(sys.modules, "pyspark.sql", sql)
    monkeypatch.setattr(session, "find_spec", lambda name: name)
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4.9")
    assert session.session() == "theirs"
    assert asked == ["a session"]


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ('openjdk version "17.0.15" 2025-04-15', ""),
        ('openjdk version "25" 2025-09-16', ""),
        ('java version "1.8.0_201"', "is Java 8; install Java 17, or name another with JAVA_HOME"),
        ('openjdk version "11.0.2" 2019-01-15', "is Java 11; install Java 17"),
        ("something else", ""),  # Spark will say what is wrong with it
    ],
)
def test_a_java_that_is_too_old_is_named(monkeypatch, tmp_path, says, refused):
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setattr(session, "find_spec", lambda name: name)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    assert refused in str(session.missing() or "")
    assert bool(refused) == (session.missing() is not None)


def of_spark(text):
    """An error as pyspark raises it."""
    return type("AnalysisException", (Exception,), {"__module__": "pyspark.errors.exceptions.captured"})(text)


WORKER = "Job aborted.\n  File \"worker.py\"\nModuleNotFoundError: No module named 'closedloop'\n\tat org.apache"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: DataError: telemetry.volt: 'high' is not a number\\n\nat", "telemetry.volt: 'high' is not a number"),
        (
            "[JAVA_GATEWAY_EXITED] Java gateway process exited.",
            "exited.; the lines above say why: a Java that does not fit",
        ),
        (
            WORKER,
            "engine: spark: ModuleNotFoundError: No module named 'closedloop'; executors need this project's wheel",
        ),
        ("\n[PATH_NOT_FOUND] Path does not exist: x.\nJVM stacktrace", "engine: spark: [PATH_NOT_FOUND] Path does not"),
        ("Illegal Parquet type: INT64 (TIMESTAMP(NANOS,true)).", "write times in microseconds"),
        ("", "engine: spark: AnalysisException"),
    ],
)
def test_an_error_of_spark_is_one_line(text, said):
    with pytest.raises(DataError) as refused, fleets.told():
        raise of_spark(text)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_error_of_our_own_stays_what_it_is():
    with pytest.raises(KeyError), fleets.told():
        raise KeyError("a fault of the code")
