"""The bytes of a segment: a header, then frames that each prove their own length and content.

A segment is one file of a spool. Every checksum in it is seeded with the spool's random id and the segment's number, so
that no client can smuggle a frame inside a payload, and a frame of another file is none of this one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

FORMAT = b"CLSPOOL1"
SEALED, OPEN = ".seg", ".open"
_HEADER = struct.Struct("<8s16sQqI")  # format, spool id, segment number, created (µs), CRC of all before
_FRAME = struct.Struct("<4sIII")  # mark, payload length, CRC of both, CRC of the payload
_MARK = b"\xf3\xc1\x0d\x9e"  # no UTF-8 text holds it, so that JSON payloads do not slow a search
HEADER_BYTES = _HEADER.size
_SEARCH_BYTES = 1 << 20  # read at once to find the next mark


class SegmentError(ValueError):
    """A file is no segment, or not one of this spool."""


@dataclass(frozen=True)
class Segment:
    """What a segment's file holds: whole records, and what was lost.

    ``corrupt`` gives (offset, bytes) of every damaged stretch that has a good frame after it; ``torn`` counts the bytes
    after the last good frame, which ends at ``end``. ``header_damaged`` says that id and number came from elsewhere.
    """

    spool: str
    number: int
    records: list[bytes]
    corrupt: list[tuple[int, int]]
    torn: int
    end: int
    header_damaged: bool


def segment_name(number: int, suffix: str) -> str:
    """The file's name; names sort as their numbers do."""
    return f"{number:020d}{suffix}"


def header(spool: str, number: int, created_us: int) -> bytes:
    """The first bytes of a segment."""
    head = _HEADER.pack(FORMAT, bytes.fromhex(spool), number, created_us, 0)[:-4]
    return head + struct.pack("<I", crc32(head))


def seed_of(spool: str, number: int) -> int:
    """What the checksums of a segment start from."""
    return crc32(bytes.fromhex(spool) + number.to_bytes(8, "little"))


def pack(payload: bytes, seed: int) -> bytes:
    """One frame."""
    lead = struct.pack("<4sI", _MARK, len(payload))
    return lead + struct.pack("<II", crc32(lead, seed), crc32(payload, seed)) + payload


class SegmentReader:
    """A segment's file, read record by record, so that memory is that of the longest record.

    ``corrupt``, ``torn`` and ``end`` are as in :class:`Segment`, and known when all records were read.

    Raises:
        SegmentError: no segment of this format, or of another spool.
    """

    def __init__(self, path: Path, file: BinaryIO, spool: str | None = None) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        found, number, whole = _read_header(self._at(0, HEADER_BYTES))
        if whole and spool not in (None, found):
            raise SegmentError(f"{path}: belongs to spool {found}, not {spool}: move it to its own folder")
        if not whole:
            if spool is None or not path.stem.isdigit():
                raise SegmentError(f"{path}: is no segment of format {FORMAT.decode()}, or its header is damaged")
            found, number = spool, int(path.stem)
        self.spool, self.number, self.header_damaged = found, number, not whole
        self.corrupt: list[tuple[int, int]] = []
        self.end = min(HEADER_BYTES, self._size)

    @property
    def torn(self) -> int:
        """How many bytes follow the last good frame."""
        return self._size - self.end

    def records(self) -> Iterator[bytes]:
        """The payloads of all good frames."""
        seed, at = seed_of(self.spool, self.number), self.end
        while (start := self._next_frame(at, seed)) >= 0:
            _, length, _, crc = _FRAME.unpack(self._at(start, _FRAME.size))
            at = start + _FRAME.size + length
            if at > self._size:
                return
            payload = self._at(start + _FRAME.size, length)
            if crc32(payload, seed) != crc:
                continue  # its length is sound: only this record is lost
            if start > self.end:
                self.corrupt.append((self.end, start - self.end))
            self.end = at
            whole = [payload]
            del payload  # a generator keeps its variables: a long record would stay in memory
            yield whole.pop()

    def stretch(self, offset: int, size: int) -> bytes:
        """Some bytes of the file."""
        return self._at(offset, size)

    def _next_frame(self, at: int, seed: int) -> int:
        """Where the next frame with a sound head begins, or -1."""
        while at + _FRAME.size <= self._size:
            data = self._at(at, _FRAME.size)
            if data.startswith(_MARK) and _FRAME.unpack(data)[2] == crc32(data[:8], seed):
                return at
            at = self._next_mark(at + 1)
        return -1

    def _next_mark(self, at: int) -> int:
        """Where the next mark begins, or the file's end."""
        while at < self._size:
            data = self._at(at, _SEARCH_BYTES)
            if (found := data.find(_MARK)) >= 0:
                return at + found
            at += max(len(data) - len(_MARK) + 1, 1)
        return self._size

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


def read_segment(path: Path, spool: str | None = None) -> Segment:
    """Read one segment's file as a whole.

    ``spool`` stands in for a damaged header, with the number in the file's name; without it the header must be whole.

    Raises:
        SegmentError: no segment of this format, or of another spool.
    """
    with path.open("rb") as file:
        reader = SegmentReader(path, file, spool)
        records = list(reader.records())
    return Segment(reader.spool, reader.number, records, reader.corrupt, reader.torn, reader.end, reader.header_damaged)


def damage(segment: Segment | SegmentReader) -> list[str]:
    """Each stretch of a segment that is lost, in one line."""
    lost = [f"{size} bytes at {offset} are damaged; the records there are lost" for offset, size in segment.corrupt]
    return lost + ([f"{segment.torn} bytes at {segment.end} are no whole record"] if segment.torn else [])


def _read_header(data: bytes) -> tuple[str, int, bool]:
    """Spool id, number, and whether they can be trusted."""
    if len(data) < HEADER_BYTES:
        return "", 0, False
    mark, spool, number, _, crc = _HEADER.unpack_from(data)
    return spool.hex(), number, mark == FORMAT and crc == crc32(data[: HEADER_BYTES - 4])
