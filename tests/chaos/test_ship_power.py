"""Power cuts while a shipper works, on a disk that keeps no more than POSIX promises: each of its syncs is needed."""

from collections import Counter

import pytest
import strict
from logkit import kit

from closedloop.log import quarantine
from closedloop.log.frame import read_segment

LUCKS = ["", "added", "removed"]  # what the disk keeps unasked, see strict.rebuild


BAD = b"[1]"
WRITTEN = ("Shipper._make_durable", 3)  # the commit of the last segment is there, and not synced
REMOVED = ("Shipper._finish>sync_folder", 1)  # the segment is gone
DONE = ("", 0)  # cut when all is shipped

# What is shipped, the syncs to leave out, what the disk keeps unasked, where it is cut, and what is lost then.
LOSSES = [
    ("scored", "Shipper._make_durable", "", DONE, "records are lost"),
    ("scored", "Attempts.note", "added", WRITTEN, "is halted"),
    ("scored", "Attempts.note>sync_folder", "added", WRITTEN, "is halted"),
    ("bad", "keep", "", DONE, "what was kept is lost"),
    ("bad", "keep>sync_folder", "", DONE, "what was kept is lost"),
    ("foreign", "keep_whole>sync_folder", "removed", DONE, "what was kept is lost"),
    ("bad", "make_folder>sync_folder", "removed", REMOVED, "what was kept is lost"),
]
# Its absence costs nothing, whatever the disk keeps: the segment comes back, and the sink has it.
COVERED = "Shipper._finish>sync_folder"
SYNCS = {*(case[1] for case in LOSSES), COVERED}
SEGMENTS = {
    "scored": [[kit.scored("a")], [kit.scored("b")], [kit.scored("c")]],
    "bad": [[kit.scored("a"), kit.scored("bad", BAD)]],
    "foreign": [[kit.scored("a")]],
}


def cut_and_recover(tmp_path, what, without="", luck="", cut=DONE):
    """Ship what was sealed, cut the power, ship again; return (what is lost, the syncs that were called)."""
    disk, shadow = tmp_path / "disk", tmp_path / "shadow"
    kit.fill(disk / "log", *SEGMENTS[what])
    (disk / "sink").mkdir()  # it stands for a disk of its own
    if what == "foreign":
        kit.fill(tmp_path / "other", [], [kit.scored("x")])  # of another spool: it is moved as it is
        (foreign,) = (tmp_path / "other").glob("*.seg")
        foreign.rename(disk / "log" / foreign.name)
    words = disk / "log", disk / "sink", shadow
    after = strict.cut_power("shipper.py", words, tmp_path, cut, without, luck)
    status, said = kit.ship(after / "log", after / "sink")
    return lost(after, what, status, said), strict.calls(shadow)


def lost(after, what, status, said):
    """What is not there after the cut; it fails if anything is there twice."""
    if status.unsent_segments:
        return said[-1]
    expected = {"scored": ["a", "b", "c"]}.get(what, ["a"])
    found = Counter(kit.ids(after / "sink")) if (after / "sink" / "requests").exists() else Counter()
    assert set(found.values()) <= {1}
    if found.keys() != set(expected):
        return f"{len(set(expected) - found.keys())} records are lost"
    place = after / "log" / "quarantine"
    kept = [record.payload for _, records, _ in quarantine.read(place) for record in records]
    whole = [len(read_segment(path).records) for path in place.glob("*.seg")]
    there = {"scored": True, "bad": len(kept) == 1 and BAD in kept[0], "foreign": whole == [1]}[what]
    return "" if there else "what was kept is lost"


def sequence(tmp_path, what):
    """All syncs of shipping, in order, as (name, how often it was called by then)."""
    cut_and_recover(tmp_path, what)
    counts, found = Counter(), []
    for name in (tmp_path / "shadow" / "calls").read_text().split():
        counts[name] += 1
        found.append((name, counts[name]))
    return found


@pytest.mark.parametrize("what", SEGMENTS)
def test_cut_at_any_sync_of_the_shipper_nothing_is_lost(what, tmp_path):
    cuts = [*sequence(tmp_path / "first", what), DONE]
    assert len(cuts) > 3
    for number, cut in enumerate(cuts):
        for luck in LUCKS:
            found, _ = cut_and_recover(tmp_path / f"{number}-{luck}", what, luck=luck, cut=cut)
            assert found == "", (cut, luck)


def test_the_list_of_syncs_is_complete(tmp_path):
    assert SYNCS == set().union(*[cut_and_recover(tmp_path / what, what)[1] for what in SEGMENTS])


@pytest.mark.parametrize(("what", "syncs", "luck", "cut", "loss"), LOSSES)
def test_each_sync_of_the_shipper_left_out_is_seen(what, syncs, luck, cut, loss, tmp_path):
    assert loss in cut_and_recover(tmp_path, what, syncs, luck, cut)[0]


@pytest.mark.parametrize("luck", LUCKS)
@pytest.mark.parametrize("what", SEGMENTS)
def test_a_sync_of_the_shipper_left_out_that_is_covered_costs_nothing(what, luck, tmp_path):
    assert cut_and_recover(tmp_path, what, COVERED, luck)[0] == ""
