"""The report: one page a person wants to read, and its short form for a step summary or a pull request.

``index.html`` holds everything (style and pictures inside, no script, nothing fetched); ``summary.md`` the verdict and
the tables; ``card.md`` what the model is, and how it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.data.schema import HOUR_US, Float64
from closedloop.judge import card, plots
from closedloop.judge.checks import Candidate, faults
from closedloop.judge.compare import Ratio
from closedloop.judge.episodes import Outcome
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.truth import ANOMALY, Aligned, Grid, PredictionTable, Settings, Truth, align

Bounds = tuple[float, float]
BOUND = 0.05  # each bound of an interval is one-sided at this level, as the gate's are

HEADLINES = {
    "refused": ("bad", "Refused", "Mend what is named above, and push again. A refusal cannot be accepted."),
    "identical": ("good", "Identical", "Nothing to do: what is served stays."),
    "incomparable": ("bad", "Not comparable", "Undo the change of the ruler, or ask a code owner to accept it."),
    "worse": ("bad", "Worse", "Improve the model, or ask a code owner to accept it: make accept WHY=…"),
    "first": ("good", "First model", "Nothing to do: merging makes it the reference for those that follow."),
    "better": ("good", "Better", "Nothing to do: merging makes it the new reference."),
    "inconclusive": ("even", "Not proven either way", "It may be served, and the reference stays what it is."),
}
GUARDRAILS = {
    "false_alarm_ratio": "False alarms, ratio to the reference",
    "brier_ratio": "Brier score, ratio to the reference",
    "calibration_excess": "Calibration error, in excess of the reference",
    "segment_cost_ratio": "Cost of {}, ratio to the reference",
}
# figure: (heading, digits, whether more is better)
FAILURE = {
    "event_recall": ("Failures foreseen", 2, True),
    "false_alarms_per_machine_year": ("False alarms per machine-year", 2, False),
    "lead_time_hours_median": ("Median lead, hours", 1, True),
    "pr_auc": ("PR-AUC, by row", 3, True),
    "brier": ("Brier score, by row", 5, False),
    "precision": ("Precision, by row", 2, True),
    "recall": ("Recall, by row", 2, True),
    "f1": ("F1, by row", 2, True),
    "cost_per_machine_year": ("Cost per machine-year", 0, False),
}
ANOMALIES = {
    "event_recall": ("Anomalies seen", 2, True),
    "false_alarms_per_machine_year": ("False alarms per machine-year", 2, False),
    "pr_auc": ("PR-AUC, by row", 3, True),
    "f1": ("F1, by row", 2, True),
    "false_alarm_rate": ("False-alarm rate, by row", 4, False),
}
SEGMENT = ("event_recall", "false_alarms_per_machine_year", "lead_time_hours_median", "pr_auc", "cost_per_machine_year")
ABLATION = ("pr_auc", "f1", "event_recall", "false_alarms_per_machine_year", "cost_per_machine_year")


def write(
    folder: Path,
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    predictions: PredictionTable,
    truth: Truth,
    settings: Settings,
    reference: Candidate | None = None,
    importance: Mapping[str, float] | None = None,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Write ``index.html`` and ``summary.md`` into a folder, and ``card.md`` where the model is described.

    Args:
        folder: made where it is missing.
        metrics: content of ``metrics.json`` of the challenger.
        decision: content of ``decision.json``.
        predictions: the challenger's answers.
        truth: what they were judged by.
        settings: the ruler.
        reference: the model that the challenger was held against.
        importance: for each feature what is lost when it is shuffled.
        model: what :func:`closedloop.judge.card.describe` says of the challenger.
    """
    grid = Grid.of(truth, settings)
    heads = align(predictions, grid)
    mine = assess(heads, grid, settings, truth.schema)
    theirs: Assessment | None = None
    if reference is not None:
        answers = {} if reference.predictions is None else align(reference.predictions, grid)
        if not faults(reference, answers, grid, truth):
            theirs = assess(answers, grid, settings, truth.schema)
    page = _page(metrics, decision, mine, theirs, grid, truth)
    page["pictures"] = _pictures(heads, mine, grid, settings, truth, decision, importance or {})
    templates = {"index.html": "report.html.j2", "summary.md": "summary.md.j2"}
    if model is not None:
        templates["card.md"] = card.TEMPLATE
    environment = card.environment()
    folder.mkdir(parents=True, exist_ok=True)
    for name, template in templates.items():
        text = environment.get_template(template).render({**page, **(model or {})})
        (folder / name).write_text(text, encoding="utf-8")


