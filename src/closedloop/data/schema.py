"""The schema of a fleet, and the five tables that it describes, as NumPy columns.

Table and column names are those of Microsoft's predictive-maintenance reference data. Sensors, components, error
codes, machine models, the sampling period and plausible ranges come from ``params.yaml`` and are never in code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data import machines
from closedloop.data.marks import Marks
from closedloop.data.order import canonical, increases

Int64 = NDArray[np.int64]
Int16 = NDArray[np.int16]
Float64 = NDArray[np.float64]

HOUR_US = 3_600_000_000  # times are int64 microseconds since 1970-01-01T00:00Z, exact and cheap to compare
MAX_AHEAD_US = 24 * HOUR_US  # a time that lies further ahead of the clock is not plausible
ROWS_AT_ONCE = 2**18  # rows of one step through a table, so that memory does not grow with the table
KEYS = {
    "telemetry": ("machineID", "datetime"),
    "errors": ("machineID", "datetime", "errorID"),
    "maint": ("machineID", "datetime", "comp"),
    "failures": ("machineID", "datetime", "failure"),
    "machines": ("machineID",),
}
FINDINGS = ("worn", "sound")  # what was found at a replacement: due, or too early
UNWRITABLE = re.compile(r'["\\\x00-\x1f]')  # in a sensor's name: it is a name in JSON, which msgspec decodes unescaped
CODE_COLUMN = {"errors": "errorID", "maint": "comp", "failures": "failure"}


def microseconds(hours: float) -> int:
    """Hours as whole microseconds, rounded: 7 minutes, 0.11666666666666667 h, come out exact."""
    return round(hours * HOUR_US)


class DataError(ValueError):
    """The data was refused. The message says what is wrong, where, and how to fix it."""


@dataclass(frozen=True)
class Schema:
    """Names, sampling period and plausible ranges of one kind of fleet.

    ``ranges`` gives each sensor's plausible (low, high) in the sensor's own unit. ``machine_id`` says whether machines
    have a ``number`` or a name, ``text``.
    """

    sensors: tuple[str, ...]
    components: tuple[str, ...]
    errors: tuple[str, ...]
    models: tuple[str, ...]
    sampling_minutes: int
    ranges: tuple[tuple[float, float], ...]
    machine_id: str = machines.NUMBER

    def __hash__(self) -> int:
        return hash((self.sensors, self.sampling_minutes))  # cheap: every request looks its schema up in caches

    @cached_property
    def limits(self) -> Float64:
        """``ranges`` as an array (sensors, 2)."""
        return np.array(self.ranges, np.float64).reshape(-1, 2)

    @property
    def period_us(self) -> int:
        """Sampling period in microseconds."""
        return self.sampling_minutes * 60_000_000

    @property
    def has_names(self) -> bool:
        """Whether machines have names, and no numbers."""
        return self.machine_id == machines.TEXT

    @classmethod
    def from_dict(cls, raw: dict) -> Schema:
        """Read the ``schema:`` section of ``params.yaml`` or of a bundle's manifest.

        Raises:
            DataError: a key is missing or unknown, or a value has the wrong form.
        """
        known = {"sensors", "components", "errors", "models", "sampling_minutes"}
        if unknown := set(raw) - known - {"machine_id"}:
            raise DataError(f"schema: unknown key {sorted(unknown)[0]!r}; known are {sorted(known | {'machine_id'})}")
        if missing := known - set(raw):
            raise DataError(f"schema: {sorted(missing)[0]!r} is missing; add it under schema: in params.yaml")
        try:
            sensors = tuple(raw["sensors"])
            ranges = tuple((float(low), float(high)) for low, high in raw["sensors"].values())
        except (AttributeError, TypeError, ValueError):
            raise DataError("schema.sensors: write each sensor as 'name: [low, high]', its plausible range") from None
        names = {}
        for key in ("components", "errors", "models"):
            if not isinstance(raw[key], list):
                raise DataError(f"schema.{key}: {raw[key]!r} is not a list; write [] where there is none")
            names[key] = tuple(str(name) for name in raw[key])
        for key, values in (("sensors", sensors), *names.items()):
            if len(set(values)) != len(values):
                raise DataError(f"schema.{key}: a name occurs twice in {list(values)}")
        if not sensors:
            raise DataError("schema.sensors: name at least one sensor")
        if taken := sorted({"datetime", "machineID"} & set(sensors)):
            raise DataError(f"schema.sensors: {taken[0]!r} is the name of a key column; give the sensor another name")
        if bad := [name for name in sensors if UNWRITABLE.search(str(name))]:
            raise DataError(
                f"schema.sensors: {bad[0]!r} has a quotation mark, a backslash or a control character, which the names"
                " of a request cannot have; rename the column in your files"
            )
        if "anomaly" in names["components"]:
            raise DataError(
                "schema.components: 'anomaly' is what the head beside the components is called; give the component "
                "another name, in your files too"
            )
        minutes = raw["sampling_minutes"]
        if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes < 1:
            raise DataError(f"schema.sampling_minutes: {minutes!r} is not a whole number of minutes, 1 or more")
        machine_id = raw.get("machine_id", machines.NUMBER)
        if machine_id not in machines.KINDS:
            raise DataError(f"schema.machine_id: {machine_id!r} is unknown; choose one of {', '.join(machines.KINDS)}")
        return cls(sensors=sensors, ranges=ranges, sampling_minutes=minutes, machine_id=machine_id, **names)

    def to_dict(self) -> dict[str, object]:
        """The schema as a mapping for a manifest: the inverse of :meth:`from_dict`."""
        kind = {"machine_id": self.machine_id} if self.has_names else {}  # absent, it is a number
        return {
            "sensors": {name: list(limits) for name, limits in zip(self.sensors, self.ranges, strict=True)},
            "components": list(self.components),
            "errors": list(self.errors),
            "models": list(self.models),
            "sampling_minutes": self.sampling_minutes,
            **kind,
        }


@dataclass(frozen=True)
class Events:
    """Errors, replacements or failures, sorted by (machine, time, code); ``code`` indexes the schema's list.

    ``finding`` indexes ``FINDINGS`` for each replacement, -1 where nothing is known; None where that holds for all.
    """

    machine: Int64
    time: Int64
    code: Int16
    finding: Int16 | None = None

    @classmethod
    def empty(cls) -> Events:
        """A table without events."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int16))

    @classmethod
    def of(cls, machine: Int64, time: Int64, code: Int16, finding: Int16 | None = None) -> Events:
        """The events sorted, with each key once."""
        order = np.lexsort((code, time, machine))
        machine, time, code = machine[order], time[order], code[order]
        new = np.ones(len(machine), bool)
        new[1:] = (np.diff(machine) != 0) | (np.diff(time) != 0) | (np.diff(code) != 0)
        known = finding is not None and bool((finding >= 0).any())
        return cls(machine[new], time[new], code[new], finding[order][new] if finding is not None and known else None)

    def rows(self, keep: slice | NDArray[np.bool_]) -> Events:
        """Only these events."""
        finding = None if self.finding is None else self.finding[keep]
        return Events(self.machine[keep], self.time[keep], self.code[keep], finding)

    def slice(self, machine: int) -> Events:
        """The events of one machine."""
        low, high = np.searchsorted(self.machine, [machine, machine + 1])
        return self.rows(slice(low, high))


