"""Fetch the tables to train on into build/data, unchanged.

Without a flag these are the tables of the fleet that model/data.lock.json pins. --profile simulates that fleet with
another profile. --source reads a folder instead (files PdM_<table>, files of your own, or a known public set), or the
log that a service has shipped (a folder, or an az://, s3:// or gs:// address). Both flags are for this machine only.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import simulate, sources
from closedloop.data.frames import join_marks
from closedloop.data.schema import DataError, Schema
from model.common import cli, params, request_log, time_scaling
from model.common.provenance import PIN


def fetch(parts: list[dict[str, Any]], schema: Schema) -> tuple[dict[str, pd.DataFrame], pd.DataFrame | None]:
    """Return the frames of a pin's parts, joined, and their anomaly intervals.

    Raises:
        DataError: a part is of an unknown kind, or lacks a key.
    """
    frames: list[dict[str, pd.DataFrame]] = []
    anomalies: list[pd.DataFrame] = []
    for part in parts:
        if part.get("kind") != "simulator":
            raise DataError(f"{PIN}: a part is of kind {part.get('kind')!r}; the one known kind is simulator")
        try:
            sizes = {key: part[key] for key in ("profile", "machines", "days", "seed")}
        except KeyError as error:
            raise DataError(f"{PIN}: the part {part} lacks the key {error}; add it") from None
        cli.say("simulating {machines} machines for {days} days, profile {profile}, seed {seed}".format(**sizes))
        made = simulate.simulate(**sizes, schema=schema)
        frames.append(sources.tables_to_frames(made.tables, schema))
        anomalies.append(made.anomalies)
    joined = {name: pd.concat([frame[name] for frame in frames], ignore_index=True) for name in frames[0]}
    if (marks := join_marks(frames)) is not None:
        joined["marks"] = marks
    return joined, pd.concat(anomalies, ignore_index=True)


def brought(telemetry: pd.DataFrame, found: dict[str, Any], asked: params.Params) -> dict[str, Any]:
    """Return the schema, split rule and time scale of a public set, which replace those of ``params.yaml``."""
    minutes, part = found["schema"]["sampling_minutes"], asked.split | found["split"]
    watched = time_scaling.watched_hours(telemetry, minutes)
    span = time_scaling.training_hours(watched, part["rule"], part["prefix"], minutes)
    history = time_scaling.history(asked.features["history_hours"], span, minutes)
    brings = {"schema": found["schema"], "split": found["split"], "history_hours": history}
    return {"schema": found["schema"], "rule": part["rule"], "brings": brings}


def main(words: list[str]) -> None:
    """Write build/data/PdM_*.parquet, and build/data/data.json, which describes them."""
    flags = cli.parser(__doc__, out=cli.DATA, writes="folder to write the tables to")
    choice = flags.add_mutually_exclusive_group()
    choice.add_argument("--profile", choices=("azure", "default"), help="simulate the pinned fleet with this profile")
    choice.add_argument("--source", metavar="PATH", help="read this folder, or this log, instead of the pin")
    args = flags.parse_args(words)
    asked = params.load(args.params)
    pin = cli.read_json(PIN, "restore it from git")
    about: dict[str, Any] = {"source": asked.source, "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    anomalies: pd.DataFrame | None
    if args.source and request_log.is_log(args.source):
        cli.say(f"reading the log at {args.source}")
        frames, part = request_log.fetch(args.source, asked.schema)
        anomalies = None
        about |= {"parts": [part], "local": True}  # the log belongs to the fleet that params.yaml names
    elif args.source:
        location = Path(args.source)
        found = sources.discover(location, asked.files)
        cli.say(f"reading {args.source}: format {found['format']}")
        frames = sources.read_frames(location, asked.columns, asked.files, asked.machine_numbers, asked.read)
        anomalies = sources.read_anomalies(location, asked.files, asked.columns, asked.machine_numbers, asked.read)
        # params.yaml names the commit's own fleet, so a folder has its own name; another file names the folder's fleet
        source = location.resolve().name if args.params.resolve() == params.PARAMS.resolve() else asked.source
        about |= {"source": source, "parts": [{"kind": found["format"]}], "local": True}
        if found["schema"]:
            about |= brought(frames["telemetry"], found, asked)
    else:
        parts = [part | ({"profile": args.profile} if args.profile else {}) for part in pin["parts"]]
        frames, anomalies = fetch(parts, asked.schema)
        if parts != pin["parts"]:  # another fleet, never compared with the champion of the pinned one
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
