"""The life of a log, time accelerated: two replicas, one request a minute each, then one commit a day; a pin a week.

``python tests/bench/log_life.py [--days 30] [--months 11]``. The first commit of each replica is written as a shipper
writes it, and each later one like it: its file and its commit are put there directly, which costs a tenth. Upkeep is
the product's own. It runs after each hour of the log's time, with a grace of 0 s and a table that remembers removed
files for 0 s, since a second of the bench is hours. In the log's own time there is more, and the figures include it: an
hour's grace adds four files a minute, and the checkpoint of a pin names what was removed in the week before it.
With ``TMPDIR=/dev/shm`` it takes ten minutes of a calm machine: of disks it measures bytes, and no speed.
Then ``--read``: 140,000 windows of 72 hours read back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
REMOVED_BYTES = 110  # of a removed file in a checkpoint, which names it for a week; most were of one commit
CHECKPOINT_EVERY = 100  # commits, after which a shipper writes a checkpoint
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


def windows(
    first: int, count: int, hours: int, machines: int, spool: str, segment: int, received_us: int, *, each: bool = False
) -> pa.Table:
    """So many requests, each of one machine's window of so many hours, none of which overlap.

    ``each`` is in a segment of its own; ``segment`` is the first of them.
    """
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
    of_sensors = pa.array(np.arange(0, 4 * count + 1, 4), pa.int32())
    telemetry = {
        "datetime": pa.ListArray.from_arrays(at, pa.array(time_us, pa.timestamp("us", "UTC"))),
        "machineID": pa.ListArray.from_arrays(at, pa.array(np.repeat(machine, hours))),
        "sensors": pa.ListArray.from_arrays(of_sensors, sensors),
    }
    place = np.arange(count)
    received = pa.array(received_us + place, pa.timestamp("us", "UTC"))
    columns = {
        "request_id": pa.array([f"r{n}" for n in number]),
        "received": received,
        "answered": received,
        "caller": pa.array(["line"] * count),
        "status": pa.array(np.full(count, 200)),
        "body_sha256": pa.array([f"{n:064x}" for n in number]),
        "spool": pa.array([spool] * count),
        "segment": pa.array(segment + (place if each else 0 * place)),
        "index": pa.array(0 * place if each else place),
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


class Shippers:
    """What puts commits into a sink's table of requests, one after the other."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._folder = Path(sink.location("requests"))
        self._like: dict[str, list[dict[str, Any]]] = {}  # the actions of each spool's first commit
        sink.create("requests")
        self._opened().alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
        self.version = self._opened().version()

    def _opened(self) -> DeltaTable:
        return DeltaTable(self._folder)

    def look(self) -> None:
        """See the commits of upkeep."""
        self.version = self._opened().version()

    def put(self, row: pa.Table, spool: str, segment: int, at_us: int) -> None:
        """Commit a row that was received at a time."""
        self.version += 1
        place = self._folder / "_delta_log" / f"{self.version:020}.json"
        if spool not in self._like:
            commit(self._opened(), row, spool, segment)
            self._like[spool] = [json.loads(line) for line in place.read_text().splitlines()]
            return
        path = self._folder / f"part-00000-{uuid4()}-c000.snappy.parquet"
        pq.write_table(row, path, compression="snappy")
        now = time.time_ns() // 1_000_000
        at = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
        bounds = {"received": at, "segment": segment, "spool": spool}
        nulls = dict.fromkeys(bounds, 0)
        stats = json.dumps({"numRecords": 1, "minValues": bounds, "maxValues": bounds, "nullCount": nulls})
        changes = {
            "commitInfo": {"timestamp": now, "segment": segment, "sha256": f"{segment:064x}"},
            "add": {"path": path.name, "size": path.stat().st_size, "modificationTime": now, "stats": stats},
            "txn": {"version": segment},
        }
        actions = [{kind: like | changes[kind]} for action in self._like[spool] for kind, like in action.items()]
        place.write_text("\n".join(map(json.dumps, actions)))
        if self.version % CHECKPOINT_EVERY == 0:
            self._opened().create_checkpoint()


