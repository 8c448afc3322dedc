"""The report of a run: a page, a summary and the model card.

``index.html`` holds everything (style and pictures are inside, no script, nothing is fetched). ``summary.md`` holds the
verdict and the tables, for a step summary or a pull request. ``card.md`` describes the model and its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.data.schema import Float64
from closedloop.judge.checks import LESS_IS_BETTER, Candidate, faults
from closedloop.judge.compare import Ratio
from closedloop.judge.episodes import Outcome
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.operating import BUDGETS, Curve, curves, read
from closedloop.judge.truth import ANOMALY, Grid, JudgeSettings, PredictionTable, Truth, align
from closedloop.report import card, plots, policies
from closedloop.report.pictures import Seen, importance_of, machines, operating_curves, pictures

Bounds = tuple[float, float]
BOUND = 0.05  # each bound of an interval is one-sided at this level, as the gate's are

HEADLINES = {
    "refused": ("bad", "Refused", "Fix what is named above and push again. A refused model cannot be accepted."),
    "identical": ("good", "Identical", "Nothing to do: what is served stays."),
    "incomparable": (
        "bad",
        "Not comparable",
        "Undo the change, or ask a code owner to accept the model: make accept WHY=…",
    ),
    "worse": ("bad", "Worse", "Improve the model, or ask a code owner to accept it: make accept WHY=…"),
    "first": ("good", "First model", "Nothing to do: merging makes it the champion."),
    "better": ("good", "Better", "Nothing to do: merging makes it the new champion."),
    "inconclusive": ("even", "Not proven either way", "It may be served. The champion stays the same."),
}
OF_NO_USE = (
    "Of no use yet",
    "Improve the model, correct gate.floors where they ask too much of this fleet, or ask a code owner to accept the "
    "model: make accept WHY=…",
)
GUARDRAILS = {
    "false_alarm_ratio": "False alarms, ratio to the champion",
    "brier_ratio": "Brier score, ratio to the champion",
    "calibration_excess": "Calibration error above the champion's, as a share of the failures seen",
    "segment_cost_ratio": "Cost on {}, ratio to the champion",
}
# figure: (heading, digits)
FAILURE = {
    "event_recall": ("Failures foreseen", 2),
    "false_alarms_per_machine_year": ("False alarms per machine-year", 2),
    "lead_time_hours_median": ("Median lead, hours", 1),
    "pr_auc": ("PR-AUC, by row", 3),
    "brier": ("Brier score, by row", 5),
    "expected_over_observed": ("Expected ÷ observed, by row", 2),
    "precision": ("Precision, by row", 2),
    "recall": ("Recall, by row", 2),
    "f1": ("F1, by row", 2),
    "cost_per_machine_year": ("Cost per machine-year", 0),
}
ANOMALIES = {
    "event_recall": ("Anomalies seen", 2),
    "false_alarms_per_machine_year": ("False alarms per machine-year", 2),
    "pr_auc": ("PR-AUC, by row", 3),
    "f1": ("F1, by row", 2),
    "false_alarm_rate": ("False-alarm rate, by row", 4),
}
SEGMENT = (
    "event_recall",
    "false_alarms_per_machine_year",
    "lead_time_hours_median",
    "pr_auc",
    "expected_over_observed",
    "cost_per_machine_year",
)
ABLATION = ("pr_auc", "f1", "event_recall", "false_alarms_per_machine_year", "cost_per_machine_year")


def write(
    folder: Path,
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    predictions: PredictionTable,
    truth: Truth,
    settings: JudgeSettings,
    champion: Candidate | None = None,
    importance: Mapping[str, Mapping[str, float]] | None = None,
    model: Mapping[str, Any] | None = None,
    *,
    changes: Sequence[str] = (),
    quick: bool = False,
) -> None:
    """Write ``index.html`` and ``summary.md`` into a folder, and ``card.md`` where the model is described.

    Args:
        folder: it is made if it does not exist.
        metrics: content of ``metrics.json`` of the challenger.
        decision: content of ``decision.json``.
        predictions: the challenger's answers.
        truth: what they were judged by.
        settings: rules, costs and limits of the base commit.
        champion: the model that the challenger was compared with.
        importance: result of :func:`closedloop.report.importance.importance`.
        model: result of :func:`closedloop.report.card.describe` for the challenger.
        changes: what distinguishes the challenger from the champion, a sentence each.
        quick: whether ablations and importance were left out, which the page and the summary then say.
    """
    grid = Grid.of(truth, settings)
    heads = align(predictions, grid)
    mine = assess(heads, grid, settings, truth.schema)
    theirs, their_curves = _of_champion(champion, grid, settings, truth)
    my_curves = curves(heads, grid, settings.rules, truth.schema)
    seen = Seen(heads, mine, theirs, my_curves, their_curves, grid, settings, truth)
    page = _page(metrics, decision, seen)
    page |= {"alarms": operating_curves(seen), "pictures": pictures(seen), "machines": machines(seen)}
    page |= {"importance": importance_of(importance or {}), "policies": policies.table(seen), "changes": changes}
    if quick:
        page["advice"] += " This was a quick run, without ablations and feature importance; make run computes them."
    rendered = {"index.html": ("report.html.j2", page), "summary.md": ("summary.md.j2", page)}
    if model is not None:
        rendered["card.md"] = (card.TEMPLATE, {**page, **model})
    environment = card.environment()
    folder.mkdir(parents=True, exist_ok=True)
    for name, (template, content) in rendered.items():
        text = environment.get_template(template).render(content)
        (folder / name).write_text(text, encoding="utf-8")


def _of_champion(
    champion: Candidate | None, grid: Grid, settings: JudgeSettings, truth: Truth
) -> tuple[Assessment | None, dict[str, Curve | None]]:
    """The champion judged, and its curves; None and none where there is no champion, or its answers cannot be used."""
    if champion is None:
        return None, {}
    answers = {} if champion.predictions is None else align(champion.predictions, grid)
    if faults(champion, answers, grid, truth):
        return None, {}
    return assess(answers, grid, settings, truth.schema), curves(answers, grid, settings.rules, truth.schema)


def _page(metrics: Mapping[str, Any], decision: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """Everything that the templates show, as text."""
    mine, theirs, grid = seen.mine, seen.theirs, seen.grid
    tone, headline, advice = HEADLINES[decision["verdict"]]
    if decision["verdict"] == "worse" and decision["champion"] is None:
        headline, advice = OF_NO_USE
    if decision["accepted"]:
        tone, advice = "good", "Accepted by a code owner: merging makes it the new champion."
    elif decision["verdict"] == "inconclusive" and not decision["green"]:
        tone, advice = "bad", "params.yaml asks for a person to decide here: make accept WHY=…"
    elif decision["verdict"] in ("first", "better") and not decision["becomes_champion"]:
        advice = "It does not become the champion; the reason above says what that takes."
    elif decision["becomes_champion"] and _of_machine(decision):
        advice = "Nothing to do: it is the champion on this machine now."
    holdout, delta = decision["holdout"], decision["delta"]["cost_per_machine_year"]
    other = {} if theirs is None else theirs.metrics
    known = "the known anomalies" if grid.events == "anomalies" else "failures, since no anomalies are known"
    notes = {"failure": "All components together.", "anomaly": f"Judged on {known}."}
    sections = []
    for part, title, figures in (("failure", "Failure heads", FAILURE), ("anomaly", "Anomaly head", ANOMALIES)):
        if metrics[part] is not None:
            bounds = _bounds(part, mine), _bounds(part, theirs)
            rows = _comparison(figures, metrics[part], other.get(part), *bounds)
            sections.append({"title": title, "note": notes[part], "rows": rows})
    return {
        "source": seen.truth.source,
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
        "budgets": _budgets(metrics, seen),
        "tables": _tables(metrics),
        "has_champion": theirs is not None,
    }


def _facts(decision: Mapping[str, Any], holdout: Mapping[str, Any], grid: Grid) -> list[tuple[str, str]]:
    events = f"{holdout['failures']:,} failures" if grid.supervised else f"{grid.event_count:,} anomalies"
    champion, origin = decision["champion"], _origin(decision.get("champion_from") or {})
    looks = (decision.get("looks") or {}).get("releases")
    return [
        ("This model", _name(decision["challenger"])),
        ("Champion", "none yet" if champion is None else _name(champion)),
        *([("The champion's bundle", origin)] if origin else []),
        ("Judged on", f"{holdout['machines']:,} machines, {events}, {holdout['machine_years']:.1f} machine-years"),
        *([("Releases that the same machines and rows judged before", f"{looks:,}")] if looks is not None else []),
    ]


def _of_machine(decision: Mapping[str, Any]) -> bool:
    """Whether a decision is of a person's machine, which met the champion kept there or none."""
    own = (decision.get("champion_from") or {"from": "machine"})["from"] == "machine"
    return decision.get("ci", {}) is None and own


