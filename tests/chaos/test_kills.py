"""Processes killed at any moment: each acknowledged record is there once, as it was sent (rows 1, 2, 13, 25)."""

import http.client
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults
import pytest
import writer
from conftest import end
from faults import Load, check_log, until

KILLS = int(os.environ.get("KILLS", "200"))
CALLS = {"fdatasync": 200, "write": 200, "fsync": 40, "rename": 20}  # the n-th of each, up to this one
ALL_AT_ONCE = 2  # independent kills in parallel; more would only wait for the cores


def ids(words, kind):
    return {int(word[1]) for word in words if word[0] == kind}


def check(folder, words):
    return check_log(folder, ids(words, "issued"), ids(words, "acked"), writer.identify)


def test_a_killed_writer_loses_nothing_that_was_acknowledged(write, tmp_path, progress):
    """One folder over all kills; 32 clients, and a new segment every 50 records or so (row 13 with row 1)."""
    issued, acked = set(), set()
    for kill in range(KILLS):
        options = ["--first", str(1_000_000 * kill), "--clients", "32", "--segment-bytes", "12000"]
        with write(tmp_path / "log", *options) as (process, said):
            until(lambda said=said: len(said()) > 50)
            time.sleep(random.Random(process.pid).uniform(0.0, 0.1))  # noqa: S311
            process.kill()
            process.wait()
            issued |= ids(said(), "issued")
            acked |= ids(said(), "acked")
        progress(kill + 1, KILLS, f"kill -9 of the spool's writer, {len(acked)} acknowledged")
    found = check_log(tmp_path / "log", issued, acked, writer.identify)
    assert len(found) / 50 > KILLS


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_the_nth_call_it_loses_nothing_that_was_acknowledged(write, tmp_path, strace, call, progress):
    """For every n: only calls on the spool's own files count."""
    hit = []

    def kill(n):
        folder = tmp_path / f"log-{n}"
        about = [folder / "state.new", folder, *[folder / f"{number:020d}.open" for number in range(1, 60)]]
        options = ["--records", "3000", "--clients", "4", "--segment-bytes", "8000"]
        with write(folder, *options, under=strace(f"{call}:signal=SIGKILL:when={n}", *about)) as (process, said):
            hit.append(process.wait(timeout=120) != 0)
            check(folder, said())
        shutil.rmtree(folder)

    with ThreadPoolExecutor(ALL_AT_ONCE) as lanes:
        for n, _ in enumerate(lanes.map(kill, range(1, CALLS[call] + 1)), 1):
            progress(n, CALLS[call], f"kill -9 at the n-th {call}")
    assert all(hit)


WARM = """
import os, sys
sys.argv = ["score"]
from score import score
from score.__main__ import main
score.init()
while True:
    worker = os.fork()
    if not worker:
        sys.exit(main())
    os.waitpid(worker, 0)
"""


@pytest.fixture
def restarted(environ, tmp_path):
    """The service under a supervisor that forks it again, with everything loaded, when it has died."""
    output = tmp_path / "output"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", WARM], env=environ, cwd=tmp_path, stderr=file, start_new_session=True
        )
    yield process, output
    end(process)


def test_a_killed_service_loses_no_answer_that_a_client_holds(restarted, ledger, tmp_path, progress):
    supervisor, output = restarted
    for kill in range(KILLS):
        until(lambda kill=kill: len(running(output)) > kill, seconds=faults.START_SECONDS)
        service = faults.Service(supervisor, running(output)[-1], tmp_path / "log", output)
        load = Load(service.port, ledger)
        before = len(ledger.acked)
        until(lambda before=before: len(ledger.acked) > before)
        time.sleep(random.Random(kill).uniform(0.0, 0.2))  # noqa: S311
        os.kill(child(supervisor.pid), signal.SIGKILL)
        load.join()
        progress(kill + 1, KILLS, f"kill -9 of the service under load, {len(ledger.acked)} acknowledged")
    until(lambda: len(running(output)) > KILLS)
    service = faults.Service(supervisor, running(output)[-1], tmp_path / "log", output)
    service.fresh(ledger)
    assert faults.metric(service.port, "closedloop_log_recovered_records_total") > 0
    end(supervisor)
    ledger.check(tmp_path / "log")
    assert set(ledger.statuses) == {200}


def running(output):
    return [int(port) for port in re.findall(r"running on http://127\.0\.0\.1:(\d+)", output.read_text())]


def child(pid):
    (only,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(only)


def test_a_service_out_of_memory_is_killed_and_goes_on_where_it_was(serve, launch, cgroup, ledger, tmp_path):
    """The kernel's own killer, at a limit that a body of 46 MB breaks (row 25)."""
    group = cgroup("memory")
    with serve(MAX_BODY_BYTES=str(64 << 20)) as service:
        (group / "cgroup.procs").write_text(str(service.pid))
        (group / "memory.limit_in_bytes").write_text(str(48 << 20))  # its pages were charged elsewhere before
        with Load(service.port, ledger, lasting=True):
            until(lambda: len(ledger.acked) > 20)
            greedy = b'{"telemetry": {"datetime": [' + b'"2015-01-04T05:00:00Z",' * 2_000_000
            greedy += b'"2015-01-04T05:00:00Z"]}}'
            with pytest.raises((OSError, http.client.HTTPException)):  # as a connection to a dead process ends
                ask_until_it_dies(service.port, greedy)
            assert service.process.wait(timeout=60) == -signal.SIGKILL
    assert int(re.search(r"^oom_kill (\d+)", (group / "memory.oom_control").read_text(), re.MULTILINE)[1]) > 0
    with serve() as service:
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(tmp_path / "log")


def ask_until_it_dies(port, body):
    while True:
        faults.ask(port, "greedy", body)
