"""Files cut short and bytes flipped at every place: the rest is recovered and the loss reported (rows 10 and 11)."""

import asyncio
import os
import shutil

import faults
import pytest
import writer
from faults import check_log

from closedloop.log.frame import OPEN, SEALED, SegmentError
from closedloop.log.spool import Spool, SpoolError, read

RECORDS = range(3, 9)


@pytest.fixture
def crashed(tmp_path):
    """A small log as a kill leaves it: one sealed segment and an open one, each with the same records."""
    folder, copy = tmp_path / "log", tmp_path / "crashed"

    async def append(spool, numbers):
        for number in numbers:
            await spool.append(writer.payload(number))

    first = Spool(folder)
    asyncio.run(append(first, RECORDS))
    first.close()
    second = Spool(folder)
    asyncio.run(append(second, [100 + number for number in RECORDS]))
    shutil.copytree(folder, copy)
    second.close()
    return copy


def numbers(payloads):
    return [writer.identify(payload) for payload in payloads]


def test_an_open_segment_cut_at_any_byte_gives_the_records_before_the_cut(crashed, tmp_path, progress):
    (path,) = crashed.glob("*" + OPEN)
    whole = path.read_bytes()
    everything = [*RECORDS, *[100 + number for number in RECORDS]]
    kept = []
    for length in range(len(whole) + 1):
        folder = tmp_path / f"cut-{length}"
        shutil.copytree(crashed, folder)
        os.truncate(folder / path.name, length)
        Spool(folder).close()
        found = numbers(entry.payload for entry in read(folder, pytest.fail))
        assert found == everything[: len(found)]
        assert len(found) >= len(RECORDS)
        kept.append(len(found))
        shutil.rmtree(folder)
        progress(length, len(whole), "cut at byte")
    assert kept == sorted(kept)
    assert kept[-1] == len(everything)
    assert len(set(kept)) == len(RECORDS) + 1


def test_any_byte_flipped_costs_at_most_its_record_and_is_told(crashed, tmp_path, progress):
    """In every file of the folder except the lock, and through recovery: no other record is lost, and none appears."""
    everything = [*RECORDS, *[100 + number for number in RECORDS]]
    places = [(path, place) for path in sorted(crashed.glob("0*")) for place in range(path.stat().st_size)]
    for done, (path, place) in enumerate(places, 1):
        folder = tmp_path / f"flip-{done}"
        shutil.copytree(crashed, folder)
        data = bytearray(path.read_bytes())
        data[place] ^= 0xFF
        (folder / path.name).write_bytes(data)
        told, refused = [], False
        try:
            Spool(folder).close()
        except (SpoolError, SegmentError):
            refused = True
        found = numbers(entry.payload for entry in read(folder, told.append))
        lost = [number for number in everything if number not in found]
        assert found == [number for number in everything if number not in lost]
        assert len(lost) <= 1
        assert told or refused or path.suffix == OPEN  # of the last record of an open one, a crash would leave the same
        shutil.rmtree(folder)
        progress(done, len(places), "bytes flipped")


def test_a_service_on_a_damaged_log_serves_on_and_counts_the_loss(serve, crashed, ledger):
    """The end of the open segment is torn and a record in its middle is flipped; both stand in the metrics."""
    (path,) = crashed.glob("*" + OPEN)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[:-5])
    with serve(LOG_DIR=str(crashed)) as service:
        service.fresh(ledger)
        assert faults.metric(service.port, "closedloop_log_corrupt_stretches_total") == 1
        assert faults.metric(service.port, "closedloop_log_torn_bytes_total") > 0
        assert faults.metric(service.port, "closedloop_log_recovered_records_total") == len(RECORDS) - 2
        assert service.stop() == 0
    assert list(crashed.glob("*" + OPEN)) == []
    assert len(list(crashed.glob("*" + SEALED))) == 3


def test_two_writers_of_one_folder_the_second_is_refused(write, tmp_path, ledger):
    """Row 12, between processes; the first goes on, and its log is whole."""
    folder = tmp_path / "log"
    with write(folder) as (first, said):
        faults.until(lambda: len(said()) > 50)
        with write(folder) as (second, words):
            assert second.wait(timeout=30) == 1
            assert words() == []
        assert first.poll() is None
        before = len(said())
        faults.until(lambda: len(said()) > before)
        first.kill()
        first.wait()
        found = {kind: {int(number) for word, number in said() if word == kind} for kind in ("issued", "acked")}
    assert "is held by another process: give each worker a folder of its own" in (tmp_path / "errors").read_text()
    check_log(folder, found["issued"], found["acked"], writer.identify)


def test_a_second_service_on_the_same_log_is_refused(serve, launch, ledger):
    with serve() as service:
        with launch() as (second, output):
            assert second.wait(timeout=faults.START_SECONDS) == 3
        assert "lock is held by another process: give each worker a folder of its own" in output.read_text()
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log)
