"""What executors compute for training on Spark, for some whole machines at a time. Plain functions of some tables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from closedloop.data.schema import Float64, Schema, Tables
from closedloop.features.baseline import Levels
from closedloop.features.kernel import compute
from closedloop.features.spec import Constants, FeatureSpec
from closedloop.heads.scorers import AnomalyHead, FailureHead
from closedloop.heads.trees import Forest, Int32
from closedloop.spark.fleet import machine_type
from closedloop.spark.trees import vectors
from model.common.training import labelled, rows_until, thin, unseen_score

KEY = ("machineID", "time")  # the first columns of every answer


@dataclass(frozen=True)
class Wanted:
    """What decides features and labels. ``until`` is the last time of training of each training machine, by name."""

    spec: FeatureSpec
    constants: Constants
    schema: Schema
    until: dict[str, int]
    delay_us: int | None
    horizon_us: int
    every_us: int

    @property
    def key(self) -> str:
        """The first columns of every answer, as Spark writes them."""
        return f"machineID {machine_type(self.schema)}, time bigint"


def _rows(tables: Tables, wanted: Wanted) -> tuple[Tables, Float64]:
    """The training rows of some machines, and their features."""
    kept = rows_until(tables, wanted.until, wanted.delay_us)
    return kept, compute(kept, wanted.spec, wanted.constants, wanted.schema, threads=1).X


def _table(tables: Tables, rows: Any, **columns: pa.Array) -> pa.Table:
    ids = tables.named(tables.machine[rows])
    kind = pa.string() if tables.names is not None else pa.int64()
    return pa.table({"machineID": pa.array(ids, kind), "time": pa.array(tables.time[rows]), **columns})


def _lists(X: Any) -> pa.Array:
    """A list of values for each column of X (values, rows)."""
    offsets = np.arange(0, X.size + 1, len(X), dtype=np.int32) if len(X) else np.zeros(X.shape[1] + 1, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(X.T).ravel()))


def digests(tables: Tables, wanted: Wanted) -> pa.Table:
    """One digest of times, features and labels for each machine, as ``digest string``."""
    kept, X = _rows(tables, wanted)
    y = labelled(kept, wanted.schema, wanted.horizon_us) if len(kept.time) else np.empty((0, 0), np.int8)
    ids, offsets = kept.bounds()
    found = []
    for low, high in pairwise(offsets.tolist()):
        parts = (kept.time[low:high], X[:, low:high], y[:, low:high])
        found.append(hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest())
    return _table(kept, offsets[:-1], digest=pa.array(found, pa.string())) if len(ids) else _nothing(kept, "digest")


def _nothing(tables: Tables, name: str) -> pa.Table:
    return _table(tables, slice(0, 0), **{name: pa.array([], pa.string())})


def alarm_rows(tables: Tables, wanted: Wanted, columns: Int32) -> pa.Table:
    """The features that the detector reads, of the rows that stand for their neighbours, as ``x array<double>``."""
    kept, X = _rows(tables, wanted)
    rows = np.flatnonzero(thin(kept, wanted.every_us, wanted.schema))
    return _table(kept, rows, x=_lists(X[np.ix_(columns, rows)]))


def scores(tables: Tables, wanted: Wanted, anomaly: AnomalyHead, without: tuple[Levels, ...]) -> pa.Table:
    """The anomaly score of every row from levels that did not see it, as ``score double``."""
    kept, X = _rows(tables, wanted)
    ids, offsets = kept.bounds()
    found = np.empty(len(kept.time))
    for machine, low, high in zip(kept.named(ids).tolist(), offsets[:-1], offsets[1:], strict=True):
        own = np.ascontiguousarray(X[:, low:high])
        found[low:high] = unseen_score(anomaly, own, machine, wanted.spec, wanted.constants, without)
    return _table(kept, slice(None), score=pa.array(found))


def examples(
    tables: Tables, wanted: Wanted, anomaly: AnomalyHead, columns: Int32, folds: dict[str, list[int]]
) -> pa.Table:
    """The rows that teach some component.

    The columns are ``x array<double>``, without NaN; ``y array<tinyint>``, for each component 1, 0, or -1 where the row
    does not teach it; and ``fold array<int>``, the fold of the machine for each component.
    """
    kept, X = _rows(tables, wanted)
    y = labelled(kept, wanted.schema, wanted.horizon_us) if len(kept.time) else np.empty((1, 0), np.int8)
    thinned = thin(kept, wanted.every_us, wanted.schema)
    teaches = np.where((y == 1) | (thinned & (y == 0)), y, np.int8(-1))
    rows = np.flatnonzero((teaches >= 0).any(axis=0))
    whole = np.vstack([X[:, rows], anomaly.score(X)[rows]])
    own = [folds[str(machine)] for machine in tables.named(kept.machine[rows]).tolist()]
    return _table(
        kept,
        rows,
        x=_lists(vectors(whole[columns])),
        y=_lists(teaches[:, rows]),
        fold=pa.array(own, pa.list_(pa.int32())),
    )


def unseen(
    tables: Tables,
    wanted: Wanted,
    anomaly: AnomalyHead,
    columns: Int32,
    folds: dict[str, list[int]],
    forests: dict[tuple[int, int], Forest],
) -> pa.Table:
    """What the model that never saw the machine says of each row, for each component, as ``raw array<double>``.

    ``forests`` has one for each component and fold; it is NaN where a component has none.
    """
    kept, X = _rows(tables, wanted)
    X = np.vstack([X, anomaly.score(X)])
    raw = np.full((len(wanted.schema.components), X.shape[1]), np.nan)
    ids, offsets = kept.bounds()
    for name, low, high in zip(tables.named(ids).tolist(), offsets[:-1], offsets[1:], strict=True):
        for c, fold in enumerate(folds[str(name)]):
            if (c, fold) in forests:
                head = FailureHead(forests[c, fold], columns, 1.0, 0.0)
                raw[c, low:high] = head.raw(np.ascontiguousarray(X[:, low:high]))
    return _table(kept, slice(None), raw=_lists(raw))
