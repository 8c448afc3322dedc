"""Read public data sets as the five tables. A set is recognised by its files.

========= ============================================= ========================= ===================================
format    files                                         machine                   row
========= ============================================= ========================= ===================================
`cmapss`  ``train_FD00n.txt``, ``.gz`` or not           engine unit               a cycle counts as an hour, the last
                                                                                  one is the failure of ``engine``
`skab`    CSV with ``;``: ``anomaly-free.csv`` and      file                      a reading counts as a minute, since
          ``valve1/0.csv`` to ``other/14.csv``                                    a schema counts whole minutes; the
                                                                                  readings are 1 to 2 seconds apart
`nab`     CSV ``timestamp,value``, and the labels in    file                      5 minutes; of readings that repeat a
          ``windows.json``                                                        time, the first
========= ============================================= ========================= ===================================

`skab` and `nab` have telemetry and labelled anomalies only. None of the sets publishes plausible ranges, so their
schemas have one very wide range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from closedloop.data.schema import DataError

RANGE = [-1e6, 1e6]
SKAB_MACHINES = {"anomaly-free": 0, "valve1": 100, "valve2": 200, "other": 300}  # the number of a file's name is added
SKAB_PREFIX = 400  # rows of each file: the published protocol
NAB_PREFIX, NAB_PREFIX_ROWS = 0.15, 750  # the published probation: a share of each series, up to so many rows
CMAPSS_SENSORS = [f"setting{i}" for i in range(1, 4)] + [f"sensor{i}" for i in range(1, 22)]
CMAPSS_START = pd.Timestamp("2000-01-01", tz="UTC")


@dataclass(frozen=True)
class Dataset:
    """A public set: its schema (the ``schema:`` section of ``params.yaml``), split, tables and anomalies.

    ``split`` replaces the same keys in ``split:`` of ``params.yaml``.
    """

    format: str
    split: dict[str, object]
    schema: dict[str, object]
    frames: dict[str, pd.DataFrame]
    anomalies: pd.DataFrame | None = field(default=None)


def read(location: Path) -> Dataset | None:
    """The public set in this folder or file, or None where none is recognised.

    Raises:
        DataError: the set is recognised, but cannot be read.
    """
    files = [location] if location.is_file() else sorted(path for path in location.rglob("*") if path.is_file())
    engines = [path for path in files if re.fullmatch(r"train_FD\d{3}\.txt(\.gz)?", path.name)]
    if engines:
        return _cmapss(engines)
    heads = {path: _first_line(path) for path in files if path.suffix == ".csv"}
    if valves := [path for path, head in heads.items() if head.startswith("datetime;Accelerometer1RMS;")]:
        return _skab(valves)
    if series := [path for path, head in heads.items() if head == "timestamp,value"]:
        return _nab(series)
    return None


def _first_line(path: Path) -> str:
    """The first line of a text file, without its end."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip()


def _schema(sensors: Iterable[str], minutes: int, components: list[str], models: list[str]) -> dict[str, object]:
    """The ``schema:`` section of a public set."""
    return {
        "sensors": dict.fromkeys(sensors, RANGE),
        "components": components,
        "errors": [],
        "models": models,
        "sampling_minutes": minutes,
    }


def _intervals(rows: list[tuple[int, pd.Timestamp, pd.Timestamp]]) -> pd.DataFrame:
    """The table of labelled anomalies, from (machine, start, end). The labels give neither sensor nor severity."""
    table = pd.DataFrame(rows, columns=["machineID", "start", "end"])
    for name in ("start", "end"):
        table[name] = pd.to_datetime(table[name], utc=True).dt.as_unit("us")
    table["machineID"] = table["machineID"].astype("int64")
    table["sensor"] = pd.Series(None, index=table.index, dtype="str")
    return table.assign(kind="labelled", severity=np.nan, leads_to_failure=False)


