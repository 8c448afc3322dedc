"""Names, groups and windows of the features, read from the ``features:`` section of ``params.yaml``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import closedloop.features.custom  # noqa: F401  # registers the custom features
from closedloop.data.schema import HOUR_US, DataError, Schema, microseconds
from closedloop.features import names
from closedloop.features.baseline import Constants, fit_constants
from closedloop.features.names import FAMILIES
from closedloop.features.registry import CUSTOM

__all__ = ["Constants", "FeatureSpec", "code_digest", "fit_constants"]


@dataclass(frozen=True)
class FeatureSpec:
    """The features of a row, in the order in which the kernel writes them.

    ``groups`` gives each feature's group: telemetry, errors, maint, machine or level. ``skipped`` names the custom
    features that the schema cannot feed, each with the reason. Windows and half-lives are in microseconds.
    ``cusum_slack``, in deviations, is None where the trend family is off; ``error_windows_us`` is None where the errors
    family is off.
    ``shift_steps`` is the number of parts of the history in the shift family, 0 where it is off; ``shift_weight`` is
    what one reading counts for. ``level_us`` are the half-lives of the level family.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    history_us: int
    rolling_us: tuple[int, ...]
    half_lives_us: tuple[int, ...]
    cusum_slack: float | None
    change_us: tuple[int, ...]
    shift_steps: int
    shift_weight: float
    error_windows_us: tuple[int, ...] | None
    custom: tuple[str, ...]
    skipped: tuple[str, ...]
    level_us: tuple[int, ...] = ()

    def __hash__(self) -> int:
        return hash((self.history_us, len(self.names)))  # cheap: every request looks up its plan

    @classmethod
    def from_params(cls, params: dict, schema: Schema) -> FeatureSpec:
        """Read the ``features:`` section; a family whose key is absent is off.

        Raises:
            DataError: a key is unknown or missing, or a window is not above 0 and at most ``history_hours``.
        """
        _only(params, ("history_hours", *FAMILIES), "features")
        history_us = _hours([params.get("history_hours")], "features.history_hours")[0]
        family = {name: _family(params, name) for name in FAMILIES}
        lengths = {name: _lengths(family[name], name, history_us) for name in FAMILIES if name != "shift"}
        slack = _slack(family["trend"])
        steps, weight = _shift(family["shift"])
        fed, skipped = _customs(schema, history_us)
        errors = lengths["errors"] if family["errors"] else None
        blocks = {
            "telemetry": (*_telemetry_names(schema, lengths, slack is not None, steps > 0), *fed),
            "errors": () if errors is None else names.of_errors(schema.errors, errors),
            "maint": names.of_components(schema.components),
            "machine": names.of_machine(schema.models),
            "level": tuple(f"{sensor}_{name}" for sensor in schema.sensors for name in names.of_levels(lengths)),
        }
        every = tuple(name for block in blocks.values() for name in block)
        if twice := [name for name in every if every.count(name) > 1]:
            raise DataError(f"features: two features are named {twice[0]!r}; rename one of them")
        return cls(
            names=every,
            groups=tuple(group for group, block in blocks.items() for _ in block),
            history_us=history_us,
            rolling_us=lengths["rolling"],
            half_lives_us=lengths["trend"],
            cusum_slack=slack,
            change_us=lengths["change"],
            shift_steps=steps,
            shift_weight=weight,
            error_windows_us=errors,
            custom=fed,
            skipped=skipped,
            level_us=lengths["level"],
        )

    def to_dict(self) -> dict[str, object]:
        """The spec as JSON for the manifest, with windows in hours."""
        raw: dict[str, object] = {
            "names": list(self.names),
            "groups": list(self.groups),
            "history_hours": self.history_us / HOUR_US,
            "rolling": {"windows_hours": [us / HOUR_US for us in self.rolling_us]},
            "change": {"windows_hours": [us / HOUR_US for us in self.change_us]},
            "custom": list(self.custom),
            "skipped": list(self.skipped),
        }
        if self.cusum_slack is not None:
            half_lives = [us / HOUR_US for us in self.half_lives_us]
            raw["trend"] = {"half_lives_hours": half_lives, "cusum_slack": self.cusum_slack}
        if self.shift_steps:
            raw["shift"] = {"steps": self.shift_steps, "weight": self.shift_weight}
        if self.level_us:
            raw["level"] = {"half_lives_hours": [us / HOUR_US for us in self.level_us]}
        if self.error_windows_us is not None:
            raw["errors"] = {"windows_hours": [us / HOUR_US for us in self.error_windows_us]}
        return raw

    @classmethod
    def from_dict(cls, raw: dict) -> FeatureSpec:
        """The spec of a manifest: the inverse of :meth:`to_dict`."""

        def each(hours: list[float]) -> tuple[int, ...]:
            return tuple(microseconds(value) for value in hours)

        trend, shift, errors, level = (raw.get(name) for name in ("trend", "shift", "errors", "level"))
        return cls(
            names=tuple(raw["names"]),
            groups=tuple(raw["groups"]),
            history_us=microseconds(raw["history_hours"]),
            rolling_us=each(raw["rolling"]["windows_hours"]),
            half_lives_us=each(trend["half_lives_hours"]) if trend else (),
            cusum_slack=float(trend["cusum_slack"]) if trend else None,
            change_us=each(raw["change"]["windows_hours"]),
            shift_steps=int(shift["steps"]) if shift else 0,
            shift_weight=float(shift["weight"]) if shift else 1.0,
            error_windows_us=each(errors["windows_hours"]) if errors else None,
            custom=tuple(raw["custom"]),
            skipped=tuple(raw["skipped"]),
            level_us=each(level["half_lives_hours"]) if level else (),
        )


