"""Overload, slow clients, long bodies, too few descriptors or threads: some are refused, others served (18-20, 33)."""

import asyncio
import contextlib
import resource
import socket
import threading
import time

import faults
import pytest
from faults import BODY, Load, ask, get, until

from score.service import _THREAD_BYTES

LIMIT_BYTES = 1 << 20
CLOSED_SECONDS = 10
SLACK_SECONDS = 5  # for a busy machine
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def small(serve):
    """A service that takes bodies of 1 MB."""
    with serve(MAX_BODY_BYTES=str(LIMIT_BYTES)) as service:
        ask(service.port, "warm")
        yield service


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def until_closed(peer):
    """Read until the server closes. Returns what it sent."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := peer.recv(65536):
            received += piece
    return received


async def overload(port, ledger, connections, seconds):
    """Ask on many connections, again as soon as each is answered. Returns the answers with status 200 per second."""
    end = time.monotonic() + seconds
    good = 0

    async def client():
        nonlocal good
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                while time.monotonic() < end:
                    request_id = ledger.issue(BODY)
                    head = HEAD + b"X-Request-ID: %b\r\nContent-Length: %d\r\n\r\n" % (request_id.encode(), len(BODY))
                    writer.write(head + BODY)
                    status, headers, content = await answer_of(reader)
                    ledger.answered(request_id, status, headers, content)
                    good += status == 200
                    if status != 200:  # a client that keeps to Retry-After would take the load away: come back sooner
                        await asyncio.sleep(0.1)
                    if headers.get("connection") == "close":
                        break
            except (OSError, asyncio.IncompleteReadError):
                ledger.broken += 1
            finally:
                writer.close()

    await asyncio.gather(*[client() for _ in range(connections)])
    return good / seconds


async def answer_of(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def test_ten_times_too_many_clients_cost_no_goodput_and_no_memory(serve, ledger):
    """1,000 connections where 64 are enough: refusals say when to come back, the rest is served (row 18)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        with serve() as service:
            asyncio.run(overload(service.port, ledger, 64, 1))
            peak = max(asyncio.run(overload(service.port, ledger, 64, 3)) for _ in range(2))
            held = service.bytes()
            goodput = max(asyncio.run(overload(service.port, ledger, 1000, 4)) for _ in range(2))
            service.fresh(ledger)
            assert get(service.port, "/readyz")[0] == 200
            # 90 % of the peak is the aim, for an idle machine; this test sees a collapse
            assert goodput >= 0.5 * peak
            assert service.peak_bytes() < held + (200 << 20)
            assert service.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ledger.check(service.log)


SLOW = {
    "says nothing": (b"", None),
    "half a head": (HEAD, None),
    "a head byte by byte": (HEAD + b"X-Slow: ", b"a"),
    "a body byte by byte": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks of one byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "half a body": (HEAD + b"Content-Length: 100\r\n\r\n{", None),
}


@pytest.mark.parametrize("way", SLOW)
def test_who_is_too_slow_is_cut_off_and_the_others_are_served(small, ledger, way):
    """40 slow clients: each is closed within 10 s (row 19)."""
    begin, again = SLOW[way]
    peers = [connect(small.port) for _ in range(40)]
    closed = []

    def drip(peer):
        start = time.monotonic()
        with contextlib.suppress(OSError):
            peer.settimeout(0.5)
            peer.sendall(begin)
            while time.monotonic() - start < CLOSED_SECONDS + SLACK_SECONDS:
                with contextlib.suppress(TimeoutError):
                    if not peer.recv(65536):
                        break
                if again:
                    peer.sendall(again)
            else:
                return
        closed.append(time.monotonic() - start)

    threads = [threading.Thread(target=drip, args=[peer]) for peer in peers]
    for thread in threads:
        thread.start()
    with Load(small.port, ledger, clients=2):
        until(lambda: len(ledger.acked) > 50)
        for thread in threads:
            thread.join()
    for peer in peers:
        peer.close()
    assert len(peers) == len(closed)
    assert set(ledger.statuses) == {200}
    assert ledger.broken == 0
    small.fresh(ledger)


def test_who_sends_no_more_but_listens_is_answered(small):
    """A half-close after a complete request is not an error (row 19)."""
    with connect(small.port) as peer:
        peer.sendall(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY)
        peer.shutdown(socket.SHUT_WR)
        received = until_closed(peer)
    assert received == b"" or received.startswith(b"HTTP/1.1 200 ")


