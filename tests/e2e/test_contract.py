"""The bundle of this run gives the same answers through score.py in this process and the service over HTTP."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.fixture(scope="module")
def client(
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    wait_ready: Callable[..., None],
    free_port: Callable[[], int],
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("service")
    port = free_port()
    settings = {"MODEL_DIR": str(bundle), "LOG_DIR": str(folder / "log"), "AUTH": "open", "PORT": str(port)}
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "score"], env=os.environ | settings, cwd=folder, stdout=file, stderr=file
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as asker:
            wait_ready(asker, lambda: None if process.poll() is None else output.read_text())
            yield asker
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0, output.read_text()


def test_the_service_serves_the_bundle_of_this_run(client: httpx.Client, manifest: dict[str, Any]) -> None:
    assert manifest["model_digest"] == client.get("/version").json()["model_digest"]


def test_its_own_example_gets_an_anomaly_score_and_a_probability_for_each_head(
    client: httpx.Client, example: Callable[[httpx.Client], dict[str, Any]], manifest: dict[str, Any]
) -> None:
    answer = client.post("/score", json=example(client))
    assert answer.status_code == 200, answer.text
    for result in answer.json()["results"]:
        assert math.isfinite(result["anomaly"]["score"])
        assert set(manifest["schema"]["components"]) == set(result["failure"])
        told = {name: head for name, head in result["failure"].items() if head is not None}
        assert set(manifest["heads"]["failure"]) == set(told)
        assert all(0 <= head["probability"] <= 1 for head in told.values())


def test_score_py_and_the_service_give_the_same_body(
    client: httpx.Client, run: Callable[[str], dict[str, Any]], case: tuple[int, bytes]
) -> None:
    """For every request. Bytes that are not text cannot reach run(); they must not break the service."""
    status, body = case
    over_http = client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert status == over_http.status_code, over_http.text
    try:
        direct = run(body.decode())
    except UnicodeDecodeError:
        return
    assert direct.get("status", 200) == over_http.status_code
    assert direct | {"request_id": None} == over_http.json() | {"request_id": None}
