"""Run, test and serve a copy whose fleet this template was not made for: ``make fleet FLEET=names``.

Writes the fleet's files and a copy of the repository below build/fleets/, adopts the files there, and runs what their
owner runs: the commands of ``STEPS``, until one fails; those of ``IMAGE_STEPS`` are skipped by name where no container
engine answers. Without FLEET it does so for each of ``FLEETS`` in turn.
"""

from __future__ import annotations

import csv
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "IMAGE=closedloop:fleet"  # leaves closedloop:dev to the outer repository
IMAGE_STEPS = (("image", IMAGE), ("image-test", IMAGE))
STEPS = (("adopt", "DATA=../files"), ("run", "QUICK=1"), ("test",), ("contract",), ("check",), *IMAGE_STEPS)
START = datetime(2026, 1, 5, tzinfo=UTC)
WEAR_HOURS = 48  # before a failure, in which every sensor drifts
OF_THIS_PROGRAM = {"PYTHONPATH", "PYTHONSAFEPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}  # no business of the copy


@dataclass(frozen=True)
class OtherFleet:
    """What the files of a fleet hold. Each sensor has a mean and a deviation; wear moves it by up to five of these."""

    sensors: dict[str, tuple[float, float]]
    machines: tuple[str, ...]
    days: int
    minutes: int  # between two rows
    fails_every_days: int = 0  # 0: nobody wrote down a failure
    parts: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()  # of errors; none: there is no such file
    models: tuple[str, ...] = ()  # of machines; none: there is no such file


FLEETS = {
    "names": OtherFleet(
        {"oil temp [°C]": (61.0, 1.5), "load %": (70.0, 5.0), "flow": (12.0, 0.4)},
        tuple(f"press {line}-{number}" for line in "AB" for number in range(1, 11)),
        days=200,
        minutes=60,
        fails_every_days=14,
        parts=("seal", "bearing (left)"),
        codes=("E 7", "E/9"),
        models=("Ä-200", "B"),
    ),
    "one-sensor": OtherFleet(
        {"vibration": (2.5, 0.2)},
        tuple(map(str, range(1, 7))),
        days=40,
        minutes=10,
        fails_every_days=5,
        parts=("pump",),
    ),
    "anomaly-only": OtherFleet(
        {"rpm": (1500.0, 12.0), "amps": (31.0, 1.0)}, ("7", "12", "31", "40"), days=60, minutes=30
    ),
}


def write_files(fleet: OtherFleet, folder: Path) -> None:
    """Write the CSV files of a fleet: telemetry, and of events and machines those that it has."""
    chance = random.Random(11)  # noqa: S311 - nothing secret
    readings: list[list[str]] = []
    events: dict[str, list[list[str]]] = {"failure": [], "comp": [], "errorID": []}
    for number, machine in enumerate(fleet.machines):
        failures = list(_failures(fleet, number, chance))
        readings += _readings(fleet, machine, [at for at, _ in failures], chance)
        for at, part in failures:
            events["failure"].append([_text(at), machine, part])
            events["comp"].append([_text(at), machine, part])  # it is replaced at once
            if fleet.codes:
                before = at - timedelta(hours=chance.randint(4, 30))
                events["errorID"].append([_text(before), machine, chance.choice(fleet.codes)])
    folder.mkdir(parents=True)
    _write(folder / "telemetry.csv", ["time", "machine", *fleet.sensors], readings)
    for name, column in (("failures", "failure"), ("maint", "comp"), ("errors", "errorID")):
        if events[column]:
            _write(folder / f"{name}.csv", ["time", "machine", column], events[column])
    if fleet.models:
        described = [[m, fleet.models[n % len(fleet.models)], str(n % 15)] for n, m in enumerate(fleet.machines)]
        _write(folder / "machines.csv", ["machine", "model", "age"], described)


def _failures(fleet: OtherFleet, number: int, chance: random.Random) -> Iterator[tuple[datetime, str]]:
    """Yield the time and the part of each failure of a machine."""
    at, end = START + timedelta(days=2 + number % 3), START + timedelta(days=fleet.days - 1)
    while fleet.fails_every_days:
        at += timedelta(hours=24 * fleet.fails_every_days + chance.randint(-24, 24))
        if at >= end:
            return
        yield at, chance.choice(fleet.parts)


def _readings(fleet: OtherFleet, machine: str, failures: list[datetime], chance: random.Random) -> Iterator[list[str]]:
    """Yield the rows of a machine."""
    for row in range(fleet.days * 24 * 60 // fleet.minutes):
        at = START + timedelta(minutes=row * fleet.minutes)
        hours = min(((end - at).total_seconds() / 3600 for end in failures if end >= at), default=math.inf)
        moved = 5 * max(0.0, 1 - hours / WEAR_HOURS)
        sensors = fleet.sensors.values()
        yield [_text(at), machine, *(f"{chance.gauss(mean + moved * noise, noise):.4f}" for mean, noise in sensors)]


def _text(at: datetime) -> str:
    """Return a time as spreadsheets write it."""
    return at.strftime("%Y-%m-%d %H:%M")


def _write(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def copy_repository(folder: Path) -> None:
    """Copy what is committed here or would be into a new repository with one commit, and lend it the environment."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for words in (["init", "--quiet", "--initial-branch=main"], ["add", "."], [*identity, "commit", "-qm", "Copy"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    with (folder / ".git/info/exclude").open("a", encoding="utf-8") as file:
        file.write("/.venv\n")


def show(name: str, folder: Path) -> list[str]:
    """Adopt a fleet in a copy and run its commands with their output shown; return a line for each that was run."""
    shutil.rmtree(folder, ignore_errors=True)
    write_files(FLEETS[name], folder / "files")
    copy_repository(folder / "copy")
    environment = {key: value for key, value in os.environ.items() if key not in OF_THIS_PROGRAM}

    def make(words: tuple[str, ...]) -> int:
        print(f"\n== {name}: make {' '.join(words)}", flush=True)
        command = ["make", "--no-print-directory", "INSTALLED=", *words]  # the lent environment stays as it is
        return subprocess.run(command, cwd=folder / "copy", env=environment, check=False).returncode

    rows: list[str] = []
    for words in STEPS:
        start = time.monotonic()
        told = f"{name}: make {' '.join(words):33}"
        if words == IMAGE_STEPS[0] and make(("engine",)):
            return [*rows, f"{0:6} s  {told} skipped: it needs a container engine"]
        code = make(words)
        rows.append(f"{time.monotonic() - start:6.0f} s  {told} exit code {code}")
        if code:
            break
    return rows


def main(words: list[str]) -> int:
    """Run the steps for these fleets, or for all; return 0 where each command of each succeeded."""
    if unknown := [word for word in words if word not in FLEETS]:
        print(f"make fleet: FLEET is {unknown[0]!r}; name one of {', '.join(FLEETS)}", file=sys.stderr)
        return 2
    rows = [row for name in words or FLEETS for row in show(name, ROOT / "build/fleets" / name)]
    print("\n" + "\n".join(rows))
    return 0 if all(row.endswith((" exit code 0", " container engine")) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