def test_a_half_close_in_the_middle_of_a_body_ends_the_connection_and_nothing_else(small, ledger):
    with connect(small.port) as peer:
        peer.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(CLOSED_SECONDS + SLACK_SECONDS)
        assert b" 200 " not in until_closed(peer)
    small.fresh(ledger)


@pytest.mark.parametrize("length", [200 << 20, 10**12, 10**30])
def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(small, ledger, length):
    """Row 20: 200 MB, 1 TB, and more than 64 bits can hold."""
    before = small.peak_bytes()
    with connect(small.port) as peer:
        peer.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
        received = until_closed(peer)
    assert received.split()[1] in ((b"413",) if length < 1 << 64 else (b"413", b"400"))
    assert small.peak_bytes() - before <= 2 * LIMIT_BYTES
    small.fresh(ledger)


@pytest.mark.parametrize("total", [200 << 20])
@pytest.mark.parametrize("said", [True, False], ids=["with its length", "in chunks"])
def test_a_body_sent_on_without_end_is_read_no_further_than_its_limit(small, ledger, said, total):
    """Row 20: the client goes on sending after the answer; the server closes, and its memory is bounded."""
    before, sent = small.peak_bytes(), 0
    piece = b" " * 65536
    with connect(small.port) as peer:
        peer.sendall(HEAD + (b"Content-Length: %d\r\n\r\n" % total if said else b"Transfer-Encoding: chunked\r\n\r\n"))
        with contextlib.suppress(ConnectionError):
            while sent < total:
                peer.sendall(piece if said else b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
        received = until_closed(peer)
    assert sent < 64 << 20  # what the kernels' buffers hold, and no more
    assert received == b"" or received.split()[1] == b"413"  # a reset may overtake the answer
    assert small.peak_bytes() - before <= 8 * LIMIT_BYTES
    small.fresh(ledger)
    assert ask(small.port, "long", b" " * (LIMIT_BYTES + 1))[0] == 413


def test_a_flood_of_idle_connections_takes_neither_the_probes_nor_the_rest_down_for_long(serve, ledger):
    """400 connections that say nothing where 100 are the limit: probes are answered all the while (row 12.8)."""
    with serve(MAX_CONNECTIONS="100") as service:
        service.fresh(ledger)
        peers = []
        try:
            for _ in range(300):
                peers.append(connect(service.port))
                if len(peers) % 20 == 0:
                    assert get(service.port, "/livez")[0] == 200
                    assert get(service.port, "/readyz")[0] == 200
            peers += [connect(service.port) for _ in range(100)]  # the first ones are closed after seven seconds
            assert get(service.port, "/version")[0] == 503
        finally:
            for peer in peers:
                peer.close()
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log)


def test_without_file_descriptors_it_refuses_and_recovers(serve, ledger):
    """ulimit -n 64, and 100 connections that say nothing (row 33)."""
    with serve(under=["prlimit", "--nofile=64:64"]) as service:
        service.fresh(ledger)
        peers = []
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    peers.append(connect(service.port))
            time.sleep(1)
            assert service.process.poll() is None
        finally:
            for peer in peers:
                peer.close()
        service.fresh(ledger)
        assert get(service.port, "/readyz")[0] == 200
        assert service.stop() == 0
    ledger.check(service.log)


def test_without_threads_it_answers_what_needs_none_and_recovers(serve, cgroup, ledger):
    """A pids cgroup allows no further thread, and a large body needs one (row 33)."""
    large = faults.larger(120, 60)
    assert len(large) > _THREAD_BYTES
    group = cgroup("pids")
    with serve() as service:
        service.fresh(ledger)
        (group / "cgroup.procs").write_text(str(service.pid))
        (group / "pids.max").write_text("1")
        with contextlib.suppress(OSError):
            request_id = ledger.issue(large)
            ledger.answered(request_id, *ask(service.port, request_id, large))
        service.fresh(ledger)
        (group / "pids.max").write_text("max")
        request_id = ledger.issue(large)
        status, headers, content = ask(service.port, request_id, large)
        ledger.answered(request_id, status, headers, content)
        assert status == 200
        assert service.stop() == 0
    ledger.check(service.log)