def _origin(origin: Mapping[str, str]) -> str:
    """Where the champion's bundle comes from; empty where none was needed."""
    match origin.get("from"):
        case "release":
            return f"from its release {origin['tag']}, verified {origin['verified']}"
        case "training":
            return f"trained again: {origin['why']}"
        case "machine":
            return "kept on this machine by an earlier run"
    return ""


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
            "value": _number(Ratio(mine.cost, mine.years).estimate if mine.outcomes else None, 0),
            "champion": "" if theirs is None else _number(Ratio(theirs.cost, theirs.years).estimate, 0),
        }
    ]
    for key in ("event_recall", "false_alarms_per_machine_year", "pr_auc"):
        label, digits = names[key]
        value = _number((metrics[part] or {}).get(key), digits)
        result.append({"label": label, "value": value, "champion": _number(other[key], digits) if key in other else ""})
    return result


def _comparison(
    figures: Mapping[str, tuple[str, int]],
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any] | None,
    my_bounds: Mapping[str, Bounds],
    their_bounds: Mapping[str, Bounds],
) -> list[dict[str, str]]:
    """One row for each figure: champion and challenger, coloured where their intervals do not overlap."""
    rows = []
    for key, (label, digits) in figures.items():
        (low, high), (their_low, their_high) = (b.get(key, (np.nan, np.nan)) for b in (my_bounds, their_bounds))
        rose, fell = low > their_high, high < their_low
        rows.append(
            {
                "label": label,
                "mine": _number(mine[key], digits),
                "my_bounds": _range(low, high, digits),
                "theirs": _number(None if theirs is None else theirs[key], digits),
                "their_bounds": _range(their_low, their_high, digits),
                "trend": ("good" if rose == (key not in LESS_IS_BETTER) else "bad") if rose or fell else "",
            }
        )
    return rows


