"""Signals, clocks, secrets, sinks and networks that fail while the service runs (rows 16, 17, 26, 30, 31, 34)."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import faults
import pytest
from conftest import end
from faults import BODY, Load, ask, get, until

from closedloop.log import record
from closedloop.log.frame import OPEN
from closedloop.log.spool import read

STEPS = [0.02, 0.3, 0.7, 1.1, 1.5, 2.0, 2.6, 3.2]
GRACE_SECONDS = 30  # the grace period of the manifests


def test_told_to_stop_under_load_it_answers_what_has_begun_and_ends_well(serve, ledger):
    with serve() as service, Load(service.port, ledger):
        until(lambda: len(ledger.acked) > 50)
        assert service.stop() == 0
    assert set(ledger.statuses) == {200}
    ledger.check(service.log)


def test_told_to_stop_twice_under_load_it_ends_well(serve, ledger):
    with serve() as service, Load(service.port, ledger):
        until(lambda: len(ledger.acked) > 50)
        os.kill(service.pid, signal.SIGTERM)
        time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.kill(service.pid, signal.SIGTERM)
        assert service.process.wait(timeout=GRACE_SECONDS) == 0
    assert "Traceback" not in service.output.read_text()
    ledger.check(service.log)


@pytest.mark.parametrize("seconds", STEPS)
def test_told_to_stop_while_it_starts_it_ends_and_the_next_start_is_whole(launch, serve, ledger, seconds):
    """Stopped before it is ready: while Python, the model or the log is being read."""
    with launch() as (process, output):
        time.sleep(seconds)
        process.terminate()
        assert process.wait(timeout=GRACE_SECONDS) in (0, -signal.SIGTERM)
        assert "Traceback" not in output.read_text()
    with serve() as service:
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_of_recovery_it_recovers_the_next_time(serve, launch, strace, ledger, number):
    """strace halts recovery for 3 s where it cuts the segment that a kill left open."""
    with serve() as service, Load(service.port, ledger):
        until(lambda: len(ledger.acked) > 50)
        service.process.kill()
    (path,) = service.log.glob("*" + OPEN)
    with launch(under=strace("ftruncate:delay_enter=3000000", path)) as (process, output):
        until(lambda: worker(process) and at_ftruncate(worker(process)), seconds=faults.START_SECONDS)
        os.kill(worker(process), number)
        process.wait(timeout=GRACE_SECONDS)
        assert "Traceback" not in output.read_text()
        end(process)
    with serve() as service:
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log)


def worker(process):
    return faults.Service(process, 0, None, None).pid if process.poll() is None else None


def at_ftruncate(pid):
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/syscall").open() as file:
        return file.read().split()[0] == "77"
    return False


@pytest.mark.parametrize("jump", [False, True], ids=["at each start", "while it runs"])
def test_the_log_keeps_its_order_when_the_clock_does_not(serve, faketime, ledger, tmp_path, jump):
    """The clock jumps 10 days back, 20 on and 20 back: the log has the order of the acknowledgements (row 26)."""
    clock = tmp_path / "clock"
    lies = ["-10d", "+10d", "-10d"]
    settings = {"LD_PRELOAD": faketime, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    settings["DONT_FAKE_MONOTONIC"] = "1"
    clock.write_text(lies[0])

    def ask_some(service):
        for _ in range(20):
            service.fresh(ledger)

    if jump:
        with serve(**settings) as service:
            for lie in lies:
                clock.write_text(lie)
                ask_some(service)
            assert service.stop() == 0
    else:
        for lie in lies:
            clock.write_text(lie)
            with serve(**settings) as service:
                ask_some(service)
                assert service.stop() == 0
    ledger.check(service.log)
    kept = [record.decode(entry.payload) for entry in read(service.log, pytest.fail)]
    assert list(ledger.acked) == [one.request_id for one in kept]
    received = [one.received_us for one in kept]
    assert max(received) - min(received) > 19 * 86_400_000_000
    assert received != sorted(received)


def test_a_thousand_secrets_reach_no_sink(serve, tmp_path):
    """Secrets in tokens, headers, fields, query strings, paths and broken bodies are not written (row 30)."""
    secrets = [f"canary-{number:04d}-{random.Random(number).getrandbits(64):016x}" for number in range(1000)]  # noqa: S311
    rest = iter(secrets)
    tokens = {f"caller-{number}": {"token": next(rest), "scopes": ["score"]} for number in range(50)}
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps(tokens))
    good = {"Authorization": f"Bearer {tokens['caller-0']['token']}"}

    def body(change):
        changed = json.loads(BODY)
        change(changed)
        return json.dumps(changed).encode()

    ways = [
        lambda secret: ("/score", BODY, {"Authorization": f"Bearer {secret}"}),
        lambda secret: ("/score", BODY, {**good, "Cookie": secret, "X-Forwarded-For": secret, "User-Agent": secret}),
        lambda secret: ("/score", BODY, {**good, "X-Request-ID": f"{secret} not an id"}),
        lambda secret: ("/score", BODY, {**good, "Content-Type": f"text/{secret}"}),
        lambda secret: (f"/score?token={secret}", BODY, good),
        lambda secret: (f"/{secret}", BODY, good),
        lambda secret: ("/score", body(lambda changed: changed.update({secret: 1})), good),
        lambda secret: ("/score", body(lambda changed: changed["telemetry"].update({secret: [1, 2]})), good),
        lambda secret: ("/score", body(lambda changed: changed["errors"].update({"errorID": [secret]})), good),
        lambda secret: ("/score", f'{{"telemetry": "{secret}'.encode(), good),
    ]
    with serve(AUTH="tokens", AUTH_TOKENS_FILE=str(file), ACCESS_LOG="1") as service:
        for number, caller in enumerate(tokens.values()):
            headers = {"Authorization": f"Bearer {caller['token']}"}
            assert ask(service.port, f"asked-{number}", headers=headers)[0] == 200
        for number, secret in enumerate(rest):
            path, content, headers = ways[number % len(ways)](secret)
            assert ask(service.port, "hostile", content, path=path, headers=headers)[0] < 500
        shown = get(service.port, "/metrics")[1] + get(service.port, "/version")[1]
        assert service.stop() == 0
    files = [path for path in [service.output, *service.log.rglob("*")] if path.is_file()]
    written = b"".join([shown.encode(), *[path.read_bytes() for path in files]])
    assert b"asked-49" in written
    assert [secret for secret in secrets if secret.encode() in written] == []


def test_what_the_list_of_fields_leaves_out_is_not_written(serve, tmp_path):
    """LOG_FIELDS without ``caller`` and ``maint``: neither name nor table reaches the log (row 30)."""
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"canary-caller": {"token": "a token of the tests", "scopes": ["score"]}}))
    settings = {"AUTH": "tokens", "AUTH_TOKENS_FILE": str(file), "LOG_FIELDS": "answer,telemetry,errors,machines"}
    with serve(**settings) as service:
        headers = {"Authorization": "Bearer a token of the tests"}
        assert ask(service.port, "asked", headers=headers)[0] == 200
        assert service.stop() == 0
    written = b"".join(path.read_bytes() for path in service.log.rglob("*") if path.is_file())
    assert b"asked" in written
    assert b"canary-caller" not in written
    assert b"2014-12-13T06:00:00Z" not in written


def test_while_the_sink_is_down_serving_goes_on_and_nothing_is_lost(serve, ledger):
    """An S3 sink refuses connections: it stays ready, answers, keeps its segments and ends in time (row 31)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "LOG_SINK": "s3://nowhere/log",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "none",
    }
    with serve(**settings) as service:  # it seals a segment at its end, which the next one cannot ship
        service.fresh(ledger)
        assert service.stop() == 0
    with serve(**settings) as service:
        told = service.log / "ship.json"
        until(lambda: told.exists() and json.loads(told.read_text())["failures"] > 0, seconds=120)
        with Load(service.port, ledger):
            until(lambda: ledger.statuses[200] > 100)
            assert get(service.port, "/readyz")[0] == 200
        assert service.stop() == 0
    assert json.loads(told.read_text())["unsent_segments"] >= 1
    assert set(ledger.statuses) == {200}
    ledger.check(service.log)


