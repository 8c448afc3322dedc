"""Whether features and labels on Spark have the bits of one process: ``python tests/bench/spark_parity.py``.

One digest over all machines, on a session of two cores, on a standalone cluster of two workers and over Spark Connect,
each with three numbers of partitions, from Parquet files and (on the first) from Delta tables. Then Spark Connect is
told to keep models small, and must be seen to truncate one, which is refused. It starts its own servers, on loopback.
It needs ``make spark``.

``--mode served`` asks another question: a random forest of 60 trees of depth 8 and 60 boosted trees of depth 5 of MLlib
become bundles, and the service's own scoring answers 10,000 windows. Leaf and class must be Spark's, the probability
within 2e-15. It prints the time of an answer beside that of the template's own heads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake

from closedloop.data.schema import Schema, Tables, microseconds
from closedloop.data.simulate import simulate
from closedloop.data.sources import read_frames, read_tables, tables_to_frames, write_tables
from closedloop.features.kernel import compute
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, write
from closedloop.heads.scorers import FailureHead
from closedloop.judge.holdout import last_times
from closedloop.spark import estimators, session, trees
from closedloop.spark.fleet import open_fleet
from model.common import params, spark_rows
from model.common.training import labelled
from model.train import train

PARTITIONS = (1, 3, 7)
SMALL = {"spark.connect.session.connectML.mlCache.memoryControl.maxModelSize": "60k"}


def wanted(folder: Path) -> tuple[object, spark_rows.Wanted]:
    """The tables of a folder, and what decides their features and labels."""
    asked = params.load()
    tables = read_tables(folder, asked.schema, {})
    spec = FeatureSpec.from_params(asked.features, asked.schema)
    constants = fit_constants(tables, asked.schema, int(tables.time.max()), spec.history_us)
    constants, _ = fit_levels(tables, spec, asked.schema, constants)
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


ENSEMBLES = {
    "random_forest": {"numTrees": 60, "maxDepth": 8, "minInstancesPerNode": 10, "maxMemoryInMB": 512},
    "gradient_boosted_trees": {"maxIter": 60, "maxDepth": 5, "minInstancesPerNode": 10, "maxMemoryInMB": 512},
}


def served(machines: int, windows: int) -> Iterator[str]:
    """Yield a line for each ensemble: how the service's answers to so many windows compare with Spark's."""
    from pyspark.ml.functions import array_to_vector  # only where there is a session

    asked = params.load()
    hours = asked.features["history_hours"]
    days = windows // machines // 24 + hours // 24 + 1
    tables = simulate("azure", machines, days, 5, asked.schema).tables
    own = trained_here(tables, asked)
    X = compute(tables, own.spec, own.constants, asked.schema).X
    X = np.vstack([X, own.anomaly.score(X)])
    y = np.array([labelled(tables, asked.schema, asked.horizon_us).max(axis=0)])[0] == 1
    rows = whole_windows(tables, hours)[:windows]
    columns = np.arange(len(X), dtype=np.int32)
    spark = session.session()
    table = pa.table({"x": list(trees.vectors(X).T), "label": y.astype(float), "weight": np.where(y, 20.0, 1.0)})
    frame = spark.createDataFrame(table.append_column("row", pa.array(np.arange(len(y)))))
    frame = frame.select(array_to_vector("x").alias("features"), "label", "weight", "row").persist()
    bodies = requests_of(tables, rows, hours, asked.schema)
    yield f"the template's own heads: {answered(own, bodies)[1]:.0f} µs an answer"
    for name, parameters in ENSEMBLES.items():
        model = estimators.estimator(name, parameters, 7).setLeafCol("leaf").fit(frame)
        forest = trees.flat(model, spark)
        at = 0.5 if name == "random_forest" else 0.0  # Spark's class is 1 above it
        threshold = float(np.nextafter(1 / (1 + np.exp(-at)), 1))
        head = FailureHead(forest, columns, 1.0, 0.0, threshold)
        bundle = replace(own, failures=dict.fromkeys(asked.schema.components, head))
        found, micros = answered(bundle, bodies)
        theirs = model.transform(frame).orderBy("row").select("probability", "prediction", "leaf").collect()
        theirs = [theirs[row] for row in rows]
        raw = np.array([one.probability[1] for one in theirs])
        ours = np.array([one["probability"] for one in found])
        expected = 1 / (1 + np.exp(-raw)) if name == "random_forest" else raw
        classes = sum(one["alarm"] != (their.prediction == 1) for one, their in zip(found, theirs, strict=True))
        leaves = np.array([one.leaf.toArray() for one in theirs]).T
        wrong = sum(leaf_differs(forest, k, X[:, rows], leaf) for k, leaf in enumerate(leaves))
        worst = np.abs(ours - expected).max()
        yield (
            f"{name}: {len(rows):,} windows, {classes} other classes, {wrong} of {len(leaves)} trees differ, "
            f"probability within {worst:.1e}, {micros:.0f} µs an answer; positive: {int(y[rows].sum())}"
        )


def trained_here(tables: Tables, asked: params.Params) -> Bundle:
    """The template's own model of a fleet, in this process."""
    until = last_times(tables, np.ones(len(tables.time), bool))
    about = {"source": "simulated", "fingerprint": tables.fingerprint(), "train_until": until}
    with redirect_stderr(io.StringIO()):
        return next(train(tables, asked.schema, asked, about))[1]


