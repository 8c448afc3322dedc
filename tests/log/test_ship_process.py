"""``python -m score.log.ship`` as a process: it ships until it is told to stop; the exit code tells what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from closedloop.log.state import lock


@contextmanager
def shipper(folder, *words, **environ):
    process = subprocess.Popen(
        [sys.executable, "-m", "score.log.ship", *words],
        env={**os.environ, "LOG_DIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(folder):
    try:
        return json.loads((folder / "ship.json").read_text())
    except FileNotFoundError:
        return {"pid": None, "shipped_segments": 0, "failures": 0}


def test_it_ships_what_is_sealed_and_what_is_sealed_later_into_a_folder_beside_the_log(kit, folder):
    kit.fill(folder, [kit.scored("a")])
    with shipper(folder) as process:
        until(lambda: status(folder)["shipped_segments"] == 1)
        kit.fill(folder, [kit.scored("b")])
        until(lambda: status(folder)["shipped_segments"] == 2)
        assert process.pid == status(folder)["pid"]
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(timeout=30)
    assert ["a", "b"] == kit.ids(folder / "delta")


def test_told_to_stop_it_ships_what_is_sealed_by_then(kit, folder, sink):
    folder.mkdir()
    with shipper(folder, LOG_SINK=str(sink)) as process:
        until(lambda: status(folder)["pid"] == process.pid)
        kit.fill(folder, *[[kit.scored(f"{i}")] for i in range(5)])
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(timeout=60)
    assert ["0", "1", "2", "3", "4"] == kit.ids(sink)


def test_the_exit_code_says_that_something_is_left_and_one_line_why(kit, folder, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    with shipper(folder, LOG_SINK=str(tmp_path / "not mounted" / "sink")) as process:
        until(lambda: status(folder)["failures"] > 0)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert 1 == process.returncode
    (line,) = err.splitlines()
    assert "not shipped: " in json.loads(line)["event"]
    assert "No such file" in status(folder)["last_error"]


def test_it_stops_when_its_parent_is_gone(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    with shipper(folder, "--parent", "1", LOG_SINK=str(sink)) as process:  # no child of that one
        assert 0 == process.wait(timeout=60)
    assert ["a"] == kit.ids(sink)


def test_a_second_one_waits_for_the_first(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    with shipper(folder, LOG_SINK=str(sink)) as first:
        until(lambda: status(folder)["shipped_segments"] == 1)
        with shipper(folder, LOG_SINK=str(sink)) as second:
            assert "held by another process" in json.loads(second.stderr.readline())["event"]
            first.kill()
            first.wait()
            until(lambda: status(folder)["pid"] == second.pid)
            second.send_signal(signal.SIGTERM)
            assert 0 == second.wait(timeout=60)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LOG_DIR": ""}, "LOG_DIR is not set"),
        ({"LOG_SINK": "ftp://here"}, "LOG_SINK=ftp://…: name a local path"),
        ({"LOG_SINK": "none"}, "LOG_SINK=none keeps the segments"),
    ],
)
def test_a_wrong_setting_is_said_by_its_name(folder, environ, said):
    with shipper(folder, **environ) as process:
        _, err = process.communicate(timeout=60)
    assert (2, True) == (process.returncode, said in err)
    assert not folder.exists()


def test_without_the_folder_it_makes_none(folder):
    with shipper(folder) as process:
        _, err = process.communicate(timeout=60)
    assert (1, True) == (process.returncode, "No such file" in err)
    assert not folder.exists()


# --- the log of a worker that is gone ---


def test_once_it_seals_what_was_left_open_ships_all_and_ends(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    left = sorted(folder.glob("*.seg"))[-1]
    left.rename(left.with_suffix(".open"))  # as a kill leaves it
    with shipper(folder, "--once", LOG_SINK=str(sink)) as process:
        _, err = process.communicate(timeout=60)
    assert (0, "") == (process.returncode, err)
    assert ["a", "b"] == kit.ids(sink)
    assert [*folder.glob("*.open"), *folder.glob("*.seg")] == []


def test_once_it_does_not_touch_the_log_of_a_worker_that_is_there(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    held = lock(folder / "lock")
    try:
        with shipper(folder, "--once", LOG_SINK=str(sink)) as process:
            _, err = process.communicate(timeout=60)
    finally:
        os.close(held)
    assert (1, True) == (process.returncode, "is held by another process" in err)
    assert not sink.exists()


def test_once_it_tries_again_until_the_sink_is_there(kit, folder, tmp_path):
    sink = tmp_path / "mounted later" / "sink"
    kit.fill(folder, [kit.scored("a")])
    with shipper(folder, "--once", LOG_SINK=str(sink)) as process:
        until(lambda: status(folder)["failures"] > 0)
        sink.parent.mkdir()
        assert 0 == process.wait(timeout=60)
    assert ["a"] == kit.ids(sink)


def test_once_it_says_where_no_log_is(folder, sink):
    folder.mkdir()
    with shipper(folder, "--once", LOG_SINK=str(sink)) as process:
        _, err = process.communicate(timeout=60)
    assert (1, True) == (process.returncode, "no log here" in err)
    assert list(folder.iterdir()) == []
