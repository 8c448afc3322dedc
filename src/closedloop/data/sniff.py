"""How a text file is written: its encoding, the lines before its names of columns, and its separator."""

from __future__ import annotations

import csv
import gzip
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import charset_normalizer

from closedloop.data.reading import Read
from closedloop.data.schema import DataError

SAMPLE = 262_144  # bytes that are looked at
LINES = 200
_QUOTED = 20  # lines that one row may take
SEPARATORS = (",", ";", "\t", "|")
USUAL = frozenset("°µ²³±·½¼äöüÄÖÜßéèêëàâáãåæçñóòôõøíìîúùûÉÈÀÂÅÆÇÑÓØ€\xd7\xa0\u2013\u2019")  # in Western files


@dataclass(frozen=True)
class Form:
    """How a text file is written."""

    encoding: str
    skip_lines: int
    separator: str


PLAIN = Form("utf-8", 0, ",")


def opened(path: Path) -> IO[bytes]:
    """A file, open for reading; a gzip or zip archive is unpacked.

    Raises:
        DataError: a zip archive holds more than one file, or none.
    """
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix.lower() != ".zip":
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(names) != 1:
            raise DataError(f"{path}: holds {len(names)} files, and one is read; unpack it into the folder")
        return archive.open(names[0])


def form_of(path: Path, read: Read) -> Form:
    """How a text file is written; what ``read`` says goes first."""
    start = _start(path)
    encoding = read.encoding or encoding_of(start)
    lines = _lines(path, start, encoding)
    if mark := _told(lines):
        return Form(encoding, read.skip_lines or 1, read.separator or mark)
    skip, separator = _table(lines, (read.separator,) if read.separator else SEPARATORS) or (0, read.separator or ",")
    return Form(encoding, skip if read.skip_lines is None else read.skip_lines, separator)


def fitting(path: Path, said: Read) -> Read:
    """What was said, without an encoding that cannot be this text file's, or a separator that parts no table in it."""
    if said.encoding is None and said.separator is None:
        return said
    start = _start(path)
    if said.encoding is not None and not _decodes(path, start, said.encoding):
        said = replace(said, encoding=None)
    if said.separator is not None:
        lines = _lines(path, start, said.encoding or encoding_of(start))
        lines = lines[1:] if _told(lines) else lines
        own, best = _table(lines, (said.separator,)), _table(lines, SEPARATORS)
        if own is None or (best is not None and best[0] < own[0]):
            said = replace(said, separator=None)
    return said


def _decodes(path: Path, start: bytes, encoding: str) -> bool:
    """Whether a text may be in this encoding."""
    found = encoding_of(start)
    own, text = _lines(path, start, found), _lines(path, start, encoding)
    if found.startswith("utf") and own != text:
        return False  # a text that reads as UTF is no other, unless it has the same letters in both
    try:
        start[: start.rfind(b"\n") + 1 if encoding.startswith("utf-8") else None].decode(encoding)
    except UnicodeDecodeError as error:
        return len(start) == SAMPLE and error.start > SAMPLE - 8  # the sample ends within a character
    return len(text) > 1 or len(own) <= 1


def _start(path: Path) -> bytes:
    """The first bytes of a file."""
    try:
        with opened(path) as file:
            return file.read(SAMPLE)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        kind = path.suffix[1:]
        raise DataError(
            f"{path}: cannot be read as {kind}: {error}; export it again, or move it out of the folder"
        ) from error


def _lines(path: Path, start: bytes, encoding: str) -> list[str]:
    """The first lines of a file that starts so."""
    try:
        lines = start.decode(encoding, errors="ignore").splitlines()
    except LookupError:
        raise DataError(f"{path}: {encoding!r} is not an encoding; such are utf-8, cp1252 and utf-16") from None
    return (lines[:-1] if len(start) == SAMPLE else lines)[:LINES]  # the last one was cut


