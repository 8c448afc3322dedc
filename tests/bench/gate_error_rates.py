"""How often the gate errs on simulated fleets: false `better`, false `worse`, and its power.

    python tests/bench/gate_error_rates.py

Each comparison simulates what two models did on the held-out machines in a third of a year, and asks ``compare`` for
its verdict with the settings of ``golden/params.yaml``. A machine's failures are Poisson around its own rate (gamma,
7.6 a year on average). Each model foresees a failure with its own recall; ``alike`` is the share of failures for which
both models have the same luck. False alarms are Poisson around a machine's own rate, and both models share a part of
them. ``patchy`` models are good on some machines and bad on others, each on its own. Floors are not simulated: they are
fixed limits, and a champion whose figure lies exactly on one meets it in half of the cases.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import PARAMS, Point, finish

from closedloop.judge.compare import compare
from closedloop.judge.metrics import BIN_EDGES, Assessment
from closedloop.judge.truth import JudgeSettings

YEARS = 1 / 3
FAILURES_PER_YEAR, ANOMALIES_PER_YEAR = 7.6, 19.0
ROWS = int(4 * 8760 * YEARS)
MODELS = ("model1", "model2", "model3", "model4")
SHARES = (0.16, 0.17, 0.35, 0.32)


@dataclass(frozen=True)
class Quality:
    """The true quality of a model. Rates are for each machine-year."""

    recall: float = 0.9
    false_alarms: float = 1.5  # of the failure heads
    anomaly_recall: float = 0.9
    anomaly_false_alarms: float = 4.0
    sureness: float = 0.75  # probability in the rows before a failure that it foresees


@dataclass(frozen=True)
class Scenario:
    """Two models on one kind of fleet. ``truth`` is the right verdict: tie, better or worse."""

    name: str
    truth: str
    champion: Quality
    challenger: Quality
    machines: int = 20
    alike: float = 0.7
    patchy: bool = False


def _both(rng: np.random.Generator, count: int, alike: float, *chances: np.ndarray) -> list[np.ndarray]:
    """Whether each model sees each event. With probability ``alike`` both draw the same random number."""
    common = rng.random(count)
    same = rng.random(count) < alike
    return [np.where(same, common, rng.random(count)) < chance for chance in chances]


# long: one draw of random numbers, in an order that the results depend on
def simulate(scenario: Scenario, costs: dict[str, float], rng: np.random.Generator) -> list[Assessment]:
    """The assessments of champion and challenger on one simulated holdout."""
    n = scenario.machines
    model = rng.choice(len(MODELS), n, p=SHARES).astype(np.int16)
    sides = (scenario.champion, scenario.challenger)
    failures = rng.poisson(rng.gamma(4, FAILURES_PER_YEAR / 4, n) * YEARS)
    anomalies = rng.poisson(rng.gamma(8, ANOMALIES_PER_YEAR / 8, n) * YEARS)
    restless = rng.gamma(1.5, 1 / 1.5, n) * YEARS
    machine_of = {"failure": np.repeat(np.arange(n), failures), "anomaly": np.repeat(np.arange(n), anomalies)}

    def chances(kind: str, recalls: tuple[float, float]) -> list[np.ndarray]:
        own = [rng.beta(2 * recall, 2 - 2 * recall, n) if scenario.patchy else np.full(n, recall) for recall in recalls]
        return [chance[machine_of[kind]] for chance in own]

    foreseen = chances("failure", (sides[0].recall, sides[1].recall))
    seen = _both(rng, failures.sum(), scenario.alike, *foreseen)
    felt = chances("anomaly", (sides[0].anomaly_recall, sides[1].anomaly_recall))
    noticed = _both(rng, anomalies.sum(), scenario.alike, *felt)
    shared = [rng.poisson(restless * rate * scenario.alike) for rate in _least(sides)]
    result = []
    for side, hit, notice in zip(sides, seen, noticed, strict=True):
        own = [
            common + rng.poisson(np.maximum(restless * rate - restless * least * scenario.alike, 0))
            for common, rate, least in zip(
                shared, (side.false_alarms, side.anomaly_false_alarms), _least(sides), strict=True
            )
        ]
        detected = np.bincount(machine_of["failure"][hit], minlength=n)
        missed_anomalies = np.bincount(machine_of["anomaly"][~notice], minlength=n)
        cost = (
            detected * costs["planned"]
            + (failures - detected) * costs["unplanned"]
            + missed_anomalies * costs["missed_anomaly"]
            + (own[0] + own[1]) * costs["false_alarm"]
        )
        probability = np.clip(np.where(hit, side.sureness, 0.01) * rng.lognormal(0, 0.3, len(hit)), 1e-4, 0.999)
        alarmed = np.repeat(np.arange(n), own[0])
        wrong = np.clip(0.6 * rng.lognormal(0, 0.3, len(alarmed)), 1e-4, 0.999)
        quiet = 0.001 * rng.lognormal(0, 0.2, n)
        squared = ROWS * quiet**2
        predicted, observed = (np.zeros((n, len(BIN_EDGES) + 1)) for _ in range(2))
        predicted[:, 0] += ROWS * quiet * 0.5
        for owner, p, y, hours in ((machine_of["failure"], probability, 1, 24), (alarmed, wrong, 0, 6)):
            np.add.at(squared, owner, hours * (p - y) ** 2)
            np.add.at(predicted, (owner, np.digitize(p, BIN_EDGES)), hours * p)
            np.add.at(observed, (owner, np.digitize(p, BIN_EDGES)), hours * y)
        rows, years = np.full(n, float(ROWS)), np.full(n, YEARS)
        alarms = (own[0] + own[1]).astype(float)
        result.append(
            Assessment({}, np.arange(n), model, years, cost.astype(float), alarms, squared, rows, predicted, observed)
        )
    return result


def _least(sides: tuple[Quality, Quality]) -> tuple[float, float]:
    """The smaller rate of false alarms of each head: what both models can share."""
    return min(side.false_alarms for side in sides), min(side.anomaly_false_alarms for side in sides)


def cost_per_year(quality: Quality, costs: dict[str, float]) -> float:
    """Expected cost for each machine-year."""
    repairs = quality.recall * costs["planned"] + (1 - quality.recall) * costs["unplanned"]
    alarms = quality.false_alarms + quality.anomaly_false_alarms
    missed = ANOMALIES_PER_YEAR * (1 - quality.anomaly_recall) * costs["missed_anomaly"]
    return FAILURES_PER_YEAR * repairs + missed + alarms * costs["false_alarm"]


def scenarios(costs: dict[str, float]) -> list[Scenario]:
    """Ties of several kinds, and true differences of 10, 20 and 40 % of the cost."""
    good, fair = Quality(), Quality(recall=0.6)
    # The same cost in other ways: fewer false alarms and fewer detections, or more of both.
    price = (costs["unplanned"] - costs["planned"]) * FAILURES_PER_YEAR
    quieter = Quality(recall=0.9 - 3.0 * costs["false_alarm"] / price, false_alarms=0.5, anomaly_false_alarms=2.0)
    sharper = Quality(recall=0.9 + 0.5 * costs["false_alarm"] / price, anomaly_false_alarms=4.5)
    result = [
        Scenario("tie: another seed", "tie", good, good, alike=0.9),
        Scenario("tie: another kind of model", "tie", good, good, alike=0.0),
        Scenario("tie: fair models", "tie", fair, fair),
        Scenario("tie: good on other machines", "tie", good, good, patchy=True),
        Scenario("tie: fair on other machines", "tie", fair, fair, patchy=True),
        Scenario("tie: quieter, foresees less", "tie", good, quieter),
        Scenario("tie: louder within its limit, foresees more", "tie", good, sharper),
        *(Scenario(f"tie: {n} machines", "tie", good, good, machines=n) for n in (5, 10, 50)),
    ]
    for share in (0.1, 0.2, 0.4):
        saved = share * cost_per_year(fair, costs) / price
        result.append(Scenario(f"better by {share:.0%}", "better", fair, Quality(recall=0.6 + saved)))
    for share in (0.1, 0.2, 0.4):
        lost = share * cost_per_year(good, costs) / price
        result.append(Scenario(f"worse by {share:.0%}", "worse", good, Quality(recall=0.9 - lost)))
    loud = Quality(false_alarms=3.0, anomaly_false_alarms=8.0)
    result.append(Scenario("false alarms halved", "better", loud, good))
    result.append(Scenario("false alarms doubled", "worse", good, loud))
    return result


def rates(work: tuple[int, Scenario], settings: JudgeSettings, comparisons: int, seed: int) -> dict[str, Any]:
    """The share of each verdict among the comparisons of one scenario."""
    number, scenario = work
    rng = np.random.default_rng([seed, number])
    found = [compare(*simulate(scenario, settings.costs, rng), settings, MODELS) for _ in range(comparisons)]
    red = np.array([one.worse or any(rail["holds"] is False for rail in one.guardrails) for one in found])
    better = np.array([one.better for one in found]) & ~red
    broken = [rail["name"].split(":")[0] for one in found for rail in one.guardrails if rail["holds"] is False]
    return {
        "scenario": scenario.name,
        "truth": scenario.truth,
        "machines": scenario.machines,
        "delta": cost_per_year(scenario.champion, settings.costs) - cost_per_year(scenario.challenger, settings.costs),
        "better": float(better.mean()),
        "worse": float(red.mean()),
        "by_cause": {"cost": float(np.mean([one.worse for one in found]))}
        | {name: broken.count(name) / len(found) for name in sorted(set(broken))},
    }


def points(rows: list[dict[str, Any]], promised: float) -> Iterator[Point]:
    """The highest error rates among the ties, and how often each true difference is found."""
    ties = [row for row in rows if row["truth"] == "tie"]
    yield Point("ties: false better, the worst", max(row["better"] for row in ties) * 100, "%", most=promised * 100)
    yield Point("ties: false worse, the worst", max(row["worse"] for row in ties) * 100, "%", most=promised * 100)
    for row in rows:
        if row["truth"] != "tie":
            yield Point(f"{row['scenario']}: found", row[row["truth"]] * 100, "%")


def main(words: list[str]) -> int:
    """Simulate, print both tables and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--comparisons", type=int, default=1000)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--processes", type=int, default=os.cpu_count())
    args = flags.parse_args(words)
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    settings = JudgeSettings.from_params(params)
    alpha = settings.gate["error_rate"]
    error = 2 * (alpha * (1 - alpha) / args.comparisons) ** 0.5
    rows = []
    print(f"{'scenario':46}{'machines':>9}{'true Δ':>9}{'better':>9}{'worse':>9}{'undecided':>10}")
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        one = partial(rates, settings=settings, comparisons=args.comparisons, seed=args.seed)
        share_out = map if args.processes == 1 else pool.map
        for row in share_out(one, enumerate(scenarios(settings.costs))):
            rows.append(row)
            print(
                f"{row['scenario']:46}{row['machines']:9}{row['delta']:9,.0f}{row['better']:9.1%}{row['worse']:9.1%}"
                f"{1 - row['better'] - row['worse']:10.1%}",
                flush=True,
            )
    print(f"\n{args.comparisons} comparisons each; a tie may err in {alpha:.0%} + {error:.1%} (two standard errors)")
    found = list(points(rows, alpha + error))
    return finish("gate_error_rates", found, args.out, comparisons=args.comparisons, scenarios=rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
