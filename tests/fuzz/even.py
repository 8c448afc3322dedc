"""A hook of schemathesis: what JSON Schema cannot say of a body that is to be accepted is mended before it is sent.

Columns become equally long, by repeating what they hold; a key that occurs again is left out with its row; 1.0, which
JSON Schema calls an integer, becomes 1; and a time before 1970 or ahead of the clock moves to a year between them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any

import schemathesis

_FIRST_YEAR, _LAST_YEAR = 1970, 2025  # times before the first, or ahead of the clock, are refused
_KEYS = {"telemetry": ("machineID", "datetime"), "machines": ("machineID",)}


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Mend the body of a case that the schema calls valid."""
    if case.meta is None or case.meta.generation.mode.is_negative or not isinstance(case.body, dict):
        return
    (content,) = case.operation.definition.raw["requestBody"]["content"].values()
    case.body = {
        name: _even(table, content["schema"]["properties"][name]["examples"][0], _KEYS.get(name, ()))
        for name, table in case.body.items()
    }


def _even(table: dict[str, list], example: dict[str, list], keys: tuple[str, ...]) -> dict[str, list]:
    rows = max(map(len, table.values()))
    even = {name: list(islice(cycle(column or example[name]), rows)) for name, column in table.items()}
    even["machineID"] = [int(machine) for machine in even["machineID"]]
    if "datetime" in even:
        even["datetime"] = [_within(text) for text in even["datetime"]]
    kept = {tuple(_instant(even[name][row]) for name in keys) if keys else row: row for row in range(rows)}
    return {name: [column[row] for row in kept.values()] for name, column in even.items()}


def _within(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.upper())
        year = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).year
    except OverflowError:
        year = 0
    except ValueError:  # not one that Python reads: the service shall say
        return text
    return text if _FIRST_YEAR <= year <= _LAST_YEAR else f"{_LAST_YEAR}-01-01{text[10:19]}Z"


def _instant(value: Any) -> Any:
    """The same for two texts of one moment."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        return value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
