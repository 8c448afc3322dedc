"""Power cuts while a sink is halted, pinned or repaired, on a disk that keeps no more than POSIX promises."""

from collections import Counter

import pytest
import strict
from logkit import kit

from closedloop.log import pins
from closedloop.log.commits import commit_files
from closedloop.log.halt import halt, halted
from closedloop.log.sink import Sink

LUCKS = ["", "added", "removed", "replaced"]  # what the disk keeps unasked, see strict.rebuild
DONE = ("", 0)
UNDONE = ("replace_unreadable>sync_folder", 1)  # the undoing is there, and what it undoes is about to be replaced


# What is done, the sync that is left out, what the disk keeps unasked, where it is cut, and what is lost then.
LOSSES = [
    ("halt", "halt", "added", DONE, "the reason is lost"),
    ("halt", "halt>sync_folder", "", DONE, "the halt is lost"),
    ("write", "Store.write", "added", DONE, "the file is empty"),
    ("write", "Store.write>sync_folder", "", DONE, "the file is lost"),
    ("write", "Store._make>sync_folder", "", DONE, "the file is lost"),
    ("pin", "Store.sync", "", DONE, "the pinned version is lost"),
    ("repair", "_durable", "added", DONE, "is halted"),
    ("repair", "_write_undo>sync_folder", "replaced", UNDONE, "cannot be opened"),
    ("aside", "put_aside", "removed", DONE, "the table is lost"),
]
# Their absence costs nothing, and why.
COVERED = [
    ("lift", "lift>sync_folder"),  # the halt comes back, and is lifted again
    ("repair", "replace_unreadable>sync_folder"),  # the next repair finishes it
    ("checkpoint", "_remove_torn_checkpoints>sync_folder"),  # it comes back, and is removed again
    ("aside", "make_folder>sync_folder"),  # the sync of the disk covers it
]
WORK = ["halt", "lift", "write", "pin", "repair", "checkpoint", "aside"]


def prepare(what, disk):
    """The spool and the sink as they are before."""
    log, sink = disk / "log", disk / "sink"
    kit.fill(log, [kit.scored("a")])
    kit.ship(log, sink)
    kit.fill(log, [kit.scored("b")])
    (segment,) = log.glob("*.seg")
    content = segment.read_bytes()
    kit.ship(log, sink)
    if what == "lift":
        halt(sink, ["a torn commit"])
    if what == "repair":
        segment.write_bytes(content)
        commit_files(sink / "requests" / "_delta_log")[-1].write_bytes(b"{")
    if what == "checkpoint":
        Sink(str(sink)).open("requests").create_checkpoint()
        (path,) = (sink / "requests" / "_delta_log").glob("*.checkpoint.parquet")
        path.write_bytes(path.read_bytes()[:99])


def cut_and_look(tmp_path, what, without="", luck="", cut=DONE):
    """Do it, cut the power; return (what is lost, the syncs that were called in their order)."""
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    disk.mkdir(parents=True)
    prepare(what, disk)
    after = strict.cut_power("sinkwork.py", (disk, shadow, what), tmp_path, cut, without, luck)
    calls = (shadow / "calls").read_text().split()
    return lost(what, after / "log", after / "sink"), calls


def lost(what, log, sink):
    """What is not as it should be after the cut."""
    place = Sink(str(sink))
    if what == "halt":
        why = halted(place)
        return "the halt is lost" if why is None else "the reason is lost" if "cannot be read" in why else ""
    if what == "write":
        path = sink / "_erasures" / "a.json"
        return "the file is lost" if not path.exists() else "the file is empty" if not path.read_bytes() else ""
    if what == "pin":
        (pin,) = pins.find(place)
        there = place.open("requests").version() >= pin.versions["requests"]
        return "" if there else "the pinned version is lost"
    if what == "aside":
        found = {path.name for path in sink.rglob("*.parquet") if path.stat().st_size}
        return "" if len(found) == 2 else "the table is lost"
    if what == "lift":
        (sink / "halt").unlink(missing_ok=True)
    status, said = kit.ship(log, sink)
    if status.last_error is not None:
        return "is halted" if "is halted" in said[-1] else f"cannot be opened: {said[-1]}"
    try:
        found = kit.ids(sink)
    except Exception as error:  # noqa: BLE001 - of any kind
        return f"cannot be opened: {error}"
    return "" if Counter("ab") == Counter(found) else f"{found} are there"


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize("what", WORK)
def test_once_it_is_done_a_cut_undoes_nothing(what, luck, tmp_path):
    assert "" == cut_and_look(tmp_path, what, luck=luck)[0]


@pytest.mark.parametrize("what", ["lift", "repair", "checkpoint", "aside"])
def test_cut_at_any_sync_of_it_nothing_is_lost(what, tmp_path):
    counts = Counter()
    for number, name in enumerate(cut_and_look(tmp_path / "whole", what)[1]):
        counts[name] += 1
        for luck in LUCKS:
            if (what, luck) == ("aside", "removed"):
                continue  # a rename that was not synced: POSIX lets it be in neither place, and no file system does
            found, _ = cut_and_look(tmp_path / f"{number}-{luck}", what, luck=luck, cut=(name, counts[name]))
            assert "" == found, (name, luck)


def test_the_list_of_syncs_is_complete(tmp_path):
    called = set().union(*(cut_and_look(tmp_path / what, what)[1] for what in WORK))
    assert called == {case[1] for case in (*LOSSES, *COVERED)}


@pytest.mark.parametrize(("what", "sync", "luck", "cut", "loss"), LOSSES)
def test_each_sync_left_out_is_seen(what, sync, luck, cut, loss, tmp_path):
    assert loss in cut_and_look(tmp_path, what, sync, luck, cut)[0]


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize(("what", "sync"), COVERED)
def test_a_sync_left_out_that_is_covered_costs_nothing(what, sync, luck, tmp_path):
    assert "" == cut_and_look(tmp_path, what, sync, luck)[0]
