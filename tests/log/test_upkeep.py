"""Compaction and clean-up keep each record once and each pinned version as it was, wherever they end."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from closedloop.log import clean, compact, erase, expire, history, lease, ledger, pins, rewrite, upkeep
from closedloop.log.commits import commit_files, read_commit
from closedloop.log.halt import halt
from closedloop.log.lease import Held, Lease
from closedloop.log.orders import Order
from closedloop.log.pins import Pin
from closedloop.log.read import read
from closedloop.log.rewrite import Table
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store

NOW = upkeep.UpkeepSettings(grace_seconds=0)
TEN_YEARS_MS = 10 * 366 * 24 * 3_600_000


@pytest.fixture
def grow(kit, tmp_path, sink):
    """Ship so many records, one to a commit, from spools by turns."""
    numbers = iter(range(10_000))

    def go(count, spools=("one", "two")):
        for _ in range(count):
            number = next(numbers)
            folder = tmp_path / spools[number % len(spools)]
            request = json.loads(json.dumps(kit.request))
            request["telemetry"]["volt"] = [number, number]
            kit.fill(folder, [kit.scored(f"r{number:03}", request, time.time_ns() // 1000)])
            _, said = kit.ship(folder, sink)
            assert [] == said

    return go


@pytest.fixture
def whole(kit, sink, place, schema):
    """What a log holds, to be compared."""

    def look(versions=None):
        log = read(place, schema, versions)
        return log.tables.fingerprint(), log.records, sorted(map(str, log.losers))

    return look


def commits(sink):
    return sorted(int(path.stem) for path in (sink / "requests" / "_delta_log").glob("*.json"))


def test_many_small_files_become_one_and_nothing_else_changes(kit, sink, place, grow, whole):
    grow(20)
    rows, before = kit.rows(sink), whole()
    report = upkeep.keep(place, print, NOW)["requests"]
    assert (20, 1, 20) == (report.compacted.files_before, report.compacted.files_after, report.compacted.rows)
    assert rows == kit.rows(sink)
    assert before == whole()
    assert 1 == len(list((sink / "requests").glob("*.parquet")))
    grow(1)  # a shipper that knows nothing of it goes on
    assert [f"r{number:03}" for number in range(21)] == sorted(kit.ids(sink))


def test_rows_stay_in_the_order_of_arrival(kit, sink, place, grow):
    grow(20)
    upkeep.keep(place, print, NOW)
    (name,) = DeltaTable(sink / "requests").file_uris()
    opened = rewrite.Table(place, "requests")
    with rewrite.ScratchFolder(opened) as scratch:
        found = [row for batch in scratch.rows(opened.files[0]) for row in batch.column("request_id").to_pylist()]
    assert [f"r{number:03}" for number in range(20)] == found
    assert (1, 20) == history.arrivals(name.rpartition("/")[2])


def test_a_dry_run_says_the_same_and_changes_nothing(sink, place, grow):
    grow(20)
    before = sorted(path for path in sink.rglob("*"))
    said = upkeep.keep(place, print, upkeep.UpkeepSettings(dry_run=True, grace_seconds=0))["requests"]
    assert before == sorted(path for path in sink.rglob("*"))
    assert (20, 1) == (said.compacted.files_before, said.compacted.files_after)


def test_a_few_small_files_wait_for_more_unless_all_is_asked_for(sink, place, grow):
    grow(compact.FAN_IN - 1)
    assert 0 == upkeep.keep(place, print, NOW)["requests"].compacted.files_before
    assert not upkeep.due(place, "requests")
    everything = upkeep.UpkeepSettings(everything=True, grace_seconds=0)
    assert 1 == upkeep.keep(place, print, everything)["requests"].compacted.files_after


def test_large_files_are_left_alone_and_size_classes_are_kept_apart():
    def files(*sizes):
        return [rewrite.Data(f"part-{number}", size, 1, number, number) for number, size in enumerate(sizes)]

    large, small = 20 << 20, 100 << 10
    assert compact.plan(files(large, large, *[small] * 7)) is None
    chosen = compact.plan(files(large, *[small] * 9, large))
    assert [f"part-{number}" for number in range(1, 10)] == [file.path for file in chosen]
    assert compact.plan(files(*[1 << 20] * 7, large, *[small] * 7)) is None
    assert compact.plan(files(12 << 20, *[small] * 7)) is None  # else each pin holds a copy of its own
    everything = compact.plan(files(large, small, small, large), everything=True)
    assert ["part-1", "part-2"] == [file.path for file in everything]


def test_pinned_versions_stay_as_they_were_and_go_when_the_pin_does(sink, place, grow, whole):
    grow(9)
    pins.put(place, Pin("main", "main", {"requests": 9}))
    pinned = whole({"requests": 9})
    for _ in range(3):
        grow(20)
        upkeep.keep(place, print, NOW)
        assert pinned == whole({"requests": 9})
    assert {9} < set(commits(sink))
    with_pin = len(list((sink / "requests").glob("*.parquet")))
    assert pins.remove(place, "main")
    assert not pins.remove(place, "main")
    grow(20)
    upkeep.keep(place, print, NOW)
    assert len(list((sink / "requests").glob("*.parquet"))) < with_pin - 8
    with pytest.raises(DeltaError):
        DeltaTable(sink / "requests", version=9)


def test_a_version_that_has_gone_cannot_be_pinned(sink, place, grow):
    grow(20)
    upkeep.keep(place, print, NOW)
    with pytest.raises(SinkError, match="cannot be pinned at version 3"):
        pins.put(place, Pin("late", "proposal", {"requests": 3}))
    assert [] == pins.find(place)


def test_a_pin_that_cannot_be_understood_stops_the_clean_up(sink, place, grow):
    grow(20)
    Store(place).write("_pins/odd.json", b"{")
    with pytest.raises(SinkError, match=r"_pins/odd\.json is no pin"):
        upkeep.keep(place, print, NOW)
    assert 0 in commits(sink)


def test_the_pointer_to_the_last_checkpoint_never_moves_back(sink, place, grow, monkeypatch):
    grow(9)
    pins.put(place, Pin("main", "main", {"requests": 4}))
    grow(20)
    DeltaTable(sink / "requests").create_checkpoint()
    pointer = sink / "requests" / "_delta_log" / "_last_checkpoint"
    seen = [json.loads(pointer.read_bytes())["version"]]
    real = Store.write

    def write(self, path, content):
        real(self, path, content)
        seen.append(json.loads(pointer.read_bytes())["version"])

    monkeypatch.setattr(Store, "write", write)
    upkeep.keep(place, print, NOW)
    assert sorted(seen) == seen
    assert (sink / "requests" / "_delta_log" / f"{4:020}.checkpoint.parquet").exists()


def test_what_was_replaced_stays_readable_for_the_grace(sink, place, grow, whole):
    grow(20)
    before = whole({"requests": 20})
    upkeep.keep(place, print, upkeep.UpkeepSettings(grace_seconds=3600))
    assert before == whole({"requests": 20})


def test_the_newest_segment_of_each_spool_outlives_its_commit(kit, sink, place, grow, tmp_path):
    kit.fill(tmp_path / "one", [kit.scored("first")])
    kit.ship(tmp_path / "one", sink)
    spool = kit.rows(sink)[0]["spool"]
    sha256 = next(c for c in DeltaTable(sink / "requests").history() if c.get("spool") == spool)["sha256"]
    grow(30, spools=("two",))
    upkeep.keep(place, print, NOW)
    assert min(commits(sink)) > 1
    assert ledger.Shipped(1, sha256) == ledger.newest_shipped(place, "requests", spool)
    assert ledger.newest_shipped(place, "requests", "nobody") is None
    assert 1 == DeltaTable(sink / "requests").transaction_version(spool)


def test_a_file_that_is_about_to_be_committed_is_not_removed(sink, place, grow, monkeypatch):
    grow(20)
    waiting = sink / "requests" / "part-00000-of-a-slow-shipper.snappy.parquet"
    shutil.copy(next((sink / "requests").glob("*.parquet")), waiting)
    os.utime(waiting, (0, 0))  # by a clock that was wrong, it is old
    upkeep.keep(place, print, NOW)
    assert waiting.exists()
    upkeep.keep(place, print, NOW)
    assert not waiting.exists()  # found twice, and more than a day old


def test_a_young_file_that_no_version_has_is_never_removed(sink, place, grow):
    grow(20)
    waiting = sink / "requests" / "part-00000-of-a-slow-shipper.snappy.parquet"
    shutil.copy(next((sink / "requests").glob("*.parquet")), waiting)
    for _ in range(3):
        upkeep.keep(place, print, NOW)
    assert waiting.exists()


def test_the_order_of_corrections_outlives_the_commits_that_set_it(kit, sink, place, tmp_path, schema, monkeypatch):
    """A clock ten years ahead, in its commits too, then a correction; then all commits of that time are removed."""

    def come(spool, value, ahead_us=0):
        request = json.loads(json.dumps(kit.request))
        request["telemetry"]["volt"] = [value, value]
        time.sleep(0.003)
        kit.fill(tmp_path / spool, [kit.scored(f"{value}", request, time.time_ns() // 1000 + ahead_us)])
        time.sleep(0.003)
        kit.ship(tmp_path / spool, sink)

    come("one", 1000, ahead_us=1000 * TEN_YEARS_MS)
    come("one", 1001, ahead_us=1000 * TEN_YEARS_MS)
    _ten_years_ahead(sink)
    compact.compact(Table(place, "requests"), upkeep.NoLease(), print, everything=True)
    _ten_years_ahead(sink, first=3)
    come("two", 2000)
    come("two", 3000)
    before = read(place, schema)
    monkeypatch.setattr(upkeep, "clean", functools.partial(clean.clean, few=0))
    for round_ in range(2):
        for number in range(9):
            kit.fill(tmp_path / "three", [kit.scored(f"x{round_}{number}", {"telemetry": _elsewhere(kit)})])
            kit.ship(tmp_path / "three", sink)
        upkeep.keep(place, print, NOW)
    after = read(place, schema)
    assert min(commits(sink)) > 5  # those of the correction have gone
    assert [3000.0, 3000.0] == before.tables.values[0].tolist() == after.tables.values[0, :2].tolist()


def _ten_years_ahead(sink, first=0):
    """Let the commits from a version on say that they were made by a clock ten years ahead."""
    for path in (sink / "requests" / "_delta_log").glob("*.json"):
        if int(path.stem) >= first:
            about = path.read_text()
            path.write_text(re.sub(r'"timestamp":(\d+)', lambda m: f'"timestamp":{int(m[1]) + TEN_YEARS_MS}', about))


def _elsewhere(kit):
    telemetry = json.loads(json.dumps(kit.request["telemetry"]))
    return telemetry | {"machineID": [99] * len(telemetry["machineID"])}


def test_shippers_go_on_while_it_works(kit, sink, place, tmp_path):
    done = threading.Event()
    trouble = []

    def tend():
        while not done.is_set():
            try:
                upkeep.keep(place, lambda _: None, upkeep.UpkeepSettings(grace_seconds=0, wait_seconds=5))
            except SinkError as error:
                trouble.append(str(error))

    names = []
    kit.fill(tmp_path / "spool-0", [kit.scored("first")])
    kit.ship(tmp_path / "spool-0", sink)
    names.append("first")
    worker = threading.Thread(target=tend)
    worker.start()
    for round_ in range(8):
        for spool in range(3):
            fresh = [f"{spool}-{round_}-{number}" for number in range(4)]
            kit.fill(tmp_path / f"spool-{spool}", *[[kit.scored(name)] for name in fresh])
            names += fresh
            status, _ = kit.ship(tmp_path / f"spool-{spool}", sink, rounds=3)
            assert 0 == status.unsent_segments
    done.set()
    worker.join()
    assert sorted(names) == sorted(kit.ids(sink))
    assert [] == [line for line in trouble if "come between" not in line]


# --- ended anywhere -----------------------------------------------------------------------------------------------


class Ended(BaseException):
    """As if the process had been killed: nothing that handles errors may hold it up."""


class Fuse:
    """Ends the process, as it were, at the n-th call that changes something: before it, or just after."""

    STEPS = (
        (Store, "write"),
        (Store, "delete"),
        (Store, "copy"),
        (Store, "move"),
        (Store, "sync"),
        (DeltaTable, "create_write_transaction"),
        (rewrite, "write_deltalake"),
    )

    def __init__(self, monkeypatch, at, after):
        self.calls, self._at, self._after = 0, at, after
        for owner, name in self.STEPS:
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))
        monkeypatch.setattr(rewrite.ScratchFolder, "__exit__", self._left(rewrite.ScratchFolder.__exit__))

    def _wrap(self, real):
        def call(*words, **named):
            self.calls += 1
            if self.calls > self._at:
                raise Ended  # nothing more happens
            if self.calls == self._at and not self._after:
                raise Ended
            found = real(*words, **named)
            if self.calls == self._at:
                raise Ended
            return found

        return call

    def _left(self, real):
        def leave(scratch, *words):
            if self.calls < self._at:
                real(scratch, *words)

        return leave


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_ended_at_any_step_it_loses_nothing_and_the_next_run_completes_it(
    kit, sink, place, grow, whole, tmp_path, monkeypatch, after
):
    monkeypatch.setattr(compact, "FAN_IN", 4)
    monkeypatch.setattr(upkeep, "clean", functools.partial(clean.clean, few=2))
    grow(3)
    pins.put(place, Pin("main", "main", {"requests": 3}))
    grow(3)
    rows, before, pinned = kit.rows(sink), whole(), whole({"requests": 3})
    shutil.copytree(sink, tmp_path / "model")
    settings = upkeep.UpkeepSettings(grace_seconds=0, lease_seconds=0.05, wait_seconds=5)
    step, ended = 0, True
    while ended:
        step += 1
        shutil.rmtree(sink)
        shutil.copytree(tmp_path / "model", sink)
        with pytest.MonkeyPatch.context() as patch:
            Fuse(patch, step, after)
            try:
                upkeep.keep(place, lambda _: None, settings)
                ended = False
            except Ended:
                pass
        assert rows == kit.rows(sink), step
        assert pinned == whole({"requests": 3}), step
        upkeep.keep(place, lambda _: None, settings)
        assert rows == kit.rows(sink), step
        assert not (sink / "_scratch").exists() or not list((sink / "_scratch").rglob("*.parquet")), step
    assert step > 20
    assert before == whole()
    assert pinned == whole({"requests": 3})


# --- one owner ----------------------------------------------------------------------------------------------------


def test_one_process_at_a_time_owns_the_upkeep(place, grow):
    grow(1)
    with Lease(place, "requests", say=print):
        with pytest.raises(Held, match="another process compacts"):
            upkeep.keep(place, print, NOW)
        assert lease.held_until(place.open("requests")) > time.time()
    upkeep.keep(place, print, NOW)
    assert lease.held_until(place.open("requests")) is None


def test_the_lease_of_a_process_that_was_killed_ends_by_itself(place, grow):
    grow(1)
    Lease(place, "requests", seconds=0.3, say=print).__enter__()
    said = []
    with Lease(place, "requests", wait=5, say=said.append):
        pass
    assert "waiting up to 5 s" in said[0]


def test_a_lease_that_another_took_over_is_not_renewed(place, grow):
    grow(1)
    with Lease(place, "requests", seconds=0.01, say=print) as first:
        time.sleep(0.05)
        with Lease(place, "requests", say=print), pytest.raises(Held, match="took over"):
            first.renew()


def test_a_lease_of_a_clock_years_ahead_holds_nobody_up(place, grow, monkeypatch):
    grow(1)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)
        Lease(place, "requests", say=print).__enter__()
    with Lease(place, "requests", say=print):
        pass


# --- the rest ----------------------------------------------------------------------------------------------------


def test_a_halted_sink_is_left_alone(sink, place, grow):
    grow(1)
    halt(sink, ["a commit of another spool is torn"])
    with pytest.raises(SinkError, match="is halted: a commit of another spool is torn"):
        upkeep.keep(place, print, NOW)


def test_a_halt_that_comes_while_it_works_stops_each_writer_of_upkeep(kit, sink, place, grow, monkeypatch):
    """Nothing is committed or removed after it."""
    grow(20)
    order = Order("caller", "anonymous", 0)
    table = Table(place, "requests")
    held = Lease(place, "requests", say=print)
    held.__enter__()
    found = erase.look(Table(place, "requests"), order, print)
    table = Table(place, "requests")
    halt(sink, ["a person said so"])
    before = {
        path: path.stat().st_mtime_ns for path in sink.rglob("*") if path.is_file() and "_scratch" not in str(path)
    }
    for work in (
        lambda: compact.compact(table, held, print, everything=True),
        lambda: clean.clean(table, held, print, grace=0, few=0),
        lambda: expire.expire(table, held, time.time_ns(), print),
        lambda: erase.erase(table, held, order, found, print),
        lambda: erase.erase(table, held, order, erase.Erased(found.paths), print),
        lambda: upkeep.keep(place, print, NOW),
        lambda: Lease(place, "requests", say=print).__enter__(),
    ):
        with pytest.raises(SinkError, match="is halted: a person said so"):
            work()
    left = {path: path.stat().st_mtime_ns for path in sink.rglob("*") if path.is_file() and "_scratch" not in str(path)}
    written = {path for path in left if path not in before}
    assert before == {path: time for path, time in left.items() if path in before}
    assert {path.name[:8] for path in written} <= {"compact-"}  # a file that no commit names


def test_where_there_is_no_log_it_says_so(place):
    with pytest.raises(SinkError, match="there is no log"):
        upkeep.keep(place, print, NOW)


# --- beside shippers that repair ---------------------------------------------------------------------------------


def test_a_replica_that_waited_while_its_commits_were_cleaned_up_ships_on(kit, sink, place, grow, tmp_path):
    """Killed after its commit it finds its segment again, and no commit that names it."""
    late = tmp_path / "late"
    kit.fill(late, [kit.scored("late")])
    shutil.copytree(late, tmp_path / "before")
    kit.ship(late, sink)
    shutil.copy(next((tmp_path / "before").glob("*.seg")), late)
    grow(30)
    upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True, grace_seconds=0))
    assert min(commits(sink)) > 2
    kit.fill(late, [kit.scored("later")])
    status, said = kit.ship(late, sink)
    assert (0, []) == (status.unsent_segments, said)
    assert {"late": 1, "later": 1} == {name: kit.ids(sink).count(name) for name in ("late", "later")}


def exchanges(sink):
    """The commits of compactions, the first one first."""
    found = [read_commit(path) for path in commit_files(sink / "requests" / "_delta_log")]
    return [commit for commit in found if commit.info.get("upkeep")]


@pytest.mark.parametrize("cut", ["nothing left", "bytes", *range(1, 9), "data"])
def test_a_compaction_that_a_power_cut_tore_is_undone_and_nothing_is_lost(
    kit, sink, place, grow, cut, tmp_path, monkeypatch
):
    grow(20)
    rows = kit.rows(sink)
    monkeypatch.setattr(upkeep, "clean", lambda *_, **__: clean.Cleaned())  # it begins after a sync
    monkeypatch.setattr(Lease, "__exit__", lambda *_: None)
    upkeep.keep(place, print, NOW)
    (commit,) = exchanges(sink)
    text = commit.path.read_bytes()
    if cut == "data":
        (name,) = commit.added
        (sink / "requests" / name).write_bytes((sink / "requests" / name).read_bytes()[:-1])
    else:
        left = {"nothing left": b"", "bytes": text[:100]}
        commit.path.write_bytes(left[cut] if cut in left else b"\n".join(text.split(b"\n")[:cut]))
    folder = kit.fill(tmp_path / "one", [kit.scored("r020")])
    (said,) = kit.ship(folder, sink)[1]
    assert f"took back what a power cut tore (version {commit.version})" in said
    assert rows == [row for row in kit.rows(sink) if row["request_id"] != "r020"]
    monkeypatch.undo()
    upkeep.keep(
        place, print, upkeep.UpkeepSettings(everything=True, grace_seconds=0, wait_seconds=200, lease_seconds=0.1)
    )
    assert [f"r{number:03}" for number in range(21)] == sorted(kit.ids(sink))
    assert 1 == len(DeltaTable(sink / "requests").file_uris())


def test_files_of_an_object_store_are_the_same_as_those_of_a_folder(tmp_path, monkeypatch):
    """deltalake's file system, here on a folder, without pyarrow as in the image."""
    local, remote = Store(Sink(str(tmp_path))), Store(Sink(f"file://{tmp_path}"))
    monkeypatch.setattr("closedloop.log.store.find_spec", lambda name: None)
    kept = {name: sys.modules.pop(name, None) for name in ("pyarrow", "pyarrow.fs")}
    try:
        for store in (local, remote):
            store.write("a/b.json", b"one")
            store.write("a/b.json", b"two")
            assert (b"two", None) == (store.read("a/b.json"), store.read("a/c.json"))
            store.copy("a/b.json", "a/d/e.json")
            store.move("a/d/e.json", "a/f.json")
            assert [("a/b.json", 3), ("a/f.json", 3)] == [(f.path, f.size) for f in sorted(store.list("a"), key=str)]
            assert abs(store.list("a")[0].modified - time.time()) < 60
            assert [("a/b.json", b"two")] == list(store.read_many(["a/b.json", "a/none"]))
            store.delete("a/none")
            store.delete_folder("a")
            assert [] == store.list("a")
            store.sync()
    finally:
        sys.modules.update({name: module for name, module in kept.items() if module is not None})


