"""uvicorn's HTTP/1.1 protocol with limits on time and size, which uvicorn itself does not have."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from score.limits import Load
from score.problems import MEDIA_TYPE, Problem

_TIMEOUT_SECONDS = 7.0  # for a request to arrive, for an answer to be taken, for a closed connection to go away
_SLOWEST_BYTES_PER_SECOND = 64 << 10  # a long body or answer gets more time, as long as it moves at this rate
_HEAD_BYTES = 64 << 10
_IGNORED_BYTES = 1 << 20  # of a body that was answered before it was read


class Protocol(HttpToolsProtocol):
    """One connection. The server calls :meth:`check_time` every second."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._load: Load = self.app_state["service"].load
        self._request_since: float | None = None  # when the request that is still arriving began
        self._in_head = True
        self._arrived = 0  # bytes of this request
        self._ignored = 0  # bytes of its body that nobody reads
        self._blocked_since: float | None = None  # since when an answer waits to be taken
        self._untaken = 0  # bytes of it that waited when last looked at
        self._taken = 0  # bytes of it that the client has taken since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        self._request_since = self.loop.time()
        load = self._load
        load.connections = len(self.connections)
        if len(self.connections) - len(load.reserved) > load.max_connections:
            load.reserved[self] = None
            if len(load.reserved) > load.max_reserved:
                self._free_a_reserved_place()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connections that remain."""
        super().connection_lost(exc)
        self._load.connections = len(self.connections)
        self._load.reserved.pop(self, None)
        self._no_longer_blocked()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and close the connection when it is too much."""
        self._arrived += len(data)
        super().data_received(data)
        if self._request_since is None or self.transport.is_closing():
            return
        if self._in_head and self._arrived > _HEAD_BYTES:
            self._load.closed["long"] += 1
            self._close_with(431, f"the headers are longer than {_HEAD_BYTES} bytes: send shorter ones")
        elif self._ignored > _IGNORED_BYTES or self._arrived > 2 * self._load.max_body_bytes + _IGNORED_BYTES:
            self._load.closed["long"] += 1  # the second condition: chunks of one byte, or an endless trailer
            self.transport.close()

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        if self in self._load.reserved:
            self.scope["state"]["probes_only"] = True
        self._request_since, self._in_head, self._ignored = self.loop.time(), True, 0

    def on_headers_complete(self) -> None:
        """Begin to answer. In a reserved place, or while the service is stopping, the connection closes after it."""
        super().on_headers_complete()
        self._in_head = False
        if self._load.stopping or self in self._load.reserved:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body, or count it if its request was answered already."""
        super().on_body(body)
        if self.cycle.response_complete:
            self._ignored += len(body)

    def on_message_complete(self) -> None:
        """Stop the clock of a request: all of it has arrived."""
        super().on_message_complete()
        self._request_since, self._arrived = None, 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP/1.1."""
        self._load.closed["malformed"] += 1
        self._close_with(400, "not an HTTP/1.1 request: send one")

    def pause_writing(self) -> None:
        """Note that an answer waits to be taken."""
        super().pause_writing()
        self._blocked_since, self._taken = self.loop.time(), 0
        self._look_at_answer()

    def resume_writing(self) -> None:
        """Note that the client has taken nearly all of an answer."""
        super().resume_writing()
        self._no_longer_blocked()

    def close_after_answer(self) -> None:
        """Close the connection after the answer in progress, because the service is stopping."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def check_time(self, now: float) -> None:
        """Close the connection if its client is too slow to send a request, or to take an answer."""
        if self.transport.is_closing():
            if self._blocked_since is None:
                self._blocked_since, self._taken = now, 0  # the last bytes have yet to be taken
        elif self._request_since is not None and not self.flow.read_paused:
            allowed = _TIMEOUT_SECONDS + self._arrived / _SLOWEST_BYTES_PER_SECOND
            if now - self._request_since > allowed:
                self._load.closed["slow"] += 1
                self._close_with(408, "the request took too long to arrive: send it without pauses")
                return
        if self._blocked_since is not None:
            self._look_at_answer()
            if now - self._blocked_since > _TIMEOUT_SECONDS + self._taken / _SLOWEST_BYTES_PER_SECOND:
                self._load.closed["deaf"] += 1
                self.transport.abort()

    def _look_at_answer(self) -> None:
        """Count what the client has taken of an answer since the last look."""
        untaken = self.transport.get_write_buffer_size()
        self._taken += max(self._untaken - untaken, 0)
        self._load.untaken_bytes += untaken - self._untaken
        self._untaken = untaken

    def _no_longer_blocked(self) -> None:
        self._load.untaken_bytes -= self._untaken
        self._blocked_since, self._untaken = None, 0

    def _free_a_reserved_place(self) -> None:
        """Close the connection that has held a reserved place longest, if possible one that asks nothing."""
        reserved = self._load.reserved
        idle = (held for held in reserved if held.cycle is None or held.cycle.response_complete)
        oldest: Protocol = next(idle, None) or next(iter(reserved))
        del reserved[oldest]
        self._load.closed["many"] += 1
        oldest._close_with(503, "too many connections: try again later", "Retry-After: 1")

    def _unsupported_upgrade_warning(self) -> None:
        """Count a request to speak another protocol, such as WebSocket; it is answered as an ordinary one."""
        self._load.upgrades += 1

    def _close_with(self, status: int, detail: str, *headers: str) -> None:
        """Close the connection; send the reason first, unless another answer has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = msgspec.json.encode(Problem(status, detail).body(None))
            lines = [
                f"Content-Type: {MEDIA_TYPE}",
                f"Content-Length: {len(body)}",
                "Connection: close",
                "X-Content-Type-Options: nosniff",
                *headers,
                "",
                "",
            ]
            self.transport.write(STATUS_LINE[status] + "\r\n".join(lines).encode() + body)
        self.transport.close()
