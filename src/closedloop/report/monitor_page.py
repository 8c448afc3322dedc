"""The page of what is watched: drift, and how well the served models did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64
from closedloop.report import card, plots
from closedloop.report.pictures import Picture

DRIFT_HEADLINES = {
    "moved": ("bad", "The world has moved", "See what moved. Retraining on new tables learns it; nothing is stopped."),
    "steady": ("good", "Nothing has moved", "Nothing to do."),
    "too little data": ("even", "Too little data to tell", "See what is missing."),
}
KINDS = {
    "level": "level (KS on machine-day means)",
    "step": "step since the last weeks of training (Student's t)",
    "distribution": "distribution (χ² on bins)",
    "missing": "missing readings",
    "rate": "errors for each machine-day (Poisson)",
    "together": "all together (classifier)",
}


def write(
    path: Path,
    drift: Mapping[str, Any] | None = None,
    pictures: Sequence[Picture] = (),
    live: Mapping[str, Any] | None = None,
    timelines: Sequence[Picture] = (),
) -> None:
    """Write the page; it holds style and pictures inside, and fetches nothing.

    Args:
        path: the file.
        drift: content of ``drift.json``, or None where it was not looked at.
        pictures: of the columns that moved.
        live: content of ``monitor.json``, or None where it was not looked at.
        timelines: of the machines that need attention.
    """
    page: dict[str, Any] = {
        "drift": None if drift is None else _drift(drift, pictures),
        "live": None if live is None else _live(live, timelines),
    }
    page["title"] = next(part["headline"] for part in (page["live"], page["drift"]) if part is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.environment().get_template("monitor.html.j2").render(page), encoding="utf-8")


def _drift(drift: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    """What the section on drift shows, as text."""
    tone, headline, advice = DRIFT_HEADLINES[drift["verdict"]]
    earlier, last = drift["looks"][-2], drift["looks"][-1]
    before = {(test["subject"], test["kind"]): test for test in earlier["tests"]}
    moved = {(test["subject"], test["kind"]) for test in drift["moved"]}
    rows = []
    for test in sorted(last["tests"], key=lambda test: test["p"]):
        key = (test["subject"], test["kind"])
        state = "moved" if key in moved else "this week only" if test["moved"] else "steady"
        figures = [_figure(test[name]) for name in ("before", "now", "effect")]
        last_week = _p(before[key]["p"]) if key in before else "—"
        rows.append([test["subject"], KINDS[test["kind"]], *figures, last_week, _p(test["p"]), state])
    return {
        "tone": tone,
        "headline": headline,
        "advice": advice,
        "weeks": f"{earlier['start'][:10]} to {last['end'][:10]}",
        "machines": f"{last['machines']:,}",
        "machine_days": f"{last['machine_days']:,.0f}",
        "too_little": list(dict.fromkeys([*earlier["too_little"], *last["too_little"]])),
        "new_machines": ", ".join(map(str, drift["new_machines"])),
        "new_names": ", ".join(drift["new_names"]),
        "false_alarms": f"{drift['false_alarms_per_year']:g}",
        "table": {
            "head": ["", "Test", "Training", "This week", "Effect", "p, week before", "p, this week", ""],
            "rows": rows,
        },
        "pictures": list(pictures),
    }


def before_and_now(name: str, before: Float64, now: Float64) -> Picture:
    """The picture of a column's machine-day means in the training tables and in this week."""
    with mpl.rc_context(plots.STYLE):
        figure, (axis,) = plots.canvas(4.6, 2.8)
        both = np.concatenate([before, now])
        low, high = np.nanquantile(both, [0.001, 0.999]).tolist()
        edges = np.linspace(low, high, 33)
        for values, color, label in ((before, plots.MUTED, "training"), (now, plots.SERIES[0], "this week")):
            share, _ = np.histogram(values[~np.isnan(values)], edges)
            axis.stairs(share / max(share.sum(), 1), edges, color=color, label=label, linewidth=1.6)
        axis.set(ylabel="share of machine-days", xlabel=name)
        axis.legend(fontsize=8)
        svg = plots.svg(figure, f"{name} before and now")
    caption = "Means of machine-days, each from a day's readings of one machine."
    return {"title": name, "caption": caption, "svg": svg, "wide": False}


def _figure(value: float | None) -> str:
    return "—" if value is None else f"{value:,.4g}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


# --- live quality -----------------------------------------------------------------------------------------------------

