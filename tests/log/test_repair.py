"""A table in a local folder after a power cut: what is torn is undone and shipped again, or the sink is halted."""

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from closedloop.log import commits as module_of_commits
from closedloop.log import repair, undo
from closedloop.log import ship as module
from closedloop.log.commits import commit_files, read_commit
from closedloop.log.halt import halted
from closedloop.log.lease import Lease
from closedloop.log.repair import Spools, take_back_torn
from closedloop.log.sink import Sink


@pytest.fixture
def cut(kit, folder, sink, tmp_path):
    """Three segments in the sink; the last two are still in the spool, since no sync followed them."""
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, sink)
    kit.fill(folder, [kit.scored("b")], [kit.scored("c")])
    shutil.copytree(folder, tmp_path / "before")
    kit.ship(folder, sink)
    for path in (tmp_path / "before").glob("*.seg"):
        shutil.copy(path, folder)
    return sink / "requests"


def commits(table):
    return commit_files(table / "_delta_log")


def keep_lines(path, count):
    """As a cut leaves it that falls between two blocks: whole lines, and not all of them."""
    path.write_text("\n".join(path.read_text().splitlines()[:count]))


def shorten(table, version, left=-1):
    """Cut the data file of a version."""
    (path,) = read_commit(commits(table)[version]).added
    (table / path).write_bytes((table / path).read_bytes()[:left])
    return path


def scan(table, version):
    opened = DeltaTable(table, version=version)
    return sorted(
        pa.RecordBatchReader.from_stream(opened.scan(columns=["request_id"])).read_all()["request_id"].to_pylist()
    )


def again(kit, folder, sink):
    """Ship, and require that all is there once, and nothing is left or halted."""
    status, said = kit.ship(folder, sink)
    assert (0, ["a", "b", "c"]) == (status.unsent_segments, sorted(kit.ids(sink))), said
    assert [] == kit.ship(kit.fill(folder, [kit.scored("later")]), sink)[1]  # once repaired, it is whole
    assert ["a", "b", "c", "later"] == sorted(kit.ids(sink))
    assert halted(Sink.at(str(sink), {})) is None
    return said


def stopped(kit, folder, sink):
    """Ship, and require that the sink is halted; why."""
    status, said = kit.ship(folder, sink)
    assert 1 == status.failures, said
    assert (sink / "halt").exists()
    return said[-1]


# --- what is undone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 10])
def test_an_unreadable_commit_that_this_shipper_was_writing_comes_again(kit, folder, sink, cut, left):
    path = commits(cut)[3]
    path.write_bytes(path.read_bytes()[:left])
    assert ["requests: took back what a power cut tore (version 3); its segments are shipped again"] == again(
        kit, folder, sink
    )


@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("which", [2, 3])
def test_a_commit_cut_after_a_whole_line_comes_again_once(kit, folder, sink, cut, which, lines):
    """It is good JSON, but what says that the segment is there was in the lines that are gone (or the data)."""
    keep_lines(commits(cut)[which], lines)
    again(kit, folder, sink)


@pytest.mark.parametrize("key", ["spool", "segment", "sha256"])
def test_a_commit_that_does_not_name_its_segment_is_not_whole(cut, key):
    lines = commits(cut)[3].read_text().splitlines()
    first = json.loads(lines[0])
    del first["commitInfo"][key]
    commits(cut)[3].write_text("\n".join([json.dumps(first), *lines[1:]]))
    assert "does not name its segment" == read_commit(commits(cut)[3]).flaw


def test_a_commit_with_the_transaction_of_another_segment_is_not_whole(cut):
    path = commits(cut)[3]
    path.write_text(path.read_text().replace('"version":3}}', '"version":2}}'))
    assert "lacks the transaction of its segment" == read_commit(path).flaw


@pytest.mark.parametrize("left", [0, -1])
@pytest.mark.parametrize("which", [2, 3])
def test_so_does_a_commit_whose_data_did_not_reach_the_disk(kit, folder, sink, cut, which, left):
    shorten(cut, which, left)
    again(kit, folder, sink)


