"""A hook of schemathesis that corrects generated bodies where JSON Schema cannot express what is accepted.

Columns become equally long, by repeating what they hold; a key that occurs again is left out with its row; 1.0, which
JSON Schema calls an integer, becomes 1; a time before 1970 or ahead of the clock moves to a year between them; and what
is reported is not retracted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any

import schemathesis

_FIRST_YEAR, _LAST_YEAR = 1970, 2025  # times before the first, or ahead of the clock, are refused
_TIME = "2015-01-05T06:00:00Z"
_KEYS = {
    "telemetry": ("machineID", "datetime"),
    "machines": ("machineID",),
    "maint": ("machineID", "datetime", "comp"),  # of which there is one finding
}


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Correct the body of a case that is valid by the schema."""
    if case.meta is None or case.meta.generation.mode.is_negative or not isinstance(case.body, dict):
        return
    (content,) = case.operation.definition.raw["requestBody"]["content"].values()
    (examples,) = content["schema"]["examples"]
    retracted = case.body.pop("retracted", None)
    case.body = {name: _even(table, examples[name], _KEYS.get(name, ())) for name, table in case.body.items()}
    if "complete_until" in case.body:
        times = case.body["complete_until"]["datetime"]
        case.body["complete_until"]["datetime"] = [
            f"2015{_within(text)[4:19]}Z".replace("-02-29", "-02-28") for text in times
        ]
    reported = any(table.get("machineID") for table in case.body.values())
    if retracted is not None and not reported:
        example = {"datetime": [_TIME], "machineID": [1], "failure": ["comp1"], "comp": ["comp1"]}
        case.body["retracted"] = {name: _even(table, example, ()) for name, table in retracted.items()}


def _even(table: dict[str, list], example: dict[str, list], keys: tuple[str, ...]) -> dict[str, list]:
    rows = max(map(len, table.values()))
    even = {name: list(islice(cycle(column or example.get(name, [None])), rows)) for name, column in table.items()}
    even["machineID"] = [machine if machine is None else int(machine) for machine in even["machineID"]]
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
