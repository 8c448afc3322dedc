"""What a retraining from a large log takes: processor time and memory after each of its steps.

``python tests/bench/log_retrain.py [--machines 40] [--days 149] [--every 1]``. By default the log has 140,000 requests,
each with one machine's window of 72 hours, one an hour, as a client sends them.
``--every 72 --machines 1000 --days 420`` has as many that do not overlap, with ten million readings of each sensor.

The fleet is simulated, and everything that happened is fed back. The steps are those of ``python -m model.retrain``, in
one process as there, without a champion and without a replay. The memory is the most until the end of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from harness import PARAMS, Point, finish, say
from log_life import HOUR_US, commit
from numpy.typing import NDArray

import model
from closedloop.data.schema import Events, Schema, Tables
from closedloop.data.simulate import simulate
from closedloop.log.sink import Sink
from closedloop.log.tables import FEEDBACK, REQUESTS, SCHEMAS
from model.common import params

HOURS = 72  # of a window
AT_ONCE = 5000  # requests in a segment
LIMIT_GIB = 4.0
STEPS = """
import json, resource, sys, time
from pathlib import Path
from model import evaluate, predict, retrain, train, validate
from model.common import params
asked, place = params.load(), sys.argv[1]
part = {"kind": "log", "location": place, "versions": {"requests": int(sys.argv[2]), "feedback": int(sys.argv[3])}}
steps = {
    "tables": lambda: retrain.fetch([part], asked),
    "validation": lambda: (validate.main([]), retrain.describe([part], {"fingerprint": "", "parts": []}, asked)),
    "training": lambda: train.main(["--quick"]),
    "predictions": lambda: predict.main([]),
    "judging": lambda: evaluate.main(["--quick"]),
}
for name, step in steps.items():
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([name, time.perf_counter() - wall, time.process_time() - cpu, peak]), flush=True)
"""


def column(table: str, name: str, offsets: NDArray[Any], values: Mapping[str, Any]) -> pa.StructArray:
    """A table of each record as the log has it: one list for each of its columns, cut at these offsets."""
    kind = pa.schema(SCHEMAS[table]).field(name).type
    at = pa.array(offsets, pa.int32())
    lists = {key: pa.ListArray.from_arrays(at, pa.array(of)) for key, of in values.items()}
    count = len(offsets) - 1
    return pa.StructArray.from_arrays(
        [lists[field.name].cast(field.type) if field.name in lists else pa.nulls(count, field.type) for field in kind],
        fields=list(kind),
    )


def records(table: str, spool: str, segment: int, first: int, tables: Mapping[str, pa.StructArray]) -> pa.Table:
    """Records with these tables, all of one segment."""
    count = len(next(iter(tables.values())))
    place = np.arange(count)
    received = pa.array(1_735_689_600_000_000 + first + place, pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "request_id": pa.array([f"{table}-{first + n}" for n in place]),
        "received": received, "answered": received,
        "caller": pa.array(["line"] * count), "status": pa.array(np.full(count, 200)),
        "body_sha256": pa.array([f"{first + n:064x}" for n in place]),
        "spool": pa.array([spool] * count), "segment": pa.array(np.full(count, segment)), "index": pa.array(place),
    } | dict(tables)  # fmt: skip
    schema = pa.schema(SCHEMAS[table])
    return pa.Table.from_arrays(
        [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema],
        schema=schema,
    )


def times(time_us: NDArray[np.int64]) -> pa.Array:
    """Times as the log has them."""
    return pa.array(time_us, pa.timestamp("us", "UTC"))


def windows(tables: Tables, schema: Schema, machine: int, every: int) -> dict[str, pa.StructArray]:
    """The requests of a machine: a window every so many hours."""
    own = tables.machine == machine
    time, values = tables.time[own], tables.values[:, own]
    first = np.arange(0, len(time) - HOURS + 1, every)
    rows = first[:, None] + np.arange(HOURS)
    count = len(first)
    offsets = np.arange(0, count * HOURS + 1, HOURS)
    kind = pa.schema(SCHEMAS[REQUESTS]).field("telemetry").type
    sensor = kind.field("sensors").type.value_type
    flat = values[:, rows].transpose(1, 0, 2).ravel()
    at = pa.array(np.arange(0, count * len(values) * HOURS + 1, HOURS), pa.int32())
    lists = pa.ListArray.from_arrays(at, pa.array(flat)).cast(sensor.field("values").type)
    sensors = pa.StructArray.from_arrays([pa.array([*schema.sensors] * count), lists], fields=list(sensor))
    plain = column(REQUESTS, "telemetry", offsets, {"datetime": times(time[rows.ravel()]),
                                                   "machineID": np.full(count * HOURS, machine)})  # fmt: skip
    of_sensors = pa.ListArray.from_arrays(
        pa.array(np.arange(0, count * len(values) + 1, len(values)), pa.int32()), sensors
    ).cast(kind.field("sensors").type)
    telemetry = pa.StructArray.from_arrays(
        [of_sensors if field.name == "sensors" else plain.field(field.name) for field in kind], fields=list(kind)
    )
    errors = tables.errors.rows(tables.errors.machine == machine)
    low = np.searchsorted(errors.time, time[first])
    high = np.searchsorted(errors.time, time[first] + HOURS * HOUR_US)
    seen = errors.rows(np.concatenate([np.arange(*bounds) for bounds in zip(low, high, strict=True)]).astype(int))
    place = tables.machine_ids.tolist().index(machine)
    said = {"machineID": np.full(count, machine), "age": np.full(count, tables.machine_age[place])}
    said |= {"model": [schema.models[tables.machine_model[place]]] * count}
    return {
        "telemetry": telemetry,
        "errors": column(
            REQUESTS, "errors", np.append(0, np.cumsum(high - low)), happened(seen, "errorID", schema.errors)
        ),
        "machines": column(REQUESTS, "machines", np.arange(count + 1), said),
    }


def happened(events: Events, name: str, codes: tuple[str, ...]) -> dict[str, Any]:
    """The columns of events."""
    of = pa.array([codes[code] for code in events.code.tolist()], pa.string())
    return {"datetime": times(events.time), "machineID": events.machine, name: of}


def fed_back(tables: Tables, schema: Schema) -> dict[str, pa.StructArray]:
    """All that happened, machine by machine, and until when it is complete."""
    assert tables.failures is not None
    found, ids = {}, tables.machine_ids
    for name, events, code in (("failures", tables.failures, "failure"), ("maint", tables.maint, "comp")):
        cuts = np.append(np.searchsorted(events.machine, ids), len(events.machine))
        found[name] = column(FEEDBACK, name, cuts, happened(events, code, schema.components))
    last = {"datetime": times(np.full(len(ids), tables.time.max())), "machineID": ids}
    return found | {"complete_until": column(FEEDBACK, "complete_until", np.arange(len(ids) + 1), last)}


def write(sink: Sink, tables: Tables, schema: Schema, every: int) -> int:
    """Write the log of a fleet; the number of its requests."""
    for table in (REQUESTS, FEEDBACK):
        sink.create(table)
    requests, feedback = (DeltaTable(sink.location(table)) for table in (REQUESTS, FEEDBACK))
    count, waiting = 0, []
    for segment, machine in enumerate(tables.machine_ids.tolist(), start=1):
        waiting.append(records(REQUESTS, "one", segment, count, windows(tables, schema, machine, every)))
        count += len(waiting[-1])
        if sum(map(len, waiting)) >= AT_ONCE or machine == tables.machine_ids[-1]:
            commit(requests, pa.concat_tables(waiting), "one", segment)
            waiting = []
    commit(feedback, records(FEEDBACK, "two", 1, 0, fed_back(tables, schema)), "two", 1)
    return count


def steps(folder: Path, sink: Sink) -> list[tuple[str, float, float, float]]:
    """Each step of a retraining: its name, seconds, processor seconds, and the most memory so far in GiB."""
    shutil.copytree(Path(model.__file__).parent, folder / "model", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PARAMS, folder / "model/params.yaml")
    versions = [str(DeltaTable(sink.location(table)).version()) for table in (REQUESTS, FEEDBACK)]
    source = Path(model.__file__).parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{source}", "GIT_DIR": str(folder / "none")}
    with subprocess.Popen(
        [sys.executable, "-c", STEPS, sink.place, *versions],
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    ) as started:  # fmt: skip
        assert started.stdout is not None
        found = []
        for line in started.stdout:
            if line.startswith("["):
                found.append(tuple(json.loads(line)))
                say("{}: {:.0f} s, {:.0f} CPU-s, {:.2f} GiB".format(*found[-1]))
    if started.returncode:
        raise SystemExit(f"the retraining ended with exit code {started.returncode} after {len(found)} steps")
    return found


def main() -> int:
    """Write a log, retrain from it, and print what each step took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=40)
    parser.add_argument("--days", type=int, default=149, help="of the fleet's life (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="hours between a machine's windows (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="closedloop-retrain-") as top:
        sink, schema = Sink(f"{top}/sink"), params.load(PARAMS).schema
        made = simulate("default", args.machines, args.days, 7, schema)
        requests = write(sink, made.tables, schema, args.every)
        del made
        say(f"the log has {requests:,} requests")
        found = steps(Path(top), sink)
    points = [Point("requests in the log", requests, "")]
    for name, wall, cpu, peak in found:
        points += [Point(f"{name}, seconds", wall, "s"), Point(f"{name}, processor", cpu, "CPU-s")]
        points += [Point(f"{name}, most memory until its end", peak, "GiB", most=LIMIT_GIB)]
    return finish("log_retrain", points, arguments=vars(args))


if __name__ == "__main__":
    sys.exit(main())
