"""The service does what its OpenAPI document says: schemathesis sends what it allows, and what it does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent
TOKEN = "t" * 20
LEAST_STORED = 100  # of the generated requests, with dry runs; without the hook in even.py it was 60 of 540


@pytest.fixture(params=["open", "tokens"])
def auth(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def service(auth: str, tiny_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a running service. It must end with 0 on SIGTERM, and print no traceback."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"fuzz": {"token": TOKEN, "scopes": ["score", "feedback"]}}))
    settings = {"LOG_DIR": "log", "LOG_SINK": "none", "LOG_DURABILITY": "off", "AUTH": auth, "PORT": "0"}
    settings |= {"MODEL_DIR": str(tiny_bundle), "AUTH_TOKENS_FILE": str(tokens)}
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "score"], env=os.environ | settings, cwd=tmp_path, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while not (ready := re.search(r"ready: running on (http://[\w.:]+)", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        yield ready[1].replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - its address, not ours
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(timeout=60)
    assert ended == 0, output.read_text()
    assert "Traceback" not in output.read_text()


def test_it_answers_as_its_document_says(service: str, auth: str, fuzzers: Path, seconds: int, tmp_path: Path) -> None:
    """Every status, header and body is documented, and what does not match the schema is refused."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[auth.openapi.token]\nbearer = "{TOKEN}"\n' if auth == "tokens" else "")
    words = ["--config-file", config, "run", f"{service}/openapi.json", "--checks", "all", "--max-time", str(seconds)]
    done = subprocess.run(
        [fuzzers.with_name("schemathesis"), *words, "--continue-on-failure", "--generation-database", "none"],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "even", "PYTHONPATH": str(HERE)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=seconds + 240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state: dict[str, Any] = httpx.get(f"{service}/state").json()
    assert state["stored"] + state["dry_run"] > LEAST_STORED, state
    assert state["offered"] == state["stored"] + state["sampled_out"] + state["dry_run"] + state["rejected"]
    assert state["in_flight"] == 0
