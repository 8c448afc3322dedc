"""What the columns of unknown files hold, judged by their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from closedloop.data import files, heeding, sniff, times, words
from closedloop.data.machines import whole
from closedloop.data.reading import Read
from closedloop.data.schema import CODE_COLUMN, DataError

SAMPLE_ROWS = 200_000  # of a text file; enough to tell columns apart
NOTHING = ("-", "--", "---", "?", ".", "*", "n.a.", "no data", "nodata", "missing", "nil", "none", "#n/a", "(null)")
ENOUGH = 0.9
_MOST_OF_EVENTS = 4  # columns
FORM = ("separator", "encoding", "skip_lines", "decimal", "thousands")


@dataclass(frozen=True)
class Kind:
    """A column's kind: ``time``, ``clock``, ``whole``, ``number``, ``flag``, ``text`` or ``empty``.

    ``numbers`` holds the numbers of a column of numbers, ``form`` the form of times.
    """

    kind: str
    numbers: pd.Series | None = field(default=None, repr=False, compare=False)
    form: times.TimeForm | None = None


@dataclass
class Group:
    """Files with the same columns: their rows, as text where a file holds text, and the kind of each column.

    ``of`` is the place in ``names`` of each row's file. ``question`` is what only a person can say of their numbers.
    """

    names: list[str]
    rows: pd.DataFrame
    of: NDArray[np.int64]
    read: Read
    form: sniff.Form | None
    kinds: dict[str, Kind] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    question: str | None = None

    @property
    def name(self) -> str:
        """The name of the file, or that of the first one and how many more there are."""
        more = len(self.names) - 1
        return self.names[0] + (f" and {more} more of the same columns" if more else "")

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [str(name) for name in self.rows.columns]

    def of_kind(self, *kinds: str) -> list[str]:
        """The columns of these kinds."""
        return [name for name, kind in self.kinds.items() if kind.kind in kinds]

    def pick(self, ours: str, kinds: tuple[str, ...], taken: set[str]) -> str | None:
        """The column that is most likely ``ours``: it has a fitting kind and a fitting name."""
        fitting = [name for name in self.of_kind(*kinds) if name not in taken]
        if ours in fitting:
            return ours
        ranked = [(rank, name) for name in fitting if (rank := words.rank(name, words.COLUMN_WORDS[ours])) is not None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


@dataclass(frozen=True)
class _Member:
    """A file of a group: its name and rows, how a text file is written, and what was said that holds for it."""

    name: str
    rows: pd.DataFrame
    form: sniff.Form | None
    read: Read


def groups_of(
    location: Path, paths: list[Path], read: Read, aside: dict[str, list[str]], broken: list[str]
) -> list[Group]:
    """The files in groups of the same columns. ``aside`` is told of what is empty, ``broken`` of what cannot be read.

    A ``.txt`` file that cannot be read as a table is a note, and no broken one.
    """
    found: dict[Any, list[_Member]] = {}
    for path, unreadable in _tables_in(paths):
        name = path.relative_to(location).as_posix()
        try:
            if unreadable is not None:
                raise unreadable
            form, own = None, heeding.of_file(path, read)
            if files.suffix(path) not in (*files.PARQUET, *files.EXCEL):
                form = sniff.form_of(path, own)
            rows = files.read_file(path, files.ALL, SAMPLE_ROWS, own)
        except DataError as error:
            nothing = "No columns to parse" in str(error) or "is empty" in str(error)
            aside[name] = ["the table is empty"] if nothing else [str(error)]
            if not nothing and files.suffix(path) != ".txt":
                broken.append(str(error))
            continue
        if rows.empty:
            aside[name] = [f"the table is empty: it has the columns {', '.join(rows.columns)} and no rows"]
            continue
        key = (path.suffix in files.PARQUET, *_events_named(path, len(rows.columns)), *sorted(rows.columns))
        found.setdefault(key, []).append(_Member(name, rows, form, own))
    return [_group(members) for members in found.values()]


def _tables_in(paths: list[Path]) -> Iterator[tuple[Path, DataError | None]]:
    """Yield the tables in files, sheets of workbooks too, each with the error of a file that cannot be read."""
    for path in paths:
        try:
            yield from ((table, None) for table in files.tables_in(path))
        except DataError as error:
            yield path, error


def _events_named(path: Path, columns: int) -> list[str]:
    """The tables of events that a file's name names: alarms and breakdowns are two, even with the same columns.

    Only few columns are a list of events; files of readings may be called after what happened in them.
    """
    if columns > _MOST_OF_EVENTS:
        return []
    stem = path.name.partition(".")[0]
    return [table for table in CODE_COLUMN if words.rank(stem, words.FILE_WORDS[table]) is not None]


def _group(members: list[_Member]) -> Group:
    """One group, with what its columns hold."""
    rows = pd.concat([member.rows for member in members], ignore_index=True)
    of = np.repeat(np.arange(len(members)), [len(member.rows) for member in members])
    forms = {member.form for member in members}
    form = forms.pop() if len(forms) == 1 else None
    read = heeding.together([member.read for member in members])
    group = Group([member.name for member in members], rows, of, read, form)
    marks_of(group)
    for name in group.columns:
        group.kinds[name] = kind_of(name, rows[name], group)
    if len(group.of_kind("time")) > 1:  # a running number of days is a time only where there is no other
        for name, kind in group.kinds.items():
            if kind.form is not None and kind.form.epoch == "excel":
                group.kinds[name] = kind_of(name, rows[name], group, hinted=False)
    if files.suffix(Path(group.names[0])) not in files.PARQUET and _nameless(group):
        group.question = (
            f"{group.name} has no line with the names of its columns: its first line, {', '.join(group.columns[:4])}, "
            "holds values and would be lost; add such a line, such as time,machine and the names of the sensors"
        )
    elif files.suffix(Path(group.names[0])) not in files.PARQUET and group.question is None:
        group.question = _units(group)
    return group


def _units(group: Group) -> str | None:
    """What is to be done about a line of units below the names of the columns; None where there is none.

    It has text where all below are numbers, and no time.
    """
    first = group.rows.iloc[0]
    numbers = {name: kind.numbers for name, kind in group.kinds.items() if kind.kind in ("whole", "number")}
    odd = [str(first[name]) for name, told in numbers.items() if told is not None and pd.isna(told.iloc[0])]
    odd = [text for text in odd if text != "nan" and text not in group.missing]
    stamps = [pd.Series([first[name]], dtype="str").dropna() for name in group.of_kind("time")]
    if not odd or not stamps or any(len(text) and times.form_of(text, hinted=True) for text in stamps):
        return None
    return (
        f"{group.name}: the line below the names of its columns holds no reading, but {', '.join(odd[:4])}: take that "
        "line out of the file; units can stand in the names of the columns"
    )


def _nameless(group: Group) -> bool:
    """Whether the names of the columns are values: a time above times, or numbers alone."""
    numbers = pd.to_numeric(pd.Series(group.columns, dtype="str"), errors="coerce")
    if numbers.notna().all():
        return True
    kinds = {name: group.kinds[name].kind for name in group.of_kind("time", "clock")}
    return any(kind_of("", pd.Series([name], dtype="str"), group).kind == kind for name, kind in kinds.items())


def kind_of(name: str, column: pd.Series, group: Group, hinted: bool | None = None) -> Kind:
    """What a column holds. Texts such as ``-`` in a column of numbers are added to the group's missing values."""
    values = column.dropna()
    if values.empty:
        return Kind("empty")
    if pd.api.types.is_bool_dtype(values):
        return Kind("flag", values.astype("float64"))
    if times.is_clock(values):
        return Kind("clock")
    if hinted is None:
        hinted = words.rank(name, words.COLUMN_WORDS["datetime"]) is not None
    if (form := times.form_of(values, hinted) or times.form_said(values, hinted, group.read.time_format)) is not None:
        return Kind("time", form=form)
    numbers = numbers_of(column, group.read)
    if numbers[values.index].notna().mean() > ENOUGH:
        odd = values[numbers[values.index].isna()].astype("str").str.strip()
        if len(odd) and odd.str.lower().isin(NOTHING).all():
            group.missing += [text for text in odd.unique() if text not in group.missing]
        told = numbers.dropna()
        return Kind("whole" if (told == told.round()).all() else "number", numbers)
    if values.astype("str").str.strip().str.lower().isin(["true", "false"]).all():
        return Kind("flag", (column.astype("str").str.strip().str.lower() == "true").astype("float64"))
    return Kind("text")


