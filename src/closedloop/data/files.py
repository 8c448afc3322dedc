"""Read one file of any form, text, Excel or Parquet, as a frame with the names of its own columns."""

from __future__ import annotations

import functools
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import sniff
from closedloop.data.reading import Read
from closedloop.data.schema import DataError

PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")
TEXT = (".csv", ".txt", ".tsv")
SUFFIXES = (*TEXT, *PARQUET, *EXCEL, ".gz", ".zip")
SPACES = "\u00a0\u202f "


def suffix(path: Path) -> str:
    """The ending of a file's name, in lower case; of a sheet, that of its workbook."""
    return file_of(path).suffix.lower()


def file_of(path: Path) -> Path:
    """The file that a path names: the workbook where the path goes on to one of its sheets, as in book.xlsx/Sheet."""
    book = path.parent
    return book if book.suffix.lower() in EXCEL and book.is_file() else path


def tables_in(path: Path) -> list[Path]:
    """The tables in a file: its sheets where it is a workbook with several that hold one, else the file itself.

    Raises:
        DataError: the workbook cannot be read.
    """
    if suffix(path) not in EXCEL:
        return [path]
    names = [name for name in _sheets(path) if _is_table(_cells(path, name, *_state(path)))]
    return [path / name for name in names] if len(names) > 1 else [path]


def readable(path: Path) -> bool:
    """Whether a file has the ending of one that can be read."""
    return suffix(path) in SUFFIXES


def matching(location: Path, named: str | Collection[str], others: Collection[str] = ()) -> list[Path]:
    """The files of a table, in order of their names: those that ``named`` names, or that its patterns match.

    A pattern does not match ``others``, the files that other tables name outright.
    """
    found: dict[Path, None] = {}
    for name in [named] if isinstance(named, str) else named:
        if "*" not in name or (location / name).is_file():
            found[location / name] = None
            continue
        paths = sorted(path for path in location.glob(name) if path.is_file() and readable(path))
        book, _, sheet = name.rpartition("/")  # a sheet of the workbooks that the rest of the pattern fits
        books = sorted(path for path in location.glob(book) if suffix(path) in EXCEL and path.is_file()) if book else []
        paths += [path / own for path in books for own in _sheets(path) if fnmatchcase(own, sheet)]
        found |= dict.fromkeys(path for path in paths if str(path.relative_to(location)) not in others)
    return list(found)


def read_file(path: Path, texts: Collection[str], rows: int | None = None, read: Read | None = None) -> pd.DataFrame:
    """One file as a frame, or its first ``rows``. The columns ``texts`` stay text, so that a code 007 is not 7.

    A text file may be separated by commas, semicolons, tabs or bars.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return next(iter(blocks(path, texts, read or Read(), rows=rows)))
    except StopIteration:
        raise DataError(f"{path}: is empty; export it again") from None


def blocks(
    path: Path,
    texts: Collection[str],
    read: Read,
    *,
    rows: int | None = None,
    at_once: int | None = None,
    only: Collection[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield the blocks of a file: of at most ``at_once`` rows for a text file, the whole of any other.

    Raises:
        DataError: the file cannot be read.
    """
    with _worded(path):
        if suffix(path) in PARQUET:
            frame = pd.read_parquet(path)
            frame = indexed(frame if rows is None else frame.head(rows))
            yield tidy(frame, read, texts)
        elif suffix(path) in EXCEL:
            yield tidy(_excel(path, read, rows), read, texts)
        else:
            yield from _text_blocks(path, texts, read, rows, at_once, only)


