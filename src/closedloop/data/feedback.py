"""Decode feedback as JSON columns, as strictly as a scoring request.

``failures`` and ``maint`` are events that happened. ``retracted`` names events that did not: a corrected time is the
wrong event retracted and the right one reported. ``complete_until`` says up to when everything has been reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from closedloop.data import findings, machines
from closedloop.data.columns import (
    Columns,
    Faults,
    MachineNames,
    RequestError,
    even,
    events,
    fault,
    machine_ids,
    parse,
    refuse_repeated_names,
    shown,
    table_type,
    times,
)
from closedloop.data.machines import Id, clip
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import CODE_COLUMN, MAX_AHEAD_US, Events, Int64, Schema

TABLES = ("failures", "maint")
_WITHIN = "retracted/"


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Feedback:
    """The events of one body, sorted, without repeated rows.

    ``complete_until`` is the machines and the times in microseconds UTC, where None stands for every machine. ``rows``
    says how many rows were sent of each part. ``names`` are those of the machines, as in ``Tables``. ``body`` is what
    is to be logged: it has numbers for machines that have numbers.
    """

    failures: Events
    maint: Events
    retracted: dict[str, Events]
    complete_until: list[tuple[Id | None, int]]
    rows: dict[str, int]
    names: tuple[str, ...] | None
    body: bytes


class FeedbackDecoder:
    """Decode feedback on machines of one schema; ``now_us`` gives the time in microseconds UTC."""

    def __init__(
        self, schema: Schema, max_rows: int, max_ahead_us: int = MAX_AHEAD_US, now_us: Callable[[], int] = _now_us
    ) -> None:
        self._max_rows = max_rows
        self._max_ahead_us = max_ahead_us
        self._now_us = now_us
        self._components = {name: i for i, name in enumerate(schema.components)}
        self._has_names = schema.has_names
        machine, some_machine = (list[str], list[str | None]) if schema.has_names else (list[int], list[int | None])
        keys: Columns = {
            table: {"datetime": list[str], "machineID": machine, CODE_COLUMN[table]: list[str]} for table in TABLES
        }
        self._columns: Columns = {
            "failures": keys["failures"],
            "maint": {**keys["maint"], findings.COLUMN: findings.TYPE},
            "retracted": keys,
            "complete_until": {"datetime": list[str], "machineID": some_machine},
        }
        kinds: dict[str, Any] = {
            table: table_type(table, self._columns[table], findings.OPTIONAL) for table in (*TABLES, "complete_until")
        }
        retracted = [
            (table, table_type(table, columns) | msgspec.UnsetType, msgspec.UNSET) for table, columns in keys.items()
        ]
        kinds["retracted"] = msgspec.defstruct("retracted", retracted, forbid_unknown_fields=True)
        fields = [(name, kind | msgspec.UnsetType, msgspec.UNSET) for name, kind in kinds.items()]
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Feedback", fields, forbid_unknown_fields=True)
        )

    def __call__(self, body: bytes | str) -> Feedback:
        """The feedback in ``body``.

        Raises:
            RequestError: the body is not feedback of this schema. The error names every faulty column.
        """
        raw, body = parse(self._json, body, self._columns)
        faults: Faults = []
        names = MachineNames(_machines_of(raw)) if self._has_names else None
        sent = self._events("", raw, faults, names)
        findings.check(raw.maint, faults)
        retracted = self._events(_WITHIN, raw.retracted, faults, names)
        complete = _complete_until(raw.complete_until, self._now_us(), faults, self._max_rows, names)
        rows = {
            **{table: _rows(getattr(raw, table)) for table in TABLES},
            "retracted": sum(_rows(getattr(raw.retracted, table, msgspec.UNSET)) for table in TABLES),
            "complete_until": len(complete),
        }
        if not faults:
            _check_retracted(sent, retracted, faults, names)
            findings.check_one(raw.maint, sent["maint"], faults)
        if not faults and not any(rows.values()):
            fault(faults, "", f"no rows: send at least one row of {', '.join(rows)}")
        if faults:
            raise RequestError(faults)
        self._refuse_repeated_names(raw, body)
        named = None if names is None else names.names
        return Feedback(sent["failures"], sent["maint"], retracted, complete, rows, named, body)

    def _events(self, within: str, raw: Any, faults: Faults, names: MachineNames | None) -> dict[str, Events]:
        """Both tables of an object."""
        return {
            table: events(
                table,
                getattr(raw, table, msgspec.UNSET),
                self._components,
                faults,
                self._max_rows,
                self._max_ahead_us,
                names,
                within,
            )
            for table in TABLES
        }

    def _refuse_repeated_names(self, raw: Any, body: bytes) -> None:
        texts = 3 if self._has_names else 2
        tables = [(raw.failures, texts), (raw.maint, texts), (raw.complete_until, 1)]
        strings = findings.strings(raw.maint)
        if self._has_names and raw.complete_until is not msgspec.UNSET:
            strings += sum(machine is not None for machine in raw.complete_until.column_1)
        if raw.retracted is not msgspec.UNSET:
            strings += 1
            tables += [(getattr(raw.retracted, table), texts) for table in TABLES]
        refuse_repeated_names(body, tables, strings)


def _machines_of(raw: Any) -> list[list[str]]:
    """The columns of a body that hold machines."""
    tables = [getattr(part, table, msgspec.UNSET) for part in (raw, raw.retracted) for table in TABLES]
    columns = [table.column_1 for table in tables if table is not msgspec.UNSET]
    if raw.complete_until is not msgspec.UNSET:
        columns.append([machine for machine in raw.complete_until.column_1 if machine is not None])
    return columns


def _rows(table: Any) -> int:
    return 0 if table is msgspec.UNSET else len(table.column_0)


def _complete_until(
    raw: Any, now_us: int, faults: Faults, max_rows: int, names: MachineNames | None
) -> list[tuple[Id | None, int]]:
    """The machines and times of ``complete_until``; none where it was not sent, or has a fault."""
    if raw is msgspec.UNSET:
        return []
    name = "complete_until"
    columns = texts, ids = msgspec.structs.astuple(raw)
    if not even(name, ("datetime", "machineID"), columns, faults, max_rows) or not texts:
        return []
    if names is not None:
        names.check(name, ids, faults)
    else:
        machine_ids(name, [0 if machine is None else machine for machine in ids], faults)
    until: Int64 = times(name, texts, faults)
    if not faults and (until > now_us).any():
        row = int((until > now_us).argmax())
        detail = f"{clip(texts[row])} is in the future (it is {to_text(now_us)} here): send a time that has passed"
        fault(faults, f"/{name}/datetime/{row}", detail)
    return list(zip(ids, until.tolist(), strict=True))


def _check_retracted(
    sent: dict[str, Events], retracted: dict[str, Events], faults: Faults, names: MachineNames | None
) -> None:
    """Refuse an event that is both reported and retracted."""
    for table, events_ in retracted.items():
        if len(events_.time) and (both := _keys(sent[table]) & _keys(events_)):
            machine, time_us, _ = min(both)
            who = shown(machine if names is None else names.names[machine])
            what = f"the event of machine {who} at {to_text(time_us)} is also reported in {table}"
            fault(faults, f"/{_WITHIN}{table}", f"{what}: report it or retract it")


def _keys(table: Events) -> set[tuple[int, int, int]]:
    return set(zip(table.machine.tolist(), table.time.tolist(), table.code.tolist(), strict=True))


def _table(title: str, items: dict[str, Any], example: list[Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON Schema of a table of columns; ``items`` are the types of their values."""
    return {
        "type": "object",
        "description": f"{title} Columns of equal length.",
        "properties": {name: {"type": "array", "items": item} for name, item in items.items()},
        "required": [name for name in items if name not in optional],
        "additionalProperties": False,
        "examples": [{name: [value] for name, value in zip(items, example, strict=True)}],
    }


