"""The names of the features that a parameter file asks for, where its sections may have slips.

A section with slips has the names of what can be read in it. A test holds them equal to those of
``closedloop.features.spec``, whose import takes a second, for its compiled loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from closedloop.data.schema import DataError, microseconds
from closedloop.features import names
from closedloop.features.registry import CUSTOM

try:
    import closedloop.features.custom  # noqa: F401  # registers the custom features
except DataError as error:  # an import has no way to say it in one line; whoever asks for the features does
    _refused: DataError | None = error
    CUSTOM.clear()  # else the next import would find the first ones defined twice
else:
    _refused = None


def of_sensor(features: Mapping[str, Any]) -> list[str]:
    """Return the part after the sensor's name of every feature of the families that are on."""
    lengths = {family: _lengths(features, family) for family in ("rolling", "trend", "change", "level")}
    own = names.of_sensor(lengths, _family(features, "trend").get("cusum_slack") is not None)
    return own + [name for name in names.SHIFTS if _family(features, "shift")] + names.of_levels(lengths)


def of_fleet(features: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return every feature that belongs to no single sensor: errors, components, machine, and the custom ones."""
    found = list(custom(features, schema)[0])
    if _family(features, "errors"):
        found += names.of_errors(_list(schema, "errors"), _lengths(features, "errors"))
    return [*found, *names.of_components(_list(schema, "components")), *names.of_machine(_list(schema, "models"))]


def custom(features: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the custom features that the fleet can feed, and those that are left out.

    Raises:
        DataError: ``custom.py`` has one that cannot be registered.
    """
    if _refused is not None:
        raise DataError(f"features/custom.py: {_refused}")
    history: Any = features.get("history_hours")
    history_us = microseconds(history) if names.is_length(history) else math.inf
    fed: list[str] = []
    skipped: list[str] = []
    for name, item in CUSTOM.items():
        (fed if item.unfed(schema.get("sensors") or {}, history_us) is None else skipped).append(name)
    return fed, skipped


def _lengths(features: Mapping[str, Any], family: str) -> list[int]:
    """Return the windows or half-lives of a family, in microseconds, without those that are no length."""
    values = _family(features, family).get(names.FAMILIES[family][0])
    return [microseconds(value) for value in values if names.is_length(value)] if isinstance(values, list) else []


def _family(features: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    family = features.get(name)
    return family if isinstance(family, Mapping) else {}


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    values = schema.get(key)
    return values if isinstance(values, list) else []
