"""Permutation importance of families of features, counted in alarm episodes.

A family is all features of a sensor, all of an error code, the machine's model, or one custom feature. Its features are
permuted together, since a model that loses the 3-hour mean of a sensor learns much the same from the 24-hour mean. The
heads answer again, so the anomaly score that failure heads read is permuted with the features that it is made from.

Permuting single rows would break up each series and its alarm episodes, so that every feature would look important.
Instead, a family's columns keep their order and are rotated by a quarter to three quarters of all held-out rows. Each
machine then has the values of another machine at another time, hour after hour.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from closedloop.data.schema import Schema
from closedloop.features.kernel import Features, compute
from closedloop.features.spec import FeatureSpec
from closedloop.heads.bundle import Bundle
from closedloop.judge.episodes import Outcome, anomaly_cost, failure_cost
from closedloop.judge.outcomes import of_anomalies, of_failures
from closedloop.judge.truth import Grid, JudgeSettings, Truth

SHIFTS = 2  # rotations of each family; the losses are their mean
ROWS_ENOUGH = 90_000  # judged rows; of a larger holdout some machines are left out, evenly over their ids


def importance(bundle: Bundle, truth: Truth, settings: JudgeSettings, seed: int) -> dict[str, dict[str, float]]:
    """The losses without each family of features, by family, the most important first.

    ``cost_per_machine_year`` is how much more all heads together cost, at the model's own thresholds. The others
    explain it: the change of the event recall of the failure heads and of the anomaly head (0 where there was no event
    to detect), and of the false alarms of all heads. The result is empty where there was no event at all.

    Raises:
        DataError: the truth holds no row in the judged time.
    """
    truth, grid = _enough(truth, settings)
    if not grid.failure_count and not any(len(start) for start, _ in grid.anomalies):
        return {}
    found = compute(truth.tables, bundle.spec, bundle.constants, bundle.schema)
    ids, offsets = truth.tables.bounds()
    judged = found.time >= np.repeat([truth.since(machine) for machine in ids.tolist()], np.diff(offsets))
    features = Features(*(np.ascontiguousarray(column[..., judged]) for column in vars(found).values()))
    before = _figures(bundle, features, grid, settings)
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = len(features.time)
    shifts = (rows * rng.uniform(0.25, 0.75, SHIFTS)).astype(int).tolist()
    result = {}
    for family, columns in families(bundle.spec, bundle.schema).items():
        own, after = features.X[columns], []
        for shift in shifts:
            features.X[columns] = np.roll(own, shift, axis=1)
            after.append(_figures(bundle, features, grid, settings))
        features.X[columns] = own
        result[family] = {key: float(np.mean([one[key] for one in after])) - before[key] for key in before}
    return dict(sorted(result.items(), key=lambda item: -item[1]["cost_per_machine_year"]))


def families(spec: FeatureSpec, schema: Schema) -> dict[str, list[int]]:
    """Columns of each family of features, by the name of its sensor, error code or feature."""
    owners = sorted(
        (*schema.sensors, *schema.errors), key=len, reverse=True
    )  # the longest first, so that volt_2 is not taken for volt
    result: dict[str, list[int]] = {}
    for column, (name, group) in enumerate(zip(spec.names, spec.groups, strict=True)):
        family = name.partition("=")[0]
        if group in ("telemetry", "level", "errors") and name not in spec.custom:
            family = next(owner for owner in owners if name.startswith(f"{owner}_"))
        result.setdefault(family, []).append(column)
    return result


def _enough(truth: Truth, settings: JudgeSettings) -> tuple[Truth, Grid]:
    """The truth with no more machines than needed, chosen evenly over their ids, and its grid."""
    grid = Grid.of(truth, settings)
    machines = max(1, len(grid.ids) * ROWS_ENOUGH // len(grid.time))
    if machines >= len(grid.ids):
        return truth, grid
    chosen = grid.ids[np.linspace(0, len(grid.ids) - 1, machines).astype(int)]
    truth = replace(truth, tables=truth.tables.select(chosen))
    return truth, Grid.of(truth, settings)


def _figures(bundle: Bundle, features: Features, grid: Grid, settings: JudgeSettings) -> dict[str, float]:
    """Cost, recall and false alarms of the heads' answers to these features, whose rows are the grid's."""
    answers = bundle.answer(features)
    failures: list[Outcome] = []
    anomalies: list[Outcome] = []
    if grid.supervised:
        for c, alarm in enumerate(answers.alarm):
            failures += of_failures(alarm, grid, c, settings.rules)
    if grid.events is not None:
        anomalies = of_anomalies(answers.anomaly_alarm, grid, settings.rules)
    cost = sum(failure_cost(one, settings.costs) for one in failures)
    cost += sum(anomaly_cost(one, settings.costs) for one in anomalies)
    years = float(grid.years.sum())
    return {
        "cost_per_machine_year": cost / years,
        "failure_recall": _recall(failures),
        "anomaly_recall": _recall(anomalies),
        "false_alarms_per_machine_year": sum(one.false_alarms for one in failures + anomalies) / years,
    }


def _recall(outcomes: list[Outcome]) -> float:
    return sum(one.detected for one in outcomes) / max(1, sum(len(one.lead_hours) for one in outcomes))
