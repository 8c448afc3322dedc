"""The server process: its signals, the order in which it stops, and its shipper."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from closedloop.log.spool import read

BODY = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
JSON = {"Content-Type": "application/json"}
CHILD = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    (folder / "sealed").write_text(" ".join(sorted(path.name for path in folder.glob("*.seg"))))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with (folder / "starts").open("a") as file:
    file.write(".")
time.sleep(float(sys.argv[2]))
"""
SERVE = """
import sys
from score import server
from score.log import supervisor
from score.__main__ import main
child, sys.argv = sys.argv[1:], sys.argv[:1]
server.Supervisor = lambda: supervisor.Supervisor((sys.executable, "-c", *child))
sys.exit(main())
"""


class ServiceProcess:
    def __init__(self, folder, bundle, *command, **settings):
        self.log_dir = folder / "log"
        self._output = folder / "stderr"
        environ = {
            "MODEL_DIR": str(bundle),
            "LOG_DIR": str(self.log_dir),
            "LOG_SINK": "none",
            "AUTH": "open",
            "PORT": "0",
        }
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                command or [sys.executable, "-m", "score"], env=os.environ | environ | settings, cwd=folder, stderr=file
            )

    def events(self):
        return [json.loads(line) for line in self._output.read_text().splitlines()]

    def ready(self):
        deadline = time.monotonic() + 120
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", self._output.read_text())):
            assert self.process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def launch(tiny_bundle, tmp_path):
    """Start ``python -m score`` as a process of its own."""
    running = []

    def start(*command, **settings):
        running.append(ServiceProcess(tmp_path, tiny_bundle, *command, **settings))
        return running[-1]

    yield start
    for service in running:
        service.process.kill()
        service.process.wait()


def test_told_to_stop_it_is_not_ready_first_and_serves_on_for_a_while(launch):
    service = launch(DRAIN_SECONDS="2").ready()
    service.stop()
    deadline = time.monotonic() + 1.5
    while httpx.get(f"{service.url}/readyz").status_code == 200:
        assert time.monotonic() < deadline
    answer = httpx.post(f"{service.url}/score", content=BODY, headers=JSON)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert service.process.wait(10) == 0
    assert [event["event"] for event in service.events()][-3:] == [
        "stopping: not ready any more", "no more connections", "stopped"
    ]  # fmt: skip
    assert len(list(read(service.log_dir, pytest.fail))) == 1


def test_told_twice_it_does_not_wait(launch):
    service = launch(DRAIN_SECONDS="600", STOP_SECONDS="601").ready()
    service.stop()
    time.sleep(0.3)
    service.stop()
    service.stop()
    assert service.process.wait(10) == 0
    assert service.events()[-1]["event"] == "stopped"


def catches_sigterm(process):
    """Whether the process has said what it does when it is told to stop; before that, Python itself has to start."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which signals a process catches")
@pytest.mark.parametrize("seconds", [0, 0.3, 0.8, 1.3, 1.8])
def test_told_to_stop_before_it_is_ready_it_ends_well(launch, seconds):
    service = launch()
    while not catches_sigterm(service.process):
        assert service.process.poll() is None
    assert service.events() == []  # it can be told to stop long before it is ready
    time.sleep(seconds)
    service.stop()
    assert service.process.wait(60) == 0
    service.events()  # every line is one JSON object


def test_a_half_sent_request_does_not_keep_it_from_ending(launch):
    service = launch(DRAIN_SECONDS="0", STOP_SECONDS="5").ready()
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        time.sleep(0.3)
        service.stop()
        assert service.process.wait(10) == 0


def test_the_shipper_is_started_again_and_told_last_when_the_log_is_sealed(launch):
    service = launch(sys.executable, "-c", SERVE, CHILD, "log", "0.2", LOG_SINK="delta", DRAIN_SECONDS="0").ready()
    starts = service.log_dir / "starts"
    deadline = time.monotonic() + 20
    while not starts.exists() or len(starts.read_text()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        assert httpx.get(f"{service.url}/readyz").status_code == 200  # serving does not hang on it


def test_what_was_acknowledged_is_sealed_before_the_shipper_is_told(launch):
    service = launch(sys.executable, "-c", SERVE, CHILD, "log", "600", LOG_SINK="delta", DRAIN_SECONDS="0").ready()
    assert httpx.post(f"{service.url}/score", content=BODY, headers=JSON).status_code == 200
    while not (service.log_dir / "starts").exists():
        time.sleep(0.02)
    service.stop()
    assert service.process.wait(10) == 0
    assert len((service.log_dir / "sealed").read_text().split()) == 1
    assert {"event": "shipper ended", "code": 0}.items() <= service.events()[-2].items()


def test_a_shipper_that_was_told_before_it_could_listen_ships_all_the_same(launch):
    """A pod that is young, or a machine that is busy: a signal kills a Python that has not come to its first line."""
    deaf = "import sys, time\nif '--once' not in sys.argv:\n    time.sleep(60)\n" + CHILD.replace(
        "time.sleep(", "stop("
    )
    service = launch(
        sys.executable, "-c", SERVE, deaf, "log", "0", LOG_SINK="delta", DRAIN_SECONDS="0", STOP_SECONDS="100"
    ).ready()
    assert httpx.post(f"{service.url}/score", content=BODY, headers=JSON).status_code == 200
    service.stop()
    assert service.process.wait(100) == 0
    assert (service.log_dir / "sealed").read_text().endswith(".seg")
    assert [event["event"] for event in service.events()][-2:] == ["shipper ended", "stopped"]


def test_a_shipper_that_will_not_end_is_cut_short_in_time(launch):
    deaf = CHILD.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    service = launch(
        sys.executable, "-c", SERVE, deaf, "log", "600", LOG_SINK="delta", DRAIN_SECONDS="0", STOP_SECONDS="2"
    ).ready()
    while not (service.log_dir / "starts").exists():
        time.sleep(0.02)
    service.stop()
    assert service.process.wait(10) == 0
    assert "shipper killed at the deadline" in service.events()[-2]["event"]


def test_nothing_that_was_sent_is_ever_said(launch, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"a": {"token": "canary-token-1234", "scopes": ["score", "feedback"]}}))
    service = launch(AUTH="", AUTH_TOKENS_FILE=str(tokens), ACCESS_LOG="1").ready()
    headers = {**JSON, "Authorization": "Bearer canary-token-1234", "X-Canary": "canary-header"}
    for route in ("score", "feedback"):
        for content in (BODY, b'{"canary-body": 1}', b"canary-body", BODY.replace(b"model3", b"canary-body")):
            httpx.post(f"{service.url}/{route}?canary-query=1", content=content, headers=headers)
            httpx.post(f"{service.url}/{route}", content=content, headers={"Authorization": "Bearer canary-wrong"})
    httpx.get(f"{service.url}/canary-path")
    shown = httpx.get(f"{service.url}/metrics").text
    service.stop()
    assert service.process.wait(10) == 0
    said = json.dumps(service.events())
    assert "answered" in said
    assert "canary" not in said
    assert "canary" not in shown
