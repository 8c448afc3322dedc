"""What a machine may be called, and how names become numbers for the compiled loops.

A fleet's machines have numbers or names, as ``schema.machine_id`` declares. A number is its own code. The code of a
name is its position among the names of the tables, which are sorted by code points: so the order of machines is that of
their names, whatever came first.

A name has 1 to 128 characters, no control character, no white space at its ends, and Unicode's form NFC. What files
hold is brought into that form. A request must have it, so that the same machine is never called in two ways.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Id = int | str
NUMBER, TEXT = "number", "text"
KINDS = (NUMBER, TEXT)
LONGEST = 128  # characters of a name
RULE = f"a name has 1 to {LONGEST} characters and no control character"
_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(?:\.0+)?")
_ENDS = r"[^\s\u0000-\u001f\u007f-\u009f]"
_NAME = rf"^{_ENDS}(?:[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*{_ENDS})?$"  # :func:`fault_of`, as far as a pattern can
_REFUSED = {"Cc", "Cs", "Zl", "Zp"}  # categories: control characters, lone surrogates, ends of lines and paragraphs


def whole(text: str) -> int | None:
    """The number that a text stands for, such as 7 for ``7``, ``007`` and ``7.0``; None where it stands for none."""
    found = _WHOLE.fullmatch(text)
    return None if found is None or not -(2**63) <= int(found[1]) < 2**63 else int(found[1])


def canonical(name: str) -> str:
    """A name as it stands for its machine: without white space at its ends, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name.strip())


def fault_of(name: str) -> str | None:
    """Why no machine can be called so, and what to do; None where one can."""
    if 0 < len(name) <= LONGEST and name.isascii() and name.isprintable() and name == name.strip():
        return None
    if not name.strip():
        return "is empty: give the machine's name"
    if len(name) > LONGEST:
        return f"has {len(name)} characters: a name has at most {LONGEST}"
    if any(unicodedata.category(character) in _REFUSED for character in name):
        return "holds a control character: leave it out"
    if name != name.strip():
        return "begins or ends with white space: send it without"
    return None if unicodedata.is_normalized("NFC", name) else "is not in Unicode's form NFC: normalise it"


def clip(text: str) -> str:
    """A text as an error quotes it: ASCII, and at most 60 characters of it."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")


def names_in(columns: Iterable[list[str]]) -> tuple[str, ...]:
    """The distinct names in some columns, sorted."""
    found: set[str] = set()
    for column in columns:
        if column and column.count(column[0]) == len(column):  # one machine: cheaper than to hash each row
            found.add(column[0])
        else:
            found.update(column)
    return tuple(sorted(found))


def codes_in(names: tuple[str, ...], ids: Iterable[str]) -> NDArray[np.int64]:
    """The position of each id among the names, -1 where it is not there."""
    position = {name: code for code, name in enumerate(names)}
    return np.array([position.get(name, -1) for name in ids], np.int64)


def named(names: tuple[str, ...] | None, codes: NDArray[np.int64]) -> Any:
    """What machines are called: their names as an array of objects, or their numbers where there are no names."""
    return codes if names is None else np.array(names, object)[codes]


def examples(kind: str, count: int) -> list[Id]:
    """Made-up machines, for an example that can be sent as it is."""
    return [number if kind == NUMBER else f"machine-{number}" for number in range(1, count + 1)]


def json_type(kind: str) -> str:
    """The JSON type of a machine in an answer."""
    return "string" if kind == TEXT else "integer"


def json_schema(kind: str, *, nullable: bool = False) -> dict[str, Any]:
    """The JSON Schema of a machine in a request; a number is taken as text too."""
    null = ["null"] if nullable else []
    if kind == TEXT:
        return {"type": ["string", *null] if null else "string", "maxLength": LONGEST, "pattern": _NAME}
    limits = {"minimum": -(2**63), "maximum": 2**63 - 1}
    return {"type": ["integer", "string", *null], **limits, "pattern": f"^{_WHOLE.pattern}$"}
