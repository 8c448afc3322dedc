"""One budget for spool, quarantine and a sink on the same disk; compaction runs by itself, and never in the way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deltalake.exceptions import TableNotFoundError

from closedloop.log import budget
from closedloop.log.backlog import Backlog
from closedloop.log.budget import SinkSize
from closedloop.log.halt import halt
from closedloop.log.ship import Status
from closedloop.log.spool import Spool, SpoolFull
from score.log import upkeep
from score.log.upkeep import Upkeep


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def small(kit, folder, sink):
    """A sink with ten small files."""
    for number in range(10):
        kit.fill(folder, [kit.scored(f"r{number}")])
        kit.ship(folder, sink)
    return sink


# --- the budget ---------------------------------------------------------------------------------------------------


def test_the_shipper_says_what_the_sink_takes_and_the_service_refuses_until_there_is_room(kit, folder, small):
    total = sum(path.stat().st_size for path in small.rglob("*") if path.is_file())
    assert total - 20_000 < budget.reported(folder) <= total  # but for the last segment, which came after the look
    backlog = Backlog(folder, budget.reported(folder) + 1000, None)
    assert backlog.refusal(1000, None) is None
    said = backlog.refusal(1001, None)
    assert f"1001 bytes of the log wait to be shipped, {backlog.sink_bytes} are in LOG_SINK on the same disk" in said
    spool = Spool(folder, limit_bytes=1000)

    async def run():
        with pytest.raises(SpoolFull, match="are in LOG_SINK on the same disk, the limit is 1000"):
            spool.append(b"x")
        (folder / "ship.json").write_text(json.dumps({"sink_bytes": 10}))  # compacted, and looked at again
        deadline = time.monotonic() + 10
        while spool.overdue:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await spool.append(b"x")

    asyncio.run(run())
    spool.close()


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"sink_bytes": null}', b"[1]", b'{"sink_bytes": "x"}'])
def test_without_a_figure_only_the_spool_counts(tmp_path, content):
    if content is not None:
        (tmp_path / "ship.json").write_bytes(content)
    assert 0 == Backlog(tmp_path, 1000, None).sink_bytes


def test_a_sink_on_another_disk_or_in_a_store_does_not_count(tmp_path):
    (tmp_path / "sink").mkdir()
    (tmp_path / "sink" / "x").write_bytes(b"12345")
    (tmp_path / "sink" / "y").hardlink_to(tmp_path / "sink" / "x")  # as a rewriting does
    assert 5 == SinkSize(tmp_path, tmp_path / "sink").look()
    assert SinkSize(tmp_path, None).look() is None
    assert SinkSize(tmp_path, tmp_path / "none yet").look() is None
    assert SinkSize(Path("/dev"), tmp_path / "sink").look() is None


def test_a_sink_is_not_walked_at_each_look(tmp_path, monkeypatch):
    size = SinkSize(tmp_path, tmp_path)
    walks = []
    monkeypatch.setattr(budget.os, "walk", lambda folder: walks.append(folder) or [])
    clock = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: clock[0])
    for clock[0] in range(25):
        size.look()
    assert 3 == len(walks)


# --- compaction by itself -----------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path):
    """An Upkeep whose processes write their words to a file and sleep."""
    note = f"import sys, time; open({str(tmp_path / 'words')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10)); "
    made = []

    def start(limit_bytes, seconds=60):
        made.append(Upkeep(limit_bytes, (sys.executable, "-c", f"{note}time.sleep({seconds})")))
        return made[-1], lambda: (tmp_path / "words").read_text().splitlines() if (tmp_path / "words").exists() else []

    yield start
    for one in made:
        one.stop()


def test_it_is_started_now_and_then_one_at_a_time_and_ends_with_the_shipper(started, monkeypatch):
    monkeypatch.setattr(upkeep, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.3)
    one, words = started(0)
    one.look(Status(0))
    assert [] == words()
    time.sleep(0.3)
    for _ in range(3):
        one.look(Status(0, sink_bytes=1 << 40))  # no limit: never pressed
        until(words)
    assert [f"--parent {os.getpid()}"] == words()
    time.sleep(0.4)
    one.look(Status(0))  # the first is still at work
    assert 1 == len(words())
    one.stop()
    one.look(Status(0))
    until(lambda: len(words()) == 2)


def test_near_the_limit_it_is_started_sooner_and_told_so(started, monkeypatch):
    monkeypatch.setattr(upkeep, "PRESSED_SECONDS", 0.0)
    one, words = started(1000)
    one.look(Status(0, unsent_bytes=300, quarantined_bytes=200, sink_bytes=300))
    assert [] == words()
    one.look(Status(0, unsent_bytes=300, quarantined_bytes=200, sink_bytes=301))
    until(words)
    assert [f"--parent {os.getpid()} --pressed"] == words()


def test_what_cannot_be_started_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(upkeep, "FIRST_SECONDS", 0.0)
    one = Upkeep(0, ("/no such program",))
    with caplog.at_level("INFO"):
        one.look(Status(0))
    assert "was not started, it is tried again" in caplog.text
    one.stop()


def process(*words, code=None, **environ):
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "score.log.upkeep")), *words],
        env={**os.environ, **environ},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_as_a_process_it_compacts_when_it_is_due_and_says_what_it_did(kit, small):
    before = kit.rows(small)
    done = process(LOG_SINK=str(small))
    _, err = done.communicate(timeout=120)
    assert 0 == done.returncode
    assert any("10 files became one" in json.loads(line)["event"] for line in err.splitlines())
    assert before == kit.rows(small)


IDLE = """
import os, sys, threading
from pathlib import Path
from score.log import upkeep
real = upkeep.upkeep.tend
def tend(*args, **options):
    real(*args, **options)
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    print({(os.sched_getscheduler(t), os.getpriority(os.PRIO_PROCESS, t)) for t in threads}, len(threads) > 1)
upkeep.upkeep.tend = tend
sys.exit(upkeep.main())
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux alone has this class")
def test_all_its_threads_work_only_when_nobody_else_wants_to(small):
    done = subprocess.run(
        [sys.executable, "-c", IDLE], env={**os.environ, "LOG_SINK": str(small)}, capture_output=True, text=True
    )
    assert f"{{({os.SCHED_IDLE}, 19)}} True" == done.stdout.strip()
    assert 1 == len(list((small / "requests").glob("compact-*")))