def _page(
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    mine: Assessment,
    theirs: Assessment | None,
    grid: Grid,
    truth: Truth,
) -> dict[str, Any]:
    """All words and figures of the report, as text."""
    tone, headline, advice = HEADLINES[decision["verdict"]]
    if decision["accepted"]:
        tone, advice = "good", "Accepted by a code owner: merging makes it the new reference."
    elif decision["verdict"] == "inconclusive" and not decision["green"]:
        tone, advice = "bad", "params.yaml asks for a person here: make accept WHY=…"
    holdout, delta = decision["holdout"], decision["delta"]["cost_per_machine_year"]
    other = {} if theirs is None else theirs.metrics
    sections = []
    for part, title, figures in (("failure", "Failure heads", FAILURE), ("anomaly", "Anomaly head", ANOMALIES)):
        if metrics[part] is not None:
            bounds = _bounds(part, mine), _bounds(part, theirs)
            rows = _comparison(figures, metrics[part], other.get(part), *bounds)
            sections.append({"title": title, "rows": rows})
    return {
        "source": truth.source,
        "verdict": decision["verdict"],
        "tone": tone,
        "headline": headline,
        "advice": advice,
        "reason": decision["reason"],
        "sign": {"good": "🟢", "bad": "🔴", "even": "🟡"}[tone],
        "facts": _facts(decision, holdout, grid),
        "tiles": _tiles(metrics, mine, theirs),
        "delta": None
        if delta["estimate"] is None
        else {key: _number(value, 0) for key, value in delta.items()} | {"svg": _delta(delta)},
        "sections": sections,
        "guardrails": [_guardrail(one) for one in decision["guardrails"]],
        "floors": [_floor(one) for one in decision["floors"]],
        "tables": _tables(metrics),
        "has_reference": theirs is not None,
        "anomaly_events": grid.events,
    }


def _facts(decision: Mapping[str, Any], holdout: Mapping[str, Any], grid: Grid) -> list[tuple[str, str]]:
    events = f"{holdout['failures']:,} failures" if grid.supervised else f"{grid.event_count:,} anomalies"
    champion = decision["champion"]
    return [
        ("This model", _name(decision["challenger"])),
        ("Reference", "none yet" if champion is None else _name(champion)),
        ("Judged on", f"{holdout['machines']:,} machines, {events}, {holdout['machine_years']:.1f} machine-years"),
    ]


def _name(model: Mapping[str, Any]) -> str:
    commit, digest = model["commit"] or "unknown", (model["model_digest"] or "unknown").removeprefix("sha256:")
    return f"commit {commit[:9]}, model {digest[:12]}"


def _tiles(metrics: Mapping[str, Any], mine: Assessment, theirs: Assessment | None) -> list[dict[str, str]]:
    """The four figures to read first."""
    part = "failure" if metrics["failure"] is not None else "anomaly"
    names = FAILURE if part == "failure" else ANOMALIES
    other = {} if theirs is None else theirs.metrics[part] or {}
    result = [
        {
            "label": "Cost per machine-year, all heads",
            "value": _number(Ratio(mine.cost, mine.years).estimate, 0),
            "reference": "" if theirs is None else _number(Ratio(theirs.cost, theirs.years).estimate, 0),
        }
    ]
    for key in ("event_recall", "false_alarms_per_machine_year", "pr_auc"):
        label, digits, _ = names[key]
        value = _number((metrics[part] or {}).get(key), digits)
        result.append(
            {"label": label, "value": value, "reference": _number(other[key], digits) if key in other else ""}
        )
    return result


