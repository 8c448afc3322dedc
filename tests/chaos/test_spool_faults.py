"""A spool whose disk or process really fails: what was acknowledged is there, exactly once, as it was sent."""

import asyncio
import importlib.util
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from closedloop.log.spool import Spool, SpoolError, read

SPEC = importlib.util.spec_from_file_location("writer", Path(__file__).parent / "writer.py")
writer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(writer)


def recovered(folder):
    """How often each record is there, once a spool has been opened on the folder; every one is as it was sent."""
    Spool(folder).close()
    found = Counter()
    for entry in read(folder, pytest.fail):
        number = int(entry.payload.split()[0])
        assert entry.payload == writer.payload(number)
        found[number] += 1
    return found


def ids(said, verb):
    return {int(word[1]) for word in said if word[0] == verb}


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check(folder, said):
    acked, found = ids(said, "acked"), recovered(folder)
    assert acked
    assert {number: found[number] for number in acked} == dict.fromkeys(acked, 1)
    assert max(found.values()) == 1


def cut_power(disk, mount, write, tmp_path, *options):
    """Copy the disk as it is while the writer stands still; (what was acknowledged by then, what the copy holds)."""
    image, point = disk
    with write(point / "log", *options) as (process, said):
        until(lambda: len(said()) > 200)
        time.sleep(random.Random(process.pid).uniform(0.0, 0.3))  # noqa: S311
        os.kill(process.pid, signal.SIGSTOP)
        acked = ids(said(), "acked")
        copy = tmp_path / f"copy-{process.pid}"
        shutil.copyfile(image, copy)
    shutil.rmtree(point / "log")
    after = mount("-o", "loop", source=copy)
    return acked, recovered(after / "log") if (after / "log").exists() else Counter()


def test_a_power_cut_loses_nothing_that_was_acknowledged(disk, mount, write, tmp_path):
    for _ in range(5):
        acked, found = cut_power(disk, mount, write, tmp_path)
        assert {number: found[number] for number in acked} == dict.fromkeys(acked, 1)


def test_the_power_cut_sees_a_missing_sync(disk, mount, write, tmp_path):
    """The test above can fail: without syncs nearly everything is lost."""
    acked, found = cut_power(disk, mount, write, tmp_path, "--no-sync")
    assert len(acked - found.keys()) > len(acked) / 2


def test_a_killed_writer_loses_nothing_that_was_acknowledged(write, tmp_path):
    for _ in range(20):
        folder = tmp_path / "log"
        with write(folder) as (process, said):
            until(lambda: len(said()) > 50)
            time.sleep(random.Random(process.pid).uniform(0.0, 0.1))  # noqa: S311
            process.kill()
            process.wait()
            check(folder, said())
        shutil.rmtree(folder)


@pytest.fixture
def strace():
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync,rename,openat"]


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename"])
@pytest.mark.parametrize("when", [1, 2, 5, 9])
def test_killed_at_the_nth_call_it_loses_nothing_that_was_acknowledged(write, tmp_path, strace, call, when):
    folder = tmp_path / "log"
    with write(folder, "3000", under=[*strace, "-e", f"inject={call}:signal=SIGKILL:when={when}"]) as (process, said):
        process.wait(timeout=60)
        acked, found = ids(said(), "acked"), recovered(folder)
    assert {number: found[number] for number in acked} == dict.fromkeys(acked, 1)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", ["1", "3", "2..4", "2+3"])
def test_a_sync_that_fails_is_not_acknowledged_and_the_rest_is(write, tmp_path, strace, error, when):
    folder = tmp_path / "log"
    with write(folder, "500", under=[*strace, "-e", f"inject=fdatasync:error={error}:when={when}"]) as (process, said):
        assert process.wait(timeout=60) == 0
        words = said()
    assert ids(words, "refused")
    check(folder, words)
    assert recovered(folder).keys() == ids(words, "acked")


def test_a_full_disk_refuses_and_recovers_by_itself_when_there_is_room(mount):
    point = mount("-t", "tmpfs", "-o", "size=1m", source="none")
    ballast = point / "ballast"
    ballast.write_bytes(bytes(400_000))
    acked, refused = [], []

    async def fill(spool):
        for number in range(10_000):
            try:
                await spool.append(writer.payload(number))
            except SpoolError:
                refused.append(number)
                return
            acked.append(number)

    async def after(spool):
        await spool.append(writer.payload(99_999))

    spool = Spool(point / "log", retry_seconds=0.05)
    asyncio.run(fill(spool))
    assert refused
    assert acked
    assert "No space left on device" in spool.failure
    ballast.unlink()
    until(lambda: spool.failure is None, seconds=5)
    asyncio.run(after(spool))
    spool.close()
    assert recovered(point / "log") == Counter([*acked, 99_999])


def test_a_start_on_a_full_disk_is_refused(mount):
    point = mount("-t", "tmpfs", "-o", "size=64k", source="none")
    with pytest.raises(OSError, match="No space left on device"):
        Spool(point / "log")