def test_beside_a_shipper_it_works_when_there_is_enough_to_do(sink, place, grow):
    said = []
    upkeep.tend(place, said.append)  # there is no log yet
    grow(compact.FAN_IN - 1)
    upkeep.tend(place, said.append)
    assert [] == said
    upkeep.tend(place, said.append, pressed=True)
    assert "no pin says" in said[0]
    assert "7 files became one" in said[1]
    grow(compact.FAN_IN)
    with Lease(place, "requests", say=print):
        upkeep.tend(place, pytest.fail)  # another one is at it
    upkeep.tend(place, said.append)
    assert "9 files became one" in said[2]  # the small one of before goes along
    halt(sink, ["a person said so"])
    with pytest.raises(SinkError, match="is halted"):
        upkeep.tend(place, said.append)


AS_IN_THE_IMAGE = """
import importlib.machinery, sys
real = importlib.machinery.PathFinder.find_spec
absent = ("pyarrow", "pandas", "numpy")
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name.split(".")[0] in absent else real(name, path, target)
)
from closedloop.log import upkeep
from closedloop.log.sink import Sink
upkeep.be_idle()
report = upkeep.keep(Sink(sys.argv[1]), print, upkeep.UpkeepSettings(grace_seconds=0))
assert not set(absent) & set(sys.modules)
print(report["requests"].compacted.rows, report["requests"].cleaned.commits > 0)
"""


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_it_runs_in_the_image_which_has_no_pyarrow_on_a_folder_and_as_on_an_object_store(kit, sink, grow, scheme):
    grow(20)
    rows = kit.rows(sink)
    done = subprocess.run(
        [sys.executable, "-c", AS_IN_THE_IMAGE, f"{scheme}{sink}"], capture_output=True, text=True, check=False
    )
    assert (0, "20 True") == (done.returncode, done.stdout.strip().rpartition("\n")[2]), done.stderr
    assert rows == kit.rows(sink)


