"""A local table after a power cut: torn commits are taken back and shipped again from the spool."""

import shutil

import pytest
from deltalake import DeltaTable

from closedloop.log.repair import take_back_torn


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
    return sorted((table / "_delta_log").glob("*.json"))


@pytest.mark.parametrize("left", [0, 10])
@pytest.mark.parametrize("which", [2, 3])
def test_a_torn_commit_and_all_after_it_come_again(kit, folder, sink, cut, which, left):
    path = commits(cut)[which]
    path.write_bytes(path.read_bytes()[:left])
    status, said = kit.ship(folder, sink)
    assert [f"requests: took back {4 - which} commits that a power cut tore; they are shipped again"] == said
    assert (0, ["a", "b", "c"]) == (status.unsent_segments, kit.ids(sink))


def test_so_does_a_commit_whose_data_did_not_reach_the_disk(kit, folder, sink, cut):
    newest = max(cut.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"")
    _, said = kit.ship(folder, sink)
    assert 1 == len(said)
    assert ["a", "b", "c"] == kit.ids(sink)


def test_a_torn_checkpoint_is_removed_and_nothing_else(kit, folder, sink, cut):
    DeltaTable(cut).create_checkpoint()
    (checkpoint,) = (cut / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    before = commits(cut)
    assert [] == take_back_torn(cut)
    assert before == commits(cut)
    assert ["a", "b", "c"] == kit.ids(sink)


def test_a_whole_table_is_left_as_it_is_even_when_old_files_were_vacuumed(cut):
    DeltaTable(cut).create_checkpoint()
    next(cut.glob("*.parquet")).unlink()
    before = sorted(path for path in cut.rglob("*"))
    assert [] == take_back_torn(cut)
    assert before == sorted(path for path in cut.rglob("*"))


def test_no_table_has_nothing_to_take_back(tmp_path):
    assert [] == take_back_torn(tmp_path)
