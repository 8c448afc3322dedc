"""uvicorn's HTTP/1.1 protocol with an end to its patience: of its own it limits neither a request's time nor length."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from score.limits import Load
from score.problems import MEDIA_TYPE, Problem

_PATIENCE_SECONDS = 7.0  # for a request to arrive, an answer to be taken, a closed connection to go away
_SLOWEST_BYTES_PER_SECOND = 64 << 10  # a long body may take longer, if it keeps up with this
_HEAD_BYTES = 64 << 10
_IGNORED_BYTES = 1 << 20  # of a body that was answered before it was read


class Protocol(HttpToolsProtocol):
    """One connection. :meth:`sweep` is called every second or so, and closes it when it has taken too long."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._load: Load = self.app_state["service"].load
        self._began: float | None = None  # when the request that still arrives began
        self._in_head = True
        self._arrived = 0  # bytes of this request, and those of it that nobody reads
        self._ignored = 0
        self._deaf_since: float | None = None  # since when the client takes nothing of what is sent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; or refuse, where there are too many."""
        super().connection_made(transport)
        self._began = self.loop.time()
        self._load.connections = len(self.connections)
        if len(self.connections) > self._load.max_connections:
            self._load.closed["many"] += 1
            self._end(503, "too many connections: ask again later", "Retry-After: 1")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._load.connections = len(self.connections)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, if it is not too much."""
        self._arrived += len(data)
        super().data_received(data)
        if self._began is None or self.transport.is_closing():
            return
        if self._in_head and self._arrived > _HEAD_BYTES:
            self._load.closed["long"] += 1
            self._end(431, f"the head is longer than {_HEAD_BYTES} bytes: send shorter headers")
        elif self._ignored > _IGNORED_BYTES or self._arrived > 2 * self._load.max_body_bytes + _IGNORED_BYTES:
            self._load.closed["long"] += 1  # the second: chunks of a byte, or a trailer without end
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._began, self._in_head, self._ignored = self.loop.time(), True, 0

    def on_headers_complete(self) -> None:
        """Its head is there. Who asks while the service is about to stop is told to ask elsewhere next time."""
        super().on_headers_complete()
        self._in_head = False
        if self._load.stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        super().on_body(body)
        if self.cycle.response_complete:
            self._ignored += len(body)

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        super().on_message_complete()
        self._began, self._arrived = None, 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._load.closed["malformed"] += 1
        self._end(400, "this is no HTTP/1.1 request")

    def pause_writing(self) -> None:
        """The client has not taken what was sent."""
        super().pause_writing()
        self._deaf_since = self.loop.time()

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self._deaf_since = None

    def hurry(self) -> None:
        """Close the connection after the answer that is on its way, since the service is about to stop."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Close the connection if its client is too slow to send, or to take what is sent."""
        if self.transport.is_closing():
            if self._deaf_since is None:
                self._deaf_since = now  # what was sent last has yet to be taken
        elif self._began is not None and not self.flow.read_paused:
            allowed = _PATIENCE_SECONDS + self._arrived / _SLOWEST_BYTES_PER_SECOND
            if now - self._began > allowed:
                self._load.closed["slow"] += 1
                self._end(408, "the request took too long to arrive")
                return
        if self._deaf_since is not None and now - self._deaf_since > _PATIENCE_SECONDS:
            self._load.closed["deaf"] += 1
            self.transport.abort()

    def _end(self, status: int, detail: str, *headers: str) -> None:
        """Close, and say why if no other answer has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = msgspec.json.encode(Problem(status, detail).body(None))
            lines = [
                f"Content-Type: {MEDIA_TYPE}",
                f"Content-Length: {len(body)}",
                "Connection: close",
                *headers,
                "",
                "",
            ]
            self.transport.write(STATUS_LINE[status] + "\r\n".join(lines).encode() + body)
        self.transport.close()