@dataclass(frozen=True)
class MachineWindow:
    """The sorted arrays of one machine.

    ``values`` has shape (sensors, rows), NaN where a reading is missing; ``model`` is -1 and ``age`` NaN (years)
    where the machine is not described. ``until`` is its maturity mark, None where that is its last telemetry.
    """

    machine: int
    time: Int64
    values: Float64
    errors: Events
    maint: Events
    failures: Events
    model: int
    age: float
    until: int | None = None


@dataclass(frozen=True)
class Tables:
    """The tables of a fleet, or of a request, as NumPy columns.

    Telemetry is sorted by (machine, time), each key once; ``values`` has shape (sensors, rows). ``failures`` is None
    where the fleet has no such table (then a run is anomaly-only). ``machine_ids`` is sorted. ``marks`` is None where
    everything up to each machine's last telemetry has been reported.

    A machine is its number where ``names`` is None, else its position in ``names``, which is sorted.
    """

    machine: Int64
    time: Int64
    values: Float64
    errors: Events
    maint: Events
    failures: Events | None
    machine_ids: Int64
    machine_model: Int16
    machine_age: Float64
    marks: Marks | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        machine: Int64,
        time: Int64,
        values: Float64,
        errors: Events,
        maint: Events,
        failures: Events | None,
        described: tuple[Int64, Int16, Float64],
        marks: Marks | None = None,
        names: tuple[str, ...] | None = None,
    ) -> Tables:
        """The tables sorted by key. The keys must be unique: callers check that."""
        if increases(machine, time):  # as most are: millions of readings are not copied in another order
            machine, time, values = machine.copy(), time.copy(), np.require(values, requirements=["C", "W"])
        else:
            order = np.lexsort((time, machine))
            machine, time, values = machine[order], time[order], np.ascontiguousarray(values[:, order])
        by_id = np.argsort(described[0], kind="stable")
        return cls(
            machine,
            time,
            values,
            errors,
            maint,
            failures,
            described[0][by_id],
            described[1][by_id],
            described[2][by_id],
            marks,
            names,
        )

    def named(self, machine: Int64) -> Any:
        """What these machines are called: their numbers, or their names as objects."""
        return machines.named(self.names, machine)

    def codes(self, ids: Iterable[str]) -> list[int | None]:
        """The inverse of :meth:`named`, for ids as text; None for a machine that has no name here."""
        if self.names is None:
            return [int(text) for text in ids]
        return [None if code < 0 else code for code in machines.codes_in(self.names, ids).tolist()]

    def recoded(self, names: tuple[str, ...]) -> Tables:
        """The same tables of a fleet with names, where a machine is its position in another sorted list of names."""
        if self.names is None:
            return self
        new = machines.codes_in(names, self.names)

        def events(table: Events) -> Events:
            return replace(table, machine=new[table.machine])

        return replace(
            self,
            machine=new[self.machine],
            errors=events(self.errors),
            maint=events(self.maint),
            failures=None if self.failures is None else events(self.failures),
            machine_ids=new[self.machine_ids],
            marks=None if self.marks is None else Marks(new[self.marks.machine], self.marks.until),
            names=names,
        )

    def _compact(self) -> Tables:
        """The same tables with no other names than those of their machines."""
        if self.names is None:
            return self
        found = (self.errors, self.maint, *([] if self.failures is None else [self.failures]))
        ids = [self.machine, self.machine_ids, *(events.machine for events in found)]
        used = np.unique(np.concatenate(ids if self.marks is None else [*ids, self.marks.machine]))
        return self.recoded(tuple(self.named(used).tolist()))

    def bounds(self) -> tuple[Int64, Int64]:
        """The machines that have telemetry, and their row offsets, one more than machines."""
        rows = len(self.machine)
        if rows and self.machine[0] == self.machine[-1]:  # one machine, as in most requests
            return self.machine[:1], np.array([0, rows])
        parts = [np.arange(min(rows, 1))]
        for low in range(0, rows - 1, ROWS_AT_ONCE):  # np.unique would sort them again
            after = self.machine[low + 1 : low + 1 + ROWS_AT_ONCE]
            parts.append(low + 1 + np.flatnonzero(after != self.machine[low : low + len(after)]))
        starts = np.concatenate(parts)
        return self.machine[starts], np.append(starts, rows)

    def windows(self) -> Iterator[MachineWindow]:
        """Yield each machine that has telemetry, in order of its id."""
        ids, offsets = self.bounds()
        failures = Events.empty() if self.failures is None else self.failures
        until = [None] * len(ids) if self.marks is None else self.marks.at(ids).tolist()
        rows = zip(ids.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), until, strict=True)
        for machine, start, stop, mark in rows:
            at = int(np.searchsorted(self.machine_ids, machine))
            known = at < len(self.machine_ids) and int(self.machine_ids[at]) == machine
            yield MachineWindow(
                machine,
                self.time[start:stop],
                self.values[:, start:stop],
                self.errors.slice(machine),
                self.maint.slice(machine),
                failures.slice(machine),
                int(self.machine_model[at]) if known else -1,
                float(self.machine_age[at]) if known else float("nan"),
                mark,
            )

    def select(self, chosen: Int64) -> Tables:
        """The same tables, of these machines only."""
        wanted = np.unique(chosen)

        def events(table: Events) -> Events:
            return table.rows(np.isin(table.machine, wanted))

        rows, ids = np.isin(self.machine, wanted), np.isin(self.machine_ids, wanted)
        return Tables(
            self.machine[rows],
            self.time[rows],
            np.ascontiguousarray(self.values[:, rows]),
            events(self.errors),
            events(self.maint),
            None if self.failures is None else events(self.failures),
            self.machine_ids[ids],
            self.machine_model[ids],
            self.machine_age[ids],
            None if self.marks is None else self.marks.select(wanted),
            self.names,
        )

    def rows(self, keep: NDArray[np.bool_]) -> Tables:
        """The same tables with only these telemetry rows."""
        values = np.ascontiguousarray(self.values[:, keep])
        return replace(self, machine=self.machine[keep], time=self.time[keep], values=values)

    def fingerprint(self, sensors: Sequence[str] = ()) -> str:
        """``sha256:…`` of every column in canonical order: equal for equal data, whatever the file format.

        With the names of the ``sensors``, it is that of the sensors in the order of their names.
        Marks and findings count where there are any, so that tables without them keep the fingerprint they had before.
        """
        digest = hashlib.sha256()

        def begin(name: str, column: NDArray[np.generic]) -> None:
            digest.update(f"{name}:{column.dtype.str}:{column.shape};".encode())

        def add(name: str, column: NDArray[np.generic]) -> None:
            begin(name, column)
            digest.update(np.ascontiguousarray(column).data)

        content = self._compact()
        order = np.argsort(sensors) if sensors else range(len(content.values))
        for item in fields(self):
            value = getattr(content, item.name)
            if item.name == "names":
                if value is not None:
                    add("names", np.frombuffer("\0".join(value).encode(), np.uint8))
            elif isinstance(value, Events):
                for column in ("machine", "time", "code"):
                    add(f"{item.name}.{column}", getattr(value, column))
                if value.finding is not None and (value.finding >= 0).any():
                    add(f"{item.name}.finding", value.finding)
            elif item.name == "marks":
                if value is not None:
                    add("marks.machine", value.machine)
                    add("marks.until", value.until)
            elif value is None:
                digest.update(f"{item.name}:none;".encode())
            elif item.name == "values":
                begin(item.name, value)
                for row in order:  # one sensor at a time, since all may be gigabytes
                    digest.update(canonical(value[row]).data)
            else:
                add(item.name, canonical(value) if value.dtype.kind == "f" else value)
        return "sha256:" + digest.hexdigest()
