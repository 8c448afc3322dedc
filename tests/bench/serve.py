"""Our service, its alternatives and a bare echo, measured in turns on one core: ``make bench-serve``.

    python tests/bench/serve.py [--quick] [--connections 64] [--machines 1 32] [--peers fastapi mlserver]

Every server answers the same requests with one worker on one core. The load comes from another core if there is one.
Column A is the peer as a user writes it (``peers/window.py``), column B the peer with our own predict inside and
without a log. Our service logs durably. The answers are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serve_data
import serve_load
import serve_ways
from harness import BUNDLE, OUT, Point, finish, require_simulated_bundle, say
from serve_load import Load
from serve_ways import NAMES, PEERS, SITE, WORK, Way

from closedloop.log.segment import SEALED

CONNECTIONS, MACHINES = (1, 8, 64), (1, 32, 1000)
JUDGED = (64, 1)  # the cell of most targets: connections, machines
OURS, ECHO, OFF, SHIPPING = "ours", "echo", "ours, log off", "ours, shipping"
TIMES_BEST_PEER, TIMES_MLFLOW, TIMES_KERNEL, SHARE_OF_ECHO, LOG_ADDS_MS = 50.0, 150.0, 1.0, 0.25, 10.0
Cell = tuple[int, int]


@dataclass
class Figures:
    """The figures of one server in one cell: answers a second in each round, and latencies at half of their median.

    ``processor_ms`` is the processor time of an answer in each round, which other load on this machine hardly changes.
    """

    rates: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    asked: float = 0.0
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    answers: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        """Answers a second: the median of the rounds."""
        return statistics.median(self.rates) if self.rates else 0.0


Found = dict[Cell, dict[str, Figures]]


class Run:
    """The servers and the figures found so far."""

    def __init__(self, ways: dict[str, Way], bodies: dict[int, bytes], server: set[int] | None) -> None:
        self.ways, self.bodies, self.server = ways, bodies, server
        self.found: Found = {}

    def _asked(self, name: str, cell: Cell, ask: Callable[[Way, bytes], Load]) -> tuple[Figures, Load]:
        """Put one load on one server. A server that ended, or still has work, is started again afterwards."""
        way, figures = self.ways[name], self.found.setdefault(cell, {}).setdefault(name, Figures())
        try:
            load = ask(way, way.request(self.bodies[cell[1]]))
        except OSError as error:
            say(f"{name} failed with {cell[0]} connections of {cell[1]} machines: {error}; {way.last_words()}")
            load = Load(unanswered=1)
        figures.failed += sum(count for status, count in load.statuses.items() if status != 200) + load.unanswered
        if load.unanswered:
            way.stop()
            way.start(self.server)
            if way.wait(way.request(self.bodies[min(self.bodies)])) is None:
                say(f"{name} does not start again: {way.last_words()}")
        if name.startswith(OURS) and name != SHIPPING:  # as a shipper would; a day of this load would fill any disk
            for path in Path(way.environ["LOG_DIR"]).glob("*" + SEALED):
                path.unlink()
        return figures, load

    def flat_out(self, cell: Cell, rounds: int, seconds: float, names: list[str]) -> None:
        """Measure the peak of each server, in turns; each round begins with another server."""
        for turn in range(rounds):
            first = turn * len(names) // max(rounds, 1)
            for name in names[first:] + names[:first]:
                before = self.ways[name].processor_s()
                figures, load = self._asked(
                    name, cell, lambda way, sent: serve_load.flat_out(way.port, sent, cell[0], seconds)
                )
                if load.seconds:
                    figures.rates.append(load.per_second)
                    spent = self.ways[name].processor_s() - before
                    figures.processor_ms.append(1e3 * max(spent, 0.0) / len(load.seconds))
        rates = sorted(((self.found[cell][name].rate, name) for name in names), reverse=True)
        say(f"{cell[0]} connections, {cell[1]} machines, answers/s: " + ", ".join(f"{n} {r:,.4g}" for r, n in rates))

    def at_half(self, cell: Cell, rounds: int, seconds: float, names: list[str], rate: float | None = None) -> None:
        """Measure the latencies of each server at half of its own peak, or at a given rate, in turns."""
        for turn in range(rounds):
            for name in names:
                asked = rate or self.found[cell][name].rate / 2
                if not asked:
                    continue

                def ask(way: Way, sent: bytes, asked: float = asked, turn: int = turn) -> Load:
                    return serve_load.at_rate(way.port, sent, cell[0], asked, seconds, seed=turn)

                figures, load = self._asked(name, cell, ask)
                figures.asked = asked
                figures.answers += len(load.seconds)
                if load.seconds:
                    figures.p50_ms.append(load.quantile_ms(0.5))
                    figures.p99_ms.append(load.quantile_ms(0.99))


def points(found: Found, log: Found) -> list[Point]:
    """The figures with their targets, as ratios of one run. ``log`` has our service: log durable, off and shipped."""
    judged, made = found[JUDGED], []
    ours = judged[OURS].rate
    where = f"{JUDGED[0]} connections, {JUDGED[1]} machine"
    users = {name: figures.rate for name, figures in judged.items() if name.endswith(" A") and figures.rate}
    if users:
        best = max(users, key=lambda name: users[name])
        made.append(
            Point(f"{where}: ours / best as users write it ({best})", ours / users[best], least=TIMES_BEST_PEER)
        )
    if "mlflow A" in users:
        made.append(Point(f"{where}: ours / mlflow models serve", ours / users["mlflow A"], least=TIMES_MLFLOW))
    for own, least in ((OURS, TIMES_KERNEL), (OFF, None)):
        kernels = {
            (ways[own].rate / figures.rate, cell, name)
            for cell, ways in found.items()
            for name, figures in ways.items()
            if name.endswith(" B") and figures.rate
        }
        if kernels:
            times, cell, name = min(kernels)
            what = f"every cell, least: {own} / {name} ({cell[0]} connections, machines {cell[1]})"
            made.append(Point(what, times, least=least))
    made.append(Point(f"{where}: ours / bare echo", ours / judged[ECHO].rate, least=SHARE_OF_ECHO))
    failed = sum(ways[OURS].failed for ways in [*found.values(), *log.values()])
    made.append(Point("requests that ours failed, all cells", failed, unit="", most=0))
    logged = log[JUDGED]
    if logged[OURS].p99_ms and logged[OFF].p99_ms:
        added = statistics.median(a - b for a, b in zip(logged[OURS].p99_ms, logged[OFF].p99_ms, strict=True))
        made.append(Point(f"{where}, half of peak: p99 added by the durable log", added, "ms", most=LOG_ADDS_MS))
    if SHIPPING in logged and logged[SHIPPING].rates:
        made.append(Point(f"{where}: ours shipping / ours", logged[SHIPPING].rate / logged[OURS].rate))
        made.append(
            Point(f"{where}, half of peak: p99 while shipping", statistics.median(logged[SHIPPING].p99_ms), "ms")
        )
    made.append(Point("machines reporting hourly on one core, one a request", ours * 3600, ""))
    for cell, ways in found.items():
        if cell[0] == JUDGED[0] and cell != JUDGED:
            carried = ways[OURS].rate * cell[1] * 3600
            made.append(Point(f"machines reporting hourly on one core, {cell[1]:,} a request", carried, ""))
    return made


def page(found: Found) -> str:
    """The whole grid as Markdown."""
    lines = []
    for (connections, machines), ways in found.items():
        peak = ways[OURS].rate
        lines += [
            f"\n### {connections} connections, {machines:,} machines a request\n",
            "| server | answers/s | ours is | processor ms | at | p50 ms | p99 ms | answers | failed |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, one in sorted(ways.items(), key=lambda item: -item[1].rate):
            times = f"{peak / one.rate:,.3g} x" if one.rate else "-"
            spent, p50, p99 = (
                f"{statistics.median(ms):,.3g}" if ms else "-" for ms in (one.processor_ms, one.p50_ms, one.p99_ms)
            )
            late = (f"{one.asked:,.4g}", p50, p99, f"{one.answers:,}", str(one.failed))
            cells = (name, f"{one.rate:,.4g}", times, spent, *late)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def compare(answers: dict[str, Any]) -> None:
    """Check that every column B gives our own results, and that all columns A give the same.

    Raises:
        SystemExit: a server gives another answer.
    """
    first_user = next((name for name in answers if name.endswith(" A")), None)
    for name, answer in answers.items():
        like = OURS if name.endswith(" B") or name.startswith(OURS) else first_user
        if name != ECHO and like is not None and answer["results"] != answers[like]["results"]:
            raise SystemExit(f"not timed: {name} gives another answer than {like}")


def start(
    wanted: list[str], bodies: dict[int, bytes], server: set[int] | None, stack: ExitStack
) -> tuple[dict[str, Way], dict[str, str]]:
    """Start the servers. Returns those that answer, and for the others why not.

    Our own service starts first and fills the cache of compiled code for all.
    """
    history = json.loads((BUNDLE / "manifest.json").read_text())["history_hours"]
    sources = [PEERS / "window.py", Path(serve_data.__file__), serve_data.PARAMS, PEERS / "fastapi.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    model = WORK / f"model-{digest}.joblib"
    if not model.exists():
        say("training column A's model")
        serve_data.fit(model, history)
    skipped: dict[str, str] = {}
    ways = [serve_ways.service(OURS), serve_ways.service(OFF, LOG_DURABILITY="off")]
    ways += [serve_ways.service(SHIPPING, LOG_SINK=str(WORK / "sink")), serve_ways.echo()]
    for name in wanted:
        if why := serve_ways.environment(name):
            skipped[name] = f"cannot be installed: {why}"
        else:
            ways += [serve_ways.peer(name, column, model) for column in "AB"]
    smallest = min(bodies)
    answers: dict[str, Any] = {}
    say(f"starting {len(ways)} servers")
    for way in ways:
        way.log.unlink(missing_ok=True)
        stack.callback(way.stop)
        way.start(server)
        if way.name == OURS and way.wait(way.request(bodies[smallest])) is None:
            raise SystemExit(f"our own service does not answer: {way.last_words()}")
    for way in ways:
        said = way.wait(way.request(bodies[smallest]))
        if said is None:
            skipped[way.name] = f"does not answer: {way.last_words()} (all of it: {way.log})"
            way.stop()
        else:
            answer = json.loads(said)
            answers[way.name] = answer.get("predictions", answer) if isinstance(answer, dict) else answer
    if OURS not in answers or ECHO not in answers:
        raise SystemExit(f"{OURS} and {ECHO} must answer: {skipped}")
    compare(answers)
    return {way.name: way for way in ways if way.name in answers}, skipped


def measure(run: Run, log: Run, grid: list[Cell], rounds: int, seconds: float, end: float) -> dict[str, str]:
    """Measure every cell of the grid, and the log in three ways. Returns the cells that were left out, and why."""
    compared, skipped = [name for name in run.ways if name != SHIPPING], {}
    run.flat_out(JUDGED, 2 * rounds, seconds, compared)
    run.at_half(JUDGED, 1, 2 * seconds, compared)
    say("the log: durable and off, in turns")
    log.flat_out(JUDGED, 3 * rounds, seconds, [OURS, OFF])
    log.at_half(JUDGED, 4 * rounds, 2 * seconds, [OURS, OFF], rate=log.found[JUDGED][OURS].rate / 2)
    for cell in grid:
        if cell == JUDGED:
            continue
        if time.monotonic() > end:
            skipped[f"{cell[0]} connections, {cell[1]} machines"] = "not begun within --minutes"
            continue
        run.flat_out(cell, 1 if cell[1] == max(MACHINES) else rounds, seconds, compared)
        run.at_half(cell, 1, 2 * seconds, compared)
    if SHIPPING in run.ways:  # last: its shipper works on when the load has ended, beside whatever comes next
        say("the log while it is shipped")
        log.flat_out(JUDGED, 3 * rounds, seconds, [SHIPPING])
        log.at_half(JUDGED, 4 * rounds, 2 * seconds, [SHIPPING], rate=log.found[JUDGED][OURS].rate / 2)
    return skipped


def plain(found: Found) -> list[dict[str, Any]]:
    """The figures as plain dictionaries, for JSON."""
    return [
        {"connections": cell[0], "machines": cell[1], "server": name, "answers_per_second": one.rate} | vars(one)
        for cell, ways in found.items()
        for name, one in ways.items()
    ]


def main(words: list[str]) -> int:
    """Start the servers, compare, measure, print the tables and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="a minute: two cells, short, to see that all works")
    flags.add_argument("--connections", type=int, nargs="+", choices=CONNECTIONS, default=CONNECTIONS)
    flags.add_argument("--machines", type=int, nargs="+", choices=MACHINES, default=MACHINES)
    flags.add_argument("--peers", nargs="*", choices=NAMES, default=list(NAMES))
    flags.add_argument("--minutes", type=float, default=12, help="no cell begins later (default: %(default)g)")
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    require_simulated_bundle()
    if not (SITE / "score/app.py").exists():
        raise SystemExit(f"there is no built wheel in {SITE}; run: make build/wheel/.built")
    cores = sorted(os.sched_getaffinity(0))
    server = {cores[0]} if len(cores) > 1 else None
    if server is None:
        say("one core only: the load takes its part of it from the servers")
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(WORK / "sink", ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    begun = time.monotonic()
    wanted = {(connections, machines) for connections in args.connections for machines in args.machines}
    grid = [(1, 1), JUDGED] if args.quick else sorted(wanted | {JUDGED}, key=lambda cell: cell[::-1])
    seconds, rounds = (0.3, 1) if args.quick else (0.7, 2)
    history = json.loads((BUNDLE / "manifest.json").read_text())["history_hours"]
    say(f"requests of {history:g} hours")
    bodies = serve_data.bodies(sorted({machines for _, machines in grid}), history)
    with ExitStack() as stack:
        ways, skipped = start(args.peers, bodies, server, stack)
        for name, why in skipped.items():
            say(f"left out: {name} {why}")
        if server:
            os.sched_setaffinity(0, set(cores) - server)
            stack.callback(os.sched_setaffinity, 0, set(cores))
        run, log = Run(ways, bodies, server), Run(ways, bodies, server)
        skipped |= measure(run, log, grid, rounds, seconds, begun + 60 * args.minutes)
    path = args.out or OUT / "serve.json"
    path.with_suffix(".md").write_text(page(run.found), encoding="utf-8")
    print(page(run.found))
    measured = Point("cells measured", len(run.found), f"of {len(grid)}", least=len(grid))
    for name, why in skipped.items():
        print(f"LEFT OUT: {name} {why}")
    details = {"grid": plain(run.found), "log": plain(log.found), "skipped": skipped, "history_hours": history}
    sizes = {str(size): len(body) for size, body in bodies.items()}
    return finish(
        "serve", [*points(run.found, log.found), measured], args.out, cores=len(cores), body_bytes=sizes, **details
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
