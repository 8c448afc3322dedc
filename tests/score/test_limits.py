"""Clients that are slow, never read, never end or are too many are cut off in time, and others are not affected."""

import contextlib
import json
import re
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from score import protocol

BODY = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(protocol, "_TIMEOUT_SECONDS", 0.5)


@pytest.fixture
def patient(monkeypatch):
    """No connection is closed for its silence, however long a test takes on a busy machine."""
    monkeypatch.setattr(protocol, "_TIMEOUT_SECONDS", 600.0)


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def drain(connection):
    """What is received until the server closes."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def counted(server, name):
    text = httpx.get(f"{server.url}/metrics").text
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)


def closed(server, reason):
    return counted(server, f'closedloop_connections_closed_total{{reason="{reason}"}}')


def settle(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


BEGUN = {
    "nothing": b"",
    "half-a-line": b"POST /sc",
    "half-a-head": HEAD + b"X-Slow: ",
    "half-a-body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "half-the-chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
}


@pytest.mark.parametrize("begun", BEGUN.values(), ids=BEGUN)
def test_who_is_too_slow_is_told_so_and_closed_while_others_are_answered(serve, impatient, begun):
    server = serve()
    with connect(server) as connection:
        connection.sendall(begun)
        assert httpx.post(f"{server.url}/score", content=BODY, headers=JSON).status_code == 200
        received = drain(connection)
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"application/problem+json" in received
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in received
    assert closed(server, "slow") == 1


def test_a_byte_now_and_then_does_not_help(serve, impatient):
    server = serve()
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)
            pytest.fail("it was patient for 5 seconds")
        except OSError:
            pass
    assert closed(server, "slow") == 1


def test_who_closes_half_gets_no_one_else_into_trouble(server):
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert httpx.post(f"{server.url}/score", content=BODY, headers=JSON).status_code == 200
        assert drain(connection) == b""


def test_who_takes_no_answer_is_closed(serve, impatient):
    server = serve()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(1)
        with contextlib.suppress(OSError):  # pipelined pages, of which none is read
            connection.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        settle(lambda: closed(server, "deaf") == 1)
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_an_endless_head_is_cut(server):
    with connect(server) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(HEAD + b"X-Long: " + b"a" * (1 << 20))
        drain(connection)
    assert closed(server, "long") >= 1


def test_a_refused_caller_cannot_go_on_sending(serve, tokens):
    server = serve(tokens_file=tokens[0])
    sent = 0
    with connect(server) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
            pytest.fail("it took everything")
        except OSError:
            pass
    assert sent < 16 << 20  # 1 MiB and what the kernel's buffers took
    assert counted(server, "closedloop_body_bytes_in_flight") == 0


def test_what_is_no_http_is_a_problem_that_is_counted_and_not_said(server, caplog):
    before = closed(server, "malformed")
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert drain(connection).startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json")
    assert closed(server, "malformed") == before + 1


def test_one_connection_too_many_is_told_to_come_again(serve, patient):
    server = serve(max_connections=3)
    held = [connect(server) for _ in range(3)]
    try:
        refused = httpx.post(f"{server.url}/score", content=BODY, headers=JSON)
        assert refused.status_code == 503
        assert "too many connections" in refused.json()["detail"]
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
    finally:
        for connection in held:
            connection.close()
    settle(lambda: answered(server, "/metrics") == 200)


def test_a_flood_of_idle_connections_does_not_take_the_probes_down(serve, patient):
    """Beyond the limit, places are kept for the probes; a connection that asks nothing gives its place up."""
    server = serve(max_connections=20)
    flood = [connect(server) for _ in range(20)]
    try:
        for _ in range(10):
            flood += [connect(server) for _ in range(20)]
            assert answered(server, "/livez") == 200
            assert answered(server, "/readyz") == 200
            assert answered(server, "/version") == 503
        time.sleep(0.1)
        told = drain(flood[20])  # the first one in a reserved place
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in told
    finally:
        for connection in flood:
            connection.close()
    settle(lambda: answered(server, "/version") == 200)
    assert closed(server, "many") >= 100
    settle(lambda: counted(server, "closedloop_connections") <= 2)


def test_a_probe_in_a_reserved_place_does_not_stay_there(serve, patient):
    server = serve(max_connections=3)
    held = [connect(server) for _ in range(3)]
    try:
        assert httpx.get(f"{server.url}/livez").headers["connection"] == "close"
    finally:
        for connection in held:
            connection.close()


@pytest.fixture
def generous(monkeypatch):
    """Answers may be so long that the kernel's buffers do not hold one."""
    monkeypatch.setenv("MAX_MACHINES", "30000")
    monkeypatch.setenv("MAX_ANSWER_BYTES", str(64 << 20))


