"""A fleet in Spark: all its tables as one, so that everything about a machine comes to one executor, in order.

The columns of that one table are ``machineID``, ``kind`` (which table a row is of), ``time`` (microseconds UTC),
``name`` (code, component or model), ``finding``, ``age``, and one for each sensor. Rows are partitioned by machine. In
a partition machines follow one another; what is told of a machine comes before its telemetry, in order of time.
Values are converted, and refused, by the same code as for files on one machine.
"""

from __future__ import annotations

import functools
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from closedloop.data import reading, tables
from closedloop.data.frames import (
    FINDING,
    NAME_COLUMN,
    WANTED,
    Columns,
    check_mapping,
    convert,
    frames_to_tables,
    rename,
    wanted,
)
from closedloop.data.machines import TEXT
from closedloop.data.schema import DataError, Schema, Tables
from closedloop.data.sources import native
from closedloop.data.stream import find, is_delta
from closedloop.spark.session import of_pandas, scratch, session

KINDS = ("machines", "marks", "errors", "maint", "failures", "telemetry")  # in the order of a machine's rows
ROWS = 200_000  # rows of whole machines that an executor computes at once; a machine may have more
UNTIL = "until"  # the column of marks that is a time
ADVICE = {  # what Spark says, and what to do about it
    "JAVA_GATEWAY_EXITED": "; the lines above say why: a Java that does not fit, a setting of memory that is none, or "
    "no way to Maven, which has Delta's library",
    "No module named": "; executors need this project's wheel and requirements/train.txt",
    "NANOS": "; write times in microseconds, as pandas does with coerce_timestamps='us'",
    "Could not parse Master URL": "; SPARK_MASTER is for instance local[2] or spark://host:7077",
    "delta. Make sure": "; the session that is running has no Delta: start it with io.delta:delta-spark",
}

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class SparkFleet:
    """The one table, as ``rows``, and which of the five tables (and ``marks``) the fleet has."""

    rows: Any
    schema: Schema
    present: tuple[str, ...]

    def map(self, of: Callable[[Tables], pa.Table], columns: str, partitions: int | None = None) -> Any:
        """A data frame of what ``of`` gives for the tables of some whole machines, wherever an executor has them.

        Args:
            of: a function of an importable module, or a ``functools.partial`` of one.
            columns: names and types of what it gives, as Spark writes them: ``machineID bigint, x double``.
            partitions: into how many parts machines are divided; by default Spark decides. No answer depends on it.
        """
        by = (partitions, "machineID") if partitions else ("machineID",)
        return self._computed(self.rows.repartition(*by), of, columns)

    def map_in_order(self, of: Callable[[Tables], pa.Table], columns: str) -> Any:
        """The same, where parts and their rows are in order of the machines."""
        return self._computed(self.rows.repartitionByRange("machineID"), of, columns)

    def _computed(self, divided: Any, of: Callable[[Tables], pa.Table], columns: str) -> Any:
        ordered = divided.sortWithinPartitions("machineID", "kind", "time", "name")
        run = functools.partial(_each, of=of, schema=self.schema, present=self.present)
        return computed(ordered, run, columns)


def computed(frame: Any, run: Callable[[Batches], Batches], columns: str) -> Any:
    """The data frame that ``run`` makes of the batches of another one."""
    with of_pandas():
        return frame.mapInArrow(run, columns)