@contextmanager
def _worded(path: Path) -> Iterator[None]:
    """Raise DataError, in one line that names the file, for what the libraries that read it raise."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        kind = suffix(path)[1:]  # the errors of pandas and pyarrow are ValueErrors
        raise DataError(f"{path}: cannot be read as {kind}: {' '.join(str(error).split())}; export it again") from error


def _text_blocks(
    path: Path, texts: Collection[str], read: Read, rows: int | None, at_once: int | None, only: Collection[str] | None
) -> Iterator[pd.DataFrame]:
    """Yield the blocks of a text file."""
    form = sniff.form_of(path, read)
    options: dict[str, Any] = {
        "sep": form.separator,
        "skiprows": form.skip_lines,
        "skipinitialspace": form.separator != "\t",
        "encoding": form.encoding,
        "low_memory": False,
    }
    with sniff.opened(path) as file:
        names = [str(name) for name in pd.read_csv(file, nrows=0, **options).columns]
    all_text = read.decimal != "." or texts is ALL  # else 1.000 would be read as 1
    wanted = names if all_text else [name for name in names if heading(name) in texts]
    options["dtype"] = dict.fromkeys(wanted, "str")
    if only is not None:
        options["usecols"] = [name for name in names if heading(name) in only]
    with sniff.opened(path) as file:
        if at_once is None:
            yield tidy(pd.read_csv(file, nrows=rows, **options), read, texts)
        else:
            with pd.read_csv(file, chunksize=at_once, **options) as parts:
                for part in parts:
                    yield tidy(part, read, texts)


class _All(frozenset):
    """Every name: all columns stay text."""

    def __contains__(self, name: object) -> bool:
        return True


ALL = _All()


def _excel(path: Path, read: Read, rows: int | None) -> pd.DataFrame:
    """The sheet that a path names, or the first sheet of its workbook that holds a table."""
    book = file_of(path)
    if book == path:
        sheets = (_cells(book, name, *_state(book)) for name in _sheets(book))
        cells = next((sheet for sheet in sheets if _is_table(sheet)), None)
        if cells is None:
            raise DataError(f"{path}: no sheet holds a table; export it again")
    elif path.name in (names := _sheets(book)):
        cells = _cells(book, path.name, *_state(book))
    else:
        raise DataError(f"{book}: has no sheet {path.name!r}, only {', '.join(names)}; correct it in params.yaml")
    cells = cells if rows is None else cells.head(rows)
    filled = cells.notna().sum(axis=1)
    skip = read.skip_lines
    if skip is None:  # the names of the columns are the first row that is as full as most
        skip = int((filled >= filled.median()).to_numpy().argmax())
    body = cells.iloc[skip + 1 :].dropna(how="all").reset_index(drop=True)
    heads = [f"Unnamed: {at}" if pd.isna(name) else str(name) for at, name in enumerate(cells.iloc[skip])]
    return body.set_axis(heads, axis=1).infer_objects()


def _is_table(cells: pd.DataFrame) -> bool:
    return cells.shape[0] > 1 and cells.shape[1] > 1


def _state(book: Path) -> tuple[int, int]:
    """What changes when a file does."""
    about = book.stat()
    return about.st_mtime_ns, about.st_size


def _sheets(book: Path) -> tuple[str, ...]:
    """The names of a workbook's sheets."""
    with _worded(book):
        return _sheet_names(book, *_state(book))


@functools.lru_cache(maxsize=32)
def _sheet_names(book: Path, *_: int) -> tuple[str, ...]:
    with pd.ExcelFile(book, engine="openpyxl") as opened:
        return tuple(str(name) for name in opened.sheet_names)


@functools.lru_cache(maxsize=32)  # a minute for a hundred thousand rows, and a fleet is read several times
def _cells(book: Path, sheet: str, *_: int) -> pd.DataFrame:
    """The cells of a sheet."""
    return pd.read_excel(book, sheet_name=sheet, header=None, engine="openpyxl")


