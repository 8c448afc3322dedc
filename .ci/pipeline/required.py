"""Decide one verdict over all jobs of a run, from the JSON of GitHub's ``needs`` context in NEEDS.

On GitHub a skipped required job counts as success, so a skip is allowed here only where the plan's output of that job's
name is ``false``. Any other result than success is red: failed, cancelled, skipped after a failure. Where the plan says
that this run cannot judge a model (its output ``not_judged``), that is red too, once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pipeline import github


def objections(needs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the jobs that make the verdict red, each with the reason."""
    if "plan" not in needs:
        return {"plan": "missing, so it is not known which jobs had to run"}
    planned = needs["plan"].get("outputs", {})
    found = {}
    for job, facts in needs.items():
        result = facts["result"]
        if result == "skipped" and planned.get(job) == "false":
            continue
        if result == "skipped":
            found[job] = "skipped, which the plan does not allow: see the jobs that it needs"
        elif result != "success":
            found[job] = f"{result}: see its log"
    if why := planned.get("not_judged"):
        found["train"] = f"not judged: {why}"
    return found


def main() -> int:
    """Print a line for each job and return the exit code; 1: red; 2: NEEDS is missing or not JSON."""
    try:
        needs = json.loads(os.environ["NEEDS"])
    except (KeyError, json.JSONDecodeError):
        print("required: NEEDS must hold the JSON of the needs context, as ci.yml sets it", file=sys.stderr)
        return 2
    against = objections(needs)
    for job in dict.fromkeys([*needs, *against]):
        fine = "ok, skipped by the plan" if job in needs and needs[job]["result"] == "skipped" else "ok"
        print(f"{job:10} {against.get(job, fine)}")
    if why := needs.get("plan", {}).get("outputs", {}).get("not_judged"):
        github.tell(f"🔴 Not judged: {why}.")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
