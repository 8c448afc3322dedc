"""What the fault tests share: the checks, the clients, and the service as a process.

Each test checks what it can of these: every acknowledged id is in the recovered log exactly once (O1), every logged id
was issued (O2), every payload is what was sent and answered (O3), a new request is answered within 5 s of the fault's
end (O4), no answer is 5xx other than 503 and 507 with Retry-After (O5), memory stays bounded (O6).
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from closedloop.log import record
from closedloop.log.spool import Spool, read

BODY = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
FRESH_SECONDS = 5
START_SECONDS = 120  # the first start may compile
_JSON = {"Content-Type": "application/json"}


def until(condition, seconds=30):
    """Wait until the condition holds. Returns its value."""
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)
    return met


def check_log(folder, issued, acked, identify, *, resent=False):
    """Check O1 to O3 for a log that is recovered first. Returns how often each id is there.

    ``identify`` returns the id of a payload, and checks the rest of it. With ``resent`` an id may be there more than
    once, since the reader of the log removes repetitions.
    """
    Spool(folder).close()
    found, places = Counter(), Counter()
    for entry in read(folder, pytest.fail):
        found[identify(entry.payload)] += 1
        places[entry.spool, entry.segment, entry.index] += 1
    assert set(places.values()) <= {1}
    if resent:
        found = Counter(found.keys())
    lost = set(acked) - found.keys()
    assert not lost, f"{len(lost)} of {len(acked)} acknowledged are lost"
    assert found.keys() <= set(issued)
    assert set(found.values()) <= {1}
    return found


class Ledger:
    """What clients sent and were answered, over all starts of a service."""

    def __init__(self):
        self.issued = {}  # id -> body
        self.acked = {}  # id -> answer
        self.statuses = Counter()
        self.broken = 0  # requests that ended without an answer
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def issue(self, body):
        """A new id for this body."""
        with self._lock:
            request_id = f"request-{next(self._numbers)}"
        self.issued[request_id] = body
        return request_id

    def answered(self, request_id, status, headers, content):
        """Count an answer and check O5."""
        with self._lock:
            self.statuses[status] += 1
        if status == 200:
            assert headers["x-request-id"] == request_id
            self.acked[request_id] = content
        elif status >= 500:
            assert status in (503, 507), content
            assert int(headers["retry-after"]) >= 1

    def check(self, folder, **options):
        """Check O1 to O3 for the log in a folder."""

        def identify(payload):
            kept = record.decode(payload)
            assert kept.request == self.issued[kept.request_id]
            if kept.request_id in self.acked and not options.get("resent"):
                assert kept.answer == self.acked[kept.request_id]
            return kept.request_id

        return check_log(folder, self.issued, self.acked, identify, **options)


def ask(port, request_id, body=BODY, timeout=30, path="/score", headers=()):
    """Send one request on its own connection. Returns (status, headers with lower-case names, content)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body, {**_JSON, "X-Request-ID": request_id, **dict(headers)})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def get(port, path, timeout=30):
    """GET a path. Returns (status, text)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metric(port, name):
    """The value of a metric without labels."""
    return float(re.search(rf"^{name} (\S+)$", get(port, "/metrics")[1], re.MULTILINE)[1])


class Load:
    """Threads that ask as fast as they can until they are stopped; ``lasting`` ones connect again when cut off."""

    def __init__(self, port, ledger, clients=8, *, lasting=False, body=BODY):
        self._port, self._ledger, self._lasting, self._body = port, ledger, lasting, body
        self._stop = threading.Event()
        self.errors = []  # checks that failed in a client's thread
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self.join()

    def join(self):
        """Wait until all threads have ended, and fail if a check in one of them did."""
        for thread in self._threads:
            thread.join()
        assert self.errors == []

    def _ask(self):
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                while not self._stop.is_set():
                    request_id = self._ledger.issue(self._body)
                    connection.request("POST", "/score", self._body, {**_JSON, "X-Request-ID": request_id})
                    answer = connection.getresponse()
                    headers = {name.lower(): value for name, value in answer.getheaders()}
                    self._ledger.answered(request_id, answer.status, headers, answer.read())
                    if answer.status >= 500:
                        time.sleep(0.01)
            except (OSError, http.client.HTTPException):
                self._ledger.broken += 1  # whatever was asked last was not acknowledged
                if not self._lasting:
                    return
                time.sleep(0.05)
            except AssertionError as error:
                self.errors.append(error)
                return
            finally:
                connection.close()


class Service:
    """A running ``python -m score``."""

    def __init__(self, process, port, log, output):
        self.process, self.port, self.log, self.output = process, port, log, output

    @property
    def pid(self):
        """The process id of the worker, also where it runs below a tool such as strace."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        command = Path(f"/proc/{self.process.pid}/comm").read_text()
        return self.process.pid if command.startswith("python") or not children else int(children[0])

    def fresh(self, ledger):
        """Check O4: a new request is answered within 5 s from now, with as many attempts as it takes."""
        deadline = time.monotonic() + FRESH_SECONDS
        while True:
            request_id = ledger.issue(BODY)
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, headers, content = ask(self.port, request_id, timeout=FRESH_SECONDS)
                ledger.answered(request_id, status, headers, content)
                if status == 200:
                    return
            assert time.monotonic() < deadline, "no new request was answered in time"
            time.sleep(0.02)

    def peak_bytes(self):
        """The peak of the worker's resident memory."""
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())[1]) << 10

    def bytes(self):
        """The worker's resident memory."""
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())[1]) << 10

    def stop(self):
        """Send SIGTERM and wait. Returns the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=30)


def larger(machines, hours):
    """The golden request, repeated for that many machines and hours."""
    one = json.loads(BODY)["telemetry"]
    columns = {name: [] for name in one}
    for machine in range(1, machines + 1):
        for hour in range(hours):
            for name, values in one.items():
                columns[name].append(values[0])
            columns["machineID"][-1] = machine
            columns["datetime"][-1] = f"2015-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00"
    return json.dumps({"telemetry": columns}).encode()


def run(*words, **options):
    """Run a command that must succeed."""
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **options)
