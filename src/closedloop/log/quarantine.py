"""What could not be shipped, kept beside the log: the records themselves, each with the reason, not their segments.

A file of the quarantine has the frames of a segment, and each frame's payload is one :class:`Kept`. Before this form
whole segments were kept, as they were; those are ``.seg`` files, and are read as such.

``<number>-<spool>.kept`` names the segment and its spool: after a lost ``state`` the folder has a new spool, whose
numbers begin at 1 again. Earlier versions wrote ``<number>.kept``, which is read too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from closedloop.log.durable import sync_file, sync_folder
from closedloop.log.frame import SEALED, SegmentError, damage, header, pack, read_segment, seed_of, segment_name
from closedloop.log.state import make_folder

FOLDER, KEPT = "quarantine", ".kept"


class Kept(msgspec.Struct, frozen=True):
    """One record, or damaged bytes, that could not be shipped.

    ``index`` is the record's place in its segment; None for damaged bytes, which began at ``offset`` of its file.
    """

    why: str
    payload: bytes
    index: int | None = None
    offset: int | None = None

    @property
    def where(self) -> str:
        """The place in the segment."""
        return f"byte {self.offset}" if self.index is None else f"record {self.index}"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def keep(folder: Path, spool: str, number: int, found: Iterable[Kept]) -> Path:
    """Write what could not be shipped of a segment, durably; the file.

    Raises:
        OSError: the disk refuses. Nothing is there then, or what was there before.
    """
    place = folder / FOLDER
    make_folder(place)
    path = place / segment_name(number, f"-{spool}{KEPT}")
    fresh = path.with_suffix(".new")
    seed = seed_of(spool, number)
    with fresh.open("wb") as file:
        file.write(header(spool, number, time.time_ns() // 1000))
        for kept in found:
            file.write(pack(_encoder.encode(kept), seed))
        file.flush()
        sync_file(file.fileno())
    fresh.replace(path)
    sync_folder(place)
    return path


def keep_whole(folder: Path, path: Path) -> Path:
    """Move a file that is no segment of this spool out of the way of those after it; where it is now."""
    kept = folder / FOLDER / path.name
    make_folder(kept.parent)
    again = 1
    while kept.exists() and not kept.samefile(path):  # of another spool, or a copy; the same file: a power cut
        again += 1
        kept = kept.with_name(f"{path.stem}-{again}{path.suffix}")
    fresh = kept.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.hardlink_to(path)  # of a rename between folders a power cut may leave only that the old name is gone
    fresh.replace(kept)
    fresh.unlink(missing_ok=True)  # where both were links to one file already, it stays
    sync_folder(kept.parent)
    path.unlink()
    sync_folder(folder)
    return kept


def read(place: Path) -> Iterator[tuple[Path, list[Kept], list[str]]]:
    """Each file of a quarantine's folder with what it holds, and what of it is lost."""
    for path in sorted(place.glob("*" + KEPT)):
        try:
            segment = read_segment(path)
            kept = [_decoder.decode(payload) for payload in segment.records]
        except (SegmentError, msgspec.DecodeError) as error:
            yield path, [], [str(error)]
        else:
            yield path, kept, damage(segment) + [found.why for found in kept if found.index is None]


def size_bytes(folder: Path) -> int:
    """How many bytes the quarantine of a spool takes."""
    size = 0
    for suffix in (SEALED, KEPT):
        for path in (folder / FOLDER).glob("*" + suffix):
            with contextlib.suppress(FileNotFoundError):  # a person has just taken it away
                size += path.stat().st_size
    return size
