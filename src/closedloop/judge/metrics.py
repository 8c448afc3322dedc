"""Figures of one model: those of ``metrics.json``, and those that the gate compares machine by machine.

There are two kinds. By *row* (every judged telemetry row whose truth is known): PR-AUC, which is average precision,
Brier score, precision, recall, F1 and the anomaly head's false-alarm rate, none of them point-adjusted. By *episode*
(``episodes.py``): event recall, lead time, false alarms and cost, for each machine-year of judged telemetry. Failure
figures are pooled over the components; a head that the model lacks never alarms, and its probability is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from closedloop.data.schema import HOUR_US, Float64, Int64, Schema
from closedloop.judge import operating
from closedloop.judge.episodes import Outcome, anomaly_cost, failure_cost
from closedloop.judge.outcomes import of_anomalies, of_failures
from closedloop.judge.truth import ANOMALY, Aligned, Bool, Grid, JudgeSettings, PredictionTable, Truth, align

BIN_EDGES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8])  # of probability: failures are rare
HOURS = 4  # of a day in UTC, that calibration is shown by
ABLATION_KEYS = ("pr_auc", "f1", "event_recall", "false_alarms_per_machine_year", "cost_per_machine_year")


@dataclass(frozen=True)
class Assessment:
    """One model compared with the truth.

    ``metrics`` is the content of ``metrics.json``. The arrays serve the gate and have one entry for each machine:
    ``years`` judged, ``cost`` in currency (all heads together), ``false_alarms`` (all heads), ``squared_error`` (sum of
    the Brier terms) over ``rows`` known rows of all components, and ``predicted`` and ``observed``, of shape
    (machines, bins), the failures expected and seen in each bin of probability. ``outcomes`` has the judged alarms of
    each head that was judged, machine by machine.
    """

    metrics: dict[str, Any]
    ids: Int64
    model: NDArray[np.int16]
    years: Float64
    cost: Float64
    false_alarms: Float64
    squared_error: Float64
    rows: Float64
    predicted: Float64
    observed: Float64
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Failures:
    """The failure heads on the grid: ``outcome[machine][component]``, rows as (components, rows)."""

    outcome: list[list[Outcome]]
    probability: Float64
    alarm: Bool
    present: Bool


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _average_precision(truth: Bool, score: Float64) -> float | None:
    return float(average_precision_score(truth, score)) if truth.any() and np.isfinite(score).all() else None


def _by_row(truth: Bool, alarm: Bool) -> dict[str, float | None]:
    hits, alarms, positives = (int(np.count_nonzero(x)) for x in (truth & alarm, alarm, truth))
    return {
        "f1": _ratio(2 * hits, alarms + positives),
        "precision": _ratio(hits, alarms),
        "recall": _ratio(hits, positives),
    }


def silent(grid: Grid) -> Aligned:
    """The answers of a head that the model lacks: no score and no alarm."""
    rows = len(grid.time)
    return Aligned(np.full(rows, np.nan), np.zeros(rows, bool), np.ones(rows, bool), 0)


def _failures(
    heads: Mapping[str, Aligned], grid: Grid, components: tuple[str, ...], settings: JudgeSettings
) -> _Failures:
    answers = [heads.get(name) or silent(grid) for name in components]
    by_head = [of_failures(answer.alarm, grid, c, settings.rules) for c, answer in enumerate(answers)]
    present = np.array([name in heads for name in components])
    score = np.array([answer.score for answer in answers])
    score[~present] = 0.0
    outcome = [[head[i] for head in by_head] for i in range(len(grid.ids))]
    return _Failures(outcome, score, np.array([answer.alarm for answer in answers]), present)


def _failure_figures(
    found: _Failures, grid: Grid, settings: JudgeSettings, machines: Bool, components: Bool
) -> dict[str, float | None]:
    """Figures pooled over the chosen machines and components."""
    rows = components[:, None] & np.repeat(machines, np.diff(grid.offsets)) & grid.known
    truth, probability = grid.label[rows] == 1, found.probability[rows]
    outcomes = [found.outcome[i][c] for i in np.flatnonzero(machines) for c in np.flatnonzero(components)]
    years = float(grid.years[machines].sum())
    lead = np.concatenate([outcome.lead_hours for outcome in outcomes] or [np.empty(0)])
    caught = lead[~np.isnan(lead)]
    return _by_row(truth, found.alarm[rows]) | {
        "pr_auc": _average_precision(truth, probability) if found.present[components].any() else None,
        "brier": float(np.mean((probability - truth) ** 2)) if rows.any() and np.isfinite(probability).all() else None,
        "expected_over_observed": _expected_over_observed(probability, truth),
        "event_recall": _ratio(len(caught), len(lead)),
        "false_alarms_per_machine_year": _ratio(sum(outcome.false_alarms for outcome in outcomes), years),
        "lead_time_hours_median": float(np.median(caught)) if len(caught) else None,
        "cost_per_machine_year": _ratio(sum(failure_cost(outcome, settings.costs) for outcome in outcomes), years),
    }


def _expected_over_observed(probability: Float64, truth: Bool) -> float | None:
    """Failing rows that the probabilities expect for each that was observed; 1 where they are calibrated."""
    return _ratio(float(probability.sum()), int(truth.sum())) if np.isfinite(probability).all() else None


def _by_hour(found: _Failures, grid: Grid) -> dict[str, dict[str, float | None]]:
    """Calibration by the hour of the day at which a block begins: a rhythm that the model does not know shows here."""
    block = np.broadcast_to(grid.time // HOUR_US % 24 // HOURS * HOURS, grid.known.shape)
    result = {}
    for hour in range(0, 24, HOURS):
        rows = grid.known & (block == hour)
        truth, probability = grid.label[rows] == 1, found.probability[rows]
        result[f"{hour:02}"] = {
            "observed": int(truth.sum()),
            "expected_over_observed": _expected_over_observed(probability, truth),
        }
    return result


def _failure_metrics(found: _Failures, grid: Grid, settings: JudgeSettings, schema: Schema) -> dict[str, Any]:
    """The part ``failure`` of ``metrics.json``."""
    machines, components = np.ones(len(grid.ids), bool), np.ones(len(schema.components), bool)
    result: dict[str, Any] = dict(_failure_figures(found, grid, settings, machines, components))
    result["by_component"] = {
        name: {"failures": sum(len(of_one[c]) for of_one in grid.failures)}
        | _failure_figures(found, grid, settings, machines, np.arange(len(components)) == c)
        for c, name in enumerate(schema.components)
    }
    result["by_hour"] = _by_hour(found, grid)
    result["by_model"] = {}
    for number in np.unique(grid.model).tolist():
        mine = grid.model == number
        name = schema.models[number] if number >= 0 else "unknown"
        failures = sum(len(of_one) for i in np.flatnonzero(mine) for of_one in grid.failures[i])
        figures = _failure_figures(found, grid, settings, mine, components)
        result["by_model"][name] = {"machines": int(mine.sum()), "failures": failures} | figures
    return result


def _anomaly_metrics(head: Aligned | None, outcomes: list[Outcome], grid: Grid) -> dict[str, float | None]:
    """The part ``anomaly`` of ``metrics.json``; ``false_alarm_rate`` is the share of healthy rows with an alarm."""
    answer = head or silent(grid)
    truth, alarm = grid.anomalous[grid.anomaly_known], answer.alarm[grid.anomaly_known]
    detected = sum(outcome.detected for outcome in outcomes)
    return {
        "pr_auc": _average_precision(truth, answer.score[grid.anomaly_known]),
        "f1": _by_row(truth, alarm)["f1"],
        "false_alarm_rate": _ratio(int((alarm & ~truth).sum()), int((~truth).sum())),
        "event_recall": _ratio(detected, detected + sum(outcome.missed for outcome in outcomes)),
        "false_alarms_per_machine_year": _ratio(
            sum(outcome.false_alarms for outcome in outcomes), float(grid.years.sum())
        ),
    }


def assess(heads: Mapping[str, Aligned], grid: Grid, settings: JudgeSettings, schema: Schema) -> Assessment:
    """The assessment of one model's answers, aligned by :func:`closedloop.judge.truth.align`."""
    count = len(grid.ids)
    cost, false_alarms, squared, rows = (np.zeros(count) for _ in range(4))
    predicted, observed = (np.zeros((count, len(BIN_EDGES) + 1)) for _ in range(2))
    failure = anomaly = None
    outcomes: dict[str, list[Outcome]] = {}
    if grid.supervised:
        found = _failures(heads, grid, schema.components, settings)
        failure = _failure_metrics(found, grid, settings, schema)
        outcomes |= {name: [machine[c] for machine in found.outcome] for c, name in enumerate(schema.components)}
        cost += [sum(failure_cost(outcome, settings.costs) for outcome in machine) for machine in found.outcome]
        false_alarms += [sum(outcome.false_alarms for outcome in machine) for machine in found.outcome]
        owner = np.broadcast_to(np.repeat(np.arange(count), np.diff(grid.offsets)), grid.known.shape)[grid.known]
        p, y = found.probability[grid.known], (grid.label[grid.known] == 1).astype(float)
        cell = owner * predicted.shape[1] + np.digitize(p, BIN_EDGES)
        squared += np.bincount(owner, (p - y) ** 2, count)
        rows += np.bincount(owner, minlength=count)
        predicted += np.bincount(cell, p, predicted.size).reshape(predicted.shape)
        observed += np.bincount(cell, y, observed.size).reshape(observed.shape)
    if grid.events is not None:
        head = heads.get(ANOMALY)
        judged = outcomes[ANOMALY] = of_anomalies((head or silent(grid)).alarm, grid, settings.rules)
        anomaly = _anomaly_metrics(head, judged, grid)
        cost += [anomaly_cost(outcome, settings.costs) for outcome in judged]
        false_alarms += [outcome.false_alarms for outcome in judged]
    metrics = {
        "failure": failure,
        "anomaly": anomaly,
        "ablations": {},
        "holdout": {"machines": count, "failures": grid.failure_count, "machine_years": float(grid.years.sum())},
    }
    arrays = (grid.ids, grid.model, grid.years, cost, false_alarms, squared, rows, predicted, observed)
    return Assessment(metrics, *arrays, outcomes)


