"""The service at its limits: stopped repeatedly under load, out of descriptors, sent endless bodies, overloaded."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from closedloop.log import record
from closedloop.log.spool import Spool, read

BODY = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SENT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
STOPS = 50
CLIENTS = 16
LIMIT = 16 << 20


@pytest.fixture
def serve(tiny_bundle, tmp_path):
    """A function that starts ``python -m score``, waits until it is ready, and yields (process, port)."""

    @contextmanager
    def start(*under, **settings):
        environ = {"MODEL_DIR": str(tiny_bundle), "LOG_DIR": str(tmp_path / "log"), "LOG_SINK": "none"}
        environ |= {"AUTH": "open", "PORT": "0"}
        said = tmp_path / "said"
        with said.open("wb") as file:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "score"], env=os.environ | environ | settings, cwd=tmp_path, stderr=file
            )
        try:
            deadline = time.monotonic() + 120
            while not (running := re.search(r"running on http://127\.0\.0\.1:(\d+)", said.read_text())):
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process, int(running[1])
        finally:
            process.kill()
            process.wait()

    return start


async def ask_until_gone(port, told, began, failed, acked):
    """Ask on one connection after another. What began before the service was told to stop must be answered."""
    while True:
        request_id = uuid4().hex
        start = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return  # nobody listens any more
        try:
            writer.write(SENT.replace(b"Host: x", f"Host: x\r\nX-Request-ID: {request_id}".encode()))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            if head.startswith(b"HTTP/1.1 200"):
                acked.add(request_id)
            else:
                failed.append((start - told[0] if told else None, head[:30]))
        except (OSError, asyncio.IncompleteReadError) as error:
            if not told or start < told[0]:
                failed.append((start - told[0] if told else None, repr(error)))
        finally:
            writer.close()
        began.append(start)


def test_stopped_fifty_times_under_load_it_fails_no_request_that_had_begun(serve, tmp_path):
    begun, lasted, acked = 0, [], set()
    for _ in range(STOPS):
        with serve(DRAIN_SECONDS="1") as (process, port):
            told, began, failed = [], [], []

            async def load(process=process, port=port, told=told, began=began, failed=failed):
                clients = [
                    asyncio.create_task(ask_until_gone(port, told, began, failed, acked)) for _ in range(CLIENTS)
                ]
                await asyncio.sleep(0.4)
                process.send_signal(signal.SIGTERM)
                told.append(time.monotonic())
                await asyncio.gather(*clients)

            asyncio.run(load())
            assert process.wait(10) == 0
            lasted.append(time.monotonic() - told[0])
        assert failed == []
        begun += sum(start < told[0] for start in began)
    assert begun > STOPS * CLIENTS
    assert max(lasted) < 10
    Spool(tmp_path / "log").close()
    found = [record.decode(entry.payload).request_id for entry in read(tmp_path / "log", pytest.fail)]
    assert acked <= set(found)
    assert len(found) == len(set(found))


def test_out_of_descriptors_it_comes_back_by_itself(serve):
    with serve("sh", "-c", 'ulimit -n 64; exec "$@"', "sh") as (process, port):
        held = []
        for _ in range(300):
            connection = socket.socket()
            connection.settimeout(2)
            try:
                connection.connect(("127.0.0.1", port))
                held.append(connection)
            except OSError:
                connection.close()
        time.sleep(1)
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 5
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.poll() is None
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


def answers(port):
    try:
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"http://127.0.0.1:{port}/score", content=BODY, headers=headers, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def resident(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


@pytest.mark.parametrize("how", ["declared", "a-terabyte", "endless"])
def test_too_long_a_body_is_refused_within_its_limit_of_memory(serve, how):
    part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with serve() as (process, port):
        assert answers(port)
        before = resident(process)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                try:
                    if how == "endless":
                        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                        for _ in range(20_000):
                            connection.sendall(part)
                        pytest.fail("the service read the whole body")
                    length = 200 << 20 if how == "declared" else 10**12
                    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
                    assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert resident(process) - before < 2 * LIMIT
        assert answers(port)


async def hammer(port, clients, seconds):
    """Ask with many clients that never wait. Returns the answers with 200 per second, and the heads of all others."""
    until, good, other = time.monotonic() + seconds, 0, []

    async def one():
        nonlocal good
        writer = None
        while time.monotonic() < until:
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(SENT)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            except (OSError, asyncio.IncompleteReadError):
                writer = None
                continue
            if head.startswith(b"HTTP/1.1 200"):
                good += 1
            else:
                other.append(head)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return good / seconds, other


def test_ten_times_overloaded_it_sheds_and_goes_on_answering(serve):
    with serve(MAX_IN_FLIGHT="32") as (process, port):
        asyncio.run(hammer(port, 32, 1))
        peak, _ = asyncio.run(hammer(port, 32, 4))
        before = resident(process)
        goodput, other = asyncio.run(hammer(port, 320, 4))
        assert other
        assert all(head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in head.lower() for head in other)
        print(f"goodput {goodput:.0f}/s of {peak:.0f}/s at its peak: {goodput / peak:.0%}; {len(other)} shed")
        assert goodput > 0.5 * peak  # the client shares the processors; the line above says how much it was
        assert resident(process) - before < 64 << 20
        assert answers(port)


def test_it_needs_no_new_thread_to_answer_so_none_can_be_lacking(serve):
    with serve() as (process, port):
        tasks = Path(f"/proc/{process.pid}/task")
        before = len(list(tasks.iterdir()))
        threads = [threading.Thread(target=answers, args=(port,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        large = BODY + b" " * (1 << 20)
        assert httpx.post(f"http://127.0.0.1:{port}/score", content=large).status_code == 200
        assert len(list(tasks.iterdir())) == before
