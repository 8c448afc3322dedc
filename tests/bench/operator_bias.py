"""What an operator who acts on alarms does to the next models, and what findings are worth.

    python tests/bench/operator_bias.py [--quick] [--seeds 3] [--generations 10] [--machines 60] [--judges 400]
    python tests/bench/operator_bias.py --show

A model is served, and an operator acts on a share of its alarms: the failures that it foresaw do not happen. The next
model learns from what the log then holds, is served in its turn, and so on. Each generation is judged on the same
held-out fleet, which nobody touches: on failures that really happen. Three ways to label the log are compared: *naive*
(no replacement prevented anything), *censoring* (what a replacement prevented is unknown) and *findings* (each
replacement says whether the component was worn).

It takes hours, so each generation's row and model are kept in build/bench/operator_bias as they come. A run that was
stopped is taken up there by the same command; --show prints what there is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import OUT, Point, finish, say

from closedloop.data.schema import HOUR_US, Tables
from closedloop.data.simulate import simulate
from closedloop.features.kernel import Features, compute
from closedloop.features.level_fit import fit_levels
from closedloop.features.spec import Constants, FeatureSpec, fit_constants
from closedloop.heads import bundle as bundles
from closedloop.heads.bundle import Bundle, TrainedOn
from closedloop.judge.labels import UNKNOWN, in_failure_hour, labels
from closedloop.judge.outcomes import of_failures
from closedloop.judge.truth import Grid, JudgeSettings, Truth
from closedloop.watch.label_counts import label_counts, mostly_censored
from model.common import params as parameters
from model.common.training import TrainingSet, anomaly_head, failure_heads, teaching

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from acting_operator import Acted, Operator, act, seen_as
from simulated_fleet import PARAMS_FILE, SCHEMA

PROFILE, WAYS = "default", ("naive", "censoring", "findings")
KEPT = 0.05  # of the recall may be lost with findings
FOLDER, ROWS = OUT / "operator_bias", "rows.jsonl"


@dataclass(frozen=True)
class World:
    """What all generations of a seed share: features' constants, the detector, and the fleet that judges."""

    params: parameters.Params
    spec: FeatureSpec
    constants: Constants
    anomaly: Any
    judges: Features
    grid: Grid
    settings: JudgeSettings


def training_set(world_: tuple[Any, ...], tables: Tables, X: Any) -> TrainingSet:
    """The training set of a generation's tables, with features that were computed already."""
    params, spec, constants, settings = world_
    y = np.concatenate(
        [
            np.where(in_failure_hour(window, SCHEMA), np.int8(UNKNOWN), labels(window, SCHEMA, params.horizon_us))
            for window in tables.windows()
        ],
        axis=1,
    )
    every_us = int(params.failure["negatives_every_hours"] * HOUR_US)
    grid = Grid.of(Truth(tables, SCHEMA, params.source), settings)
    thinned = tables.time % every_us < SCHEMA.period_us
    kept = teaching(y, thinned)
    with_score = np.vstack([X[:, kept], np.empty(np.count_nonzero(kept))])
    return TrainingSet(tables, spec, constants, (), with_score, kept, y, thinned, grid)


def first_world(params: parameters.Params, seed: int, machines: int, days: int, judges: int) -> tuple[World, Bundle]:
    """The world of a seed, and the model that learned from a fleet which nobody touched."""
    settings = JudgeSettings.from_params(params.raw)
    tables = seen_as(simulate(PROFILE, machines, days, 1000 * seed, SCHEMA).tables, "naive")
    spec = FeatureSpec.from_params(params.features, SCHEMA)
    fitted = fit_constants(tables, SCHEMA, int(tables.time.max()), spec.history_us)
    constants, _ = fit_levels(tables, spec, SCHEMA, fitted, come_back=False)  # the judging fleet has other machines
    common = params, spec, constants, settings
    training = training_set(common, tables, compute(tables, spec, constants, SCHEMA).X)
    anomaly, _ = anomaly_head(training, SCHEMA, params)
    untouched = simulate(PROFILE, judges, days, 1000 * seed + 999, SCHEMA).tables
    world = World(
        params, spec, constants, anomaly, compute(untouched, spec, constants, SCHEMA),
        Grid.of(Truth(untouched, SCHEMA, params.source), settings), settings,
    )  # fmt: skip
    return world, bundle_of(world, training)


