"""Clients that ordinary generators make of the OpenAPI document: they compile under strict types, and call every route.

The generators are no dependency of ours. The tests take those on PATH: openapi-python-client, and openapi-typescript
with typescript and openapi-fetch beside it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from closedloop.data.schema import Schema
from closedloop.heads.bundle import load
from score.answer import Scorer
from score.endpoints import ROUTES
from score.pages import openapi
from simulated_fleet import SCHEMA

SENSORS = ("Temp [°C]", "Humidity %", "Öl druck", "v/1")  # as people name columns
COMPONENTS = ("pump 1", "Lager °C", "50 % valve", "a/b")
OF_GENERATOR = re.compile(
    r"^client/client\.py:\d+: error: Argument 1 to \"__a?exit__\" of "
)  # its own, whatever we say
PYTHON = """
import datetime
import json
import sys

from client import Client
from client.api.feedback import feedback
from client.api.operations import livez, metrics, readyz, state, version
from client.api.scoring import example, score
from client.models import (
    CompleteUntil, DryRun, FeedbackAnswer, FeedbackRequest, Problem, ScoreAnswer, ScoreRequest, State, Version
)

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
request = example.sync(client=client)
assert isinstance(request, ScoreRequest)
answer = score.sync(client=client, body=request, closed_loop_dry_run=DryRun.VALUE_0)
assert isinstance(answer, ScoreAnswer)
for result in answer.results:
    assert result.datetime_.tzinfo is not None and result.anomaly is not None
    score_of_anomaly: float = result.anomaly.score
    alarms: list[bool] = [head.alarm for head in (result.failure.comp1, result.failure.comp2) if head is not None]
request.telemetry.datetime_ = request.telemetry.datetime_[:1]
refused = score.sync(client=client, body=request)
assert isinstance(refused, Problem) and isinstance(refused.errors, list)
assert refused.status == 422 and "give every column one value a row" in refused.errors[0].detail
until = CompleteUntil(datetime_=[datetime.datetime(2015, 1, 5, tzinfo=datetime.timezone.utc)], machine_id=[None])
told = feedback.sync(client=client, body=FeedbackRequest(complete_until=until), closed_loop_dry_run=DryRun.VALUE_0)
assert isinstance(told, FeedbackAnswer) and told.stored.complete_until == 0
assert livez.sync(client=client) == "alive\\n" and readyz.sync(client=client) == "ready\\n"
served, now, text = version.sync(client=client), state.sync(client=client), metrics.sync(client=client)
assert isinstance(served, Version) and isinstance(now, State) and isinstance(text, str)
assert served.model_digest == answer.model and now.dry_run > 0 and "closedloop_build_info" in text
"""
TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const header = { "Closed-Loop-Dry-Run": "1" } as const;
function sure(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}
const request = (await client.GET("/example")).data;
sure(request !== undefined, "example");
const { data, error } = await client.POST("/score", { body: request, params: { header } });
sure(data !== undefined && error === undefined, "score");
for (const result of data.results satisfies components["schemas"]["MachineResult"][]) {
  const score: number | undefined = result.anomaly?.score;
  const heads: (components["schemas"]["FailureHead"] | null)[] = [result.failure.comp1, result.failure.comp2];
  sure(score !== undefined && heads.length === 2, "result");
}
const broken = { ...request, telemetry: { ...request.telemetry, datetime: request.telemetry.datetime.slice(1) } };
const refused = (await client.POST("/score", { body: broken, params: { header } })).error;
sure(refused?.errors?.[0]?.detail.includes("give every column one value a row") === true, "problem");
const until = { datetime: ["2015-01-05T00:00:00Z"], machineID: [null] };
const told = await client.POST("/feedback", { body: { complete_until: until }, params: { header } });
sure(told.data?.stored.complete_until === 0, "feedback");
sure((await client.GET("/livez", { parseAs: "text" })).data === "alive\\n", "livez");
sure((await client.GET("/readyz", { parseAs: "text" })).data === "ready\\n", "readyz");
sure((await client.GET("/metrics", { parseAs: "text" })).data?.includes("closedloop_build_info") === true, "metrics");
sure((await client.GET("/version")).data?.model_digest === data.model, "version");
sure(((await client.GET("/state")).data?.dry_run ?? 0) > 0, "state");
"""


def run(*words, folder, **environ):
    """What a program prints; it must end with 0."""
    words = [str(word) for word in words]
    done = subprocess.run(
        words, cwd=folder, env=os.environ | environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name):
    if (path := shutil.which(name)) is None:
        pytest.skip(f"{name} is not on PATH")
    return Path(path)


@pytest.fixture
def generator():
    return tool("openapi-python-client")


@pytest.fixture
def packages():
    """The folder of the npm packages."""
    folder = tool("openapi-typescript").resolve().parents[2]
    tool("node")
    for name in ("typescript", "openapi-fetch"):
        if not (folder / name).is_dir():
            pytest.skip(f"the npm package {name} is not beside openapi-typescript")
    return folder


@pytest.fixture(params=["simulated", "as measured"])
def document(request, server, tiny_of, tmp_path):
    """The document of a running service, and one with names as people give them."""
    found = httpx.get(f"{server.url}/openapi.json").json()
    if request.param == "as measured":
        sensors = dict(zip(SENSORS, SCHEMA.to_dict()["sensors"].values(), strict=True))
        schema = Schema.from_dict(SCHEMA.to_dict() | {"sensors": sensors, "components": list(COMPONENTS)})
        scorer = Scorer(load(tiny_of(schema, list(range(1, 13)))), 1000)
        found = openapi.document(FastAPI(routes=ROUTES), scorer, closed=True)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(found))
    return path


def calls(document):
    """Whether this document is that of the running service, which is called then."""
    return "comp1" in document.read_text()


def test_every_route_is_called_by_both(server):
    names = {path.strip("/") for path in httpx.get(f"{server.url}/openapi.json").json()["paths"]}
    assert names == set(re.findall(r"\b(\w+)\.sync\(", PYTHON))
    assert names == set(re.findall(r'client\.(?:GET|POST)\("/(\w+)"', TYPESCRIPT))


def test_a_python_client_is_typed_strictly_and_calls_every_route(generator, document, server, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it formats with ruff
    words = ["generate", "--path", document, "--meta", "none", "--output-path", tmp_path / "client"]
    said = run(generator, *words, folder=tmp_path, PATH=path)
    assert "warning" not in said.lower(), said
    if calls(document):
        (tmp_path / "call.py").write_text(PYTHON)
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "client"]
    words += ["call.py"] if calls(document) else []
    typed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in typed.stdout.splitlines() if ": error:" in line and not OF_GENERATOR.match(line)]
    assert [] == lines
    assert typed.returncode < 2, typed.stdout + typed.stderr
    if calls(document):
        run(sys.executable, "call.py", server.url, folder=tmp_path)


def test_a_typescript_client_is_typed_strictly_and_calls_every_route(packages, document, server, tmp_path):
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run("node", packages / "openapi-typescript/bin/cli.js", document, "-o", "api.d.ts", folder=tmp_path)
    (tmp_path / "call.ts").write_text(TYPESCRIPT if calls(document) else 'export type { paths } from "./api.js";')
    strict = ["--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022"]
    words = [*strict, "--lib", "es2022,dom,dom.iterable", "--outDir", "out", "call.ts"]
    run("node", packages / "typescript/lib/tsc.js", *words, folder=tmp_path)
    if calls(document):
        run("node", "out/call.js", server.url, folder=tmp_path)
