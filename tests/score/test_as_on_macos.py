"""The service, and the tests of the log, in processes that lack what macOS lacks (tests/support/as_on_macos)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from deltalake import DeltaTable

TESTS = Path(__file__).parents[1]
BODY = (TESTS / "golden/request.json").read_bytes()
FEEDBACK = (TESTS / "golden/feedback/200-complete-until-for-all.json").read_bytes()
OF_THE_DISK = ("spool", "ship", "budget")


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a process that lacks them, whose children lack them too."""
    path = [str(TESTS / "support/as_on_macos"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def test_the_calls_are_really_gone(environment):
    """Else the tests below would show nothing."""
    code = (
        "import ctypes, fcntl, os, select, closedloop.log.durable as d\n"
        "print([hasattr(os, n) for n in ('fdatasync', 'posix_fallocate', 'sched_setscheduler')],"
        " hasattr(select, 'epoll'), hasattr(ctypes.CDLL(None), 'syncfs'), d._FULL_SYNC)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, False] False False 51"


def test_the_service_answers_and_its_log_is_shipped_and_compacted(environment, tiny_bundle, tmp_path):
    settings = {
        "MODEL_DIR": str(tiny_bundle),
        "LOG_DIR": str(tmp_path / "log"),
        "LOG_SINK": str(tmp_path / "sink"),
        "AUTH": "open",
        "PORT": "0",
        "STOP_SECONDS": "110",  # a busy machine takes its time
    }
    output = tmp_path / "stderr"
    with output.open("wb") as file:
        service = subprocess.Popen(
            [sys.executable, "-m", "score"], env=environment | settings, cwd=tmp_path, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"running on (http://[\d.:]+)", output.read_text())):
            assert service.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for path, body in (("/score", BODY), ("/feedback", FEEDBACK)):
            headers = {"Content-Type": "application/json"}
            answer = httpx.post(found[1] + path, content=body, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
    finally:
        service.kill()
        service.wait()
    assert [json.loads(line)["event"] for line in output.read_text().splitlines()][-2:] == ["shipper ended", "stopped"]
    for table in ("requests", "feedback"):
        assert DeltaTable(str(tmp_path / "sink" / table)).to_pyarrow_table().num_rows == 1
    for words in (["compact", "--all"], ["status"]):
        done = subprocess.run(
            [sys.executable, "-m", "model.log", *words],
            env=environment | settings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OF_THE_DISK)
def test_the_tests_of_the_log_pass_there_too(environment, name, tmp_path):
    """Those that ask for a call of Linux alone skip themselves."""
    words = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), str(TESTS / f"log/test_{name}.py")]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("pytest")), *words],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