def test_all_is_on_the_disk_before_a_commit_names_it_and_before_anything_is_removed(place, grow, monkeypatch):
    """A kill cannot see a missing sync, a power cut would: so the order of the calls is held."""
    grow(20)
    calls = []

    def note(owner, name):
        real = getattr(owner, name)

        def call(*words, **named):
            about = words[1] if name == "delete" else ""
            if not str(about).startswith("_scratch"):
                calls.append(name)
            return real(*words, **named)

        monkeypatch.setattr(owner, name, call)

    for owner, name in [(Store, "move"), (Store, "sync"), (Store, "delete"), (DeltaTable, "create_write_transaction")]:
        note(owner, name)
    upkeep.keep(place, print, NOW)
    first = calls.index("move")
    announced = ["sync", "create_write_transaction"]  # the announcement is on the disk before the commit, too
    assert ["move", "sync", *announced, "sync"] == calls[first : first + 5]
    assert calls.index("delete") > first + 5
    assert "sync" == calls[calls.index("delete") - 1]


def test_what_another_process_has_replaced_is_not_replaced_again(kit, sink, place, grow):
    grow(10)
    stale = Table(place, "requests")
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    rows = kit.rows(sink)
    with Lease(place, "requests", say=print) as owner, pytest.raises(rewrite.Changed, match="another process"):
        compact.compact(stale, owner, print)
    assert rows == kit.rows(sink)


