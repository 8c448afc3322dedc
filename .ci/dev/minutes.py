"""Print the billed minutes of ci.yml by job and event, and those to the verdict: ``make minutes``.

Which jobs run, how often, on which machine and after which others is read from the workflow files and the plan; how
long each takes is what the last ``make ci`` measured here (build/ci.json). GitHub rounds each job up to whole minutes
(docs.github.com/billing/concepts/product-billing/github-actions). A job that ``make ci`` did not run is counted as one
minute, and named. What a hosted machine does first (checkout, Python, the locked requirements) is SETUP; that it is
faster or slower than this one, and the wait for it, are not known here. ``write`` puts the section into
.github/README.md, with what was measured in a comment, from which a test computes it again.
"""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from dev import local_ci
from pipeline import github, plan

SETUP = 40  # seconds; 18 of them are `make .venv/.installed` with an empty .venv, the rest is an estimate
GOALS = (6, 25)  # minutes to the verdict, and billed ones, of a pull request
JUDGED = "pull request"  # the event of EVENTS that the goals are for
README = github.ROOT / ".github/README.md"
SECTION = re.compile(r"<!-- minutes (\{.*?\}) -->\n.*?<!-- /minutes -->", re.DOTALL)
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


def slowest(measured: dict[str, float], there: list[str]) -> tuple[float, list[str]]:
    """Return how many seconds some jobs take from the first to the verdict, and which of them the verdict waits for."""
    jobs = flow("ci.yml")["jobs"]
    ends: dict[str, tuple[float, list[str]]] = {}
    for name in there:  # in order: what a job needs is there before it
        before = max((ends[other] for other in local_ci.needed(jobs[name]) if other in ends), default=(0.0, []))
        ends[name] = (before[0] + measured.get(name, 0) + SETUP, [*before[1], name])
    return ends[local_ci.VERDICT]


def table(measured: dict[str, float]) -> list[str]:
    """Return the table, in lines of Markdown."""
    jobs = flow("ci.yml")["jobs"]
    minutes = {
        name: sum(billed(measured.get(name), machine) for machine in machines(jobs[name]))
        for name in [*local_ci.judged(jobs), local_ci.VERDICT]
    }
    lines = [
        f"| event | {' | '.join(minutes)} | billed minutes | minutes to the verdict |",
        "| --- |" + " --: |" * (len(minutes) + 2),
    ]
    for title, (event, elsewhere, changed) in EVENTS.items():
        there = runs(event, elsewhere, changed)
        cells = [str(count) if name in there else "" for name, count in minutes.items()]
        wait = slowest(measured, there)[0] / 60
        lines.append(f"| {title} | {' | '.join(cells)} | {sum(minutes[name] for name in there)} | {wait:.1f} |")
    missing = [name for name in minutes if name not in measured]
    return [*lines, "", f"Not measured, and counted as {billed(None, 'ubuntu-24.04')}: {', '.join(missing) or 'none'}."]


def goals(measured: dict[str, float]) -> str:
    """Return in words whether a pull request keeps to the goals, and which jobs take most."""
    jobs = flow("ci.yml")["jobs"]
    there = runs(*EVENTS[JUDGED])
    seconds, path = slowest(measured, there)
    cost = {name: sum(billed(measured.get(name), one) for one in machines(jobs[name])) for name in there}
    most = sorted(cost, key=lambda name: -cost[name])[:2]
    said = []
    for goal, found, what in ((GOALS[0], seconds / 60, "to the verdict"), (GOALS[1], sum(cost.values()), "billed")):
        said.append(f"at most {goal} minutes {what}, **{'kept' if found <= goal else 'missed'}** ({found:.3g})")
    waits = ", ".join(f"`{name}` {measured.get(name, 0):.0f} s" for name in path)
    costs = " and ".join(f"`{name}` {cost[name]}" for name in most)
    return f"Goals of a pull request: {' and '.join(said)}. The verdict waits for {waits}; most is billed for {costs}."


def section(known: dict[str, Any]) -> str:
    """Return the section of .github/README.md; ``known`` is what was measured: seconds, commit and processors."""
    seconds: dict[str, float] = known["seconds"]
    each = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    told = (
        f"Computed by `make minutes WRITE=1` from the workflow files and `make ci` at commit {known['commit']} on "
        f"{known['processors']} processors, in seconds: {each}. Each job gets {SETUP} s more for checkout and "
        f"installing. {known.get('note', '')}"
    )
    lines = [
        f"<!-- minutes {json.dumps(known)} -->",
        textwrap.fill(told, 120),
        "",
        *table(seconds),
        "",
        textwrap.fill(goals(seconds), 120),
        "<!-- /minutes -->",
    ]
    return "\n".join(lines)


def measured() -> dict[str, Any]:
    """Return what the last ``make ci`` measured: seconds by job, the commit, and how many processors there were.

    Raises:
        PipelineError: nothing is measured yet.
    """
    if not local_ci.MEASURED.is_file():
        raise github.PipelineError("build/ci.json is not there, so nothing is measured; run: make ci")
    known: dict[str, Any] = json.loads(local_ci.MEASURED.read_text(encoding="utf-8"))
    if "seconds" not in known:
        raise github.PipelineError("build/ci.json is of an older make ci, and names no commit; run: make ci")
    return known


def write() -> None:
    """Put the section into .github/README.md.

    Raises:
        PipelineError: nothing is measured yet, or the file has no place for it.
    """
    text = README.read_text(encoding="utf-8")
    new, count = SECTION.subn(lambda _: section(measured()), text)
    if not count:
        raise github.PipelineError(".github/README.md has no `<!-- minutes … -->`, so the section has no place")
    README.write_text(new, encoding="utf-8")
    print(".github/README.md has the minutes of this run now")


def main() -> None:
    """Print the section."""
    print(section(measured()))


if __name__ == "__main__":
    sys.exit(github.main({"": main, "write": write}))
