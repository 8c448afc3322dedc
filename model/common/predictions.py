"""What a bundle answers, in the form of ``predictions.parquet``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from closedloop.data.schema import Tables
from closedloop.heads.bundle import Bundle
from closedloop.judge.truth import ANOMALY, PredictionTable


def predict(bundle: Bundle, tables: Tables, last_only: bool = False) -> PredictionTable:
    """Return the answers of each head of the bundle, for every telemetry row or only for the last of each machine."""
    found = bundle.predict(tables, last_only)
    heads = {}
    if bundle.anomaly is not None:
        heads[ANOMALY] = (found.anomaly_score, found.anomaly_alarm)
    for c, component in enumerate(bundle.schema.components):
        if component in bundle.failures:
            heads[component] = (found.probability[c], found.alarm[c])
    return PredictionTable.of(tables.named(found.machine), found.time, heads)


def in_order(table: PredictionTable) -> pa.Table:
    """Sort predictions by machine, time and head, so that the output does not depend on how machines are grouped."""
    machine = np.unique(table.machine, return_inverse=True)[1]  # names are objects, which do not sort by several keys
    order = np.lexsort((table.head.astype(str), table.time, machine))
    return table.arrow().take(pa.array(order))
