"""What a clean-up leaves can be read: every pin, the newest version, and what was the newest within the grace."""

import functools
import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from closedloop.log import clean, pins, upkeep
from closedloop.log.lease import Lease
from closedloop.log.pins import Pin
from closedloop.log.rewrite import Table, sweep_scratch
from closedloop.log.sink import SinkError
from closedloop.log.store import Store

EVERYTHING = upkeep.UpkeepSettings(everything=True, grace_seconds=0)


@pytest.fixture
def grow(kit, tmp_path, sink):
    """Ship so many records, one to a commit."""
    numbers = iter(range(10_000))

    def go(count):
        for _ in range(count):
            kit.fill(tmp_path / "one", [kit.scored(f"r{next(numbers):03}")])
            assert [] == kit.ship(tmp_path / "one", sink)[1]

    return go


@pytest.fixture
def eager(monkeypatch):
    """A clean-up that finds nothing too little."""
    monkeypatch.setattr(upkeep, "clean", functools.partial(clean.clean, few=0))


def age(sink, seconds, last=1 << 60):
    """Let every file be older by so many seconds; of commits and checkpoints those up to a version."""
    for path in sink.rglob("*"):
        name = path.name[:20]
        if path.is_file() and (not name.isdigit() or int(name) <= last):
            modified = path.stat().st_mtime - seconds
            os.utime(path, (modified, modified))


def held(place, version):
    """The files of a version; None is the newest."""
    return sorted(place.open("requests", version).file_uris())


def test_a_checkpoint_goes_only_when_another_stands_in_for_it(kit, sink, place, grow, eager):
    """The pin's commits reach up to the oldest version that is kept: no commit goes, but a checkpoint would."""
    grow(20)
    upkeep.keep(place, print, EVERYTHING)
    version = place.open("requests").version()
    pins.put(place, Pin("main", "main", {"requests": version}))
    pinned = held(place, version)
    grow(1)
    upkeep.keep(place, print, upkeep.UpkeepSettings(grace_seconds=0))
    assert 21 == len(kit.ids(sink))
    assert pinned == held(place, version)
    grow(1)
    assert 22 == len(kit.ids(sink))


def test_a_checkpoint_outlives_a_mark_between_a_compaction_and_the_end_of_its_lease(kit, sink, place, grow, eager):
    grow(20)
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    mark = max(version for version, c in Table(place, "requests").commits.items() if c.seen is not None)
    age(sink, 7200, mark)
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    version = place.open("requests").version()
    pins.put(place, Pin("main", "main", {"requests": version}))
    grow(1)
    age(sink, 7200)
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    assert 21 == len(kit.ids(sink))
    place.open("requests", version)


@pytest.mark.parametrize("few", [0, 16])
@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_of_pins_ships_and_upkeep_every_kept_version_stays_as_it_was(
    kit, sink, place, grow, monkeypatch, seed, few
):
    monkeypatch.setattr(upkeep, "clean", functools.partial(clean.clean, few=few))
    chance = random.Random(f"{seed} {few}")  # noqa: S311
    pinned = {}
    grow(1)
    shipped = 1
    order = ["ship", "everything", "age", "keep", "pin", "ship", "age", "keep", "unpin"]
    for step in [step for _ in range(4) for step in order if chance.random() < 0.8]:
        if step == "ship":
            count = chance.choice([1, 1, 9])
            grow(count)
            shipped += count
        elif step == "pin":
            name, version = f"pr-{chance.randrange(4)}", place.open("requests").version()
            pins.put(place, Pin(name, "proposal", {"requests": version}))
            pinned[name] = (version, held(place, version))
        elif step == "unpin" and pinned:
            name = chance.choice(sorted(pinned))
            pins.remove(place, name)
            del pinned[name]
        elif step == "age":
            newest = place.open("requests").version()
            age(sink, chance.choice([600, 7200, 90_000]), newest - chance.choice([0, 0, 1, 2]))
        else:
            upkeep.keep(place, lambda _: None, upkeep.UpkeepSettings(everything=step == "everything"))
        assert shipped == place.open("requests").count()
        for version, files in pinned.values():
            assert files == held(place, version)
            assert all(Path(file).exists() for file in files)
    assert shipped == len(kit.ids(sink))


def test_nothing_is_removed_when_a_kept_version_could_not_be_opened_afterwards(sink, place, grow, monkeypatch):
    grow(20)
    before = sorted((sink / "requests" / "_delta_log").glob("*.json"))
    monkeypatch.setattr(clean, "_checkpoints", lambda *_: None)  # whatever the reason
    with pytest.raises(SinkError, match=r"version \d+ cannot be opened .*: nothing was removed"):
        upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True, grace_seconds=0))
    assert before == sorted((sink / "requests" / "_delta_log").glob("*.json"))[: len(before)]
    assert 20 == len(list((sink / "requests").glob("part-*")))


