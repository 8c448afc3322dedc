"""The rows of a machine or a caller removed from every version of the log's tables, pinned ones too.

The order is stored first (:mod:`closedloop.log.orders`), so that nothing more of it comes in. Then the newest version
is written again without these rows, and every file that held any of them is deleted. A pin whose version had such a
file cannot be read any more; it is named before, and marked after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from arro3.core import RecordBatch

from closedloop.log import pins
from closedloop.log.files import ARRIVAL, BOUNDED, EXTRA, DataFile, Files
from closedloop.log.halt import refuse
from closedloop.log.lease import Lease
from closedloop.log.orders import Order, mentions
from closedloop.log.pins import Pin
from closedloop.log.rewrite import Data, ScratchFolder, Table, exchange
from closedloop.log.sink import SinkError
from closedloop.log.tables import NAME, REJECTS, SCHEMAS, TABLES_OF

_NUMBER = "machineID"
_KINDS = (_NUMBER, NAME)  # the columns that say whose a row is: one of them is null


@dataclass
class Erased:
    """What holds rows that must go: ``paths`` are all such files of a table, also of old versions.

    ``current`` are those of the newest version, and ``rows`` counts the records in them. ``pins`` become unreadable.
    ``waiting`` are files that no version has: a shipper may be about to commit them.
    """

    paths: list[str] = field(default_factory=list)
    current: list[Data] = field(default_factory=list)
    rows: int = 0
    pins: list[Pin] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


def look(table: Table, order: Order, say: Callable[[str], None]) -> Erased:
    """What an order concerns in a table, in all its versions.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink does not answer.
    """
    found = Erased()
    files = Files(table.sink, table.name, table.opened)
    current = {file.path: file for file in table.files}
    known = {path for commit in table.commits.values() for path in (*commit.added, *commit.removed)} | set(current)
    pinned = {pin.id: (pin, _paths(table, pin)) for pin in pins.find(table.sink) if pin.unreadable is None}
    known |= {path for _, paths in pinned.values() for path in paths} | set(table.ledger.unreferenced)
    listed = [file.path.removeprefix(f"{table.name}/") for file in table.store.list(table.name)]
    paths = [path for path in listed if path.endswith(".parquet") and not path.startswith("_")]
    for number, path in enumerate(paths, start=1):
        if number % 100 == 0:
            say(f"{table.name}: looked into {number} of {len(paths)} files")
        try:
            batches = files.of(DataFile(path, 0), _where(table.name))
            rows = sum(int(_hits(table.name, batch, order).sum()) for batch in batches)
        except SinkError:
            if (table.store.read(f"{table.name}/{path}") or b"")[-4:] == b"PAR1":
                raise
            continue  # it has gone, or is being written
        if not rows:
            continue
        if path not in known:
            found.waiting.append(path)  # a shipper may be about to commit it
            continue
        found.paths.append(path)
        if path in current:
            found.current.append(current[path])
            found.rows += rows
    hit = set(found.paths)
    found.pins = [pin for pin, paths in pinned.values() if hit & set(paths)]
    return found


def has_names(table: Table) -> bool:
    """Whether the newest version of a table has machines with names.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink does not answer.
    """
    columns = _where(table.name)[1:]
    return any(
        len(names := _machines(batch[column], column, NAME).flatten()) > names.null_count
        for batch in Files(table.sink, table.name, table.opened).batches(columns)
        for column in columns
    )


def erase(table: Table, lease: Lease, order: Order, found: Erased, say: Callable[[str], None]) -> Table:
    """Write the newest version again without what must go, then delete every file that held it; the table after that.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink refused; run it again.
    """
    with ScratchFolder(table) as scratch:
        for file in found.current:
            written = scratch.write(_rest(table, file, order), file.first, file.last)
            exchange(table, lease, [file], [written] if written else [], {"upkeep": "erase"}, changes=True)
            say(f"{table.name}: wrote {file.path} again without {order}")
    refuse(table.sink)
    for pin in found.pins:
        pins.mark_unreadable(table.sink, pin, f"erased: {order.id}")
    for path in found.paths:
        refuse(table.sink)
        lease.renew()
        table.store.delete(f"{table.name}/{path}")
    table.store.sync()
    return Table(table.sink, table.name, table)


def _paths(table: Table, pin: Pin) -> list[str]:
    version = pin.versions.get(table.name)
    opened = None if version is None else table.sink.open(table.name, version)
    return [] if opened is None else [str(path) for path in opened.get_add_actions().column("path").to_pylist()]


def _where(name: str) -> list[str]:
    """The columns that tell whose a row is."""
    if name == REJECTS:
        return ["caller", "body", "detail"]
    return ["caller", *TABLES_OF[name], *(column for column in ("results",) if column in SCHEMAS[name].names)]


def _hits(name: str, batch: pa.RecordBatch, order: Order) -> Any:
    """Which records an order concerns."""
    if order.subject == "caller":
        return pc.fill_null(pc.equal(batch["caller"], order.name), False).to_numpy(zero_copy_only=False)
    hits = np.zeros(len(batch), bool)
    if name == REJECTS:  # what was refused has no columns, only text
        for column in ("body", "detail"):
            hits |= [text is not None and mentions(text, order.name) for text in batch[column].to_pylist()]
        return hits
    for column in _where(name)[1:]:
        for kind in _KINDS:
            lists = _machines(batch[column], column, kind)
            record = pc.list_parent_indices(lists).to_numpy()
            named = pc.equal(lists.flatten().cast(pa.string()), order.name).fill_null(False)
            hits[record[named.to_numpy(zero_copy_only=False)]] = True
    return hits


def _machines(column: pa.Array, name: str, kind: str) -> pa.ListArray:
    """The machines that each record names in a column, by number or by name: one list for each record."""
    if name != "results":
        return column.flatten()[column.type.get_field_index(kind)]
    structs = column.flatten()
    counts = pc.fill_null(pc.list_value_length(column), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(counts).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, structs.flatten()[structs.type.get_field_index(kind)])


def _rest(table: Table, file: Data, order: Order) -> Iterator[RecordBatch]:
    """The rows of a file without what must go, with the columns of upkeep, in their order."""
    files = Files(table.sink, table.name, table.opened)
    names = [*SCHEMAS[table.name].names, ARRIVAL, BOUNDED]
    schema = pa.schema([*pa.schema(SCHEMAS[table.name]), *EXTRA.items()])
    part = DataFile(file.path, file.first if file.raw else None)
    for batch in files.of(part, names):
        hits = _hits(table.name, batch, order)
        bound = table.bounds.at(file.last)
        known = batch["received" if file.raw else BOUNDED].cast(pa.int64())
        limit = known if bound is None else pa.scalar(bound, pa.int64())
        bounded = pc.min_element_wise(known, limit).cast(EXTRA[BOUNDED])
        batch = batch.set_column(len(names) - 1, schema.field(BOUNDED), bounded)
        if not hits.any():
            yield RecordBatch.from_arrow(batch)
            continue
        rows = batch.to_pylist()
        kept = [
            pruned
            for row, hit in zip(rows, hits, strict=True)
            if (pruned := _prune(table.name, row, order) if hit else row) is not None
        ]
        if kept:
            yield RecordBatch.from_arrow(pa.RecordBatch.from_pylist(kept, schema=schema))


def _prune(name: str, row: dict[str, Any], order: Order) -> dict[str, Any] | None:
    """A record without a machine; None if nothing is left, or all of it is the caller's."""
    if order.subject == "caller":
        return None
    left = 0
    for table in TABLES_OF[name]:
        if row[table] is None:
            continue
        machines = row[table][_NUMBER] or row[table][NAME] or []
        keep = [machine is None or str(machine) != order.name for machine in machines]  # null is every machine
        row[table] = {
            column: _sensors(values, keep) if column == "sensors" else _chosen(values, keep)
            for column, values in row[table].items()
        }
        left += sum(keep)
    if row.get("results") is not None:
        row["results"] = [result for result in row["results"] if order.name not in _called(result)]
        left += len(row["results"])
    return row if left else None


def _called(result: dict[str, Any]) -> set[str]:
    """What the machine of a result is called."""
    return {str(result[kind]) for kind in _KINDS if result[kind] is not None}


def _chosen(values: list[Any] | None, keep: list[bool]) -> list[Any] | None:
    return None if values is None else [value for value, kept in zip(values, keep, strict=True) if kept]


def _sensors(sensors: list[dict[str, Any]] | None, keep: list[bool]) -> list[dict[str, Any]] | None:
    if sensors is None:
        return None
    return [{**sensor, "values": _chosen(sensor["values"], keep)} for sensor in sensors]
