"""How much large requests slow small ones: 1,000-machine requests in sequence, beside 64 clients with one machine.

    python tests/bench/large_and_small.py [--seconds 10]

The service runs as ``python -m score`` with its log durable, the clients in this process. Each round has a period
without large requests and one with them. The 99th percentiles of the small ones are compared. A probe is sent ten times
a second throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import uvloop
from harness import Point, finish, require_bundle, say

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US

HOURS = 72
LARGE_MACHINES = 1000
MOST = {"ratio": 3.0, "probe": 100.0}


def request(machines: int) -> bytes:
    """The body of a request of so many machines, each with its whole history."""
    schema = json.loads((require_bundle() / "manifest.json").read_text(encoding="utf-8"))["schema"]
    rng = np.random.default_rng(1)
    times = [to_text(1_420_070_400_000_000 + hour * HOUR_US) for hour in range(HOURS)]
    telemetry: dict[str, Any] = {"datetime": times * machines}
    telemetry["machineID"] = np.repeat(np.arange(1, machines + 1), HOURS).tolist()
    for sensor, (low, high) in schema["sensors"].items():
        middle = low + 0.45 * (high - low)
        telemetry[sensor] = np.round(rng.normal(middle, 0.02 * (high - low), HOURS * machines), 4).tolist()
    return json.dumps({"telemetry": telemetry}).encode()


@contextmanager
def service():
    """Run the service as a process of its own; yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        settings = {"MODEL_DIR": str(require_bundle()), "LOG_DIR": f"{folder}/log", "LOG_SINK": "none"}
        settings |= {"AUTH": "open", "PORT": "0"}
        with said.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-m", "score"], env=os.environ | settings, stderr=output)
        try:
            while not (ready := re.search(r"running on http://127\.0\.0\.1:(\d+)", said.read_text(encoding="utf-8"))):
                if process.poll() is not None:
                    raise SystemExit(f"the service did not start: {said.read_text(encoding='utf-8')}")
                time.sleep(0.05)
            yield int(ready[1])
        finally:
            process.terminate()
            process.wait()


class Client(asyncio.Protocol):
    """One kept connection that sends one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status == 200:
            self.done.set_result(None)
        else:
            self.done.set_exception(RuntimeError(f"status {status}"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed by the service"))

    async def ask(self, sent: bytes) -> float:
        """Send a request; returns the seconds until its answer has come."""
        self.parser = httptools.HttpResponseParser(self)
        self.done = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        self.transport.write(sent)
        await self.done
        return time.perf_counter() - start


def http(path: str, body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    if not body:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def period(port: int, seconds: float, clients: int, small: bytes, large: bytes | None) -> dict[str, list[float]]:
    """The seconds of each small request, each probe and each large request in one period."""
    until = time.perf_counter() + seconds
    took: dict[str, list[float]] = {"small": [], "probe": [], "large": []}

    async def ask(kind: str, sent: bytes, pause: float = 0.0) -> None:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
        while time.perf_counter() < until:
            took[kind].append(await client.ask(sent))
            if pause:
                await asyncio.sleep(pause)
        client.transport.close()

    asking = [ask("small", small) for _ in range(clients)] + [ask("probe", http("/readyz"), 0.1)]
    await asyncio.gather(*asking, *([ask("large", large)] if large else []))
    return took


def p99_ms(seconds: list[float]) -> float:
    """The 99th percentile in milliseconds."""
    return float(np.quantile(seconds, 0.99)) * 1e3


def main(words: list[str]) -> int:
    """Ask, compare, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--seconds", type=float, default=10.0, help="of each period")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--clients", type=int, default=64)
    flags.add_argument("--machines", type=int, default=LARGE_MACHINES, help="of the large request")
    args = flags.parse_args(words)
    small, large = http("/score", request(1)), http("/score", request(args.machines))
    rounds = []
    with service() as port:
        uvloop.run(period(port, 1.0, args.clients, small, large))
        for turn in range(args.rounds):
            alone = uvloop.run(period(port, args.seconds, args.clients, small, None))
            beside = uvloop.run(period(port, args.seconds, args.clients, small, large))
            rounds.append((alone, beside))
            said = f"alone {p99_ms(alone['small']):.1f} ms, beside {p99_ms(beside['small']):.1f} ms"
            say(f"round {turn + 1} of {args.rounds}: p99 of small requests {said}")
    without = statistics.median(p99_ms(alone["small"]) for alone, _ in rounds)
    beside = statistics.median(p99_ms(beside["small"]) for _, beside in rounds)
    probe = max(max(beside["probe"]) for _, beside in rounds) * 1e3
    answered = sum(len(beside["large"]) for _, beside in rounds)
    points = [
        Point("small requests, p99 without large ones", without, "ms"),
        Point("small requests, p99 beside large ones", beside, "ms"),
        Point("small requests, beside / without", beside / without, most=MOST["ratio"]),
        Point("slowest probe beside large ones", probe, "ms", most=MOST["probe"]),
        Point("large requests answered in all", answered, ""),
    ]
    return finish("large_and_small", points, args.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
