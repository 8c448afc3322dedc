"""Time and memory of ``make run ENGINE=spark`` for fleets of several sizes, each for a year, on this machine.

    python tests/bench/spark_run.py [--machines 100 300] [--quick]

It needs ``make spark``, and Linux: memory is what all processes of a command hold together, Java's among them, a shared
page counted once. The driver's share is shown by itself: it decides how large a fleet may be, whatever the cluster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import PARAMS, Point, finish, say

from closedloop.data.simulate import simulate
from closedloop.data.sources import write_tables
from model.common import params

DAYS, SEED = 365, 7
MOST_S, MOST_MIB, MOST_TIMES = 240.0, 6144.0, 15.0  # of 100 machines; of ten times as many, as a ratio
SIZE = 100
EVERY_S = 0.25  # between two looks at the memory
ENGINE = ("--params", "build/params-of-engine.yaml")


@dataclass
class Step:
    """The cost of one command: seconds, and the most MiB that all its processes, and its own Python, held.

    ``processor_s`` sums over all processes what they had used when they were last seen.
    """

    command: str
    wall_s: float
    processor_s: float
    all_mib: float
    driver_mib: float


def commands(folder: Path, quick: bool) -> list[list[str]]:
    """The commands of ``make run ENGINE=spark DATA=folder``."""
    less = ["--quick"] if quick else []
    words = [
        ["engine_params", "--params", str(PARAMS), "--engine", "spark"],
        ["params_check", *ENGINE],
        ["data", "--source", str(folder), *ENGINE],
        ["validate", *ENGINE],
        ["train", *ENGINE, *less],
        ["predict"],
        ["evaluate", *ENGINE, *less],
    ]
    return [["-m", f"model.{name}", *more] for name, *more in words]


def held(process: int) -> float:
    """The MiB that one process holds, its part of shared pages; 0 where it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def used(process: int) -> float:
    """The seconds of processors that one process has used; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """A process and all that it has started."""
    found = [process]
    for one in found:
        try:
            tasks = [*Path(f"/proc/{one}/task").iterdir()]
            found += [int(word) for task in tasks for word in (task / "children").read_text(encoding="ascii").split()]
        except OSError:
            continue  # it has ended
    return found


def run(words: list[str], folder: Path) -> Step:
    """Run one command in ``folder`` and measure it.

    Raises:
        SystemExit: it failed. A red verdict is no failure.
    """
    log, name = folder / "log.txt", words[1].removeprefix("model.")
    environment = {key: value for key, value in os.environ.items() if key != "BASE_COMMIT"}
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        most, driver, processor = 0.0, 0.0, dict[int, float]()
        while child.poll() is None:
            everyone = family(child.pid)
            each = [held(one) for one in everyone]
            most, driver = max(most, sum(each)), max(driver, each[0])
            processor |= {one: max(processor.get(one, 0.0), used(one)) for one in everyone}
            time.sleep(EVERY_S)
    step = Step(name, time.perf_counter() - start, sum(processor.values()), most, driver)
    if child.returncode > (name == "evaluate"):
        raise SystemExit(f"{name} exited with {child.returncode}:\n{log.read_text(encoding='utf-8')}")
    spent = f"{step.wall_s:.1f} s, {step.processor_s:.1f} s of processors"
    say(f"{name}: {spent}, all {most:,.0f} MiB, its own Python {driver:,.0f} MiB")
    return step


def of_size(machines: int, quick: bool) -> list[Step]:
    """The cost of each command for so many machines."""
    with tempfile.TemporaryDirectory(prefix="spark-run-") as place:
        folder, schema = Path(place), params.load(PARAMS).schema
        say(f"simulating {machines} machines for {DAYS} days")
        write_tables(simulate("default", machines, DAYS, SEED, schema).tables, schema, folder / f"fleet-{machines}")
        return [run(words, folder) for words in commands(folder / f"fleet-{machines}", quick)]


def points(found: dict[int, list[Step]]) -> list[Point]:
    """The figures of each size, those of 100 machines with their targets."""
    result = []
    for machines, steps in found.items():
        bound = machines == SIZE
        result += [Point(f"{machines} machines, {one.command}: time", one.wall_s, "s") for one in steps]
        wall, most = sum(one.wall_s for one in steps), max(one.all_mib for one in steps)
        result += [
            Point(f"{machines} machines: time", wall, "s", most=MOST_S if bound else None),
            Point(f"{machines} machines: time of processors", sum(one.processor_s for one in steps), "s"),
            Point(f"{machines} machines: memory of all processes", most, "MiB", most=MOST_MIB if bound else None),
            Point(f"{machines} machines: memory of the driver's Python", max(one.driver_mib for one in steps), "MiB"),
        ]
    if SIZE in found:
        base = sum(one.wall_s for one in found[SIZE])
        for machines, steps in found.items():
            if machines > SIZE:
                ratio = sum(one.wall_s for one in steps) / base
                most = MOST_TIMES * machines / (10 * SIZE)  # 15 times as long for ten times as many
                result.append(Point(f"{machines} machines / {SIZE}: time", ratio, "x", most=most))
    return result


def main(words: list[str]) -> int:
    """Measure each size, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--machines", type=int, nargs="+", default=[SIZE, 3 * SIZE], metavar="N")
    flags.add_argument("--quick", action="store_true", help="without ablations and feature importance")
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    found = {machines: of_size(machines, args.quick) for machines in args.machines}
    details: dict[str, Any] = {str(machines): [asdict(one) for one in steps] for machines, steps in found.items()}
    return finish("spark_run", points(found), args.out, steps=details)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
