"""Power cuts: the disk keeps what was synced, and the spool synced everything it acknowledged (row 3)."""

import asyncio
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
LAST = 9_000_000  # the record that is appended after the last cut

# Syncs of the spool to leave out, what the disk keeps unasked (see strict.rebuild), and what is lost then.
LOSSES = [
    ("OpenSegment._write", "", "40 acknowledged records are lost"),  # the 2 and 38 of the segments that were open
    ("OpenSegment.__init__>sync_folder", "", "acknowledged records are lost"),
    ("make_folder>sync_folder", "", "the folder is lost"),
    ("write_state", "", "is damaged"),
    ("cut_and_seal", "", "has a torn end"),
    # Without both, the segment is there and its number is free: the next one takes its name, and its place.
    ("write_state>sync_folder OpenSegment.__init__>sync_folder", "added", "38 acknowledged records are lost"),
]
# Syncs whose absence costs nothing that was acknowledged, whatever the disk keeps, and why.
COVERED = [
    "OpenSegment.__init__",  # that of the first record covers the header; without a record nothing is lost
    "OpenSegment.seal",  # each record was synced before; under LOG_DURABILITY=os it matters: see the test of it
    "OpenSegment.seal>sync_folder",  # the segment is found open, and sealed again with the same content
    "cut_and_seal>sync_folder",  # likewise
    "write_state>sync_folder",  # that of the segment which takes the number
]
SYNCS = {name for names in [*(names for names, *_ in LOSSES), *COVERED] for name in names.split()}
CUTS_AT = {"fsync": [("OpenSegment._write", 3), ("OpenSegment._write", 300)], "os": [("write_state", 4)]}


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


def live_and_die(tmp_path, write, without="", luck="", durability="fsync"):
    """Run the writer on a strict disk and cut the power, at the same places each time; return what is lost.

    The first cut comes after two acknowledgements, the second one in the middle of a later segment. A shipper reads
    what is sealed just before each cut, which brings it back. Each cut leaves the bytes of an unfinished record.
    """
    shipped, issued, acked, seen = {}, set(), set(), set()
    folder = tmp_path / "disk"
    folder.mkdir()
    for life, (name, count) in enumerate(CUTS_AT[durability]):
        shadow = tmp_path / f"shadow-{life}"
        options = ["--first", 1_000_000 * life, "--segment-bytes", 20_000, "--clients", 1, "--durability", durability]
        options += ["--strict", shadow, "--cut", name, count, "--without", *without.split()]
        with write(folder / "log", *map(str, options)) as (process, said):
            if (reason := process.wait(timeout=60)) != -signal.SIGKILL:
                return (tmp_path / "errors").read_text().strip() or f"the writer ended with exit code {reason}"
            words = said()
        ship(folder / "log", shipped)
        seen |= strict.calls(shadow)
        issued |= ids(words, "issued")
        acked |= ids(words, "acked") if durability == "fsync" else set()
        before, folder = folder, tmp_path / f"disk-{life}"
        strict.rebuild(shadow, folder, before, luck)
        for path in (folder / "log").glob("*" + OPEN):
            path.write_bytes(path.read_bytes() + b"torn")
    try:
        if not (folder / "log").exists():
            return "the folder is lost"
        asyncio.run(append_one(folder / "log"))
        ship(folder / "log", shipped)
    except (SpoolError, AssertionError) as error:
        return str(error)
    found = Counter(writer.identify(payload) for payloads in shipped.values() for payload in payloads)
    assert found.keys() <= issued | {LAST}
    assert set(found.values()) <= {1}
    assert without or durability == "os" or seen == SYNCS
    return f"{len(acked - found.keys())} acknowledged records are lost" if acked - found.keys() else ""


async def append_one(folder):
    """Append to the log after the last cut, so that a number which came twice would take a segment's place."""
    spool = Spool(folder)
    await spool.append(writer.payload(LAST))
    await asyncio.to_thread(spool.close)


def ship(folder, shipped):
    """Read every sealed segment. One that was read before must be unchanged."""
    for path in sorted(folder.glob("*" + SEALED)):
        segment = read_segment(path)
        assert segment.torn == 0, f"segment {segment.number} has a torn end"
        before = shipped.setdefault(segment.number, segment.records)
        assert before == segment.records, f"segment {segment.number} changed after it was shipped"


@pytest.mark.parametrize("luck", ["", "added", "removed"])
def test_on_a_disk_that_promises_no_more_than_posix_nothing_is_lost(luck, tmp_path, write):
    assert live_and_die(tmp_path, write, luck=luck) == ""


@pytest.mark.parametrize(("syncs", "luck", "loss"), LOSSES)
def test_each_sync_left_out_is_seen(syncs, luck, loss, tmp_path, write):
    assert loss in live_and_die(tmp_path, write, syncs, luck)


@pytest.mark.parametrize("luck", ["", "added", "removed"])
@pytest.mark.parametrize("sync", COVERED)
def test_a_sync_left_out_that_is_covered_costs_nothing(sync, luck, tmp_path, write):
    assert live_and_die(tmp_path, write, sync, luck) == ""


@pytest.mark.parametrize(("sync", "loss"), [("", ""), ("OpenSegment.seal", "changed after it was shipped")])
def test_under_durability_os_a_sealed_segment_is_after_a_cut_what_the_shipper_read(sync, loss, tmp_path, write):
    """A segment that comes back changed would stop the shipper: its table holds another one of this number."""
    found = live_and_die(tmp_path, write, sync, durability="os")
    assert loss in found
    assert bool(loss) == bool(found)
