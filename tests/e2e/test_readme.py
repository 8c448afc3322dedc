"""The commands of README.md, unchanged, on a fresh copy of the commit, with a fleet of CSV files."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from closedloop.data.frames import tables_to_frames
from closedloop.data.simulate import simulate
from simulated_fleet import SCHEMA

JOBS = {"make run": "train.yml", "make test": "test.yml", "make loop": "daily.yml"}  # too long to run twice
ANYWHERE = "path/to/folder"
SERVED = "make serve"  # in a sentence, for another terminal
PORT = "8000"
STRANGER = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}


def commands(root: Path) -> list[str]:
    """The commands in the README's code blocks, in order."""
    text = (root / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0].strip() for kind, block in blocks if not kind for line in block.splitlines()]


@pytest.fixture(scope="module")
def copy(copied: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a folder of the reference fleet's files in it."""
    folder = copied(tmp_path_factory.mktemp("readme") / "copy")
    theirs = folder / ANYWHERE
    theirs.mkdir(parents=True)
    for name, frame in tables_to_frames(simulate("default", 25, 365, 7, SCHEMA).tables, SCHEMA).items():
        frame.to_csv(theirs / f"{name}.csv", index=False)
    return folder


def in_copy(copy: Path, command: str) -> str:
    """What a command prints in the copy; its exit code must be 0."""
    done = subprocess.run(["bash", "-ec", command], cwd=copy, env=STRANGER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_every_command_is_run_somewhere(root: Path) -> None:
    told = commands(root)
    assert set(JOBS) < set(told)
    for command, file in JOBS.items():
        assert f"- run: {command}\n" in (root / ".github/workflows" / file).read_text(encoding="utf-8")
    others = [command for command in told if command not in JOBS]
    assert [command.split()[:2] for command in others] == [["make", "data-check"], ["make", "adopt"], ["curl", "-s"]]


@pytest.fixture(scope="module")
def trained(root: Path, copy: Path) -> Path:
    """The copy after the README's commands for your own fleet, and a run of that."""
    for command in [*(told for told in commands(root) if ANYWHERE in told), "make run QUICK=1"]:
        in_copy(copy, command)
    assert json.loads((copy / "build/data/data.json").read_text(encoding="utf-8"))["local"] is False
    return copy


@pytest.fixture
def served(
    root: Path, trained: Path, wait_ready: Callable[..., None], free_port: Callable[[], int], tmp_path: Path
) -> Iterator[int]:
    """The port of `make serve` in the copy."""
    assert f"`{SERVED}`" in (root / "README.md").read_text(encoding="utf-8")
    port, output = free_port(), tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            SERVED.split(),
            env=STRANGER | {"PORT": str(port)},
            cwd=trained,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_ready(client, lambda: None if process.poll() is None else output.read_text())
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def test_a_fleet_of_ones_own_is_trained_and_asked(root: Path, trained: Path, served: int) -> None:
    assert "<html" in (trained / "build/report/index.html").read_text(encoding="utf-8")
    (ask,) = [command for command in commands(root) if command.startswith("curl")]
    assert f"localhost:{PORT}/" in ask
    (result,) = json.loads(in_copy(trained, ask.replace(f":{PORT}/", f":{served}/")))["results"]
    assert any(head is not None for head in result["failure"].values())
