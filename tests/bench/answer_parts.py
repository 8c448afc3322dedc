"""What each part of one answer costs, from the bytes of a request to the bytes of its reply, without a socket.

    python tests/bench/answer_parts.py

The request is one machine with 72 hours of history. Each figure is the least processor time of all rounds, over all
threads, so that it holds on a busy machine too. Each part runs alone with warm caches, so the parts add up to less than
the whole. To compare another state of the code, put it on PYTHONPATH and set MODEL_DIR to a bundle that it trained.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import serve_data
from harness import Point, by_turns, finish, require_simulated_bundle, say

from closedloop.features.kernel import compute
from closedloop.features.spec import FeatureSpec
from closedloop.heads.bundle import load
from closedloop.log.frame import pack
from closedloop.log.record import Record, encode
from score.answer import Scorer, results
from score.app import create_app
from score.settings import Settings, request_limits

HOURS = 72.0
TOGETHER = 64  # requests in flight at once
Ways = dict[str, Callable[[], object]]


def parts(scorer: Scorer, body: bytes) -> Ways:
    """The steps of an answer. Each works on the result of the one before."""
    bundle, decode = scorer.bundle, scorer.decode
    schema, spec, constants = bundle.schema, bundle.spec, bundle.constants
    params = {name: value for name, value in spec.to_dict().items() if name not in ("names", "groups", "custom")}
    families = ("history_hours", "rolling", "trend", "change", "errors")
    shiftless = FeatureSpec.from_params({name: params[name] for name in families if name in params}, schema)
    tables = decode(body)
    features = compute(tables, spec, constants, schema, last_only=True)
    predictions = bundle.answer(features)
    answer = scorer.answer(body, "request")
    content = msgspec.json.encode(answer)
    record = Record("score", "request", 0, 0, "anonymous", 200, "model", "image", body, content)
    payload = encode(record)
    below = np.concatenate([features.X, predictions.anomaly_score[None, :]])
    heads: Ways = {} if bundle.anomaly is None else {"  anomaly head": lambda: bundle.anomaly.score(features.X)}
    for name, head in bundle.failures.items():
        heads[f"  failure head {name}"] = lambda head=head: head.probability(below)  # type: ignore[misc]
    return {
        "answer, all of it": lambda: scorer.answer(body, "request"),
        "  decode": lambda: decode(body),
        "    of which JSON": lambda: decode._json.decode(body),
        "  bounds of machines": tables.bounds,
        "  features": lambda: compute(tables, spec, constants, schema, last_only=True),
        "    without shifts": lambda: compute(tables, shiftless, constants, schema, last_only=True),
        "  heads": lambda: bundle.answer(features),
        **{f"  {name}": way for name, way in heads.items()},
        "  results and warnings": lambda: results(tables, predictions, schema, spec.history_us),
        "reply in JSON": lambda: msgspec.json.encode(answer),
        "record": lambda: encode(record),
        "frame": lambda: pack(payload, 1),
    }


class Asked:
    """One request to an ASGI application, as a server passes it on. The answer must have status 200."""

    def __init__(self, app: Any, state: dict[str, Any], body: bytes) -> None:
        self._app = app
        self._state = state
        self._body = body
        self._headers = [
            (b"host", b"x"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]

    async def __call__(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 9000),
            "scheme": "http",
            "method": "POST",
            "root_path": "",
            "path": "/score",
            "raw_path": b"/score",
            "query_string": b"",
            "headers": self._headers.copy(),
            "state": self._state.copy(),
        }
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        await self._app(scope, receive, send)
        if status != 200:
            raise SystemExit(f"not timed: the app answered {status}")


def finished(runner: asyncio.Runner, ask: Callable[[], Any], count: int) -> None:
    """Send ``count`` requests at once and wait for all answers."""

    async def together() -> None:
        await asyncio.gather(*(ask() for _ in range(count)))

    runner.run(together())


def main(words: list[str]) -> int:
    """Time the parts, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--rounds", type=int, default=40)
    flags.add_argument("--body", type=Path, help="a request to ask, instead of one of a simulated machine")
    args = flags.parse_args(words)
    body = args.body.read_bytes() if args.body else serve_data.bodies([1], HOURS)[1]
    os.environ["MODEL_DIR"] = str(require_simulated_bundle())  # where the app below looks for it
    scorer = Scorer(load(Path(os.environ["MODEL_DIR"])), **request_limits(os.environ))
    say(f"{len(body)} bytes")
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        app = create_app(Settings(log_dir=Path(folder), port=0))
        lifespan = app.router.lifespan_context(app)
        state = dict(runner.run(lifespan.__aenter__()))
        ask = Asked(app, state, body)
        ways = parts(scorer, body)
        spool, payload = state["service"].journal.spool, bytes(len(body) + 900)
        ways["log, one at a time"] = lambda: runner.run(kept(spool, payload, 1))
        ways["app, one at a time"] = lambda: finished(runner, ask, 1)
        ways[f"log, {TOGETHER} at once"] = lambda: runner.run(kept(spool, payload, TOGETHER))
        ways[f"app, {TOGETHER} at once"] = lambda: finished(runner, ask, TOGETHER)
        for way in ways.values():
            way()
        gc.collect()
        gc.freeze()
        seconds = by_turns(ways, args.rounds, least_s=0.005)
        runner.run(lifespan.__aexit__(None, None, None))
    shares = {name: TOGETHER if "at once" in name else 1 for name in ways}
    points = [Point(name, min(own) * 1e6 / shares[name], "µs") for name, own in seconds.processor.items()]
    return finish("answer_parts", points, args.out)


async def kept(spool: Any, payload: bytes, count: int) -> None:
    """Append ``count`` records to the log and wait until all of them are durable."""
    await asyncio.gather(*(spool.append(payload) for _ in range(count)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