class Proxy:
    """A proxy in front of the service that randomly delays, cuts a request or an answer short, or resets."""

    def __init__(self, port, seed):
        self._port, self._random = port, random.Random(seed)  # noqa: S311
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._server.getsockname()[1]
        self.faults = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._server.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                fault = self._random.choice(["none", "none", "delay", "cut request", "cut answer", "reset"])
                self.faults += fault != "none"
                threading.Thread(target=self._serve, args=[peer, fault], daemon=True).start()

    def _serve(self, peer, fault):
        with peer, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as server:
            request = b""
            while len(request.partition(b"\r\n\r\n")[2]) < len(BODY):
                part = peer.recv(65536)
                if not part:
                    return
                request += part
            if fault == "delay":
                time.sleep(0.1)
            request = request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            server.sendall(request[: len(request) // 2] if fault == "cut request" else request)
            if fault == "cut request":
                return
            answer = b""
            while piece := server.recv(65536):  # the connection is to be closed after it
                answer += piece
            if fault == "cut answer":
                peer.sendall(answer[: len(answer) // 2])
            elif fault == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                peer.sendall(answer)


def test_over_a_network_that_cuts_and_resets_each_request_is_in_the_log_once(serve, ledger):
    """Clients repeat a request with the same id, at most 20 times with growing pauses (row 34)."""
    with serve() as service:
        proxy = Proxy(service.port, seed=1)
        tries = []

        def client():
            for _ in range(25):
                request_id = ledger.issue(BODY)
                for attempt in range(20):
                    tries.append(request_id)
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        status, headers, content = ask(proxy.port, request_id, timeout=5)
                        if len(content) != int(headers.get("content-length", -1)) or "x-request-id" not in headers:
                            raise http.client.IncompleteRead(content)  # a head that was cut looks like a whole one
                        assert request_id not in ledger.acked
                        ledger.answered(request_id, status, headers, content)
                        break
                    time.sleep(random.uniform(0, min(0.5, 0.02 * 2**attempt)))  # noqa: S311

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        proxy.close()
        assert proxy.faults > 20
        assert len(tries) > len(ledger.issued)
        assert ledger.acked.keys() == ledger.issued.keys()
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log, resent=True)
