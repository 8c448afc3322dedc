"""Three spools, one sink: shippers killed, tables compacted, files cut; each record is there once, versions stay."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from faults import until
from logkit import kit

from closedloop.log import lease, pins, upkeep
from closedloop.log.attempts import announced
from closedloop.log.commits import commit_files, read_commit
from closedloop.log.halt import halted, lift
from closedloop.log.pins import Pin
from closedloop.log.repair import RepairError, Spools, take_back_torn
from closedloop.log.sink import Sink
from model import log as command

ROUNDS = int(os.environ.get("ROUNDS", "60"))


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

    def record(self, name):
        return kit.scored(name)

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
        kit.fill(spool, [self.record(f"{len(self.names)}")])
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


# --- with upkeep ------------------------------------------------------------------------------------------------------

SECONDS = 1.0  # a lease of a killed process is soon over
CALLERS = 8  # who are erased one after the other; two of them were before, and what they send later must go too
EXPIRE = f"""
from closedloop.log import clean, expire, upkeep
from closedloop.log.lease import Lease
from closedloop.log.rewrite import Table
from closedloop.log.sink import Sink
place = Sink(sink)
for name in upkeep.present(place):
    with Lease(place, name, seconds={SECONDS}, wait=60, say=print) as held:
        expire.expire(Table(place, name), held, int(words[1]), print)
        clean.clean(Table(place, name), held, print)
"""
UPKEEP = f"""
import os, signal, sys, time
from deltalake import DeltaTable
from closedloop.log import lease, upkeep
from closedloop.log.sink import Sink
from model import log as command
lease.Lease.__init__.__kwdefaults__["seconds"] = {SECONDS}
sink, last, *words = sys.argv[1:]
commits, write = [], DeltaTable.create_write_transaction
def cut(*given, **named):  # the power goes after so many commits, before the sync that follows
    write(*given, **named)
    commits.append(1)
    if len(commits) == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
DeltaTable.create_write_transaction = cut
print("ready", flush=True)
if words and words[0] == "expire":
    exec({EXPIRE!r})
elif words:
    command.main(words)
else:
    settings = upkeep.UpkeepSettings(everything=True, grace_seconds=0, lease_seconds={SECONDS}, wait_seconds=60)
    upkeep.keep(Sink(sink), print, settings)
