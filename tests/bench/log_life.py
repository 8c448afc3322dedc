"""The life of a log, time accelerated: two replicas, one request a minute each, then one commit a day; a pin a week.

``python tests/bench/log_life.py [--days 30] [--months 11]``. Each commit is written as a shipper writes it. Upkeep runs
after each hour of the log's time and with a grace of 0 s, since time is accelerated: in its own time an hour's grace
adds four files a minute, which the figure of files includes. Then ``--read``: 140,000 windows of 72 hours read back.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from harness import PARAMS, Point, say

from closedloop.log import pins, upkeep
from closedloop.log.pins import Pin
from closedloop.log.read import read
from closedloop.log.sink import Sink
from closedloop.log.tables import SCHEMAS
from model.common import params

HOUR_US = 3_600_000_000
START_US = 1_735_689_600_000_000  # 2025-01-01
SENSORS = ("volt", "rotate", "pressure", "vibration")
GRACE_FILES = 4 * 60  # of two replicas, a commit and its data each, in an hour's grace
READ = """
import resource, sys, time
from pathlib import Path
from closedloop.log.read import read
from closedloop.log.sink import Sink
from model.common import params
schema, wall, cpu = params.load(Path(sys.argv[2])).schema, time.perf_counter(), time.process_time()
rows = len(read(Sink(sys.argv[1]), schema).tables.time)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(rows, time.perf_counter() - wall, time.process_time() - cpu, peak)
"""  # in a process of its own, whose memory is that of reading
SCHEMA = pa.schema(SCHEMAS["requests"])


def windows(first: int, count: int, hours: int, machines: int, spool: str, segment: int, received_us: int) -> pa.Table:
    """So many requests, each of one machine's window of so many hours, none of which overlap."""
    number = np.arange(first, first + count)
    machine, start = number % machines + 1, number // machines * hours
    rng = np.random.default_rng(first)
    at = pa.array(np.arange(0, count * hours + 1, hours), pa.int32())
    time_us = START_US + (start[:, None] + np.arange(hours)).ravel() * HOUR_US
    kind = SCHEMA.field("telemetry").type
    values = pa.array(np.round(rng.normal(100, 10, count * 4 * hours), 6))
    inner = pa.ListArray.from_arrays(pa.array(np.arange(0, count * 4 * hours + 1, hours), pa.int32()), values)
    sensor = kind.field("sensors").type.value_type
    sensors = pa.StructArray.from_arrays(
        [pa.array([*SENSORS] * count), inner.cast(sensor.field("values").type)], fields=list(sensor)
    )
    each = pa.array(np.arange(0, 4 * count + 1, 4), pa.int32())
    telemetry = {
        "datetime": pa.ListArray.from_arrays(at, pa.array(time_us, pa.timestamp("us", "UTC"))),
        "machineID": pa.ListArray.from_arrays(at, pa.array(np.repeat(machine, hours))),
        "sensors": pa.ListArray.from_arrays(each, sensors),
    }
    received = pa.array(received_us + np.arange(count), pa.timestamp("us", "UTC"))
    columns = {
        "request_id": pa.array([f"r{n}" for n in number]),
        "received": received,
        "answered": received,
        "caller": pa.array(["line"] * count),
        "status": pa.array(np.full(count, 200)),
        "body_sha256": pa.array([f"{n:064x}" for n in number]),
        "spool": pa.array([spool] * count),
        "segment": pa.array(np.full(count, segment)),
        "index": pa.array(np.arange(count)),
        "telemetry": pa.StructArray.from_arrays(
            [telemetry[f.name].cast(f.type) if f.name in telemetry else pa.nulls(count, f.type) for f in kind],
            fields=list(kind),
        ),
    }
    arrays = [columns[f.name] if f.name in columns else pa.nulls(count, f.type) for f in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def commit(table: DeltaTable, rows: pa.Table, spool: str, segment: int) -> None:
    """Append rows as the shipper of a spool does."""
    table.update_incremental()
    write_deltalake(
        table,
        rows,
        mode="append",
        commit_properties=CommitProperties(
            {"spool": spool, "segment": segment, "sha256": f"{segment:064x}"},
            app_transactions=[Transaction(spool, segment)],
        ),
    )


def only_pinned(sink: Sink) -> int:
    """The files that only pins hold, with the commits and checkpoints of their versions."""
    folder = Path(sink.location("requests"))
    now = set(DeltaTable(folder).file_uris())
    held = {uri for pin in pins.find(sink) for uri in DeltaTable(folder, version=pin.versions["requests"]).file_uris()}
    commits = sorted(int(path.stem) for path in (folder / "_delta_log").glob("*.json"))
    recent = next((b for a, b in zip(commits[-2::-1], commits[:0:-1], strict=True) if a != b - 1), commits[0])
    return len(held - now) + sum(int(path.name[:20]) < recent for path in (folder / "_delta_log").glob("0*"))


def live(sink: Sink, days: float, months: float) -> list[Point]:
    """Let the log live, and measure it at its end."""
    sink.create("requests")
    table = DeltaTable(sink.location("requests"))
    settings = upkeep.UpkeepSettings(grace_seconds=0)
    minutes, number, most, cpu = int(days * 1440), 0, 0, 0.0
    for minute in range(minutes + int(months * 30)):
        full = minute < minutes
        for replica in range(2 if full else 1):
            number += 1
            segment = number // 2 + 1 if full else number
            at = START_US + minute * HOUR_US // 60
            commit(table, windows(number, 1, 72, 100, f"spool-{replica}", segment, at), f"spool-{replica}", segment)
        if (full and minute % (7 * 1440) == 7 * 1440 - 1) or (not full and (minute - minutes) % 7 == 6):
            pins.put(sink, Pin(f"week-{minute}", "main", {"requests": DeltaTable(sink.location("requests")).version()}))
        if not full or minute % 60 == 59:
            began = time.process_time()
            if any(upkeep.due(sink, name) for name in upkeep.present(sink)):
                most = max(most, len(list(Path(sink.place).rglob("*"))) - only_pinned(sink))
                upkeep.keep(sink, lambda _: None, settings)
            cpu += time.process_time() - began
        if minute % 1440 == 1439:
            say(f"day {minute // 1440 + 1}: {number:,} commits")
    began = time.process_time()
    log = read(sink, params.load(PARAMS).schema)
    seconds = time.process_time() - began
    size = sum(path.stat().st_size for path in Path(sink.place).rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        once = Path(folder) / "one"
        shutil.copytree(sink.place, once)
        shutil.rmtree(once / "_pins", ignore_errors=True)
        upkeep.keep(Sink(str(once)), lambda _: None, upkeep.UpkeepSettings(everything=True, grace_seconds=0))
        one = sum(f["size_bytes"] for f in pa.table(DeltaTable(once / "requests").get_add_actions()).to_pylist())
    return [
        Point("records read back", log.records, "", least=number, most=number),
        Point("bytes of the sink to one compacted copy", size / one, most=2),
        Point("files at most beyond those only pins hold", most + GRACE_FILES, "", most=1000),
        Point("reading all back", seconds, "CPU-s", most=60),
        Point("upkeep in all", cpu, "CPU-s"),
        Point("pins that can be read", sum(_readable(sink, pin) for pin in pins.find(sink)), ""),
    ]


def _readable(sink: Sink, pin: Pin) -> bool:
    return read(sink, params.load(PARAMS).schema, {"requests": pin.versions["requests"]}).records > 0


def read_back(sink: Sink) -> list[Point]:
    """140,000 windows of 72 hours that do not overlap, 10 million readings of each sensor, read back."""
    sink.create("requests")
    table = DeltaTable(sink.location("requests"))
    for segment, first in enumerate(range(0, 140_000, 5000), start=1):
        commit(table, windows(first, 5000, 72, 1000, "one", segment, START_US + segment * HOUR_US), "one", segment)
    say("written; reading it back")
    done = subprocess.run(
        [sys.executable, "-c", READ, sink.place, str(PARAMS)], capture_output=True, text=True, check=True
    )
    rows, wall, cpu, peak = map(float, done.stdout.split())
    return [
        Point("rows read back", rows, "", least=10_080_000),
        Point("seconds", wall, "s", most=10),
        Point("processor", cpu, "CPU-s"),
        Point("memory", peak, "GiB", most=2),
    ]


def main() -> int:
    """Run it; red if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=30, help="at two requests a minute")
    parser.add_argument("--months", type=float, default=11, help="at one commit a day")
    parser.add_argument("--read", action="store_true", help="read 140,000 windows back instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="closedloop-life-") as folder:
        sink = Sink(f"{folder}/sink")
        points = read_back(sink) if args.read else live(sink, args.days, args.months)
    for point in points:
        print(f"{point.what:45} {point.figure:12,.2f} {point.unit:6} {point.target:10} {point.holds}")
    return 1 if any(point.holds is False for point in points) else 0


if __name__ == "__main__":
    sys.exit(main())
