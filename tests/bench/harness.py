"""What the benches share: ways timed by turns, points with their targets, one table and one JSON for each bench."""

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

BENCHES = Path(__file__).resolve().parent
OUT = Path("build/bench")
_START = time.monotonic()


@dataclass(frozen=True)
class Point:
    """One figure, and the least or most that it may be; None where it is only shown."""

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
    """Tell the person who waits what is going on."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Seconds:
    """What each way took in each round, by the clock and of all processors together."""

    wall: dict[str, list[float]]
    processor: dict[str, list[float]]

    def ratio(self, slow: str, fast: str) -> float:
        """How many times as long the slow way took by the clock: a ratio of medians."""
        return statistics.median(self.wall[slow]) / statistics.median(self.wall[fast])


def by_turns(ways: dict[str, Callable[[], object]], rounds: int, least_s: float = 0.0) -> Seconds:
    """Time each way in each round; the caller has warmed them up, when it compared what they give.

    The ways take turns, so that whatever else this machine does meets all of them. A way that takes less than
    ``least_s`` is repeated until it has run so long, and its mean counts.
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
    """The points as a table for a person."""
    width = max(len(point.what) for point in points)
    word = {True: "holds", False: "MISSED", None: ""}
    lines = [
        f"{point.what:{width}}  {point.figure:12,.4g} {point.unit:5} {point.target:18} {word[point.holds]}".rstrip()
        for point in points
    ]
    return "\n".join(lines)


def finish(name: str, points: list[Point], out: Path | None = None, **details: Any) -> int:
    """Print the table, write ``build/bench/<name>.json``; returns 1 where a target was missed, else 0."""
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
        print(f"This machine is busy (load {load:.1f} on {processors} processors): times are long, and ratios lean")
        print("to the shorter way; the JSON has what the processors spent, which leans less.")
    return 0 if holds else 1
