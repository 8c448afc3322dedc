"""The page of the demonstration: one fleet, two models, before and after the world moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.report import card

FIGURES = {  # heading, format, and whether more is better
    "event_recall": ("Failures foreseen", "{:.0%}", True),
    "false_alarms_per_machine_year": ("False alarms per machine-year", "{:.1f}", False),
    "cost_per_machine_year": ("Cost per machine-year", "{:,.0f}", False),
    "lead_time_hours_median": ("Median warning, hours", "{:.0f}", True),
    "pr_auc": ("PR-AUC, by row", "{:.2f}", True),
}


def write(path: Path, content: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
    """Write the page; it holds style and pictures inside, and fetches nothing.

    Args:
        path: the file.
        content: content of ``loop.json``.
        pictures: SVG by name: ``world``, ``weeks``, ``machine`` and ``delta``.
    """
    plan, decision, holdout = content["plan"], content["decision"], content["holdout"]
    first, second = holdout["first"], holdout["second"]
    page = {
        "verdict": decision["verdict"],
        "reason": decision["reason"],
        "plan": plan,
        "requests": f"{content['requests']:,}",
        "windows": f"{content['windows']:,}",
        "dates": {name: text[:10] for name, text in content["dates"].items()},
        "models": {name: digest.removeprefix("sha256:")[:12] for name, digest in content["models"].items()},
        "tiles": [
            {"label": title, "before": _shown(form, first[key]), "after": _shown(form, second[key]),
             "good": _is_better(first[key], second[key], more)}
            for key, (title, form, more) in list(FIGURES.items())[:3]
        ],
        "table": {
            "head": ["", "First model", "Second model"],
            "rows": [[title, _shown(form, first[key]), _shown(form, second[key])] for key, (title, form, _) in
                     FIGURES.items()],
        },
        "holdout": holdout["of"],
        "live": _live(content["live"], plan),
        "drift": content["drift"],
        "issue": content["issue"],
        "replay": content["replay"],
        "pull_request": content["pull_request"],
        "pictures": pictures,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.environment().get_template("loop.html.j2").render(page), encoding="utf-8")


def _live(live: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """The table of what the served models did."""
    rows = {
        "before": f"First model, days 0 to {plan['moved']}: the world it learned from",
        "after_the_move": f"First model, to day {plan['retrained']}: the world has moved",
        "second": f"Second model, days {plan['retrained']} to {plan['end']}",
        "first_in_its_place": "The same days, had the first model stayed",
    }
    keys = ("event_recall", "false_alarms_per_machine_year")
    return {
        "head": ["", "Failures", *(FIGURES[key][0] for key in keys)],
        "rows": [
            [title, f"{live[name]['failures']:,}", *(_shown(FIGURES[key][1], live[name][key]) for key in keys)]
            for name, title in rows.items()
        ],
    }


def _shown(form: str, value: float | None) -> str:
    return "—" if value is None else form.format(value)


def _is_better(before: float | None, after: float | None, more: bool) -> bool:
    return before is not None and after is not None and (after > before if more else after < before)
