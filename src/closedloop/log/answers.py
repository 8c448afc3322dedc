"""The answers that were given, back from the log: which model said what of which machine, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from closedloop.data.machines import codes_in
from closedloop.data.schema import DataError, Float64, Int64
from closedloop.log import orders
from closedloop.log.files import Files, files_of
from closedloop.log.sequence import Records, rank
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import NAME, REQUESTS

ANOMALY = "anomaly"  # the head beside the components
_COLUMNS = ("model", "results")


@dataclass(frozen=True)
class Answers:
    """One row for each head of each answer, sorted by model, machine, time and head.

    ``model`` and ``head`` index ``models`` (the digests of bundles) and ``heads`` (``anomaly`` and the components).
    ``machine`` is a number, or the position of its name among those that were asked for.
    ``time`` is the last telemetry row of the request, in microseconds. Where one model answered for the same row
    again, the first answer counts: it is the one that people could act on.
    """

    models: tuple[str, ...]
    heads: tuple[str, ...]
    model: Int64
    machine: Int64
    time: Int64
    head: Int64
    score: Float64
    alarm: NDArray[np.bool_]


def ranked_requests(sink: Sink, version: int | None) -> tuple[Files, Int64, orders.Orders]:
    """The files of ``requests``, the rank of each of their rows, and what standing orders of erasure name.

    Raises:
        DataError: there is no log, or one of another format.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    try:
        files, erased = files_of(sink, REQUESTS, version), orders.find(sink)
    except SinkError as error:
        raise DataError(str(error)) from None
    if files is None:
        raise DataError(f"{sink.place}: there is no log; name the folder or address that LOG_SINK has")
    records = Records(erased.callers)
    records.add(REQUESTS, files)
    return files, rank(records).rank, erased


def answers(sink: Sink, version: int | None = None, names: tuple[str, ...] | None = None) -> Answers:
    """The answers of a log as it is, or as it was at a version of ``requests``.

    ``names`` are the sorted names of the machines that are wanted, None where machines have numbers. Left out are
    requests that were sent again, and what a standing order of erasure names.

    Raises:
        DataError: there is no log, or one of another format.
        DeltaError, OSError, ValueError: the sink does not answer.
    """
    files, ranks, erased = ranked_requests(sink, version)
    parts, position = [], 0
    kind = "machineID" if names is None else NAME  # what is not of this kind is of another fleet
    for batch in files.batches(_COLUMNS):
        parts += _of_batch(batch, ranks[position : position + len(batch)], kind)
        position += len(batch)
    table = pa.concat_tables(parts) if parts else _table(*([] for _ in range(7)))
    if erased.machines:
        table = table.filter(pc.invert(pc.is_in(table["machine"], pa.array(sorted(erased.machines)))))
    return _first(table, names)


def _of_batch(batch: pa.RecordBatch, ranks: Int64, kind: str) -> list[pa.Table]:
    """The heads' answers of some records, as tables with the columns of :func:`_table`; of machines of one kind."""
    results = batch["results"]
    record = pc.list_parent_indices(results)
    result = results.flatten()
    counts = pc.and_(pa.array(ranks[record.to_numpy()] >= 0), pc.struct_field(result, kind).is_valid())
    result, record = result.filter(counts), record.filter(counts)
    about = [
        pc.take(batch["model"], record),
        pc.struct_field(result, kind).cast(pa.string()),
        pc.struct_field(result, "datetime").cast(pa.int64()),
        pa.array(ranks[record.to_numpy()]),
    ]
    anomaly = pc.struct_field(result, "anomaly")
    there = anomaly.is_valid()
    given = [pc.struct_field(anomaly, name).filter(there) for name in ("score", "alarm")]
    tables = [_table(*(column.filter(there) for column in about), pa.repeat(ANOMALY, len(given[0])), *given)]
    failure = pc.struct_field(result, "failure")
    owner, head = pc.list_parent_indices(failure), failure.flatten()
    known = pc.struct_field(head, "probability").is_valid()
    owner, head = owner.filter(known), head.filter(known)
    own = [pc.struct_field(head, name) for name in ("component", "probability", "alarm")]
    return [*tables, _table(*(pc.take(column, owner) for column in about), *own)]


def _table(*columns: object) -> pa.Table:
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), pa.float64(), pa.bool_())
    names = ("model", "machine", "time", "rank", "head", "score", "alarm")
    arrays = [
        column.cast(kind) if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, kind)
        for column, kind in zip(columns, kinds, strict=True)
    ]
    return pa.table(arrays, names)


def _first(table: pa.Table, names: tuple[str, ...] | None) -> Answers:
    """The first answer of each model for each machine, time and head."""
    ids = table["machine"].to_pylist()
    if names is None:
        machine = np.array(list(map(int, ids)), np.int64)
    else:
        known = codes_in(names, ids)
        table, machine = table.filter(pa.array(known >= 0)), known[known >= 0]
    models, model = np.unique(table["model"].to_numpy().astype(str), return_inverse=True)
    heads, head = np.unique(table["head"].to_numpy().astype(str), return_inverse=True)
    time, order = (table[name].to_numpy() for name in ("time", "rank"))
    sorted_ = np.lexsort((order, head, time, machine, model))
    keys = np.array([model, machine, time, head])[:, sorted_]
    new = np.append(True, (np.diff(keys, axis=1) != 0).any(axis=0))[: len(sorted_)]
    chosen = sorted_[new]
    return Answers(
        tuple(models.tolist()), tuple(heads.tolist()), model[chosen], machine[chosen], time[chosen], head[chosen],
        table["score"].to_numpy()[chosen], table["alarm"].to_numpy()[chosen],
    )  # fmt: skip
