"""Let a bundle answer for every row of some tables, and write predictions.parquet.

The tables are read as they are given: --data is a folder of PdM_*.parquet or .csv files. By default the held-out
machines of the last validation.
"""

from __future__ import annotations

from pathlib import Path

from closedloop.data import sources
from closedloop.data.schema import Tables
from closedloop.heads.bundle import Bundle, load
from closedloop.judge.truth import ANOMALY, PredictionTable
from model.common import cli


def predict(bundle: Bundle, tables: Tables, last_only: bool = False) -> PredictionTable:
    """The answers of every head that the bundle has, at every telemetry row, or at the last of each machine."""
    found = bundle.predict(tables, last_only)
    heads = {}
    if bundle.anomaly is not None:
        heads[ANOMALY] = (found.anomaly_score, found.anomaly_alarm)
    for c, component in enumerate(bundle.schema.components):
        if component in bundle.failures:
            heads[component] = (found.probability[c], found.alarm[c])
    return PredictionTable.of(found.machine, found.time, heads)


def main(words: list[str]) -> None:
    """Write the predictions."""
    args = cli.parser(__doc__, data=cli.HOLDOUT, out=cli.PREDICTIONS).parse_args(words)
    bundle = load(args.bundle)
    tables = sources.read_tables(Path(args.data), bundle.schema, {})
    cli.say(f"predicting {len(tables.time):,} rows of {len(tables.bounds()[0])} machines")
    predictions = predict(bundle, tables)
    predictions.write(args.out)
    cli.say(f"wrote {args.out}: {len(predictions.time):,} predictions, {int(predictions.alarm.sum()):,} alarms")


if __name__ == "__main__":
    cli.main(main)
