"""A fleet whose sensors, components, codes, models and machines have odd names, through a real service and back."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from closedloop.data import sources
from closedloop.data.schema import Schema
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import load, write
from closedloop.log.read import read
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from closedloop.report import card
from simulated_fleet import PARAMS, SCHEMA

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

SENSORS = ("Werk 1 [°C] 工場", "load %d 100%", "a/b~1 'q' `x` | y", "<b>{0} $hours &amp;")
COMPONENTS = ('the "hot" \\ end/~', "<img src=x onerror=alert(1)>", "ポンプ %s\nzwei", '{le="1"}, __proto__')
ERRORS = ('E "7"', "E/9~", "=SUM(A1)", "-", "Fehler 50 %")
MODELS = ("型式 2", "m\\n", "*A* _b_", "|")
NAMES = {1: "007", 2: "Pump A/7 [°C] 100%", 3: "'泵' \"3\" \\ ~1 <b>"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def tables_and_frames():
    """The tables of three machines of the reference fleet, and the same as frames with odd names."""

    tables = simulate("default", 3, 20, 9, SCHEMA).tables
    frames = sources.tables_to_frames(tables, SCHEMA)
    for frame in frames.values():
        frame["machineID"] = frame["machineID"].map(NAMES)
    names = dict(zip(SCHEMA.sensors, SENSORS, strict=True))
    frames["telemetry"] = frames["telemetry"].rename(columns=names)
    for table, column, ours, theirs in (
        ("errors", "errorID", SCHEMA.errors, ERRORS),
        ("maint", "comp", SCHEMA.components, COMPONENTS),
        ("failures", "failure", SCHEMA.components, COMPONENTS),
        ("machines", "model", SCHEMA.models, MODELS),
    ):
        frames[table][column] = frames[table][column].map(dict(zip(ours, theirs, strict=True)))
    schema = replace(SCHEMA, sensors=SENSORS, components=COMPONENTS, errors=ERRORS, models=MODELS, machine_id="text")
    return schema, tables, frames


@pytest.fixture(scope="module")
def odd_bundle(tiny_of, tables_and_frames):
    """Its card is Markdown of the same names."""
    folder = tiny_of(Schema.from_dict(tables_and_frames[0].to_dict()), [f"press {n}/%~" for n in range(12)])
    learned = {"rows": 57_600, "failures": dict.fromkeys(COMPONENTS, 7)}
    bundle = load(folder)
    bundle = replace(bundle, provenance=bundle.provenance | {"learned_from": learned})
    write(replace(bundle, card=card.render(bundle, PARAMS, "fleet")), folder)
    return folder


@pytest.fixture
def server(odd_bundle, serve, monkeypatch):
    monkeypatch.setenv("MODEL_DIR", str(odd_bundle))
    return serve()


def request(frames, hours):
    """The last hours of the fleet, as a client sends them."""
    since = frames["telemetry"]["datetime"].max() - pd.Timedelta(hours=hours)
    body = {}
    for table in ("telemetry", "errors", "maint", "machines"):
        frame = frames[table]
        if "datetime" in frame:
            frame = frame[(frame["datetime"] > since) | (table == "maint")]
            frame = frame.assign(datetime=frame["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        body[table] = {column: frame[column].tolist() for column in frame}
    return body


def pointed(content, pointer):
    """What a JSON Pointer (RFC 6901) points to."""
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


def test_it_answers_by_these_names_with_the_bits_of_its_fleet_run(server, odd_bundle, tables_and_frames):
    schema, _, frames = tables_and_frames
    whole = load(odd_bundle).predict(sources.frames_to_tables(frames, schema, {}))
    last = np.append(np.flatnonzero(np.diff(whole.machine)), len(whole.machine) - 1)
    answer = httpx.post(f"{server.url}/score", content=msgspec.json.encode(request(frames, 73)), headers=JSON)
    assert 200 == answer.status_code, answer.text
    results = answer.json()["results"]
    assert sorted(NAMES.values()) == [result["machineID"] for result in results]
    assert whole.anomaly_score[last].tolist() == [result["anomaly"]["score"] for result in results]
    for c, component in enumerate(COMPONENTS):
        told = [result["failure"][component] for result in results]
        chances = [np.nan if head is None else head["probability"] for head in told]
        np.testing.assert_array_equal(whole.probability[c, last], chances)


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_fault_points_to_its_place(server, tables_and_frames, sensor):
    body = request(tables_and_frames[2], 3)
    body["telemetry"][sensor][1] = "warm"
    answer = httpx.post(f"{server.url}/score", content=msgspec.json.encode(body), headers=JSON)
    assert 422 == answer.status_code
    (error,) = answer.json()["errors"]
    assert "warm" == pointed(body, error["pointer"])


def test_its_metrics_are_what_prometheus_reads_with_a_head_for_each_component(server, tables_and_frames):
    body = request(tables_and_frames[2], 73)
    assert 200 == httpx.post(f"{server.url}/score", content=msgspec.json.encode(body), headers=JSON).status_code
    text = httpx.get(f"{server.url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    counts = {
        sample.labels["head"]: sample.value
        for sample in families["closedloop_failure_probability"].samples
        if sample.name.endswith("_count")
    }
    assert dict(zip(COMPONENTS, (3, 3, 0, 0), strict=True)) == counts  # the last two have no head


def test_what_was_sent_comes_back_from_the_log(server, tables_and_frames, tmp_path):
    schema, _, frames = tables_and_frames
    told = {
        "failures": {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [NAMES[3]], "failure": [COMPONENTS[2]]},
        "maint": {"datetime": ["2015-01-05T07:00:00Z"], "machineID": [NAMES[2]], "comp": [COMPONENTS[0]]},
    }
    with httpx.Client(base_url=server.url, headers=JSON) as client:
        for path, content in (("/score", request(frames, 10_000)), ("/feedback", told)):
            answer = client.post(path, content=msgspec.json.encode(content))
            assert 200 == answer.status_code, answer.text
        recent = client.get("/state").json()["recent"]
    assert set(NAMES.values()) == {result["machineID"] for result in recent}
    assert {result["component"] for result in recent} <= set(COMPONENTS[:2])
    server.stop()
    said = []
    shipper = Shipper(server.log_dir, Sink.at(str(tmp_path / "sink"), {}), said.append)
    assert shipper.round()
    shipper.close()
    log = read(Sink.at(str(tmp_path / "sink"), {}), schema)
    assert ([], 2, 0, 0) == (said, log.records, log.foreign, len(log.aside))
    failed = log.tables.failures
    assert [NAMES[3]] == log.tables.named(failed.machine).tolist()
    assert [COMPONENTS[2]] == [schema.components[code] for code in failed.code]
    back = sources.tables_to_frames(log.tables, schema)
    for table in ("telemetry", "errors", "machines"):
        keys = [name for name in frames[table].columns if name in ("machineID", "datetime", "errorID")]
        sent, came = (frame[table].sort_values(keys).reset_index(drop=True) for frame in (frames, back))
        pd.testing.assert_frame_equal(sent, came[sent.columns], check_dtype=False, check_exact=True)
    more = len(frames["maint"]) + 1
    assert more == len(back["maint"])


def test_its_document_has_examples_that_it_accepts(server):
    document = httpx.get(f"{server.url}/openapi.json").json()
    for path in ("/score", "/feedback"):
        told = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in told.values():
            answer = httpx.post(f"{server.url}{path}", json=example["value"], headers={"Closed-Loop-Dry-Run": "1"})
            assert 200 == answer.status_code, answer.text
    assert all(json.dumps(name) in json.dumps(document) for name in (*SENSORS, *COMPONENTS))


def test_the_page_shows_every_name_as_text(server, odd_bundle, tables_and_frames, tmp_path):
    path = browser.find()
    if path is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.NAMES)})")
    body = request(tables_and_frames[2], 73)
    assert 200 == httpx.post(f"{server.url}/score", content=msgspec.json.encode(body), headers=JSON).status_code
    shown = browser.Browser(path, tmp_path / "profile")
    try:
        shown.open(server.url)
        shown.wait("document.getElementById('status').textContent === 'Ready'")
        assert list(SENSORS) == list(json.loads(shown.ask("document.getElementById('body').value"))["telemetry"])[2:]
        shown.ask("document.getElementById('send').click()")
        shown.wait("document.getElementById('outcome').textContent.startsWith('Answered')")
        names = "[...document.querySelectorAll('#scores tbody tr')].map((row) => row.cells[1].textContent)"
        assert ["anomaly", *COMPONENTS] == shown.ask(names)
        shown.wait("document.querySelectorAll('#recent tbody tr').length === 3")
        machines = "[...document.querySelectorAll('#recent tbody tr')].map((row) => row.cells[0].textContent)"
        assert set(NAMES.values()) == {name.removesuffix(" alarm") for name in shown.ask(machines)}
        heads = "[...document.querySelectorAll('main')].map((part) => part.textContent).join()"
        assert all(name in shown.ask(heads) for name in COMPONENTS[:2])
        assert 0 == shown.ask("document.images.length")
        shown.open(f"{server.url}/docs")
        assert 0 == shown.ask("document.images.length")
        assert [] == shown.problems
    finally:
        shown.close()
