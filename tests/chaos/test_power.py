"""Power cuts: the disk keeps what was synced, and the spool synced everything it acknowledged (row 3)."""

import os
import random
import shutil
import signal
import time
from collections import Counter

import pytest
import strict
import writer
from faults import check_log, run, until

from closedloop.log.frame import OPEN, SEALED, read_segment
from closedloop.log.spool import Spool, SpoolError

CUTS = {"ext4": 50, "xfs": 20}

# Every sync of the spool, by the functions that ask for it, and what its absence costs on a strict disk. What costs
# nothing is covered by another sync before the next acknowledgement, as the words say.
SYNCS = {
    "OpenSegment._write": "acknowledged records are lost",
    "OpenSegment.__init__>sync_folder": "acknowledged records are lost",
    "make_folder>sync_folder": "acknowledged records are lost",
    "write_state": "the state is damaged, and the spool refuses to go on",
    "cut_and_seal": "what recovery cut comes back",
    "OpenSegment.__init__": "",  # the sync of the first record covers the header; without a record nothing is lost
    "OpenSegment.seal": "",  # each of its records was synced before; it matters to LOG_DURABILITY=os alone
    "OpenSegment.seal>sync_folder": "",  # the segment is found open, and sealed again
    "cut_and_seal>sync_folder": "",  # likewise
    "write_state>sync_folder": "",  # the one of the segment that takes the number follows before its first record
}


def ids(words, kind):
    return {int(word[1]) for word in words if word[0] == kind}


def cut_power(image, point, mount, write, tmp_path, *options, under=(), enough=200):
    """Copy the disk while the writer is stopped, recover the copy and check O1 to O3."""
    with write(point / "log", *options, under=under) as (process, said):
        until(lambda: len(ids(said(), "acked")) > enough)
        time.sleep(random.Random(process.pid).uniform(0.0, 0.2))  # noqa: S311
        os.killpg(process.pid, signal.SIGSTOP)
        acked = ids(said(), "acked")
        copy = tmp_path / "copy"
        run("cp", "--sparse=always", image, copy)
        issued = ids(said(), "issued")
    shutil.rmtree(point / "log")
    after = mount("-o", "loop,nouuid" if "xfs" in image.name else "loop", source=copy)
    try:
        check_log(after / "log", issued, acked, writer.identify)
    finally:
        mount.detach(after)
    return len(acked)


@pytest.mark.parametrize("kind", CUTS)
def test_a_power_cut_loses_nothing_that_was_acknowledged(kind, disk, mount, write, tmp_path, progress):
    image, point = disk(kind)
    acked = 0
    for cut in range(CUTS[kind]):
        acked += cut_power(image, point, mount, write, tmp_path, "--segment-bytes", "20000")
        progress(cut + 1, CUTS[kind], f"power cuts on {kind}, {acked} acknowledged, 0 lost")
    assert acked > 200 * CUTS[kind]


@pytest.mark.parametrize("kind", CUTS)
def test_the_power_cut_sees_the_missing_sync_of_records(kind, disk, mount, write, tmp_path, strace):
    """strace drops every fdatasync: acknowledged records are lost, and the test sees it."""
    image, point = disk(kind)
    with pytest.raises(AssertionError, match="acknowledged are lost"):
        cut_power(image, point, mount, write, tmp_path, under=strace("fdatasync:retval=0"))


def live_and_die(tmp_path, write, without=""):
    """Run the writer twice on a strict disk, each run ended by a cut, and take sealed segments as a shipper does.

    Returns what is lost. The first cut comes soon after the first acknowledgement. Each cut leaves the bytes of an
    unfinished record at the end.
    """
    shipped, issued, acked, seen = {}, set(), set(), set()
    folder = tmp_path / "disk"
    folder.mkdir()
    for life, enough in enumerate([1, 600]):
        shadow = tmp_path / f"shadow-{life}"
        options = [
            "--first",
            str(1_000_000 * life),
            "--segment-bytes",
            "20000",
            "--strict",
            shadow,
            "--without",
            without,
        ]
        with write(folder / "log", *map(str, options)) as (process, said):
            until(lambda said=said, enough=enough: len(ids(said(), "acked")) > enough or process.poll() is not None)
            if (reason := process.poll()) is not None:
                return f"the writer ended with exit code {reason}"
            ship(folder / "log", shipped, but=1)  # so that what the first cut left open is there at the second one
            time.sleep(0.1 * life)
            process.kill()
            process.wait()
            words = said()
        seen |= strict.calls(shadow)
        issued |= ids(words, "issued")
        acked |= ids(words, "acked")
        folder = tmp_path / f"disk-{life}"
        strict.rebuild(shadow, folder)
        for path in (folder / "log").glob("*" + OPEN):
            path.write_bytes(path.read_bytes() + b"torn")
    try:
        if not (folder / "log").exists():
            return "the folder is lost"
        Spool(folder / "log").close()
        ship(folder / "log", shipped)
    except (SpoolError, AssertionError) as error:
        return str(error)
    found = Counter(writer.identify(payload) for payloads in shipped.values() for payload in payloads)
    assert found.keys() <= issued
    assert set(found.values()) <= {1}
    assert without or seen == SYNCS.keys()
    return f"{len(acked - found.keys())} acknowledged records are lost" if acked - found.keys() else ""


def ship(folder, shipped, but=None):
    """Take every sealed segment as a shipper does. One that was shipped before must be unchanged."""
    for path in folder.glob("*" + SEALED):
        segment = read_segment(path)
        if segment.number == but:
            continue
        assert segment.torn == 0, "a sealed segment has a torn end"
        assert shipped.setdefault(segment.number, segment.records) == segment.records, "a number was used twice"
        path.unlink()


def test_on_a_disk_that_promises_no_more_than_posix_nothing_is_lost(tmp_path, write):
    assert live_and_die(tmp_path, write) == ""


@pytest.mark.parametrize("sync", SYNCS)
def test_each_sync_left_out_is_seen_or_is_covered_by_another(sync, tmp_path, write):
    assert bool(SYNCS[sync]) == bool(live_and_die(tmp_path, write, without=sync))
