"""Every acknowledged record is there once, whatever happens in between; what is not acknowledged is refused."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from closedloop.log import segment
from closedloop.log import state as module
from closedloop.log.frame import HEADER_BYTES
from closedloop.log.spool import Spool, SpoolError, SpoolFull, read


def append_all(spool, payloads):
    """Append all payloads at once, and wait for all."""

    async def run():
        return await asyncio.gather(*[spool.append(payload) for payload in payloads], return_exceptions=True)

    return asyncio.run(run())


def stored(folder, losses=None):
    """The payloads of a folder; any loss fails the test unless it is asked for."""
    told = [] if losses is None else losses
    payloads = [entry.payload for entry in read(folder, told.append)]
    assert losses is not None or not told
    return payloads


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "yet" / "there"


@pytest.fixture
def spool(folder):
    opened = Spool(folder, retry_seconds=0.02)
    yield opened
    opened.close()


def fail_once(monkeypatch, name, error):
    """Let one call of ``durable.<name>`` by a segment fail. Returns the list of the arguments of every call."""
    calls, real = [], getattr(segment, name)

    def call(descriptor, *rest):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(error, os.strerror(error))
        return real(descriptor, *rest)

    monkeypatch.setattr(segment, name, call)
    return calls


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_acknowledged_records_are_read_in_order(spool, folder):
    payloads = [b"%d" % i for i in range(100)]
    assert append_all(spool, payloads) == [None] * 100
    assert payloads == stored(folder)  # while it is open
    spool.close()
    assert payloads == stored(folder)


def test_each_record_has_a_place_of_its_own(spool, folder):
    append_all(spool, [b"a", b"b"])
    spool.close()
    entries = list(read(folder, pytest.fail))
    assert [(spool.id, 1, 0), (spool.id, 1, 1)] == [(entry.spool, entry.segment, entry.index) for entry in entries]


def test_many_appends_share_one_sync(spool, monkeypatch):
    syncs, real = [], segment.sync_records
    monkeypatch.setattr(segment, "sync_records", lambda descriptor: syncs.append(real(descriptor)))
    append_all(spool, [b"x"] * 500)
    assert 1 <= len(syncs) == spool.counts.commits < 50
    assert spool.counts.records == 500


def test_nothing_is_acknowledged_before_its_sync(spool, monkeypatch):
    synced, real = [], segment.sync_records

    def slow(descriptor):
        time.sleep(0.05)
        real(descriptor)
        synced.append(True)

    monkeypatch.setattr(segment, "sync_records", slow)

    async def run():
        waiting = spool.append(b"x")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await waiting
        assert synced

    asyncio.run(run())


@pytest.mark.parametrize("durability", ["os", "off"])
def test_without_the_promise_nothing_is_synced_and_all_is_written(folder, durability, monkeypatch):
    monkeypatch.setattr(segment, "sync_records", pytest.fail)
    spool = Spool(folder, durability=durability)
    append_all(spool, [b"x"] * 10)
    spool.close()
    assert stored(folder) == [b"x"] * 10


def test_a_new_start_goes_on_with_id_and_numbers_even_when_segments_were_taken_away(folder):
    first = Spool(folder)
    append_all(first, [b"a"])
    first.close()
    (sealed,) = folder.glob("*.seg")
    sealed.unlink()
    second = Spool(folder)
    append_all(second, [b"b"])
    second.close()
    (entry,) = read(folder, pytest.fail)
    assert (first.id, 2, b"b") == (entry.spool, entry.segment, entry.payload)


def test_an_empty_segment_leaves_nothing_behind(folder):
    for _ in range(3):
        Spool(folder).close()
    assert {"lock", "state"} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_torn_tail_is_cut_counted_and_the_rest_sealed(folder, cut):
    """The file as a crash leaves it, shorter by ``cut`` bytes."""
    crashed = Spool(folder)
    append_all(crashed, [b"a" * 20, b"b" * 20])
    (path,) = folder.glob("*.open")
    image = path.read_bytes()
    crashed.close()
    (sealed,) = folder.glob("*.seg")
    sealed.unlink()
    path.write_bytes(image[: len(image) - cut])

    spool = Spool(folder)
    append_all(spool, [b"c"])
    spool.close()
    kept = 2 if cut == 0 else 1 if cut <= 36 else 0
    assert [*[b"a" * 20, b"b" * 20][:kept], b"c"] == stored(folder)
    assert kept == spool.counts.recovered
    assert 36 * (2 - kept) - cut == spool.counts.torn_bytes


def test_a_segment_that_was_never_begun_is_removed(folder):
    Spool(folder).close()
    (folder / "00000000000000000009.open").write_bytes(b"CLSP")
    Spool(folder).close()
    assert [*folder.glob("*.open"), *folder.glob("*.seg")] == []


def test_a_second_writer_is_refused(spool, folder):
    with pytest.raises(SpoolError, match="held by another process"):
        Spool(folder)
    code = f"from pathlib import Path; from closedloop.log.spool import Spool; Spool(Path({str(folder)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is held by another process: give each worker a folder of its own" in other.stderr
    spool.close()
    Spool(folder).close()


@pytest.mark.parametrize("damage", [None, b"", b"{}", b'{"format": 1, "spool": "00", "next": 9} 00000000\n', b"\xff"])
def test_a_lost_or_damaged_state_is_refused_and_the_segments_stay_readable(folder, damage):
    spool = Spool(folder)
    append_all(spool, [b"a"])
    spool.close()
    state = folder / "state"
    state.unlink() if damage is None else state.write_bytes(damage)
    with pytest.raises(SpoolError, match=r"state is (lost|damaged)"):
        Spool(folder)
    losses = []
    assert stored(folder, losses) == [b"a"]
    assert len(losses) == 1


def test_every_flipped_bit_of_the_state_is_found(folder):
    Spool(folder).close()
    whole = (folder / "state").read_bytes()
    for place in range(len(whole) - 1):  # the last byte is the line's end
        data = bytearray(whole)
        data[place] ^= 1
        (folder / "state").write_bytes(data)
        with pytest.raises(SpoolError, match="is damaged"):
            Spool(folder)


def test_a_state_of_a_later_format_is_refused_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(module, "_FORMAT", 2)
    Spool(folder).close()
    monkeypatch.undo()
    before = (folder / "state").read_bytes()
    with pytest.raises(SpoolError, match="use the version that wrote it"):
        Spool(folder)
    assert before == (folder / "state").read_bytes()


def test_a_damaged_record_is_told_and_the_others_read(spool, folder):
    append_all(spool, [b"a" * 9, b"b" * 9, b"c" * 9])
    spool.close()
    (sealed,) = folder.glob("*.seg")
    data = bytearray(sealed.read_bytes())
    data[HEADER_BYTES + 25 + 20] ^= 1
    sealed.write_bytes(data)
    losses = []
    assert stored(folder, losses) == [b"a" * 9, b"c" * 9]
    assert [f"{sealed}: 25 bytes at 69 are damaged; the records there are lost"] == losses


def test_what_waits_is_bounded(folder, monkeypatch):
    spool = Spool(folder, queue_bytes=100)

    async def run():
        waiting = [spool.append(b"x" * 50), spool.append(b"x" * 50)]
        with pytest.raises(SpoolFull):
            spool.append(b"x")
        await asyncio.gather(*waiting)
        await spool.append(b"y")

    asyncio.run(run())
    spool.close()
    assert len(stored(folder)) == 3


def test_a_failed_sync_is_never_tried_again_on_its_descriptor(spool, folder, monkeypatch):
    append_all(spool, [b"before"])
    calls = fail_once(monkeypatch, "sync_records", errno.EIO)
    (error,) = append_all(spool, [b"lost"])
    assert isinstance(error, SpoolError)
    assert "the disk refused the log" in str(error)
    until(lambda: spool.failure is None)
    append_all(spool, [b"after"])
    assert len(calls) == 2
    spool.close()
    assert stored(folder) == [b"before", b"after"]
    assert len(list(folder.glob("*.seg"))) == 2  # the refused one was sealed


def test_while_the_disk_refuses_so_does_the_spool(spool, folder, monkeypatch):
    monkeypatch.setattr(segment, "sync_records", _no_space)
    monkeypatch.setattr(segment, "reserve", _no_space)
    (error,) = append_all(spool, [b"x"])
    assert "No space left" in str(error)
    assert "No space left" in spool.failure
    (again,) = asyncio.run(_refused(spool))
    assert "No space left" in str(again)
    monkeypatch.undo()
    until(lambda: spool.failure is None)
    assert append_all(spool, [b"y"]) == [None]
    spool.close()
    assert stored(folder) == [b"y"]


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def _refused(spool):
    with pytest.raises(SpoolError) as caught:
        spool.append(b"x")
    return (caught.value,)


def test_a_disk_that_fills_within_a_record_keeps_what_was_acknowledged(spool, folder, monkeypatch):
    append_all(spool, [b"before"])
    calls, real = [], os.write

    def write(descriptor, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(descriptor, data[:9])
        if len(calls) == 2:
            _no_space()
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    (error,) = append_all(spool, [b"lost"])
    assert "No space left" in str(error)
    until(lambda: spool.failure is None)
    append_all(spool, [b"after"])
    spool.close()
    assert stored(folder) == [b"before", b"after"]


def test_a_short_write_goes_on_where_it_stopped(spool, folder, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    assert append_all(spool, [b"whole"]) == [None]
    monkeypatch.undo()
    spool.close()
    assert stored(folder) == [b"whole"]


def test_a_write_that_lies_is_not_acknowledged(spool, folder, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:-1]) + 1)
    (error,) = append_all(spool, [b"lost"])
    assert isinstance(error, SpoolError)
    monkeypatch.undo()
    until(lambda: spool.failure is None)
    spool.close()
    assert stored(folder) == []


def test_rotation_under_load_loses_nothing_and_repeats_nothing(folder):
    spool = Spool(folder, segment_bytes=1000)

    async def client(number):
        for i in range(40):
            await spool.append(b"%d-%d" % (number, i))

    async def run():
        await asyncio.gather(*[client(number) for number in range(32)])

    asyncio.run(run())
    spool.close()
    expected = {b"%d-%d" % (number, i) for number in range(32) for i in range(40)}
    assert dict.fromkeys(expected, 1) == Counter(stored(folder))
    assert spool.counts.sealed >= 5


def test_a_segment_is_sealed_when_it_is_old(folder):
    spool = Spool(folder, segment_seconds=0.01)
    append_all(spool, [b"x"])
    until(lambda: len(list(folder.glob("*.seg"))) == 1)
    spool.close()
    assert stored(folder) == [b"x"]


def test_closing_writes_what_waits_and_then_takes_nothing(spool, folder):
    async def run():
        waiting = [spool.append(b"x") for _ in range(50)]
        spool.close()
        await asyncio.gather(*waiting)
        with pytest.raises(SpoolError, match="closed"):
            spool.append(b"y")

    asyncio.run(run())
    spool.close()
    assert stored(folder) == [b"x"] * 50


def test_a_writer_that_dies_leaves_nobody_waiting(spool, monkeypatch):
    def break_(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(spool._segment, "append", break_)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    (error,) = append_all(spool, [b"x"])
    assert "the writer has stopped" == str(error) == spool.failure
    asyncio.run(_refused(spool))
    spool._thread.join()  # it reports its error after it woke those who wait


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file" / "log")


def test_a_disk_without_space_for_a_segment_is_refused(folder, monkeypatch):
    monkeypatch.setattr(segment, "reserve", _no_space)
    with pytest.raises(OSError, match="No space left"):
        Spool(folder)
    assert list(folder.glob("*.open")) == []
