"""Faults of the shipper: whatever is killed, refused, lost or down, each record is in the table once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import stores
from deltalake._internal import DeltaFileSystemHandler
from logkit import kit

from closedloop.log.halt import lift
from closedloop.log.sink import Sink
from closedloop.log.state import SpoolError, lock

HERE = Path(__file__).parent


KILLS, CUTS = 50, 10


def start(folder, sink, environ=None, under=()):
    return subprocess.Popen(
        [*under, sys.executable, "-m", "score.log.ship"],
        env={**os.environ, "LOG_DIR": str(folder), "LOG_SINK": str(sink), **(environ or {})},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left(folder):
    return len(list(folder.glob("*.seg")))


def is_free(folder):
    try:
        os.close(lock(folder / "ship.lock"))
    except SpoolError:
        return False
    return True


def once(found, expected):
    assert dict.fromkeys(expected, 1) == dict(Counter(found))


def test_shippers_of_many_spools_at_once_bring_each_record_once(tmp_path):
    sink, spools = tmp_path / "sink", [tmp_path / f"spool-{i}" for i in range(6)]
    names = [f"{spool.name}-{n}" for spool in spools for n in range(8)]
    for spool in spools:
        kit.fill(spool, *[[kit.scored(f"{spool.name}-{n}")] for n in range(8)])
    processes = [start(spool, sink) for spool in spools]
    try:
        until(lambda: not sum(map(left, spools)))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    once(kit.ids(sink), names)


def test_killed_fifty_times_at_random_it_brings_each_record_once(tmp_path):
    folder, sink, names, busy = tmp_path / "log", tmp_path / "sink", [], 0
    for kill in range(KILLS):
        fresh = [f"{kill}-{n}" for n in range(10)]
        kit.fill(folder, *[[kit.scored(name), kit.fed(name, {})] for name in fresh])
        names += fresh
        process = start(folder, sink)
        before = left(folder)
        until(lambda: left(folder) < before or process.poll() is not None)  # noqa: B023
        time.sleep(random.uniform(0, 0.2))  # noqa: S311
        process.kill()
        process.wait()
        busy += left(folder) > 0
    assert busy > KILLS / 2
    status, said = kit.ship(folder, sink)
    assert ([], 0) == (said, status.unsent_segments)
    once(kit.ids(sink), names)
    once(kit.ids(sink, "feedback"), names)


@pytest.mark.parametrize(
    "call", ["link,linkat", "rename,renameat,renameat2", "unlink,unlinkat", "syncfs", "fsync", "mkdir"]
)
@pytest.mark.parametrize("when", [1, 2, 3, 5])
def test_killed_at_the_nth_call_that_changes_a_folder_it_brings_each_record_once(tmp_path, call, when):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder, sink = tmp_path / "log", tmp_path / "sink"
    names = [f"{n}" for n in range(4)]
    kit.fill(folder, *[[kit.scored(name), kit.fed(name, {})] for name in names])
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    process = start(folder, sink, under=[*trace, "-e", f"inject={call}:signal=SIGKILL:when={when}"])
    until(lambda: process.poll() is not None or not left(folder))
    with suppress(ProcessLookupError):  # if the call that kills it never came; strace outlives a signal
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    until(lambda: is_free(folder))  # it may outlive strace by a moment
    status, said = kit.ship(folder, sink)
    assert ([], 0) == (said, status.unsent_segments)
    once(kit.ids(sink), names)
    once(kit.ids(sink, "feedback"), names)


def test_a_power_cut_while_it_ships_loses_nothing_and_repeats_nothing(disk, mount, tmp_path):
    """Spool and sink lie on one disk, which is copied while the shipper is stopped."""
    image, point = disk("ext4")
    torn = 0
    for cut in range(CUTS):
        folder, sink = point / "log", point / "sink"
        names = [f"{cut}-{n}" for n in range(40)]
        kit.fill(folder, *[[kit.scored(name), kit.fed(name, {})] for name in names])
        os.sync()
        process = start(folder, sink)
        before = left(folder)
        until(lambda: left(folder) < before)  # noqa: B023
        time.sleep(random.uniform(0, 0.3))  # noqa: S311
        os.kill(process.pid, signal.SIGSTOP)
        copy = tmp_path / f"copy-{cut}"
        shutil.copyfile(image, copy)
        process.kill()
        process.wait()
        after = mount("-o", "loop", source=copy)
        status, said = kit.ship(after / "log", after / "sink")
        torn += len(said)
        assert 0 == status.unsent_segments, said
        once(kit.ids(after / "sink"), names)
        once(kit.ids(after / "sink", "feedback"), names)
        shutil.rmtree(folder)
        shutil.rmtree(sink)
        copy.unlink()
    print(f"{torn} of {CUTS} cuts tore a commit")


def test_a_lost_volume_leaves_what_was_shipped_whole(tmp_path):
    folder, sink = tmp_path / "log", tmp_path / "sink"
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, sink)
    kit.fill(folder, [kit.scored("unsent")])
    shutil.rmtree(folder)
    kit.fill(folder, [kit.scored("b")])  # a new volume, and so a new spool
    kit.ship(folder, sink)
    assert Counter(["a", "b"]) == Counter(kit.ids(sink))


# --- object stores ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["azure", "s3"])
def store(request, monkeypatch, tmp_path):
    """A place of its own in a store behind a proxy: (its address, its options, the proxy)."""
    port, place, environ_of = request.getfixturevalue(request.param)
    proxy = stores.Proxy(port, tmp_path / "fault")
    environ = environ_of(proxy.port)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield f"{place}/{tmp_path.name}", environ, proxy
    proxy.close()


def test_an_object_store_holds_each_record_once(store, tmp_path):
    place, environ, _ = store
    folder = tmp_path / "log"
    kit.fill(folder, [kit.scored("a"), kit.fed("f", {})], [kit.scored("b")])
    shutil.copytree(folder, tmp_path / "again")
    status, said = kit.ship(folder, place)
    assert ([], 0, 3) == (said, status.unsent_segments, status.shipped_records)
    kit.ship(tmp_path / "again", place)
    assert (["a", "b"], ["f"]) == (kit.ids(place, options=environ), kit.ids(place, "feedback", environ))


def test_many_shippers_bring_each_record_to_an_object_store_once(store, tmp_path):
    place, environ, _ = store
    spools = [tmp_path / f"spool-{i}" for i in range(3)]
    names = [f"{spool.name}-{n}" for spool in spools for n in range(4)]
    for spool in spools:
        kit.fill(spool, *[[kit.scored(f"{spool.name}-{n}")] for n in range(4)])
    processes = [start(spool, place, environ) for spool in spools]
    try:
        until(lambda: not sum(map(left, spools)))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    once(kit.ids(place, options=environ), names)


@pytest.mark.parametrize("fault", ["503", "429", "reset", "lost"])
def test_a_store_that_is_down_for_a_while_gets_each_record_once_when_it_is_back(store, tmp_path, fault):
    place, environ, proxy = store
    folder = tmp_path / "log"
    kit.fill(folder, [kit.scored("first")])
    kit.ship(folder, place)
    names = [f"{n}" for n in range(4)]
    kit.fill(folder, *[[kit.scored(name)] for name in names])
    proxy.fault(fault)
    status, said = kit.ship(folder, place)
    assert (1, 1) == (status.failures, len(said))
    assert status.unsent_segments > 0
    proxy.fault("none")
    status, _ = kit.ship(folder, place)
    assert 0 == status.unsent_segments
    once(kit.ids(place, options=environ), ["first", *names])


@pytest.mark.parametrize("fault", ["lost", "reset", "503"])
def test_a_store_that_answers_badly_now_and_then_gets_each_record_once(store, tmp_path, fault):
    """``lost``: the commit is there and nobody was told, at every request of a run in turn."""
    place, environ, proxy = store
    folder = tmp_path / "log"
    names = [f"{n}" for n in range(8)]
    kit.fill(folder, *[[kit.scored(name), kit.fed(name, {})] for name in names])
    proxy.fault(fault, 3)
    rounds = 0
    while left(folder):
        rounds += 1
        assert rounds < 30
        kit.ship(folder, place)
    proxy.fault("none")
    once(kit.ids(place, options=environ), names)
    once(kit.ids(place, "feedback", environ), names)


def test_killed_while_it_ships_to_an_object_store_it_brings_each_record_once(store, tmp_path):
    place, environ, _ = store
    folder = tmp_path / "log"
    names = [f"{n}" for n in range(30)]
    kit.fill(folder, *[[kit.scored(name)] for name in names])
    while left(folder):
        process = start(folder, place, environ)
        before = left(folder)
        until(lambda: left(folder) < before)  # noqa: B023
        time.sleep(random.uniform(0, 0.3))  # noqa: S311
        process.kill()
        process.wait()
    once(kit.ids(place, options=environ), names)


def test_no_credential_is_in_what_the_shipper_leaves_behind(store, tmp_path):
    place, environ, proxy = store
    folder = tmp_path / "log"
    kit.fill(folder, [kit.scored("a")])
    proxy.fault("503")
    _, said = kit.ship(folder, place)
    text = (folder / "ship.json").read_text() + json.dumps(said)
    secrets = [value for name, value in environ.items() if name.endswith("_KEY")]
    assert secrets
    assert [secret for secret in secrets if secret in text] == []
    assert "last_error" in text


def test_a_halt_in_an_object_store_is_obeyed_and_lifted(store, tmp_path):
    place, environ, _ = store
    folder = tmp_path / "log"
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, place)
    sink = Sink.at(place, environ)
    file = DeltaFileSystemHandler(sink.place, sink.options).open_output_stream("halt")
    file.write(b'{"why": ["a person said so"]}')
    file.close()
    kit.fill(folder, [kit.scored("b")])
    status, said = kit.ship(folder, place)
    assert (1, True) == (status.unsent_segments, "is halted: a person said so. Run log-repair" in said[0])
    lift(sink)
    status, said = kit.ship(folder, place)
    assert (0, []) == (status.unsent_segments, said)
    once(kit.ids(place, options=environ), ["a", "b"])