def _cmapss(paths: list[Path]) -> Dataset:
    """Read C-MAPSS (Saxena et al. 2008). With more than one subset, unit u of FD00n is machine 1000 n + u."""
    telemetry, failures, machines = [], [], []
    for path in paths:
        subset = path.name[len("train_") :].split(".")[0]
        try:
            table = pd.read_csv(path, sep=r"\s+", header=None, names=["unit", "cycle", *CMAPSS_SENSORS])
            unit, cycle = (pd.to_numeric(table[name]).astype("int64") for name in ("unit", "cycle"))
            if table.empty or table.isna().any(axis=None):
                raise ValueError("the file is empty, or a row is too short")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a C-MAPSS table of unit, cycle and 24 readings ({error})") from error
        machine = unit + (1000 * int(subset[2:]) if len(paths) > 1 else 0)
        time = CMAPSS_START + pd.to_timedelta(cycle, unit="h")
        head = pd.DataFrame({"datetime": pd.to_datetime(time, utc=True).dt.as_unit("us"), "machineID": machine})
        telemetry.append(pd.concat([head, table[CMAPSS_SENSORS].astype("float64")], axis=1))
        failures.append(head.loc[cycle.groupby(machine).idxmax()].assign(failure="engine"))
        machines.append(pd.DataFrame({"machineID": machine.unique(), "model": subset, "age": np.nan}))
    models = sorted(frame["model"].iloc[0] for frame in machines)
    frames = {
        "telemetry": pd.concat(telemetry, ignore_index=True),
        "failures": pd.concat(failures, ignore_index=True),
        "machines": pd.concat(machines, ignore_index=True),
    }
    return Dataset("cmapss", {"rule": "unit"}, _schema(CMAPSS_SENSORS, 60, ["engine"], models), frames)


def _skab(paths: list[Path]) -> Dataset:
    """Read SKAB (Katser and Kozitsin 2020). Machines are numbered by file name, whichever files are read."""
    telemetry, intervals = [], []
    for path in paths:
        group, number = (path.stem, "0") if path.stem in SKAB_MACHINES else (path.resolve().parent.name, path.stem)
        if group not in SKAB_MACHINES or not number.isdigit():
            raise DataError(f"{path}: not a file of SKAB; its files are anomaly-free.csv and <group>/<number>.csv with "
                            f"the groups {', '.join(list(SKAB_MACHINES)[1:])}")  # fmt: skip
        machine = SKAB_MACHINES[group] + int(number)
        try:
            table = pd.read_csv(path, sep=";")
            start = pd.to_datetime(table["datetime"], utc=True).iloc[0]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise DataError(f"{path}: not a table of SKAB ({error})") from error
        sensors = [name for name in table.columns if name not in ("datetime", "anomaly", "changepoint")]
        time = pd.Series(pd.date_range(start, periods=len(table), freq="min").as_unit("us"))
        head = pd.DataFrame({"datetime": time, "machineID": np.full(len(table), machine, np.int64)})
        telemetry.append(pd.concat([head, table[sensors]], axis=1))
        if "anomaly" in table:
            odd = np.flatnonzero(np.diff(table["anomaly"].to_numpy() == 1, prepend=False, append=False))
            intervals += [(machine, time[a], time[b - 1]) for a, b in odd.reshape(-1, 2).tolist()]
    frames = {"telemetry": pd.concat(telemetry, ignore_index=True)}
    schema = _schema(frames["telemetry"].columns[2:], 1, [], [])
    return Dataset("skab", {"rule": "prefix", "prefix": SKAB_PREFIX}, schema, frames, _intervals(intervals))


def _nab(paths: list[Path]) -> Dataset:
    """Read NAB (Lavin and Ahmad 2015). Machines are 1, 2, … in order of the file names."""
    telemetry, intervals = [], []
    for machine, path in enumerate(paths, start=1):
        try:
            table = pd.read_csv(path, parse_dates=["timestamp"], date_format="ISO8601")
            time = table["timestamp"].dt.tz_localize("UTC").dt.as_unit("us")
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a series of NAB ({error})") from error
        frame = pd.DataFrame({"datetime": time, "machineID": machine, "value": table["value"]})
        telemetry.append(frame.drop_duplicates("datetime").sort_values("datetime"))
        intervals += [(machine, pd.Timestamp(a, tz="UTC"), pd.Timestamp(b, tz="UTC")) for a, b in _windows(path)]
    frames = {"telemetry": pd.concat(telemetry, ignore_index=True)}
    prefix = NAB_PREFIX_ROWS if min(map(len, telemetry)) * NAB_PREFIX >= NAB_PREFIX_ROWS else NAB_PREFIX
    split: dict[str, object] = {"rule": "prefix", "prefix": prefix}
    return Dataset("nab", split, _schema(["value"], 5, [], []), frames, _intervals(intervals))


def _windows(path: Path) -> list[list[str]]:
    """The anomaly windows of one series, from the windows.json beside it; empty without that file."""
    labels = path.with_name("windows.json")
    if not labels.exists():
        return []
    try:
        windows = json.loads(labels.read_text(encoding="utf-8"))
        return [window for name, found in windows.items() if Path(name).name == path.name for window in found]
    except (ValueError, AttributeError) as error:
        raise DataError(f"{labels}: not the windows of NAB, {{file: [[start, end], …]}} ({error})") from error
