"""A disk that is full, read-only, broken, slow or lying: refused, never acknowledged, then well again (rows 4-9)."""

import asyncio
import time

import faults
import pytest
import writer
from faults import Load, check_log, get, until

from closedloop.log.spool import Spool


def ids(words, kind):
    return {int(word[1]) for word in words if word[0] == kind}


def check(folder, words):
    return check_log(folder, ids(words, "issued"), ids(words, "acked"), writer.identify)


def refuses_then_recovers(service, ledger, end):
    """Not ready but alive, and refusing with 503 while the fault lasts; well after ``end()``, without a restart."""
    with Load(service.port, ledger, lasting=True):
        until(lambda: get(service.port, "/readyz")[0] == 503)
        until(lambda: ledger.statuses[503] > 5)
        assert get(service.port, "/livez") == (200, "alive\n")
        end()
        service.fresh(ledger)
    assert get(service.port, "/readyz")[0] == 200
    assert ledger.broken == 0
    assert set(ledger.statuses) == {200, 503}


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_service_on_a_full_disk_refuses_and_recovers_when_there_is_space(kind, disk, mount, serve, ledger):
    point = mount("-t", "tmpfs", "-o", "size=2m", source="none") if kind == "tmpfs" else disk("ext4")[1]
    ballast = point / "ballast"
    with serve(LOG_DIR=str(point / "log")) as service:
        service.fresh(ledger)
        fill(ballast)
        refuses_then_recovers(service, ledger, ballast.unlink)
        assert faults.metric(service.port, "closedloop_log_failures_total") > 0
        assert service.stop() == 0
    ledger.check(point / "log")


def fill(path):
    """Fill the disk except for a little space."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 14):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - (200 << 10))


def test_a_service_whose_disk_becomes_read_only_refuses_and_its_log_outlives_that(disk, mount, serve, ledger):
    """The file system aborts, as after an error of its disk, and is read-only until it is mounted again (row 6)."""
    image, point = disk("ext4")
    with serve(LOG_DIR=str(point / "log")) as service:
        with Load(service.port, ledger):
            until(lambda: len(ledger.acked) > 50)
        faults.run("mount", "-o", "remount,abort", point)
        with Load(service.port, ledger):
            until(lambda: get(service.port, "/readyz")[0] == 503)
            until(lambda: ledger.statuses[503] > 5)
            assert get(service.port, "/livez") == (200, "alive\n")
        assert service.stop() == 0
    copy = image.with_name("copy")  # not the image: another name space may still hold the broken mount
    faults.run("cp", "--sparse=always", image, copy)
    again = mount("-o", "loop", source=copy)
    with serve(LOG_DIR=str(again / "log")) as service:
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(again / "log")
    assert set(ledger.statuses) == {200, 503}


def test_a_start_on_a_read_only_disk_is_refused_in_one_line(disk, launch):
    _, point = disk("ext4")
    faults.run("mount", "-o", "remount,ro", point)
    with launch(LOG_DIR=str(point / "log")) as (process, output):
        assert process.wait(timeout=faults.START_SECONDS) == 3
    assert "Read-only file system" in output.read_text()
    assert "Traceback" not in output.read_text()


def test_a_start_on_a_full_disk_is_refused_in_one_line(mount, launch):
    point = mount("-t", "tmpfs", "-o", "size=64k", source="none")
    with launch(LOG_DIR=str(point / "log")) as (process, output):
        assert process.wait(timeout=faults.START_SECONDS) == 3
    assert "No space left on device" in output.read_text()
    assert "Traceback" not in output.read_text()


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", ["1", "3", "2..4", "2+3"])
def test_a_sync_that_fails_is_not_acknowledged_and_the_rest_is(write, tmp_path, strace, error, when):
    folder = tmp_path / "log"
    with write(folder, "--records", "500", under=strace(f"fdatasync:error={error}:when={when}")) as (process, said):
        assert process.wait(timeout=60) == 0
        words = said()
    assert ids(words, "refused")
    assert ids(words, "acked")
    assert check(folder, words).keys() == ids(words, "acked")


@pytest.mark.parametrize(
    "fault", ["write:error=ENOSPC:when=3+4", "write:error=ENOSPC:when=2..9", "write:retval=3:when=2+3"]
)
def test_a_write_that_fails_or_lies_within_a_record_is_not_acknowledged(write, tmp_path, strace, fault):
    """ENOSPC in the middle (row 5), and a kernel that says it wrote 3 bytes and wrote none (row 9)."""
    folder = tmp_path / "log"
    about = [folder / f"{number:020d}.open" for number in range(1, 90)]
    with write(folder, "--records", "300", "--clients", "4", under=strace(fault, *about)) as (process, said):
        assert process.wait(timeout=60) == 0
        words = said()
    assert ids(words, "refused")
    assert ids(words, "acked")
    assert check(folder, words).keys() == ids(words, "acked")


def test_a_disk_that_fills_within_a_record_keeps_what_was_acknowledged(mount):
    """A record longer than the space that is left is written in part, for real (row 5)."""
    point = mount("-t", "tmpfs", "-o", "size=1m", source="none")
    acked = []

    async def fill_up(spool):
        for number in range(100):
            size = 150_000 + number
            try:
                await spool.append(b"%d " % size + bytes(size))
            except RuntimeError as error:
                return str(error)
            acked.append(size)
        return "it never filled"

    spool = Spool(point / "log", retry_seconds=0.05)
    try:
        assert "No space left on device" in asyncio.run(fill_up(spool))
    finally:
        spool.close()
    found = check_log(point / "log", acked, acked, lambda payload: int(payload.split()[0]))
    assert len(acked) == sum(found.values())


def test_a_slow_disk_is_shared_by_many_and_what_would_wait_too_long_is_refused(serve, strace, ledger):
    """Each sync takes 200 ms: group commit holds for 64 clients, and no queue grows (row 8)."""
    with serve(under=strace("fdatasync:delay_enter=200000")) as service:
        service.fresh(ledger)
        before = len(ledger.acked)
        commits = faults.metric(service.port, "closedloop_log_commits_total")
        with Load(service.port, ledger, clients=64):
            time.sleep(3)
            assert get(service.port, "/livez")[0] == 200
        commits = faults.metric(service.port, "closedloop_log_commits_total") - commits
        assert len(ledger.acked) - before >= 10 * commits
        assert service.peak_bytes() < 600 << 20
        assert service.stop() == 0
    ledger.check(service.log)


def test_a_disk_that_hangs_keeps_the_queue_bounded(serve, strace, ledger):
    """A disk that hangs for 4 s: what waits for it has a limit, then 503; afterwards the service answers again."""
    with serve(under=strace("fdatasync:delay_enter=4000000:when=3")) as service:
        with Load(service.port, ledger, clients=64, lasting=True):
            time.sleep(2)
            assert get(service.port, "/livez")[0] == 200
        service.fresh(ledger)
        assert service.stop() == 0
    ledger.check(service.log)
