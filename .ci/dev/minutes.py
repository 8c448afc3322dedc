"""Print the billed minutes of ci.yml by job and event: ``make minutes``.

Which jobs run, how often and on which machine is read from the workflow files and the plan; how long each takes is what
the last ``make ci`` measured here (build/ci.json). GitHub rounds each job up to whole minutes
(docs.github.com/billing/concepts/product-billing/github-actions). A job that ``make ci`` did not run is counted as one
minute, and named. What a hosted machine does first (checkout, Python, the locked requirements) is SETUP.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import yaml

from dev import local_ci
from pipeline import github, plan

SETUP = 40  # seconds; 18 of them are `make .venv/.installed` with an empty .venv, the rest is an estimate
RATES = {"ubuntu-24.04": 1, "ubuntu-24.04-arm": 1, "macos-15": 10}  # minutes of the quota that one minute takes
EVENTS = {
    "push, with a pull request": ("push", True, ("model/params.yaml",)),
    "push, without one": ("push", False, ("model/params.yaml",)),
    "pull request": ("pull_request", False, ("model/params.yaml",)),
    "pull request of prose": ("pull_request", False, ("README.md",)),
    "pull request of manifests": ("pull_request", False, ("k8s/base/service.yaml",)),
}


def flow(name: str) -> dict[str, Any]:
    """Return a workflow file."""
    found: dict[str, Any] = yaml.safe_load((github.ROOT / ".github/workflows" / name).read_text(encoding="utf-8"))
    return found


def machines(job: dict[str, Any]) -> list[str]:
    """Return the machine of each job that a job of ci.yml becomes, those of the called file and of its matrix."""
    inner = flow(Path(job["uses"]).name)["jobs"].values() if "uses" in job else [job]
    found = []
    for one in inner:
        axes = one.get("strategy", {}).get("matrix", {}).values()
        found += [str(one["runs-on"])] * math.prod(len(values) for values in axes)
    return found


def runs(event: str, elsewhere: bool, changed: tuple[str, ...]) -> list[str]:
    """Return the jobs that an event runs up to the verdict, in order."""
    jobs = flow("ci.yml")["jobs"]
    planned = plan.plan(event, changed, elsewhere)
    return [name for name in [*local_ci.judged(jobs), local_ci.VERDICT] if planned.get(name, True)]


def billed(seconds: float | None, machine: str) -> int:
    """Return the minutes of the quota that one job takes."""
    return math.ceil(((seconds or 0) + SETUP) / 60) * RATES[machine]


def table(measured: dict[str, float]) -> list[str]:
    """Return the table, in lines of Markdown."""
    jobs = flow("ci.yml")["jobs"]
    minutes = {
        name: sum(billed(measured.get(name), machine) for machine in machines(jobs[name]))
        for name in [*local_ci.judged(jobs), local_ci.VERDICT]
    }
    lines = [f"| event | {' | '.join(minutes)} | billed minutes |", "| --- |" + " --: |" * (len(minutes) + 1)]
    for title, (event, elsewhere, changed) in EVENTS.items():
        there = runs(event, elsewhere, changed)
        cells = [str(count) if name in there else "" for name, count in minutes.items()]
        lines.append(f"| {title} | {' | '.join(cells)} | {sum(minutes[name] for name in there)} |")
    missing = [name for name in minutes if name not in measured]
    return [*lines, "", f"Not measured, and counted as {billed(None, 'ubuntu-24.04')}: {', '.join(missing) or 'none'}."]


def main() -> None:
    """Print the table.

    Raises:
        PipelineError: nothing is measured yet.
    """
    if not local_ci.MEASURED.is_file():
        raise github.PipelineError("build/ci.json is not there, so nothing is measured; run: make ci")
    print("\n".join(table(json.loads(local_ci.MEASURED.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
