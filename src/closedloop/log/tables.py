"""The three Delta tables that the log goes to: their columns.

One row is one record. Its tables and its results are nested columns, in which a sensor or a component is a value and no
column's name: another fleet, or a new sensor, changes no schema.
"""

from __future__ import annotations

from arro3.core import DataType, Field, Schema

# The tables grow by nullable columns only, and older shippers go on beside newer ones. What an older version could not
# read or add to takes another format: a shipper adds to no other, and a reader reads no other.
FORMAT = "1"
REQUESTS, FEEDBACK, REJECTS = "requests", "feedback", "rejects"


def _list(element: DataType) -> DataType:
    return DataType.list(Field("element", element))


def _struct(**columns: DataType) -> DataType:
    return DataType.struct([Field(name, kind) for name, kind in columns.items()])


_TEXT, _WHOLE, _NUMBER, _FLAG = DataType.string(), DataType.int64(), DataType.float64(), DataType.bool()
_TIME = DataType.timestamp("us", tz="UTC")
_PLACE = {"datetime": _list(_TIME), "machineID": _list(_WHOLE)}
# Of a fleet whose machines have names, machineID is null and this column beside it has the names; of any other it is
# null. It came later, so it is the last: where a table is older, Delta adds it there.
NAME = "machineName"
_NAMES = {NAME: _list(_TEXT)}
_REPLACED = {**_PLACE, "comp": _list(_TEXT)}
_RESULT = _struct(
    machineID=_WHOLE,
    datetime=_TIME,
    anomaly=_struct(score=_NUMBER, alarm=_FLAG),
    failure=_list(_struct(component=_TEXT, probability=_NUMBER, alarm=_FLAG)),
    warnings=_list(_TEXT),
    machineName=_TEXT,
)
_ABOUT = {
    "request_id": _TEXT,
    "received": _TIME,
    "answered": _TIME,
    "caller": _TEXT,
    "status": _WHOLE,
    "model": _TEXT,
    "image": _TEXT,
    "body_sha256": _TEXT,
    "spool": _TEXT,
    "segment": _WHOLE,
    "index": _WHOLE,
}
_SCORED = {
    "telemetry": _struct(**_PLACE, sensors=_list(_struct(name=_TEXT, values=_list(_NUMBER))), **_NAMES),
    "errors": _struct(**_PLACE, errorID=_list(_TEXT), **_NAMES),
    "maint": _struct(**_REPLACED, **_NAMES, finding=_list(_TEXT)),  # the finding came later still
    "machines": _struct(machineID=_list(_WHOLE), model=_list(_TEXT), age=_list(_NUMBER), **_NAMES),
}
_FAILURES = _struct(**_PLACE, failure=_list(_TEXT), **_NAMES)
_FED = {
    "failures": _FAILURES,
    "maint": _struct(**_REPLACED, finding=_list(_TEXT), **_NAMES),
    "retracted_failures": _FAILURES,
    "retracted_maint": _struct(**_REPLACED, **_NAMES),
    "complete_until": _struct(**_PLACE, **_NAMES),  # a machine that is null stands for every machine
}
_REFUSED = {"route": _TEXT, "title": _TEXT, "detail": _TEXT, "body_bytes": _WHOLE, "body": _TEXT}
TABLES_OF: dict[str, tuple[str, ...]] = {REQUESTS: tuple(_SCORED), FEEDBACK: tuple(_FED), REJECTS: ()}
SCHEMAS = {
    REQUESTS: Schema([Field(name, kind) for name, kind in {**_ABOUT, **_SCORED, "results": _list(_RESULT)}.items()]),
    FEEDBACK: Schema([Field(name, kind) for name, kind in {**_ABOUT, **_FED}.items()]),
    REJECTS: Schema([Field(name, kind) for name, kind in {**_ABOUT, **_REFUSED}.items()]),
}


def misfit(table: DataType, ours: DataType, where: str) -> str | None:
    """Which part of a table has another type than ours; what one of them has and the other lacks is no misfit."""
    if DataType.is_struct(table) and DataType.is_struct(ours):
        theirs = {field.name: field.type for field in table.fields}
        parts = (
            (theirs[field.name], field.type, f"{where}.{field.name}") for field in ours.fields if field.name in theirs
        )
        return next((found for part in parts if (found := misfit(*part))), None)
    if DataType.is_list(table) and DataType.is_list(ours):
        element, own = table.value_field, ours.value_field
        return misfit(element.type, own.type, where) if element is not None and own is not None else None
    return None if table == ours else f"{where} is {table}, and not {ours}"
