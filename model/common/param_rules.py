"""What each value of ``params.yaml`` may be: kind and range, for the sections whose keys are fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from closedloop.data.machines import KINDS as KINDS_OF_ID
from closedloop.features.names import LONGEST_HOURS
from model.common.estimators import span

KINDS = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}


@dataclass(frozen=True)
class Rule:
    """The kind of a value; for numbers the range, of which ``closed`` names the ends that belong to it."""

    kind: type
    low: float = -math.inf
    high: float = math.inf
    closed: str = "both"
    choices: tuple[str, ...] = ()
    optional: bool = False
    example: object = None

    def wanted(self) -> str:
        """Return what the value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        said = KINDS[self.kind] + (span(self.low, self.high, self.closed) if self.kind in (int, float) else "")
        return said if self.example is None else f"{said}, such as {self.example}"

    def accepts(self, value: Any) -> bool:
        """Return whether the value is of the kind and in the range."""
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.kind is str:
            return isinstance(value, str) and bool(value.strip())
        if self.kind in (list, dict):
            return isinstance(value, self.kind)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return False
        above = value >= self.low if self.closed in ("left", "both") else value > self.low
        return above and (value <= self.high if self.closed in ("right", "both") else value < self.high)


def _hours(example: float) -> Rule:
    return Rule(float, 0, LONGEST_HOURS, "neither", example=example)


COUNT = Rule(int, 1, closed="left")
POSITIVE = Rule(float, 0, math.inf, "neither")
COST = Rule(float, 0, math.inf, "left")
SHARE = Rule(float, 0, 1, "both")
SEED = Rule(int, 0, 2**32 - 1, example=7)
SAMPLING = Rule(int, 1, 60 * 24 * 366, example=60)
HISTORY = _hours(72)
SLACK = Rule(float, 0, math.inf, "left", example=0.5)
STEPS, WEIGHT = Rule(int, 2, 48, example=24), Rule(float, 0, 1, "right", example=0.5)

ENGINES = ("local", "spark")  # the first is the default
ENGINE = Rule(str, choices=ENGINES)
ESTIMATORS = {"local": ("hist_gradient_boosting",), "spark": ("random_forest", "gradient_boosted_trees")}

SECTIONS: dict[str, dict[str, Rule]] = {
    "labels": {
        "horizon_hours": _hours(24),
        "reporting_delay_hours": Rule(float, 0, math.inf, "left", optional=True, example=336),
    },
    "split": {
        "salt": Rule(str),
        "rule": Rule(str, choices=("fleet", "unit", "prefix")),
        "prefix": Rule(float, 0, math.inf, "neither", optional=True),
    },
    "anomaly": {
        "detector": Rule(str, choices=("evidence_chart", "mean_chart", "isolation_forest", "pca")),
        "features": Rule(list),
        "parameters": Rule(dict),
        "alarms_per_machine_year": POSITIVE,
    },
    "failure": {
        "estimator": Rule(str, choices=tuple(name for names in ESTIMATORS.values() for name in names)),
        "parameters": Rule(dict),
        "negatives_every_hours": _hours(12),
        "folds": Rule(int, 2, closed="left", example=3),
        "minimum_failures": COUNT,
    },
    "judge": {
        "episode_gap_hours": _hours(12),
        "minimum_lead_hours": _hours(2),
        "neutral_hours": _hours(96),
        "costs": Rule(dict),
    },
    "gate": {
        "on_inconclusive": Rule(str, choices=("ship", "ask")),
        "minimum_machines": COUNT,
        "minimum_failures": COUNT,
        "error_rate": Rule(float, 0, 1, "neither", example=0.05),
        "false_alarm_ratio": POSITIVE,
        "floors": Rule(dict),
    },
}
COSTS = ("unplanned", "planned", "false_alarm", "missed_anomaly")
# The judge's figures that gate.floors may name: shares of which more is better, and those of which less is.
FLOORS = ("event_recall", "f1", "pr_auc", "precision", "recall")
CEILINGS = ("brier", "cost_per_machine_year", "false_alarm_rate", "false_alarms_per_machine_year")
MACHINE_ID = Rule(str, choices=KINDS_OF_ID)
SCHEMA = ("sampling_minutes", "sensors", "components", "errors", "models")
COLUMNS = {  # of each table, beside its keys and, for telemetry, the sensors
    "telemetry": ("machineID", "datetime"),
    "errors": ("machineID", "datetime", "errorID"),
    "maint": ("machineID", "datetime", "comp", "finding"),
    "failures": ("machineID", "datetime", "failure"),
    "machines": ("machineID", "model", "age"),
    "anomalies": ("machineID", "datetime", "start", "end", "sensor", "kind", "severity", "leads_to_failure"),
}
LOOP = {"untouched_share": Rule(float, 0, 1, "left", example=0.05)}
OPTIONAL = ("engine", "files", "read", "loop")
TOP = ("source", "schema", "columns", "features", *SECTIONS, "seed")
