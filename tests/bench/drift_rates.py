"""How often drift is found, where there is none and where there is some, on simulated fleets.

    python tests/bench/drift_rates.py [--fleets 200] [--powers 40]

``moving_fleet`` simulates fleets with a season, weeks of much and of little work, machines that come and go, errors in
bursts and gaps. Where nothing else moves, an issue that 52 weekly looks open is a false alarm. Where something moves
after training, it counts as found if the first two looks together show it. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from harness import Point, finish, say
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

MACHINES = 20
SEASONS = (0.0, 0.25, 0.5)  # amplitude of the year's wave, in deviations of the noise
SUBJECTS = {"rate": "error1"}


def opened(seed: int, season: float) -> int:
    """Issues that a year of weekly looks opens on a fleet in which nothing moves."""
    import moving_fleet

    return len(moving_fleet.issues(moving_fleet.world(seed, MACHINES, season)))


def found(seed: int, change: str, season: float) -> bool:
    """Whether the first two looks find a change."""
    import moving_fleet
    from closedloop.watch import drift

    one = moving_fleet.world(10_000 + seed, MACHINES, season, change=change)
    verdict = drift.decide([one.week(0), one.week(1)])
    return any(test.subject == SUBJECTS.get(change, "volt") for test in verdict.moved)


def main() -> int:
    """Simulate, print the tables and write build/bench/drift_rates.json."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--fleets", type=int, default=200, help="fleets in which nothing moves (default: %(default)s)")
    flags.add_argument(
        "--powers", type=int, default=40, help="fleets for each change and season (default: %(default)s)"
    )
    args = flags.parse_args()
    import moving_fleet

    points = []
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for season in SEASONS[1:]:
            issues = sum(pool.map(partial(opened, season=season), range(args.fleets)))
            upper = float(stats.chi2.ppf(0.95, 2 * issues + 2) / 2 / args.fleets)
            say(f"season {season}: {issues} false issues in {args.fleets} fleet-years")
            what = f"drift, false issues a fleet-year, upper 95 % limit, season {season}"
            points.append(Point(what, upper, "issues", most=1.0))
        for change, words in moving_fleet.CHANGES.items():
            for season in SEASONS:
                hits = sum(pool.map(partial(found, change=change, season=season), range(args.powers)))
                say(f"{change}, season {season}: found {hits} of {args.powers}")
                least = 0.9 if change == "mean 1" else None
                points.append(Point(f"drift, {words}, season {season}", hits / args.powers, "found", least=least))
    return finish("drift_rates", points)


if __name__ == "__main__":
    sys.exit(main())
