"""A fleet whose machines have names, from the service through the log and back, with the bits of a fleet of numbers."""

import json
import re
from dataclasses import replace

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.rfc3339 import to_text
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import BundleError, TrainedOn, load, load_drift_reference, write
from closedloop.judge.truth import PredictionTable
from closedloop.log.read import read
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from model import batch
from model.predict import predict
from score.answer import Scorer

NAMES = {1: "007", 2: "Pump A/7", 3: "泵 3"}  # sorted as their numbers are
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def named_bundle(tiny_bundle, tmp_path_factory):
    """The tiny bundle for a fleet whose machines have names."""
    bundle = load(tiny_bundle)
    schema = replace(bundle.schema, machine_id="text")
    training = TrainedOn({"plant": [f"press {n}" for n in range(12)]}, bundle.training.period, "sha256:0")
    folder = tmp_path_factory.mktemp("named") / "bundle"
    write(replace(bundle, schema=schema, training=training, drift_reference=None), folder)
    return folder


@pytest.fixture(scope="module")
def fleets(tiny_bundle, named_bundle):
    """The tables of three machines, and the same with names."""
    schema = load(tiny_bundle).schema
    tables = simulate("default", 3, 20, 9, schema).tables
    frames = sources.tables_to_frames(tables, schema)
    for frame in frames.values():
        frame["machineID"] = frame["machineID"].map(NAMES)
    return tables, sources.frames_to_tables(frames, load(named_bundle).schema, {}), frames


@pytest.fixture
def server(named_bundle, serve, monkeypatch):
    monkeypatch.setenv("MODEL_DIR", str(named_bundle))
    return serve()


