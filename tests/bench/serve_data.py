"""The requests, from a simulated fleet, and the scikit-learn model that answers in column A."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import yaml
from harness import BENCHES, PARAMS
from sklearn.ensemble import HistGradientBoostingClassifier

from closedloop.data.frames import tables_to_frames
from closedloop.data.schema import Schema
from closedloop.data.simulate import simulate
from closedloop.heads.failure import FIXED

sys.path.insert(0, str(BENCHES / "peers"))
import window

DAYS_BEFORE = 40  # of the requests' last hour, so that most components have been replaced
Frames = dict[str, pd.DataFrame]


def fleet(machines: int, days: int, seed: int) -> Frames:
    """The five tables of a simulated fleet."""
    schema = Schema.from_dict(yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["schema"])
    return tables_to_frames(simulate("default", machines, days, seed, schema).tables, schema)


def cut(frames: Frames, end: pd.Timestamp, hours: float) -> Frames:
    """The tables that a caller sends at a time: the last hours, and each component's last replacement, however old."""
    since = end - pd.Timedelta(hours=hours)
    telemetry, errors, maint = (
        frames[name][frames[name]["datetime"] <= end] for name in ("telemetry", "errors", "maint")
    )
    return {
        "telemetry": telemetry[telemetry["datetime"] > since],
        "errors": errors[errors["datetime"] > since],
        "maint": maint.sort_values("datetime")
        .groupby(["machineID", "comp"])
        .tail(1)
        .sort_values(["machineID", "datetime"]),
        "machines": frames["machines"],
    }


def body(frames: Frames, machines: int) -> bytes:
    """The body of a request of the first ``machines`` machines."""

    def columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
        own = frame[frame["machineID"] <= machines]
        texts = {"datetime": own["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")} if "datetime" in own else {}
        readings = {name: own[name].round(6) for name in window.SENSORS if name in own}
        return {name: column.tolist() for name, column in own.assign(**texts, **readings).items()}

    return msgspec.json.encode({name: columns(frame) for name, frame in frames.items()})


def bodies(sizes: list[int], hours: float) -> dict[int, bytes]:
    """The body of one request for each number of machines."""
    frames = fleet(max(sizes), DAYS_BEFORE, seed=3)
    frames = cut(frames, frames["telemetry"]["datetime"].max(), hours)
    return {size: body(frames, size) for size in sizes}


def fit(path: Path, hours: float) -> None:
    """Train column A's model on rows from the function that serves it, with labels 24 hours ahead."""
    frames = fleet(60, 120, seed=5)
    parameters = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["failure"]["parameters"]
    first, last = frames["telemetry"]["datetime"].agg(["min", "max"])
    failures = frames["failures"]
    rows, labels = [], []
    for end in pd.date_range(first + pd.Timedelta(hours=hours), last - pd.Timedelta(hours=24), freq="24h"):
        rows.append(window.features(**cut(frames, end, hours)))
        ahead = failures[(failures["datetime"] > end) & (failures["datetime"] <= end + pd.Timedelta(hours=24))]
        labels.append(pd.DataFrame({
            name: rows[-1].index.isin(ahead[ahead["failure"] == name]["machineID"]) for name in window.COMPONENTS
        }))  # fmt: skip
    table, truth = pd.concat(rows), pd.concat(labels)
    chart = [name for name in table.columns if name.endswith("_ewma_6h")]
    heads = {
        name: HistGradientBoostingClassifier(**parameters, **FIXED, random_state=0).fit(table.to_numpy(), truth[name])
        for name in window.COMPONENTS
    }
    location, scale = table[chart].mean().to_numpy(), table[chart].std().to_numpy()
    highest = np.abs((table[chart].to_numpy() - location) / scale).max(axis=1)
    threshold = float(np.quantile(highest, 0.99))
    joblib.dump({"chart": chart, "location": location, "scale": scale, "threshold": threshold, "heads": heads}, path)
