"""What a run says at its end: the figures to read first, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.common import champion

FIGURES = {  # of metrics.json, by part: what it is called, and its digits
    "failure": {
        "event_recall": ("failures foreseen", 2),
        "false_alarms_per_machine_year": ("false alarms per machine-year", 2),
        "lead_time_hours_median": ("median lead, hours", 1),
        "pr_auc": ("PR-AUC of the failure heads", 3),
        "cost_per_machine_year": ("cost per machine-year", 0),
    },
    "anomaly": {
        "event_recall": ("anomalies seen", 2),
        "false_alarms_per_machine_year": ("false alarms of the anomaly head per machine-year", 2),
        "pr_auc": ("PR-AUC of the anomaly head", 3),
    },
}
NEXT = {
    "first": "change model/params.yaml or src/closedloop/features/custom.py, and run again: that model meets this one",
    "identical": "change model/params.yaml or src/closedloop/features/custom.py, and run again",
    "better": "commit the change and open a pull request: make pr",
    "inconclusive": "the holdout cannot tell the two apart; keep the change if it is simpler, or make a larger one",
    "worse": "see in {report} where it is worse, or undo the change; make compare RUN=a,b shows what differs",
    "incomparable": "read the reason above: the rules or the data differ from the champion's",
    "refused": "correct what the reason above names",
}
OF_NO_USE = (
    "see the figures in {report}; give the model more to learn from (features, a longer history, more machines), or "
    "correct gate.floors in model/params.yaml where they ask too much of this fleet"
)
NOT_KEPT = "commit your changes and run again: only what a commit can make again becomes the champion that others meet"
START_AGAIN = "      this machine's champion is in {folder}; delete that folder to start again with this model"
LOCAL = "make serve answers with this model on http://localhost:8000; its data is on this machine only, CI has its own"


def number(value: Any, digits: int) -> str:
    """Return a figure as people read it."""
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "not known"


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the figures of one run in one line."""
    part = "failure" if metrics.get("failure") else "anomaly"
    known = metrics.get(part) or {}
    said = [f"{label} {number(known[key], n)}" for key, (label, n) in FIGURES[part].items() if key in known]
    return ", ".join(said) or "no figures: neither failures nor anomalies are known"


def lines(
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    run: str | None,
    report: Path,
    *,
    data: Mapping[str, Any],
    quick: bool,
) -> list[str]:
    """Return the last lines of a run: verdict, figures, record, next step.

    Args:
        metrics: content of ``metrics.json``.
        decision: content of ``decision.json``.
        run: the id of the recorded run; None for a proposed pin, whose run nobody records.
        report: the page of the report.
        data: content of ``build/data/data.json``: the fleet, and whether it is this machine's only.
        quick: whether ablations and importance were left out.
    """
    theirs = {floor["name"]: floor["champion"] for floor in decision["floors"]}
    said = [f"{decision['verdict']}: {decision['reason']}"]
    for part, figures in FIGURES.items():
        for key, (label, digits) in figures.items():
            if (found := metrics[part]) is not None and key in found:
                other = theirs.get(f"{part}.{key}")
                beside = "" if other is None else f"   champion {number(other, digits)}"
                said.append(f"  {label:<50}{number(found[key], digits):>10}{beside}")
    if quick:
        said.append("quick run: ablations and feature importance were left out; make run computes them")
    said.append(f"report: {report}")
    if run is None:
        return said
    said.append(f"run: {run[:12]} (make mlflow, make compare RUN={run[:12]},…)")
    verdict = decision["verdict"]
    lost = verdict in ("first", "better") and not decision["becomes_champion"]
    useless = verdict == "worse" and decision["champion"] is None
    step = NOT_KEPT if lost else OF_NO_USE if useless else NEXT[verdict]
    said.append(f"next: {step.format(report=report)}")
    if verdict == "incomparable" and (decision.get("champion_from") or {}).get("from") == "machine":
        said.append(START_AGAIN.format(folder=champion.folder(data["source"])))
    return [*said, *([f"      {LOCAL}"] if data["local"] else [])]
