"""The one verdict over all jobs of a run, from the JSON of GitHub's ``needs`` context in NEEDS.

A skipped required job counts as success on GitHub, so a skip is allowed here only where the plan's output of that job's
name says ``false``. All else that is no success is red: failed, cancelled, skipped behind a failure.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def objections(needs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What stands against green: for each job that is not as it must be, the reason."""
    if "plan" not in needs:
        return {"plan": "it is missing, so no job is known to have run"}
    planned = needs["plan"].get("outputs", {})
    found = {}
    for job, facts in needs.items():
        result = facts["result"]
        if result == "skipped" and planned.get(job) == "false":
            continue
        if result == "skipped":
            found[job] = "skipped, though the plan does not allow it: look at what it needs"
        elif result != "success":
            found[job] = f"{result}: its log says why"
    return found


def main() -> int:
    """Print a line for each job. Exit code 1: red; 2: NEEDS is not there."""
    try:
        needs = json.loads(os.environ["NEEDS"])
    except (KeyError, json.JSONDecodeError):
        print("required: NEEDS must hold the JSON of the needs context, as ci.yml sets it", file=sys.stderr)
        return 2
    against = objections(needs)
    for job in dict.fromkeys([*needs, *against]):
        fine = "ok, skipped by the plan" if job in needs and needs[job]["result"] == "skipped" else "ok"
        print(f"{job:10} {against.get(job, fine)}")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