def _budgets(metrics: Mapping[str, Any], seen: Seen) -> dict[str, Any] | None:
    """The recall that the best threshold would have had at each number of false alarms."""
    rows = []
    for part, names in (("failure", FAILURE), ("anomaly", ANOMALIES)):
        if seen.my_curves[part] is not None:
            label = names["event_recall"][0]
            rows.append([label, *(_number(one, 2) for one in metrics[part]["event_recall_at"].values())])
            if (other := seen.their_curves.get(part)) is not None:
                rows.append([f"{label}, champion", *(_number(one, 2) for one in read(other).values())])
    head = ["False alarms per machine-year, at most", *(f"{budget:g}" for budget in BUDGETS)]
    return {"head": head, "rows": rows} if rows else None


def _bounds(part: str, one: Assessment | None) -> dict[str, Bounds]:
    """Interval of each figure that is a ratio of sums over machines."""
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
    known = one["low"] is not None or one["high"] is not None
    bounds = f"{_number(one['low'], 2)} to {_number(one['high'], 2)}" if known else "—"
    return {
        "label": GUARDRAILS[kind].format(segment),
        "estimate": _number(one["estimate"], 2),
        "bounds": bounds,
        "limit": f"at most {one['limit']:.2f}",
        "state": _state(one["holds"], "broken"),
    }


def _floor(one: Mapping[str, Any]) -> dict[str, str]:
    part, _, key = one["name"].partition(".")
    label = (FAILURE if part == "failure" else ANOMALIES).get(key, (key, 2))[0]
    return {
        "label": label,
        "estimate": _number(one["estimate"], 2),
        "champion": _number(one["champion"], 2),
        "limit": f"at {'most' if key in LESS_IS_BETTER else 'least'} {one['limit']:.2f}",
        "state": _state(one["holds"], "missed"),
    }


def _state(holds: bool | None, word: str) -> str:
    return "not judged" if holds is None else "holds" if holds else word


def _tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables by component, by machine model, by hour and by ablation."""
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
        result.append(_calibration_by_hour(failure["by_hour"]))
    ablations = {name: figures for name, figures in metrics["ablations"].items() if figures is not None}
    if ablations and failure is not None:
        named = {"everything": failure} | {name.replace("_", " "): figures for name, figures in ablations.items()}
        rows = [[name, *(_number(of_one[key], FAILURE[key][1]) for key in ABLATION)] for name, of_one in named.items()]
        note = "The same training without one kind of input. Where a figure hardly changes, the input is hardly needed."
        head = ["Trained with", *(FAILURE[key][0] for key in ABLATION)]
        result.append({"title": "Ablations", "note": note, "head": head, "rows": rows})
    return result


def _calibration_by_hour(hours: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The table of calibration by hour of the day."""
    key, digits = "expected_over_observed", FAILURE["expected_over_observed"][1]
    rows = [
        [f"from {hour}:00", f"{of_one['observed']:,}", _number(of_one[key], digits)] for hour, of_one in hours.items()
    ]
    note = (
        "Rows before a failure: those that the probabilities expect for each that there was, 1 where they are right. A "
        "fleet with shifts or a daily rhythm shows here whether its model knows it."
    )
    return {"title": "Hour of the day, UTC", "note": note, "head": ["", "Observed", FAILURE[key][0]], "rows": rows}


def _delta(delta: Mapping[str, float | None]) -> str:
    estimate = delta["estimate"] or 0.0
    return plots.interval(estimate, delta["low"], delta["high"], "saved for each machine-year")


def _number(value: float | None, digits: int) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"
