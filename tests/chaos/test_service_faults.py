"""The service, killed under load again and again: every answer that a client holds is in the log, exactly once."""

import http.client
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from closedloop.log import record
from closedloop.log.spool import Spool, read

BODY = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
CLIENTS = 8
KILLS = 20


@pytest.fixture
def serve(tiny_bundle, tmp_path):
    """Start ``python -m score`` as a process of its own: (process, port), when it is ready."""
    environ = {
        **os.environ,
        "MODEL_DIR": str(tiny_bundle),
        "LOG_DIR": str(tmp_path / "log"),
        "AUTH": "open",
        "PORT": "0",
    }

    @contextmanager
    def start():
        output = tmp_path / "output"
        with output.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-m", "score"], env=environ, cwd=tmp_path, stderr=file)
        try:
            deadline = time.monotonic() + 120
            while not (running := re.search(r"running on http://127\.0\.0\.1:(\d+)", output.read_text())):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process, int(running[1])
        finally:
            process.kill()
            process.wait()

    return start


class Load:
    """Clients that ask as fast as they can until the server is gone."""

    def __init__(self, port, numbers):
        self.issued, self.acked, self.failed = set(), {}, []
        self._port, self._numbers = port, numbers
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()

    def _ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            for number in self._numbers:
                request_id = f"request-{number}"
                self.issued.add(request_id)
                headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
                connection.request("POST", "/score", BODY, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status == 200:
                    self.acked[request_id] = content
                else:
                    self.failed.append(answer.status)
        except (OSError, http.client.HTTPException):
            pass  # the server is gone: whatever was asked last was not acknowledged
        finally:
            connection.close()


def check(folder, issued, acked):
    Spool(folder).close()
    found = Counter()
    for entry in read(folder, pytest.fail):
        kept = record.decode(entry.payload)
        found[kept.request_id] += 1
        assert kept.request == BODY
        if kept.request_id in acked:
            assert kept.answer == acked[kept.request_id]
    assert {request_id: found[request_id] for request_id in acked} == dict.fromkeys(acked, 1)
    assert found.keys() <= issued


def test_killed_twenty_times_under_load_it_loses_no_answer(serve, tmp_path):
    numbers, issued, acked = itertools.count(), set(), {}
    for _ in range(KILLS):
        with serve() as (process, port):
            load = Load(port, numbers)
            time.sleep(random.Random(process.pid).uniform(0.05, 0.5))  # noqa: S311
            process.kill()
            load.join()
        assert not load.failed
        issued |= load.issued
        acked |= load.acked
    assert len(acked) > KILLS
    check(tmp_path / "log", issued, acked)


def test_told_to_stop_under_load_it_answers_what_has_begun_and_ends_well(serve, tmp_path):
    with serve() as (process, port):
        load = Load(port, itertools.count())
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        load.join()
        assert process.wait(timeout=10) == 0
    assert load.acked
    assert not load.failed
    check(tmp_path / "log", load.issued, load.acked)


def test_a_second_worker_on_the_same_log_is_refused(serve, tiny_bundle, tmp_path):
    with serve():
        environ = {
            **os.environ,
            "MODEL_DIR": str(tiny_bundle),
            "LOG_DIR": str(tmp_path / "log"),
            "AUTH": "open",
            "PORT": "0",
        }
        second = subprocess.run(
            [sys.executable, "-m", "score"], env=environ, capture_output=True, text=True, check=False, timeout=120
        )
    assert second.returncode == 3
    assert "lock is held by another process: give each worker a folder of its own" in second.stderr
