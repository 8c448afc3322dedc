"""Where what a person said of how files are written holds: a file that it does not fit is read as it is found.

An encoding, a separator, lines to skip or a mark that is right for one file of a folder may be wrong for another.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import files, sniff, times
from closedloop.data.reading import Read
from closedloop.data.schema import DataError

SHOWN = 200  # rows that are looked at


def of_file(path: Path, said: Read) -> Read:
    """What was said, without the encoding, the separator and the lines to skip that do not fit this file.

    Raises:
        DataError: the file cannot be opened.
    """
    if files.suffix(path) in files.PARQUET:
        return said
    read = said if files.suffix(path) in files.EXCEL else sniff.fitting(path, said)
    if read.skip_lines is None:
        return read
    found = replace(read, skip_lines=None)
    return found if _names_values(path, read) and not _names_values(path, found) else read


def _names_values(path: Path, read: Read) -> bool:
    """Whether a row of values stands where the names of the columns should, or nothing does."""
    try:
        names = pd.Series(files.read_file(path, files.ALL, SHOWN, read).columns, dtype="str")
    except DataError:
        return True
    if names.str.startswith("Unnamed: ").any():
        return True
    one_by_one = (pd.Series([name]) for name in names)
    return any(
        pd.to_numeric(name, errors="coerce").notna().all()
        or times.is_clock(name)
        or times.form_of(name, hinted=False) is not None
        for name in one_by_one
    )


def reads_marks(texts: pd.Series, said: Read) -> bool:
    """Whether numbers that are text can be read by the marks that were said: any with a mark, or none has one."""
    marked = texts[texts.str.contains(r"[^\d+-]", regex=True)]
    return not len(marked) or bool(files.to_numbers(marked, said.decimal, said.thousands).notna().any())


def together(read: list[Read]) -> Read:
    """The settings of files that are one table; what only some of them hold is told from each file."""
    keys = ("separator", "encoding", "skip_lines")
    apart: dict[str, Any] = {key: None for key in keys if len({getattr(one, key) for one in read}) > 1}
    return replace(read[0], **apart)
