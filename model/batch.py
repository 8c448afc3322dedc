"""Score a fleet of any size from files, with the answers that the service would give for the same rows.

--data is a folder of the tables PdM_<table>, each a CSV or Parquet file or a Delta table, or one such file or table of
telemetry. --params gives your names of files and columns. --out is a Parquet or CSV file, by its suffix, with
the columns of predictions.parquet, sorted by machine, time and head. Machines are scored some at a time, so memory does
not grow with the fleet. The output file appears only when it is complete.

With --engine spark, Spark's executors read the tables where they lie and score them, and --out is a folder of Parquet
files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError
from closedloop.data.stream import Stream
from closedloop.heads.bundle import Bundle, load
from model.common import cli, params
from model.common.param_rules import ENGINES
from model.common.predictions import in_order, predict

OUT = cli.BUILD / "batch.parquet"
ROWS_AT_ONCE = 500_000  # telemetry rows in memory; about 100 bytes each, more where times are text


def as_text(table: pa.Table) -> pa.Table:
    """Return the table with its times as text, as requests write them; for CSV."""
    times = [to_text(time) for time in table["datetime"].cast(pa.int64()).to_pylist()]
    return table.set_column(table.column_names.index("datetime"), "datetime", pa.array(times, pa.string()))


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; the file replaces ``path`` at the end, and is deleted after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def score(bundle: Bundle, stream: Stream, out: Path, every_row: bool, rows_at_once: int = ROWS_AT_ONCE) -> int:
    """Write the predictions for the whole stream, and return their number.

    Raises:
        DataError: the telemetry does not fit the bundle's schema.
    """
    machines, rows = len(stream.rows), sum(stream.rows.values())
    done = machines_done = written = alarms = 0
    writer: Any = None
    csv = out.suffix == ".csv"
    with complete(out) as temporary:
        try:
            for tables in stream.parts(rows_at_once):
                found = in_order(predict(bundle, tables, last_only=not every_row))
                found = as_text(found) if csv else found
                if writer is None:
                    make = pc.CSVWriter if csv else pq.ParquetWriter
                    options = {} if csv else {"compression": "zstd"}
                    writer = make(temporary, found.schema, **options)
                writer.write_table(found)
                done, machines_done = done + len(tables.time), machines_done + len(tables.bounds()[0])
                written, alarms = written + len(found), alarms + found["alarm"].to_numpy().sum()
                cli.say(f"{machines_done:,} of {machines:,} machines, {done:,} of {rows:,} rows: {alarms:,} alarms")
        finally:
            if writer is not None:
                writer.close()
    return written


def main(words: list[str]) -> None:
    """Score the fleet that --data names."""
    parser = cli.parser(__doc__, out=OUT, writes="the file of answers, .parquet or .csv")
    parser.add_argument(
        "--every-row", action="store_true", help="answer for every row, not only for each machine's last as /score does"
    )
    parser.add_argument("--engine", choices=ENGINES, help="where to compute (default: engine: in the parameter file)")
    args = parser.parse_args(words)
    asked = params.load(args.params)
    if args.out.suffix not in (".parquet", ".csv"):
        raise DataError(f"--out {args.out}: the suffix gives the format; choose .parquet or .csv")
    bundle = load(args.bundle)
    if (args.engine or asked.engine) == "spark":
        from model.common import spark_batch  # it needs pyspark, which only this engine installs

        written = spark_batch.score(bundle, args.data, args.out, args.every_row, asked)
        cli.say(f"wrote {args.out}: {written:,} predictions")
        return
    cli.say(f"counting the rows of {args.data}")
    stream = Stream(args.data, bundle.schema, asked.columns, asked.files, asked.read)
    written = score(bundle, stream, args.out, args.every_row)
    cli.say(f"wrote {args.out}: {written:,} predictions")


if __name__ == "__main__":
    cli.main(main)