def test_a_pin_that_comes_while_a_clean_up_looks_is_kept(sink, place, grow, monkeypatch):
    grow(20)
    pinned = held(place, 20)
    real = Store.list

    def meanwhile(store, folder):
        found = real(store, folder)
        if folder == "requests" and not pins.find(place):  # the clean-up has read the pins by now
            pins.put(place, Pin("late", "proposal", {"requests": 20}))
        return found

    monkeypatch.setattr(Store, "list", meanwhile)
    with pytest.raises(SinkError, match="pins changed"):
        upkeep.keep(place, print, EVERYTHING)
    assert pinned == held(place, 20)
    assert all(Path(file).exists() for file in pinned)
    upkeep.keep(place, print, EVERYTHING)
    assert pinned == held(place, 20)


def test_a_folder_that_vanishes_while_it_is_listed_is_no_error(sink, place):
    store = Store(place)
    store.write("requests/kept", b"x")
    done = threading.Event()

    def churn():
        number = 0
        while not done.is_set():
            folder = sink / "_scratch" / f"x{number % 7}"
            (folder / "y").mkdir(parents=True)
            (folder / "y" / "z").write_text("a")
            shutil.rmtree(folder)
            number += 1

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert "requests/kept" in [file.path for file in store.list("")]
    finally:
        done.set()
        worker.join()


def test_a_sweep_lists_only_the_scratch_of_its_own_table(place, grow, monkeypatch):
    grow(1)
    table = Table(place, "requests")
    for name in ("requests", "feedback"):
        Store(place).write(f"_scratch/{name}/killed/x/part.parquet", b"x")
    listed = []
    real = Store.list
    monkeypatch.setattr(Store, "list", lambda store, folder: listed.append(folder) or real(store, folder))
    sweep_scratch(table, print)
    assert {"_scratch/requests", "_scratch/requests/killed"} == set(listed)
    assert ["_scratch/feedback/killed/x/part.parquet"] == [file.path for file in real(Store(place), "_scratch")]


# --- by itself -----------------------------------------------------------------------------------------------------


def test_by_itself_it_removes_no_version_where_nothing_is_pinned(kit, sink, place, grow):
    """A version may be named by a data.lock.json or a release that put no pin."""
    grow(20)
    before = held(place, 20)
    upkeep.tend(place, print)
    assert 1 == len(held(place, None))
    age(sink, 90_000)
    for _ in range(2):
        upkeep.tend(place, print)
        grow(8)
        age(sink, 90_000)
    assert before == held(place, 20)
    assert all(Path(file).exists() for file in before)
    pins.put(place, Pin("main", "main", {"requests": place.open("requests").version()}))
    upkeep.tend(place, print)
    assert not any(Path(file).exists() for file in before)


@pytest.mark.parametrize("how", [{"unpinned": True}, {"pressed": True}])
def test_by_itself_it_cleans_up_without_a_pin_when_told_so_or_when_the_disk_is_nearly_full(sink, place, grow, how):
    grow(20)
    upkeep.tend(place, print)
    age(sink, 90_000)
    said = []
    upkeep.tend(place, said.append, **how)
    assert 1 == len(list((sink / "requests").glob("*.parquet")))
    assert ("pressed" in how) == any("no pin says which of them must stay" in line for line in said)


def test_a_table_that_is_not_due_gets_no_commits(kit, sink, place, grow, tmp_path):
    failures = {"datetime": ["2015-01-04T06:00:00Z"], "machineID": [1], "failure": ["comp1"]}
    kit.fill(tmp_path / "one", [kit.fed("f", {"failures": failures})])
    kit.ship(tmp_path / "one", sink)
    before = place.open("feedback").version()
    for _ in range(3):
        grow(8)
        upkeep.tend(place, print, unpinned=True)
        age(sink, 7200)
    assert before == place.open("feedback").version()
    requests = place.open("requests").version()
    for _ in range(4):
        upkeep.tend(place, print, unpinned=True, pressed=True)
        age(sink, 7200)
    settled = place.open("requests").version()
    assert settled - requests < 8
    upkeep.tend(place, print, unpinned=True, pressed=True)
    assert settled == place.open("requests").version()


def test_one_file_that_a_shipper_wrote_does_not_keep_all_later_commits(kit, sink, place, grow):
    grow(1)
    for _ in range(70):
        with Lease(place, "requests", say=print):
            pass
    age(sink, 7200)
    assert upkeep.due(place, "requests")
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    age(sink, 7200)
    upkeep.keep(place, print, upkeep.UpkeepSettings())
    assert len(list((sink / "requests" / "_delta_log").glob("*.json"))) < 20
    assert not upkeep.due(place, "requests")
    assert ["r000"] == kit.ids(sink)