def _told(lines: list[str]) -> str | None:
    """The separator that Excel's own first line tells, as sep=; does; None where there is no such line."""
    told = lines[0].strip().strip('"') if lines else ""
    return told[4] if told.lower().startswith("sep=") and len(told) == 5 else None


def encoding_of(start: bytes) -> str:
    """The most likely encoding of a text, by Python's name for it."""
    if start.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if start.count(0) > len(start) / 5:
        return "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    try:
        cut = start[: start.rfind(b"\n") + 1] or start  # the sample may end within a character
        cut.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    odd = b"\n".join(line for line in start.splitlines()[:-1] or [start] if not line.isascii())[:20_000]
    try:
        if {char for char in odd.decode("cp1252") if not char.isascii()} <= USUAL:
            return "cp1252"
    except UnicodeDecodeError:
        pass
    best = charset_normalizer.from_bytes(odd).best()
    return best.encoding if best is not None else "cp1252"


def _table(lines: list[str], separators: Sequence[str]) -> tuple[int, str] | None:
    """The number of lines before the names of the columns, and the separator; None where none parts a table."""
    best: tuple[int, int, str] | None = None
    for separator in separators:
        rows = _rows(lines, separator)
        cells = [len(row) for row, _ in rows]
        usual = Counter(count for count in cells[-max(1, len(cells) * 4 // 5) :] if count > 1).most_common(1)
        if not usual:
            continue
        count = usual[0][0]
        head = next((at for at, found in enumerate(cells) if found == count), None)
        # the names of the columns have as many cells as the rows, and the rows agree with each other
        if head is None or usual[0][1] < 0.8 * (len(cells) * 4 // 5):
            continue
        before = sum(taken for _, taken in rows[:head])
        if best is None or (-before, count) > (-best[0], best[1]):
            best = (before, count, separator)
    return (best[0], best[2]) if best else None


def _rows(lines: list[str], separator: str) -> list[tuple[list[str], int]]:
    """The cells of each row, and how many lines it takes: a cell in quotes may go on, as a column's name with its unit.

    A quotation mark that is not closed within a few lines is taken for a sign of its own.
    """
    found: list[tuple[list[str], int]] = []
    at = 0
    while at < len(lines):
        row, taken = next(csv.reader([lines[at]], delimiter=separator), []), 1
        if lines[at].count('"') % 2:
            reader = csv.reader([f"{line}\n" for line in lines[at : at + _QUOTED]], delimiter=separator)
            whole = next(reader, [])
            closed = sum(line.count('"') for line in lines[at : at + reader.line_num]) % 2 == 0
            row, taken = (whole, reader.line_num) if closed else (row, taken)
        found.append((row, taken))
        at += taken
    return found


def said(form: Form | None, read: Read) -> list[str]:
    """What is worth saying of how a file is written; ``form`` is None of a workbook or Parquet file."""
    words = []
    form = form or PLAIN
    if form.separator != ",":
        words.append(f"separator {'tab' if form.separator == chr(9) else form.separator}")
    if form.encoding not in ("utf-8", "utf-8-sig"):
        words.append(f"encoding {form.encoding}")
    if form.skip_lines:
        words.append(f"{form.skip_lines} line{'s' * (form.skip_lines != 1)} before the names of the columns")
    if read.decimal != ".":
        words.append(f"decimal mark {read.decimal}")
    if read.thousands:
        words.append(f"thousands mark {'space' if read.thousands.isspace() else read.thousands}")
    return words


def as_keys(form: Form | None, read: Read) -> dict[str, Any]:
    """The keys of ``read:`` for a file whose form differs from a plain CSV file's."""
    keys: dict[str, Any] = {}
    form = form or PLAIN
    if form.separator != ",":
        keys["separator"] = form.separator
    if read.decimal != ".":
        keys["decimal"] = read.decimal
    if read.thousands:
        keys["thousands"] = read.thousands
    if form.encoding not in ("utf-8", "utf-8-sig"):
        keys["encoding"] = form.encoding
    if form.skip_lines:
        keys["skip_lines"] = form.skip_lines
    return keys
