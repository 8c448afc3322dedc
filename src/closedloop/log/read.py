"""The five tables back from the log: the union of all requests and all feedback, by each table's key.

Clients send overlapping windows. Where two rows have one key, the later one wins; values that lost are counted and kept
apart. Within a spool the sequence is the order, whatever its clock did: a record counts as received no earlier than the
one before it. Across spools the time received is the order, but no later than the commits allow that came after it
(:class:`closedloop.log.history.Bounds`); at equal times the order of arrival. The same request again (id and body)
counts once, as of the first. What a standing order of erasure names is left out.

Feedback corrects: a failure or a replacement that was retracted is absent, wherever it was reported and whichever came
first. A finding beats none; of several the later one wins. A mark ``complete_until`` never decreases: the latest holds.
So what counts is what was said, and not in which order it was delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from closedloop.data.machines import Id, named
from closedloop.data.schema import CODE_COLUMN, DataError, Events, Int16, Int64, Schema, Tables
from closedloop.log import orders
from closedloop.log.files import files_of
from closedloop.log.gather import RETRACTED, Aside, CompleteUntil, Gathered, Names
from closedloop.log.sequence import Records, rank
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import FEEDBACK, REQUESTS, TABLES_OF
from closedloop.log.union import from_bits

__all__ = ["Aside", "CompleteUntil", "Log", "Loser", "read"]


class Loser(NamedTuple):
    """Values that a later row with the same key replaced. ``time`` is microseconds UTC, None for a machine.

    ``values`` are the sensors' readings, the machine's model and age, or the finding of a replacement.
    """

    table: str
    machine: Id
    time: int | None
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Log:
    """The tables of a log, and what reading them found.

    ``versions`` are those of the Delta tables that were read, None for one that is not there. ``records`` counts the
    rows of both, ``replayed`` those of them that were the same request again, ``erased`` those that an order of erasure
    leaves out whole. ``foreign`` counts the rows of tables that are left out because their machines have a number where
    the schema's have names, or the other way round. ``impossible_clocks`` counts records that claim to be received more
    than a minute after a commit that came later: the clock of their replica was ahead.

    ``findings`` has for each row of ``tables.maint`` the position in ``closedloop.data.schema.FINDINGS``, -1 where
    nothing is known. ``retracted`` counts the events that were reported and are left out. ``aside`` is the distinct
    rows that name something which the schema does not have: events of such a code are in no table, and a machine of
    such a model has no model.
    """

    tables: Tables
    versions: dict[str, int | None]
    records: int
    replayed: int
    erased: int
    foreign: int
    impossible_clocks: int
    losers: list[Loser]
    findings: Int16
    complete_until: CompleteUntil
    retracted: int
    aside: list[Aside]


def read(sink: Sink, schema: Schema, versions: Mapping[str, int | None] | None = None) -> Log:
    """The tables of a log as they are, or as they were at the versions given for ``requests`` and ``feedback``.

    A version that is None says that the table was not there yet: then its records are left out.

    ``failures`` is always there, and empty where none was fed back. A sensor of the schema that a request did not send
    is missing in its rows, and one that the schema does not name is left aside, as are codes and models (``aside``).

    Raises:
        DataError: there is no log, or one of another format.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    try:
        asked = {table: -1 if versions is None else versions.get(table, -1) for table in (REQUESTS, FEEDBACK)}
        found = {
            table: None if version is None else files_of(sink, table, None if version < 0 else version)
            for table, version in asked.items()
        }
        erased = orders.find(sink)
    except SinkError as error:
        raise DataError(str(error)) from None
    if found[REQUESTS] is None:
        raise DataError(f"{sink.place}: there is no log; name the folder or address that LOG_SINK has")
    present = {table: files for table, files in found.items() if files is not None}
    records = Records(erased.callers)
    for table, files in present.items():
        records.add(table, files)
    ranks = rank(records)
    gathered = Gathered(schema, erased, sum(present[REQUESTS].values.values()))
    position = 0
    for table, files in present.items():
        for batch in files.batches(TABLES_OF[table]):
            gathered.add(table, batch, ranks.rank[position : position + len(batch)])
            position += len(batch)
    result = _Result(gathered, schema)
    return Log(
        tables=result.tables,
        versions={table: None if files is None else files.version for table, files in found.items()},
        records=len(ranks.rank),
        replayed=ranks.replayed,
        erased=ranks.erased,
        foreign=gathered.foreign,
        impossible_clocks=ranks.impossible,
        losers=result.losers,
        findings=result.findings,
        complete_until=gathered.complete_until(),
        retracted=result.retracted,
        aside=result.aside,
    )


