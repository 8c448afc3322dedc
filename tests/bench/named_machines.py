"""What names of machines cost against whole numbers: answers, and the size and time of the log. Targets: within 5 %.

    python tests/bench/named_machines.py

The same requests, one window of 72 hours each, are asked of the same model twice: of machines 100000, 100001 … and of
machines "P00000", "P00001" …, which are as long. The two take turns in one process, so that other load on this machine
slows both alike. Answers go through the whole service but for the socket, 64 at once, each record into the spool. Then
each spool is shipped into a sink of its own, and read back. Times are processor times; each is the least of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from answer_parts import TOGETHER, Asked, finished
from harness import Point, by_turns, finish, require_bundle, say
from ship_rate import fill, window

from closedloop.heads.bundle import Bundle, TrainedOn, load, write
from closedloop.log.read import read
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from score.answer import Scorer
from score.app import create_app
from score.settings import Settings, request_limits

MOST = 1.05  # names over numbers
MOST_LOG_BYTES = 1.05
WAYS = {"numbers": lambda n: 100_000 + n, "names": lambda n: f"P{n:05}"}


def twin(bundle: Bundle, folder: Path) -> Path:
    """Write the same model for a fleet whose machines have names."""
    training = TrainedOn({"named": ["P00000"]}, bundle.training.period, "sha256:0")
    schema = replace(bundle.schema, machine_id="text")
    write(replace(bundle, schema=schema, training=training, drift_reference=None), folder)
    return folder


def folder_bytes(place: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def shipped(spool: Path, sink: Path) -> Sink:
    """Ship a spool into a new sink."""
    target = Sink.at(str(sink), {})
    shipper = Shipper(spool, target, say)
    if not shipper.round():
        raise RuntimeError(shipper.status.last_error)
    shipper.close()
    return target


def answers(runner: asyncio.Runner, bundles: dict[str, Path], bodies: dict[str, list[bytes]], place: Path) -> Any:
    """A way to have 64 requests answered at once, for each kind; and how to stop the services."""
    ways: dict[str, Callable[[], object]] = {}
    stops = []
    for kind, bundle in bundles.items():
        os.environ["MODEL_DIR"] = str(bundle)
        app = create_app(Settings(log_dir=place / f"log-{kind}", port=0, log_durability="os"))
        lifespan = app.router.lifespan_context(app)
        state = dict(runner.run(lifespan.__aenter__()))
        asks = [Asked(app, state, body) for body in bodies[kind][:TOGETHER]]

        async def one(asks: list[Asked] = asks) -> None:
            await asyncio.gather(*(ask() for ask in asks))

        ways[kind] = lambda one=one: finished(runner, one, 1)  # type: ignore[misc]
        stops.append(lifespan)
    return ways, stops


def log(kind: str, bodies: list[bytes], scorer: Scorer, place: Path) -> tuple[Path, int]:
    """Write requests and their answers to a spool; its folder and its size."""
    said = [json.dumps(scorer.answer(body, "r")).encode() for body in bodies]
    fill(place / kind, list(zip(bodies, said, strict=True)))
    return place / kind, folder_bytes(place / kind)


def main(words: list[str]) -> int:
    """Measure both kinds and compare them."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--records", type=int, default=1500)
    flags.add_argument("--rounds", type=int, default=30)
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    number = require_bundle()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        place = Path(folder)
        bundles = {"numbers": number, "names": twin(load(number), place / "named")}
        bodies = {}
        for kind, machine in WAYS.items():
            rng = random.Random(1)  # noqa: S311 - the same readings for both
            bodies[kind] = [window(rng, machine(n)) for n in range(args.records)]  # type: ignore[no-untyped-call,arg-type]
        ways, stops = answers(runner, bundles, bodies, place)
        for way in ways.values():
            way()
        gc.collect()
        gc.freeze()
        asked = by_turns(ways, args.rounds, least_s=0.05).processor
        for lifespan in stops:
            runner.run(lifespan.__aexit__(None, None, None))
        scorers = {kind: Scorer(load(bundle), **request_limits(os.environ)) for kind, bundle in bundles.items()}
        spools = {kind: log(kind, bodies[kind], scorers[kind], place / "spools") for kind in WAYS}
        sinks: dict[str, Sink] = {}

        def ship(kind: str) -> None:
            """Ship a copy of the spool, since shipping removes its segments."""
            copy, sink = place / f"{kind}-{len(list(place.glob(f'{kind}-*')))}", place / f"sink-{os.urandom(4).hex()}"
            copy.mkdir()
            for path in spools[kind][0].iterdir():
                (copy / path.name).hardlink_to(path)
            sinks[kind] = shipped(copy, sink)

        shippers = {kind: lambda kind=kind: ship(kind) for kind in WAYS}  # type: ignore[misc]
        for way in shippers.values():
            way()
        shipping = by_turns(shippers, max(args.rounds // 6, 1)).processor
        readers = {kind: lambda kind=kind: read(sinks[kind], scorers[kind].bundle.schema) for kind in WAYS}  # type: ignore[misc]
        for way in readers.values():
            way()
        reading = by_turns(readers, max(args.rounds // 6, 1)).processor
        sizes = {kind: folder_bytes(Path(sink.place)) for kind, sink in sinks.items()}
    seconds = {"answers, 64 at once": asked, "shipping": shipping, "reading back": reading}
    points = [
        Point(f"processor time of {what}", min(own["names"]) / min(own["numbers"]), most=MOST)
        for what, own in seconds.items()
    ]
    points.append(Point("bytes of the spool", spools["names"][1] / spools["numbers"][1], most=MOST_LOG_BYTES))
    points.append(Point("bytes of the Delta table", sizes["names"] / sizes["numbers"], most=MOST_LOG_BYTES))
    points += [Point(f"one answer, {kind}", min(asked[kind]) * 1e6 / TOGETHER, "µs") for kind in WAYS]
    return finish("named_machines", points, args.out, sizes=sizes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