def whole_windows(tables: Tables, hours: int) -> Any:
    """The rows with so many hours before them, in random order."""
    _, offsets = tables.bounds()
    rows = np.concatenate([np.arange(low + hours, high) for low, high in pairwise(offsets.tolist())])
    return np.random.default_rng(0).permutation(rows)


def requests_of(tables: Tables, rows: Any, hours: int, schema: Schema) -> list[str]:
    """The body of a request for each row: its machine's last hours, as a client sends them."""
    frames = tables_to_frames(tables, schema)
    parts = {name: dict(iter(frame.groupby("machineID"))) for name, frame in frames.items() if name != "failures"}
    found = []
    for row in rows.tolist():
        machine, until = (
            int(tables.named(tables.machine[[row]])[0]),
            pd.Timestamp(int(tables.time[row]), unit="us", tz="UTC"),
        )
        body = {}
        for name, of_machine in parts.items():
            frame = of_machine.get(machine)
            if frame is None:
                continue
            if "datetime" in frame:
                late = frame["datetime"] > until - pd.Timedelta(hours=hours)
                kept = (frame["datetime"] <= until) & (late | (name == "maint"))
                frame = frame[kept].assign(datetime=frame["datetime"][kept].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
            body[name] = frame.to_dict("list")
        found.append(json.dumps(body))
    return found


def answered(bundle: Bundle, bodies: list[str]) -> tuple[list[Any], float]:
    """The first component's answer to each request, from the scoring contract, and the median microseconds of one."""
    import score.score as contract  # it reads MODEL_DIR

    found, times = [], []
    with tempfile.TemporaryDirectory() as place:
        write(bundle, Path(place) / "bundle")
        os.environ["MODEL_DIR"] = f"{place}/bundle"
        contract.init()
        for body in bodies:
            began = time.perf_counter()
            answer = contract.run(body)
            times.append(time.perf_counter() - began)
            (result,) = answer["results"]
            found.append(next(iter(result["failure"].values())))
    return found, 1e6 * float(np.median(times))


def leaf_differs(forest: Any, tree: int, X: Any, leaf: Any) -> bool:
    """Whether our leaves of one tree divide the rows otherwise than Spark's."""
    node = np.full(X.shape[1], forest.roots[tree])
    while (inner := forest.left[node] >= 0).any():
        x = X[forest.feature[node], np.arange(X.shape[1])]
        right = (x > forest.threshold[node]) & ~np.isnan(x)
        node = np.where(inner, forest.left[node] + right, node)
    pairs = set(zip(leaf.tolist(), node.tolist(), strict=True))
    return not len(pairs) == len(set(leaf.tolist())) == len(set(node.tolist()))


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
    parser.add_argument("--windows", type=int, default=10_000, help="how many are scored with --mode served")
    parser.add_argument("--mode", default="")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.mode == "truncation":
        print("Connect, models of 60k:", truncation())
    elif args.mode == "served":
        for line in served(args.machines, args.windows):
            print(line, flush=True)
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