def test_it_ends_with_its_parent(small):
    done = process("--parent", "1", code=HANG, LOG_SINK=str(small), HERE=os.devnull)  # no child of that one
    done.communicate(timeout=60)
    assert 1 == done.returncode


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({"LOG_SINK": "none"}, 0, ""),
        ({"LOG_SINK": "ftp://here"}, 2, "LOG_SINK=ftp://…: name a local path"),
        ({}, 1, "is halted: a person said so"),
    ],
)
def test_the_exit_code_says_what_was_wrong(small, environ, code, said):
    halt(small, ["a person said so"])
    done = process(**{"LOG_SINK": str(small), **environ})
    _, err = done.communicate(timeout=60)
    assert (code, True) == (done.returncode, said in err)


HANG = """
import os, time
from pathlib import Path
from score.log import upkeep
def tend(*args, **options):
    Path(os.environ["HERE"]).write_text(str(os.getpid()))
    time.sleep(600)
upkeep.upkeep.tend = tend
upkeep.main()
"""
SHIP = f"""
import sys
from score.log import ship, upkeep
upkeep.FIRST_SECONDS = 0.0
upkeep.Upkeep.__init__.__defaults__ = ((sys.executable, "-c", {HANG!r}),)
sys.exit(ship.main())
"""


@pytest.mark.parametrize(("chosen", "runs"), [("", True), ("on", True), ("off", False)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_shipper_starts_it_where_log_compact_says_so_and_takes_it_with_it(
    kit, folder, sink, tmp_path, chosen, runs, number
):
    here = tmp_path / "pid"
    kit.fill(folder, [kit.scored("a")])
    environ = {"LOG_DIR": str(folder), "LOG_SINK": str(sink), "LOG_COMPACT": chosen, "HERE": str(here)}
    shipper = process(code=SHIP, **environ)
    if runs:
        until(lambda: here.exists() and here.read_text())
    else:
        until(lambda: kit_ids(kit, sink) == ["a"])
        time.sleep(1.5)  # a round more
    shipper.send_signal(number)
    shipper.wait(timeout=60)
    assert runs == here.exists()
    if runs:
        until(lambda: ended(int(here.read_text())))
    shipper.stderr.close()


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def kit_ids(kit, sink):
    try:
        return kit.ids(sink)
    except TableNotFoundError:
        return []
