"""``engine: spark`` gives what one machine gives: features bit for bit, a bundle like any other, the same answers."""

import json
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from closedloop.data.schema import DataError, Schema, microseconds
from closedloop.data.simulate import simulate
from closedloop.data.sources import frames_to_tables, read_frames, read_tables, write_tables
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import load, write
from closedloop.judge.holdout import last_times
from closedloop.spark import fleet as fleets
from model.batch import main as batch
from model.common import params, spark_rows
from model.train import train
from simulated_fleet import PARAMS, SCHEMA

MACHINES, DAYS = 14, 100
SPARK = PARAMS | {
    "engine": "spark",
    "failure": PARAMS["failure"]
    | {"estimator": "random_forest", "parameters": {"numTrees": 8, "maxDepth": 4}, "folds": 2, "minimum_failures": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small simulated fleet as Parquet files."""
    made = tmp_path_factory.mktemp("fleet")
    write_tables(simulate("default", MACHINES, DAYS, 5, SCHEMA).tables, SCHEMA, made)
    return made


@pytest.fixture(scope="module")
def tables(folder):
    return read_tables(folder, SCHEMA, {})


def wanted_of(tables, asked, schema=SCHEMA):
    spec = FeatureSpec.from_params(asked.features, schema)
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
    constants, _ = fit_levels(tables, spec, schema, constants)
    until = last_times(tables, np.ones(len(tables.time), bool))
    every_us = microseconds(asked.failure["negatives_every_hours"])
    return spark_rows.Wanted(spec, constants, schema, until, None, asked.horizon_us, every_us)


def in_csv(tables, folder, to):
    """The same tables as CSV files, telemetry last row first."""
    import pyarrow.csv as pc

    for path in folder.glob("PdM_*.parquet"):
        table = pq.read_table(path)
        order = range(len(table))[:: -1 if "telemetry" in path.name else 1]
        if "datetime" in table.column_names:
            text = pa.compute.strftime(table["datetime"], "%Y-%m-%dT%H:%M:%SZ")
            table = table.set_column(table.column_names.index("datetime"), "datetime", text)
        pc.write_csv(table.take(pa.array(order)), to / f"{path.stem}.csv")
    return to


def digests(frame):
    return {row.machineID: row.digest for row in frame.select("machineID", "digest").collect()}


def test_features_and_labels_are_those_of_one_machine_whatever_the_partitions(spark, folder, tables, tmp_path):
    wanted = wanted_of(tables, params.parse(SPARK))
    alone = spark_rows.digests(tables, wanted)
    expected = dict(zip(alone["machineID"].to_pylist(), alone["digest"].to_pylist(), strict=True))
    assert len(set(expected.values())) == MACHINES
    run = partial(spark_rows.digests, wanted=wanted)
    for place, partitions in ((folder, 1), (folder, 5), (in_csv(tables, folder, tmp_path), None)):
        found = fleets.open_fleet(place, SCHEMA, {}, labels=True).map(run, f"{wanted.key}, digest string", partitions)
        assert digests(found) == expected


NAMED = Schema.from_dict(SCHEMA.to_dict() | {"machine_id": "text", "sampling_minutes": 10})
NAMES = ["Pump A/7", "pümp 10", "1", "-", "Z"]


def odd_fleet(folder):
    """Named machines with a row every ten minutes, values and rows missing, in no order; one has a single row."""
    rng = np.random.default_rng(4)
    parts = []
    for name in NAMES:
        rows = 1 if name == "-" else 700
        time = pd.date_range("2015-01-01", periods=rows, freq="10min", tz="UTC", unit="us")
        readings = {sensor: rng.normal(100, 5, rows) for sensor in NAMED.sensors}
        parts.append(pd.DataFrame({"datetime": time, "machineID": name} | readings))
    telemetry = pd.concat(parts).sample(frac=1, random_state=1)
    telemetry.loc[rng.random(len(telemetry)) < 0.1, NAMED.sensors[0]] = np.nan
    telemetry = telemetry[(rng.random(len(telemetry)) > 0.05) | (telemetry["machineID"] == "-")]
    events = pd.to_datetime(["2015-01-02T05:00Z", "2015-01-02T05:00Z", "2015-01-03T00:10Z"]).as_unit("us")
    failures = pd.DataFrame({"datetime": events[2:], "machineID": NAMES[:1], "failure": NAMED.components[:1]})
    frames = {
        "telemetry": telemetry,
        "errors": pd.DataFrame({"datetime": events[:2], "machineID": "1", "errorID": list(NAMED.errors[:2])}),
        "maint": pd.DataFrame({"datetime": events[:1], "machineID": "Z", "comp": NAMED.components[1]}),
        "failures": failures,
        "machines": pd.DataFrame({"machineID": NAMES, "model": NAMED.models[0], "age": [1.0, np.nan, 3, 4, 5]}),
    }
    for table, frame in frames.items():
        frame.to_parquet(folder / f"PdM_{table}.parquet", index=False, row_group_size=100)
    return folder


def test_an_odd_fleet_has_the_features_of_one_machine_too(spark, tmp_path):
    tables = read_tables(odd_fleet(tmp_path), NAMED, {})
    wanted = wanted_of(tables, params.parse(SPARK), NAMED)
    alone = spark_rows.digests(tables, wanted)
    expected = dict(zip(alone["machineID"].to_pylist(), alone["digest"].to_pylist(), strict=True))
    assert set(expected) == set(NAMES)
    run = partial(spark_rows.digests, wanted=wanted)
    for partitions in (1, 7):
        found = fleets.open_fleet(tmp_path, NAMED, {}, labels=True).map(run, f"{wanted.key}, digest string", partitions)
        assert digests(found) == expected


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_each_file_of_a_table_has_its_own_columns(spark, tmp_path, kind):
    """In another order, or without one; a quote in a name is doubled in a CSV file."""
    time = pd.date_range("2015-01-01", periods=3, freq="10min", tz="UTC", unit="us")
    readings = {sensor: [k + 0.5, k + 1.5, k + 2.5] for k, sensor in enumerate(NAMED.sensors)}
    whole = pd.DataFrame({"datetime": time, "machineID": 'Pump "A", left', **readings})
    other = whole.assign(machineID="Z")[[*reversed(NAMED.sensors), "machineID", "datetime"]].drop(columns="volt")
    for name, frame in (("one", other), ("two", whole)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False) if kind == "csv" else frame.to_parquet(
            tmp_path / f"{name}.parquet", index=False
        )
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # executors cannot import a test
    files = {"telemetry": [f"one.{kind}", f"two.{kind}"]}
    expected = frames_to_tables(read_frames(tmp_path, {}, files, NAMED.machine_id), NAMED, {})
    found = fleets.open_fleet(tmp_path, NAMED, {}, files).map(readings_of, "machineID string, x array<double>")
    rows = {row.machineID: np.array(row.x) for row in found.collect()}
    ids, offsets = expected.bounds()
    assert sorted(rows) == sorted(expected.named(ids).tolist())
    for name, low, high in zip(expected.named(ids).tolist(), offsets[:-1], offsets[1:], strict=True):
        np.testing.assert_array_equal(rows[name], expected.values[:, low:high].ravel())


def readings_of(tables):
    """The readings of some machines, a row each."""
    ids, offsets = tables.bounds()
    values = [tables.values[:, low:high].ravel() for low, high in pairwise(offsets.tolist())]
    return pa.table({"machineID": pa.array(tables.named(ids), pa.string()), "x": values})


def test_a_model_of_spark_is_a_bundle_like_any_other(spark, folder, tables, tmp_path, capsys):
    """It is loaded, and answers, where there is no Spark; a batch on Spark says what one on this machine says."""
    until = last_times(tables, np.ones(len(tables.time), bool))
    about = {"source": "simulated", "fingerprint": tables.fingerprint(), "train_until": until}
    ((name, bundle),) = [next(train(tables, SCHEMA, params.parse(SPARK), about, folder))]
    assert name == "bundle"
    assert bundle.provenance["engine"] == "spark"
    write(bundle, tmp_path / "bundle")
    assert set(load(tmp_path / "bundle").failures) == set(bundle.failures) != set()
    found = bundle.predict(tables)
    assert np.nanmax(found.probability) > 5 * np.nanmedian(found.probability)
    said = {}
    for engine in ("local", "spark"):
        out = tmp_path / f"{engine}.parquet"
        words = ["--data", folder, "--bundle", tmp_path / "bundle", "--out", out, "--engine", engine]
        batch([str(word) for word in words])
        files = sorted(out.glob("*.parquet")) if engine == "spark" else [out]
        said[engine] = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    assert said["spark"] == said["local"]
    assert len(said["local"]) == MACHINES * (1 + len(bundle.failures))
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["provenance"]["engine"] == "spark"


def test_what_an_executor_refuses_is_one_error(spark, folder, tmp_path):
    table = pq.read_table(folder / "PdM_telemetry.parquet")
    names = pa.array(["7a"] * len(table))
    pq.write_table(table.set_column(1, "machineID", names), tmp_path / "PdM_telemetry.parquet")
    with (
        pytest.raises(DataError, match=r"^telemetry.machineID: '7a' is not a whole number; number your machines"),
        fleets.told(),
    ):
        fleets.open_fleet(tmp_path, SCHEMA, {}).map(partial(count), "machineID bigint").collect()


def count(tables):
    """The machines of some tables."""
    return pa.table({"machineID": tables.bounds()[0]})
