"""What a spool's folder knows of itself: who holds it, its id, and the next segment's number."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from uuid import uuid4
from zlib import crc32

from closedloop.log.durable import sync_file, sync_folder
from closedloop.log.frame import OPEN, SEALED

_FORMAT = 1


class SpoolError(RuntimeError):
    """The record is not durable. The message says why."""


def make_folder(folder: Path) -> None:
    """Make the folder, durably, and those above it that are missing."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def lock(path: Path) -> int:
    """Hold a file until the descriptor that is returned is closed, or the process ends.

    Raises:
        SpoolError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolError(f"{path} is held by another process: give each worker a folder of its own") from None
    return descriptor


def read_state(folder: Path) -> tuple[str, int]:
    """The spool's id and the next segment's number; new ones only in a folder without segments.

    Raises:
        SpoolError: the state is lost, damaged, or of another format.
    """
    path = folder / "state"
    try:
        text, _, crc = path.read_text("ascii").rstrip("\n").rpartition(" ")
        if int(crc, 16) != crc32(text.encode()):
            raise ValueError
        state = json.loads(text)
    except FileNotFoundError:
        if any(folder.glob("*" + SEALED)) or any(folder.glob("*" + OPEN)):
            raise SpoolError(f"{path} is lost, but segments are there: move them away; they remain readable") from None
        return uuid4().hex, 1
    except ValueError:
        raise SpoolError(f"{path} is damaged: move the folder away; its segments remain readable") from None
    if state["format"] != _FORMAT:
        raise SpoolError(f"{path} has format {state['format']}, this is {_FORMAT}: use the version that wrote it")
    return state["spool"], state["next"]


def write_state(folder: Path, spool: str, number: int) -> None:
    """Replace the state, durably."""
    text = json.dumps({"format": _FORMAT, "spool": spool, "next": number})
    fresh = folder / "state.new"
    with fresh.open("w", encoding="ascii") as file:
        file.write(f"{text} {crc32(text.encode()):08x}\n")
        file.flush()
        sync_file(file.fileno())
    fresh.replace(folder / "state")
    sync_folder(folder)
