"""The upper limit: how good the best possible model of the simulated fleet could be, by the judge's figures.

    python tests/bench/oracle.py --out build/bench/oracle.json

The oracle knows how ``simulate.py`` makes the ``default`` profile, and each machine's model and age. At t it sees what
a model may see, telemetry, errors and maintenance up to t, but all of the past. Its failure score is the probability
that the component fails in (t, t + 24 h], given all that and that the row is judged (a row before a planned
replacement is not); its anomaly score is the probability that some sensor shows an event at t. It never sees the truth.

``oracle_sensor.py`` follows one sensor, ``oracle_machine.py`` puts four of them together.

What is not exact costs the oracle a little, so the true ceiling is no lower: offsets and the phase of the load are
estimated once, from the hours before the judged ones (0.02 deviations off); a start that falls e^8 behind is dropped;
a reading is taken for a spike when that is the likelier; events crowd each other out by a mean factor; the replaced of
two following visits are taken as independent; the record's end is not foreseen. The table of calibration shows that
little is left: a wrong filter is not calibrated.

Thresholds, one for all components, are swept on the judged machines themselves, as only an oracle may. A threshold on
probability is not proven to be the best alarm rule: ``odds`` weighs a failure in time to act against none under way,
and comes as near (so did holding alarms on, or back to the last moment). Ablations show which knowledge counts.
Intervals are 95 % bootstraps over machines.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from closedloop.data import simulate as sim
from closedloop.data.schema import HOUR_US
from closedloop.judge.episodes import FALSE, foresee, overlap
from closedloop.judge.metrics import BIN_EDGES, judge
from closedloop.judge.split import split
from closedloop.judge.truth import ANOMALY, Grid, Intervals, JudgeSettings, PredictionTable, Truth
from model.common import cli
from model.common.params import Params, load

sys.path.insert(0, str(Path(__file__).parent))  # the tests run with -P, which leaves a script's own folder out
from harness import PARAMS
from oracle_machine import ask
from oracle_sensor import ERROR_LEAD, PREDICTED_FROM, Knowledge

WARM_UP = 480  # hours before the judged ones, in which the filter forgets how it began
VARIANTS = {
    "full": Knowledge(),
    "last 72 h": Knowledge(memory_hours=72),
    "blind to ramps": Knowledge(ramp=False),
    "no errors": Knowledge(errors=False),
    "no telemetry": Knowledge(telemetry=False),
}
CAUSES = tuple(f"{kind}, {told}" for kind in ("failures", "missed", "false alarms") for told in ("announced", "silent"))
LIMITS = (0.5, 1, 1.5, 2, 3, 5)  # false alarms for each machine-year
TARGET, ANOMALY_TARGET = 1.5, 5
THRESHOLDS = 1 / (1 + np.exp(-np.arange(-6, 8, 0.125)))
RESAMPLES = 300


@dataclass(frozen=True)
class Answers:
    """The oracle's scores on the judged rows of a fleet: each (heads, rows of the grid)."""

    truth: Truth
    settings: JudgeSettings
    grid: Grid
    soon: np.ndarray
    odds: np.ndarray
    shows: np.ndarray


def answer(fleet: dict[str, Any], params: Params, knowledge: Knowledge) -> Answers:
    """Simulate a fleet and let the oracle answer for its held-out machines."""
    made = sim.simulate(**fleet, schema=params.schema)
    history_us = params.features["history_hours"] * HOUR_US
    of_fleet = (made.tables, params.source, params.split["salt"], params.split["rule"], params.horizon_us, history_us)
    halves = split(*of_fleet)
    held = made.tables.select(np.unique(made.tables.machine[halves.judged]))
    truth = Truth(held, params.schema, params.source, Intervals.of(made.anomalies), halves.cut_us)
    settings = JudgeSettings.from_params(params.raw)
    grid = Grid.of(truth, settings)
    first = int(np.searchsorted(held.time[: fleet["days"] * 24], halves.cut_us))
    found = []
    for number, window in enumerate(held.windows(), start=1):
        found.append({k: v[:, first:] for k, v in ask(window, max(first - WARM_UP, PREDICTED_FROM), knowledge).items()})
        if number % 10 == 0 or number == len(grid.ids):
            cli.say(f"{number} of {len(grid.ids)} machines")
    score = {name: np.concatenate([of_one[name] for of_one in found], axis=1) for name in found[0]}
    odds = score["late"] / (score["late"] + np.maximum(1 - score["ahead"], 1e-12))
    shows = 1 - np.prod(1 - score["shows"], axis=0, keepdims=True)
    return Answers(truth, settings, grid, score["soon"], odds, shows)


