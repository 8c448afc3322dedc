"""What a bundle answers, in the form of ``predictions.parquet``."""

from __future__ import annotations

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
