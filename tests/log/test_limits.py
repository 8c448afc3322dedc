"""What waits to be shipped is bounded: more is refused, and nothing is lost, until a shipper has caught up."""

import asyncio
import os
import time

import pytest

from closedloop.log.spool import Spool, SpoolFull, read


@pytest.fixture
def opened(tmp_path):
    spools = []

    def open_spool(**options):
        spools.append(Spool(tmp_path / "log", **options))
        return spools[-1]

    yield open_spool
    for spool in spools:
        spool.close()


async def until_refused(spool, payload=b"x" * 100):
    accepted = 0
    while accepted < 10_000:
        try:
            await spool.append(payload)
        except SpoolFull as error:
            return accepted, str(error)
        accepted += 1
    raise AssertionError("never refused")


async def until_accepted(spool):
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline
        try:
            return await spool.append(b"after")
        except SpoolFull:
            await asyncio.sleep(0.01)


def test_more_bytes_than_the_limit_are_refused_and_none_that_was_taken_is_lost(opened, tmp_path):
    spool = opened(limit_bytes=5_000, segment_bytes=1_000)
    accepted, reason = asyncio.run(until_refused(spool))
    assert "wait to be shipped, the limit is 5000" in reason
    spool.close()
    assert accepted == len(list(read(tmp_path / "log", pytest.fail)))
    assert 4_000 < sum(path.stat().st_size for path in (tmp_path / "log").glob("*.seg")) <= 5_000


def test_refused_it_seals_the_open_segment_so_that_it_can_be_shipped_and_then_goes_on(opened, tmp_path):
    spool = opened(limit_bytes=5_000)

    async def run():
        await until_refused(spool)
        deadline = time.monotonic() + 10
        while not (sealed := list((tmp_path / "log").glob("*.seg"))):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        with pytest.raises(SpoolFull):
            spool.append(b"x" * 100)
        for path in sealed:
            path.unlink()  # as a shipper does
        await until_accepted(spool)

    asyncio.run(run())


def test_a_log_that_is_not_shipped_for_too_long_is_refused_until_it_was(opened, tmp_path):
    spool = opened(limit_seconds=0.2)

    async def run():
        await spool.append(b"x")
        await asyncio.sleep(0.3)
        _, reason = await until_refused(spool)
        assert "has not been shipped for" in reason
        deadline = time.monotonic() + 10
        while not (sealed := list((tmp_path / "log").glob("*.seg"))):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        sealed[0].unlink()
        await until_accepted(spool)

    asyncio.run(run())


def test_segments_from_before_the_start_count_with_their_age(opened, tmp_path):
    first = opened()
    asyncio.run(until_accepted(first))
    first.close()
    (sealed,) = (tmp_path / "log").glob("*.seg")
    an_hour_ago = time.time() - 3600
    os.utime(sealed, (an_hour_ago, an_hour_ago))
    spool = opened(limit_seconds=3000)
    assert (1, sealed.stat().st_size) == (spool.backlog.segments, spool.backlog.bytes)
    assert 3600 <= spool.backlog.oldest_seconds() < 3700
    assert (0, "the log has not been shipped for 3600 s, the limit is 3000") == asyncio.run(until_refused(spool))


def test_a_clock_that_was_set_back_makes_no_segment_older_than_it_is(opened, tmp_path):
    first = opened()
    asyncio.run(until_accepted(first))
    first.close()
    (sealed,) = (tmp_path / "log").glob("*.seg")
    in_ten_days = time.time() + 864_000
    os.utime(sealed, (in_ten_days, in_ten_days))
    spool = opened(limit_seconds=100)
    assert 0 <= spool.backlog.oldest_seconds() < 100
    asyncio.run(until_accepted(spool))


def test_a_record_is_sealed_in_time_to_be_shipped_before_it_has_waited_too_long(opened, tmp_path):
    """Also where nothing follows it: it would keep the service from being ready until the segment is full or old."""
    spool = opened(limit_seconds=2.0)

    async def run():
        await spool.append(b"alone")
        while not (sealed := list((tmp_path / "log").glob("*.seg"))):
            assert spool.overdue is None
            await asyncio.sleep(0.01)
        assert spool.overdue is None
        sealed[0].unlink()  # as a shipper does
        await until_accepted(spool)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["00000000000000000001.kept", "00000000000000000001.seg"])
def test_what_is_in_quarantine_counts_until_someone_takes_it_away(opened, tmp_path, name):
    """Or else whoever sends what cannot be shipped fills the volume."""
    place = tmp_path / "log" / "quarantine"
    place.mkdir(parents=True)
    (place / name).write_bytes(b"x" * 5_000)
    spool = opened(limit_bytes=5_000)

    async def run():
        accepted, reason = await until_refused(spool)
        assert 0 == accepted
        assert "5000 are in quarantine, the limit is 5000" in reason
        (place / name).unlink()
        await until_accepted(spool)

    asyncio.run(run())


def test_a_segment_that_was_just_sealed_counts_once(opened, monkeypatch):
    """The next one is begun by several syncs, during which records come."""
    spool = opened(limit_bytes=150_000, segment_bytes=100_000)
    begin = spool._begin

    def slowly():
        time.sleep(0.3)
        return begin()

    monkeypatch.setattr(spool, "_begin", slowly)

    async def run():
        await spool.append(b"x" * 100_000)
        await asyncio.sleep(0.1)
        await spool.append(b"y" * 1_000)

    asyncio.run(run())


def test_what_was_acknowledged_at_once_and_then_refused_by_the_disk_is_counted(opened, monkeypatch):
    spool = opened(durability="off")

    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(spool._segment, "append", full)

    async def run():
        await spool.append(b"x")

    asyncio.run(run())
    spool.close()
    assert (0, 1) == (spool.counts.records, spool.counts.lost)
