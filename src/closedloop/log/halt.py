"""The ``halt`` file of a sink: while it is there nobody writes, and only ``log-repair`` removes it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from deltalake._internal import DeltaFileSystemHandler

from closedloop.log.durable import sync_file, sync_folder
from closedloop.log.sink import Sink, SinkError

HALT = "halt"
_LONGEST_BYTES = 1 << 20


def halted(sink: Sink) -> str | None:
    """Why a sink is halted, in one line; None if it is not.

    Raises:
        OSError: the sink does not answer.
    """
    try:
        if sink.folder is not None:
            text = (sink.folder / HALT).read_text(encoding="utf-8")
        else:
            file = DeltaFileSystemHandler(sink.place, sink.options or None).open_input_file(HALT)
            text = bytes(file.read(_LONGEST_BYTES)).decode()
    except FileNotFoundError:
        return None
    try:
        why = "; ".join(json.loads(text)["why"])
    except (ValueError, KeyError, TypeError):
        why = "its halt file cannot be read"
    return f"{sink.place} is halted: {why}. Run log-repair, which says what can be done"


def refuse(sink: Sink) -> None:
    """Stop upkeep where a sink is halted.

    Raises:
        SinkError: it is.
        OSError: the sink does not answer.
    """
    if why := halted(sink):
        raise SinkError(why)


def halt(folder: Path, why: list[str]) -> None:
    """Halt the sink in a local folder, durably; what another one has written there stays."""
    fresh = folder / f"{HALT}.{os.getpid()}"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump({"why": why, "halted_us": time.time_ns() // 1000}, file)
        file.flush()
        sync_file(file.fileno())
    try:
        os.link(fresh, folder / HALT)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    sync_folder(folder)


def lift(sink: Sink) -> None:
    """Let shippers write to a sink again.

    Raises:
        OSError: the sink does not answer.
    """
    if sink.folder is None:
        DeltaFileSystemHandler(sink.place, sink.options or None).delete_file(HALT)
    else:
        (sink.folder / HALT).unlink(missing_ok=True)
        sync_folder(sink.folder)
