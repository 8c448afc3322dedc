"""Read and check ``params.yaml``. An unknown key, a missing key and a wrong value each give one clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from closedloop.data import reading
from closedloop.data.schema import DataError, Schema, microseconds
from closedloop.judge.split import PREFIX
from model.common import timescale

PARAMS = Path(__file__).parents[1] / "params.yaml"

# The keys of each section. The sections schema and features are checked by their own modules.
NUMBER = (int, float)
SECTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "labels": {"horizon_hours": NUMBER},
    "split": {"salt": str, "rule": str, "prefix": NUMBER},
    "anomaly": {"detector": str, "features": list, "parameters": dict, "alarms_per_machine_year": NUMBER},
    "failure": {
        "estimator": str,
        "parameters": dict,
        "negatives_every_hours": NUMBER,
        "folds": int,
        "minimum_failures": int,
    },
    "judge": {"episode_gap_hours": NUMBER, "minimum_lead_hours": NUMBER, "neutral_hours": NUMBER, "costs": dict},
    "gate": {
        "on_inconclusive": str,
        "minimum_machines": int,
        "minimum_failures": int,
        "error_rate": float,
        "false_alarm_ratio": NUMBER,
        "floors": dict,
    },
}
KINDS = {str: "text", int: "a whole number", list: "a list", dict: "a mapping"}
CHOICES = {
    ("split", "rule"): ("fleet", "unit", "prefix"),
    ("anomaly", "detector"): ("mean_chart", "isolation_forest", "pca"),
    ("failure", "estimator"): ("hist_gradient_boosting",),
    ("gate", "on_inconclusive"): ("ship", "ask"),
}
OPTIONAL = {("split", "prefix"): PREFIX}  # defaults
COSTS = {"unplanned", "planned", "false_alarm", "missed_anomaly"}


@dataclass(frozen=True)
class Params:
    """The content of a parameter file. ``raw`` is the file as read; horizons and windows are in hours."""

    source: str
    schema: Schema
    columns: dict[str, dict[str, str]]
    files: reading.FileNames
    machine_numbers: dict[str, int]
    read: dict[str, Any]
    features: dict[str, Any]
    labels: dict[str, Any]
    split: dict[str, Any]
    anomaly: dict[str, Any]
    failure: dict[str, Any]
    judge: dict[str, Any]
    gate: dict[str, Any]
    seed: int
    raw: dict[str, Any]

    @property
    def horizon_us(self) -> int:
        """The time that a failure head looks ahead, in microseconds."""
        return microseconds(self.labels["horizon_hours"])

    def of(self, about: Mapping[str, Any]) -> Params:
        """Return these parameters for the fetched fleet; ``about`` is the content of ``build/data/data.json``."""
        return parse(of_fleet(self.raw, about))


def _check(path: Path, section: str, value: Any) -> dict[str, Any]:
    """Check one section of the file ``path``, and return it with its defaults."""
    known = SECTIONS[section]
    if not isinstance(value, dict):
        raise DataError(f"{path}: {section}: is not a mapping; write its keys below it, indented")
    if unknown := sorted(set(value) - set(known)):
        raise DataError(f"{path}: {section}.{unknown[0]} is not a known key; known are {', '.join(known)}")
    value = {key: default for (of, key), default in OPTIONAL.items() if of == section} | value
    for key, kind in known.items():
        if key not in value:
            raise DataError(f"{path}: {section}.{key} is missing; add it")
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            wanted = KINDS.get(kind, "a number") if isinstance(kind, type) else "a number"
            raise DataError(f"{path}: {section}.{key} is {value[key]!r}; it must be {wanted}")
        choices = CHOICES.get((section, key))
        if choices and value[key] not in choices:
            raise DataError(f"{path}: {section}.{key} is {value[key]!r}; choose one of {', '.join(choices)}")
        if isinstance(value[key], int | float) and not 0 < value[key] < math.inf:
            raise DataError(f"{path}: {section}.{key} is {value[key]!r}; it must be a number above 0")
    return value


def _names(path: Path, section: str, value: Any, kind: type) -> dict[str, Any]:
    """Check an optional section that maps names to texts or numbers, each used once."""
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(type(item) is kind for item in value.values()):
        raise DataError(
            f"{path}: {section}: write 'name: {'file' if kind is str else 'number'}' below it, one on each line"
        )
    if len(set(value.values())) < len(value):
        raise DataError(f"{path}: {section}: two names have the same value; give each its own")
    return {str(name): item for name, item in value.items()}


def load(path: Path = PARAMS) -> Params:
    """Read and check a parameter file.

    Raises:
        DataError: the file cannot be read, or a key is unknown, missing or has a value of the wrong kind.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise DataError(f"{path}: is not a mapping; start again from the file in git")
    return parse(raw, path)


def of_fleet(raw: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a parameter file; a public set replaces its schema, split and lengths of time."""
    brings = about.get("brings")
    if brings is None:
        return raw
    scaled = timescale.scale(raw, brings["history_hours"], brings["schema"]["sampling_minutes"])
    return scaled | {"schema": brings["schema"], "split": scaled["split"] | brings["split"]}


def parse(raw: dict[str, Any], path: Path = PARAMS) -> Params:
    """Check the content of a parameter file, which errors call ``path``.

    Raises:
        DataError: a key is unknown, missing or has a value of the wrong kind.
    """
    top = {"source", "schema", "columns", "features", "seed", *SECTIONS}
    known = top | {"files", "machine_numbers", "read"}
    if unknown := sorted(set(raw) - known):
        raise DataError(f"{path}: {unknown[0]} is not a known section; known are {', '.join(sorted(known))}")
    if missing := sorted(top - set(raw)):
        raise DataError(f"{path}: the section {missing[0]} is missing; add it")
    if not isinstance(raw["seed"], int):
        raise DataError(f"{path}: seed is {raw['seed']!r}; it must be a whole number")
    for name in ("schema", "features", "columns"):
        if not isinstance(raw[name] or {}, dict):
            raise DataError(f"{path}: {name}: is not a mapping; write its keys below it, indented")
    sections = {name: _check(path, name, raw[name]) for name in SECTIONS}
    prefix = sections["split"]["prefix"]
    if prefix >= 1 and prefix != int(prefix):
        raise DataError(f"{path}: split.prefix is {prefix!r}; it must be a share below 1 or a whole number of rows")
    if set(sections["judge"]["costs"]) != COSTS:
        raise DataError(f"{path}: judge.costs must have exactly the keys {', '.join(sorted(COSTS))}")
    if sections["failure"]["folds"] < 2:
        raise DataError(f"{path}: failure.folds is {sections['failure']['folds']}; it must be 2 or more")
    for where, numbers in (("judge.costs", sections["judge"]["costs"]), ("gate.floors", sections["gate"]["floors"])):
        for key, value in numbers.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise DataError(f"{path}: {where}.{key} is {value!r}; it must be a number, 0 or more")
    return Params(
        source=str(raw["source"]),
        schema=Schema.from_dict(raw["schema"] or {}),
        columns=raw["columns"] or {},
        files=reading.check_files(raw.get("files"), str(path)),
        machine_numbers=_names(path, "machine_numbers", raw.get("machine_numbers"), int),
        read=reading.check(raw.get("read"), str(path)),
        features=raw["features"] or {},
        seed=raw["seed"],
        raw=raw,
        **sections,
    )