class Pins:
    """The pins of a sink, and what they alone hold."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._folder = Path(sink.location("requests"))
        self._held: set[str] = set()
        self.named = 0  # removed files that the checkpoints of these versions would name after a week each

    def put(self, version: int, week: int) -> None:
        """Pin a version; so many commits were made in the week before it."""
        pins.put(self._sink, Pin(f"version-{version}", "main", {"requests": version}))
        self._held.update(DeltaTable(self._folder, version=version).file_uris())
        self.named += week

    def only_here(self) -> int:
        """The files that only pins hold, with the commits and checkpoints of their versions."""
        now = set(DeltaTable(self._folder).file_uris())
        log = [path.name for path in (self._folder / "_delta_log").glob("0*")]
        commits = sorted(int(name[:20]) for name in log if name.endswith(".json"))
        recent = next((b for a, b in zip(commits[-2::-1], commits[:0:-1], strict=True) if a != b - 1), commits[0])
        return len(self._held - now) + sum(int(name[:20]) < recent for name in log)


def hours(shippers: Shippers, days: float) -> Iterator[tuple[int, int]]:
    """Fill an hour of both replicas at a time; its number, and how many commits there are."""
    for hour in range(int(days * 24)):
        at_us = START_US + hour * HOUR_US
        rows = [
            windows(hour * 120 + 60 * replica, 60, 72, 100, f"spool-{replica}", hour * 60 + 1, at_us, each=True)
            for replica in range(2)
        ]
        for minute in range(60):
            for replica, table in enumerate(rows):
                segment = hour * 60 + minute + 1
                shippers.put(table.slice(minute, 1), f"spool-{replica}", segment, at_us + minute * HOUR_US // 60)
        yield hour, (hour + 1) * 120


def live(sink: Sink, days: float, months: float) -> list[Point]:
    """Let the log live, and measure it at its end."""
    shippers, pinned, settings = Shippers(sink), Pins(sink), upkeep.UpkeepSettings(grace_seconds=0)
    most, cpu, number, full = 0, 0.0, 0, int(days * 24)

    def tend() -> None:
        nonlocal most, cpu
        began = time.process_time()
        if upkeep.due(sink, "requests"):
            most = max(most, sum(len(names) for _, _, names in os.walk(sink.place)) - pinned.only_here())
            upkeep.keep(sink, lambda _: None, settings)
            shippers.look()
        cpu += time.process_time() - began

    for hour, number in hours(shippers, days):
        if hour % 168 == 167:
            pinned.put(shippers.version, 7 * 2880)
        tend()
        if hour % 24 == 23:
            say(f"day {hour // 24 + 1}: {number:,} commits")
    for day in range(int(months * 30)):
        number += 1
        row = windows(number, 1, 72, 100, "spool-0", full * 60 + 1 + day, START_US + full * HOUR_US, each=True)
        shippers.put(row, "spool-0", full * 60 + 1 + day, START_US + full * HOUR_US)
        if day % 7 == 6:
            pinned.put(shippers.version, 7 if day > 6 else 7 * 2880)
        tend()
    say("read it back")
    began = time.process_time()
    log = read(sink, params.load(PARAMS).schema)
    seconds = time.process_time() - began
    size = sum(path.stat().st_size for path in Path(sink.place).rglob("*") if path.is_file())
    one = compacted(sink)
    found = sorted(pins.find(sink), key=lambda pin: pin.versions["requests"])
    whole = sum(_whole(sink, pin) for pin in found)
    first = read(sink, params.load(PARAMS).schema, found[0].versions).records if found else 0
    return [
        Point("records read back", log.records, "", least=number, most=number),
        Point("bytes of the sink to one compacted copy", (size + pinned.named * REMOVED_BYTES) / one, most=2),
        Point("bytes of one compacted copy", one / 1e6, "MB"),
        Point("files at most beyond those only pins hold", most + GRACE_FILES, "", most=1000),
        Point("reading all back", seconds, "CPU-s", most=60),
        Point("upkeep in all", cpu, "CPU-s"),
        Point("pins whose versions have all their files", whole, "", least=len(found)),
        Point("records of the first pin", first, "", least=7 * 2880 if days >= 7 else None),
    ]


def compacted(sink: Sink) -> int:
    """Bytes of the table's rows in as few files as can be."""
    with tempfile.TemporaryDirectory(prefix="closedloop-life-") as folder:
        once = Path(folder) / "one"
        shutil.copytree(sink.place, once, copy_function=os.link)
        shutil.rmtree(once / "_pins", ignore_errors=True)
        upkeep.keep(Sink(str(once)), lambda _: None, upkeep.UpkeepSettings(everything=True, grace_seconds=0))
        files: list[dict[str, int]] = pa.table(DeltaTable(once / "requests").get_add_actions()).to_pylist()
        return sum(file["size_bytes"] for file in files)


def _whole(sink: Sink, pin: Pin) -> bool:
    opened = DeltaTable(sink.location("requests"), version=pin.versions["requests"])
    return all(Path(uri).is_file() for uri in opened.file_uris())


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
