"""``python -m score.log``: what a spool on disk holds, what is damaged in it, and all that is good in it once more."""

import asyncio
import shutil
import subprocess
import sys

import pytest

from closedloop.log.frame import HEADER_BYTES
from closedloop.log.record import decode
from closedloop.log.spool import Spool, read


def ask(*words):
    command = [sys.executable, "-m", "score.log", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def log(kit, folder):
    return kit.fill(folder, [kit.scored("a"), kit.scored("b")], [kit.fed("c", {})])


def test_inspect_shows_each_segment_and_what_it_holds(log):
    code, out, _ = ask("inspect", log)
    lines = out.splitlines()
    assert (0, 3) == (code, len(lines))
    assert "2 segments, 3 records" in lines[0]
    assert lines[1].endswith("bytes  2 score, received 2015-01-04T12:00:00Z to 2015-01-04T12:00:00Z")
    assert "1 feedback" in lines[2]


def test_a_good_log_is_verified_even_while_it_is_written(log):
    spool = Spool(log)
    try:
        assert (0, f"{log}: 3 segments, 3 records; 0 faults\n", "") == ask("verify", log)
    finally:
        spool.close()


def test_damage_is_said_and_the_exit_code_tells(log):
    first, _ = sorted(log.glob("*.seg"))
    flip(first, HEADER_BYTES + 40)
    code, out, _ = ask("verify", log)
    assert (1, True) == (code, f"lost: {first}: " in out)
    assert "2 segments, 2 records; 1 faults" in out
    assert 1 == ask("inspect", log)[0]


def test_a_record_of_a_later_format_is_said(kit, log):
    kit.fill(log, [b"\x81\xa6format\x02"])
    code, out, _ = ask("verify", log)
    assert (1, True) == (code, "1 of 1 records have a format unknown to this version" in out)


def test_recover_copies_all_that_is_good_into_a_spool_that_works_and_leaves_the_old_one_as_it_was(log):
    first, _second = sorted(log.glob("*.seg"))
    flip(first, HEADER_BYTES + 40)
    (log / "state").write_bytes(b"rubbish")
    before = contents(log)
    code, out, _ = ask("recover", log)
    assert (1, before) == (code, contents(log))
    assert "2 records recovered" in out
    assert 2 == out.count("  lost: ")  # the state, and the damaged record
    recovered = log.with_name(log.name + ".recovered")
    assert ["b", "c"] == [decode(entry.payload).request_id for entry in read(recovered, pytest.fail)]
    spool = Spool(recovered)

    async def append():
        await spool.append(b"more")

    asyncio.run(append())
    spool.close()
    assert b"more" == [entry.payload for entry in read(recovered, pytest.fail)][-1]


def test_what_was_recovered_is_shipped_and_a_reader_counts_what_had_been_shipped_once(kit, log, sink, tmp_path):
    shutil.copytree(log, tmp_path / "copy")
    kit.ship(log, sink)
    assert 0 == ask("recover", tmp_path / "copy", "--to", tmp_path / "new")[0]
    kit.ship(tmp_path / "new", sink)
    assert ["a", "a", "b", "b"] == sorted(kit.ids(sink))


@pytest.fixture
def quarantine(kit, log, sink):
    """A record that is damaged, and one of a later version."""
    kit.fill(log, [kit.scored("later", format=2), kit.scored("d")])
    first, *_ = sorted(log.glob("*.seg"))
    flip(first, HEADER_BYTES + 40)
    kit.ship(log, sink)
    return log / "quarantine"


def test_the_quarantine_can_be_looked_at_alone(quarantine):
    code, out, _ = ask("inspect", quarantine)
    assert (1, 1) == (code, out.count("lost: "))
    assert "record 0: has format 2, this version reads 1" in out
    assert "are damaged; the records there are lost" in out


def test_the_quarantine_is_verified(quarantine):
    code, out, _ = ask("verify", quarantine)
    assert (1, 2) == (code, out.count("lost: "))


def test_whole_records_of_the_quarantine_are_recovered(quarantine, tmp_path):
    code, out, _ = ask("recover", quarantine, "--to", tmp_path / "new")
    assert (1, True) == (code, "1 records recovered" in out)
    (entry,) = read(tmp_path / "new", pytest.fail)
    assert b"later" in entry.payload


def test_segments_that_an_older_version_kept_can_be_looked_at(kit, log):
    (log / "quarantine").mkdir()
    first, _second = sorted(log.glob("*.seg"))
    flip(first, HEADER_BYTES + 40)
    first.rename(log / "quarantine" / first.name)
    code, out, _ = ask("inspect", log / "quarantine")
    assert (1, True, 1) == (code, "1 segments, 1 records" in out, out.count("lost: "))


@pytest.mark.parametrize("words", [["inspect", "nowhere"], ["look", "."], ["recover"]])
def test_wrong_usage_is_told_by_the_exit_code(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = ask(*words)
    assert (2, "") == (code, out)
    assert err
    assert [] == list(tmp_path.iterdir())


def test_recover_writes_into_no_folder_that_is_there(log, tmp_path):
    assert 2 == ask("recover", log, "--to", tmp_path)[0]
