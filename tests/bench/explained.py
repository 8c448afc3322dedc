"""What explanations cost, and whether they name the true cause.

    python tests/bench/explained.py [--machines 100] [--days 250] [--seed 4242]

The cost is that of an answer with every head in alarm and every part of `include=`, beside the lean answer, in one run.
The causes are those of a simulated fleet that the bundle was not trained on. Of each failure that was foreseen, the
first row in alarm is explained: its cause is the component's sensor or one of its errors. Of each anomaly that was
found, too: its cause is its sensor.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import serve_data
from harness import Point, by_turns, finish, require_simulated_bundle, say

from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import ERRORS_OF, Simulation, simulate
from closedloop.features.kernel import Features, compute
from closedloop.heads.bundle import Bundle, Predictions, load, write
from closedloop.heads.reasons import ERROR, SENSOR, Reasons, Source
from score.answer import Scorer
from score.explain import PARTS
from score.settings import request_limits

HOURS, FIRST = 72.0, 2
DEAREST = 3.0  # times the lean answer
NAMED = 0.9


def cost(bundle: Bundle, body: bytes) -> float:
    """How many times the lean answer's processor time the full one takes, with every head in alarm."""
    loud = {name: replace(head, threshold=-1.0, plateau=None) for name, head in bundle.failures.items()}
    anomaly = bundle.anomaly and replace(bundle.anomaly, threshold=-1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        write(replace(bundle, failures=loud, anomaly=anomaly, manifest=None), path)
        scorer = Scorer(load(path), **request_limits(os.environ))

    def lean() -> bytes:
        return msgspec.json.encode(scorer.answer(body, "x"))

    def full() -> bytes:
        tables = scorer.decode(body)
        answer = scorer.answer_tables(tables, "x")
        msgspec.json.encode(answer)  # this one is logged
        told = scorer.explainer.add(scorer.shown(answer["results"]), tables, frozenset(PARTS))
        return msgspec.json.encode(answer | {"results": told})

    assert b"contributions" in full()
    lean()
    seconds = by_turns({"lean": lean, "full": full}, rounds=30, least_s=0.05).processor
    return min(seconds["full"]) / min(seconds["lean"])


def foreseen(
    fleet: Simulation, features: Features, found: Predictions, reasons: Reasons, ahead_us: int
) -> Iterator[bool]:
    """Of each failure that was foreseen, whether its cause is among the first contributions."""
    schema, failures = reasons.bundle.schema, fleet.tables.failures
    for c, component in enumerate(schema.components):
        causes: set[Source] = {(SENSOR, schema.sensors[c]), *((ERROR, schema.errors[code]) for code in ERRORS_OF[c])}
        own = failures.code == c
        for machine, time in zip(failures.machine[own].tolist(), failures.time[own].tolist(), strict=True):
            before = (found.machine == machine) & (found.time < time) & (found.time >= time - ahead_us)
            rows = np.flatnonzero(before & found.alarm[c])
            if len(rows):
                x = np.ascontiguousarray(features.X[:, rows[0]])
                split = reasons.of_failure(component, x, float(found.anomaly_score[rows[0]]), reasons.of_anomaly(x))
                if split is None:
                    raise SystemExit("this bundle knows no contributions; run: make run")
                yield bool(causes & {reasons.sources[k] for k in np.argsort(-split.parts)[:FIRST].tolist()})


def anomalous(fleet: Simulation, features: Features, found: Predictions, reasons: Reasons) -> Iterator[bool]:
    """Of each anomaly in whose time the head alarmed, whether its sensor is among the first contributions."""
    times = found.time.view("datetime64[us]")
    for event in fleet.anomalies.itertuples():
        first, last = (np.datetime64(at.tz_localize(None), "us") for at in (event.start, event.end))
        rows = np.flatnonzero(
            (found.machine == event.machineID) & (times >= first) & (times <= last) & found.anomaly_alarm
        )
        if event.kind != "stuck" and len(rows):  # a stuck sensor does not deviate
            shares = reasons.of_anomaly(np.ascontiguousarray(features.X[:, rows[0]]))
            if shares is not None:
                yield (SENSOR, event.sensor) in [reasons.sources[k] for k in np.argsort(-shares)[:FIRST].tolist()]


def main(words: list[str]) -> int:
    """Measure both, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--machines", type=int, default=100)
    flags.add_argument("--days", type=int, default=250)
    flags.add_argument("--seed", type=int, default=4242)
    args = flags.parse_args(words)
    bundle = load(require_simulated_bundle())
    ratio = cost(bundle, serve_data.bodies([1], HOURS)[1])
    say(f"simulating {args.machines} machines")
    fleet = simulate("default", args.machines, args.days, args.seed, bundle.schema)
    features = compute(fleet.tables, bundle.spec, bundle.constants, bundle.schema)
    found, reasons = bundle.answer(features), Reasons(bundle)
    failures = list(foreseen(fleet, features, found, reasons, int(24 * HOUR_US)))
    anomalies = list(anomalous(fleet, features, found, reasons))
    named = f"true cause among the first {FIRST}"
    points = [
        Point("full answer, every head in alarm ÷ lean answer", ratio, most=DEAREST),
        Point(f"failures foreseen, {named} ({len(failures):,})", float(np.mean(failures)), "", least=NAMED),
        Point(f"anomalies found, {named} ({len(anomalies):,})", float(np.mean(anomalies)), "", least=NAMED),
    ]
    return finish("explained", points, arguments=vars(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
