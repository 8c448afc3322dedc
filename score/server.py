"""The process: one worker under uvicorn, parent of the shipper, and how both come to their end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from socket import socket
from types import FrameType

import uvicorn

from score.app import create_app
from score.console import say, to_stderr
from score.limits import Load, raise_descriptors
from score.log.supervisor import Supervisor
from score.protocol import Protocol
from score.settings import Settings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SWITCH_SECONDS = 0.0005  # a large body's thread gives way this often; the loop asks for its turn at every event
_SHARE_OF_REQUESTS = 0.6  # of the time after the drain; the rest is the shipper's


class Server(uvicorn.Server):
    """Stops so: not ready, serve on for ``drain_seconds``, no more connections, what has begun, log, shipper.

    A second signal ends the drain at once. Before the service is ready nothing can be lost, and one signal ends it.
    """

    def __init__(self, settings: Settings, host: str = "127.0.0.1", shipper: Supervisor | None = None) -> None:
        self._settings = settings
        self._shipper = shipper
        self._stop_at: float | None = None  # when the drain is over
        self._end_at = 0.0  # when the process should have ended
        self._told = self._serving = False
        rest = settings.stop_seconds - settings.drain_seconds
        config = uvicorn.Config(
            create_app(settings, shipper),
            host=host,
            port=settings.port,
            loop="auto",
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            proxy_headers=False,  # nothing asks who the client is
            log_config=None,
            server_header=False,
        )
        config.timeout_graceful_shutdown = _SHARE_OF_REQUESTS * rest  # type: ignore[assignment] # a part of a second will do
        super().__init__(config)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to serve, then to ship."""
        await super().startup(sockets)
        service = self.lifespan.state["service"]
        self.load: Load = service.load
        if self._shipper is not None:
            self._shipper.begin()
        self._serving = True
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        say(f"ready: running on http://{host}:{port}", **service.served)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: see to the connections, and whether it is time to stop."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.sweep(now)  # type: ignore[union-attr]
        if self._stop_at is not None:
            if not self._told:
                self._told = True
                say("stopping: not ready any more", drain_seconds=self._settings.drain_seconds)
                for connection in list(self.server_state.connections):
                    connection.hurry()  # type: ignore[union-attr]
            if time.monotonic() >= self._stop_at:
                return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Answer what has begun, close the log, let the shipper end."""
        end_at = self._end_at or time.monotonic() + self._settings.stop_seconds
        say("no more connections", requests=self.load.requests)
        await super().shutdown(sockets)
        if self._shipper is not None:
            await self._shipper.end(end_at - time.monotonic())
        say("stopped")

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Hear the signals; once all is over none matters any more, where uvicorn would raise them again."""
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
        """Begin to stop, by a signal."""
        if not self._serving:
            leave()
        now = time.monotonic()
        if self._stop_at is None:
            self.load.stopping = True
            self._stop_at, self._end_at = now + self._settings.drain_seconds, now + self._settings.stop_seconds
        else:
            self._stop_at = now


def leave(*_: object) -> None:
    """End at once: nothing was answered yet, and the log's recovery survives a kill."""
    os.write(2, b'{"level": "info", "event": "stopped before it was ready"}\n')
    os._exit(0)


def serve(settings: Settings, host: str) -> int:
    """Serve until told to stop; returns 0. Exits with 3 where bundle, log or port were refused."""
    to_stderr()
    sys.setswitchinterval(_SWITCH_SECONDS)
    raise_descriptors(settings)
    auth = "open" if settings.tokens_file is None else "tokens"
    say("starting", pid=os.getpid(), auth=auth, durability=settings.log_durability, sample=settings.log_sample)
    shipper = None if settings.log_sink is None else Supervisor()
    Server(settings, host, shipper).run()
    return 0
