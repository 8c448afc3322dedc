"""``python -m model.log_repair``: a halted sink is repaired from spools that have the segments, or on confirmation."""

import shutil
import subprocess
import sys

import pytest
from deltalake import DeltaTable

from closedloop.log.commits import commit_files, read_commit


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


@pytest.mark.parametrize("words", [[], ["--sink", "nowhere"], ["--sink", "."], ["--sink", ".", "--spool", "."]])
def test_wrong_usage_is_told(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ask(*words)
    assert (2, True) == (code, bool(err))
    assert [] == list(tmp_path.iterdir())