def bundle_of(world: World, training: TrainingSet) -> Bundle:
    heads = failure_heads(training, SCHEMA, world.params, world.anomaly)
    about = TrainedOn({}, ("", ""), "")
    return Bundle(SCHEMA, world.spec, world.constants, world.anomaly, heads, about, {})


def judged(world: World, bundle: Bundle) -> dict[str, float]:
    """Recall and false alarms on failures that nobody prevented."""
    alarm = bundle.answer(world.judges).alarm
    outcomes = [one for c, own in enumerate(alarm) for one in of_failures(own, world.grid, c, world.settings.rules)]
    detected, false = (sum(getattr(one, name) for one in outcomes) for name in ("detected", "false_alarms"))
    years = float(world.grid.years.sum())
    return {"event_recall": detected / world.grid.failure_count, "false_alarms_per_machine_year": false / years}


def acted_on(
    world: World, bundle: Bundle, share: float, number: int, seed: int, size: tuple[int, int]
) -> tuple[Acted, Any]:
    """What one model's operator leaves of a generation, and its features."""
    made = simulate(PROFILE, *size, 1000 * seed + number, SCHEMA)
    features = compute(made.tables, world.spec, world.constants, SCHEMA)
    alarm = bundle.answer(features).alarm
    acted = act(made, PROFILE, alarm, Operator(share), np.random.default_rng([seed, number]))
    return acted, compute(acted.tables, world.spec, world.constants, SCHEMA).X


def generation(world: World, acted: Acted, X: Any, way: str) -> tuple[Bundle, dict[str, Any]]:
    """The model that learns from what an operator left, and what became of that generation."""
    tables = seen_as(acted.tables, way)
    common = world.params, world.spec, world.constants, world.settings
    following = bundle_of(world, training_set(common, tables, X))
    counts = label_counts(tables, SCHEMA, world.params.horizon_us)
    about = {"prevented": acted.prevented, "acted": len(acted.actions), "left": len(acted.tables.failures.time),
             "warned": mostly_censored(counts)}  # fmt: skip
    return following, about | judged(world, following)


