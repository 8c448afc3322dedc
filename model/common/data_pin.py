"""The data pin, model/data.lock.json: the parts that a fleet's tables come from, and the fingerprint of these tables.

    {"fingerprint": "sha256:…", "parts": [{"kind": "files", "location": "data/plant", "files": […]}]}

Each kind of part has one module: ``pinned_files`` makes and fetches ``files``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from closedloop.data import simulate, sources
from closedloop.data.frames import Frames
from closedloop.data.schema import DataError
from model.common import cli, pinned_files
from model.common.params import Params
from model.common.provenance import PIN

RESTORE = "restore it from git"
KINDS = ("simulator", "files")
SIMULATED = ("profile", "machines", "days", "seed")


def load(path: Path | None = None) -> dict[str, Any]:
    """Return the pin of this checkout, or of another file.

    Raises:
        DataError: it is missing or is no pin.
    """
    pin: dict[str, Any] = cli.read_json(path or PIN, RESTORE)
    return pin


def write(parts: list[dict[str, Any]], fingerprint: str = "") -> None:
    """Write the pin of these parts; ``python -m model.validate --pin`` fills in the fingerprint of their tables."""
    cli.write_json(PIN, {"fingerprint": fingerprint, "parts": parts})


def fetch(parts: list[dict[str, Any]], asked: Params) -> tuple[Frames, pd.DataFrame | None]:
    """Return the frames of a pin's parts, joined, and their anomaly intervals where any are known.

    Raises:
        DataError: a part is of an unknown kind, lacks a key, or cannot be had as it is pinned.
    """
    frames: list[Frames] = []
    anomalies: list[pd.DataFrame] = []
    for part in parts:
        found, intervals = _fetch_part(part, asked)
        frames.append(found)
        anomalies += [] if intervals is None else [intervals]
    names = dict.fromkeys(name for frame in frames for name in frame)
    joined = {name: pd.concat([frame[name] for frame in frames if name in frame], ignore_index=True) for name in names}
    return joined, pd.concat(anomalies, ignore_index=True) if anomalies else None


def _fetch_part(part: Mapping[str, Any], asked: Params) -> tuple[Frames, pd.DataFrame | None]:
    """Return the frames of one part, and its anomaly intervals where they are known."""
    if part.get("kind") == "simulator":
        return _simulated(part, asked)
    if part.get("kind") == "files":
        cli.say(f"reading {len(part['files'])} files of {part['location']}")
        folder = pinned_files.fetch(part)
        frames = sources.read_frames(folder, asked.columns, asked.files, asked.machine_numbers, asked.read)
        return frames, sources.read_anomalies(folder, asked.files, asked.columns, asked.machine_numbers, asked.read)
    raise DataError(f"{PIN}: a part is of kind {part.get('kind')!r}; known kinds are {', '.join(KINDS)}")


def _simulated(part: Mapping[str, Any], asked: Params) -> tuple[Frames, pd.DataFrame]:
    try:
        sizes = {key: part[key] for key in SIMULATED}
    except KeyError as error:
        raise DataError(f"{PIN}: the part {part} lacks the key {error}; add it") from None
    cli.say("simulating {machines} machines for {days} days, profile {profile}, seed {seed}".format(**sizes))
    made = simulate.simulate(**sizes, schema=asked.schema)
    return sources.tables_to_frames(made.tables, asked.schema), made.anomalies
