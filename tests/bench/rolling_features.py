"""Time of rolling means and deviations (3 h, 24 h, four sensors): our kernel, pandas, polars and a notebook.

    python tests/bench/rolling_features.py --machines 100 1000

All values are compared before anything is timed. Our kernel streams machine by machine on two threads, as training on
large fleets and prediction do; the time for the whole matrix is shown too. pandas and polars use windows of hours, as
our kernel does, which respect gaps in time. Their windows of a number of rows, which do not, are shown beside.

The notebook is Microsoft's Modelling Guide for Predictive Maintenance, in today's pandas. It computes every third hour
only: its 3 h figures at label T are ours of T - 1 h, its 24 h figures (the first of each bin) ours of T - 3 h. Our
kernel is timed at every hour, on three times as many rows, which favours the notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "2")  # both cores, as ours

import numpy as np
import pandas as pd
import polars as pl
import yaml
from harness import BENCHES, PARAMS, Point, Seconds, by_turns, finish, say

from closedloop.data.schema import HOUR_US, Events, Float64, Schema, Tables
from closedloop.data.simulate import simulate
from closedloop.features.kernel import compute, iter_machines
from closedloop.features.spec import Constants, FeatureSpec

HOURS = (3, 24)
FIGURES = tuple((kind, hours) for hours in HOURS for kind in ("mean", "std"))
# a running sum, as pandas and polars keep it, forgets no rounding error of the rows before: of a sensor's typical value
TOLERANCE = {"mean": 1e-10, "std": 1e-6}
TARGETS = {  # machines: least speed-up over pandas, the notebook and polars
    100: {"pandas": 10.0, "notebook": 25.0, "polars": 4.0},
    1000: {"pandas": 10.0, "notebook": 20.0, "polars": 2.0},
}
GROWTH = 1.2  # ten times the machines in at most twelve times the time
PEAK_GROWTH = 1.5  # of memory beyond the tables, however many more machines

Columns = dict[tuple[str, str, int], Float64]  # by sensor, kind and hours; one value for each row of telemetry


def schema_and_spec() -> tuple[Schema, FeatureSpec, Constants]:
    """The schema's sensors alone, and a spec of nothing but rolling figures (and the age, which every spec has)."""
    schema = Schema.from_dict(yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["schema"])
    bare = replace(schema, components=(), errors=(), models=())
    spec = FeatureSpec.from_params({"history_hours": max(HOURS), "rolling": {"windows_hours": list(HOURS)}}, bare)
    kept = [i for i, name in enumerate(spec.names) if name not in spec.custom]
    names, groups = (tuple(column[i] for i in kept) for column in (spec.names, spec.groups))
    nothing = np.zeros((1, len(schema.sensors)))
    return bare, replace(spec, names=names, groups=groups, custom=()), Constants(*[nothing] * 4)


