"""Let a bundle answer for every row of some tables, and write predictions.parquet.

--data is a folder of PdM_*.parquet or PdM_*.csv files, which are read as they are; by default the tables of the
held-out machines, as the last validation wrote them.
"""

from __future__ import annotations

from pathlib import Path

from closedloop.data import sources
from closedloop.heads.bundle import load
from model.common import cli
from model.common.predictions import predict


def main(words: list[str]) -> None:
    """Write the predictions."""
    flags = cli.parser(__doc__, data=cli.HOLDOUT, out=cli.PREDICTIONS, writes="the file of predictions")
    args = flags.parse_args(words)
    bundle = load(args.bundle)
    tables = sources.read_tables(Path(args.data), bundle.schema, {})
    cli.say(f"predicting {len(tables.time):,} rows of {len(tables.bounds()[0])} machines")
    predictions = predict(bundle, tables)
    predictions.write(args.out)
    cli.say(f"wrote {args.out}: {len(predictions.time):,} predictions, {int(predictions.alarm.sum()):,} alarms")


if __name__ == "__main__":
    cli.main(main)