def ask_for_much(server, machines=30_000):
    """A connection with a small receive buffer on which a long answer is on its way."""
    columns = {name: [values[0]] * machines for name, values in json.loads(BODY)["telemetry"].items()}
    body = json.dumps({"telemetry": columns | {"machineID": list(range(machines))}}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.connect(("127.0.0.1", server.port))
    connection.settimeout(60)
    connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def read_slowly(connection, piece, pause):
    """The bytes read until the end, with a pause after each piece."""
    size = 0
    with contextlib.suppress(OSError):
        while part := connection.recv(piece):
            size += len(part)
            time.sleep(pause)
    return size


def test_a_steady_reader_of_a_long_answer_gets_all_of_it_however_long_it_takes(serve, generous, monkeypatch):
    monkeypatch.setattr(protocol, "_TIMEOUT_SECONDS", 1.0)
    server = serve(max_body_bytes=4 << 20)
    with ask_for_much(server) as connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        assert length > 10_000_000
        start = time.monotonic()
        assert length == read_slowly(connection, 65536, 0.02)
        assert time.monotonic() - start > 3 * protocol._TIMEOUT_SECONDS
    assert closed(server, "deaf") == 0
    settle(lambda: counted(server, "closedloop_answer_bytes_untaken") == 0)


def test_who_takes_a_long_answer_by_the_byte_is_closed(serve, generous, impatient):
    server = serve(max_body_bytes=4 << 20)
    with ask_for_much(server) as connection:
        threading.Thread(target=read_slowly, args=(connection, 64, 0.05), daemon=True).start()
        settle(lambda: closed(server, "deaf") == 1, 60)
    settle(lambda: counted(server, "closedloop_answer_bytes_untaken") == 0)


def test_answers_that_nobody_takes_are_limited_and_others_shed(serve, generous):
    server = serve(max_body_bytes=4 << 20, max_in_flight_bytes=4 << 20)
    with ask_for_much(server):
        settle(lambda: counted(server, "closedloop_answer_bytes_untaken") > 4 << 20, 60)
        shed = httpx.post(f"{server.url}/score", content=BODY, headers=JSON)
        assert (shed.status_code, shed.headers["retry-after"]) == (503, "1")
        assert counted(server, 'closedloop_requests_shed_total{reason="answers"}') == 1
    settle(lambda: counted(server, "closedloop_answer_bytes_untaken") == 0)
    assert httpx.post(f"{server.url}/score", content=BODY, headers=JSON).status_code == 200


def test_a_request_for_a_websocket_is_counted_and_not_said(serve, caplog):
    server = serve()
    upgrade = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for _ in range(3):
        with connect(server) as connection:
            connection.sendall(upgrade)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert counted(server, "closedloop_upgrades_ignored_total") == 3
    assert [record.getMessage() for record in caplog.records if "pgrade" in record.getMessage()] == []
    assert [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()] == []


def answered(server, path):
    try:
        return httpx.get(f"{server.url}{path}").status_code
    except httpx.HTTPError:
        return None


def test_more_bodies_at_once_than_the_budget_are_shed_and_the_budget_comes_back(serve):
    server = serve(max_in_flight_bytes=300_000, max_body_bytes=200_000)
    held = [connect(server) for _ in range(2)]
    for connection in held:
        connection.sendall(HEAD + b"Content-Length: 140000\r\n\r\n" + b" " * 139_000)
    settle(lambda: counted(server, "closedloop_body_bytes_in_flight") == 278_000)
    shed = httpx.post(f"{server.url}/score", content=BODY + b" " * 60_000, headers=JSON)
    assert (shed.status_code, shed.headers["retry-after"]) == (503, "1")
    assert counted(server, 'closedloop_requests_shed_total{reason="bytes"}') == 1
    for connection in held:
        connection.close()
    settle(lambda: counted(server, "closedloop_body_bytes_in_flight") == 0)
    assert httpx.post(f"{server.url}/score", content=BODY + b" " * 60_000, headers=JSON).status_code == 200


def test_more_requests_at_once_than_the_limit_are_shed_and_the_probes_are_not(serve):
    server = serve(max_in_flight=2)
    held = [connect(server) for _ in range(2)]
    for connection in held:
        connection.sendall(HEAD + b"Content-Length: 10\r\n\r\n")
    settle(lambda: counted(server, "closedloop_requests_in_flight") == 2)
    shed = httpx.post(f"{server.url}/score", content=BODY, headers=JSON)
    assert (shed.status_code, shed.headers["retry-after"]) == (503, "1")
    assert httpx.get(f"{server.url}/livez").status_code == 200
    for connection in held:
        connection.close()
    settle(lambda: counted(server, "closedloop_requests_in_flight") == 0)
    assert httpx.post(f"{server.url}/score", content=BODY, headers=JSON).status_code == 200


def test_a_deaf_or_slow_crowd_does_not_keep_others_waiting(serve):
    server = serve()
    crowd = [connect(server) for _ in range(200)]
    for connection in crowd:
        connection.sendall(HEAD + b"X-Slow: ")
    threads = [
        threading.Thread(
            target=lambda: httpx.post(f"{server.url}/score", content=BODY, headers=JSON).raise_for_status()
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for connection in crowd:
        connection.close()