@contextmanager
def stored(frame: Any) -> Iterator[Any]:
    """Inside, the rows of a data frame lie in the scratch folder, so that they are computed once.

    ``persist()`` would keep them in the executors' memory, and serverless compute of Databricks refuses it.
    """
    folder = scratch() / f"rows-{uuid.uuid4().hex}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        frame.write.parquet(str(folder))
        yield frame.sparkSession.read.parquet(str(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def machine_type(schema: Schema) -> str:
    """What Spark calls the type of ``machineID``."""
    return "string" if schema.has_names else "bigint"


def open_fleet(
    location: Path,
    schema: Schema,
    columns: Columns,
    files: Mapping[str, str | list[str]] | None = None,
    *,
    labels: bool = False,
) -> SparkFleet:
    """The fleet of a folder of Parquet files, CSV files or Delta tables, or of one such table of telemetry.

    Args:
        location: what executors can read too: a folder that they share, or one of this machine where they run on it.
        schema: what the tables must fit.
        columns: your column names for ours, by table.
        files: the name of each table's file or Delta table.
        labels: whether failures and marks are read too, which training needs.

    Raises:
        DataError: nothing is recognised, or a table has a form that Spark does not read.
    """
    check_mapping(columns)
    found = find(location, files or {})
    if labels:
        found |= {table: [path] for table, path in native(location).items() if table in ("failures", "marks")}
        if is_delta(location / "PdM_failures"):
            found["failures"] = [location / "PdM_failures"]
    spark = session(delta=any(is_delta(path) for paths in found.values() for path in paths))
    parts = []
    for table, paths in found.items():
        run = functools.partial(_typed, table=table, schema=schema, columns={table: dict(columns.get(table, {}))})
        parts.append(computed(_read(spark, table, paths), run, _ddl(schema)))
    return SparkFleet(functools.reduce(lambda one, other: one.unionByName(other), parts), schema, tuple(found))


@contextmanager
def told() -> Iterator[None]:
    """Errors of Spark are one line here: what an executor said of the data as it was said there, else Spark's own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DataError) or type(error).__module__.partition(".")[0] not in ("pyspark", "py4j"):
            raise
        said = str(error)
        if found := re.search(r"DataError: (.+)", said):
            raise DataError(found[1].replace("\\n", " ").strip()) from None
        advice = next((advice for sign, advice in ADVICE.items() if sign in said), "")
        raised = re.findall(r"^\w+(?:Error|Exception): .+", said, re.MULTILINE)  # in Python, on an executor
        first = raised[-1] if raised else next((line for line in said.splitlines() if line.strip()), repr(error))
        raise DataError(f"engine: spark: {first.strip()[:300]}{advice}") from error


def _ddl(schema: Schema) -> str:
    sensors = ", ".join(f"s{k} double" for k in range(len(schema.sensors)))
    kinds = f"machineID {machine_type(schema)}, kind tinyint, time bigint, name string, finding string, age double"
    return f"{kinds}, {sensors}"


def _read(spark: Any, table: str, paths: list[Path]) -> Any:
    """The data frame of one table, with the columns that its files have."""
    names = [str(path.resolve()) for path in paths]
    if all(is_delta(path) for path in paths):
        frames = [spark.read.format("delta").load(name) for name in names]
    elif all(path.suffix == ".parquet" for path in paths):
        frames = [spark.read.option("mergeSchema", "true").parquet(*names)]
    elif all(path.suffix == ".csv" for path in paths):
        # one at a time, since Spark takes the header of the first file for all; values stay text, and we convert them
        frames = [spark.read.csv(name, header=True, inferSchema=False, escape='"') for name in names]
    else:
        shown = ", ".join(path.name for path in paths)
        raise DataError(f"{table}: engine: spark reads Parquet, CSV with a header, or Delta tables, not {shown}")
    return functools.reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), frames)


# --- what runs on executors ------------------------------------------------------------------------------------------


def _typed(batches: Batches, table: str, schema: Schema, columns: Columns) -> Batches:
    """The rows of one table in the form of the one table."""
    for batch in batches:
        if batch.num_rows:
            frame = rename(table, batch.to_pandas(), columns)
            yield from _long(table, tables.finished(table, frame, reading.settings({}, table)), schema)


def _long(table: str, frame: pd.DataFrame, schema: Schema) -> Batches:
    def of(name: str) -> Any:
        if name not in frame:
            have = ", ".join(map(str, frame.columns))
            raise DataError(f"{table}.{name}: the column is missing; the table has {have}: add it, or map yours")
        kind = wanted(table, name, schema.machine_id)
        found, unreadable = convert(frame[name], kind)
        unreadable = unreadable | (found.isna().to_numpy() if name in ("machineID", "datetime") else False)
        if unreadable.any():
            value = str(frame[name].iloc[int(np.flatnonzero(unreadable)[0])])[:60]
            raise DataError(f"{table}.{name}: {value!r} {WANTED[kind][0]}; {WANTED[kind][1]}")
        return found

    rows = len(frame)
    when = {"machines": None, "marks": UNTIL}.get(table, "datetime")
    nothing = pa.nulls(rows, pa.string())
    made = {
        "machineID": pa.array(of("machineID").to_numpy(), pa.string() if schema.has_names else pa.int64()),
        "kind": pa.array(np.full(rows, KINDS.index(table), np.int8)),
        "time": pa.nulls(rows, pa.int64()) if when is None else _microseconds(of(when)),
        "name": _texts(of(NAME_COLUMN[table])) if table in NAME_COLUMN else nothing,
        "finding": _texts(of(FINDING)) if table == "maint" and FINDING in frame else nothing,
        "age": pa.array(of("age").to_numpy(), pa.float64(), from_pandas=False)
        if table == "machines"
        else pa.nulls(rows, pa.float64()),
    }
    for k, sensor in enumerate(schema.sensors):
        reading_of = (
            pa.array(of(sensor).to_numpy(), pa.float64(), from_pandas=False)
            if table == "telemetry"
            else pa.nulls(rows, pa.float64())
        )
        made[f"s{k}"] = reading_of
    yield from pa.table(made).to_batches()


def _microseconds(times: pd.Series) -> pa.Array:
    """Times as microseconds UTC, null where one is missing."""
    whole = times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return pa.array(whole, mask=times.isna().to_numpy())


def _texts(column: pd.Series) -> pa.Array:
    """Texts, null where one is missing."""
    return pa.array(column.astype(object).where(column.notna(), None).to_numpy(), pa.string())


def _each(batches: Batches, of: Callable[[Tables], pa.Table], schema: Schema, present: tuple[str, ...]) -> Batches:
    """What ``of`` gives, for some whole machines at a time. The rows of the last machine wait for the next batch."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        count += batch.num_rows
        if count >= ROWS:
            whole = pa.Table.from_batches(held)
            at = _last(whole["machineID"].combine_chunks())
            if at:
                yield from _answer(whole.slice(0, at), of, schema, present)
                held = whole.slice(at).to_batches()
                count -= at
    if held:
        yield from _answer(pa.Table.from_batches(held), of, schema, present)


def _last(ids: pa.Array) -> int:
    """Where the last machine begins."""
    differs = np.flatnonzero(pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))
    return int(differs[-1]) + 1 if len(differs) else 0


def _answer(rows: pa.Table, of: Callable[[Tables], pa.Table], schema: Schema, present: tuple[str, ...]) -> Batches:
    kind = rows["kind"].to_numpy()
    if (kind == KINDS.index("telemetry")).any():
        frames = {table: _frame(table, rows.filter(pa.array(kind == KINDS.index(table))), schema) for table in present}
        yield from of(frames_to_tables(frames, schema, {})).to_batches()


def _frame(table: str, rows: pa.Table, schema: Schema) -> pd.DataFrame:
    """One table of some machines, with its own names of columns."""
    made: dict[str, Any] = {"machineID": rows["machineID"].to_pandas()}
    if schema.machine_id == TEXT:
        made["machineID"] = made["machineID"].astype("str")
    if table != "machines":
        when = UNTIL if table == "marks" else "datetime"
        made[when] = rows["time"].cast(pa.timestamp("us", "UTC")).to_pandas()
    if table in NAME_COLUMN:
        made[NAME_COLUMN[table]] = rows["name"].to_pandas().astype("str")
    if table == "maint":
        made[FINDING] = rows["finding"].to_pandas().astype("str")
    if table == "machines":
        made["age"] = rows["age"].to_pandas()
    if table == "telemetry":
        made |= {sensor: rows[f"s{k}"].to_pandas() for k, sensor in enumerate(schema.sensors)}
    return pd.DataFrame(made)