def sweep(run: Answers, score: np.ndarray) -> np.ndarray:
    """Events detected and false alarms, (2, thresholds, machines), pooled over the heads."""
    grid, rules = run.grid, run.settings.rules
    counts = np.zeros((2, len(THRESHOLDS), len(grid.ids)))
    for number, threshold in enumerate(THRESHOLDS):
        for machine, (low, high) in enumerate(itertools.pairwise(grid.offsets)):
            for head, row in enumerate(score[:, low:high] >= threshold):
                at = low + np.flatnonzero(row)
                if score is run.shows:
                    found = overlap(grid.time[at], grid.anomaly_known[at], *grid.anomalies[machine], rules)
                else:
                    found = foresee(grid.time[at], grid.known[head][at], grid.failures[machine][head], rules)
                counts[:, number, machine] += found.detected, found.false_alarms
    return counts


def curve(counts: np.ndarray, events: np.ndarray, years: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """The best recall of events within each limit of false alarms, and its threshold."""
    chosen = np.vstack([np.ones(len(years)), rng.multinomial(len(years), np.ones(len(years)) / len(years), RESAMPLES)])
    recall = chosen @ counts[0].T / np.maximum(chosen @ events, 1)[:, None]
    rate = chosen @ counts[1].T / (chosen @ years)[:, None]
    result = {}
    for limit in LIMITS:
        best = np.where(rate <= limit, recall, 0.0)
        low, high = np.quantile(best[1:].max(axis=1), (0.025, 0.975))
        at = int(best[0].argmax())
        result[str(limit)] = {
            "event_recall": float(best[0, at]), "low": float(low), "high": float(high),
            "threshold": float(THRESHOLDS[at]),
        }  # fmt: skip
    return result


def precision(truth: list[np.ndarray], score: list[np.ndarray], rng: np.random.Generator) -> dict[str, float | None]:
    """PR-AUC over the rows of all machines, which come one array each; None where nothing happened."""
    if not any(rows.any() for rows in truth):
        return {"pr_auc": None, "low": None, "high": None}
    owner = np.repeat(np.arange(len(truth)), [len(rows) for rows in truth])
    y, p = np.concatenate(truth), np.concatenate(score)
    order = np.argsort(-p, kind="stable")
    sampled = []
    for times in rng.multinomial(len(truth), np.ones(len(truth)) / len(truth), RESAMPLES):
        rows = times[owner[order]]
        hits, alarms = np.cumsum(rows * y[order]), np.cumsum(rows)
        if hits[-1]:
            sampled.append(float(np.sum(rows * y[order] * hits / np.maximum(alarms, 1)) / hits[-1]))
    low, high = np.quantile(sampled, (0.025, 0.975))
    return {"pr_auc": float(average_precision_score(y, p)), "low": float(low), "high": float(high)}


def calibration(truth: np.ndarray, score: np.ndarray) -> list[dict[str, float]]:
    """Positive rows foretold and seen, in each bin of probability."""
    cell = np.digitize(score, BIN_EDGES)
    rows, predicted, observed = (
        np.bincount(cell, weight, len(BIN_EDGES) + 1) for weight in (np.ones(len(score)), score, truth)
    )
    return [
        {"from": low, "rows": int(n), "predicted": float(p), "observed": int(o)}
        for low, n, p, o in zip([0.0, *BIN_EDGES.tolist()], rows, predicted, observed, strict=True)
    ]


def figures(runs: list[Answers]) -> dict[str, Any]:
    """All figures of some fleets together, as if they were one."""
    rng = np.random.default_rng(0)
    years = np.concatenate([run.grid.years for run in runs])
    failures = np.array([sum(map(len, of_one)) for run in runs for of_one in run.grid.failures])
    anomalies = np.array([len(start) for run in runs for start, _ in run.grid.anomalies])
    rows = [(run, slice(low, high)) for run in runs for low, high in itertools.pairwise(run.grid.offsets)]
    heads = range(len(sim.COMPONENTS))

    def label(of: tuple[int, ...]) -> list[np.ndarray]:
        return [np.concatenate([run.grid.label[c, at][run.grid.known[c, at]] == 1 for c in of]) for run, at in rows]

    def soon(of: tuple[int, ...]) -> list[np.ndarray]:
        return [np.concatenate([run.soon[c, at][run.grid.known[c, at]] for c in of]) for run, at in rows]

    every = tuple(heads)
    anomalous, shows = [run.grid.anomalous[at] for run, at in rows], [run.shows[0, at] for run, at in rows]
    return {
        "holdout": {
            "machines": len(years), "machine_years": float(years.sum()),
            "failures": int(failures.sum()), "anomalies": int(anomalies.sum()),
        },
        "failure": precision(label(every), soon(every), rng)
        | {
            "at": curve(np.concatenate([sweep(run, run.soon) for run in runs], axis=2), failures, years, rng),
            "at_by_odds": curve(np.concatenate([sweep(run, run.odds) for run in runs], axis=2), failures, years, rng),
            "by_component": {
                name: precision(label((c,)), soon((c,)), rng) for c, name in enumerate(sim.COMPONENTS)
            },
            "calibration": calibration(np.concatenate(label(every)), np.concatenate(soon(every))),
        },
        "anomaly": precision(anomalous, shows, rng)
        | {
            "at": curve(np.concatenate([sweep(run, run.shows) for run in runs], axis=2), anomalies, years, rng),
            "calibration": calibration(np.concatenate(anomalous), np.concatenate(shows)),
        },
    }  # fmt: skip


def judged(run: Answers, found: dict[str, Any]) -> dict[str, Any]:
    """``metrics.json`` of the oracle at the thresholds that keep to the targets' false alarms."""
    grid, names = run.grid, sim.COMPONENTS
    limit = found["failure"]["at"][str(TARGET)]["threshold"]
    heads = {name: (run.soon[c], run.soon[c] >= limit) for c, name in enumerate(names)}
    heads[ANOMALY] = (run.shows[0], run.shows[0] >= found["anomaly"]["at"][str(ANOMALY_TARGET)]["threshold"])
    table = PredictionTable.of(np.repeat(grid.ids, np.diff(grid.offsets)), grid.time, heads)
    return judge(table, run.truth, run.settings)


def causes(run: Answers, threshold: float) -> dict[str, int]:
    """Where the oracle errs: what it misses and what rings in vain, by whether an error spoke in the 72 h before."""
    grid, result = run.grid, dict.fromkeys(CAUSES, 0)
    for machine, window in enumerate(run.truth.tables.windows()):
        at = slice(grid.offsets[machine], grid.offsets[machine + 1])
        for c, codes in enumerate(sim.ERRORS_OF):
            alarm = np.flatnonzero(run.soon[c, at] >= threshold) + at.start
            found = foresee(grid.time[alarm], grid.known[c][alarm], grid.failures[machine][c], run.settings.rules)
            errors = window.errors.time[np.isin(window.errors.code, codes)]
            missed = grid.failures[machine][c][np.isnan(found.lead_hours)]
            for kind, start, stop in (
                ("failures", grid.failures[machine][c], grid.failures[machine][c]),
                ("missed", missed, missed),
                ("false alarms", found.start[found.kind == FALSE], found.stop[found.kind == FALSE]),
            ):
                near = (errors >= start[:, None] - ERROR_LEAD[1] * HOUR_US) & (errors <= stop[:, None])
                result[f"{kind}, announced"] += int(near.any(axis=1).sum())
                result[f"{kind}, silent"] += int((~near.any(axis=1)).sum())
    return result


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def line(name: str, found: dict[str, Any], at: str = "at") -> str:
    """One row of the table."""
    cells = "".join(f"{found[at][str(limit)]['event_recall']:7.3f}" for limit in LIMITS)
    return f"{name:26}{number(found['pr_auc']):>7} [{number(found['low'], 2)}, {number(found['high'], 2)}]{cells}"


def show(named: dict[str, Any], pooled: dict[str, Any]) -> None:
    """Print the tables."""
    limits = "".join(f"{limit:7g}" for limit in LIMITS)
    for part in ("failure", "anomaly"):
        print(f"\n{part:27}PR-AUC             recall of events at so many false alarms a machine-year\n{'':46}{limits}")
        for name, found in named.items():
            print(line(name, found[part]))
            if part == "failure":
                print(line("  alarms by odds", found[part], "at_by_odds"))
    every = pooled["failure"]["by_component"].items()
    print("\nPR-AUC, all seeds: " + ", ".join(f"{name} {number(found['pr_auc'], 2)}" for name, found in every))
    print(f"all seeds at {TARGET} false alarms: " + ", ".join(f"{n} {name}" for name, n in pooled["causes"].items()))
    for part in ("failure", "anomaly"):
        print(f"\n{part}, all seeds: probability from, rows, positives foretold, seen")
        for cell in pooled[part]["calibration"]:
            print(f"{cell['from']:10.3f}{cell['rows']:10,}{cell['predicted']:10.1f}{cell['observed']:8}")


def main() -> None:
    """Ask, print the tables, write the JSON."""
    pin = cli.read_json(PARAMS.with_name("data.lock.json"), "restore it from git")["parts"][0]
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path, default=Path("build/bench/oracle.json"))
    flags.add_argument("--machines", type=int, default=pin["machines"])
    flags.add_argument("--days", type=int, default=pin["days"])
    flags.add_argument("--seeds", type=int, nargs="+", default=[pin["seed"], pin["seed"] + 1, pin["seed"] + 2])
    flags.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="on the first seed")
    args = flags.parse_args()
    params = load(PARAMS)
    fleet = {"profile": "default", "machines": args.machines, "days": args.days}
    runs: list[Answers] = []
    result: dict[str, Any] = {"fleet": fleet | {"seeds": args.seeds}, "seeds": {}, "knowledge": {}}
    for seed in args.seeds:
        cli.say(f"seed {seed}")
        runs.append(answer(fleet | {"seed": seed}, params, VARIANTS["full"]))
        found = result["seeds"][str(seed)] = figures(runs[-1:])
        found["metrics"] = judged(runs[-1], found)
    pooled = result["pooled"] = figures(runs)
    threshold = pooled["failure"]["at"][str(TARGET)]["threshold"]
    of_runs = [causes(run, threshold) for run in runs]
    pooled["causes"] = {name: sum(of_one[name] for of_one in of_runs) for name in of_runs[0]}
    for name in args.variants:
        if VARIANTS[name] == VARIANTS["full"]:
            continue
        cli.say(f"seed {args.seeds[0]}, {name}")
        result["knowledge"][name] = figures([answer(fleet | {"seed": args.seeds[0]}, params, VARIANTS[name])])
    cli.write_json(args.out, result)

    named = {f"seed {seed}": found for seed, found in result["seeds"].items()} | {"all seeds": pooled}
    show(named | {f"seed {args.seeds[0]}, {name}": found for name, found in result["knowledge"].items()}, pooled)


if __name__ == "__main__":
    main()
