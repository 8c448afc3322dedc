"""``python -m model.log_repair``: a halted sink is repaired from spools that have the segments, or on confirmation."""

import shutil
import subprocess
import sys

import pytest
from deltalake import DeltaTable

from closedloop.log import pins
from closedloop.log.commits import commit_files, read_commit
from closedloop.log.pins import Pin
from closedloop.log.sink import Sink


def ask(*words):
    command = [sys.executable, "-m", "model.log_repair", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def halted(kit, folder, sink, tmp_path):
    """Two spools, one sink; the first one's second commit is cut, and its segment lies in a copy of the spool."""
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, sink)
    kit.fill(folder, [kit.scored("b")])
    shutil.copytree(folder, tmp_path / "copy")
    kit.ship(folder, sink)
    kit.fill(tmp_path / "other", [kit.scored("x")])
    kit.ship(tmp_path / "other", sink)
    table = sink / "requests"
    (path,) = read_commit(commit_files(table / "_delta_log")[2]).added
    (table / path).write_bytes((table / path).read_bytes()[:-1])
    kit.fill(folder, [kit.scored("c")])
    status, _ = kit.ship(folder, sink)
    assert 1 == status.unsent_segments
    return sink


def test_a_dry_run_says_what_is_torn_and_changes_nothing(halted):
    before = sorted(halted.rglob("*"))
    code, out, _ = ask("--sink", halted, "--dry-run")
    assert (1, before) == (code, sorted(halted.rglob("*")))
    assert "is halted: requests: version 2 has a data file that is cut short" in out


def test_from_a_spool_that_has_the_segment_nothing_is_lost(kit, halted, folder, tmp_path):
    code, out, err = ask("--sink", halted, "--spool", tmp_path / "copy")
    assert (0, "") == (code, err)
    assert "requests: took back version 2; its segments are shipped again" in out
    assert "the halt is lifted" in out
    shutil.copy(sorted((tmp_path / "copy").glob("*.seg"))[0], folder)
    _, said = kit.ship(folder, halted)
    assert ["a", "b", "c", "x"] == sorted(kit.ids(halted)), said


def test_what_no_spool_has_is_given_up_only_in_the_words_of_the_refusal(kit, halted, folder):
    for words in ([], ["--confirm", "yes"]):
        code, _, err = ask("--sink", halted, *words)
        assert (1, True) == (code, err.endswith('give the records up with --confirm "requests@2"\n'))
        assert (halted / "halt").exists()
    code, out, _ = ask("--sink", halted, "--confirm", "requests@2")
    assert (0, True) == (code, "requests@2: given up; its data files stay" in out)
    kit.ship(folder, halted)
    assert ["a", "c", "x"] == sorted(kit.ids(halted))
    assert 2 == len([path for path in DeltaTable(halted / "requests").history() if path["operation"] == "REPAIR"]) + 1


def test_restored_from_a_backup_the_sink_is_whole(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, sink)
    path = next((sink / "requests").glob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    kit.fill(folder, [kit.scored("b")])
    kit.ship(folder, sink)
    assert 1 == ask("--sink", sink)[0]
    path.write_bytes(whole)
    assert 0 == ask("--sink", sink)[0]
    kit.ship(folder, sink)
    assert ["a", "b"] == sorted(kit.ids(sink))


@pytest.fixture
def lost(kit, folder, sink):
    """A halted sink whose only checkpoint is torn, and a commit before it is gone; a segment waits in the spool."""
    for name in "ab":
        kit.ship(kit.fill(folder, [kit.scored(name)]), sink)
    pins.put(Sink.at(str(sink), {}), Pin("main", "main", {"requests": 2}))
    table = DeltaTable(sink / "requests")
    table.create_checkpoint()
    log = sink / "requests" / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.with_name("backup").write_bytes(checkpoint.read_bytes())
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    commit_files(log)[1].unlink()
    (sink / "_upkeep").mkdir(exist_ok=True)
    (sink / "_upkeep" / "requests.json").write_text("{}")
    kit.ship(kit.fill(folder, [kit.scored("c")]), sink)
    assert (sink / "halt").exists()
    return sink


def test_a_table_whose_torn_checkpoint_cannot_be_made_again_is_put_aside_only_when_confirmed(kit, lost, folder):
    assert "requests: checkpoint 2 is torn, and version 1 before it is gone" in ask("--sink", lost, "--dry-run")[1]
    for words in ([], ["--confirm", ""], ["--confirm", "requests@2"]):
        code, _, err = ask("--sink", lost, *words)
        assert (1, True) == (code, (lost / "halt").exists())
        assert "restore requests/_delta_log/00000000000000000002.checkpoint.parquet from a backup" in err
        assert err.endswith('--confirm "requests@checkpoint-2"\n')
        assert "--spool" not in err
    held = {path.name for path in (lost / "requests").rglob("*") if path.is_file()}
    code, out, err = ask("--sink", lost, "--confirm", "requests@checkpoint-2")
    assert (0, "") == (code, err)
    (aside,) = (lost / "_given_up").iterdir()
    assert f"requests@checkpoint-2: given up; its files are in {aside}, where erasure does not look" in out
    assert held == {path.name for path in (aside / "requests").rglob("*") if path.is_file()}
    assert (aside / "requests.json").exists()
    assert not (lost / "_upkeep" / "requests.json").exists()
    assert "given up" in pins.find(Sink.at(str(lost), {}))[0].unreadable
    assert [] == kit.ship(folder, lost)[1]
    assert ["c"] == kit.ids(lost)


def test_with_the_checkpoint_restored_from_a_backup_nothing_is_lost(kit, lost, folder):
    (torn,) = (lost / "requests" / "_delta_log").glob("*.checkpoint.parquet")
    torn.write_bytes(torn.with_name("backup").read_bytes())
    assert (0, "") == ask("--sink", lost)[::2]
    assert [] == kit.ship(folder, lost)[1]
    assert ["a", "b", "c"] == kit.ids(lost)


@pytest.mark.parametrize("words", [[], ["--sink", "nowhere"], ["--sink", "."], ["--sink", ".", "--spool", "."]])
def test_wrong_usage_is_told(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ask(*words)
    assert (2, True) == (code, bool(err))
    assert [] == list(tmp_path.iterdir())