def judge(
    predictions: PredictionTable,
    truth: Truth,
    settings: JudgeSettings,
    ablations: Mapping[str, PredictionTable] | None = None,
) -> dict[str, Any]:
    """``metrics.json``: the figures of one model.

    Args:
        predictions: the model's answers to the truth's tables; rows that are not judged are left out.
        truth: the tables with their failures, and the anomaly intervals where they are known. Without a failure table
            ``failure`` is None; without failures and intervals ``anomaly`` is.
        settings: horizon, episode rules and costs.
        ablations: answers of the same training without one source of knowledge, by name (``no_telemetry``,
            ``no_errors``).

    Raises:
        DataError: the truth holds no row in the judged time.
    """
    grid = Grid.of(truth, settings)
    heads = align(predictions, grid)
    metrics = assess(heads, grid, settings, truth.schema).metrics
    for part, curve in operating.curves(heads, grid, settings.rules, truth.schema).items():
        if metrics[part] is not None:
            metrics[part]["event_recall_at"] = operating.read(curve)
    for name, table in (ablations or {}).items():
        figures = assess(align(table, grid), grid, settings, truth.schema).metrics["failure"]
        metrics["ablations"][name] = None if figures is None else {key: figures[key] for key in ABLATION_KEYS}
    return metrics
