"""The names of the features. Nothing here computes one, so that it is imported without the compiled loops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from closedloop.data.schema import HOUR_US

FAMILIES = {  # the keys of each family in params.yaml
    "rolling": ("windows_hours",),
    "trend": ("half_lives_hours", "cusum_slack"),
    "change": ("windows_hours",),
    "shift": ("steps", "weight"),
    "level": ("half_lives_hours",),
    "errors": ("windows_hours",),
}
SHIFTS = ("shift_odds", "shift_size", "shift_hours", "shift_held_hours")
LONGEST_HOURS = 24 * 366 * 10


def is_length(hours: Any) -> bool:
    """Whether a value is a length of time that a feature may have, in hours."""
    return not isinstance(hours, bool) and isinstance(hours, int | float) and 0 < hours < LONGEST_HOURS


def label(us: int) -> str:
    """A length of time for the name of a feature: ``24h``, ``0.5h``, or ``7min`` where hours need over two decimals."""
    hours = us / HOUR_US
    return f"{hours:g}h" if round(hours, 2) == hours else f"{us / 60_000_000:g}min"


def of_sensor(lengths: Mapping[str, Iterable[int]], cusum: bool) -> list[str]:
    """What follows a sensor's name in each feature of rolling, trend and change; ``lengths`` are theirs, by family."""
    names = [f"{kind}_{label(us)}" for us in lengths["rolling"] for kind in ("mean", "std")]
    names += [f"ewma_{label(us)}" for us in lengths["trend"]]
    names += ["cusum"] if cusum else []
    return names + [f"change_{label(us)}" for us in lengths["change"]]


def of_levels(lengths: Mapping[str, Iterable[int]]) -> list[str]:
    """What follows a sensor's name in each feature of the level family."""
    return [f"level_{label(us)}" for us in lengths["level"]]


def of_errors(codes: Iterable[Any], windows_us: Iterable[int]) -> tuple[str, ...]:
    """The features of the errors family, code by code."""
    own = (*(f"count_{label(us)}" for us in windows_us), "hours_since")
    return tuple(f"{code}_{name}" for code in codes for name in own)


def of_components(components: Iterable[Any]) -> tuple[str, ...]:
    """The features of the replacements."""
    return tuple(f"{component}_days_since" for component in components)


def of_machine(models: Iterable[Any]) -> tuple[str, ...]:
    """The features of the machine's description."""
    return ("age", *(f"model={model}" for model in models))