def main() -> int:
    """Run all generations, print the table and write build/bench/operator_bias.json."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="one seed, one generation, smaller fleets and models")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--generations", type=int, default=10)
    flags.add_argument("--machines", type=int, default=60, help="of each generation (default: %(default)s)")
    flags.add_argument("--judges", type=int, default=400, help="machines that judge (default: %(default)s)")
    flags.add_argument("--days", type=int, default=150, help="of each generation (default: %(default)s)")
    flags.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 0.9], help="of alarms acted on")
    flags.add_argument("--show", action="store_true", help="print what a run has found so far, and run nothing")
    args = flags.parse_args()
    if args.show:
        print("\n".join(map(line, Kept.found(FOLDER).rows)))
        return 0
    params = parameters.load(PARAMS_FILE)
    if args.quick:
        args.seeds, args.generations, args.machines, args.judges, args.days, args.shares = 1, 1, 40, 60, 100, [0.9]
        params = replace(
            params, failure=params.failure | {"parameters": params.failure["parameters"] | {"max_iter": 25}}
        )
    kept = Kept.of(FOLDER, vars(args))
    for seed in range(1, args.seeds + 1):
        run_seed(seed, params, args, kept)
    return finish(
        "operator_bias", points(kept.rows, args.shares, args.generations), rows=kept.rows, arguments=vars(args)
    )


def run_seed(seed: int, params: parameters.Params, args: argparse.Namespace, kept: Kept) -> None:
    """Run every life of a seed that is not there yet."""
    lives = [(share, way) for share in args.shares for way in (WAYS if share else ("findings",))]
    if all(kept.has(seed, *life, args.generations) for life in lives):
        return
    world, first = first_world(params, seed, args.machines, args.days, args.judges)
    if not kept.has(seed, None, "", 0):
        kept.add({"seed": seed, "share": None, "way": "", "generation": 0, "failures": world.grid.failure_count}
                 | judged(world, first))  # fmt: skip
    for share, way in lives:
        life(world, first, share, way, seed, args, kept)


def life(world: World, first: Bundle, share: float, way: str, seed: int, args: argparse.Namespace, kept: Kept) -> None:
    """Run the generations of one way of labelling that are not there yet."""
    done = kept.generations(seed, share, way)
    bundle = replace(bundles.load(kept.model(seed, share, way, done)), manifest=None) if done else first
    for number in range(done + 1, args.generations + 1):
        left = acted_on(world, bundle, share, number, seed, (args.machines, args.days))
        bundle, found = generation(world, *left, way)
        kept.add({"seed": seed, "share": share, "way": way, "generation": number} | found, bundle)


def line(row: dict[str, Any]) -> str:
    """A generation in words."""
    recall, false = f"recall {row['event_recall']:.1%}", f"{row['false_alarms_per_machine_year']:.1f} false alarms"
    if row["share"] is None:
        return f"seed {row['seed']}: {row['failures']:,} failures judge; first model: {recall}, {false}"
    return (
        f"  seed {row['seed']}, {row['share']:.0%} acted on, {row['way']}, generation {row['generation']}: {recall}, "
        f"{false}, {row['prevented']} prevented, {row['left']} left{', warned' if row['warned'] else ''}"
    )


class Kept:
    """The rows of a run in a folder, as they come, and the newest model of each life."""

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]]) -> None:
        self.folder, self.rows = folder, list(rows)

    @classmethod
    def found(cls, folder: Path) -> Kept:
        """What a folder has; a line that was cut off is left out."""
        path = folder / ROWS
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return cls(folder, [json.loads(row) for row in text[: text.rfind("\n") + 1].splitlines()])

    @classmethod
    def of(cls, folder: Path, arguments: dict[str, Any]) -> Kept:
        """What a run with these arguments has found; another run's folder is emptied. More seeds go on where it was."""
        asked = json.dumps({name: of for name, of in arguments.items() if name != "seeds"}, sort_keys=True)
        about = folder / "arguments.json"
        if not about.exists() or about.read_text(encoding="utf-8") != asked:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            about.write_text(asked, encoding="utf-8")
        kept = cls.found(folder)
        (folder / ROWS).write_text("".join(f"{json.dumps(row)}\n" for row in kept.rows), encoding="utf-8")
        return kept

    def generations(self, seed: int, share: float | None, way: str) -> int:
        """How many generations of a life are there."""
        of = [row["generation"] for row in self.rows if (row["seed"], row["share"], row["way"]) == (seed, share, way)]
        return max(of, default=-1 if share is None else 0)

    def has(self, seed: int, share: float | None, way: str, generations: int) -> bool:
        return self.generations(seed, share, way) >= generations

    def model(self, seed: int, share: float, way: str, number: int) -> Path:
        """The folder of a generation's model."""
        return self.folder / f"{seed}-{share:g}-{way}-{number}"

    def add(self, row: dict[str, Any], bundle: Bundle | None = None) -> None:
        """Keep a generation: its model first, so that a row always has its own."""
        if bundle is not None:
            life = row["seed"], row["share"], row["way"]
            bundles.write(bundle, self.model(*life, row["generation"]))
        with (self.folder / ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        if bundle is not None:
            shutil.rmtree(self.model(*life, row["generation"] - 1), ignore_errors=True)
        say(line(row))


def points(rows: list[dict[str, Any]], shares: list[float], last: int) -> list[Point]:
    """The recall of the last generations: the mean over seeds and the last three, beside that without an operator."""

    def recall(share: float, way: str) -> float:
        of = [r["event_recall"] for r in rows if (r["share"], r["way"]) == (share, way) and r["generation"] > last - 3]
        return float(np.mean(of))

    if 0.0 in shares:
        untouched = recall(0.0, "findings")
    else:
        untouched = float(np.mean([row["event_recall"] for row in rows if row["generation"] == 0]))
    found = [Point("operator, recall where nobody acts", untouched, "")]
    for share in filter(None, shares):
        for way in WAYS:
            least = untouched - KEPT if way == "findings" else None
            found.append(Point(f"operator, recall at {share:.0%} acted on, {way}", recall(share, way), "", least=least))
    return found


if __name__ == "__main__":
    sys.exit(main())
