"""What happened: failures and replacements sent back as JSON columns, decoded as strictly as a scoring request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from closedloop.data.columns import (
    Columns,
    Faults,
    RequestError,
    events,
    fault,
    parse,
    refuse_repeated_names,
    table_type,
)
from closedloop.data.schema import CODE_COLUMN, MAX_AHEAD_US, Events, Schema

TABLES = ("failures", "maint")


@dataclass(frozen=True)
class Feedback:
    """Failures and replacements, sorted, exact repetitions dropped; ``rows`` says how many were sent of each table."""

    failures: Events
    maint: Events
    rows: dict[str, int]


class FeedbackDecoder:
    """Decodes feedback on machines of one schema."""

    def __init__(self, schema: Schema, max_rows: int, max_ahead_us: int = MAX_AHEAD_US) -> None:
        self._max_rows = max_rows
        self._max_ahead_us = max_ahead_us
        self._components = {name: i for i, name in enumerate(schema.components)}
        self._columns: Columns = {
            table: {"datetime": list[str], "machineID": list[int], CODE_COLUMN[table]: list[str]} for table in TABLES
        }
        tables = {table: table_type(table, columns) for table, columns in self._columns.items()}
        fields = [(table, kind | msgspec.UnsetType, msgspec.UNSET) for table, kind in tables.items()]
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Feedback", fields, forbid_unknown_fields=True)
        )

    def __call__(self, body: bytes | str) -> Feedback:
        """The events of ``body``.

        Raises:
            RequestError: the body is no feedback of this schema; every faulty column is named.
        """
        raw, body = parse(self._json, body, self._columns)
        faults: Faults = []
        failures = events("failures", raw.failures, self._components, faults, self._max_rows, self._max_ahead_us)
        maint = events("maint", raw.maint, self._components, faults, self._max_rows, self._max_ahead_us)
        rows = {table: len(sent.column_0) for table in TABLES if (sent := getattr(raw, table)) is not msgspec.UNSET}
        if not faults and not any(rows.values()):
            fault(faults, "", "nothing happened: send at least one row of failures or maint")
        if faults:
            raise RequestError(faults)
        refuse_repeated_names(body, [(raw.failures, 2), (raw.maint, 2)])
        return Feedback(failures, maint, {table: rows.get(table, 0) for table in TABLES})


def openapi(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of feedback, with an example that can be sent as it is."""
    columns: dict[str, Any] = {
        "datetime": {"type": "string", "format": "date-time"},
        "machineID": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    }
    shown = dict(
        zip(TABLES, (("2015-01-05T06:00:00Z", "Failures."), ("2015-01-05T08:00:00Z", "Replacements.")), strict=True)
    )
    tables: dict[str, Any] = {}
    for table, (time, title) in shown.items():
        items = {**columns, CODE_COLUMN[table]: {"type": "string", "enum": list(schema.components)}}
        example = dict(zip(items, ([time], [1], list(schema.components[:1])), strict=True))
        tables[table] = {
            "type": "object",
            "description": f"{title} Columns of equal length.",
            "properties": {name: {"type": "array", "items": item} for name, item in items.items()},
            "required": list(items),
            "additionalProperties": False,
            "examples": [example],
        }
    return {
        "type": "object",
        "description": "What happened. At least one row. Times are RFC 3339, UTC where there is no offset.",
        "properties": tables,
        "additionalProperties": False,
        "anyOf": [
            {"required": [table], "properties": {table: {"properties": {"datetime": {"minItems": 1}}}}}
            for table in TABLES
        ],
        "examples": [{name: properties["examples"][0] for name, properties in tables.items()}],
    }
