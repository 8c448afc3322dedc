"""After thousands of hostile requests a server holds no more memory than before, and still answers."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
ROUNDS = 40
MOST_MB = 32  # of growth between the second round and the last


@pytest.fixture
def server(tiny_bundle, tmp_path):
    """An open ``python -m score``: (process, client)."""
    output = tmp_path / "output"
    settings = {"MODEL_DIR": str(tiny_bundle), "LOG_DIR": str(tmp_path / "log"), "LOG_SINK": "none", "AUTH": "open"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "score"], env=os.environ | settings | {"PORT": "0"}, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while not (running := re.search(r"http://127\.0\.0\.1:\d+", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with httpx.Client(base_url=running[0], timeout=120) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def resident_mb(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024


def hostile():
    """The bodies of one round: the golden corpus, and several kinds of large bodies."""
    yield from (path.read_bytes() for path in sorted((GOLDEN / "requests").glob("4*.json")))
    yield b"[" * 4_000_000
    yield b'{"":' * 1_000_000
    yield b'{"telemetry":{"volt":[' + b"1," * 2_000_000 + b"1]}}"
    yield b"{" + b",".join(b'"%d":0' % i for i in range(300_000)) + b"}"
    yield b'{"telemetry":{"datetime":["' + b"x" * 4_000_000 + b'"]}}'
    yield b"9" * 4_000_000
    yield b" " * 4_000_000


def test_thousands_of_hostile_requests_take_no_memory_that_stays(server):
    process, client = server
    if not Path(f"/proc/{process.pid}/status").exists():
        pytest.skip("there is no /proc to read a process's size from")
    sizes, asked = [], 0
    for _ in range(ROUNDS):
        for body in hostile():
            answer = client.post("/score", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, answer.text
            asked += 1
        sizes.append(resident_mb(process))
    assert asked > 3000
    assert sizes[-1] - sizes[1] < MOST_MB, sizes
    assert client.post("/score", content=(GOLDEN / "request.json").read_bytes()).status_code == 200
