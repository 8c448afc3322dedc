"""Hold the fetched tables against the expectations; then hold out the machines that judge.

A refusal exits 1 and names table, column, rule, count and three offending rows. Readings that leave the range of what
the champion was trained on are warned of. What passes is fingerprinted, compared with the pin, and split: build/holdout
gets the tables of the held-out machines, from one history before the cut on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import expectations, sources
from closedloop.data.expectations import Usual
from closedloop.data.schema import DataError, Schema
from closedloop.features.spec import FeatureSpec
from closedloop.judge.holdout import holdout, last_times
from closedloop.judge.split import split
from model.common import cli, params
from model.data import LOCK


def usual(asked: Path | None, source: str) -> dict[str, Usual]:
    """What the sensors did in the tables that the bundle asked for, else the fleet's champion, was trained on.

    A champion that has no drift reference, or cannot be read, is told of and left out.

    Raises:
        DataError: the bundle that was asked for is none, was changed, or has no drift reference.
    """
    folder = asked or cli.CHAMPIONS / source / "bundle"
    if asked is None and not folder.exists():
        return {}
    # only here, since the compiled kernels come with it, and take two seconds that a first run has no need of
    from closedloop.heads.bundle import load_drift_reference

    try:
        schema, reference = load_drift_reference(folder)
        if reference is None:
            raise DataError(f"bundle {folder}: it has no drift reference; train it again")
    except DataError as error:
        if asked is not None:
            raise
        cli.say(f"warning: not compared with the champion: {error}")
        return {}
    low, high = reference.quantiles[:, 0].tolist(), reference.quantiles[:, -1].tolist()
    columns = map(Usual, low, high, reference.missing.tolist())
    return dict(zip(schema.sensors, columns, strict=False))  # the last column may be the anomaly score


def main(words: list[str]) -> None:
    """Write build/validation.json and its page, build/holdout, and the fingerprints into build/data/data.json."""
    flags = cli.parser(__doc__, out=cli.HOLDOUT)
    flags.add_argument("--pin", action="store_true", help="pin the fingerprint of these tables, if they are valid")
    flags.add_argument(
        "--reference", type=Path, metavar="BUNDLE", help="compare with its training tables (default: the champion)"
    )
    args = flags.parse_args(words)
    asked = params.load(args.params)
    about: dict[str, Any] = cli.read_json(args.data / "data.json", "run: python -m model.data")
    asked = asked.of(about)
    schema = Schema.from_dict(about["schema"])
    spec = FeatureSpec.from_params(asked.features, schema)  # a slip in it is said now, not after minutes of training
    frames = sources.read_frames(args.data, {})
    cli.say(f"validating {len(frames['telemetry']):,} telemetry rows")
    result = expectations.validate(frames, schema, usual(args.reference, about["source"]))
    cli.write_json(args.data.parent / "validation.json", result.result)
    expectations.write_docs(result, args.data.parent / "validation")
    for warning in result.warnings:
        cli.say(f"warning: {warning}")
    if not result.ok:
        raise cli.RefusedError("the data does not meet the expectations:\n  " + "\n  ".join(result.failures))
    tables = sources.frames_to_tables(frames, schema, {})
    fingerprint = tables.fingerprint()
    if args.pin:
        if about["local"]:
            raise DataError("--pin: these tables are this machine's alone; name them in the pin first")
        cli.write_json(LOCK, cli.read_json(LOCK, "restore it from git") | {"fingerprint": fingerprint})
    elif not about["local"] and about["pinned"] != fingerprint:
        raise cli.RefusedError(
            f"not judged: the tables are {fingerprint}, and model/data.lock.json pins {about['pinned']}; "
            "restore the data it names, or move the pin on purpose with: make data-pin"
        )
    salt, prefix = asked.split["salt"], asked.split["prefix"]
    parts = split(tables, about["source"], salt, about["rule"], asked.horizon_us, spec.history_us, prefix)
    for rows, what in ((parts.training, "train on"), (parts.judged, "judge by")):
        if not rows.any():
            raise cli.RefusedError(
                f"split.rule {about['rule']} leaves no row of {len(np.unique(tables.machine))} machines to {what}; "
                f"choose another in params.yaml, or let make data-check propose one"
            )
    kept, judged_from = holdout(tables, parts, spec.history_us)
    shutil.rmtree(args.out, ignore_errors=True)
    sources.write_tables(kept, schema, args.out)
    anomalies = args.data / "anomalies.parquet"
    if anomalies.exists():
        intervals = pd.read_parquet(anomalies)
        intervals[intervals["machineID"].isin(np.unique(kept.machine))].to_parquet(
            args.out / anomalies.name, index=False
        )
    about |= {
        "fingerprint": fingerprint,
        "holdout_fingerprint": kept.fingerprint(),
        "judged_from": judged_from,
        "train_until": last_times(tables, parts.training),
    }
    cli.write_json(args.data / "data.json", about)
    cli.say(f"valid; {len(parts.training_machines)} machines train, {len(judged_from)} judge")


if __name__ == "__main__":
    cli.main(main)