"""


class Tended(World):
    """A world with upkeep: what was removed on purpose is no longer expected, and pins are remembered."""

    def __init__(self, place, rng, monkeypatch):
        super().__init__(place, rng)
        self.place = Sink.at(str(self.sink), {})
        self.callers = {}  # of all records
        self.expected = {}  # of each record its caller, and when its round began
        self.erased = set()  # callers, for whom an order stands
        self.starts = []  # when each round began
        self.pinned = {}
        self.counts = Counter()
        monkeypatch.setenv("LOG_SINK", str(self.sink))
        monkeypatch.setitem(lease.Lease.__init__.__kwdefaults__, "seconds", SECONDS)

    def fill(self):
        """Records of a new round, from several callers."""
        begun = time.time()
        for spool in self.spools:
            fresh = [f"{len(self.names) + i}" for i in range(self.rng.randint(1, 3))]
            for name in fresh:
                caller = self.caller()
                self.callers[name] = caller
                if caller not in self.erased:  # or else it must never be seen
                    self.expected[name] = (caller, begun)
                kit.fill(spool, [self.record(name, caller=caller)])
            self.names += fresh

    def caller(self):
        """Most stay; some are new in this round, so that pins outlive their erasure; others are in every pin."""
        kind = self.rng.random()
        if kind < 0.7:
            return "stays"
        first = max(0, self.counts["erase"] - 2)
        return f"late-{len(self.starts)}" if kind < 0.9 else f"caller-{first + self.rng.randrange(CALLERS)}"

    def record(self, name, **about):
        return kit.scored(name, received_us=time.time_ns() // 1000, **about)

    def cut_newest(self, saved):
        """As above, with a record that is expected."""
        name = f"{len(self.names)}"
        super().cut_newest(saved)
        self.callers[name] = "anonymous"
        self.expected[name] = ("anonymous", time.time())
        self.counts["torn shipments"] += bool(saved)

    def work(self):
        """One kind of upkeep, beside shippers; all are killed. What may be gone then, and how to complete it.

        Half of the time the upkeep is killed by a power cut, between a commit and the sync that follows it.
        """
        kind = self.rng.choice(["compact"] * 3 + ["expire"] * 2 + ["erase"])
        words, gone = [], lambda who, begun: False
        if kind == "expire":
            before = self.starts[len(self.starts) * 2 // 3]  # what came before this round was shipped before it
            words = ["expire", str(int(before * 1e6))]
            gone = lambda who, begun: begun < before  # noqa: E731
        if kind == "erase":
            caller = f"late-{len(self.starts)}" if self.rng.random() < 0.7 else f"caller-{self.counts['erase']}"
            words = ["erase", "--caller", caller, "--confirm", caller]
            gone = lambda who, begun: who == caller  # noqa: E731
        self.counts[kind] += 1
        shippers = [
            subprocess.Popen(
                [sys.executable, "-m", "score.log.ship"],
                env={**os.environ, "LOG_DIR": str(folder), "LOG_SINK": str(self.sink), "LOG_COMPACT": "off"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for folder in self.rng.sample(self.spools, self.rng.randint(0, 2))
        ]
        last = self.rng.choice([0, self.rng.randint(1, 4)])
        tending = subprocess.Popen(
            [sys.executable, "-c", UPKEEP, str(self.sink), str(last), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        tending.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            tending.wait(15 if last else self.rng.uniform(0, 1.5))
        for process in (tending, *shippers):
            process.kill()
            process.wait()
        tending.stdout.close()
        return words, gone

    def complete(self, words, gone):
        """Run upkeep to its end, and expect what it removed no more."""
        if words:
            if words[0] == "expire":
                scope = {"sink": str(self.sink), "words": words}
                exec(EXPIRE, scope)  # noqa: S102 - the same as the process runs
            else:
                assert command.main(words) is None
            self.expected = {name: about for name, about in self.expected.items() if not gone(*about)}
            if "--caller" in words:
                self.erased.add(words[2])
        settings = upkeep.UpkeepSettings(everything=True, grace_seconds=0, lease_seconds=SECONDS, wait_seconds=60)
        upkeep.keep(self.place, print, settings)

    def cut_power(self):
        """The newest commit is torn, or its name is gone, if nobody need have synced it.

        That is a lease; a commit of upkeep while all that it replaced is there; that of a segment which is still there.
        """
        commit = read_commit(max(commit_files(self.table / "_delta_log")))
        if lease.APP in commit.transactions:
            what = "torn leases"
        elif "upkeep" in commit.info:
            what = f"torn {commit.info['upkeep']}"
        elif commit.segment is not None and Spools(tuple(self.spools)).hold(commit.segment):
            what = "torn shipments"
        else:
            return
        if what != "torn shipments":
            if announced(self.sink, "requests") != commit.version:  # the next one was announced, after a sync
                return
            if not all((self.table / path).exists() for path in commit.removed):
                return
        checkpoint = commit.path.with_suffix(".checkpoint.parquet")
        kind = self.rng.choice(["bytes", "lines", "name"])
        if checkpoint.exists():  # its name came later, so that of the commit is there
            kind = "bytes"
            checkpoint.write_bytes(checkpoint.read_bytes()[: self.rng.randint(0, 500)])
        text = commit.path.read_bytes()
        if kind == "bytes":
            commit.path.write_bytes(text[: self.rng.randrange(len(text))])
        elif kind == "lines":
            commit.path.write_bytes(b"\n".join(text.split(b"\n")[:1]))
        else:
            commit.path.unlink()
        self.counts[what] += 1

    def heal(self):
        self.ship()
        if self.is_halted():
            self.halts += 1
            self.repair()
            self.ship()
        left = [json.loads((spool / "ship.json").read_text()) for spool in self.spools]
        assert [0, 0, 0] == [status["unsent_segments"] for status in left], left

    def pin(self):
        version = DeltaTable(self.table).version()
        pins.put(self.place, Pin(f"round-{version}", "main", {"requests": version}))
        self.pinned[version] = self.ids(version)

    def ids(self, version=None):
        found = DeltaTable(self.table, version=version).scan(columns=["request_id"])
        return sorted(pa.RecordBatchReader.from_stream(found).read_all()["request_id"].to_pylist())

    def check_pins(self):
        """Each pin has the records that it had, unless it held one of a caller who was erased since."""
        known = {pin.versions["requests"]: pin.unreadable for pin in pins.find(self.place)}
        assert known.keys() == self.pinned.keys()
        for version, why in known.items():
            if why is None:
                assert self.pinned[version] == self.ids(version)
            else:
                assert self.erased & {self.callers[name] for name in self.pinned[version]}, (version, why)
        return sum(why is None for why in known.values())


@pytest.mark.parametrize("seed", [int(os.environ.get("SEED", "0"))])
def test_with_compaction_expiry_and_erasure_too_each_record_is_there_once_and_pins_are_kept(
    tmp_path, progress, seed, monkeypatch
):
    world = Tended(tmp_path, random.Random(seed), monkeypatch)  # noqa: S311
    world.fill()
    world.ship()
    rounds = max(ROUNDS // 8, 8)
    most_readable = 0
    for turn in range(rounds):
        world.starts.append(time.time())
        world.fill()
        if world.rng.random() < 0.3:
            world.kill_one()
        if world.rng.random() < 0.5:
            world.ship()
            world.cut_newest({})
            world.fill()
        world.heal()
        world.fill()
        words, gone = world.work()
        if world.rng.random() < 0.7:
            world.cut_power()
        if world.rng.random() < 0.5:
            world.fill()  # or else shippers begin with what is left, or with nothing
        world.heal()
        found = Counter(world.ids())
        assert dict.fromkeys(found, 1) == dict(found)
        must = {name for name, about in world.expected.items() if not gone(*about)}
        assert must <= found.keys() <= world.expected.keys()
        world.complete(words, gone)
        assert sorted(world.expected) == world.ids()
        readable = world.check_pins()
        most_readable = max(most_readable, readable)
        if world.rng.random() < 0.5:
            world.pin()
        done = ", ".join(f"{count} {kind}" for kind, count in sorted(world.counts.items()))
        said = f"{len(world.names)} acknowledged, {len(world.expected)} kept, {world.halts} halts, {done}, "
        progress(turn + 1, rounds, f"rounds, {said}{readable} of {len(world.pinned)} pins readable, 0 lost")
    if rounds >= 100:
        kinds = {"compact", "expire", "erase", *(f"torn {what}" for what in ("leases", "shipments", "compact"))}
        assert kinds <= world.counts.keys()
        assert most_readable > 5
