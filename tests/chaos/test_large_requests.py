"""Legal but large requests: the service stays within its memory, and its probes answer in time.

``LARGE_SECONDS`` is how long the random requests are sent (20 by default; 3,600 for the long run).
"""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import large
from faults import ask, get, until

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("LARGE_SECONDS", "20"))
CLIENTS = 4
GIB = 1 << 30
IDLE_SECONDS = 3
P999_SECONDS = 0.1
WORST_SECONDS = 1.0


def probe(port, seconds, busy=lambda: True):
    """Seconds that each probe took, asked fifty times a second on connections of their own."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end and busy():
        for path in ("/livez", "/readyz"):
            start = time.perf_counter()
            assert get(port, path)[0] == 200
            took.append(time.perf_counter() - start)
        time.sleep(0.04)
    return sorted(took)


def quantile(took, part):
    return took[min(int(len(took) * part), len(took) - 1)]


def told(took):
    return " ".join(f"p{100 * part:g} {1000 * quantile(took, part):.1f} ms" for part in (0.5, 0.99, 0.999, 1))


def test_bodies_that_are_short_and_dear_do_not_keep_the_probes_waiting(serve):
    """Four clients, bodies just under 256 KiB with 4,500 machines each (row 12.6)."""
    assert (200 << 10) < len(large.body(4500, 1)) < (256 << 10)
    with serve() as service:
        assert ask(service.port, "warm", large.body(4500, 1))[0] == 200
        idle, busy, statuses = load(service, "quarter", 10)
    print(f"idle: {told(idle)}; loaded: {told(busy)}; {statuses}")
    assert statuses.keys() <= {"200", "503"}
    assert statuses["200"] > 10
    in_time(idle, busy)


def test_three_requests_of_200_000_machines_at_once_do_not_kill_it(serve, cgroup):
    """Each would get an answer of 97 MB: refused before the work, in a cgroup of 1 GiB (row 12.4)."""
    group, body = cgroup("memory"), large.body(200_000, 1)
    assert len(body) < large.MAX_BODY_BYTES
    with serve() as service, ThreadPoolExecutor(3) as clients:
        (group / "memory.limit_in_bytes").write_text(str(GIB))
        (group / "cgroup.procs").write_text(str(service.pid))
        asked = [clients.submit(ask, service.port, f"large-{number}", body, 300) for number in range(3)]
        statuses = [one.result()[0] for one in asked]
        print(f"statuses {statuses}; peak {service.peak_bytes() / 2**20:.0f} MiB")
        assert service.process.poll() is None
        assert statuses == [422] * 3
        assert service.peak_bytes() < 0.5 * GIB
        assert service.stop() == 0


def test_legal_but_large_requests_fit_into_a_gibibyte_and_the_probes_answer(serve, cgroup):
    """Random sizes up to the limits, in a cgroup of 1 GiB that holds service and shipper's room (row 12.4)."""
    group = cgroup("memory")
    with serve() as service:
        (group / "memory.limit_in_bytes").write_text(str(GIB))
        (group / "cgroup.procs").write_text(str(service.pid))
        idle, busy, statuses = load(service, "random", SECONDS)
        killed = re.search(r"^oom_kill (\d+)", (group / "memory.oom_control").read_text(), re.MULTILINE)[1]
        peak = service.peak_bytes()
        assert service.process.poll() is None
        assert service.stop() == 0
    print(f"idle: {told(idle)}; loaded: {told(busy)}; {statuses}; peak {peak / 2**20:.0f} MiB; {killed} killed")
    assert int(killed) == 0
    assert peak < 0.75 * GIB  # the rest is the shipper's
    assert statuses.keys() <= {"200", "503"}
    assert statuses["200"] > 5
    in_time(idle, busy)


def load(service, way, seconds):
    """(probes while idle, probes under load, statuses of the load)."""
    idle = probe(service.port, IDLE_SECONDS)
    words = [sys.executable, HERE / "large.py", str(service.port), str(seconds), str(CLIENTS), way]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as clients:
        until(lambda: clients.poll() is not None or faults.metric(service.port, "closedloop_requests_in_flight") > 0)
        busy = probe(service.port, 600 + seconds, lambda: clients.poll() is None)
        return idle, busy, json.loads(clients.stdout.read())


def in_time(idle, busy):
    """Hold the probes to the limits; what the idle machine itself adds is not the service's fault."""
    assert quantile(busy, 0.999) < P999_SECONDS + idle[-1]
    assert busy[-1] < WORST_SECONDS + idle[-1]