def test_all_torn_at_once_with_the_first_commit_of_the_table_too(kit, folder, sink, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    shutil.copytree(folder, tmp_path / "before")
    kit.ship(folder, sink)
    shutil.copy(next((tmp_path / "before").glob("*.seg")), folder)
    for path in commits(sink / "requests"):
        path.write_bytes(b"")
    status, _ = kit.ship(folder, sink)
    assert (0, ["a"]) == (status.unsent_segments, kit.ids(sink))


def test_a_compaction_whose_file_is_short_is_undone_while_the_files_it_replaced_are_there(kit, folder, sink, cut):
    DeltaTable(cut).optimize.compact()
    shorten(cut, 4)
    again(kit, folder, sink)


def test_a_compaction_cut_after_its_removals_is_undone(kit, folder, sink, cut):
    """The table would be empty."""
    DeltaTable(cut).optimize.compact()
    path = commits(cut)[4]
    keep_lines(path, 4)
    assert "names 0 of 1 files added" == read_commit(path).flaw
    assert ["requests: took back what a power cut tore (version 4); its segments are shipped again"] == again(
        kit, folder, sink
    )


def test_a_short_file_that_a_compaction_has_replaced_costs_nothing(kit, folder, sink, cut):
    DeltaTable(cut).optimize.compact()
    shorten(cut, 1)
    assert [] == again(kit, folder, sink)


def test_another_spools_commits_stay_where_they_are(kit, folder, sink, cut, tmp_path):
    kit.fill(tmp_path / "other", [kit.scored("x")])
    kit.ship(tmp_path / "other", sink)
    shorten(cut, 3)
    kit.ship(folder, sink)
    assert ["a", "b", "c", "x"] == sorted(kit.ids(sink))


def test_a_commit_that_is_missing_before_a_later_one_comes_again(kit, folder, sink, tmp_path):
    """A disk may keep the later name and not the earlier one: nobody could open the table."""
    other = kit.fill(tmp_path / "other", [kit.scored("a")])
    kit.ship(other, sink)
    kit.fill(other, [kit.scored("b")])
    shutil.copytree(other, tmp_path / "before")
    kit.ship(other, sink)
    kit.ship(kit.fill(folder, [kit.scored("c")]), sink)
    (segment,) = (tmp_path / "before").glob("*.seg")
    shutil.copy(segment, other)
    commits(sink / "requests")[2].unlink()
    assert ["requests: took back what a power cut tore (version 2); its segments are shipped again"] == again(
        kit, other, sink
    )


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"{"), lambda path: keep_lines(path, 1)])
def test_a_repair_that_was_killed_between_its_two_commits_is_finished(kit, folder, sink, cut, damage, monkeypatch):
    """The undoing is there, and the torn commit too: nobody can open the table."""

    def killed(*_):
        raise KeyboardInterrupt

    damage(commits(cut)[3])
    with monkeypatch.context() as patched:
        patched.setattr(undo, "replace_unreadable", killed)
        with pytest.raises(KeyboardInterrupt):
            take_back_torn(cut, Spools((folder,)))
    assert [] == again(kit, folder, sink)
    with pytest.raises((pa.ArrowInvalid, DeltaError, OSError), match="was-torn-and-taken-back"):
        scan(cut, 3)


def test_a_shipper_repairs_when_it_begins_also_with_nothing_to_ship(kit, folder, sink, cut):
    """Here the lease of an upkeep is torn. Without repair nobody could read, or compact, until a request came."""
    kit.ship(folder, sink)  # the segments that came back are there already
    with Lease(Sink.at(str(sink), {}), "requests", say=print):
        pass
    commits(cut)[-1].write_bytes(b"{")
    assert [] == list(folder.glob("*.seg"))
    assert ["requests: took back what a power cut tore (version 5); its segments are shipped again"] == (
        kit.ship(folder, sink)[1]
    )
    assert ["a", "b", "c"] == sorted(kit.ids(sink))


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: keep_lines(path, 1)])
def test_no_version_ever_means_other_rows(kit, folder, sink, cut, damage):
    """A pin of a version that was torn fails; those before it mean what they did, and no number is used again."""
    before = {version: scan(cut, version) for version in range(4)}
    damage(commits(cut)[3])
    again(kit, folder, sink)
    for version in range(3):
        assert before[version] == scan(cut, version)
    with pytest.raises((pa.ArrowInvalid, DeltaError, OSError), match="was-torn-and-taken-back"):
        scan(cut, 3)
    assert DeltaTable(cut).version() > 4


