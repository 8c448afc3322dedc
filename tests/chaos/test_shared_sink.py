"""Three spools, one sink: shippers killed, tables compacted, files cut; each record is there once, versions stay."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from faults import until

from closedloop.log.commits import commit_files, read_commit
from closedloop.log.halt import halted, lift
from closedloop.log.repair import RepairError, Spools, take_back_torn
from closedloop.log.sink import Sink

ROUNDS = int(os.environ.get("ROUNDS", "60"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load(Path(__file__).parents[1] / "log" / "conftest.py")


class World:
    """Three spools, their sink, and the names of all records that were ever acknowledged."""

    def __init__(self, place, rng):
        self.rng = rng
        self.spools = [place / f"spool-{i}" for i in range(3)]
        self.sink = place / "sink"
        self.table = self.sink / "requests"
        self.names = []
        self.halts = 0

    def fill(self):
        for spool in self.spools:
            fresh = [f"{len(self.names) + i}" for i in range(self.rng.randint(1, 3))]
            kit.fill(spool, *[[kit.scored(name)] for name in fresh])
            self.names += fresh

    def kill_one(self):
        """Start a shipper and kill it while it ships."""
        folder = self.rng.choice(self.spools)
        left = len(list(folder.glob("*.seg")))
        process = subprocess.Popen(
            [sys.executable, "-m", "score.log.ship"],
            env={**os.environ, "LOG_DIR": str(folder), "LOG_SINK": str(self.sink)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: len(list(folder.glob("*.seg"))) < left or process.poll() is not None or self.is_halted(), 120)
        time.sleep(self.rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()

    def ship(self):
        for spool in self.rng.sample(self.spools, 3):
            kit.ship(spool, self.sink)

    def is_halted(self):
        return halted(Sink.at(str(self.sink), {}))

    def repair(self):
        """As ``log-repair`` does it, with all three spools named."""
        take_back_torn(self.table, Spools(tuple(self.spools)))
        lift(Sink.at(str(self.sink), {}))

    def cut_newest(self, saved):
        """As a power cut does: the newest commit of a spool is torn, and its segment is in the spool again."""
        spool = self.rng.choice(self.spools)
        kit.fill(spool, [kit.scored(f"{len(self.names)}")])
        self.names.append(f"{len(self.names)}")
        if self.is_halted():
            return
        (sealed, *_) = sorted(spool.glob("*.seg"), reverse=True)
        content = sealed.read_bytes()
        kit.ship(spool, self.sink)
        if sealed.exists():
            return
        sealed.write_bytes(content)
        commit = max(commit_files(self.table / "_delta_log"))
        tear(self.rng, self.table, commit, saved)

    def check(self):
        assert dict.fromkeys(self.names, 1) == dict(Counter(kit.ids(self.sink)))


def tear(rng, table, commit, saved):
    """Cut the commit at a byte or a line, or its data."""
    text = commit.read_bytes()
    saved[commit] = text
    kind = rng.choice(["bytes", "lines", "data"])
    if kind == "bytes":
        commit.write_bytes(text[: rng.randrange(len(text))])
    elif kind == "lines":
        commit.write_bytes(b"\n".join(text.split(b"\n")[: rng.randint(1, 2)]))
    else:
        for name in read_commit(commit).added:
            saved[table / name] = (table / name).read_bytes()
            (table / name).write_bytes(saved[table / name][: rng.randrange(len(saved[table / name]))])


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_killed_or_cut_each_record_is_there_once(tmp_path, progress, seed):
    world = World(tmp_path, random.Random(seed))  # noqa: S311
    pins = {}
    for turn in range(ROUNDS):
        world.fill()
        saved = {}
        if world.rng.random() < 0.3:
            world.kill_one()
        if world.rng.random() < 0.6:
            world.ship()
            world.cut_newest(saved)
            world.fill()  # a shipper without work looks at nothing
        world.ship()
        if world.is_halted():
            world.halts += 1
            world.repair()
            world.ship()
        if world.rng.random() < 0.3:
            DeltaTable(world.table).optimize.compact()
        world.check()
        pins[DeltaTable(world.table).version()] = len(world.names)
        progress(turn + 1, ROUNDS, f"rounds, {len(world.names)} acknowledged, {world.halts} halts, 0 lost")
    assert world.halts > 0
    for version, count in pins.items():
        found = DeltaTable(world.table, version=version).scan(columns=["request_id"])
        assert count == len(set(pa.RecordBatchReader.from_stream(found).read_all()["request_id"].to_pylist()))


def test_a_cut_of_what_no_spool_has_halts_until_it_is_restored(tmp_path):
    world = World(tmp_path, random.Random(1))  # noqa: S311
    world.fill()
    world.ship()
    for turn in range(len(commit_files(world.table / "_delta_log")) - 1):
        saved = {}
        tear(world.rng, world.table, commit_files(world.table / "_delta_log")[turn + 1], saved)
        world.fill()
        before = sorted(world.sink.rglob("*"))
        world.ship()
        assert world.is_halted()
        assert [path for path in before if not path.exists()] == []
        with pytest.raises(RepairError):
            world.repair()
        for path, content in saved.items():
            path.write_bytes(content)
        world.repair()
        world.ship()
        world.check()