def numbers_of(column: pd.Series, read: Read) -> pd.Series:
    """The numbers of a column, missing where a value is none."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return pd.to_numeric(column, errors="coerce").astype("float64") if column.dtype.kind != "M" else column.map(
            lambda _: np.nan).astype("float64")  # fmt: skip
    plain = pd.to_numeric(column.astype("str").str.strip(), errors="coerce")
    if read.decimal == "." and not read.thousands:
        return plain
    return files.to_numbers(column, read.decimal, read.thousands)


def kept(group: Group, said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of the form of files, as far as it holds for a group."""
    return {key: said[key] for key in FORM if key in said and getattr(group.read, key) == said[key]}


def written(group: Group, key: str) -> str:
    """How a group is written, in a word, where something else was said of it."""
    own = sniff.as_keys(group.form, group.read) | {"decimal": group.read.decimal}
    usual = {"separator": ",", "encoding": "utf-8", "skip_lines": 0, "thousands": "none"}
    return f"{group.name} has {own.get(key, usual.get(key))!r}"


# --- decimal and thousands marks --------------------------------------------------------------------------------------

GROUPED = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+"
DOTTED = r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+"


def marks_of(group: Group) -> None:
    """Find the decimal and the thousands mark of a group's numbers, or the question that a person must answer.

    What was said of them goes first where it reads the numbers.
    """
    said, texts = group.read, _marked(group)
    group.read = replace(said, decimal=".", thousands=None)
    if len(texts):
        _find_marks(group, texts)
    found = said.thousands is None and group.read.decimal == said.decimal  # and perhaps a thousands mark beside it
    if (said.decimal != "." or said.thousands) and not found and heeding.reads_marks(texts, said):
        group.read, group.question = said, None