LIVE_HEADLINES = {
    "worse": (
        "bad",
        "Worse in service than promised",
        "See which machine models, whether the world moved, and retrain.",
    ),
    "as promised": ("good", "As good as promised", "Nothing to do."),
    "too little data": (
        "even",
        "Too little is known yet",
        "Wait, or see that failures and complete_until are fed back.",
    ),
    "no promise": ("even", "Nobody said what to expect", "Name the release's figures with --promised."),
}
FIGURES = {  # heading and digits
    "event_recall": ("Failures foreseen", 2),
    "false_alarms_per_machine_year": ("False alarms per machine-year", 2),
    "cost_per_machine_year": ("Cost per machine-year", 0),
    "calibration": ("Failures expected over seen", 2),
}


def _live(live: Mapping[str, Any], timelines: Sequence[Picture]) -> dict[str, Any]:
    """What the section on live quality shows, as text."""
    newest = live["models"][-1]
    decision = newest["decision"]
    tone, headline, advice = LIVE_HEADLINES[decision["verdict"]]
    figures = newest["figures"]
    return {
        "tone": tone,
        "headline": headline,
        "advice": advice,
        "reason": "; ".join(decision["reasons"]).capitalize(),
        "facts": [
            ("Newest model", _short(newest["model"])),
            ("Answers that were judged", f"{figures['answers']:,} of {figures['machines']:,} machines"),
            (
                "Matured",
                f"{figures.get('machine_years', 0.0):.2f} machine-years, {figures.get('failures', 0)} failures",
            ),
            ("Failures before which nobody asked", str(figures.get("asked_too_late", 0))),
        ],
        "attention": _attention(live["attention"]),
        "timelines": list(timelines),
        "tables": [_by_version(live["models"]), _by_machine_model(newest)],
    }


def _attention(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The machines that need attention, None where none does."""
    rows = [[str(one["machine"]), "; ".join(one["reasons"]), one["last"]] for one in machines]
    return {"head": ["Machine", "Why", "Last answer"], "rows": rows} if rows else None


def _by_version(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each model version beside what it promised, the newest first."""
    rows = []
    for one in reversed(models):
        told = one["promised"] or {}
        cells = [_interval(one["figures"].get(name), digits) for name, (_, digits) in FIGURES.items()]
        promised = [f"{told[name]:.2f}" if name in told else "—" for name in list(FIGURES)[:2]]
        lead = one["figures"].get("lead_time_hours")
        rows.append([_short(one["model"]), f"{one['first'][:10]}\nto {one['last'][:10]}", *cells,
                     "—" if lead is None else f"{lead['median']:.1f}", *promised])  # fmt: skip
    head = ["Model", "Answered", *(title for title, _ in FIGURES.values()), "Median lead, hours"]
    head += ["Foreseen, promised", "False alarms, promised"]
    note = (
        "On all matured answers of each model. Intervals are over machines; each bound is wrong in one case of twenty."
    )
    return {"title": "Each model version", "note": note, "head": head, "rows": rows}


def _by_machine_model(newest: Mapping[str, Any]) -> dict[str, Any]:
    """The newest model on each machine model."""
    rows = [
        [name, f"{one['machines']:,}", f"{one['failures']:,}"]
        + [_interval(one.get(figure), digits) for figure, (_, digits) in FIGURES.items()]
        for name, one in newest["figures"].get("by_machine_model", {}).items()
    ]
    head = ["", "Machines", "Failures", *(title for title, _ in FIGURES.values())]
    return {"title": "The newest model on each machine model", "note": "", "head": head, "rows": rows}


def timeline(machine: int | str, time: Int64, score: Float64, alarm: NDArray[np.bool_]) -> Picture:
    """The picture of a machine's answers: the highest probability of failure, and its alarms."""
    with mpl.rc_context(plots.STYLE):
        figure, (axis,) = plots.canvas(4.6, 1.5)
        when = time.astype("datetime64[us]")
        axis.plot(when, score, color=plots.SERIES[0], linewidth=1.2)
        axis.plot(when[alarm], np.full(int(alarm.sum()), 1.08), "|", color=plots.BAD, markersize=7)
        axis.set(ylim=(0, 1.18), yticks=[0, 0.5, 1])
        plots.dates(axis)
        svg = plots.svg(figure, f"machine {machine} answers")
    return {"title": f"Machine {machine}", "caption": "", "svg": svg, "wide": False}


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _interval(figure: Mapping[str, float | None] | None, digits: int) -> str:
    if figure is None or figure["estimate"] is None:
        return "—"
    low, high = (f"{value:,.{digits}f}" if value is not None else "?" for value in (figure["low"], figure["high"]))
    return f"{figure['estimate']:,.{digits}f}\n({low} to {high})"
