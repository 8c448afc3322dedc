"""Compact and clean up LOG_SINK once: ``python -m score.log.upkeep [--parent PID] [--pressed]``.

The shipper starts it. It works at idle priority, and ends at once with its parent or by any signal: what it
has begun, the next one completes.
Exit code 0: done, or nothing to do; 1: the sink refused; 2: a wrong setting.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from threading import Thread

from closedloop.log import upkeep
from closedloop.log.ship import Status
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from score.console import say, to_stderr
from score.settings import SettingsError, log_sink

COMMAND = (sys.executable, "-m", "score.log.upkeep")
FIRST_SECONDS = 60.0  # after the shipper's start
EVERY_SECONDS = 600.0
PRESSED_SECONDS = 60.0
_PRESSED_SHARE = 0.8  # of the limit: compaction comes before requests are refused
_NAP_SECONDS = 0.2


class Upkeep:
    """The shipper's side: starts the process when it is due, one at a time, in the shipper's process group.

    Args:
        limit_bytes: what the log may take of its disk; 0 for no limit.
        command: what to start.
    """

    def __init__(self, limit_bytes: int, command: tuple[str, ...] = COMMAND) -> None:
        self._limit_bytes, self._command = limit_bytes, command
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.monotonic() - EVERY_SECONDS + FIRST_SECONDS

    def look(self, status: Status) -> None:
        """Start it if it is due."""
        if self._process is not None and self._process.poll() is None:
            return
        pressed = 0 < _PRESSED_SHARE * self._limit_bytes < status.disk_bytes
        if time.monotonic() - self._started < (PRESSED_SECONDS if pressed else EVERY_SECONDS):
            return
        self._started = time.monotonic()
        words = ["--parent", str(os.getpid()), *(["--pressed"] if pressed else [])]
        try:
            self._process = subprocess.Popen([*self._command, *words], stdin=subprocess.DEVNULL)
        except OSError as error:
            say(f"upkeep of the log was not started, it is tried again: {one_line(error)}", part="upkeep")

    def stop(self) -> None:
        """End it now: it can be killed anywhere."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_NAP_SECONDS)
    os._exit(1)


def main() -> int:
    """Tend the sink once."""
    upkeep.be_idle()
    to_stderr()
    parser = argparse.ArgumentParser(prog="python -m score.log.upkeep", description="Compact LOG_SINK, if it is due")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process, the parent, is gone")
    parser.add_argument("--pressed", action="store_true", help="compact whatever can be, and clean up sooner")
    args = parser.parse_args()
    if args.parent is not None:
        Thread(target=_end_with, args=(args.parent,), daemon=True).start()
    try:
        named = log_sink(os.environ)
        if named is not None:
            upkeep.tend(
                Sink.at(named, os.environ),
                lambda event: say(event, part="upkeep"),
                pressed=args.pressed,
                unpinned=os.environ.get("LOG_COMPACT") == "on",
            )
    except SettingsError as error:
        print(f"score.log.upkeep: {error}", file=sys.stderr)
        return 2
    except (SinkError, *FAULTS) as error:
        say(f"no upkeep of the log now, it is tried again: {one_line(error)}", part="upkeep")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
