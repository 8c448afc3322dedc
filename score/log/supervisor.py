"""The child process that ships the log (``python -m score.log.ship``): started, started again, and told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Any

import msgspec

from score.console import say

COMMAND = (sys.executable, "-m", "score.log.ship")
_STEADY_SECONDS = 60.0  # who ran so long is started again after the shortest pause
_LONGEST_PAUSE_SECONDS = 60.0


class Supervisor:
    """Keeps one child going. ``starts`` counts them; the service goes on whatever becomes of the child.

    The child is told whose it is: it ends with this process, even if that is killed.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self.starts = 0
        self._command = command
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a child now."""
        return self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Start the child, and go on doing so."""
        self._task = asyncio.get_running_loop().create_task(self._keep_going())

    async def end(self, seconds: float) -> None:
        """Let the child ship what is left, for so long at most. What remains is shipped after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            code = await asyncio.wait_for(process.wait(), max(seconds, 0.1))
        except TimeoutError:
            process.kill()
            await process.wait()
            say("shipper cut short: the rest is shipped after the next start", logging.WARNING)
        else:
            say("shipper ended", code=code)

    async def _keep_going(self) -> None:
        pause = 0.5
        while True:
            began = time.monotonic()
            try:
                # a session of its own: Ctrl-C is for this process, which tells the child when its turn has come
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, "--parent", str(os.getpid()), stdin=DEVNULL, start_new_session=True
                )
                self.starts += 1
                say("shipper started", pid=self._process.pid)
                reason = f"exit code {await self._process.wait()}"
            except OSError as error:
                reason = str(error)
            pause = 0.5 if time.monotonic() - began > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            say("shipper ended: starting it again", logging.WARNING, reason=reason, pause_seconds=pause)
            await asyncio.sleep(pause)


def figures(log_dir: Path) -> dict[str, Any] | None:
    """What the shipper last wrote of itself in ``ship.json``; None while it has written nothing."""
    try:
        found = msgspec.json.decode((log_dir / "ship.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None