def _marked(group: Group) -> pd.Series:
    """The texts of a group that may be numbers, once each."""
    cells = [files.text_in(group.rows[name]).str.strip().drop_duplicates() for name in group.rows]
    columns = [
        texts for texts in cells if len(texts) and texts.str.fullmatch(r"[+-]?[\d.,'\u00a0\u202f ]*\d").mean() > ENOUGH
    ]
    columns = [texts for texts in columns if not texts.str.fullmatch(r"\d{1,4}([./ -])\d{1,2}\1\d{1,4}").mean() > 0.5]
    return pd.concat(columns) if columns else pd.Series([], dtype="str")


def _find_marks(group: Group, texts: pd.Series) -> None:
    """Find the marks in numbers that are text."""
    spaced = texts.str.fullmatch(r"[+-]?\d{1,3}(?:[\u00a0\u202f ']\d{3})+(?:[.,]\d+)?")
    space = None
    if spaced.any():
        space = "'" if texts[spaced].str.contains("'", regex=False).any() else " "
        texts = texts.str.replace(r"[\u00a0\u202f ']", "", regex=True)
    comma, point = texts[texts.str.contains(",", regex=False)], texts[texts.str.contains(".", regex=False)]
    if comma.empty:
        group.read = replace(group.read, thousands=space)
        return
    grouped = comma.str.fullmatch(GROUPED + r"(?:\.\d+)?")
    several = comma.str.fullmatch(r"[+-]?[1-9]\d{0,2}(?:,\d{3}){2,}(?:\.\d+)?") | comma.str.contains(
        r",\d{3}\.", regex=True
    )
    mixed = comma.str.fullmatch(DOTTED + r",\d+")
    if not grouped.all():  # a comma that parts no groups of three is a decimal mark
        whole = bool(point.empty or point.str.fullmatch(DOTTED + r"(?:,\d+)?").all())
        if (several.any() and not mixed.any()) or (not whole and not mixed.any()):
            group.question = _which_mark(
                group, str(comma[~grouped].iloc[0]), str(comma[grouped].iloc[0] if grouped.any() else point.iloc[0])
            )
            return
        group.read = replace(group.read, decimal=",", thousands=space or ("." if len(point) else None))
    elif several.any() or len(point) or (group.form is not None and group.form.separator == ","):
        group.read = replace(group.read, thousands=",")
    else:
        group.question = _which_mark(group, str(comma.iloc[0]), str(comma.iloc[-1]))


def _which_mark(group: Group, one: str, other: str) -> str:
    shown = one if one == other else f"{one} and {other}"
    return (
        f"{group.name} has numbers such as {shown}, where the comma may be a decimal mark or part thousands: say "
        "which, with DECIMAL=, or with THOUSANDS=,"
    )


def plain_id(text: str) -> bool:
    """Whether the id of a machine is a plain whole number: 12, or 12.0 as a file with gaps writes it, but not 012."""
    plain = re.fullmatch(r"-?(?:0|[1-9]\d*)(?:\.0+)?", text.strip()) is not None
    return plain and whole(text.strip()) is not None  # a serial number of twenty digits is a name


def texts_of(column: pd.Series) -> pd.Series:
    """The values as text, whole numbers as 12."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() == column.dropna().round()).all():
        column = column.astype("Int64")
    texts = column.astype("str").str.strip().str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
    return texts.where(column.notna())