def code_digest() -> str:
    """``sha256:…`` of the sources of this package. It does not depend on the folder's place or on line endings."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        source = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(folder).as_posix()}:{len(source)};".encode() + source)
    return "sha256:" + digest.hexdigest()


def _only(raw: object, known: tuple[str, ...], where: str) -> None:
    """Raise DataError unless this is a mapping of known keys."""
    if not isinstance(raw, dict):
        raise DataError(f"{where}: write a mapping of {list(known)}, not {raw!r}")
    if unknown := [key for key in raw if key not in known]:
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known are {list(known)}")


def _family(params: dict, name: str) -> dict:
    """One family of the section, empty where it is off."""
    family = params.get(name) or {}
    _only(family, FAMILIES[name], f"features.{name}")
    if missing := [key for key in FAMILIES[name] if family and key not in family]:
        raise DataError(f"features.{name}: {missing[0]!r} is missing; add it, or leave the whole family out")
    return family


def _lengths(family: dict, name: str, history_us: int) -> tuple[int, ...]:
    """The windows or half-lives of a family, in microseconds."""
    where = f"features.{name}.{FAMILIES[name][0]}"
    lengths = _hours(family.get(FAMILIES[name][0], []), where)
    if too_long := [us for us in lengths if us > history_us]:
        raise DataError(
            f"{where}: {too_long[0] / HOUR_US:g} h is longer than history_hours"
            f" ({history_us / HOUR_US:g}); raise history_hours or shorten it"
        )
    return lengths


def _slack(trend: dict) -> float | None:
    """The slack of the CUSUM, None where the trend family is off."""
    slack = trend.get("cusum_slack")
    if slack is None:
        return None
    if isinstance(slack, bool) or not isinstance(slack, (int, float)) or not slack >= 0:
        raise DataError(f"features.trend.cusum_slack: {slack!r} is not a number of deviations, 0 or more")
    return float(slack)


def _customs(schema: Schema, history_us: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The custom features that the schema can feed; and those that it cannot, each with the reason."""
    reasons = {name: item.unfed(schema.sensors, history_us) for name, item in CUSTOM.items()}
    fed = tuple(name for name, reason in reasons.items() if reason is None)
    return fed, tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason is not None)


def _telemetry_names(schema: Schema, lengths: dict[str, tuple[int, ...]], cusum: bool, shift: bool) -> list[str]:
    """The names of the telemetry families, sensor by sensor; the shift family comes last."""
    own, last = names.of_sensor(lengths, cusum), names.SHIFTS if shift else ()
    return [f"{sensor}_{name}" for part in (own, last) for sensor in schema.sensors for name in part]


def _shift(raw: dict) -> tuple[int, float]:
    """Steps and weight of the shift family, with 0 steps where it is off."""
    if not raw:
        return 0, 1.0
    steps, weight = raw["steps"], raw["weight"]
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= 48:
        raise DataError(f"features.shift.steps: {steps!r} is not a whole number from 2 to 48")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= 1:
        raise DataError(f"features.shift.weight: {weight!r} is not a number above 0, at most 1")
    return steps, float(weight)


def _hours(values: object, where: str) -> tuple[int, ...]:
    """A list of hours in microseconds. Each must be above 0, and occur once."""
    if not isinstance(values, list):
        raise DataError(f"{where}: write a list of hours, not {values!r}")
    for value in values:
        if not names.is_length(value):
            raise DataError(f"{where}: {value!r} is not a number of hours above 0")
    if len(set(values)) != len(values):
        raise DataError(f"{where}: a length occurs twice in {values}")
    return tuple(microseconds(value) for value in values)
