"""The parent of the shipper: it runs ``python -m score.log.ship`` as a child process and restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Any

import msgspec

from score.console import say

COMMAND = (sys.executable, "-m", "score.log.ship")
_STEADY_SECONDS = 60.0  # a shipper that ran this long is restarted after the shortest pause
_SHORTEST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


class Supervisor:
    """Keeps one shipper running; serving goes on whatever happens to it. ``starts`` counts the shippers started.

    The shipper is told this process's id: it ends with this process, even if that is killed.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self.starts = 0
        self._command = command
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether a shipper is running now."""
        return self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Start the shipper, and restart it whenever it ends."""
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    async def end(self, seconds: float) -> None:
        """Give the shipper at most this long to ship what is left. What remains is shipped after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process, until = self._process, time.monotonic() + max(seconds, 0.1)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            code = await asyncio.wait_for(process.wait(), until - time.monotonic())
            if code == -signal.SIGTERM:  # it died before its first line, and has shipped nothing
                process = await self._start("--once")
                code = await asyncio.wait_for(process.wait(), until - time.monotonic())
        except TimeoutError:
            process.kill()
            await process.wait()
            say("shipper killed at the deadline: the rest is shipped after the next start", logging.WARNING)
        else:
            say("shipper ended", code=code)

    async def _start(self, *words: str) -> Process:
        """Start a shipper in a session of its own: Ctrl-C reaches this process alone, which stops the shipper last."""
        return await asyncio.create_subprocess_exec(*self._command, *words, stdin=DEVNULL, start_new_session=True)

    async def _keep_running(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            start = time.monotonic()
            try:
                self._process = await self._start("--parent", str(os.getpid()))
                self.starts += 1
                say("shipper started", pid=self._process.pid)
                reason = f"exit code {await self._process.wait()}"
            except OSError as error:
                reason = str(error)
            steady = time.monotonic() - start > _STEADY_SECONDS
            pause = _SHORTEST_PAUSE_SECONDS if steady else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            say("shipper ended: restarting it", logging.WARNING, reason=reason, pause_seconds=pause)
            await asyncio.sleep(pause)


def shipper_report(log_dir: Path) -> dict[str, Any] | None:
    """The shipper's last report on itself, ``ship.json``; None until it has written one."""
    try:
        report = msgspec.json.decode((log_dir / "ship.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return report if isinstance(report, dict) else None
