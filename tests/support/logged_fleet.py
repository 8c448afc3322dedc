"""A fleet's life through HTTP: its tables as requests and feedback to a real service, which ships its log to a sink."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

Frames = Mapping[str, pd.DataFrame]
SECONDS = 60  # for the service to start, and to end


@contextmanager
def service(folder: Path, bundle: Path, sink: str, **settings: str) -> Iterator[str]:
    """Serve a bundle; yield the address. At the end the service ships its log, and has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "service.txt"
    environment = os.environ | {
        "MODEL_DIR": str(bundle), "LOG_DIR": str(folder / "spool"), "LOG_SINK": sink, "AUTH": "open", "PORT": "0",
    } | settings  # fmt: skip
    with said.open("wb") as file:
        started = subprocess.Popen(
            [sys.executable, "-m", "score"], env=environment, cwd=folder, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", said.read_text())):
            assert started.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield found[1]
        started.terminate()
        assert started.wait(SECONDS) == 0, said.read_text()
    finally:
        started.kill()
        started.wait()


def live(address: str, frames: Frames, hours: int = 240, reported: bool = True) -> None:
    """Ask for an answer every so many hours, and report what happened, all of it in the end."""
    chunks = {name: frames[name] for name in ("telemetry", "errors", "maint", "failures")}
    telemetry, rest = frames["telemetry"]["datetime"], frames["telemetry"]["datetime"].min()
    while len(chunks["telemetry"]):
        rest += pd.Timedelta(hours=hours)
        last = rest > telemetry.max()
        mine = {name: frame if last else frame[frame["datetime"] < rest] for name, frame in chunks.items()}
        chunks = {name: frame.iloc[:0] if last else frame[frame["datetime"] >= rest] for name, frame in chunks.items()}
        failures = mine.pop("failures")
        post(address, "/score", {**mine, "machines": frames["machines"]})
        if reported:
            post(address, "/feedback", {"failures": failures, "maint": mine["maint"]})
    if reported:
        done = pd.DataFrame({"datetime": [telemetry.max()], "machineID": [None]})
        post(address, "/feedback", {"complete_until": done})


def post(address: str, route: str, tables: Frames) -> dict[str, Any]:
    """Post tables, those with rows; return the answer."""
    body = {name: columns(frame) for name, frame in tables.items() if len(frame)}
    if not body:
        return {}
    request = urllib.request.Request(  # noqa: S310 - the service's own address, on loopback
        address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
        return found


def columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """A frame as a request has it."""
    found = {}
    for name, column in frame.items():
        values = [text(value) for value in column] if name == "datetime" else column.tolist()
        found[str(name)] = [None if value is None or value != value else value for value in values]
    return found


def text(value: Any) -> str:
    """A time as a request has it."""
    return pd.Timestamp(value).tz_localize(None).isoformat() + "Z"
