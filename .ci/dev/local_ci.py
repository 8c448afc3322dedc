"""Run the jobs of ci.yml on this machine: ``make ci``. The same jobs, then the verdict.

Only the jobs that the verdict waits for are run; those after it inform people or release. Of a job's steps the make
targets are run; its actions (checkout, Python, artifacts) are not needed in one folder. A job that the plan leaves out
(``cluster``, whose ``make e2e`` a person may run) and the one that needs a container engine, where none answers, are
skipped by name. The exit code is that of the verdict.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
MEASURED = ROOT / "build/ci.json"  # how long each job took, for `make minutes`
ENGINE = "image"  # the one job that needs a container engine
VERDICT = "required"
ONLY_ON_GITHUB = ("vars.", "github.event_name")  # a login to a cloud, or a step of main's own runs: its ``if`` asks
OF_THIS_PROGRAM = {"PYTHONPATH", "PYTHONSAFEPATH"}  # how make started it; no business of what a target runs


def needed(job: dict[str, Any]) -> list[str]:
    """Return the jobs that a job waits for."""
    names = job.get("needs", [])
    return [names] if isinstance(names, str) else names


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a job's steps: its own, or those of the one job in the workflow file that it calls."""
    if "uses" not in job:
        return job["steps"]
    called = yaml.safe_load((ROOT / job["uses"].removeprefix("$/")).read_text(encoding="utf-8"))["jobs"]
    (only,) = called.values()
    return only["steps"]


def judged(jobs: dict[str, Any]) -> list[str]:
    """Return the jobs that the verdict waits for, in order."""
    return [name for name in order(jobs) if name in needed(jobs[VERDICT])]


def order(jobs: dict[str, Any]) -> list[str]:
    """Return the jobs, each after those that it needs; first those that most jobs need, then in the order of the file.

    So the model is trained before the tests, which then find its loops compiled.
    """
    needing = {name: sum(name in needed(other) for other in jobs.values()) for name in jobs}
    sorter = TopologicalSorter({name: needed(job) for name, job in jobs.items()})
    sorter.prepare()
    done: list[str] = []
    ready: set[str] = set()
    while sorter.is_active():
        ready |= set(sorter.get_ready())
        done.append(min(ready, key=lambda name: (-needing[name], list(jobs).index(name))))
        ready.remove(done[-1])
        sorter.done(done[-1])
    return done


def make(target: str, **extra: str) -> bool:
    """Run one make target with its output shown; return whether it succeeded."""
    print(f"\n== {target}", flush=True)
    command = ["make", "--no-print-directory", target]
    environment = {name: value for name, value in os.environ.items() if name not in OF_THIS_PROGRAM}
    return subprocess.run(command, cwd=ROOT, env=environment | extra, check=False).returncode == 0


def run(job: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Run a job's make targets; return its result and outputs. After a failure only steps with an ``if`` still run."""
    fine = True
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        for step in steps(job):
            if any(name in str(step.get("if")) for name in ONLY_ON_GITHUB):
                continue
            if "run" in step and (fine or "if" in step):
                fine = make(step["run"].removeprefix("make "), GITHUB_OUTPUT=file.name) and fine
        return "success" if fine else "failure", dict(re.findall(r"^(\w+)=(.*)$", file.read(), re.MULTILINE))


def commit() -> str:
    """Return the commit that is here, shortened; with ``-dirty`` where files differ, empty where git does not know."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Run the jobs, print a line for each, and return the exit code of the verdict."""
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    needs: dict[str, dict[str, Any]] = {}
    rows = []
    seconds: dict[str, float] = {}
    for name in judged(jobs):
        start = time.monotonic()
        result, note = "skipped", ""
        outputs: dict[str, str] = {}
        if blocked := [other for other in needed(jobs[name]) if needs[other]["result"] != "success"]:
            note = f": behind {', '.join(blocked)}"
        elif needs.get("plan", {}).get("outputs", {}).get(name) == "false":
            note = ": not of this plan"
        elif name == ENGINE and not make("engine"):
            note = ": it needs a container engine"
            needs["plan"]["outputs"][name] = "false"
        else:
            result, outputs = run(jobs[name])
        needs[name] = {"result": result, "outputs": outputs}
        rows.append(f"{time.monotonic() - start:6.0f} s  {name:10} {result}{note}")
        if result == "success":
            seconds[name] = round(time.monotonic() - start, 1)
    print("\n" + "\n".join(rows))
    MEASURED.parent.mkdir(exist_ok=True)
    known = {"commit": commit(), "processors": os.cpu_count(), "seconds": seconds}
    MEASURED.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0 if make(VERDICT, NEEDS=json.dumps(needs)) else 1


if __name__ == "__main__":
    sys.exit(main())