def _comparison(
    figures: Mapping[str, tuple[str, int, bool]],
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any] | None,
    my_bounds: Mapping[str, Bounds],
    their_bounds: Mapping[str, Bounds],
) -> list[dict[str, str]]:
    """One row for each figure: reference and challenger, coloured where their intervals lie apart."""
    rows = []
    for key, (label, digits, more_is_better) in figures.items():
        (low, high), (their_low, their_high) = (b.get(key, (np.nan, np.nan)) for b in (my_bounds, their_bounds))
        rose, fell = low > their_high, high < their_low
        rows.append(
            {
                "label": label,
                "mine": _number(mine[key], digits),
                "my_bounds": _range(low, high, digits),
                "theirs": _number(None if theirs is None else theirs[key], digits),
                "their_bounds": _range(their_low, their_high, digits),
                "trend": ("good" if rose == more_is_better else "bad") if rose or fell else "",
            }
        )
    return rows


def _bounds(part: str, one: Assessment | None) -> dict[str, Bounds]:
    """The interval of each figure that is a ratio of sums over machines."""
    if one is None:
        return {}
    chosen = [outcomes for head, outcomes in one.outcomes.items() if (head == ANOMALY) == (part == "anomaly")]

    def total(count: Callable[[Outcome], int]) -> Float64:
        return np.array([[count(outcome) for outcome in head] for head in chosen], float).sum(axis=0)

    detected = total(lambda outcome: outcome.detected)
    ratios = {
        "event_recall": (Ratio(detected, detected + total(lambda outcome: outcome.missed)), 1.0),
        "false_alarms_per_machine_year": (Ratio(total(lambda outcome: outcome.false_alarms), one.years), np.inf),
    }
    if part == "failure":
        ratios["brier"] = (Ratio(one.squared_error, one.rows), 1.0)
    result = {}
    for key, (ratio, most) in ratios.items():
        low, high = ratio.interval(BOUND) if np.isfinite(ratio.above).all() else (None, None)
        if low is not None and high is not None:
            result[key] = (max(low, 0.0), min(high, most))
    return result


def _range(low: float, high: float, digits: int) -> str:
    return f"{_number(low, digits)} to {_number(high, digits)}" if np.isfinite(low) else ""


def _guardrail(one: Mapping[str, Any]) -> dict[str, str]:
    kind, _, segment = one["name"].partition(":")
    bounds = f"{_number(one['low'], 2)} to {_number(one['high'], 2)}" if one["estimate"] is not None else "—"
    return {
        "label": GUARDRAILS[kind].format(segment),
        "estimate": _number(one["estimate"], 2),
        "bounds": bounds,
        "limit": f"at most {one['limit']:.2f}",
        "state": _state(one["holds"], "broken"),
    }


def _floor(one: Mapping[str, Any]) -> dict[str, str]:
    part, _, key = one["name"].partition(".")
    label = (FAILURE if part == "failure" else ANOMALIES).get(key, (key, 2, True))[0]
    return {
        "label": label,
        "estimate": _number(one["estimate"], 2),
        "reference": _number(one["champion"], 2),
        "limit": f"at least {one['limit']:.2f}",
        "state": _state(one["holds"], "missed"),
    }


def _state(holds: bool | None, word: str) -> str:
    return "not judged" if holds is None else "holds" if holds else word


