"""Check the fetched tables against the expectations, and set the held-out machines apart.

A refusal exits 1 and names table, column, rule, count and three of the rows. A warning says where readings leave the
range that the champion was trained on. Valid tables are fingerprinted, compared with the pin and split: build/holdout
gets the tables of the machines that judge, which begin one history before their first judged row: the champion's, where
its features look back further than this model's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import expectations, sources
from closedloop.data.expectations import Usual
from closedloop.data.frames import Frames
from closedloop.data.schema import DataError, Schema, Tables
from closedloop.features.spec import FeatureSpec
from closedloop.judge.holdout import holdout, last_times
from closedloop.judge.labels import with_delay
from closedloop.judge.split import Split, split
from closedloop.watch.label_counts import label_counts, mostly_censored
from model.common import champion, cli, data_pin, params


def usual(bundle: Path | None, source: str) -> dict[str, Usual]:
    """Return what each sensor did in the training tables of a bundle: the one that was asked for, else the champion.

    A champion that has no drift reference, or cannot be read, is left out with a warning.

    Raises:
        DataError: the bundle that was asked for cannot be read, was changed, or has no drift reference.
    """
    folder = bundle or champion.folder(source) / "bundle"
    if bundle is None and not folder.exists():
        return {}
    # imported here, since the compiled kernels come with it and take two seconds, which a first run does not need
    from closedloop.heads.bundle import load_drift_reference

    try:
        schema, drift_reference = load_drift_reference(folder)
        if drift_reference is None:
            raise DataError(f"bundle {folder}: it has no drift reference; train it again")
    except DataError as error:
        if bundle is not None:
            raise
        cli.say(f"warning: not compared with the champion: {error}")
        return {}
    low, high = drift_reference.quantiles[:, 0].tolist(), drift_reference.quantiles[:, -1].tolist()
    columns = map(Usual, low, high, drift_reference.missing.tolist())
    return dict(zip(schema.sensors, columns, strict=False))  # the last column may be the anomaly score


def check(frames: Frames, schema: Schema, seen: dict[str, Usual], build: Path) -> None:
    """Check the frames against the expectations, and write validation.json and its page into ``build``.

    Raises:
        RefusedError: the frames fail an expectation; with every failure.
    """
    cli.say(f"validating {len(frames['telemetry']):,} telemetry rows")
    result = expectations.validate(frames, schema, seen)
    cli.write_json(build / "validation.json", result.result)
    expectations.write_docs(result, build / "validation")
    for warning in result.warnings:
        cli.say(f"warning: {warning}")
    if not result.ok:
        raise cli.RefusedError("the data does not meet the expectations:\n  " + "\n  ".join(result.failures))


def compare_with_pin(fingerprint: str, about: dict[str, Any], tables: Tables, move: bool) -> None:
    """Check that these are the pinned tables, or with ``move`` write their parts and fingerprint into the pin.

    Tables of a pin that is only proposed are compared with nothing.

    Raises:
        DataError: the pin cannot be moved to tables of this machine only.
        RefusedError: the tables are not those that the pin names.
    """
    if move:
        if about["local"]:
            raise DataError(
                "--pin: only this machine has these tables; pin the place they come from: make data-pin DATA="
            )
        print(data_pin.moved(about, tables, fingerprint))
    elif "candidate" in about:
        return  # the pin of a retraining says what the tables are, and not the other way round
    elif not about["local"] and about["pinned"] != fingerprint:
        raise cli.RefusedError(
            f"not judged: the tables are {fingerprint}, and model/data.lock.json pins {about['pinned']}; "
            "restore the data it names, or move the pin on purpose with: make data-pin"
        )


def say_what_is_known(tables: Tables, schema: Schema, horizon_us: int) -> None:
    """Print what became of the labels of tables that may be incomplete."""
    counts = label_counts(tables, schema, horizon_us)
    cli.say("labels: {positive:,} before a failure, {healthy:,} healthy, {censored:,} censored, {immature:,} not yet "
            "reported on".format(**counts))  # fmt: skip
    cli.say("{failures:,} failures; {prevented:,} replaced in time; {found_sound:,} replaced though sound; "
            "{censoring:,} replaced without a finding".format(**counts))  # fmt: skip
    if not counts["healthy"]:
        cli.say("warning: no row is known to be healthy, so nothing can train: send complete_until to /feedback, or "
                "set labels.reporting_delay_hours in params.yaml")  # fmt: skip
    if mostly_censored(counts):
        cli.say("warning: replacements without a finding hide more failures than were seen: send finding to /feedback")


def split_tables(tables: Tables, about: dict[str, Any], asked: params.Params, history_us: int) -> Split:
    """Decide which rows train and which judge.

    Raises:
        RefusedError: no row is left to train on, or none to judge by.
    """
    salt, prefix = asked.split["salt"], asked.split["prefix"]
    parts = split(tables, about["source"], salt, about["rule"], asked.horizon_us, history_us, prefix)
    for rows, what in ((parts.training, "train on"), (parts.judged, "judge by")):
        if not rows.any():
            raise cli.RefusedError(
                f"split.rule {about['rule']} leaves no row of {len(np.unique(tables.machine))} machines to {what}; "
                f"choose another in params.yaml, or let make data-check propose one"
            )
    return parts


def write_holdout(kept: Tables, schema: Schema, data: Path, out: Path) -> None:
    """Write the held-out tables, and the known anomalies of their machines, into an empty ``out``."""
    shutil.rmtree(out, ignore_errors=True)
    sources.write_tables(kept, schema, out)
    anomalies = data / "anomalies.parquet"
    if anomalies.exists():
        intervals = pd.read_parquet(anomalies)
        intervals = intervals[intervals["machineID"].isin(kept.named(np.unique(kept.machine)))]
        intervals.to_parquet(out / anomalies.name, index=False)


def main(words: list[str]) -> None:
    """Write build/validation.json and its page, build/holdout, and the fingerprints into build/data/data.json."""
    flags = cli.parser(__doc__, out=cli.HOLDOUT, writes="folder to write the held-out tables to")
    flags.add_argument("--pin", action="store_true", help="if the tables are valid, pin their fingerprint")
    compared = "compare readings with the drift reference of BUNDLE (default: of the champion)"
    flags.add_argument("--reference", type=Path, metavar="BUNDLE", help=compared)
    args = flags.parse_args(words)
    asked = params.load(args.params)
    about: dict[str, Any] = cli.read_json(args.data / "data.json", "run: python -m model.data")
    asked = asked.of(about)
    schema = Schema.from_dict(about["schema"])
    spec = FeatureSpec.from_params(asked.features, schema)  # an error in it is found now, not after minutes of training
    frames = sources.read_frames(args.data, {}, machine_id=schema.machine_id)
    check(frames, schema, usual(args.reference, about["source"]), args.data.parent)
    tables = sources.frames_to_tables(frames, schema, {})
    fingerprint = tables.fingerprint(schema.sensors)
    compare_with_pin(fingerprint, about, tables, args.pin)
    if tables.marks is not None and tables.failures is not None:
        say_what_is_known(with_delay(tables, asked.delay_us), schema, asked.horizon_us)
    parts = split_tables(tables, about, asked, spec.history_us)
    kept, judged_from = holdout(tables, parts, max(spec.history_us, champion.history_us(about)))
    write_holdout(kept, schema, args.data, args.out)
    about |= {
        "fingerprint": fingerprint,
        "holdout_fingerprint": kept.fingerprint(schema.sensors),
        "judged_from": judged_from,
        "train_until": last_times(tables, parts.training),
    }
    cli.write_json(args.data / "data.json", about)
    cli.say(f"valid; {len(parts.training_machines)} machines train, {len(judged_from)} judge")


if __name__ == "__main__":
    cli.main(main)