def request(frames, schema, hours=73):
    """The last hours of the fleet, as a client sends them."""
    since = frames["telemetry"]["datetime"].max() - pd.Timedelta(hours=hours)
    body = {}
    for table in ("telemetry", "errors", "maint", "machines"):
        frame = frames[table]
        if "datetime" in frame:
            frame = frame[(frame["datetime"] > since) | (table == "maint")]
            frame = frame.assign(datetime=frame["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        body[table] = json.loads(frame.sample(frac=1, random_state=2).to_json(orient="columns", double_precision=15))
        body[table] = {column: list(values.values()) for column, values in body[table].items()}
    return body


def test_a_named_fleet_is_answered_by_name_with_the_bits_of_its_fleet_run(server, tiny_bundle, named_bundle, fleets):
    """In training's tables, in the service and in a batch: the same bits, and those of the fleet of numbers."""
    tables, named, frames = fleets
    bundle, twin = load(named_bundle), load(tiny_bundle)
    whole, other = bundle.predict(named), twin.predict(tables)
    for column in ("time", "history_hours", "anomaly_score", "anomaly_alarm", "probability", "alarm"):
        np.testing.assert_array_equal(getattr(other, column), getattr(whole, column))
    answer = httpx.post(
        f"{server.url}/score", content=msgspec.json.encode(request(frames, bundle.schema)), headers=JSON
    )
    assert 200 == answer.status_code, answer.text
    last = np.append(np.flatnonzero(np.diff(whole.machine)), len(whole.machine) - 1)
    results = answer.json()["results"]
    assert list(NAMES.values()) == [result["machineID"] for result in results]
    assert [to_text(int(whole.time[row])) for row in last] == [result["datetime"] for result in results]
    assert whole.anomaly_score[last].tolist() == [result["anomaly"]["score"] for result in results]
    for c, component in enumerate(bundle.schema.components):
        told = [result["failure"][component] for result in results]
        chances = [np.nan if head is None else head["probability"] for head in told]
        np.testing.assert_array_equal(whole.probability[c, last], chances)


def test_what_a_named_fleet_sent_comes_back_from_the_log(server, named_bundle, fleets, tmp_path):
    """Service, spool, shipper, Delta table, and read back: the very tables, and what was fed back."""
    _, named, frames = fleets
    schema = load(named_bundle).schema
    body = request(frames, schema, hours=10_000)
    told = {"failures": {"datetime": ["2015-01-05T06:00:00Z"], "machineID": ["Pump A/7"], "failure": ["comp2"]},
            "complete_until": {"datetime": ["2015-01-06T06:00:00Z"], "machineID": ["007"]}}  # fmt: skip
    with httpx.Client(base_url=server.url, headers=JSON) as client:
        for path, content in (("/score", body), ("/feedback", told)):
            answer = client.post(path, content=msgspec.json.encode(content))
            assert 200 == answer.status_code, answer.text
        unknown = {"telemetry": {name: column[:1] for name, column in body["telemetry"].items()}}
        unknown["telemetry"]["machineID"] = ["never seen in training"]
        (result,) = client.post("/score", content=msgspec.json.encode(unknown)).json()["results"]
        assert "never seen in training" == result["machineID"]
        recent = client.get("/state").json()["recent"]
        assert {*NAMES.values(), "never seen in training"} == {result["machineID"] for result in recent}
        refused = client.post("/score", content=msgspec.json.encode(body).replace(b'"007"', b"7"))
        assert 422 == refused.status_code
        assert re.fullmatch(r"/telemetry/machineID/\d+", refused.json()["errors"][0]["pointer"])
    server.stop()
    said = []
    shipper = Shipper(server.log_dir, Sink.at(str(tmp_path / "sink"), {}), said.append)
    assert shipper.round()
    shipper.close()
    log = read(Sink.at(str(tmp_path / "sink"), {}), schema)
    assert ([], 3, 0) == (said, log.records, log.foreign)
    assert ("007", "Pump A/7", "never seen in training", "泵 3") == log.tables.names
    back = log.tables.select(np.array(log.tables.codes(NAMES.values()), np.int64))
    assert replace(named, failures=None).fingerprint() == replace(back, failures=None).fingerprint()
    assert ["Pump A/7"] == log.tables.named(log.tables.failures.machine).tolist()
    assert {"007": 1_420_524_000_000_000} == log.complete_until.named


def test_predictions_and_a_batch_have_the_names(named_bundle, fleets, tmp_path):
    _, named, frames = fleets
    bundle = load(named_bundle)
    found = predict(bundle, named)
    found.write(tmp_path / "predictions.parquet")
    assert "string" == str(found.arrow()["machineID"].type)
    again = PredictionTable.read(tmp_path / "predictions.parquet")
    assert found.machine.tolist() == again.machine.tolist()
    assert set(NAMES.values()) == set(again.machine.tolist())
    for table, frame in frames.items():
        frame.to_csv(tmp_path / f"PdM_{table}.csv", index=False)
    stream = batch.Stream(tmp_path, bundle.schema, {})
    batch.score(bundle, stream, tmp_path / "batch.parquet", every_row=True, rows_at_once=500)
    whole = batch.in_order(found).to_pandas()
    pd.testing.assert_frame_equal(whole, pd.read_parquet(tmp_path / "batch.parquet"))


def test_the_document_of_the_api_and_the_page_have_names(server, named_bundle):
    document = httpx.get(f"{server.url}/openapi.json").json()
    post = document["paths"]["/score"]["post"]
    for example in post["requestBody"]["content"]["application/json"]["examples"].values():
        answer = httpx.post(f"{server.url}/score", json=example["value"], headers={"Closed-Loop-Dry-Run": "1"})
        assert 200 == answer.status_code, answer.text
        assert all(re.fullmatch(r"machine-\d", result["machineID"]) for result in answer.json()["results"])
    result = document["components"]["schemas"]["MachineResult"]
    assert "string" == result["properties"]["machineID"]["type"]
    told = document["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in told.values():
        answer = httpx.post(f"{server.url}/feedback", json=example["value"], headers={"Closed-Loop-Dry-Run": "1"})
        assert 200 == answer.status_code, answer.text
    assert "machine-1" in httpx.get(server.url).text


def test_ten_thousand_named_machines_fit_into_one_request(named_bundle):
    """With the service's own limits, and with the longest names."""
    scorer = Scorer(load(named_bundle), 100_000, 10_000, 16 << 20)
    assert 10_000 <= scorer.max_machines
    assert scorer.result_bytes > len(json.dumps("\U0001f600" * 128, ensure_ascii=False).encode())


def test_a_bundle_whose_machines_are_not_as_its_schema_says_is_refused(tiny_bundle, named_bundle, tmp_path):
    bundle, named = load(tiny_bundle), load(named_bundle)
    with pytest.raises(BundleError, match=r"the training machine 'press 0' of 'plant' is no number"):
        write(replace(bundle, training=named.training), tmp_path / "a")
    with pytest.raises(BundleError, match=r"the training machine 1 of 'simulated' is no text"):
        write(replace(named, training=bundle.training), tmp_path / "b")
    assert "text" == load_drift_reference(named_bundle)[0].machine_id