class _Result:
    """The winners as tables, and apart from them what lost, what was retracted, and what the schema does not know."""

    def __init__(self, gathered: Gathered, schema: Schema) -> None:
        self._gathered = gathered
        self.losers: list[Loser] = []
        self.aside: list[Aside] = []
        self.retracted = 0
        self.names, self._codes = gathered.sorted_machines()
        telemetry, lost = gathered.unions["telemetry"].result(self._codes)
        readings = zip(self._named(lost[0]), lost[1].tolist(), from_bits(lost[2:]).T.tolist(), strict=True)
        self.losers += [Loser("telemetry", machine, time, tuple(values)) for machine, time, values in readings]
        machines = self._machines()
        events = {table: self._events(table) for table in CODE_COLUMN}
        self.findings = self._findings(events["maint"])
        self.tables = Tables(  # in order already
            telemetry[0],
            telemetry[1],
            from_bits(telemetry[2:]),
            events["errors"],
            events["maint"],
            events["failures"],
            *machines,
            names=self.names,
        )

    def _named(self, machine: Int64) -> list[Id]:
        """What machines are called."""
        return named(self.names, machine).tolist()

    def _machines(self) -> tuple[Int64, Int16, np.ndarray]:
        rows, lost = self._gathered.unions["machines"].result(self._codes)
        names = self._gathered.models
        unknown = rows[1] >= names.known
        self._set_aside("machines.model", rows[0][unknown], None, rows[1][unknown], names)
        shown = [*names.names, None]  # -1 is the last: missing
        self.losers += [
            Loser("machines", machine, None, (shown[model], age))
            for machine, model, age in zip(
                self._named(lost[0]), lost[1].tolist(), from_bits(lost[2]).tolist(), strict=True
            )
        ]
        return rows[0], np.where(unknown, -1, rows[1]).astype(np.int16), from_bits(rows[2])

    def _events(self, table: str) -> Events:
        """A table of events without those that were retracted, or of which the schema does not know the code."""
        rows = self._gathered.unions[table].result(self._codes)[0]
        for name in [name for name, of in RETRACTED.items() if of == table]:
            gone = _keys(self._gathered.unions[name].result(self._codes)[0])
            if gone:
                kept = np.fromiter((key not in gone for key in zip(*rows.tolist(), strict=True)), bool, rows.shape[1])
                self.retracted += int((~kept).sum())
                rows = rows[:, kept]
        names = self._gathered.errors if table == "errors" else self._gathered.components
        unknown = rows[2] >= names.known
        self._set_aside(f"{table}.{CODE_COLUMN[table]}", rows[0][unknown], rows[1][unknown], rows[2][unknown], names)
        rows = rows[:, ~unknown]
        return Events(rows[0], rows[1], rows[2].astype(np.int16))

    def _findings(self, maint: Events) -> Int16:
        """The finding of each replacement."""
        rows, lost = self._gathered.unions["findings"].result(self._codes)
        names = self._gathered.findings
        self.losers += [
            Loser("maint", machine, time, (names.names[finding],))
            for machine, time, finding in zip(self._named(lost[0]), lost[1].tolist(), lost[3].tolist(), strict=True)
        ]
        there = _keys(np.array([maint.machine, maint.time, maint.code], np.int64))
        unknown = rows[3] >= names.known
        self._set_aside("maint.finding", rows[0][unknown], rows[1][unknown], rows[3][unknown], names)
        found = {key: finding for *key_, finding in rows[:, ~unknown].T.tolist() if (key := tuple(key_)) in there}
        if not found:
            return np.full(len(maint.time), -1, np.int16)
        keys = zip(maint.machine.tolist(), maint.time.tolist(), maint.code.tolist(), strict=True)
        return np.array([found.get(key, -1) for key in keys], np.int16)

    def _set_aside(self, column: str, machine: Int64, time: Int64 | None, code: Int64, names: Names) -> None:
        times = [None] * len(machine) if time is None else time.tolist()
        self.aside += [
            Aside(column, who, when, names.names[what])
            for who, when, what in zip(self._named(machine), times, code.tolist(), strict=True)
        ]


def _keys(rows: Int64) -> set[tuple[int, ...]]:
    """Machine, time and code of each row."""
    return set(zip(*rows[:3].tolist(), strict=True)) if rows.size else set()
