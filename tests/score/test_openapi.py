"""The OpenAPI document: named schemas, described fields, and an example of each error that is what the service says."""

import json
import re
from dataclasses import replace

import httpx
import jsonschema
import numpy as np
import pytest
from fastapi import FastAPI

from closedloop.data.schema import Events, Schema, Tables
from closedloop.data.simulate import simulate
from closedloop.features.kernel import compute
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, TrainedOn, load, write
from closedloop.heads.detectors import fit_anomaly_head
from score.answer import Scorer
from score.endpoints import ROUTES
from score.pages import openapi
from simulated_fleet import PARAMS, SCHEMA

NO_MACHINES = (np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0, np.float64))
MEASURED = ("Temp [°C]", "Humidity %", "Öl druck", "v/1")


@pytest.fixture(scope="session")
def document(server):
    return httpx.get(f"{server.url}/openapi.json").json()


def places(part, at=""):
    """Every object of the document, with its path."""
    if isinstance(part, dict):
        yield at, part
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, inner in items:
        yield from places(inner, f"{at}/{key}")


def test_the_version_is_that_of_the_interface_and_the_model_is_beside_it(document, server):
    info = document["info"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["version"])
    assert httpx.get(f"{server.url}/version").json()["model_digest"] == info["x-model-digest"]
    assert [{"url": "./", "description": "This service."}] == document["servers"]


def test_every_operation_has_a_short_name_of_its_own_and_one_known_tag(document):
    operations = {path: one for path, methods in document["paths"].items() for one in methods.values()}
    assert {path.strip("/") for path in operations} == {one["operationId"] for one in operations.values()}
    assert {(tag["name"],) for tag in document["tags"]} == {tuple(one["tags"]) for one in operations.values()}


def test_bodies_are_references_to_named_schemas_and_every_name_is_used(document):
    named = document["components"]["schemas"]
    used = {part["$ref"].rpartition("/")[2] for _, part in places(document) if isinstance(part.get("$ref"), str)}
    assert set(named) == used
    for at, part in places(document["paths"]):
        if "schema" in part and "/content/application" in at:
            assert "$ref" in part["schema"], at
    for name, schema in named.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        inner = [one for at, one in places(schema) if at and one.get("properties") and "/anyOf/" not in at]
        assert [] == inner, f"{name} has an object without a name"


def test_every_field_of_a_request_and_of_an_answer_is_described(document):
    named = document["components"]["schemas"]
    for name in ("Telemetry", "Errors", "Replacements", "Machines", "Failures", "MachineResult", "State", "Problem"):
        for field, schema in named[name]["properties"].items():
            of_items = json.dumps(schema.get("items", {}))
            told = "description" in schema or "$ref" in schema or '"description"' in of_items
            assert told or field in ("datetime", "type"), (name, field)
    assert "in years" in named["Machines"]["properties"]["age"]["description"]
    for sensor, (low, high) in zip(SCHEMA.sensors, SCHEMA.ranges, strict=True):
        assert f"outside {low:g} to {high:g}" in named["Telemetry"]["properties"][sensor]["description"]


def test_each_head_tells_its_threshold(document, tiny_bundle):
    heads = load(tiny_bundle).manifest.heads
    named = document["components"]["schemas"]
    assert f"{heads.anomaly.threshold:.4g}" in named["MachineResult"]["properties"]["anomaly"]["description"]
    for component, head in heads.failure.items():
        told = named["MachineFailures"]["properties"][component]["description"]
        assert ("no such head" if head is None else f"{head.threshold:.4g}") in told


def test_each_error_has_examples_of_its_own_status(document):
    for path in ("/score", "/feedback"):
        for status, response in document["paths"][path]["post"]["responses"].items():
            for media in response["content"].values():
                shown = [one["value"] for one in media.get("examples", {}).values()]
                assert status == "200" or {int(status)} == {problem["status"] for problem in shown}
                for problem in shown:
                    whole = document["components"]["schemas"]["Problem"] | {"components": document["components"]}
                    jsonschema.validate(problem, whole)


