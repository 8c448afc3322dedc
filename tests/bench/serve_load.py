"""A client of HTTP/1.1 on raw sockets and epoll that costs some 15 µs an answer, so that it measures the server.

``flat_out`` keeps every connection busy and counts answers. ``at_rate`` sends at random times, whether or not earlier
requests were answered; the latency of a request counts from when it was due, also if it had to wait for a connection.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

_SPIN_S = 0.002  # epoll waits in whole milliseconds, so the last ones before a request is due are spent asking
_CHUNK = 1 << 20


@dataclass
class Load:
    """The result of one load. ``seconds`` holds one latency for each answer with status 200."""

    wall_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    last: bytes = b""

    @property
    def per_second(self) -> float:
        """Answers with status 200 for each second."""
        return len(self.seconds) / self.wall_s if self.wall_s else 0.0

    def quantile_ms(self, part: float) -> float:
        """A quantile of the latencies in milliseconds; NaN without any."""
        return 1e3 * float(np.quantile(self.seconds, part)) if self.seconds else float("nan")


class _Connection:
    """One socket with at most one request in flight. It connects again if the server closes after an answer."""

    def __init__(self, port: int, poll: select.epoll) -> None:
        self._port, self._poll = port, poll
        self.socket: socket.socket | None = None
        self.since: float | None = None
        self._left = memoryview(b"")
        self._got = bytearray()
        self._size: int | None = None  # of head and body, once the head is here; -1 means chunked

    def open(self) -> int:
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._poll.register(self.socket, select.EPOLLIN)
        return self.socket.fileno()

    def close(self) -> None:
        if self.socket is not None:
            self._poll.unregister(self.socket)
            self.socket.close()
            self.socket = None
        self.since = None

    def send(self, sent: bytes, since: float) -> None:
        self.since = since
        self._got.clear()
        self._size = None
        self._left = memoryview(sent)
        self._push()
        if self._left and self.socket is not None:
            self._poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def push(self) -> None:
        """Go on sending, now that the kernel takes more."""
        self._push()
        if not self._left and self.socket is not None:
            self._poll.modify(self.socket, select.EPOLLIN)

    def _push(self) -> None:
        assert self.socket is not None
        try:
            while self._left:
                self._left = self._left[self.socket.send(self._left[:_CHUNK]) :]
        except BlockingIOError:
            return
        except ConnectionError:  # the next read reports it
            self._left = memoryview(b"")

    def pull(self) -> tuple[int, bytes, bool] | None:
        """Status, body and whether the server will close, once an answer is complete; status 0 if it closed before."""
        assert self.socket is not None
        try:
            part = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return None
        except ConnectionError:
            part = b""
        got = self._got
        got += part
        if self._size is None:
            end = got.find(b"\r\n\r\n")
            if end < 0:
                return None if part else (0, b"", True)
            self._read_head(end)
        body = self._body(closed=not part)
        if body is None:
            return None if part else (0, b"", True)
        return int(got[9:12]), body, self._closing

    def _read_head(self, end: int) -> None:
        head = bytes(self._got[:end]).lower()
        self._start = end + 4
        self._closing = b"\r\nconnection: close" in head
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._size = self._start + int(head[at + 17 :].split(b"\r\n", 1)[0])
        elif b"\r\ntransfer-encoding: chunked" in head:
            self._size = -1
        else:
            self._size = 1 << 62  # until it closes

    def _body(self, closed: bool) -> bytes | None:
        got, size = self._got, self._size
        assert size is not None
        if size >= 0:
            if len(got) >= size:
                return bytes(got[self._start : size])
            return bytes(got[self._start :]) if closed and size == 1 << 62 else None
        if not got.endswith(b"0\r\n\r\n"):
            return None
        parts, at = [], self._start
        while (line := got.find(b"\r\n", at)) >= 0 and (length := int(got[at:line].split(b";")[0], 16)):
            parts.append(bytes(got[line + 2 : line + 2 + length]))
            at = line + 4 + length
        return b"".join(parts) if line >= 0 else None


@contextmanager
def _connections(port: int, count: int) -> Iterator[tuple[select.epoll, dict[int, _Connection]]]:
    poll = select.epoll()
    opened = [_Connection(port, poll) for _ in range(count)]
    try:
        yield poll, {one.open(): one for one in opened}
    finally:
        for one in opened:
            one.close()
        poll.close()


def request(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """The bytes of one POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def flat_out(port: int, sent: bytes, connections: int, seconds: float, patience_s: float = 20.0) -> Load:
    """Send on every connection again as soon as it is answered, for some seconds; then wait for what is in flight.

    The time counts up to the last answer, so that the rate of a slow server is not rounded to whole answers. Requests
    without an answer after ``patience_s`` are given up and counted as ``unanswered``.
    """
    load = Load()
    with _connections(port, connections) as (poll, open_):
        start = now = done = time.perf_counter()
        for one in list(open_.values()):
            one.send(sent, time.perf_counter())
        under_way = connections
        while under_way and now - start < patience_s:
            for one in _answers(poll, open_, load, 0.05):
                done = time.perf_counter()
                if done - start < seconds:
                    one.send(sent, done)
                else:
                    under_way -= 1
            now = time.perf_counter()
        load.wall_s, load.unanswered = done - start, under_way
    return load


def at_rate(port: int, sent: bytes, connections: int, rate: float, seconds: float, seed: int = 1) -> Load:
    """Send ``rate`` requests a second at random times (Poisson), each on the first free connection.

    A request without an answer within as long again counts as ``unanswered``, with the time it has waited so far.
    """
    load = Load()
    draw = random.Random(seed)  # noqa: S311
    with _connections(port, connections) as (poll, open_):
        start = due = time.perf_counter()
        end = start + seconds
        due += draw.expovariate(rate)
        waiting: deque[float] = deque()
        free = deque(open_.values())
        while True:
            now = time.perf_counter()
            while due <= now and due < end:
                waiting.append(due)
                due += draw.expovariate(rate)
            while waiting and free:
                free.popleft().send(sent, waiting.popleft())
            if due >= end and not waiting and len(free) == connections:
                break
            if now > end + seconds:
                late = [*waiting, *(one.since for one in open_.values() if one.since is not None)]
                load.seconds += [now - since for since in late]
                load.unanswered = len(late)
                break
            ahead = (due if due < end else end + seconds) - now
            free.extend(_answers(poll, open_, load, 0.0 if ahead < _SPIN_S else min(ahead - _SPIN_S / 2, 0.05)))
        load.wall_s = time.perf_counter() - start
    return load


def _answers(poll: select.epoll, open_: dict[int, _Connection], load: Load, timeout: float) -> list[_Connection]:
    """The connections whose answer has come, which are free again."""
    freed = []
    for number, event in poll.poll(timeout):
        one = open_[number]
        if event & select.EPOLLOUT:
            one.push()
        if not event & ~select.EPOLLOUT:
            continue
        answer = one.pull()
        if answer is None:
            continue
        status, body, closing = answer
        asked, one.since = one.since, None
        if asked is not None:
            load.statuses[status] += 1
            if status == 200:
                load.seconds.append(time.perf_counter() - asked)
            load.last = body
            freed.append(one)
        if closing:
            one.close()
            del open_[number]
            open_[one.open()] = one
    return freed
