"""Read times of any form as UTC, and tell the form from the values."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data.reading import Read

ENOUGH = 0.9  # of the values must fit a form; the others are slips, which validation shows
TRIED = 4000  # distinct values that a form is tried on
CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?"
UNITS = (("ns", 1e17, 1e19), ("us", 1e14, 1e16), ("ms", 1e11, 1e13), ("s", 1e8, 1e10))
LAST = 250e15  # microseconds since 1970; a number beyond, in the year 9892, is no time
DAY_ZERO = pd.Timestamp("1899-12-30")  # of Excel
# zones that are named where local times come twice in autumn
ZONES = ("Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York", "America/Chicago", "America/Denver",
         "America/Los_Angeles", "Australia/Sydney", "America/Santiago", "Pacific/Auckland")  # fmt: skip


@dataclass(frozen=True)
class TimeForm:
    """How times are written.

    ``time_format`` and ``epoch`` are as in ``read:``; both are None for ISO 8601. ``other`` is a second format that
    fits every value as well. ``dates`` says that there is no time of day.
    """

    time_format: str | None = None
    epoch: str | None = None
    other: str | None = None
    dates: bool = False


def bare(texts: pd.Series) -> pd.Series:
    """Texts without spaces round them or before an offset, and with Z for UTC, GMT and Z at the end."""
    texts = texts.astype("str").str.strip().str.replace(r"\s+", " ", regex=True)
    texts = texts.str.replace(r" ?\(?\b(?:UTC|GMT|Z)\)?$", "Z", regex=True)
    texts = texts.str.replace(r"(:\d{2}(?:[.,]\d+)?) (?=[+-]\d{2}:?\d{2}$)", r"\1", regex=True)
    return texts.str.replace(r"\b([AaPp])\.[Mm]\.", r"\1M", regex=True)


def parsed(column: pd.Series, read: Read, machines: pd.Series | None = None) -> pd.Series:
    """The times in UTC. Where one cannot be read, the column has type object and keeps that value as it is.

    Local times that come twice in autumn are told apart by their order among the rows of their machine.
    """
    present = column.notna()
    if read.epoch is not None:
        times = _of_numbers(column, read.epoch)
    elif pd.api.types.is_datetime64_any_dtype(column):
        times = column.dt.as_unit("us")
    elif pd.api.types.is_numeric_dtype(column) and read.time_format is None:
        return column  # a number is no time without its unit
    elif read.time_format is not None:
        times = _by_format(bare(_as_text(column)), read.time_format)
    else:
        times = _iso(bare(_as_text(column)), read.time_zone is not None)
    if getattr(times.dt, "tz", None) is None:
        times = localized(times, read.time_zone, machines)
    times = times.dt.tz_convert("UTC").dt.as_unit("us")
    if (present & times.isna()).any():
        return times.astype(object).where(~(present & times.isna()), column.astype(object))
    return times


def _as_text(column: pd.Series) -> pd.Series:
    """Numbers such as 20240115 as text, the rest as it is."""
    if pd.api.types.is_float_dtype(column):
        return column.astype("Int64").astype("str").where(column.notna())
    return column.astype("str").where(column.notna())


def _of_numbers(column: pd.Series, epoch: str) -> pd.Series:
    """Times that are numbers, since 1970, or days as Excel counts them."""
    numbers = pd.to_numeric(column, errors="coerce")
    factor = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3, "excel": 86_400e6}[epoch]
    numbers = numbers.where(numbers.astype("float64").abs() * factor < LAST)
    if epoch == "excel":
        seconds = (numbers * 86_400).round()
        return DAY_ZERO + pd.to_timedelta(seconds, unit="s")
    if pd.api.types.is_integer_dtype(numbers) and factor >= 1:
        micros = (numbers * int(factor)).astype("Int64")
    else:
        micros = (numbers.astype("float64") * factor).round().astype("Int64")
    return pd.to_datetime(micros, unit="us", utc=True, errors="coerce")


def _by_format(texts: pd.Series, time_format: str) -> pd.Series:
    """Times by a format, missing where it does not fit; with an offset or Z they are UTC."""
    zoned = texts.str.endswith("Z").fillna(False).astype(bool)
    if "%z" in time_format or zoned.any():
        bare_format = time_format.removesuffix("%z").rstrip()
        told = "%z" in time_format
        times = pd.to_datetime(texts, format=f"{bare_format}%z", errors="coerce", utc=True)
        return times if told or zoned.all() else times.fillna(_by_naive(texts, bare_format).dt.tz_localize("UTC"))
    return _by_naive(texts, time_format)


def _by_naive(texts: pd.Series, time_format: str) -> pd.Series:
    return pd.to_datetime(texts, format=time_format, errors="coerce")


def _iso(texts: pd.Series, local: bool) -> pd.Series:
    """Times by ISO 8601. Those without an offset are UTC, or stay without a zone where they are ``local``."""
    if local and not texts.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$", regex=True).fillna(False).any():
        return pd.to_datetime(texts, format="ISO8601", errors="coerce")
    return pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce")


def localized(times: pd.Series, zone: str | None, machines: pd.Series | None) -> pd.Series:
    """Local times with their zone; one that does not exist there is missing."""
    if zone is None:
        return times.dt.tz_localize("UTC")
    first = np.ones(len(times), bool)  # of two equal times in autumn the first is summer time
    if machines is not None and len(times):
        names = machines.astype("str").fillna("")
        order = times.groupby([names, times]).cumcount()
        ends = times.dropna().groupby(names).agg(["first", "last"])
        falling = names.isin(ends.index[ends["last"] < ends["first"]])  # newest first
        first = np.where(falling, order > 0, order == 0)
    return times.dt.tz_localize(zone, ambiguous=first, nonexistent="NaT")


# --- telling the form from the values ---------------------------------------------------------------------------------


def form_of(column: pd.Series, hinted: bool) -> TimeForm | None:
    """How the times of a column are written, or None where it holds no times.

    Numbers count as times only where the name of the column ``hinted`` at times.
    """
    values = column.dropna()
    if pd.api.types.is_datetime64_any_dtype(values):
        return TimeForm(dates=bool((values == values.dt.normalize()).all()) and values.nunique() > 0)
    if len(values) and all(isinstance(value, datetime.date | datetime.datetime) for value in values):
        texts = values.astype("str")
        return TimeForm(dates=not texts.str.contains(":").any())
    texts = _spread(bare(values))
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().mean() > ENOUGH:
        return _number_form(texts, numbers.dropna()) if hinted else None
    if not (texts.str.contains(r"\d", regex=True).mean() > ENOUGH) or texts.str.fullmatch(CLOCK).mean() > ENOUGH:
        return None
    if pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").notna().mean() > ENOUGH:
        return TimeForm(dates=bool(texts.str.fullmatch(r"\d{4}[-/.]?\d{2}[-/.]?\d{2}").mean() > ENOUGH))
    return _text_form(texts)


def form_said(column: pd.Series, hinted: bool, time_format: str | None) -> TimeForm | None:
    """The format that a person said, where it reads the times of a column whose form is not known otherwise."""
    if time_format is None or pd.api.types.is_datetime64_any_dtype(column):
        return None
    texts = _spread(bare(column.dropna()))
    numbers = pd.to_numeric(texts, errors="coerce").notna().mean() > ENOUGH
    if (numbers and not hinted) or not _fits(texts, time_format) > ENOUGH:
        return None
    return TimeForm(time_format, dates=not re.search("%[HIcX]", time_format))


def is_clock(column: pd.Series) -> bool:
    """Whether a column holds times of day."""
    values = column.dropna()
    if len(values) and all(isinstance(value, datetime.time) for value in values):
        return True
    texts = values.astype("str").str.strip()
    return len(texts) > 0 and bool(texts.str.fullmatch(CLOCK).mean() > ENOUGH)


def holds(column: pd.Series, form: TimeForm | None, read: Read, units: Collection[str]) -> bool:
    """Whether what a person said of times holds for a column, whose ``form`` was told from its values.

    It holds where it reads nearly all of them, and no fewer than that form does. ``units`` are those of the numbers
    that are times in any of the files: a unit that is one of these holds for such numbers alone.
    """
    values = column.dropna()
    if pd.api.types.is_datetime64_any_dtype(values):
        return False  # they are times already
    other_unit = read.epoch is not None and form is not None and form.epoch != read.epoch
    if other_unit and (form is None or form.epoch is None or read.epoch in units):
        return False
    values = _spread(values)
    found = _times_in(values, read)
    if form is None:
        return found > ENOUGH * len(values)
    return 0 < found >= _times_in(values, Read(time_format=form.time_format, epoch=form.epoch))


def _times_in(values: pd.Series, read: Read) -> int:
    """How many of the values can be read so."""
    return int(_known(parsed(values, read)).sum())


def _known(found: pd.Series) -> pd.Series:
    """Which values were read as times."""
    return found.notna() if found.dtype.kind == "M" else found.map(lambda value: isinstance(value, datetime.datetime))


def not_in_zone(column: pd.Series, read: Read) -> Any:
    """The first local time that the zone does not have, as when summer time begins; None without one."""
    local, plain = (parsed(column, each) for each in (read, replace(read, time_zone=None)))
    lost = column[_known(plain) & ~_known(local)]
    return lost.iloc[0] if len(lost) else None


def in_order(form: TimeForm, said: str | None) -> str | None:
    """The one of two formats that fit in which day and month stand as in the format that was said; None without one."""
    order = _day_first(said)
    fitting = [one for one in (form.time_format, form.other) if order is not None and _day_first(one) == order]
    return fitting[0] if len(fitting) == 1 else None


def _day_first(time_format: str | None) -> bool | None:
    """Whether the day stands before the month in a format; None where the year does, or one of them is no number."""
    day, month, *years = [(time_format or "").find(code) for code in ("%d", "%m", "%Y", "%y")]
    return None if min(day, month) < 0 or max(years) < max(day, month) else day < month


def _spread(texts: pd.Series) -> pd.Series:
    """Some distinct values, from all over the column."""
    distinct = texts.drop_duplicates()
    return distinct.iloc[:: max(1, len(distinct) // TRIED)]


def _number_form(texts: pd.Series, numbers: pd.Series) -> TimeForm | None:
    """The unit of times that are numbers, by their size."""
    middle = float(numbers.median())
    if texts.str.fullmatch(r"(?:19|20)\d{6}").mean() > ENOUGH:
        return TimeForm("%Y%m%d", dates=True) if _fits(texts, "%Y%m%d") > ENOUGH else None
    if texts.str.fullmatch(r"(?:19|20)\d{12}").mean() > ENOUGH:
        return TimeForm("%Y%m%d%H%M%S") if _fits(texts, "%Y%m%d%H%M%S") > ENOUGH else None
    for unit, low, high in UNITS:
        if low <= middle < high:
            return TimeForm(epoch=unit)
    if 20_000 < middle < 80_000 and float((numbers.diff().dropna() >= 0).mean()) > 0.5:
        return TimeForm(epoch="excel", dates=bool((numbers == numbers.round()).all()))
    return None


def _fits(texts: pd.Series, time_format: str) -> float:
    """The share of texts that a format can read."""
    return float(_by_format(texts, time_format).notna().mean())


def _formats(texts: pd.Series) -> Iterable[str]:
    """Formats that the texts may have, by the marks of the first one."""
    text = str(texts.iloc[0])
    found = re.match(r"(?:[A-Za-z]{3,9},? )?(.*?)[ T,]*(\d{1,2}:\d{2}.*)?$", text)
    if found is None:
        return []
    date, clock = found.group(1), found.group(2) or ""
    lead = "%a, " if re.match(r"[A-Za-z]{3}, ", text) else "%a " if re.match(r"[A-Za-z]{3} [A-Za-z\d]", text) and (
        text.split()[0].lower() in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")) else ""  # fmt: skip
    if lead == "" and re.match(r"[A-Za-z]", text):
        date = text[: len(text) - len(clock)].rstrip(" T,")
    between = text[text.index(date) + len(date) : len(text) - len(clock)] if clock else ""
    marks = re.findall(r"[^0-9A-Za-z]+", date)
    dates = []
    if len(marks) == 2:
        a, b = marks
        months = "%b" if re.search(r"[A-Za-z]", date) else "%m"
        orders = ("%d", months, "%Y"), (months, "%d", "%Y"), ("%Y", months, "%d"), ("%d", months, "%y")
        dates = [f"{x}{a}{y}{b}{z}" for x, y, z in (*orders, (months, "%d", "%y"), ("%y", months, "%d"))]
        dates += [name.replace("%b", "%B") for name in dates] if months == "%b" else []
    elif re.fullmatch(r"\d{8}", date):
        dates = ["%Y%m%d", "%d%m%Y"]
    seconds = "" if clock.count(":") < 2 else ":%S.%f" if "." in clock else ":%S,%f" if "," in clock else ":%S"
    half = re.search(r"( ?)[AaPp][Mm]", clock)
    hours = f"%I:%M{seconds}{half.group(1)}%p" if half else f"%H:%M{seconds}"
    zone = re.search(r"( ?)[+-]\d{2}:?\d{2}$", clock)
    tail = f"{between}{hours}{zone.group(1) + '%z' if zone else ''}" if clock else ""
    return [f"{lead}{name}{tail}" for name in dates]


def _text_form(texts: pd.Series) -> TimeForm | None:
    """The format of times that are text, and a second one where both fit all values."""
    shares = {name: _fits(texts, name) for name in _formats(texts)}
    best = max(shares.values(), default=0.0)
    if best <= ENOUGH:
        return None
    fitting = [name for name, share in shares.items() if share == best]
    fitting = [name for name in fitting if "%B" not in name or name.replace("%B", "%b") not in fitting]
    plain = fitting[0]
    other = next((name for name in fitting[1:] if not _by_format(texts, name).equals(_by_format(texts, plain))), None)
    return TimeForm(plain, other=other, dates=":" not in plain)


def zone_of(doubled: pd.Series) -> str | None:
    """A zone in which all these local times come twice, when summer time ends; None where there is none."""
    times: Any = pd.DatetimeIndex(doubled.dropna().unique())
    if not len(times):
        return None
    for zone in ZONES:
        early = times.tz_localize(zone, ambiguous=np.ones(len(times), bool), nonexistent="NaT")
        late = times.tz_localize(zone, ambiguous=np.zeros(len(times), bool), nonexistent="NaT")
        if not early.hasnans and bool((early != late).all()):
            return zone
    return None