def test_a_reader_that_was_open_meanwhile_sees_the_same(kit, folder, sink, cut):
    """What it has in memory ends up in the next checkpoint."""
    reader = DeltaTable(cut)
    commits(cut)[3].write_bytes(b"")
    again(kit, folder, sink)
    reader.update_incremental()
    reader.create_checkpoint()
    assert ["a", "b", "c", "later"] == sorted(kit.ids(sink))


# --- what halts the sink ----------------------------------------------------------------------------------------------


def test_a_shipper_never_undoes_what_another_spool_shipped(kit, folder, sink, tmp_path):
    """One byte is cut off the oldest file of this spool, whose segment is gone: all of both would be lost."""
    for name in "abc":
        kit.fill(folder, [kit.scored(name)])
        kit.ship(folder, sink)
        kit.fill(tmp_path / "other", [kit.scored("x" + name)])
        kit.ship(tmp_path / "other", sink)
    shorten(sink / "requests", 1)
    before = [path.read_bytes() for path in commits(sink / "requests")]
    kit.fill(folder, [kit.scored("d")])
    line = stopped(kit, folder, sink)
    assert "requests: version 1 has a data file that is cut short" in line
    assert "segment 1 of spool" in line
    assert "is not in this spool" in line
    assert before == [path.read_bytes() for path in commits(sink / "requests")]
    kit.fill(tmp_path / "other", [kit.scored("xd")])
    status, said = kit.ship(tmp_path / "other", sink)
    assert (1, True) == (status.unsent_segments, "is halted: " in said[0])


