"""What is written is on the disk, also on systems that lack some of Linux's calls."""

import ctypes
import errno
import fcntl
import os

import pytest

from closedloop.log import durable


@pytest.fixture
def calls(monkeypatch):
    """The names of the calls that were made, in order."""
    made = []
    for name in ("fsync", "fdatasync", "sync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: made.append(name) or real(*given))
    return made


@pytest.fixture
def as_on_macos(monkeypatch, calls):
    """No ``fdatasync``, no ``posix_fallocate``, no ``syncfs``, but ``F_FULLFSYNC``."""
    for name in ("fdatasync", "posix_fallocate"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(durable, "_FULL_SYNC", 51)
    real = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, what, *a: calls.append("full") if what == 51 else real(fd, what, *a))


def test_on_linux_records_take_the_cheapest_call(tmp_path, calls):
    with (tmp_path / "x").open("wb") as file:
        durable.sync_records(file.fileno())
        durable.sync_file(file.fileno())
    durable.sync_disk(tmp_path)
    assert ["fdatasync", "fsync"] == calls


def test_without_fdatasync_records_take_fsync(tmp_path, monkeypatch, calls):
    monkeypatch.delattr(os, "fdatasync")
    with (tmp_path / "x").open("wb") as file:
        durable.sync_records(file.fileno())
    assert ["fsync"] == calls


def test_on_macos_each_sync_empties_the_cache_of_the_drive(tmp_path, as_on_macos, calls):
    with (tmp_path / "x").open("wb") as file:
        durable.sync_records(file.fileno())
        durable.sync_file(file.fileno())
        durable.reserve(file.fileno(), 1 << 16)
    durable.sync_folder(tmp_path)
    durable.sync_disk(tmp_path)
    assert ["full", "full", "full", "sync", "full"] == calls


@pytest.mark.parametrize(("error", "made"), [(errno.ENOTSUP, ["fsync"]), (errno.EINVAL, ["fsync"]), (errno.EIO, None)])
def test_a_file_system_without_that_call_gets_fsync_and_one_that_fails_is_an_error(
    tmp_path, monkeypatch, as_on_macos, calls, error, made
):
    def refuse(descriptor, what, *_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with (tmp_path / "x").open("wb") as file:
        if made is None:
            with pytest.raises(OSError, match="error"):
                durable.sync_records(file.fileno())
        else:
            durable.sync_records(file.fileno())
    assert (made or []) == calls


def test_a_disk_that_refuses_is_an_error(tmp_path, monkeypatch):
    class Library:
        @staticmethod
        def syncfs(descriptor):
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library)
    with pytest.raises(OSError, match="could not be synced"):
        durable.sync_disk(tmp_path)


def test_a_log_is_written_shipped_and_read_there_too(kit, folder, sink, as_on_macos, calls):
    kit.fill(folder, [kit.scored("a"), kit.scored("b")])
    assert 0 == kit.ship(folder, sink)[0].unsent_segments
    assert ["a", "b"] == kit.ids(sink)
    assert "full" in calls
    assert not {"fsync", "fdatasync"} & set(calls)
