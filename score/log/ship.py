"""The shipper: ``python -m score.log.ship [--parent PID | --once]``, beside the worker that writes LOG_DIR.

Moves each sealed segment to LOG_SINK until SIGTERM, or until the parent is gone; then it ships what is sealed by then,
and ends. ``--once`` is for the log of a worker that is gone: seal what it left open, and end once all is shipped.
Exit code 0: all sealed segments are shipped; 1: some are left for the next start; 2: a setting is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from types import FrameType

from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink, SinkError, one_line
from closedloop.log.spool import Spool
from closedloop.log.state import SpoolError
from score.console import say, to_stderr
from score.log.upkeep import Upkeep
from score.settings import SettingsError, log_compact, log_max_bytes, log_sink

_ROUND_SECONDS = 1.0
_LONGEST_SECONDS = 60.0  # between attempts while the sink fails
_NAP_SECONDS = 0.2


def warn(event: str) -> None:
    """Log a warning of the shipper."""
    say(event, logging.WARNING, part="ship")


def source_and_sink(environ: Mapping[str, str]) -> tuple[Path, Sink | None]:
    """The spool's folder and the sink; None for ``LOG_SINK=none``.

    Raises:
        SettingsError: LOG_DIR is missing, or LOG_SINK is invalid.
        SinkError: the environment lacks what the sink needs.
    """
    folder = environ.get("LOG_DIR")
    if not folder:
        raise SettingsError("LOG_DIR is not set: set it to the folder of the request log")
    named = log_sink(environ)
    return Path(folder), None if named is None else Sink.at(named, environ)


class StopSignal:
    """Whether to stop: after SIGTERM or SIGINT, or once the parent is gone. Waits end early then."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._received = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.set()

    def __bool__(self) -> bool:
        return self._received.is_set() or (self._parent is not None and os.getppid() != self._parent)

    def wait(self, seconds: float) -> None:
        """Wait for at most so many seconds."""
        until = time.monotonic() + seconds
        while not self and (left := until - time.monotonic()) > 0:
            self._received.wait(min(left, _NAP_SECONDS))


def seal(folder: Path) -> None:
    """Seal what a worker that is gone left open.

    Raises:
        SpoolError: a worker is still there, or the folder's state is lost or damaged.
        FileNotFoundError: the folder holds no log.
    """
    if not (folder / "state").exists():
        raise FileNotFoundError(f"{folder}: no log here; name the LOG_DIR of the worker that is gone")
    Spool(folder).close()


def ship(folder: Path, sink: Sink, stop: StopSignal, upkeep: Upkeep | None, once: bool = False) -> bool:
    """Ship until the stop signal, with ``once`` until nothing is left; return whether all sealed segments are shipped.

    Upkeep starts when it is due.
    """
    shipper = _wait_for_lock(folder, sink, stop)
    if shipper is None:
        return False
    failed = 0
    try:
        while not stop:
            if shipper.round() and once:
                return True
            if upkeep is not None:
                upkeep.look(shipper.status)
            failed = failed + 1 if shipper.status.last_error else 0
            longest = min(_ROUND_SECONDS * 2**failed, _LONGEST_SECONDS)
            stop.wait(random.uniform(longest / 2, longest) if failed else _ROUND_SECONDS)  # noqa: S311
        return shipper.round()  # what was sealed in the meantime
    finally:
        if upkeep is not None:
            upkeep.stop()
        shipper.close()


def _wait_for_lock(folder: Path, sink: Sink, stop: StopSignal) -> Shipper | None:
    """The shipper, as soon as no other one holds the folder; None if the stop signal comes first."""
    warned = False
    while True:
        try:
            return Shipper(folder, sink, warn)
        except SpoolError as error:
            if not warned:
                warn(f"waiting: {error}")
            warned = True
        if stop:
            return None
        stop.wait(_ROUND_SECONDS)


def main() -> int:
    """Run the shipper until the stop signal."""
    to_stderr()
    parser = argparse.ArgumentParser(prog="python -m score.log.ship", description="Ship the log; see score/README.md")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--parent", type=int, metavar="PID", help="stop when this process, the parent, is gone")
    until.add_argument("--once", action="store_true", help="ship the log of a worker that is gone, and stop")
    args = parser.parse_args()
    stop = StopSignal(args.parent)
    try:
        folder, sink = source_and_sink(os.environ)
        upkeep = Upkeep(log_max_bytes(os.environ)) if log_compact(os.environ) and not args.once else None
    except (SettingsError, SinkError) as error:
        print(f"score.log.ship: {error}", file=sys.stderr)
        return 2
    if sink is None:
        print(
            "score.log.ship: LOG_SINK=none keeps the segments in LOG_DIR: set a sink to ship them",
            file=sys.stderr,
        )
        return 2
    try:
        if args.once:
            seal(folder)
        return 0 if ship(folder, sink, stop, upkeep, args.once) else 1
    except (OSError, SpoolError) as error:
        print(f"score.log.ship: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