@pytest.mark.parametrize(
    ("status", "name", "sent"),
    [
        (
            "400",
            "a reading is NaN",
            {"content": b'{"telemetry": {%s: [NaN]}}' % json.dumps(SCHEMA.sensors[0]).encode()},
        ),
        ("415", "Unsupported Media Type", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        ("401", "Unauthorized", {"content": b"{}"}),
        ("422", "a column is too short", {}),
        ("422", "a column is missing", {}),
        ("422", "rows instead of columns", {}),
    ],
)
def test_the_example_of_an_error_is_what_the_service_answers(status, name, sent, document, server, serve, tokens):
    if status == "422":
        example = httpx.get(f"{server.url}/example").json()
        telemetry, sensor = example["telemetry"], SCHEMA.sensors[0]
        rest = {column: values for column, values in telemetry.items() if column != sensor}
        rows = [dict(zip(telemetry, row, strict=True)) for row in zip(*telemetry.values(), strict=True)]
        short = telemetry | {sensor: telemetry[sensor][1:]}
        table = {"a column is too short": short, "a column is missing": rest, "rows instead of columns": rows}[name]
        sent = {"json": {"telemetry": table}}
    url = serve(tokens_file=tokens[0]).url if status == "401" else server.url
    answer = httpx.post(f"{url}/score", **sent)
    content = document["paths"]["/score"]["post"]["responses"][status]["content"]["application/problem+json"]
    shown = content["examples"][name]["value"]
    assert {**shown, "request_id": ""} == {**answer.json(), "request_id": ""}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A bundle of a fleet that has telemetry alone."""
    sensors = dict(zip(MEASURED, SCHEMA.to_dict()["sensors"].values(), strict=True))
    nothing = {"components": [], "errors": [], "models": []}
    schema = Schema.from_dict(SCHEMA.to_dict() | nothing | {"sensors": sensors})
    tables = simulate("azure", 3, 30, 3, SCHEMA).tables
    tables = Tables(tables.machine, tables.time, tables.values, Events.empty(), Events.empty(), None, *NO_MACHINES)
    spec = FeatureSpec.from_params(PARAMS["features"], schema)
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
    constants, _ = fit_levels(tables, spec, schema, constants)
    X = compute(tables, spec, constants, schema).X
    telemetry = np.flatnonzero(np.array(spec.groups) == "telemetry").astype(np.int32)
    anomaly = replace(fit_anomaly_head(X, telemetry, "mean_chart", {}, seed=0), threshold=3.0)
    training = TrainedOn({"bare": [1, 2, 3]}, ("2015-01-01T06:00:00Z", "2015-01-31T05:00:00Z"), "sha256:0")
    folder = tmp_path_factory.mktemp("bare") / "bundle"
    write(Bundle(schema, spec, constants, anomaly, {}, training, {"commit": "0" * 40}), folder)
    return load(folder)


def test_a_bare_fleet_has_a_document_without_what_it_lacks(bare):
    document = openapi.document(FastAPI(routes=ROUTES), Scorer(bare, 1000), closed=False)
    named = document["components"]["schemas"]
    assert {"Telemetry", "ScoreRequest", "MachineResult", "AnomalyHead"} <= set(named)
    lacked = {
        "Errors",
        "Replacements",
        "Machines",
        "Failures",
        "Component",
        "Finding",
        "FailureHead",
        "FeedbackRequest",
    }
    assert lacked.isdisjoint(named)
    assert "/feedback" not in document["paths"]
    assert ["Scoring", "Operations"] == [tag["name"] for tag in document["tags"]]
    assert set(MEASURED) < set(named["Telemetry"]["properties"])
    used = {part["$ref"].rpartition("/")[2] for _, part in places(document) if isinstance(part.get("$ref"), str)}
    assert set(named) == used
