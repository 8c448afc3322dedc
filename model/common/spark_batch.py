"""Score a fleet of any size on Spark: the answers of ``model.batch``, computed by the executors that have the rows."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa

from closedloop.data.schema import DataError, Tables
from closedloop.heads.bundle import Bundle
from closedloop.spark.fleet import machine_type, open_fleet, told
from model.common.params import Params
from model.common.predictions import in_order, predict


def answers(tables: Tables, bundle: Bundle, last_only: bool) -> pa.Table:
    """The answers for some whole machines, in the order of a batch."""
    return in_order(predict(bundle, tables, last_only))


def score(bundle: Bundle, data: Path, out: Path, every_row: bool, asked: Params) -> int:
    """Write the predictions for a fleet into the folder ``out``, and return their number.

    The files of the folder, in order of their names, have the rows of one batch in order. The folder is replaced whole.

    Raises:
        DataError: the telemetry does not fit the bundle's schema, or Spark does not read such files.
    """
    if asked.read:
        raise DataError(
            "engine: spark does not know read:; write the tables as Parquet first, or leave ENGINE=spark out"
        )
    if out.suffix != ".parquet":
        raise DataError(f"--out {out}: with engine spark it is a folder of Parquet files; choose a name with .parquet")
    if out.is_file():
        raise DataError(f"--out {out}: it is a file, and Spark writes a folder; delete it or choose another name")
    with told():
        fleet = open_fleet(data, bundle.schema, asked.columns, asked.files)
        types = f"machineID {machine_type(bundle.schema)}, datetime timestamp, head string, score double, alarm boolean"
        made = fleet.map_in_order(partial(answers, bundle=bundle, last_only=not every_row), types)
        part = out.with_name(f".{out.name}.part").resolve()
        try:
            made.write.mode("overwrite").parquet(str(part), compression="zstd")
            shutil.rmtree(out, ignore_errors=True)
            part.replace(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return int(made.sparkSession.read.parquet(str(out.resolve())).count())
