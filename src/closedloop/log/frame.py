"""The bytes of a segment: a header, then frames that each prove their own length and content.

A segment is one file of a spool. Every checksum in it is seeded with the spool's random id and the segment's number, so
that no client can smuggle a frame inside a payload, and a frame of another file is none of this one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

FORMAT = b"CLSPOOL1"
SEALED, OPEN = ".seg", ".open"
_HEADER = struct.Struct("<8s16sQqI")  # format, spool id, segment number, created (µs), CRC of all before
_FRAME = struct.Struct("<4sIII")  # mark, payload length, CRC of both, CRC of the payload
_MARK = b"\xf3\xc1\x0d\x9e"  # no UTF-8 text holds it, so that JSON payloads do not slow a search
HEADER_BYTES = _HEADER.size


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


def read_segment(path: Path, spool: str | None = None) -> Segment:
    """Read one segment's file.

    ``spool`` stands in for a damaged header, with the number in the file's name; without it the header must be whole.

    Raises:
        SegmentError: no segment of this format, or of another spool.
    """
    data = path.read_bytes()
    found, number, whole = _read_header(data)
    if whole and spool not in (None, found):
        raise SegmentError(f"{path}: belongs to spool {found}, not {spool}: move it to its own folder")
    if not whole:
        if spool is None or not path.stem.isdigit():
            raise SegmentError(f"{path}: is no segment of format {FORMAT.decode()}, or its header is damaged")
        found, number = spool, int(path.stem)
    records, corrupt, end = _scan(data, seed_of(found, number))
    return Segment(found, number, records, corrupt, max(len(data) - end, 0), end, not whole)


def damage(segment: Segment) -> list[str]:
    """Each stretch of a segment that is lost, in one line."""
    lost = [f"{size} bytes at {offset} are damaged; the records there are lost" for offset, size in segment.corrupt]
    return lost + ([f"{segment.torn} bytes at {segment.end} are no whole record"] if segment.torn else [])


def _read_header(data: bytes) -> tuple[str, int, bool]:
    """Spool id, number, and whether they can be trusted."""
    if len(data) < HEADER_BYTES:
        return "", 0, False
    mark, spool, number, _, crc = _HEADER.unpack_from(data)
    return spool.hex(), number, mark == FORMAT and crc == crc32(data[: HEADER_BYTES - 4])


def _scan(data: bytes, seed: int) -> tuple[list[bytes], list[tuple[int, int]], int]:
    """The payloads of all good frames, the damaged stretches between them, and where the last good one ends."""
    records: list[bytes] = []
    corrupt: list[tuple[int, int]] = []
    at = good = min(HEADER_BYTES, len(data))
    while (at := _next_frame(data, at, seed)) >= 0:
        _, length, _, crc = _FRAME.unpack_from(data, at)
        start, at = at, at + _FRAME.size + length
        if at > len(data):
            break
        payload = data[start + _FRAME.size : at]
        if crc32(payload, seed) != crc:
            continue  # its length is sound: only this record is lost
        if start > good:
            corrupt.append((good, start - good))
        records.append(payload)
        good = at
    return records, corrupt, good


def _next_frame(data: bytes, at: int, seed: int) -> int:
    """Where the next frame with a sound head begins, or -1."""
    while (at := data.find(_MARK, at)) >= 0 and at + _FRAME.size <= len(data):
        if _FRAME.unpack_from(data, at)[2] == crc32(data[at : at + 8], seed):
            return at
        at += 1
    return -1
