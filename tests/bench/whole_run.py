"""Time and peak memory of each command of ``make run``, in a fresh folder, twice.

    python tests/bench/whole_run.py

The first run starts without compiled code, neither Numba's nor Python's. The second run uses what the first has cached
and must compile nothing; its figures are held to the targets. Peak memory is that of the largest process.
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

from harness import BENCHES, Point, finish, say

ROOT = BENCHES.parents[1]
MOST_S, MOST_MIB = 90.0, 2048.0


@dataclass(frozen=True)
class Step:
    """The cost of one command. ``compiled`` is the number of functions that it had to compile."""

    command: str
    wall_s: float
    processor_s: float
    peak_mib: float
    compiled: int


def commands() -> list[list[str]]:
    """The commands that ``make run`` runs, as lists of words."""
    makeless = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "--no-print-directory", "run", "PROFILE=", "DATA="]
    said = subprocess.run(command, cwd=ROOT, env=makeless, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in said.splitlines()]
    return [[sys.executable, *words[1:]] for words in lines if words[1:2] == ["-m"] and words[2].startswith("model.")]


def run(command: list[str], folder: Path, cache: Path) -> Step:
    """Run one command in ``folder`` and measure it.

    Raises:
        SystemExit: it failed.
    """
    before = len(list(cache.rglob("*.nbc")))
    caches = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPYCACHEPREFIX": str(cache / "python"), "NUMBA_CPU_NAME": "generic"}
    environment = {
        name: value for name, value in os.environ.items() if name not in {"BASE_COMMIT", "PYTHONDONTWRITEBYTECODE"}
    } | caches
    name, log = command[2].removeprefix("model."), folder / "log.txt"
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)  # of the child and all that it waited for
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode:
        raise SystemExit(f"{name} exited with {child.returncode}:\n{log.read_text(encoding='utf-8')}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    compiled = len(list(cache.rglob("*.nbc"))) - before
    step = Step(name, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, compiled)
    say(f"{name}: {wall:.1f} s, {step.processor_s:.1f} s of processors, {step.peak_mib:,.0f} MiB, {compiled} compiled")
    return step


def points(first: list[Step], second: list[Step]) -> list[Point]:
    """The figures of each command of the second run, of the whole run, and of compiling in the first run."""
    found = []
    for step in second:
        found += [
            Point(f"{step.command}: time", step.wall_s, "s"),
            Point(f"{step.command}: peak memory", step.peak_mib, "MiB"),
        ]
    whole = sum(step.wall_s for step in second)
    return [
        *found,
        Point("whole run: time", whole, "s", most=MOST_S),
        Point("whole run: time on all processors", sum(step.processor_s for step in second), "s"),
        Point("whole run: peak memory", max(step.peak_mib for step in second), "MiB", most=MOST_MIB),
        Point("first run, which compiles: time", sum(step.wall_s for step in first), "s"),
        Point("first run: functions compiled", sum(step.compiled for step in first), "", least=1),
        Point("second run: functions compiled", sum(step.compiled for step in second), "", most=0),
    ]


def main(words: list[str]) -> int:
    """Run everything twice, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--only", nargs="+", metavar="COMMAND", help="run only these, as a trial")
    args = flags.parse_args(words)
    chosen = [words for words in commands() if not args.only or words[2].removeprefix("model.") in args.only]
    with tempfile.TemporaryDirectory(prefix="whole-run-") as temporary:
        cache, runs = Path(temporary) / "cache", []
        cache.mkdir()
        for name in ("first", "second"):
            folder = Path(temporary) / name
            folder.mkdir()
            say(f"the {name} run, in a fresh folder")
            runs.append([run(command, folder, cache) for command in chosen])
    steps = {name: [asdict(step) for step in steps] for name, steps in zip(("first", "second"), runs, strict=True)}
    return finish("whole_run", points(*runs), args.out, steps=steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