class Ways:
    """One fleet and every way to compute its figures. ``<way>_columns`` puts what a way returns into columns."""

    def __init__(self, machines: int, days: int, seed: int = 7) -> None:
        self.schema, self.spec, self.constants = schema_and_spec()
        whole = Schema.from_dict(yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["schema"])
        made = simulate("azure", machines, days, seed, whole).tables
        self.tables = replace(made, errors=Events.empty(), maint=Events.empty(), failures=None)
        self.sensors = list(self.schema.sensors)
        columns = {"datetime": self.tables.time.astype("datetime64[us]"), "machineID": self.tables.machine}
        columns |= dict(zip(self.sensors, self.tables.values, strict=True))
        self.frame = pd.DataFrame(columns)
        self.polars = pl.DataFrame(columns)

    def ours(self) -> None:
        """Our kernel, streamed through reused buffers."""
        for _ in iter_machines(self.tables, self.spec, self.constants, self.schema, threads=2):
            pass

    def timed(self) -> dict[str, Callable[[], object]]:
        """Every way by its name, ours first."""
        return {
            "ours": self.ours,
            "ours, whole": self.our_matrix,
            "pandas": self.pandas,
            "pandas by rows": self.pandas_by_rows,
            "notebook": self.notebook,
            "polars": self.polars_,
            "polars by rows": self.polars_by_rows,
        }

    def our_columns(self) -> Columns:
        """The streamed values, by sensor, kind and hours."""
        X = np.empty((len(self.spec.names), len(self.tables.time)))
        start = 0
        for part in iter_machines(self.tables, self.spec, self.constants, self.schema, threads=2):
            X[:, start : start + len(part.time)] = part.X
            start += len(part.time)
        names = self.spec.names
        return {(s, kind, h): X[names.index(f"{s}_{kind}_{h}h")] for s in self.sensors for kind, h in FIGURES}

    def our_matrix(self) -> object:
        """Our kernel, with the whole matrix in new memory."""
        return compute(self.tables, self.spec, self.constants, self.schema, threads=2)

    def pandas(self) -> list[Any]:
        """Plain ``groupby.rolling`` over hours."""
        windows = [self.frame.groupby("machineID").rolling(f"{hours}h", on="datetime")[self.sensors] for hours in HOURS]
        return [figure for window in windows for figure in (window.mean(), window.std())]

    def pandas_by_rows(self) -> list[Any]:
        """Plain ``groupby.rolling`` over a number of rows."""
        grouped = self.frame.groupby("machineID")[self.sensors]
        windows = [grouped.rolling(hours, min_periods=1) for hours in HOURS]
        return [figure for window in windows for figure in (window.mean(), window.std())]

    def pandas_columns(self, made: list[Any]) -> Columns:
        """The values by sensor, kind and hours."""
        return {
            (s, kind, h): frame[s].to_numpy()
            for (kind, h), frame in zip(FIGURES, made, strict=True)
            for s in self.sensors
        }

    def polars_(self) -> list[Any]:
        """``rolling`` over hours, by machine."""
        return [
            self.polars.rolling("datetime", period=f"{hours}h", group_by="machineID").agg(
                pl.col(self.sensors).mean().name.suffix("_mean"), pl.col(self.sensors).std().name.suffix("_std")
            )
            for hours in HOURS
        ]

    def polars_by_rows(self) -> Any:
        """``rolling_mean`` and ``rolling_std`` over a number of rows, by machine."""
        every = pl.col(self.sensors)
        return self.polars.select(
            figure.over("machineID").name.suffix(f"_{kind}_{hours}")
            for hours in HOURS
            for kind, figure in (
                ("mean", every.rolling_mean(hours, min_samples=1)),
                ("std", every.rolling_std(hours, min_samples=2)),
            )
        )

    def polars_columns(self, made: list[Any]) -> Columns:
        """The values by sensor, kind and hours. Where our kernel gives NaN, polars gives null."""
        return {
            (s, kind, h): made[HOURS.index(h)][f"{s}_{kind}"].fill_null(np.nan).to_numpy()
            for s in self.sensors
            for kind, h in FIGURES
        }

    def notebook(self) -> Any:
        """The notebook's telemetry features, statement by statement."""

        def pivot(sensor: str) -> Any:
            return pd.pivot_table(self.frame, index="datetime", columns="machineID", values=sensor)

        def every_third_hour(values: Any) -> Any:
            return values.resample("3h", closed="left", label="right")

        figures = []
        for kind, hours in FIGURES:
            columns = []
            for sensor in self.sensors:
                if hours == 3:
                    found = getattr(every_third_hour(pivot(sensor)), kind)()
                else:
                    found = every_third_hour(getattr(pivot(sensor).rolling(window=24), kind)()).first()
                columns.append(found.unstack())  # noqa: PD010  # as the notebook has it
            figure = pd.concat(columns, axis=1)
            figure.columns = [f"{sensor}_{kind}_{hours}" for sensor in self.sensors]
            figures.append(figure.reset_index())
        return pd.concat([figures[0], *(figure.iloc[:, 2:] for figure in figures[1:])], axis=1).dropna()

    def notebook_differences(self, made: Any, ours: Columns) -> dict[str, float]:
        """The largest difference of each kind, at the rows that the notebook gives.

        Raises:
            SystemExit: it gave other rows than every third of each machine.
        """
        ids, offsets = self.tables.bounds()
        start = offsets[np.searchsorted(ids, made["machineID"].to_numpy())]
        label = made["datetime"].to_numpy().astype("datetime64[us]").astype(np.int64)
        row = start + (label - self.tables.time[start]) // HOUR_US
        hours = len(self.tables.time) // len(ids)
        if len(made) != len(ids) * (hours // 3 - 7) or self.tables.time[row - 1].tolist() != (label - HOUR_US).tolist():
            raise SystemExit("not timed: the notebook gives other rows than every third from the first full day on")
        # the first of a bin is the first that is there: for the bin in which the window fills, that is its last row
        at = {3: row - 1, 24: np.maximum(row - 3, start + 23)}
        theirs = {key: made["_".join(map(str, key))].to_numpy() for key in ours}
        return differences({key: column[at[key[2]]] for key, column in ours.items()}, theirs)


def differences(ours: Columns, theirs: Columns) -> dict[str, float]:
    """The largest difference of each kind of figure, in units of the sensor's mean; infinite where one is NaN."""
    largest = dict.fromkeys(TOLERANCE, 0.0)
    for key, own in ours.items():
        other = theirs[key]
        same = (np.isnan(own) == np.isnan(other)).all() if own.shape == other.shape else False
        off = (
            float(np.nanmax(np.abs(own - other)) / np.nanmean(np.abs(ours[key[0], "mean", key[2]]))) if same else np.inf
        )
        largest[key[1]] = max(largest[key[1]], off)
    return largest


def check(ways: Ways) -> dict[str, dict[str, float]]:
    """The largest differences between ours and each other way.

    Raises:
        SystemExit: a way gives other values.
    """
    ours = ways.our_columns()
    matrix, names = ways.our_matrix(), ways.spec.names
    for (sensor, kind, hours), column in ours.items():
        if column.tobytes() != matrix.X[names.index(f"{sensor}_{kind}_{hours}h")].tobytes():  # type: ignore[attr-defined]
            raise SystemExit(f"not timed: streamed and whole, {sensor}_{kind}_{hours}h is not the same")
    del matrix
    rows = ways.polars_by_rows()
    by_rows = {(s, kind, h): rows[f"{s}_{kind}_{h}"].fill_null(np.nan).to_numpy() for s, kind, h in ours}
    found = {"polars by rows": differences(ours, by_rows)}
    del rows, by_rows
    found["polars"] = differences(ours, ways.polars_columns(ways.polars_()))
    found["pandas"] = differences(ours, ways.pandas_columns(ways.pandas()))
    found["pandas by rows"] = differences(ours, ways.pandas_columns(ways.pandas_by_rows()))
    found["notebook"] = ways.notebook_differences(ways.notebook(), ours)
    for way, largest in found.items():
        for kind, off in largest.items():
            if not off <= TOLERANCE[kind]:
                raise SystemExit(f"not timed: {way} gives another {kind}, by {off:.2g} of the sensor's mean")
    return found


def peak(machines: int, days: int) -> float:
    """The peak memory in MiB that streaming takes beyond the tables, in this process. NaN where it is not Linux."""

    def memory(field: str) -> float:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), float("nan"))

    schema, spec, constants = schema_and_spec()
    rows, rng = 24 * days, np.random.default_rng(0)

    def fleet(count: int) -> Tables:
        values = np.empty((len(schema.sensors), count * rows))
        rng.standard_normal(out=values)
        time = np.tile(np.arange(rows) * HOUR_US, count)
        ids = np.empty(0, np.int64)
        machine = np.repeat(np.arange(count), rows)
        nothing = Events.empty()
        return Tables(machine, time, values, nothing, nothing, None, ids, ids.astype(np.int16), ids.astype(float))

    for _ in iter_machines(fleet(4), spec, constants, schema, threads=2):  # so that code and threads are loaded before
        pass
    tables = fleet(machines)
    before = memory("VmRSS")
    for _ in iter_machines(tables, spec, constants, schema, threads=2):
        pass
    return memory("VmHWM") - before


