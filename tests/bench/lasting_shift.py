"""Whether the anomaly head finds a lasting shift, and keeps it, on fleets whose machines differ in level.

    python tests/bench/lasting_shift.py

One sensor of one machine that was trained on moves by five deviations of its noise and stays there for five days. The
head must alarm within six hours and in every later hour of the shift. Machines are 0, 5 and 20 deviations apart. The
99th percentile of the score of quiet hours after training, over the threshold, says what the rest of the fleet does.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import PARAMS, Point, finish, say

from closedloop.data.schema import HOUR_US, Events, Float64, Schema, Tables
from closedloop.features.kernel import compute
from model.common import params
from model.common.training import anomaly_head, prepare

MACHINES, APART = (1, 2, 3, 10, 100), (0.0, 5.0, 20.0)
TRAINED, QUIET, SHIFTED = 60 * 24, 10 * 24, 120  # hours
SHIFT = 5.0  # deviations
WITHIN = 6  # hours


@dataclass(frozen=True)
class Found:
    """What became of a shift: hours to the first alarm, share of later hours in alarm, quiet score / threshold."""

    hours: float
    kept: float
    quiet: float


def fleet(schema: Schema, machines: int, apart: float, seed: int, shift: float = SHIFT) -> Tables:
    """Tables of noise with a level for each machine; at their end the first sensor of the first machine has moved."""
    rng = np.random.default_rng(seed)
    hours, sensors = TRAINED + QUIET + SHIFTED, len(schema.sensors)
    level = 100.0 + apart * rng.standard_normal((sensors, machines, 1))
    values = level + rng.standard_normal((sensors, machines, hours))
    values[0, 0, -SHIFTED:] += shift
    ids = np.arange(1, machines + 1)
    described = (ids, np.zeros(machines, np.int16), np.ones(machines))
    time = np.tile(np.arange(hours) * HOUR_US, machines)
    shape = values.reshape(sensors, -1)
    return Tables.of(np.repeat(ids, hours), time, shape, Events.empty(), Events.empty(), None, described)


def score(machines: int, apart: float, seed: int) -> tuple[Float64, float]:
    """The score of each machine's hours after training (machines, hours), and the threshold."""
    asked = params.load(PARAMS)
    schema = replace(asked.schema, ranges=((-1e6, 1e6),) * len(asked.schema.sensors))
    tables = fleet(schema, machines, apart, seed)
    training = prepare(tables.rows(tables.time < TRAINED * HOUR_US), schema, asked, asked.source)
    head, _ = anomaly_head(training, schema, asked)
    X = compute(tables, training.spec, training.constants, schema).X
    return head.score(X).reshape(machines, -1)[:, TRAINED:], head.threshold


def found(machines: int, apart: float, seed: int = 0) -> Found:
    """What becomes of the shift in one fleet."""
    scores, threshold = score(machines, apart, seed)
    alarm = scores[0, -SHIFTED:] >= threshold
    first = float(np.argmax(alarm)) if alarm.any() else float("inf")
    quiet = float(np.quantile(scores[:, :QUIET], 0.99))
    return Found(first, float(alarm[WITHIN:].mean()), quiet / threshold)


def points(machines: int, apart: float, of: Found) -> list[Point]:
    """The figures of one fleet with their targets."""
    name = f"{machines} machines {apart:g} deviations apart"
    return [
        Point(f"{name}: hours until it is found", min(of.hours, float(SHIFTED)), "h", most=WITHIN),
        Point(f"{name}: share of its later hours in alarm", of.kept, "", least=1.0),
        Point(f"{name}: 99 % of quiet scores / threshold", of.quiet, "", most=1.0),
    ]


def main(words: list[str]) -> int:
    """Try each fleet, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--machines", type=int, nargs="+", default=MACHINES)
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    every = []
    for machines in args.machines:
        for apart in APART:
            say(f"{machines} machines, {apart:g} deviations apart")
            every += points(machines, apart, found(machines, apart))
    return finish("lasting_shift", every, args.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
