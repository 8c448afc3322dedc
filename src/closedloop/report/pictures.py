"""The pictures of a report with their captions: those that the truth and the predictions allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from closedloop.data.schema import HOUR_US
from closedloop.judge.metrics import Assessment
from closedloop.judge.operating import Curve
from closedloop.judge.truth import ANOMALY, Aligned, Grid, JudgeSettings, Truth
from closedloop.report import plots

Picture = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The challenger's answers, both models' assessments (``theirs`` is None without a champion), and the truth."""

    heads: Mapping[str, Aligned]
    mine: Assessment
    theirs: Assessment | None
    my_curves: Mapping[str, Curve | None]
    their_curves: Mapping[str, Curve | None]
    grid: Grid
    settings: JudgeSettings
    truth: Truth


def _picture(title: str, caption: str, svg: str, wide: bool = False) -> Picture:
    return {"title": title, "caption": caption, "svg": svg, "wide": wide}


def operating_curves(seen: Seen) -> list[Picture]:
    """Detected events against false alarms as the threshold varies: failure heads together, and the anomaly head."""
    words = {"failure": ("Failure heads", "failures foreseen"), "anomaly": ("Anomaly head", f"{seen.grid.events} seen")}
    result = []
    for part, curve in seen.my_curves.items():
        own = _operating(part, curve, seen.mine)
        if own is not None:
            title, events = words[part]
            champion = _operating(part, seen.their_curves.get(part), seen.theirs)
            caption = "Numbers on the line are thresholds." + (" Grey: the champion." if champion else "")
            result.append(_picture(title, caption, plots.operating(own, champion, events)))
    return result


def _operating(part: str, curve: Curve | None, one: Assessment | None) -> plots.Operating | None:
    if curve is None or one is None:
        return None
    figures = one.metrics[part]
    return plots.Operating(curve, (figures["false_alarms_per_machine_year"], figures["event_recall"]))


def pictures(seen: Seen) -> list[Picture]:
    """Precision and recall, calibration, lead times and scores."""
    grid, schema, result = seen.grid, seen.truth.schema, []
    usable = {name: head for name, head in seen.heads.items() if np.isfinite(head.score).all()}
    components = [name for name in schema.components if name in usable] if grid.supervised else []
    rows = {name: grid.known[c] for c, name in enumerate(schema.components)}
    labels = {name: grid.label[c] == 1 for c, name in enumerate(schema.components)}
    curves, panels = {}, {}
    if components:
        y = np.concatenate([labels[name][rows[name]] for name in components])
        p = np.concatenate([usable[name].score[rows[name]] for name in components])
        if y.any():
            curves["failure heads"] = panels["probability of failure"] = (y, p)
    if ANOMALY in usable and grid.anomalous.any():
        known = grid.anomaly_known
        curves["anomaly head"] = panels["anomaly score"] = (grid.anomalous[known], usable[ANOMALY].score[known])
    if curves:
        caption = "Each hour counts separately. Dotted: the precision of random alarms."
        result.append(_picture("Precision and recall", caption, plots.precision_recall(curves)))
    if "failure heads" in curves:
        caption = "On the dotted line, failures are as frequent as the probability says."
        result.append(_picture("Calibration", caption, plots.calibration(y, p)))
        leads = np.concatenate([one.lead_hours for name in components for one in seen.mine.outcomes[name]])
        missed, rules = int(np.isnan(leads).sum()), seen.settings.rules
        svg = plots.lead_times(
            leads[~np.isnan(leads)], missed, rules.minimum_lead_us / HOUR_US, rules.horizon_us / HOUR_US
        )
        result.append(_picture("Lead time", "Hours from the first alarm within the horizon to the failure.", svg))
    if panels:
        result.append(_picture("Scores", "Ahead of an event, and in quiet hours.", plots.scores(panels)))
    return result


def importance_of(values: Mapping[str, Mapping[str, float]]) -> list[Picture]:
    """The importance of each family of features."""
    if not values:
        return []
    caption = (
        "Cost per machine-year that is added, all heads together, when a family of features is exchanged between the"
        " held-out machines: each gets the values of another machine, in their order. At the right, the change of the"
        " share of failures foreseen, of anomalies seen, and of false alarms per machine-year. A cost below zero is"
        " chance: the model does as well without the family."
    )
    if len(values) > plots.IMPORTANT:
        caption += f" Shown are the {plots.IMPORTANT} most important of {len(values)}."
    return [_picture("Feature importance", caption, plots.importance(values), True)]


def machines(seen: Seen) -> list[Picture]:
    """Two machines over time: the one that cost most and a typical one."""
    if not seen.mine.outcomes:
        return []
    rate = seen.mine.cost / seen.mine.years
    order = np.argsort(rate, kind="stable")
    typical, costliest = int(order[(len(order) - 1) // 2]), int(order[-1])
    chosen = {"Machine {}: the one that cost most": costliest, "Machine {}: a typical one": typical}
    if typical == costliest:
        del chosen["Machine {}: a typical one"]
    return [
        _picture(title.format(seen.grid.machines[number]), "", _timeline(number, seen), True)
        for title, number in chosen.items()
    ]


def _timeline(number: int, seen: Seen) -> str:
    grid, truth = seen.grid, seen.truth
    rows = slice(int(grid.offsets[number]), int(grid.offsets[number + 1]))
    machine, time = int(grid.ids[number]), grid.time[rows]
    maintenance, none = truth.tables.maint.slice(machine), np.empty(0, np.int64)
    since = maintenance.time >= time[0]
    lanes = []
    for head, outcomes in seen.mine.outcomes.items():
        score = seen.heads[head].score[rows] if head in seen.heads else np.full(len(time), np.nan)
        if head == ANOMALY:
            failures, replaced, intervals = none, none, grid.anomalies[number]
        else:
            c = truth.schema.components.index(head)
            failures, intervals = grid.failures[number][c], (none, none)
            replaced = maintenance.time[since & (maintenance.code == c)]
        lanes.append(plots.Lane(head, score, outcomes[number], failures, replaced, intervals))
    return plots.timeline(f"machine {grid.machines[number]}", time, lanes)
