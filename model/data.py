"""Fetch the tables to train on into build/data, unchanged.

Without a flag these are the tables of the fleet that model/data.lock.json pins. --profile simulates that fleet with
another profile. --source reads a folder instead (files PdM_<table>, files of your own, or a known public set), or the
log that a service has shipped (a folder, or an az://, s3:// or gs:// address). Both flags are for this machine only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import sources
from closedloop.data.schema import DataError
from model.common import cli, data_pin, params, proposed_params, request_log, starting_params, time_scaling


def brought(telemetry: pd.DataFrame, found: dict[str, Any], asked: params.Params) -> dict[str, Any]:
    """Return the schema, split rule and time scale of a public set, which replace those of ``params.yaml``."""
    minutes, part = found["schema"]["sampling_minutes"], asked.split | found["split"]
    watched = time_scaling.watched_hours(telemetry, minutes)
    span = time_scaling.training_hours(watched, part["rule"], part["prefix"], minutes)
    history = time_scaling.history(asked.features["history_hours"], span, minutes)
    brings = {"schema": found["schema"], "split": found["split"], "history_hours": history}
    return {"schema": found["schema"], "rule": part["rule"], "brings": brings}


def name_of(location: Path, found: dict[str, Any], asked: params.Params) -> str:
    """Return the name of a folder's fleet, which decides which machines are held out.

    A parameter file for that folder gives it: one that was proposed, or that a search wrote. A file with the name of
    the commit's own fleet (params.yaml, that of a recorded run, a copy of either) says nothing of the folder, so its
    name is then the one that data_check would propose. Else a file tuned on some machines would be judged on them.
    """
    own = {path: params.load(path).source for path in (params.PARAMS, starting_params.SIMULATED) if path.exists()}
    if asked.source not in own.values():
        return asked.source
    return str(found["source"]) if found["schema"] else proposed_params.fleet_name(location)


def main(words: list[str]) -> None:
    """Write build/data/PdM_*.parquet, and build/data/data.json, which describes them."""
    flags = cli.parser(__doc__, out=cli.DATA, writes="folder to write the tables to")
    choice = flags.add_mutually_exclusive_group()
    choice.add_argument("--profile", choices=("azure", "default"), help="simulate the pinned fleet with this profile")
    choice.add_argument("--source", metavar="PATH", help="read this folder, or this log, instead of the pin")
    args = flags.parse_args(words)
    asked = params.load(args.params)
    pin = data_pin.load()
    fleet = params.load().source  # the commit's; a file for another fleet does not change who is held out of this one
    about: dict[str, Any] = {"source": fleet, "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    anomalies: pd.DataFrame | None
    if args.source and request_log.is_log(args.source):
        cli.say(f"reading the log at {args.source}")
        frames, part = request_log.fetch(args.source, asked.schema)
        frames = request_log.settled(frames, asked.schema, (), args.source)
        anomalies = None
        about |= {"parts": [part], "local": True}  # the log belongs to the fleet that params.yaml names
    elif args.source:
        location = Path(args.source)
        found = sources.discover(location, asked.files)
        cli.say(f"reading {args.source}: format {found['format']}")
        frames = sources.read_frames(location, asked.columns, asked.files, asked.schema.machine_id, asked.read)
        anomalies = sources.read_anomalies(location, asked.files, asked.columns, asked.schema.machine_id, asked.read)
        about |= {"source": name_of(location, found, asked), "parts": [{"kind": found["format"]}], "local": True}
        if found["schema"]:
            about |= brought(frames["telemetry"], found, asked)
    else:
        if args.profile and any(part["kind"] != "simulator" for part in pin["parts"]):
            raise DataError(
                "--profile: model/data.lock.json pins data that is not simulated; read your own with --source"
            )
        parts = [part | ({"profile": args.profile} if args.profile else {}) for part in pin["parts"]]
        frames, anomalies = data_pin.fetch(parts, asked)
        if parts != pin["parts"]:  # another fleet, never compared with the champion of the pinned one
            about |= {"source": f"{fleet}-{args.profile}", "parts": parts, "local": True}
        else:
            about |= {"parts": parts, "local": False, "pinned": pin["fingerprint"]}
    if about["source"] != asked.source:
        cli.say(f"the fleet is called {about['source']}, which decides which machines are held out")
    data_pin.store(args.out, frames, anomalies, about)


if __name__ == "__main__":
    cli.main(main)
