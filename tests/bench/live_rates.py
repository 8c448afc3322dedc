"""How often live quality opens an issue, where a model is as good as promised and where it is not.

    python tests/bench/live_rates.py [--fleets 200] [--powers 40]

``served_fleet`` simulates a year of a fleet whose machines fail, are foreseen and raise false alarms each at their own
rate, and a release whose holdout showed how good its model is. The decision is made anew each day.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from harness import Point, finish, say
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

FLEETS: dict[str, dict[str, Any]] = {
    "40 machines": {},
    "100 machines that fail often": {"machines": 100, "failures": 7.6},
    "15 machines": {"machines": 15, "held_out": 15},
    "a small holdout": {"held_out": 8},
}
WORSE: dict[str, dict[str, Any]] = {
    "recall 0.3, promised 0.8": {"recall_now": 0.3},
    "recall 0.5, promised 0.8": {"recall_now": 0.5},
    "twice as many false alarms": {"alarms_now": 8.0},
    "three times as many false alarms": {"alarms_now": 12.0},
}


def days(seed: int, **fleet: Any) -> list[int]:
    """The days of a year on which an issue is opened."""
    import served_fleet

    return served_fleet.issues(served_fleet.served(seed, **fleet))


def main() -> int:
    """Simulate, print the tables and write build/bench/live_rates.json."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--fleets", type=int, default=200, help="fleets of each kind (default: %(default)s)")
    flags.add_argument("--powers", type=int, default=40, help="fleets for each worse model (default: %(default)s)")
    args = flags.parse_args()
    points = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for name, fleet in FLEETS.items():
            issues = sum(map(len, pool.map(partial(days, **fleet), range(args.fleets))))
            upper = float(stats.chi2.ppf(0.95, 2 * issues + 2) / 2 / args.fleets)
            say(f"{name}: {issues} false issues in {args.fleets} fleet-years")
            points.append(
                Point(f"live, false issues a fleet-year, upper 95 % limit, {name}", upper, "issues", most=1.0)
            )
        for name, change in WORSE.items():
            found = [opened for opened in pool.map(partial(days, **change), range(args.powers)) if opened]
            say(f"{name}: found {len(found)} of {args.powers}")
            points.append(Point(f"live, {name}, found in a year", len(found) / args.powers, "found"))
    return finish("live_rates", points)


if __name__ == "__main__":
    sys.exit(main())
