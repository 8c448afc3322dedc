"""What the benches share: the bundle, timing in turns, figures with their targets, one table and one JSON file each."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

BENCHES = Path(__file__).resolve().parent
PARAMS = BENCHES.parent / "golden" / "params.yaml"  # of the reference fleet, whatever fleet this copy has
BUNDLE = Path(os.environ.get("MODEL_DIR") or "build/bundle").absolute()  # what is measured
OUT = Path("build/bench")
_START = time.monotonic()


@dataclass(frozen=True)
class Point:
    """One figure and its target: the least or the most that it may be. Without either it is only shown."""

    what: str
    figure: float
    unit: str = "x"
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the figure is within its target."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)

    @property
    def target(self) -> str:
        """The target in words."""
        bounds = [f"{sign} {bound:,g}" for sign, bound in (("≥", self.least), ("≤", self.most)) if bound is not None]
        return " and ".join(bounds)


def say(text: str) -> None:
    """Print progress to standard error, with the seconds since the start."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Seconds:
    """The seconds that each way took in each round: by the clock, and of processor time over all threads."""

    wall: dict[str, list[float]]
    processor: dict[str, list[float]]

    def ratio(self, slow: str, fast: str) -> float:
        """The ratio of the median times by the clock: how many times as long the slow way took."""
        return statistics.median(self.wall[slow]) / statistics.median(self.wall[fast])


def by_turns(ways: dict[str, Callable[[], object]], rounds: int, least_s: float = 0.0) -> Seconds:
    """Time each way in each round. The caller has run each of them before, so that caches are warm.

    The ways take turns, so that other load on this machine slows all of them alike. A way that takes less than
    ``least_s`` is repeated for that long, and the mean of its repeats is what counts.
    """
    repeats = dict.fromkeys(ways, 1)
    for name, way in ways.items() if least_s else ():
        start = time.perf_counter()
        way()
        repeats[name] = max(1, int(least_s / max(time.perf_counter() - start, 1e-7)))
    seconds = Seconds({name: [] for name in ways}, {name: [] for name in ways})
    for turn in range(rounds):
        for name, way in ways.items():
            start, used = time.perf_counter(), time.process_time()
            for _ in range(repeats[name]):
                way()
            seconds.wall[name].append((time.perf_counter() - start) / repeats[name])
            seconds.processor[name].append((time.process_time() - used) / repeats[name])
        said = ", ".join(f"{name} {own[-1] * 1e3:,.4g}" for name, own in seconds.wall.items())
        say(f"round {turn + 1} of {rounds}, ms: {said}")
    return seconds


def table(points: list[Point]) -> str:
    """The points as a table of plain text."""
    width = max(len(point.what) for point in points)
    word = {True: "holds", False: "MISSED", None: ""}
    lines = [
        f"{point.what:{width}}  {point.figure:12,.4g} {point.unit:5} {point.target:18} {word[point.holds]}".rstrip()
        for point in points
    ]
    return "\n".join(lines)


def require_bundle() -> Path:
    """The bundle to measure: the folder ``MODEL_DIR``, else ``build/bundle``.

    Raises:
        SystemExit: there is none.
    """
    if not (BUNDLE / "manifest.json").exists():
        raise SystemExit(f"there is no bundle in {BUNDLE}; run: make run, or set MODEL_DIR to the folder of one")
    return BUNDLE


def require_simulated_bundle() -> Path:
    """The bundle to measure, which must be of the simulator's fleet: the benches that use it ask about that one.

    Raises:
        SystemExit: there is none, or it is of another fleet.
    """
    asked = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["schema"]["sensors"]
    found = json.loads((require_bundle() / "manifest.json").read_text(encoding="utf-8"))["schema"]["sensors"]
    if set(found) != set(asked):  # a manifest has its keys sorted
        raise SystemExit(
            f"the bundle in {BUNDLE} is of a fleet with the sensors {', '.join(found)}, and this bench asks about the "
            "simulated one; set MODEL_DIR to the folder of a bundle of that, from a copy without make adopt"
        )
    return BUNDLE


def finish(name: str, points: list[Point], out: Path | None = None, **details: Any) -> int:
    """Print the table and write ``build/bench/<name>.json``. Returns 1 if a target was missed, else 0."""
    path = out or OUT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [asdict(point) | {"target": point.target, "holds": point.holds} for point in points]
    holds = all(point.holds is not False for point in points)
    processors, load = os.cpu_count() or 1, os.getloadavg()[0]
    machine = {"processors": processors, "kind": platform.machine(), "load": load}
    content = {"bench": name, "holds": holds, "machine": machine, "points": shown} | details
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(table(points))
    if load > processors + 1:
        print(f"This machine is busy (load {load:.1f} on {processors} processors): times are too long, and ratios are")
        print("biased towards the shorter way. The JSON file also has processor times, which are biased less.")
    return 0 if holds else 1
