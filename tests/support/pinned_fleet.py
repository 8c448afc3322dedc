"""A repository of its own with a small fleet to pin, and what a run reads through the pin."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd

from model import data, data_pin, validate
from model.common import cli, pinned_files, places, provenance
from model.common import data_pin as pins


def repository(folder, monkeypatch):
    """Work in an empty repository without git, with the pin of one simulated fleet."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_DIR", str(folder / "none"))
    monkeypatch.delenv(pinned_files.CACHE, raising=False)
    for module in (pinned_files, places, provenance):
        monkeypatch.setattr(module, "ROOT", folder)
    lock = folder / "model" / "data.lock.json"
    for module in (pins, pinned_files):
        monkeypatch.setattr(module, "PIN", lock)
    pins.write([{"kind": "simulator", "profile": "default", "machines": 12, "days": 40, "seed": 7}])
    return SimpleNamespace(top=folder, lock=lock)


def readings(hours=600, machines=range(1, 13), start="2026-01-01", **more):
    """Hourly readings of the sensors that params.yaml names, no two of one sensor equal."""
    times = pd.date_range(start, periods=hours, freq="h").strftime("%Y-%m-%d %H:%M:%S")
    parts = []
    for machine in machines:
        small = pd.Series(range(hours)) / 1000 + machine
        columns = {"volt": 170 + small, "rotate": 440 + small, "pressure": 99 + small, "vibration": 40 + small}
        parts.append(pd.DataFrame({"datetime": times, "machineID": machine, **columns}))
    return pd.concat(parts, ignore_index=True).assign(**more)


def failures(machines=range(1, 13)):
    return pd.DataFrame({"datetime": "2026-01-09 07:00:00", "machineID": [*machines], "failure": "comp1"})


def write(folder):
    """Write the fleet into a folder, as people have it."""
    folder.mkdir(parents=True, exist_ok=True)
    readings().to_csv(folder / "PdM_telemetry.csv", index=False)
    failures().to_csv(folder / "PdM_failures.csv", index=False)
    return folder


def pin(*words):
    """Do what make data-pin does; return the pin."""
    data_pin.main(list(words))
    validate.main(["--pin"])
    return pins.load()


def run():
    """Fetch and validate as make run does; return the tables of telemetry and what describes the data."""
    data.main([])
    validate.main([])
    return pd.read_parquet("build/data/PdM_telemetry.parquet"), cli.read_json(cli.DATA / "data.json", "")


def dump(lock, pin):
    lock.write_text(json.dumps(pin))
