"""The column ``finding`` that ``maint`` may have in a body: what was found at each replacement.

Scoring reads no finding. It is checked and logged with a request all the same: the log of requests is training data.
"""

from __future__ import annotations

from typing import Any

import msgspec

from closedloop.data.columns import Faults, fault, times
from closedloop.data.machines import Id, clip
from closedloop.data.schema import FINDINGS, Events

COLUMN = "finding"
TYPE = list[str | None]
OPTIONAL = frozenset({COLUMN})
JSON_SCHEMA = {
    "type": ["string", "null"],
    "enum": [*FINDINGS, None],
    "description": "worn: the component was about to fail. sound: it was replaced too early. null: not known.",
}


def check(maint: Any, faults: Faults) -> None:
    """Note a fault where the column has another length than the table, and at its first unknown name."""
    if (found := _sent(maint)) is None:
        return
    if len(found) != len(maint.column_0):
        detail = f"{len(found)} values, but datetime has {len(maint.column_0)}: give every column one value a row"
        fault(faults, "/maint/finding", detail)
    for row, finding in enumerate(found):
        if finding is not None and finding not in FINDINGS:
            known = f"known are {list(FINDINGS)}, and null where it is not known"
            fault(faults, f"/maint/finding/{row}", f"unknown name {clip(finding)}: {known}")
            break


def check_one(maint: Any, sent: Events, faults: Faults) -> None:
    """Note a fault at a replacement with two findings; where no event of ``sent`` is repeated, nothing can differ."""
    if (found := _sent(maint)) is None or len(maint.column_0) == len(sent.time):
        return
    known: dict[tuple[Id, int, str], str] = {}
    rows = zip(maint.column_1, times("maint", maint.column_0, faults).tolist(), maint.column_2, found, strict=True)
    for row, (machine, time_us, component, finding) in enumerate(rows):
        if finding is not None and known.setdefault((machine, time_us, component), finding) != finding:
            fault(faults, f"/maint/finding/{row}", "an earlier row has another finding for this replacement: send one")
            return


def strings(maint: Any) -> int:
    """How many strings of the body belong to the column beyond its name: -1 if the name was not sent either."""
    if maint is msgspec.UNSET:
        return 0
    found = _sent(maint)
    return -1 if found is None else sum(finding is not None for finding in found)


def _sent(maint: Any) -> list[str | None] | None:
    """The column, None where it was not sent. It is the fourth of the decoded table."""
    if maint is msgspec.UNSET or maint.column_3 is msgspec.UNSET:
        return None
    found: list[str | None] = maint.column_3
    return found
