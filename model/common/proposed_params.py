"""The parameter file that ``data_check`` proposes: that of this commit, changed to fit another fleet."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from closedloop.data.frames import Frames, one_line
from closedloop.data.machines import TEXT
from closedloop.data.schema import CODE_COLUMN, DataError, Schema, microseconds
from closedloop.features.names import label
from closedloop.features.spec import FeatureSpec
from closedloop.judge.split import PREFIX, held_out
from model.common import data_pin, params, starting_params, time_scaling
from model.common.provenance import ROOT

EVEN = 0.5  # of the steps are near the most frequent one, or the rows are irregular
FEWEST = 5  # machines that the split by machine and time leaves on either side


@dataclass
class Fleet:
    """What a parameter file says of a fleet; the fields are named as in ``params.yaml``.

    ``notes`` maps a key of the file, such as ``schema.components``, to the comment beside it.
    """

    source: str
    schema: dict[str, Any]
    split: dict[str, Any]
    history_hours: float
    files: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def fleet_name(location: Path) -> str:
    """Return a name for the fleet of a folder: the folder's, and letters of its place, so that no two share one.

    The files of the adopted fleet keep its name, which decides which machines are held out.
    """
    place = location.resolve()
    adopted = [part["location"] for part in data_pin.load()["parts"] if part.get("kind") == "files"]
    if any((ROOT / name).resolve() in (place, place.parent if place.is_file() else place) for name in adopted):
        return params.load().source
    name = place.name.replace("\\", "-").lstrip(".") or "fleet"  # source: takes no other
    return f"{name}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"


def plausible(readings: pd.Series) -> list[float]:
    """Return a plausible range: what was seen, and half as much on either side, but not below 0 if nothing is."""
    values = readings.dropna().to_numpy(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return [-1e6, 1e6]
    low, high = float(values.min()), float(values.max())
    margin = (high - low) / 2 or abs(high) or 1.0
    step = 10.0 ** np.floor(np.log10(margin) - 0.5)
    bottom, top = np.floor((low - margin) / step) * step, np.ceil((high + margin) / step) * step
    bottom, top = max(0.0, bottom) if low >= 0 else bottom, top
    for digits in (6, 9, 12, 17):  # rounded to six digits, a meter at 123,456,789 would lie outside
        limits = [float(f"{bottom:.{digits}g}"), float(f"{top:.{digits}g}")]
        if limits[0] <= low and high <= limits[1] and limits[0] < limits[1]:
            return limits
    return [low, high]


def schema_of(frames: Frames, sensors: Iterable[str], notes: dict[str, str], machine_id: str) -> dict[str, Any]:
    """Return the section ``schema:`` that fits the frames, and add the counts to ``notes``."""

    def counted(key: str, tables: Mapping[str, str]) -> list[str]:
        counts = {table: Counter(frames[table][name].dropna()) for table, name in tables.items() if table in frames}
        said = [
            f"{table}: {', '.join(f'{name} {n:,}' for name, n in of.most_common(6))}" for table, of in counts.items()
        ]
        notes[f"schema.{key}"] = "; ".join(said) or "none known"
        return sorted(set().union(*counts.values()))

    telemetry = frames["telemetry"]
    kind = {"machine_id": machine_id} if machine_id == TEXT else {}
    return {
        **kind,
        "sampling_minutes": sampling_minutes(telemetry),
        "sensors": {name: plausible(pd.to_numeric(telemetry[name], errors="coerce")) for name in sensors},
        "components": counted("components", {"failures": CODE_COLUMN["failures"], "maint": CODE_COLUMN["maint"]}),
        "errors": counted("errors", {"errors": CODE_COLUMN["errors"]}),
        "models": counted("models", {"machines": "model"}),
    }


def steps_minutes(telemetry: pd.DataFrame) -> pd.Series:
    """Return the minutes between each row and the machine's next one."""
    ordered = telemetry[["machineID", "datetime"]].sort_values(["machineID", "datetime"])
    steps = ordered.groupby("machineID")["datetime"].diff().dt.total_seconds() / 60
    return steps[steps > 0]


def irregular(telemetry: pd.DataFrame) -> bool:
    """Return whether fewer than half of the steps between rows are near the most frequent one."""
    steps = steps_minutes(telemetry)
    return len(steps) > 0 and bool((abs(steps / steps.mode().iloc[0] - 1) <= 0.1).mean() < EVEN)


def sampling_minutes(telemetry: pd.DataFrame) -> int:
    """Return the most frequent step between rows, in whole minutes, at least 1; their median where it is irregular."""
    steps = steps_minutes(telemetry)
    if not len(steps):
        return 60
    return max(1, round(float(steps.median() if irregular(telemetry) else steps.mode().iloc[0])))


def split_of(machines: pd.Series, source: str, salt: str) -> tuple[dict[str, Any], str]:
    """Return the split rule for these machines, and the reason."""
    held = held_out(
        machines.dropna().unique().astype(np.int64 if machines.dtype.kind in "iu" else object), source, salt
    )
    out, left = int(held.sum()), int((~held).sum())
    if min(out, left) >= FEWEST:
        return {"rule": "fleet"}, f"{left} machines train, {out} are held out and judge in the last third of the time"
    why = f"split by machine, {left} would train and {out} judge, and {FEWEST} of each are needed"
    return {"rule": "prefix", "prefix": round(PREFIX, 2)}, f"the first third of each machine's rows trains: {why}"