def indexed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as columns, unless it only counts the rows."""
    plain = isinstance(frame.index, pd.RangeIndex) or (frame.index.name is None and frame.index.dtype == "int64")
    return frame if plain and frame.index.nlevels == 1 else frame.reset_index()


def heading(name: str) -> str:
    """The name of a column as we call it: without spaces round it, and on one line."""
    return re.sub(r"\s*[\r\n]\s*", " ", name.strip().lstrip("\ufeff"))


def tidy(frame: pd.DataFrame, read: Read, texts: Collection[str] = ()) -> pd.DataFrame:
    """The frame with names of columns on one line, and numbers read by their decimal and thousands marks."""
    frame = frame.set_axis([heading(str(name)) for name in frame.columns], axis=1)
    if len(set(frame.columns)) < len(frame.columns):
        twice = next(name for name in frame.columns if list(frame.columns).count(name) > 1)
        raise DataError(f"two columns have the name {twice!r}; give each its own")
    if texts is ALL or (read.decimal == "." and not read.thousands):
        return frame
    new: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name]
        if name not in texts and not pd.api.types.is_numeric_dtype(column) and _is_text(column):
            numbers = to_numbers(column, read.decimal, read.thousands)
            present = column.notna()
            if present.any() and numbers[present].notna().mean() > 0.5:
                new[name] = numbers.astype(object).where(numbers.notna() | ~present, column)
                if numbers[present].notna().all():
                    new[name] = numbers
    return frame.assign(**new)


def _is_text(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.StringDtype) or column.dtype == object


def text_in(column: pd.Series) -> pd.Series:
    """The values of a column that are text, without the numbers that a workbook holds as such."""
    present = column.dropna()
    if not _is_text(present):
        return pd.Series([], dtype="str")
    return present[present.map(lambda value: isinstance(value, str))].astype("str")


def number_pattern(decimal: str, thousands: str | None) -> str:
    """A regular expression of a number with these marks."""
    whole = r"\d+"
    if thousands:
        mark = f"[{SPACES}]" if thousands.isspace() else re.escape(thousands)
        whole = rf"(?:\d{{1,3}}(?:{mark}\d{{3}})+|\d+)"
    return rf"[+-]?(?:{whole}(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)(?:[eE][+-]?\d+)?"


def to_numbers(column: pd.Series, decimal: str, thousands: str | None) -> pd.Series:
    """The numbers of a column of text, missing where the text is none by these marks; a number stays what it is."""
    texts = column.astype("str").str.strip()
    fits = texts.str.fullmatch(number_pattern(decimal, thousands)).fillna(False).astype(bool)
    if thousands:
        marks = SPACES if thousands.isspace() else thousands
        for mark in marks:
            texts = texts.str.replace(mark, "", regex=False)
    if decimal != ".":
        texts = texts.str.replace(decimal, ".", regex=False)
    numbers = pd.to_numeric(texts.where(fits), errors="coerce")
    if column.dtype != object:
        return numbers
    given = column.map(lambda value: type(value) in (int, float))
    return numbers.where(~given, pd.to_numeric(column.where(given)))


def as_missing(column: pd.Series, missing: Collection[str]) -> pd.Series:
    """The column without the values that stand for a missing one: numbers compare as numbers."""
    if not missing:
        return column
    numbers = [number for text in missing if (number := _float(text)) is not None]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.mask(column.isin(numbers))
    if not _is_text(column):
        return column
    texts = column.astype("str").str.strip()
    bare = column.mask(texts.isin(list(missing)) | pd.to_numeric(texts, errors="coerce").isin(numbers))
    found = pd.to_numeric(bare, errors="coerce")
    return found if (found.notna() | bare.isna()).all() else bare


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def machine_of(name: str, pattern: str) -> str | None:
    """The machine that the path of a file names by the pattern, or None where the path does not fit."""
    parts = re.split(r"(\{machine\}|\*)", pattern)
    expression = "".join("([^/]+)" if p == "{machine}" else "[^/]*" if p == "*" else re.escape(p) for p in parts)
    found = re.fullmatch(expression, name)
    return found.group(1) if found else None


def keys_of(mapping: Mapping[str, str], ours: Collection[str]) -> set[str]:
    """Your names of these columns of ours."""
    return {theirs for theirs, name in mapping.items() if name in ours}
