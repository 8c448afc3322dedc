"""The load counts what it sends and gets, times from when a request was due, and each target can be missed."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

BENCHES = Path(__file__).resolve().parent


@pytest.fixture
def bench(monkeypatch) -> Callable[[str], ModuleType]:
    """Import a bench by its name, as Python does where the bench runs as a script."""
    monkeypatch.syspath_prepend(str(BENCHES))
    return importlib.import_module


class Echo(ThreadingHTTPServer):
    """A server in this process that sends each body back and counts; ``delay_s`` passes before each answer."""

    daemon_threads = False  # closing it waits for its connections to end
    request_queue_size = 128

    def __init__(self, chunked: bool = False, close: bool = False, delay_s: float = 0.0, refuse_every: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chunked, self.close, self.delay_s, self.refuse_every = chunked, close, delay_s, refuse_every
        self.bodies: list[int] = []
        self.port = self.server_port
        self.over = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Echo

    def do_POST(self) -> None:
        echo = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        echo.bodies.append(len(body))
        refused = echo.refuse_every and len(echo.bodies) % echo.refuse_every == 0
        if echo.delay_s:
            echo.over.wait(echo.delay_s)
        with suppress(ConnectionError):
            self.send_response(503 if refused else 200)
            if echo.close:
                self.send_header("Connection", "close")
            if echo.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:], b""))
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(echo: Echo) -> Iterator[Echo]:
    thread = threading.Thread(target=echo.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield echo
    finally:
        echo.over.set()
        echo.shutdown()
        thread.join()
        echo.server_close()


@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"close": True}])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_flat_out_counts_every_answer_once(bench, how, size) -> None:
    load_of, body = bench("serve_load"), bytes(size)
    with serving(Echo(**how)) as echo:
        load = load_of.flat_out(echo.port, load_of.request("/x", body), 5, 0.2)
    assert {200: len(echo.bodies)} == dict(load.statuses)
    assert len(echo.bodies) == len(load.seconds) >= 5
    assert {size} == set(echo.bodies)
    assert load.last == body
    assert load.unanswered == 0


def test_a_refusal_is_counted_and_is_no_answer(bench) -> None:
    load_of = bench("serve_load")
    with serving(Echo(refuse_every=2)) as echo:
        load = load_of.flat_out(echo.port, load_of.request("/x", b"x"), 1, 0.1)
    assert load.statuses[503] == len(echo.bodies) // 2 > 0
    assert load.statuses[200] == len(load.seconds)


def test_a_server_that_never_answers_is_given_up(bench) -> None:
    load_of = bench("serve_load")
    with serving(Echo(delay_s=60)) as echo:
        load = load_of.flat_out(echo.port, load_of.request("/x", b"x"), 3, 0.1, patience_s=0.3)
    assert (3, 0, 0.0) == (load.unanswered, len(load.seconds), load.per_second)


def test_a_rate_is_kept_whatever_the_answers_take_and_waiting_counts(bench) -> None:
    load_of = bench("serve_load")
    with serving(Echo(delay_s=0.02)) as echo:  # one connection can take 50 a second
        sent = load_of.request("/x", b"x")
        slow = load_of.at_rate(echo.port, sent, 1, 100.0, 0.5)
        wide = load_of.at_rate(echo.port, sent, 64, 100.0, 0.5)
    assert len(slow.seconds) == len(wide.seconds) > 20  # the same times were drawn
    assert slow.quantile_ms(0.9) > 3 * 20  # a queue that grows; a client that waits for its answers would say 20
    assert min(wide.seconds) >= 0.02


def test_who_is_not_answered_in_time_counts_with_the_time_waited(bench) -> None:
    load_of = bench("serve_load")
    with serving(Echo(delay_s=60)) as echo:
        start = time.perf_counter()
        load = load_of.at_rate(echo.port, load_of.request("/x", b"x"), 2, 50.0, 0.4)
    assert time.perf_counter() - start < 10
    assert load.unanswered == len(load.seconds) > 5
    assert max(load.seconds) >= 0.4


def found(serve: ModuleType, **rates: float):
    """The figures of a run in which all targets hold, but for what is given."""
    own = {"ours": 6000.0, "echo": 20_000.0, "mlflow_A": 30.0, "fastapi_A": 100.0, "fastapi_B": 4000.0} | rates
    cell = {name.replace("_", " "): serve.Figures(rates=[rate]) for name, rate in own.items()}
    grid = {serve.JUDGED: cell | {serve.OFF: serve.Figures(rates=[7000.0])}}
    log = {name: serve.Figures(rates=[6000.0], p99_ms=[9.0, 8.0]) for name in (serve.OURS, serve.OFF, serve.SHIPPING)}
    return grid, {serve.JUDGED: log}


@pytest.mark.parametrize(
    ("rates", "missed"),
    [
        ({}, []),
        ({"fastapi_A": 121.0}, ["64 connections, 1 machine: ours / best as users write it (fastapi A)"]),
        ({"mlflow_A": 41.0}, ["64 connections, 1 machine: ours / mlflow models serve"]),
        ({"fastapi_B": 6001.0}, ["every cell, least: ours / fastapi B (64 connections, machines 1)"]),
        ({"echo": 24_001.0}, ["64 connections, 1 machine: ours / bare echo"]),
    ],
)
def test_each_ratio_of_the_service_can_miss_its_target(bench, rates, missed) -> None:
    serve = bench("serve")
    assert missed == [point.what for point in serve.points(*found(serve, **rates)) if point.holds is False]


def test_a_slow_log_and_a_failed_request_miss_their_targets(bench) -> None:
    serve = bench("serve")
    grid, log = found(serve)
    log[serve.JUDGED][serve.OURS].p99_ms = [19.5, 18.5]
    grid[serve.JUDGED][serve.OURS].failed = 1
    assert [point.what for point in serve.points(grid, log) if point.holds is False] == [
        "requests that ours failed, all cells",
        "64 connections, 1 machine, half of peak: p99 added by the durable log",
    ]


def test_a_cell_in_which_a_peer_is_ahead_is_found_among_all(bench) -> None:
    serve = bench("serve")
    grid, log = found(serve)
    grid[8, 32] = {
        name: serve.Figures(rates=[rate]) for name, rate in (("ours", 90.0), ("azmlinfsrv B", 100.0), (serve.OFF, 99.0))
    }
    ahead = next(point for point in serve.points(grid, log) if point.what.startswith("every cell, least: ours /"))
    assert ("azmlinfsrv B (8 connections, machines 32)", 0.9, False) == (
        ahead.what.split("/ ")[1],
        ahead.figure,
        ahead.holds,
    )


def test_another_answer_is_not_timed(bench) -> None:
    serve = bench("serve")
    good = {
        "ours": {"results": [1]},
        "echo": {},
        "x A": {"results": [2]},
        "y A": {"results": [2]},
        "x B": {"results": [1]},
    }
    serve.compare(good)
    for name, like in (("y A", "x A"), ("x B", "ours")):
        with pytest.raises(SystemExit, match=f"not timed: {name} gives another answer than {like}"):
            serve.compare(good | {name: {"results": [3]}})


def test_a_late_start_and_a_greedy_service_are_noticed(bench) -> None:
    start = bench("start_to_ready")
    good, late, greedy = (2.0, 300.0, 280.0), (5.1, 300.0, 280.0), (2.0, 351.0, 280.0)
    missed = [
        [point.what for point in start.points([one] * 3, "venv") if point.holds is False]
        for one in (good, late, greedy)
    ]
    assert [[], ["venv: start to ready"], ["venv: worker and shipper, resident"]] == missed
