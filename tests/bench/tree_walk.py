"""Time of our walk over flattened trees against scikit-learn, for one row and for many, with equal answers.

    python tests/bench/tree_walk.py

The failure head has the parameters of ``golden/params.yaml`` and about as many features. All answers are compared
before anything is timed. For one row scikit-learn uses one thread, since starting threads would cost it more than they
save.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import PARAMS, Point, by_turns, finish, say
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from threadpoolctl import threadpool_limits

from closedloop.heads.failure import FIXED
from closedloop.heads.scorers import AnomalyHead, FailureHead, Isolation
from closedloop.heads.trees import Stack, flatten, walk_stack

FEATURES = 60
LEAST = {("failure head", 1): 50.0}  # speed-up that is promised

Floats = NDArray[np.float64]
Answer = Callable[[Floats], Floats]


def rows(count: int, seed: int = 1) -> Floats:
    """Random features by row, one in fifty missing."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((count, FEATURES))
    X[rng.random(X.shape) < 0.02] = np.nan
    return X


def models(trees: int) -> dict[str, tuple[Answer, Answer, Answer]]:
    """For each kind of ensemble: scikit-learn's answer to compare with, the one to time, and ours (on columns)."""
    X = rows(8_000, seed=0)
    y = np.nansum(X[:, :5], axis=1) + np.random.default_rng(2).standard_normal(len(X)) > 3
    parameters = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["failure"]["parameters"]
    columns = np.arange(FEATURES, dtype=np.int32)
    with threadpool_limits(1):
        boosted = HistGradientBoostingClassifier(**parameters, **FIXED, random_state=0).fit(X, y)
    forest = RandomForestClassifier(trees, min_samples_leaf=10, random_state=0, n_jobs=-1).fit(X, y)
    isolation = IsolationForest(n_estimators=trees, random_state=0).fit(X)
    head = FailureHead(flatten(boosted), columns, 1.0, 0.0)
    stack = Stack.of([flatten(forest)], [columns], FEATURES)
    detector = AnomalyHead(Isolation(flatten(isolation)), columns)

    def vote(X: Floats, jobs: int = 1) -> Floats:
        forest.n_jobs = jobs
        return forest.predict_proba(X)[:, 1]

    def many_vote(X: Floats) -> Floats:
        """Faster, but not to compare with: its threads add up the trees in any order, so the last bit varies."""
        return vote(X, 1 if len(X) == 1 else -1)

    def boost(X: Floats) -> Floats:
        return boosted.predict_proba(X)[:, 1]

    def isolate(X: Floats) -> Floats:
        return -isolation.score_samples(X)

    return {
        "failure head": (boost, boost, head.probability),
        "random forest": (vote, many_vote, lambda X: walk_stack(stack, X)[0]),
        "isolation forest": (isolate, isolate, detector.score),
    }


def check(name: str, theirs: Answer, ours: Answer, X: Floats) -> None:
    """Compare the answers: exactly, but an isolation forest's to one unit in the last place (2 ** x is libc's).

    Raises:
        SystemExit: they differ.
    """
    expected, found = theirs(X), ours(np.ascontiguousarray(X.T))
    last_places = np.abs(expected.view(np.int64) - found.view(np.int64))
    if (off := int(np.count_nonzero(last_places > (name == "isolation forest")))) or not np.isfinite(found).all():
        raise SystemExit(f"not timed: {name} gives another answer than scikit-learn in {off} of {len(X)} rows")


def main(words: list[str]) -> int:
    """Compare, time, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--rows", type=int, nargs="+", default=[1, 1000, 100_000])
    flags.add_argument("--trees", type=int, default=100, help="of the two kinds of forest")
    flags.add_argument("--rounds", type=int, default=7)
    args = flags.parse_args(words)
    say("fitting three ensembles")
    points, details = [], {}
    for name, (theirs, fast, ours) in models(args.trees).items():
        check(name, theirs, ours, rows(20_000, seed=3))
        for count in args.rows:
            X = rows(count)
            check(name, theirs, ours, X)
            columns = np.ascontiguousarray(X.T)
            say(f"{name}, rows: {count:,}")
            alone: Any = threadpool_limits(1) if count == 1 else nullcontext()
            with alone:
                ways = {"ours": lambda: ours(columns), "scikit-learn": lambda: fast(X)}  # noqa: B023
                seconds = by_turns(ways, args.rounds, least_s=0.02)
            speed_up, least = seconds.ratio("scikit-learn", "ours"), LEAST.get((name, count))
            points.append(Point(f"{name}, rows: {count:,}: scikit-learn / ours", speed_up, least=least))
            details[f"{name}, {count}"] = asdict(seconds)
    return finish("tree_walk", points, args.out, seconds=details)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
