"""``run()`` and HTTP give the same body to every request of the golden corpus, valid or hostile."""

import json
import math
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from score import score

GOLDEN = Path(__file__).parents[1] / "golden"
CORPUS = sorted((GOLDEN / "requests").iterdir())


@pytest.fixture(scope="session")
def client(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


def post(client, body, **headers):
    return client.post("/score", content=body, headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_gets_the_status_in_its_name_and_the_same_body_from_run_and_http(client, path):
    body = path.read_bytes()
    answer = post(client, body)
    assert path.name[:3] == str(answer.status_code)
    try:
        text = body.decode()
    except UnicodeDecodeError:  # run() takes text: other bytes cannot reach it
        return
    assert {**score.run(text), "request_id": ""} == {**answer.json(), "request_id": ""}


def test_the_golden_request_is_answered_for_its_machine_at_its_last_row(client, server):
    answer = post(client, (GOLDEN / "request.json").read_bytes()).json()
    (result,) = answer["results"]
    assert (result["machineID"], result["datetime"]) == (1, "2015-01-04T06:00:00Z")
    assert set(result["anomaly"]) == {"score", "alarm"}
    assert math.isfinite(result["anomaly"]["score"])
    assert 0 < result["failure"]["comp1"]["probability"] < 1
    assert result["warnings"] == ["2 of 72 hours of history", "no replacement known of comp1, comp3, comp4"]


def test_a_component_without_a_head_is_null(client):
    (result,) = post(client, (GOLDEN / "request.json").read_bytes()).json()["results"]
    assert result["failure"]["comp3"] is None
    assert list(result["failure"]) == ["comp1", "comp2", "comp3", "comp4"]


def test_each_machine_gets_one_result_whatever_else_is_in_the_batch(client):
    batch = json.loads((GOLDEN / "requests" / "200-three-machines.json").read_bytes())
    results = post(client, json.dumps(batch)).json()["results"]
    assert [result["machineID"] for result in results] == [1, 2, 3]
    columns = batch["telemetry"]
    for result in results:
        rows = [i for i, machine in enumerate(columns["machineID"]) if machine == result["machineID"]]
        own = {name: [column[i] for i in rows] for name, column in columns.items()}
        alone = post(client, json.dumps({"telemetry": own, "machines": batch["machines"]})).json()["results"]
        assert [result] == alone


def test_a_problem_is_what_rfc_9457_says(client):
    answer = post(client, (GOLDEN / "requests" / "422-missing-sensor.json").read_bytes(), **{"X-Request-ID": "4f2c"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == json.loads((GOLDEN / "problem.json").read_text())


def test_run_never_logs(server, environ, caplog):
    before = sorted((path, path.stat().st_size) for path in server.log_dir.iterdir())
    score.run((GOLDEN / "request.json").read_text())
    score.run("{")
    assert before == sorted((path, path.stat().st_size) for path in server.log_dir.iterdir())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("score.score", "pandas sklearn pyarrow mlflow great_expectations matplotlib fastapi starlette pydantic"),
        ("score.app", "pandas sklearn pyarrow mlflow great_expectations matplotlib"),
    ],
)
def test_serving_loads_little(module, forbidden):
    """score.py runs in Azure's server beside that server's own FastAPI and pydantic, so it needs neither."""
    code = (
        f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}} & set({forbidden.split()!r}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "\n"


def test_the_contract_can_be_read_at_a_glance():
    assert len(Path(score.__file__).read_text().splitlines()) <= 40
