"""The five tables back from the log: the union of all requests and all feedback, by each table's key.

Clients send overlapping windows. Where two rows have one key, the later one wins; values that lost are counted and kept
apart. Within a spool the sequence is the order, whatever its clock did: a record counts as received no earlier than the
one before it. Across spools the time received is the order, but no later than the commits allow that came after it
(:class:`closedloop.log.history.Bounds`); at equal times the order of arrival. The same request again (id and body)
counts once, as of the first. What a standing order of erasure names is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from closedloop.data.schema import CODE_COLUMN, DataError, Events, Int16, Int64, Schema, Tables
from closedloop.log import orders
from closedloop.log.files import files_of
from closedloop.log.orders import Orders
from closedloop.log.sequence import Records, rank
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import FEEDBACK, REQUESTS, TABLES_OF
from closedloop.log.union import Union, from_bits, to_bits


class Loser(NamedTuple):
    """Values that a later row with the same key replaced. ``time`` is microseconds UTC, None for a machine.

    ``values`` are the sensors' readings, or the machine's model and age.
    """

    table: str
    machine: int
    time: int | None
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Log:
    """The tables of a log, and what reading them found.

    ``versions`` are those of the Delta tables that were read, None for one that is not there. ``records`` counts the
    rows of both, ``replayed`` those of them that were the same request again, ``erased`` those that an order of erasure
    leaves out whole. ``impossible_clocks`` counts records that claim to be received more than a minute after a commit
    that came later: the clock of their replica was ahead.
    """

    tables: Tables
    versions: dict[str, int | None]
    records: int
    replayed: int
    erased: int
    impossible_clocks: int
    losers: list[Loser]


def read(sink: Sink, schema: Schema, versions: dict[str, int] | None = None) -> Log:
    """The tables of a log as they are, or as they were at the versions given for ``requests`` and ``feedback``.

    ``failures`` is always there, and empty where none was fed back. A sensor of the schema that a request did not send
    is missing in its rows, and one that the schema does not name is left aside.

    Raises:
        DataError: there is no log, or of another format, or a code or model in it is not in the schema.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    try:
        found = {table: files_of(sink, table, (versions or {}).get(table)) for table in (REQUESTS, FEEDBACK)}
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
    unions = {
        "telemetry": Union(2, 2 + len(schema.sensors), sum(present[REQUESTS].values.values())),
        **{table: Union(3, 3) for table in CODE_COLUMN},
        "machines": Union(1, 3),
    }
    position = 0
    for table, files in present.items():
        for batch in files.batches(TABLES_OF[table]):
            _add(unions, table, batch, ranks.rank[position : position + len(batch)], schema, erased)
            position += len(batch)
    tables, losers = _tables(unions, schema)
    return Log(
        tables=tables,
        versions={table: None if files is None else files.version for table, files in found.items()},
        records=len(ranks.rank),
        replayed=ranks.replayed,
        erased=ranks.erased,
        impossible_clocks=ranks.impossible,
        losers=losers,
    )


def _add(
    unions: dict[str, Union], table: str, batch: pa.RecordBatch, rank: Int64, schema: Schema, erased: Orders
) -> None:
    """Add what a batch of records holds to the unions."""
    if (rank < 0).any():
        batch, rank = batch.filter(pa.array(rank >= 0)), rank[rank >= 0]
    for name in TABLES_OF[table]:
        column = batch.column(name)
        columns = {field.name: part for field, part in zip(column.type, column.flatten(), strict=True)}
        record = pc.list_parent_indices(columns["machineID"]).to_numpy()
        machine = _flat(columns["machineID"])
        if name == "machines":
            models = _codes("machines.model", columns["model"].flatten(), schema.models)
            added = [machine, models, to_bits(_floats(columns["age"].flatten()))]
        elif name == "telemetry":
            readings = [to_bits(values) for values in _readings(columns["sensors"], record, schema)]
            added = [machine, _times(columns["datetime"]), *readings]
        else:
            code = CODE_COLUMN[name]
            known = schema.errors if name == "errors" else schema.components
            codes = _codes(f"{name}.{code}", columns[code].flatten(), known)
            added = [machine, _times(columns["datetime"]), codes]
        kept = _kept(machine, erased)
        if kept is not None:
            added, record = [values[kept] for values in added], record[kept]
        unions[name].add(added, rank[record])


def _kept(machine: Int64, erased: Orders) -> np.ndarray | None:
    """Which rows no order of erasure names; None for all."""
    if not erased.machines:
        return None
    return ~np.isin(machine.astype(str), sorted(erased.machines))


def _readings(sensors: pa.ListArray, record: Int64, schema: Schema) -> Iterator[np.ndarray]:
    """The readings of each sensor of the schema, one for each row of ``record``; NaN where it was not sent."""
    sender = pc.list_parent_indices(sensors).to_numpy()
    names, values = sensors.flatten().flatten()
    for sensor in schema.sensors:
        chosen = pc.equal(names, sensor)
        readings = np.full(len(record), np.nan)
        sent = np.isin(record, sender[chosen.to_numpy(zero_copy_only=False)])
        readings[sent] = _floats(values.filter(chosen).flatten())
        yield readings


def _flat(column: pa.ListArray) -> Int64:
    return column.flatten().to_numpy()


def _times(column: pa.ListArray) -> Int64:
    return column.flatten().cast(pa.int64()).to_numpy()


def _floats(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)  # null becomes NaN


def _codes(where: str, names: pa.Array, known: tuple[str, ...]) -> Int64:
    """Positions in ``known``, -1 where missing.

    Raises:
        DataError: a name is not known.
    """
    codes = pc.index_in(names.cast(pa.string()), pa.array(known, pa.string())).fill_null(-1).to_numpy()
    unknown = (codes < 0) & names.is_valid().to_numpy(zero_copy_only=False)
    if unknown.any():
        name = names[int(np.argmax(unknown))].as_py()
        raise DataError(f"{where}: the log holds {name!r}, which is not one of {list(known)}; add it to the schema")
    return codes.astype(np.int64)


def _tables(unions: dict[str, Union], schema: Schema) -> tuple[Tables, list[Loser]]:
    """The winners as tables, and the losers of those tables that have values."""
    telemetry, lost_rows = unions["telemetry"].result()
    machines, lost_machines = unions["machines"].result()
    events = {table: _events(unions[table].result()[0]) for table in CODE_COLUMN}
    tables = Tables(  # in order already
        telemetry[0],
        telemetry[1],
        from_bits(telemetry[2:]),
        events["errors"],
        events["maint"],
        events["failures"],
        machines[0],
        machines[1].astype(np.int16),
        from_bits(machines[2]),
    )
    losers = [
        Loser("telemetry", machine, time, tuple(values))
        for machine, time, values in zip(
            lost_rows[0].tolist(), lost_rows[1].tolist(), from_bits(lost_rows[2:]).T.tolist(), strict=True
        )
    ]
    names = [*schema.models, None]  # -1 is the last: missing
    losers += [
        Loser("machines", machine, None, (names[model], age))
        for machine, model, age in zip(
            lost_machines[0].tolist(), lost_machines[1].tolist(), from_bits(lost_machines[2]).tolist(), strict=True
        )
    ]
    return tables, losers


def _events(rows: Int64) -> Events:
    codes: Int16 = rows[2].astype(np.int16)
    return Events.of(rows[0], rows[1], codes)