def openapi(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of feedback, with an example that can be sent as it is."""
    properties = _parts(schema)
    shown = (*TABLES, "complete_until") if schema.components else ("complete_until",)  # without components no events
    one_row = {"properties": {"datetime": {"minItems": 1}}}
    some_row = [{"required": [name], "properties": {name: one_row}} for name in (*TABLES, "complete_until")]
    within = [{"required": [name], "properties": {name: one_row}} for name in TABLES]
    some_row.append({"required": ["retracted"], "properties": {"retracted": {"anyOf": within}}})
    return {
        "type": "object",
        "description": "What happened. At least one row. Times are RFC 3339, UTC where there is no offset.",
        "properties": properties,
        "additionalProperties": False,
        "anyOf": some_row,
        "examples": [{name: properties[name]["examples"][0] for name in shown}],
    }


def _parts(schema: Schema) -> dict[str, Any]:
    """The JSON Schema of each part of feedback."""
    at = {"type": "string", "format": "date-time"}
    machine, (one,) = machines.json_schema(schema.machine_id), machines.examples(schema.machine_id, 1)
    code = {"type": "string", "enum": list(schema.components)}
    some = schema.components[0] if schema.components else ""
    keys = {name: {"datetime": at, "machineID": machine, CODE_COLUMN[name]: code} for name in TABLES}
    maint = {**keys["maint"], findings.COLUMN: findings.JSON_SCHEMA}
    whom = {**machines.json_schema(schema.machine_id, nullable=True), "description": "null stands for every machine."}
    retracted = {
        name: _table(f"{title} that did not happen.", keys[name], ["2015-01-05T05:00:00Z", one, some])
        for name, title in (("failures", "Failures"), ("maint", "Replacements"))
    }
    return {
        "failures": _table("Failures.", keys["failures"], ["2015-01-05T06:00:00Z", one, some]),
        "maint": _table("Replacements.", maint, ["2015-01-05T08:00:00Z", one, some, "worn"], (findings.COLUMN,)),
        "retracted": {
            "type": "object",
            "description": "Events that did not happen, named as they were reported. A retraction is final, and holds "
            "whether it comes before or after the event. To correct a time, retract the event and report it anew.",
            "properties": retracted,
            "additionalProperties": False,
            "examples": [{"failures": retracted["failures"]["examples"][0]}],
        },
        "complete_until": _table(
            "Up to these times all failures and replacements have been reported, so that silence means health. Not in "
            "the future; of several, the latest holds.",
            {"datetime": at, "machineID": whom},
            ["2015-01-05T09:00:00Z", None],
        ),
    }
