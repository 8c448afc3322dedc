"""The requests of a log as they were asked, each with the answer that was given: what a replay answers again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from closedloop.data.machines import Id
from closedloop.data.schema import DataError, Int64
from closedloop.log.answers import ANOMALY, ranked_requests
from closedloop.log.files import Files
from closedloop.log.sequence import ERASED
from closedloop.log.sink import Sink
from closedloop.log.tables import NAME, REQUESTS, TABLES_OF

MACHINE = "machineID"
Heads = dict[str, tuple[float, bool]]  # score and alarm of each head that answered
_RECORDS = 64  # that are Python objects at once
_COLUMNS = ("request_id", "model", "spool", "segment", *TABLES_OF[REQUESTS], "results")


@dataclass(frozen=True)
class LoggedRequest:
    """One logged request: its tables as the body of a request has them, and the heads' answers by machine and time.

    ``segment`` is the segment that it was logged in. Times are microseconds UTC.
    """

    request_id: str
    model: str
    segment: tuple[str, int]
    body: dict[str, dict[str, list[Any]]]
    answers: dict[tuple[Id, int], Heads]
    warnings: dict[tuple[Id, int], list[str]]


@dataclass
class Requests:
    """The requests of a stretch of time, read anew each time they are iterated over.

    ``since`` to ``until`` is that stretch, in microseconds UTC: the last ``days`` before the latest answered row.
    ``left_out`` counts the records of the stretch that no replay can use: ``sent_again``, ``erased``, and ``partial``,
    of which ``LOG_FIELDS`` kept neither telemetry nor answer.
    """

    version: int
    since: int
    until: int
    left_out: Counter[str] = field(default_factory=Counter)
    with_errors: set[tuple[str, int]] = field(default_factory=set)  # segments that hold a table of errors
    _files: Any = None
    _ranks: Any = None
    _times: Any = None
    _erased: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sink: Sink, days: float, version: int | None = None) -> Requests:
        """The requests of the last days of a log as it is, or as it was at a version of ``requests``.

        Raises:
            DataError: there is no log, or one of another format.
            DeltaError, OSError, ValueError: the sink does not answer.
        """
        files, ranks, erased = ranked_requests(sink, version)
        times = _answered(files)
        if not len(times):
            raise DataError(f"{sink.place}: the log has no requests yet")
        until = int(times.max())
        since = until - round(days * 86_400_000_000)
        return cls(files.version, since, until, _files=files, _ranks=ranks, _times=times,
                   _erased=erased.machines)  # fmt: skip

    def __iter__(self) -> Iterator[LoggedRequest]:
        """Yield each request that can be answered again, in the order of the files."""
        self.left_out = Counter(dict.fromkeys(("sent_again", "erased", "partial"), 0))
        position = 0
        for batch in self._files.batches(_COLUMNS):
            here = slice(position, position + len(batch))
            position = here.stop
            recent, ranks = self._times[here] > self.since, self._ranks[here]
            self.left_out["erased"] += int((recent & (ranks == ERASED)).sum())
            self.left_out["sent_again"] += int((recent & (ranks < 0) & (ranks != ERASED)).sum())
            chosen = np.flatnonzero(recent & (ranks >= 0))
            for start in range(0, len(chosen), _RECORDS):
                yield from self._records(batch.take(pa.array(chosen[start : start + _RECORDS])))

    def _records(self, batch: pa.RecordBatch) -> Iterator[LoggedRequest]:
        for row in _plain(batch).to_pylist():
            segment = row["spool"], row["segment"]
            body = {name: found for name in TABLES_OF[REQUESTS] if (found := self._table(name, row[name])) is not None}
            if "errors" in body:
                self.with_errors.add(segment)
            results = None if row["results"] is None else [one for one in row["results"] if self._stays(_id_of(one))]
            if results is None or "telemetry" not in body:
                self.left_out["partial"] += 1
            elif not results:
                self.left_out["erased"] += 1
            else:
                keys = [(_id_of(one), one["datetime"]) for one in results]
                answers = dict(zip(keys, map(_heads, results), strict=True))
                warnings = dict(zip(keys, (one["warnings"] or [] for one in results), strict=True))
                yield LoggedRequest(row["request_id"], row["model"], segment, body, answers, warnings)

    def _stays(self, machine: Id) -> bool:
        return str(machine) not in self._erased

    def _table(self, name: str, stored: Mapping[str, Any] | None) -> dict[str, list[Any]] | None:
        """A table as the body of a request has it, without erased machines; None where it was not sent or not kept."""
        if stored is None:
            return None
        columns = {column: values for column, values in stored.items() if values is not None}
        columns[MACHINE] = columns.pop(NAME, columns.get(MACHINE))
        for sensor in columns.pop("sensors", []):
            columns[sensor["name"]] = sensor["values"]
        if not self._erased:
            return columns
        keep = [self._stays(machine) for machine in columns[MACHINE]]
        return {column: [v for v, kept in zip(values, keep, strict=True) if kept] for column, values in columns.items()}


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """The records with times as a body has them, as texts, and in the results as whole numbers."""
    fields = [field.with_type(_without_times(field.type, pa.int64() if field.name == "results" else pa.string()))
              for field in batch.schema]  # fmt: skip
    return pa.Table.from_batches([batch]).cast(pa.schema(fields))


def _without_times(kind: pa.DataType, instead: pa.DataType) -> pa.DataType:
    """A type with another one in the place of each time."""
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_times(kind.value_type, instead)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_times(field.type, instead)) for field in kind])
    return instead if pa.types.is_timestamp(kind) else kind


def _answered(files: Files) -> Int64:
    """The time of each record's latest answered row; where the answer was not kept, when it was received."""
    parts = []
    for batch in files.batches(("received", "results")):
        times = batch["received"].cast(pa.int64()).to_numpy(zero_copy_only=False).copy()
        results = batch["results"]
        owner = pc.list_parent_indices(results).to_numpy()
        rows = pc.struct_field(results.flatten(), "datetime").cast(pa.int64()).to_numpy(zero_copy_only=False)
        answered = np.full(len(times), np.iinfo(np.int64).min)
        np.maximum.at(answered, owner, rows)
        there = np.isin(np.arange(len(times)), owner)
        times[there] = answered[there]
        parts.append(times)
    return np.concatenate([np.empty(0, np.int64), *parts])


def _id_of(result: Mapping[str, Any]) -> Id:
    found: Id = result[NAME] if result[MACHINE] is None else result[MACHINE]
    return found


def _heads(result: Mapping[str, Any]) -> Heads:
    """Score and alarm of each head; a head without an answer is left out."""
    anomaly = result["anomaly"]
    heads: Heads = {} if anomaly is None else {ANOMALY: (anomaly["score"], anomaly["alarm"])}
    for one in result["failure"] or []:
        if one["probability"] is not None:
            heads[one["component"]] = (one["probability"], one["alarm"])
    return heads
