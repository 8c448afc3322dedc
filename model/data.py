"""Fetch the tables that this commit trains on into build/data, as they are.

Without a flag: the fleet that model/data.lock.json pins. --profile simulates the same fleet under another profile,
--source reads a folder of files instead (the reference layout, or a known public set), or the log that a service has
shipped (a folder, or an az://, s3:// or gs:// address); all this is for this machine only.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import simulate, sources
from closedloop.data.schema import DataError, Schema
from model.common import cli, logged, params, timescale

LOCK = Path(__file__).with_name("data.lock.json")


def fetch(parts: list[dict[str, Any]], schema: Schema) -> tuple[dict[str, pd.DataFrame], pd.DataFrame | None]:
    """The frames and the anomaly intervals of a pin's parts.

    Raises:
        DataError: a part's kind is unknown, or one of its keys is missing.
    """
    frames: list[dict[str, pd.DataFrame]] = []
    anomalies: list[pd.DataFrame] = []
    for part in parts:
        if part.get("kind") != "simulator":
            raise DataError(f"{LOCK}: a part of kind {part.get('kind')!r} cannot be read; known: simulator")
        try:
            sizes = {key: part[key] for key in ("profile", "machines", "days", "seed")}
        except KeyError as error:
            raise DataError(f"{LOCK}: the part {part} lacks {error}; add it") from None
        cli.say("simulating {machines} machines for {days} days, profile {profile}, seed {seed}".format(**sizes))
        made = simulate.simulate(**sizes, schema=schema)
        frames.append(sources.tables_to_frames(made.tables, schema))
        anomalies.append(made.anomalies)
    joined = {name: pd.concat([frame[name] for frame in frames], ignore_index=True) for name in frames[0]}
    return joined, pd.concat(anomalies, ignore_index=True)


def brought(telemetry: pd.DataFrame, found: dict[str, Any], asked: params.Params) -> dict[str, Any]:
    """What holds for a public set instead of the same sections of ``params.yaml``: schema, split and time scale."""
    minutes, part = found["schema"]["sampling_minutes"], asked.split | found["split"]
    watched = timescale.watched_hours(telemetry, minutes)
    span = timescale.training_hours(watched, part["rule"], part["prefix"], minutes)
    history = timescale.history(asked.features["history_hours"], span, minutes)
    brings = {"schema": found["schema"], "split": found["split"], "history_hours": history}
    return {"schema": found["schema"], "rule": part["rule"], "brings": brings}


def main(words: list[str]) -> None:
    """Write build/data/PdM_*.parquet and build/data/data.json, which says what they are."""
    flags = cli.parser(__doc__, out=cli.DATA)
    choice = flags.add_mutually_exclusive_group()
    choice.add_argument("--profile", choices=("azure", "default"), help="simulate the pinned fleet in this profile")
    choice.add_argument("--source", metavar="PATH", help="read this folder, or this log, instead of the pin")
    args = flags.parse_args(words)
    asked = params.load(args.params)
    pin = cli.read_json(LOCK, "restore it from git")
    about: dict[str, Any] = {"source": asked.source, "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    anomalies: pd.DataFrame | None
    if args.source and logged.is_log(args.source):
        cli.say(f"reading the log at {args.source}")
        frames, part = logged.fetch(args.source, asked.schema)
        anomalies = None
        about |= {"parts": [part], "local": True}  # the source is the fleet's name: its log's machines are its own
    elif args.source:
        location = Path(args.source)
        found = sources.discover(location, asked.files)
        cli.say(f"reading {args.source}: format {found['format']}")
        frames = sources.read_frames(location, asked.columns, asked.files, asked.machine_numbers)
        anomalies = sources.read_anomalies(location, asked.files)
        # the parameters of a commit name its own fleet; a file of another fleet names that
        source = location.resolve().name if args.params.resolve() == params.PARAMS.resolve() else asked.source
        about |= {"source": source, "parts": [{"kind": found["format"]}], "local": True}
        if found["schema"]:
            about |= brought(frames["telemetry"], found, asked)
    else:
        parts = [part | ({"profile": args.profile} if args.profile else {}) for part in pin["parts"]]
        frames, anomalies = fetch(parts, asked.schema)
        if parts != pin["parts"]:  # another fleet: never held against the champion of the pinned one
            about |= {"source": f"{asked.source}-{args.profile}", "parts": parts, "local": True}
        else:
            about |= {"parts": parts, "local": False, "pinned": pin["fingerprint"]}
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    for name, frame in frames.items():
        frame.to_parquet(args.out / f"PdM_{name}.parquet", index=False)
    if anomalies is not None:
        anomalies.to_parquet(args.out / "anomalies.parquet", index=False)
    cli.write_json(args.out / "data.json", about)
    cli.say(f"wrote {args.out}: " + ", ".join(f"{len(frame):,} {name}" for name, frame in frames.items()))


if __name__ == "__main__":
    cli.main(main)