def _tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Components, machine models and ablations."""
    result = []
    failure = metrics["failure"]
    if failure is not None:
        for key, title, counts in (
            ("by_component", "Each component", ("failures",)),
            ("by_model", "Each machine model", ("machines", "failures")),
        ):
            head = ["", *(count.capitalize() for count in counts), *(FAILURE[name][0] for name in SEGMENT)]
            rows = [
                [name, *(f"{of_one[count]:,}" for count in counts)]
                + [_number(of_one[figure], FAILURE[figure][1]) for figure in SEGMENT]
                for name, of_one in failure[key].items()
            ]
            result.append({"title": title, "note": "", "head": head, "rows": rows})
    ablations = {name: figures for name, figures in metrics["ablations"].items() if figures is not None}
    if ablations and failure is not None:
        named = {"everything": failure} | {name.replace("_", " "): figures for name, figures in ablations.items()}
        rows = [[name, *(_number(of_one[key], FAILURE[key][1]) for key in ABLATION)] for name, of_one in named.items()]
        note = "The same training without one source of knowledge. What hardly changes was hardly needed."
        head = ["Trained with", *(FAILURE[key][0] for key in ABLATION)]
        result.append({"title": "Ablations", "note": note, "head": head, "rows": rows})
    return result


def _pictures(
    heads: Mapping[str, Aligned],
    mine: Assessment,
    grid: Grid,
    settings: Settings,
    truth: Truth,
    decision: Mapping[str, Any],
    importance: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The pictures that these predictions allow."""
    result: list[dict[str, Any]] = []

    def show(title: str, caption: str, svg: str, wide: bool = False) -> None:
        result.append({"title": title, "caption": caption, "svg": svg, "wide": wide})

    usable = {name: head for name, head in heads.items() if np.isfinite(head.score).all()}
    components = [name for name in truth.schema.components if name in usable] if grid.supervised else []
    rows = {name: grid.known[c] for c, name in enumerate(truth.schema.components)}
    labels = {name: grid.label[c] == 1 for c, name in enumerate(truth.schema.components)}
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
        show("Precision and recall", "Every hour counts for itself. Dotted: guessing.", plots.precision_recall(curves))
    if "failure heads" in curves:
        show("Calibration", "On the dotted line, a probability means what it says.", plots.calibration(y, p))
        leads = np.concatenate([one.lead_hours for name in components for one in mine.outcomes[name]])
        rules = settings.rules
        caught = leads[~np.isnan(leads)]
        svg = plots.lead_times(
            caught, int(np.isnan(leads).sum()), rules.minimum_lead_us / HOUR_US, rules.horizon_us / HOUR_US
        )
        show("Lead time", "From the first alarm in the horizon to the failure.", svg)
    if panels:
        show("Scores", "How well events stand out from quiet hours.", plots.scores(panels))
    for title, number in _machines(mine).items() if mine.outcomes else ():
        caption = "Shade: score. Bars below: alarms. ▼ and line: failure. | above: replacement. Band: known anomaly."
        show(title.format(grid.ids[number]), caption, _timeline(number, heads, mine, grid, truth), True)
    if importance:
        show("Feature importance", "By permutation on the held-out machines.", plots.importance(importance), True)
    return result


def _machines(mine: Assessment) -> dict[str, int]:
    """The machines whose life is shown, by title."""
    rate = mine.cost / mine.years
    order = np.argsort(rate, kind="stable")
    typical, dearest = int(order[(len(order) - 1) // 2]), int(order[-1])
    result = {"Machine {}: the one that cost most": dearest}
    if typical != dearest:
        result["Machine {}: a typical one"] = typical
    return result


def _timeline(number: int, heads: Mapping[str, Aligned], mine: Assessment, grid: Grid, truth: Truth) -> str:
    rows = slice(int(grid.offsets[number]), int(grid.offsets[number + 1]))
    machine, time = int(grid.ids[number]), grid.time[rows]
    maintenance, none = truth.tables.maint.slice(machine), np.empty(0, np.int64)
    since = maintenance.time >= time[0]
    lanes = []
    for head, outcomes in mine.outcomes.items():
        score = heads[head].score[rows] if head in heads else np.full(len(time), np.nan)
        if head == ANOMALY:
            failures, replaced, intervals = none, none, grid.anomalies[number]
        else:
            c = truth.schema.components.index(head)
            failures, intervals = grid.failures[number][c], (none, none)
            replaced = maintenance.time[since & (maintenance.code == c)]
        lanes.append(plots.Lane(head, score, outcomes[number], failures, replaced, intervals))
    return plots.timeline(f"machine {machine}", time, lanes)


def _delta(delta: Mapping[str, float | None]) -> str:
    estimate = delta["estimate"] or 0.0
    return plots.interval(estimate, delta["low"], delta["high"], "saved for each machine-year")


def _number(value: float | None, digits: int) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"
