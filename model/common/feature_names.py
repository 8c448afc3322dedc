"""The names of the features, without what computes them.

``closedloop.features.spec`` makes the same names, but importing it takes a second, for its compiled loops. A test holds
the two equal. A section with slips has the names of what can be read in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import closedloop.features.custom  # noqa: F401  # registers the custom features
from closedloop.data.schema import microseconds
from closedloop.features.registry import CUSTOM

FAMILIES = {  # the keys of each family
    "rolling": ("windows_hours",),
    "trend": ("half_lives_hours", "cusum_slack"),
    "change": ("windows_hours",),
    "shift": ("steps", "weight"),
    "errors": ("windows_hours",),
}
KINDS = {"rolling": ("mean", "std"), "trend": ("ewma",), "change": ("change",)}  # named with a length, by family
SHIFTS = ("shift_odds", "shift_size", "shift_hours", "shift_held_hours")
LONGEST_HOURS = 24 * 366 * 10


def is_length(value: Any) -> bool:
    """Return whether a value is a length of time that a feature may have, in hours."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < LONGEST_HOURS


def of_sensor(features: Mapping[str, Any]) -> list[str]:
    """Return the part after the sensor's name of every feature of the families that are on."""
    names: list[str] = []
    for family, kinds in KINDS.items():
        names += [f"{kind}_{label(hours)}" for hours in lengths(features, family) for kind in kinds]
    names += ["cusum"] if _family(features, "trend").get("cusum_slack") is not None else []
    return names + [name for name in SHIFTS if _family(features, "shift")]


def of_fleet(features: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return every feature that belongs to no single sensor: errors, components, machine, and the custom ones."""
    names = list(custom(features, schema)[0])
    if _family(features, "errors"):
        own = [f"count_{label(hours)}" for hours in lengths(features, "errors")] + ["hours_since"]
        names += [f"{code}_{name}" for code in _list(schema, "errors") for name in own]
    names += [f"{component}_days_since" for component in _list(schema, "components")]
    return [*names, "age", *(f"model={model}" for model in _list(schema, "models"))]


def custom(features: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the custom features that the fleet can feed, and those that are left out."""
    history: Any = features.get("history_hours")
    fed: list[str] = []
    skipped: list[str] = []
    sensors = schema.get("sensors") or {}
    for name, item in CUSTOM.items():
        short = is_length(history) and microseconds(history) < item.window_us
        (skipped if short or not set(item.sensors) <= set(sensors) else fed).append(name)
    return fed, skipped


def lengths(features: Mapping[str, Any], family: str) -> list[float]:
    """Return the windows or half-lives of a family, in hours, without those that are no length."""
    values = _family(features, family).get(FAMILIES[family][0])
    return [value for value in values if is_length(value)] if isinstance(values, list) else []


def label(hours: float) -> str:
    """Return a length of time as a feature's name has it: ``24h``, ``0.5h``, or ``7min``."""
    us = microseconds(hours)
    exact = us / microseconds(1)
    return f"{exact:g}h" if round(exact, 2) == exact else f"{us / 60_000_000:g}min"


def _family(features: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    family = features.get(name)
    return family if isinstance(family, Mapping) else {}


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    values = schema.get(key)
    return values if isinstance(values, list) else []
