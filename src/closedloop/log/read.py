"""The five tables back from the log: the union of all requests and all feedback, by each table's key.

Clients send overlapping windows. Where two rows have one key, the later one by (received, spool, segment, index) wins;
values that lost are counted and kept apart. Within a spool the sequence is the order, whatever its clock did: a record
counts as received no earlier than the one before it. The same request again (id and body) counts once, as of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from closedloop.data.schema import CODE_COLUMN, DataError, Events, Int16, Int64, Schema, Tables
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import FEEDBACK, REQUESTS, SCHEMAS, TABLES_OF
from closedloop.log.union import Union, from_bits, to_bits

_PLACE = ["spool", "segment", "index"]
_ONCE = ["request_id", "body_sha256"]


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
    rows of both, ``replayed`` those of them that were the same request again.
    """

    tables: Tables
    versions: dict[str, int | None]
    records: int
    replayed: int
    losers: list[Loser]


def read(sink: Sink, schema: Schema, versions: dict[str, int] | None = None) -> Log:
    """The tables of a log as they are, or as they were at the versions given for ``requests`` and ``feedback``.

    ``failures`` is always there, and empty where none was fed back. A sensor of the schema that a request did not send
    is missing in its rows, and one that the schema does not name is left aside.

    Raises:
        DataError: there is no log, or of another format, or a code or model in it is not in the schema.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    found: dict[str, DeltaTable | None] = {}
    for table in (REQUESTS, FEEDBACK):
        try:
            found[table] = sink.open(table, (versions or {}).get(table))
        except SinkError as error:
            raise DataError(str(error)) from None
    if found[REQUESTS] is None:
        raise DataError(f"{sink.place}: there is no log; name the folder or address that LOG_SINK has")
    present = {table: opened for table, opened in found.items() if opened is not None}
    ranks = _ranks(pd.concat([_about(table, opened) for table, opened in present.items()], ignore_index=True))
    unions = {
        "telemetry": Union(2, 2 + len(schema.sensors)),
        **{table: Union(3, 3) for table in CODE_COLUMN},
        "machines": Union(1, 3),
    }
    for table, opened in present.items():
        for batch in _batches(table, opened, [*_PLACE, *TABLES_OF[table]]):
            _add(unions, table, batch, ranks, schema)
    tables, losers = _tables(unions, schema)
    return Log(
        tables=tables,
        versions={table: None if opened is None else opened.version() for table, opened in found.items()},
        records=len(ranks),
        replayed=int((ranks["rank"] < 0).sum()),
        losers=losers,
    )


def _batches(table: str, opened: DeltaTable, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """These columns, of the types that they were written with: the engine's own views of text know no filter."""
    schema = pa.schema(SCHEMAS[table])
    wanted = pa.schema([schema.field(name) for name in columns])
    yield from pa.RecordBatchReader.from_stream(opened.scan(columns=columns), schema=wanted)


def _about(table: str, opened: DeltaTable) -> pd.DataFrame:
    """The record of each row, without what it holds."""
    rows = pa.Table.from_batches(_batches(table, opened, [*_PLACE, *_ONCE, "received"])).to_pandas()
    return rows.assign(table=table)


def _ranks(about: pd.DataFrame) -> pd.DataFrame:
    """The records' places, each with its rank in the order of all; -1 for the same request again."""
    about = about.sort_values(_PLACE, ignore_index=True)
    about["received"] = about.groupby("spool")["received"].cummax()
    about = about.sort_values(["received", *_PLACE], ignore_index=True)
    again = about.duplicated(["table", *_ONCE]).to_numpy()
    about["rank"] = np.where(again, -1, np.arange(len(about)))
    return about[["table", *_PLACE, "rank"]]


def _add(unions: dict[str, Union], table: str, batch: pa.RecordBatch, ranks: pd.DataFrame, schema: Schema) -> None:
    """Add what a batch of records holds to the unions."""
    place = batch.select(_PLACE).to_pandas().assign(table=table)
    rank = place.merge(ranks, how="left", on=["table", *_PLACE], validate="one_to_one")["rank"].to_numpy(np.int64)
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
        unions[name].add(added, rank[record])


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
    tables = Tables.of(
        telemetry[0],
        telemetry[1],
        from_bits(telemetry[2:]),
        events["errors"],
        events["maint"],
        events["failures"],
        (machines[0], machines[1].astype(np.int16), from_bits(machines[2])),
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
