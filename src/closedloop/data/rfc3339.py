"""RFC 3339 times as int64 microseconds UTC, and back: one compiled pass over a whole column of text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data.schema import Int64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST_US = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_DAY_US = 86_400_000_000
_NEWLINE, _SPACE, _PLUS, _DASH, _DOT, _COLON, _T, _Z = b"\n +-.:TZ"
_LOWER = 32  # between a letter and its lower case


def parse(texts: list[str]) -> tuple[Int64, int]:
    """Microseconds since 1970-01-01T00:00Z, shape (texts), and the index of the first text that is no time, or -1.

    A time is ``YYYY-MM-DDTHH:MM:SS``, then a fraction of at most six digits if any, then ``Z``, ``±HH:MM`` or nothing
    (UTC). A space may stand for the T. Leap seconds, and times that are outside the years 1 to 9999 in UTC, are none.
    """
    times = np.empty(len(texts), np.int64)
    bad = int(_scan(np.frombuffer("\n".join(texts).encode(), np.uint8), times))
    if bad >= 0:  # a text that holds a line break is two lines, and shifts those after it
        bad = next((i for i, text in enumerate(texts[: bad + 1]) if "\n" in text), bad)
    return times, bad


def to_text(time_us: int) -> str:
    """``2015-01-04T06:00:00Z``, with a fraction only where there is one."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


@njit(cache=True, nogil=True)
def _pair(text: NDArray[np.uint8], at: int) -> int:
    """The two-digit number there, or -10000, which keeps every sum with it below 1."""
    tens, ones = int(text[at]) - 48, int(text[at + 1]) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -10_000
    return tens * 10 + ones


@njit(cache=True, nogil=True)
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, ``days_from_civil``)."""
    if month <= 2:
        year -= 1
        month += 12
    era = year // 400
    of_era = year - era * 400
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * (month - 3) + 2) // 5 + day - 719_469


@njit(cache=True, nogil=True)
def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@njit(cache=True, nogil=True)
def _scan(text: NDArray[np.uint8], times: Int64) -> int:
    """Parse one line for each of ``times``; the first bad line, ``len(times)`` if there are more lines, or -1."""
    at, size = 0, len(text)
    for row in range(len(times)):
        if at + 19 > size:
            return row
        year, month, day = _pair(text, at) * 100 + _pair(text, at + 2), _pair(text, at + 5), _pair(text, at + 8)
        hour, minute, second = _pair(text, at + 11), _pair(text, at + 14), _pair(text, at + 17)
        if year < 1 or month < 1 or month > 12 or day < 1 or day > _month_days(year, month):
            return row
        if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
            return row
        if text[at + 4] != _DASH or text[at + 7] != _DASH or text[at + 13] != _COLON or text[at + 16] != _COLON:
            return row
        if text[at + 10] != _T and text[at + 10] != _T + _LOWER and text[at + 10] != _SPACE:
            return row
        at += 19
        micros = 0
        if at < size and text[at] == _DOT:
            at += 1
            first, unit = at, 100_000
            while at < size and at < first + 6 and 48 <= text[at] <= 57:
                micros += (int(text[at]) - 48) * unit
                unit //= 10
                at += 1
            if at == first:
                return row
        offset = 0
        if at < size and (text[at] == _Z or text[at] == _Z + _LOWER):
            at += 1
        elif at + 6 <= size and (text[at] == _PLUS or text[at] == _DASH):
            hours, minutes = _pair(text, at + 1), _pair(text, at + 4)
            if hours < 0 or hours > 23 or minutes < 0 or minutes > 59 or text[at + 3] != _COLON:
                return row
            offset = hours * 60 + minutes if text[at] == _PLUS else -hours * 60 - minutes
            at += 6
        if at < size and text[at] != _NEWLINE:
            return row
        at += 1
        clock = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros
        time = _days(year, month, day) * _DAY_US + clock
        if time < _FIRST_US or time > _LAST_US:
            return row
        times[row] = time
    return len(times) if 0 < at <= size else -1
