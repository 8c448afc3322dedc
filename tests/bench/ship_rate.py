"""How fast the shipper is, and how much memory it takes, whatever a segment holds.

Records of whole windows (72 hours, 5 KB) are written to a spool and shipped into a local sink by a process of its own,
held to one core. A shipper must keep up with the service, which gives 1,300 to 2,500 such answers a second on one core.
Then a segment with one record of the largest answer that was ever seen, of 97 MB. Memory is the peak of the process,
above that of a shipper that has shipped one small record.

After ``serve.py`` it also prints the ratio of the shipper to the service: records a second of one core each, both by
processor time, with 64 connections and one machine's window in a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import OUT, Point, finish, say

HOURS = 72
SENSORS, COMPONENTS = ("volt", "rotate", "pressure", "vibration"), ("comp1", "comp2", "comp3", "comp4")
LEAST_RECORDS_S, MOST_MB = 2_500, 200
JUDGED = ("ours", 64, 1)  # of serve.py: the service that logs, 64 connections, one machine


def result(machine: int) -> dict[str, Any]:
    """The answer for one machine."""
    return {
        "machineID": machine,
        "datetime": "2015-01-06T23:00:00Z",
        "anomaly": {"score": 1.7 + machine / 7, "alarm": False},
        "failure": {name: {"probability": 0.0041 + machine / 1e9, "alarm": False} for name in COMPONENTS},
        "warnings": ["1 of 72 hours of history", "no machine description", "no replacement known of comp1, comp2"],
    }


def answer(machines: range) -> bytes:
    """An answer of the service."""
    whole = {"request_id": "r", "model": "sha256:00", "results": [result(machine) for machine in machines]}
    return json.dumps(whole).encode()


def window(rng: random.Random, machine: int) -> bytes:
    """A request of one machine's window."""
    times = [f"2015-01-{4 + hour // 24:02}T{hour % 24:02}:00:00Z" for hour in range(HOURS)]
    readings = {sensor: [round(rng.uniform(100, 500), 1) for _ in times] for sensor in SENSORS}
    body = {
        "telemetry": {"datetime": times, "machineID": [machine] * HOURS, **readings},
        "errors": {"datetime": times[3:4], "machineID": [machine], "errorID": ["error1"]},
        "maint": {"datetime": times[:4], "machineID": [machine] * 4, "comp": list(COMPONENTS)},
        "machines": {"machineID": [machine], "model": ["model3"], "age": [18]},
    }
    return json.dumps(body).encode()


def fleet(machines: int) -> bytes:
    """A request of one row of many machines."""
    readings = {sensor: [101.5] * machines for sensor in SENSORS}
    times = ["2015-01-06T23:00:00Z"] * machines
    return json.dumps({"telemetry": {"datetime": times, "machineID": list(range(machines)), **readings}}).encode()


def fill(folder: Path, bodies: list[tuple[bytes, bytes]]) -> None:
    """Write records to a spool, and seal them."""
    from closedloop.log.record import Record, encode
    from closedloop.log.spool import Spool

    async def append(spool: Spool) -> None:
        for at in range(0, len(bodies), 64):
            records = [
                Record("score", f"r{at + i}", 1, 2, "anonymous", 200, "sha256:00", "", request, given)
                for i, (request, given) in enumerate(bodies[at : at + 64])
            ]
            await asyncio.gather(*[spool.append(encode(record)) for record in records])

    spool = Spool(folder, durability="os", queue_bytes=1 << 30)
    asyncio.run(append(spool))
    spool.close()


def memory_mb(field: str) -> float:
    """VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def ship(idle: Path, folder: Path, sink: str) -> dict[str, float]:
    """Ship a small record, then the folder; what the second took."""
    from closedloop.log.ship import Shipper
    from closedloop.log.sink import Sink

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for place in (idle, folder):
        before = memory_mb("VmRSS")
        used = time.process_time()
        shipper = Shipper(place, Sink.at(sink, {}), print)
        if not shipper.round():
            raise RuntimeError(shipper.status.last_error)
        used = time.process_time() - used
        shipper.close()
    return {
        "records": shipper.status.shipped_records,
        "processor_s": used,
        "idle_mb": before,
        "peak_mb": memory_mb("VmHWM"),
        "numba": float("numba" in sys.modules),
    }


def measure(name: str, bodies: list[tuple[bytes, bytes]], place: Path) -> dict[str, float]:
    """Ship in a process of its own."""
    folder = place / name
    folder.mkdir()
    fill(folder / "idle", [(window(random.Random(1), 1), answer(range(1)))])  # noqa: S311
    fill(folder / "log", bodies)
    say(f"{name}: shipping")
    words = [sys.executable, __file__, "--ship", str(folder / "idle"), str(folder / "log"), str(folder / "sink")]
    beside = os.environ | {"PYTHONSAFEPATH": ""}  # the harness lies beside this file
    return json.loads(subprocess.run(words, env=beside, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


def service_records_s(path: Path) -> float | None:
    """The answers that the service gives in a second of one core, as ``serve.py`` measured; None if it has not."""
    if not path.exists():
        return None
    for found in json.loads(path.read_text(encoding="utf-8"))["grid"]:
        if (found["server"], found["connections"], found["machines"]) == JUDGED and found["processor_ms"]:
            return 1000 / statistics.median(found["processor_ms"])
    return None


def main(words: list[str]) -> int:
    """Measure both."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--records", type=int, default=12_000, help="windows of one machine (default: %(default)s)")
    flags.add_argument("--machines", type=int, default=200_000, help="of the large answer (default: %(default)s)")
    flags.add_argument("--serve", type=Path, default=OUT / "serve.json", help="what serve.py found (%(default)s)")
    flags.add_argument("--out", type=Path, help="JSON (default: build/bench/ship_rate.json)")
    args = flags.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        rng = random.Random(1)  # noqa: S311
        windows = [(window(rng, i), answer(range(i, i + 1))) for i in range(args.records)]
        many = measure("windows", windows, Path(place))
        large = (fleet(args.machines), answer(range(args.machines)))
        size_mb = len(large[1]) / 1e6
        one = measure("large", [large], Path(place))
    shipped_s, served_s = many["records"] / many["processor_s"], service_records_s(args.serve)
    points = [
        Point("records shipped a second of one core", shipped_s, "1/s", LEAST_RECORDS_S),
        Point("memory above idle, segments of 16 MB", many["peak_mb"] - many["idle_mb"], "MB", most=MOST_MB),
        Point(
            f"memory above idle, one answer of {size_mb:.0f} MB", one["peak_mb"] - one["idle_mb"], "MB", most=MOST_MB
        ),
        Point("memory of an idle shipper", many["idle_mb"], "MB"),
    ]
    if served_s is None:
        say(f"no ratio to the service: {args.serve} has no figures of it; run serve.py first")
    else:
        points.insert(1, Point("answers of the service a second of one core", served_s, "1/s"))
        points.insert(2, Point("shipper to service", shipped_s / served_s, "times", least=1))
    return finish("ship_rate", points, args.out, windows=many, large=one)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ship"]:
        print(json.dumps(ship(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])))
        sys.exit()
    sys.exit(main(sys.argv[1:]))