@pytest.mark.parametrize("everything", [False, True])
def test_rows_that_compress_well_become_files_that_fit_into_memory(
    kit, sink, place, folder, whole, monkeypatch, everything
):
    """Readings that never change take a few bytes on the disk, and all of them in memory."""
    count = 2000
    telemetry = {name: [value[0]] * count for name, value in kit.request["telemetry"].items()}
    telemetry["machineID"] = list(range(count))
    for number in range(16):
        kit.fill(folder, [kit.scored(f"r{number:02}", {"telemetry": telemetry}, kit.noon + number)])
    kit.ship(folder, sink)
    before = whole()
    monkeypatch.setattr(compact, "_MOST_MEMORY", most := 500_000)
    written = []
    write = rewrite.ScratchFolder.write

    def watch(scratch, batches, first, last):
        found = list(batches)
        written.append(sum(batch.nbytes for batch in found))
        return write(scratch, found, first, last)

    monkeypatch.setattr(rewrite.ScratchFolder, "write", watch)
    settings = upkeep.UpkeepSettings(everything=everything, clean_up=False)
    upkeep.keep(place, print, settings)
    assert max(written) <= most
    assert before == whole()
    files = rewrite.Table(place, "requests").files
    assert 3 < len(files) < 16
    assert sum(file.memory for file in files) > 3 * sum(file.size for file in files)
    said = upkeep.keep(place, print, settings)["requests"].compacted  # it comes to an end, and stays there
    assert (0, False) == (said.files_before, upkeep.due(place, "requests", settings))


def test_a_file_of_which_more_is_known_is_not_written_again_for_its_neighbour(kit, sink, place, folder, monkeypatch):
    rows = {name: [value[0]] * 2000 for name, value in kit.request["telemetry"].items()} | {"machineID": [*range(2000)]}
    few = {name: value[:1] for name, value in kit.request["telemetry"].items()}
    for number, telemetry in enumerate((few, few, rows, few)):
        kit.fill(folder, [kit.scored(f"r{number}", {"telemetry": telemetry})])
    kit.ship(folder, sink)
    monkeypatch.setattr(compact, "_MOST_MEMORY", 50_000)  # less than the one large record takes
    upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True, clean_up=False))
    assert [2, 1, 1] == [file.rows for file in rewrite.Table(place, "requests").files]
    assert [f"r{number}" for number in range(4)] == kit.ids(sink)
