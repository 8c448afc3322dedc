"""Whether features and labels on Spark have the bits of one process: ``python tests/bench/spark_parity.py``.

One digest over all machines, on a session of two cores, on a standalone cluster of two workers and over Spark Connect,
each with three numbers of partitions, from Parquet files and (on the first) from Delta tables. Then Spark Connect is
told to keep models small, and must be seen to truncate one, which is refused. It starts its own servers, on loopback.
It needs ``make spark``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from closedloop.data.schema import microseconds
from closedloop.data.simulate import simulate
from closedloop.data.sources import read_frames, read_tables, write_tables
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.judge.holdout import last_times
from closedloop.spark import estimators, session, trees
from closedloop.spark.fleet import open_fleet
from model.common import params, spark_rows

PARTITIONS = (1, 3, 7)
SMALL = {"spark.connect.session.connectML.mlCache.memoryControl.maxModelSize": "60k"}


def wanted(folder: Path) -> tuple[object, spark_rows.Wanted]:
    """The tables of a folder, and what decides their features and labels."""
    asked = params.load()
    tables = read_tables(folder, asked.schema, {})
    spec = FeatureSpec.from_params(asked.features, asked.schema)
    constants = fit_constants(tables, asked.schema, int(tables.time.max()), spec.history_us)
    until = last_times(tables, np.ones(len(tables.time), bool))
    every_us = microseconds(asked.failure["negatives_every_hours"])
    return tables, spark_rows.Wanted(spec, constants, asked.schema, until, None, asked.horizon_us, every_us)


def digest(found: pa.Table) -> str:
    """One digest of those of the machines."""
    pairs = sorted(zip(found["machineID"].to_pylist(), found["digest"].to_pylist(), strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]


def on_spark(folder: Path, partitions: tuple[int, ...]) -> list[str]:
    """The digest of a folder's fleet with each number of partitions, on the session that the environment names."""
    _, asked = wanted(folder.parent / "parquet")
    fleet = open_fleet(folder, asked.schema, {}, labels=True)
    run = partial(spark_rows.digests, wanted=asked)
    return [digest(fleet.map(run, f"{asked.key}, digest string", count).toArrow()) for count in partitions]


def truncation() -> str:
    """What is said of a forest that Spark Connect truncates."""
    from pyspark.ml.functions import array_to_vector

    session.SETTINGS |= SMALL
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 20))
    label = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=20_000) > 0).astype(float)
    table = pa.table({"x": list(X), "label": label, "weight": np.ones(len(label))})
    rows = session.session().createDataFrame(table).select(array_to_vector("x").alias("features"), "label", "weight")
    try:
        trees.trained(estimators.estimator("random_forest", {"numTrees": 20, "maxDepth": 8}, 7), rows)
    except ValueError as error:
        return f"refused: {error}"
    return "NOT refused"


@contextmanager
def cluster() -> Iterator[str]:
    """A standalone cluster of two workers with a core each, on loopback; its address."""
    import pyspark

    program = Path(pyspark.__file__).parent / "bin/spark-class"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, own = f"spark://127.0.0.1:{port}", {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    of = [
        program,
        "org.apache.spark.deploy.master.Master",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--webui-port",
        "0",
    ]
    worker = [program, "org.apache.spark.deploy.worker.Worker", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
    started = []
    with tempfile.TemporaryDirectory() as work:
        try:
            for command in (of, *([[*worker, "--host", "127.0.0.1", "--work-dir", work, address]] * 2)):
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                started.append(subprocess.Popen(command, env=os.environ | own, **quiet))
                time.sleep(5)
            yield address
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def run(mode: str, folder: Path, **environment: str) -> None:
    """Print what a process with this environment says."""
    command = [sys.executable, __file__, "--mode", mode, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    print(done.stdout if done.returncode == 0 else done.stderr[-2000:], end="", flush=True)


def main() -> None:
    """Print a line for each place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=12)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--mode", default="")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.mode == "truncation":
        print("Connect, models of 60k:", truncation())
    elif args.mode:
        print(args.mode, *on_spark(args.folder, PARTITIONS))
    else:
        with tempfile.TemporaryDirectory() as place:
            parquet, delta = Path(place) / "parquet", Path(place) / "delta"
            schema = params.load().schema
            write_tables(simulate("default", args.machines, args.days, 5, schema).tables, schema, parquet)
            for table, frame in read_frames(parquet, {}).items():
                write_deltalake(str(delta / f"PdM_{table}"), pa.Table.from_pandas(frame, preserve_index=False))
            print("one process", digest(spark_rows.digests(*wanted(parquet))), flush=True)
            run("local[2]", parquet, SPARK_MASTER="local[2]")
            run("local[2], Delta tables", delta, SPARK_MASTER="local[2]")
            with cluster() as address:
                run("standalone, two workers", parquet, SPARK_MASTER=address, SPARK_LOCAL_IP="127.0.0.1")
            run("Connect", parquet, SPARK_REMOTE="local[2]")
            run("truncation", parquet, SPARK_REMOTE="local[2]")


if __name__ == "__main__":
    main()
