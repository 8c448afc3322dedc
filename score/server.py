"""The server process: one worker under uvicorn, parent of the shipper; how both start and stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from socket import SO_SNDBUF, SOL_SOCKET, socket
from types import FrameType

import uvicorn

from score.app import create_app
from score.console import say, to_stderr
from score.limits import Load, raise_descriptors
from score.log.supervisor import Supervisor
from score.protocol import Protocol
from score.settings import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SWITCH_SECONDS = 0.0005  # the thread of a large body yields to the event loop this often
_SEND_BUFFER_BYTES = 128 << 10  # Linux doubles it: four seconds at the slowest rate allowed
_SHARE_OF_REQUESTS = 0.6  # of the time after the drain; the shipper gets the rest


class Server(uvicorn.Server):
    """uvicorn that drains before it stops.

    After the first signal ``/readyz`` says 503 and requests are served for ``drain_seconds``. Then no more connections
    are accepted, the requests in flight are answered, the log is sealed, and the shipper ships it. A second signal
    ends the drain at once. Before the service is ready nothing can be lost, so one signal ends the process.
    """

    def __init__(self, settings: Settings, host: str = "127.0.0.1", supervisor: Supervisor | None = None) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._drained_at: float | None = None  # when the drain ends; None while serving
        self._deadline = 0.0  # when the process should have ended
        self._announced = self._serving = False
        rest = settings.stop_seconds - settings.drain_seconds
        config = uvicorn.Config(
            create_app(settings, supervisor),
            host=host,
            port=settings.port,
            loop="auto",
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            proxy_headers=False,  # nothing depends on the client's address
            log_config=None,
            server_header=False,
        )
        config.timeout_graceful_shutdown = _SHARE_OF_REQUESTS * rest  # type: ignore[assignment] # fractions work too
        super().__init__(config)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to serve, then to ship."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what lives as long as the process: walking through it again would hold up every thread
        self._limit_send_buffers()
        service = self.lifespan.state["service"]
        self.load: Load = service.load
        if self._supervisor is not None:
            self._supervisor.begin()
        self._serving = True
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        say(f"ready: running on http://{host}:{port}", **service.status.served)

    def _limit_send_buffers(self) -> None:
        """Keep the kernel from taking megabytes of an answer: it hides how fast the client takes it."""
        for listener in (listener for server in self.servers for listener in server.sockets):
            with socket(fileno=os.dup(listener.fileno())) as again:
                again.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted connections inherit it

    async def on_tick(self, counter: int) -> bool:
        """Check the connections and the drain; called ten times a second. True ends serving."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.check_time(now)  # type: ignore[union-attr]
        if self._drained_at is not None:
            if not self._announced:
                self._announced = True
                say("stopping: not ready any more", drain_seconds=self._settings.drain_seconds)
                for connection in list(self.server_state.connections):
                    connection.close_after_answer()  # type: ignore[union-attr]
            if time.monotonic() >= self._drained_at:
                return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Answer the requests in flight, close the log, end the shipper."""
        deadline = self._deadline or time.monotonic() + self._settings.stop_seconds
        say("no more connections", requests=self.load.requests)
        await super().shutdown(sockets)
        if self._supervisor is not None:
            await self._supervisor.end(deadline - time.monotonic())
        say("stopped")

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals while serving, and ignore them afterwards; uvicorn would raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in _SIGNALS:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: start the drain, or end it."""
        if not self._serving:
            leave()
        now = time.monotonic()
        if self._drained_at is None:
            self.load.stopping = True
            self._drained_at, self._deadline = now + self._settings.drain_seconds, now + self._settings.stop_seconds
        else:
            self._drained_at = now


def leave(*_: object) -> None:
    """End the process at once: nothing was answered yet, and the log survives a kill."""
    os.write(2, b'{"level": "info", "event": "stopped before it was ready"}\n')
    os._exit(0)


def serve(settings: Settings, host: str) -> int:
    """Serve until a signal; return 0. Exits with 3 if the bundle, the log or the port was refused."""
    to_stderr()
    sys.setswitchinterval(_SWITCH_SECONDS)
    raise_descriptors(settings)
    auth = "platform" if settings.behind_platform else "open" if settings.tokens_file is None else "tokens"
    say("starting", pid=os.getpid(), auth=auth, durability=settings.log_durability, sample=settings.log_sample)
    supervisor = None if settings.log_sink is None else Supervisor()
    Server(settings, host, supervisor).run()
    return 0