def test_every_shipper_obeys_a_halt_also_one_that_runs(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    said = []
    shipper = module.Shipper(folder, Sink.at(str(sink), os.environ), said.append)
    assert shipper.round()
    (sink / "halt").write_text(json.dumps({"why": ["a person said so"]}))
    kit.fill(folder, [kit.scored("b")])
    assert not shipper.round()
    assert "is halted: a person said so. Run log-repair" in said[0]
    (sink / "halt").write_bytes(b"")  # its content is for people alone
    assert not shipper.round()
    (sink / "halt").unlink()
    assert shipper.round()
    shipper.close()
    assert ["a", "b"] == kit.ids(sink)


def test_a_segment_that_is_another_one_now_does_not_count(kit, folder, sink, cut):
    shorten(cut, 3)
    newest = sorted(folder.glob("*.seg"))[-1]
    newest.write_bytes(newest.read_bytes() + b"x")
    assert "segment 3 of spool" in stopped(kit, folder, sink)


def test_an_unreadable_commit_of_nobody_known_halts(kit, folder, sink, cut):
    (folder / "attempts.json").unlink()
    commits(cut)[3].write_bytes(b"")
    assert "version 3 is not JSON, and nothing tells which segment it holds" in stopped(kit, folder, sink)


def test_a_missing_commit_of_nobody_known_halts(kit, folder, sink, cut):
    before = commits(cut)
    before[2].unlink()
    assert "version 2 is missing, and nothing tells which segment it holds" in stopped(kit, folder, sink)
    assert [*before[:2], before[3]] == commits(cut)


def test_commits_that_upkeep_removed_are_not_missing(kit, folder, sink, checkpoints, monkeypatch):
    """Also when it removes them while repair looks, after its checkpoint."""
    for path in commits(checkpoints)[1:4]:
        path.unlink()
    assert {} == repair.damage(checkpoints)
    late = checkpoints / "_delta_log" / f"{4:020}.checkpoint.parquet"
    whole = module_of_commits._whole_checkpoints
    late.rename(checkpoints / "late")
    looked = iter([False, False, True])

    def look(log):
        if next(looked):
            (checkpoints / "late").rename(late)
        return whole(log)

    monkeypatch.setattr(module_of_commits, "_whole_checkpoints", look)
    assert {} == repair.damage(checkpoints)
    assert [] == list(looked)


def test_a_compaction_whose_file_is_short_and_whose_sources_are_gone_halts(kit, folder, sink, cut):
    opened = DeltaTable(cut)
    opened.optimize.compact()
    shorten(cut, 4)
    sources = list(read_commit(commits(cut)[4]).removed)
    (cut / sources[0]).unlink()
    assert f"and {sources[0]}, which it replaced, is gone" in stopped(kit, folder, sink)


def test_a_compaction_of_a_torn_file_is_not_undone_alone(kit, folder, sink, cut):
    """Its own file is whole, and has the rows: undone with the commit it rests on, they would be there twice."""
    DeltaTable(cut).optimize.compact()
    keep_lines(commits(cut)[3], 2)
    again(kit, folder, sink)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_torn_checkpoint_is_removed_and_nothing_else(kit, folder, sink, cut):
    DeltaTable(cut).create_checkpoint()
    (checkpoint,) = (cut / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    before = commits(cut)
    assert [] == take_back_torn(cut, Spools((folder,)))
    assert before == commits(cut)
    assert ["a", "b", "c"] == kit.ids(sink)


def test_a_torn_checkpoint_stays_where_it_alone_knows_what_was_before(kit, folder, sink, cut):
    DeltaTable(cut).create_checkpoint()
    (checkpoint,) = (cut / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    commits(cut)[1].unlink()
    assert "checkpoint 3 is torn, and version 1 before it is gone" in stopped(kit, folder, sink)
    assert checkpoint.exists()


@pytest.fixture
def checkpoints(kit, folder, sink):
    """Six segments in the sink, checkpoints at versions 2 and 4; all segments are in the spool again."""
    names = "abcdef"
    kit.fill(folder, *[[kit.scored(name)] for name in names])
    shutil.copytree(folder, folder.with_name("before"))
    table = sink / "requests"
    segments = sorted(folder.glob("*.seg"))
    for path in segments:
        path.rename(path.with_suffix(".later"))
    for number, path in enumerate(segments, 1):
        path.with_suffix(".later").rename(path)
        kit.ship(folder, sink)
        if number in (2, 4):
            DeltaTable(table).create_checkpoint()
    for path in folder.with_name("before").glob("*.seg"):
        shutil.copy(path, folder)
    return table


@pytest.mark.parametrize(("version", "torn"), [(1, False), (2, False), (3, True), (4, True), (5, True)])
def test_repair_looks_at_what_follows_the_last_checkpoint_but_one(folder, checkpoints, version, torn):
    """At the last one its own commit need not have reached the disk; what the one before it holds is settled."""
    keep_lines(commits(checkpoints)[version], 2)
    assert torn == bool(take_back_torn(checkpoints, Spools((folder,))))


def test_a_commit_before_the_last_checkpoint_comes_again_once(kit, folder, sink, checkpoints):
    commits(checkpoints)[3].write_text("\n".join(commits(checkpoints)[3].read_text().splitlines()[:2]))
    kit.ship(folder, sink)
    assert list("abcdef") == sorted(kit.ids(sink))


def test_a_whole_table_is_left_as_it_is_even_when_old_files_were_vacuumed(folder, cut):
    DeltaTable(cut).create_checkpoint()
    next(cut.glob("*.parquet")).unlink()
    before = sorted(path for path in cut.rglob("*"))
    assert [] == take_back_torn(cut, Spools((folder,)))
    assert before == sorted(path for path in cut.rglob("*"))


def test_what_upkeep_commits_is_whole(cut):
    opened = DeltaTable(cut)
    opened.optimize.compact()
    opened.delete("request_id = 'b'")
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert 8 == len(commits(cut))
    assert [None] * 8 == [read_commit(path).flaw for path in commits(cut)]


def test_no_table_has_nothing_to_take_back(tmp_path):
    assert [] == take_back_torn(tmp_path, Spools((tmp_path,)))


def test_a_second_repair_waits_for_the_first_and_finds_a_whole_table(folder, cut, monkeypatch):
    """Two shippers that start at once after a power cut."""
    commits(cut)[3].write_bytes(b"")
    both, undo = threading.Barrier(2), repair.undo

    def slowly(*args):
        time.sleep(0.5)  # the other one is there by now
        undo(*args)

    monkeypatch.setattr(repair, "undo", slowly)

    def take_back():
        both.wait()
        return take_back_torn(cut, Spools((folder,)))

    with ThreadPoolExecutor(2) as pool:
        found = [future.result() for future in [pool.submit(take_back) for _ in range(2)]]
    assert [[], [3]] == sorted(found)
    assert 5 == len(commits(cut))
