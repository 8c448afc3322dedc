"""Scale every length of time in ``params.yaml`` by one factor.

The hours of the file suit hourly rows and years of history. Short or fast series need shorter windows, horizons and
judging rules, and an alarm budget for each machine-year that is larger by the same factor. Daily rows need longer ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from closedloop.data.schema import microseconds
from closedloop.features.names import label

SPANS = 5  # the training time of a machine should hold that many histories
LEAST_HISTORY = 10  # readings; a deviation of fewer means little
FAMILIES = {  # of features: the key of their lengths, the least number of periods, the names that contain a length
    "rolling": ("windows_hours", 2, ("mean", "std")),
    "trend": ("half_lives_hours", 1, ("ewma",)),
    "change": ("windows_hours", 2, ("change",)),
    "level": ("half_lives_hours", 1, ("level",)),
    "errors": ("windows_hours", 1, ("count",)),
}
STEPS_MINUTES = (720, 60)  # a length is rounded to the coarsest step that is at most an eighth of it


def tidy(hours: float, sampling_minutes: int, least: int = 1) -> float:
    """Return a readable length near ``hours``: a multiple of the sampling period, of at least ``least`` periods.

    Where the period allows it and at most a sixteenth is lost, the length is a multiple of 12 hours, of one hour, or of
    three minutes (two decimals of an hour).
    """
    minutes = 60 * hours
    for step in (*STEPS_MINUTES, math.lcm(sampling_minutes, 3)):
        if step % sampling_minutes == 0 and 8 * step <= minutes and minutes >= least * sampling_minutes:
            return _hours(round(minutes / step) * step)
    return _hours(max(least, round(minutes / sampling_minutes)) * sampling_minutes)


def _hours(minutes: int) -> float:
    return minutes // 60 if minutes % 60 == 0 else minutes / 60


def history(history_hours: float, span_hours: float, sampling_minutes: int) -> float:
    """Return the length of the history, in hours.

    It is ``history_hours`` for hourly rows, and as many readings where rows are rarer, but at most a fifth of
    ``span_hours``, the time that a machine trains on.
    """
    wanted = history_hours * max(1.0, sampling_minutes / 60)
    most = span_hours / SPANS
    if wanted == history_hours <= most:
        return history_hours
    return tidy(min(wanted, most), sampling_minutes, LEAST_HISTORY)


def training_hours(hours: float, rule: str, prefix: float, sampling_minutes: int) -> float:
    """Return how many of ``hours``, the time that a machine was watched, train under a split rule."""
    shares = {"fleet": 2 / 3, "unit": 1.0, "prefix": prefix if prefix < 1 else prefix * sampling_minutes / 60 / hours}
    return hours * min(1.0, shares[rule])


def watched_hours(telemetry: pd.DataFrame, sampling_minutes: int) -> float:
    """Return how long a machine was watched, in hours: the median over the machines of a telemetry frame."""
    times = telemetry.groupby("machineID")["datetime"]
    return float((times.max() - times.min()).dt.total_seconds().median() / 3600) + sampling_minutes / 60


def scale(raw: Mapping[str, Any], history_hours: float, sampling_minutes: int) -> dict[str, Any]:
    """Return a parameter file's content with the history ``history_hours``, and every other length scaled with it."""
    features = raw["features"]
    factor = history_hours / features["history_hours"]
    result = dict(raw)
    if factor == 1:
        return result

    def length(hours: float, least: int = 1) -> float:
        return min(tidy(hours * factor, sampling_minutes, least), history_hours)

    renamed: dict[str, str] = {}
    result["features"] = dict(features) | {"history_hours": history_hours}
    for family, (key, least, kinds) in FAMILIES.items():
        if features.get(family):
            new = {hours: length(hours, least) for hours in features[family][key]}
            result["features"][family] = features[family] | {key: list(dict.fromkeys(new.values()))}
            renamed |= {f"{kind}_{_label(old)}": f"{kind}_{_label(new[old])}" for old in new for kind in kinds}
    horizon = length(raw["labels"]["horizon_hours"], 2)
    judge = {key: tidy(raw["judge"][key] * factor, sampling_minutes) for key in raw["judge"] if key.endswith("_hours")}
    judge["minimum_lead_hours"] = min(judge["minimum_lead_hours"], _hours(round(60 * horizon) - sampling_minutes))
    every = tidy(raw["failure"]["negatives_every_hours"] * factor, sampling_minutes)
    anomaly = {
        "features": [_renamed(name, renamed) for name in raw["anomaly"]["features"]],
        "alarms_per_machine_year": float(f"{raw['anomaly']['alarms_per_machine_year'] / factor:.2g}"),
    }
    return result | {
        "labels": raw["labels"] | {"horizon_hours": horizon},
        "judge": raw["judge"] | judge,
        "anomaly": raw["anomaly"] | anomaly,
        "failure": raw["failure"] | {"negatives_every_hours": every},
    }


def _label(hours: float) -> str:
    return label(microseconds(hours))


def _renamed(feature: str, renamed: Mapping[str, str]) -> str:
    """Return a feature's name, with or without the sensor's, with the new length instead of the old one."""
    for old, new in renamed.items():
        if feature == old or feature.endswith(f"_{old}"):
            return feature.removesuffix(old) + new
    return feature