def history_of(telemetry: pd.DataFrame, asked: params.Params, split: Mapping[str, Any], minutes: int) -> float:
    """Return the length of the history, in hours, that suits how long and how often these machines were watched."""
    watched = time_scaling.watched_hours(telemetry, minutes)
    span = time_scaling.training_hours(watched, split["rule"], split.get("prefix", PREFIX), minutes)
    return time_scaling.history(asked.features["history_hours"], span, minutes)


def render(fleet: Fleet) -> str:
    """Return the text of the parameter file, with those comments of this commit's file that still hold."""
    editor = YAML()
    editor.width = 1_000_000  # a folded line of names cannot be read back
    content, own = editor.load(starting_params.path().read_text(encoding="utf-8")), starting_params.raw()
    for family in set(content["features"]) - set(own["features"]):
        del content["features"][family]
    content["split"].pop("prefix", None)  # written below, where the fleet has one
    scaled = time_scaling.scale(own, fleet.history_hours, fleet.schema["sampling_minutes"])
    skipped = {
        reason.partition(":")[0]
        for reason in FeatureSpec.from_params(scaled["features"], Schema.from_dict(fleet.schema)).skipped
    }
    scaled["anomaly"]["features"] = [name for name in scaled["anomaly"]["features"] if name not in skipped]
    split = {"salt": own["split"]["salt"], "rule": fleet.split["rule"]}
    scaled |= {"source": fleet.source, "schema": fleet.schema, "split": split}
    content["schema"].pop("machine_id", None)
    if "machine_id" in fleet.schema:
        content["schema"].insert(
            0, "machine_id", fleet.schema["machine_id"], comment="machines have names, not numbers"
        )
    _replace(content, scaled)
    for key in ("columns", *starting_params.OWN):
        content.pop(key, None)
    content.insert(2, "columns", _flow(fleet.columns), comment="your column names, each with ours, by table")
    if fleet.read:
        content.insert(2, "read", _flow(fleet.read), comment="how your files are written")
    if fleet.files:
        content.insert(2, "files", _flow(fleet.files), comment="your file of each table")
    for key, note in fleet.notes.items():
        section, name = key.split(".")
        content[section].yaml_add_eol_comment(one_line(note), name)
    out = io.StringIO()
    editor.dump(content, out)
    body = re.sub(r"\A(#.*\n|\s)*", "", out.getvalue())
    body = re.sub(r"\n+(?=\w+:)", "\n\n", body)
    if prefix := fleet.split.get("prefix"):
        said = f"\\1\n  prefix: {prefix:g} # first rows of each machine that train: a share of them, or their number"
        body = re.sub(r"^(  rule: prefix.*)$", said, body, count=1, flags=re.MULTILINE)
    return (
        f"# Proposed by make data-check for the fleet in {one_line(fleet.source)}: "
        "read it, and correct what was guessed wrong.\n"
        f"# Every key is described in model/README.md. An unknown key is an error, so a typo does not pass.\n"
        f"# Lengths of time are those of model/{starting_params.path().name} times "
        f"{fleet.history_hours / own['features']['history_hours']:.3g}.\n\n{body}"
    )


def write(fleet: Fleet, path: Path) -> params.Params:
    """Write the parameter file of a fleet; return its parameters once they are read back as they were meant.

    Raises:
        DataError: what was written would be read as something else; then the file stays as it was.
    """
    text = render(fleet)
    asked = params.parse(yaml.safe_load(text), path)
    read = (asked.source, asked.schema.to_dict()["sensors"], asked.files, asked.columns, asked.read)
    meant = (fleet.source, fleet.schema["sensors"], fleet.files, fleet.columns, fleet.read)
    if read != meant:
        wrong = next(f"{was!r} is read as {now!r}" for was, now in zip(meant, read, strict=True) if was != now)
        raise DataError(f"{path}: a name cannot be written as YAML: {wrong}; give it another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return asked


def _replace(old: CommentedMap, new: Mapping[str, Any]) -> None:
    """Replace values in place, so that comments stay; an equal value keeps the way it is written."""
    for key, value in new.items():
        if key in old and old[key] == value:
            continue
        if isinstance(value, Mapping) and isinstance(old.get(key), CommentedMap) and set(value) == set(old[key]):
            _replace(old[key], value)
        elif isinstance(value, Mapping):
            old[key] = CommentedMap({_text(name): _flow(item) for name, item in value.items()})
        else:
            old[key] = _flow(value)
            if note := _minutes(key, value):
                old.yaml_add_eol_comment(note, key)


def _minutes(key: str, value: Any) -> str:
    """Return lengths of time as a comment in minutes, where they are no whole number of hours; else nothing."""
    if not str(key).endswith("_hours"):
        return ""
    said = ", ".join(label(microseconds(item)) for item in (value if isinstance(value, list) else [value]))
    return said if "min" in said else ""


def _flow(value: Any) -> Any:
    """Return the value as YAML on one line."""
    new: CommentedMap | CommentedSeq
    if isinstance(value, Mapping):
        new = CommentedMap({_text(name): _flow(item) for name, item in value.items()})
    elif isinstance(value, list):
        new = CommentedSeq(_flow(item) for item in value)
    else:
        return _text(value)
    new.fa.set_flow_style()
    return new


def _text(value: Any) -> Any:
    """Return a value as YAML writes it: texts quoted where YAML would read another type, whole floats as integers."""
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value == int(value) and abs(value) < 1e15 else value
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", value, re.ASCII):
        return DoubleQuotedScalarString(value)
    try:
        return value if yaml.safe_load(value) == value else DoubleQuotedScalarString(value)
    except yaml.YAMLError:
        return DoubleQuotedScalarString(value)
