"""Ship the log: ``python -m score.log.ship [--parent PID]``, beside the worker whose LOG_DIR it is.

Moves each sealed segment to LOG_SINK until told to stop by SIGTERM, or until the parent is gone; then ships what is
sealed by then, and ends. Exit code 0: nothing is left; 1: something is, and goes at the next start; 2: a setting is
wrong.
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
from closedloop.log.state import SpoolError
from score.console import say, to_stderr
from score.settings import SettingsError, log_sink

_ROUND_SECONDS = 1.0
_LONGEST_SECONDS = 60.0  # between attempts while the sink refuses
_NAP_SECONDS = 0.2


def warn(event: str) -> None:
    """Say on stderr what a person should know."""
    say(event, logging.WARNING, part="ship")


def place(environ: Mapping[str, str]) -> tuple[Path, Sink | None]:
    """The spool's folder and the sink; None where segments are to be kept.

    Raises:
        SettingsError: LOG_DIR is missing, or LOG_SINK is no place.
    """
    folder = environ.get("LOG_DIR")
    if not folder:
        raise SettingsError("LOG_DIR is not set: name the folder on a local disk that keeps the request log")
    named = log_sink(environ)
    return Path(folder), None if named is None else Sink.at(named, environ)


class Patience:
    """Waits that end early when the shipper is told to stop, or its parent is gone."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._told = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._told.set()

    @property
    def over(self) -> bool:
        """Whether to stop."""
        return self._told.is_set() or (self._parent is not None and os.getppid() != self._parent)

    def wait(self, seconds: float) -> None:
        """Wait, at most so long."""
        until = time.monotonic() + seconds
        while not self.over and (left := until - time.monotonic()) > 0:
            self._told.wait(min(left, _NAP_SECONDS))


def ship(folder: Path, sink: Sink, patience: Patience) -> bool:
    """Ship until told to stop; whether nothing is left."""
    shipper = _begin(folder, sink, patience)
    if shipper is None:
        return False
    refused = 0
    try:
        while not patience.over:
            shipper.round()
            refused = refused + 1 if shipper.status.last_error else 0
            longest = min(_ROUND_SECONDS * 2**refused, _LONGEST_SECONDS)
            patience.wait(random.uniform(longest / 2, longest) if refused else _ROUND_SECONDS)  # noqa: S311
        return shipper.round()  # what was sealed meanwhile
    finally:
        shipper.close()


def _begin(folder: Path, sink: Sink, patience: Patience) -> Shipper | None:
    """The shipper, as soon as no other one ships the folder; None if told to stop before."""
    said = False
    while True:
        try:
            return Shipper(folder, sink, warn)
        except SpoolError as error:
            if not said:
                warn(f"waiting: {error}")
            said = True
        if patience.over:
            return None
        patience.wait(_ROUND_SECONDS)


def main() -> int:
    """Run until told to stop."""
    to_stderr()
    parser = argparse.ArgumentParser(prog="python -m score.log.ship", description="Ship the log; see score/README.md")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process, which started it, is gone")
    patience = Patience(parser.parse_args().parent)
    try:
        folder, sink = place(os.environ)
    except (SettingsError, SinkError) as error:
        print(f"score.log.ship: {error}", file=sys.stderr)
        return 2
    if sink is None:
        print("score.log.ship: LOG_SINK=none keeps the segments in LOG_DIR: there is nothing to ship", file=sys.stderr)
        return 2
    try:
        return 0 if ship(folder, sink, patience) else 1
    except OSError as error:
        print(f"score.log.ship: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