def peaks(sizes: list[int], days: int) -> dict[int, float]:
    """The peak memory beyond the tables for each size, each measured in its own process."""
    # the harness is found even where a script's own folder is no place to import from, as under make test
    environment = os.environ | {"PYTHONPATH": f"{BENCHES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    found = {}
    for machines in sizes:
        command = [sys.executable, __file__, "--peak", str(machines), "--days", str(days)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found[machines] = json.loads(done.stdout)
    return found


def main(words: list[str]) -> int:
    """Compare, time, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--machines", type=int, nargs="+", default=[100, 1000])
    flags.add_argument("--days", type=int, default=365)
    flags.add_argument("--rounds", type=int, default=5, help="of the smallest fleet; the others take 3 at most")
    flags.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = flags.parse_args(words)
    if args.peak:
        print(json.dumps(peak(args.peak, args.days)))
        return 0
    sizes, points, seconds, fleets = sorted(args.machines), [], {}, {}
    memory = peaks(sizes, args.days)
    for machines in sizes:
        say(f"simulating {machines:,} machines")
        ways = Ways(machines, args.days)
        say(f"comparing the values of {len(ways.tables.time):,} rows")
        off = check(ways)
        rounds = args.rounds if machines == sizes[0] else min(args.rounds, 3)
        took = seconds[machines] = by_turns(ways.timed(), rounds)
        fleets[str(machines)] = {"rows": len(ways.tables.time), "differences": off, "seconds": asdict(took)}
        for name in list(took.wall)[1:]:
            least = TARGETS.get(machines, {}).get(name)
            points.append(Point(f"{machines:,} machines: {name} / ours", took.ratio(name, "ours"), least=least))
        del ways
    points += [
        Point(f"{machines:,} machines: peak memory beyond the tables", own, "MiB") for machines, own in memory.items()
    ]
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        both = Seconds({str(size): seconds[size].wall["ours"] for size in (small, large)}, {})
        growth = both.ratio(str(large), str(small))
        points += [
            Point(f"time of {large:,} machines / {small:,}", growth, most=GROWTH * large / small),
            Point(f"peak memory of {large:,} machines / {small:,}", memory[large] / memory[small], most=PEAK_GROWTH),
        ]
    return finish("rolling_features", points, args.out, tolerance=TOLERANCE, fleets=fleets)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
