"""The files of a sink that are no table's rows: pins, orders, checkpoints. On a folder or an object store alike.

A write is whole and durable when it returns: a reader sees the old content or the new one. Paths are relative to the
sink. deltalake's own file system serves object stores, with the credentials and the retries of the tables.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from deltalake._internal import DeltaFileSystemHandler  # public only as a subclass of pyarrow's, which serving lacks

from closedloop.log.durable import sync_disk, sync_file, sync_folder
from closedloop.log.sink import Sink

_AT_ONCE = 16  # requests to an object store
_LARGE_BYTES = 8 << 20  # of a file that is read or written piece by piece


@dataclass(frozen=True)
class File:
    """A file of the sink; ``modified`` is in seconds since 1970, by the clock of the store."""

    path: str
    size: int
    modified: float


class Store:
    """The files of a sink.

    Raises:
        OSError: from every method, when the sink does not answer.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._folder = sink.folder

    @cached_property
    def _remote(self) -> DeltaFileSystemHandler:
        return DeltaFileSystemHandler(self.sink.place, self.sink.options or None)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            if self._folder is not None:
                return (self._folder / path).read_bytes()
            file = self._remote.open_input_file(path)
            return bytes(file.read(file.size()))
        except FileNotFoundError:
            return None

    def read_many(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The content of files, in their order; those that have gone are left out."""
        if self._folder is not None:
            found: Iterable[tuple[str, bytes | None]] = ((path, self.read(path)) for path in paths)
        else:
            wanted = list(paths)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                found = list(zip(wanted, pool.map(self.read, wanted), strict=True))
        for path, content in found:
            if content is not None:
                yield path, content

    def read_json(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """The JSON files below a folder, by name; not those that are being written."""
        found = [file.path for file in self.list(folder) if file.path.endswith(".json") and "/." not in file.path]
        return self.read_many(sorted(found))

    def write(self, path: str, content: bytes) -> None:
        """Put a file there, durably, in place of what was there."""
        if self._folder is None:
            stream: Any = self._remote.open_output_stream(path)
            for start in range(0, len(content), _LARGE_BYTES):
                stream.write(content[start : start + _LARGE_BYTES])
            stream.close()
            return
        target = self._folder / path
        self._make(target.parent)
        fresh = target.with_name(f".{target.name}.{uuid4().hex}.new")
        try:
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                sync_file(file.fileno())
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(target.parent)

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            if self._folder is None:
                self._remote.delete_file(path)
            else:
                (self._folder / path).unlink()

    def delete_folder(self, path: str) -> None:
        """Remove a folder of this store and all in it."""
        for file in self.list(path):
            self.delete(file.path)
        if self._folder is not None and (self._folder / path).is_dir():
            for place, _, _ in os.walk(self._folder / path, topdown=False, onerror=_raise_unless_gone):
                with contextlib.suppress(FileNotFoundError):
                    Path(place).rmdir()

    def copy(self, path: str, to: str) -> None:
        """Have the same content under another name too: on a folder by a second link."""
        if self._folder is None:
            self._remote.copy_file(path, to)
            return
        self._make((self._folder / to).parent)
        (self._folder / to).hardlink_to(self._folder / path)

    def move(self, path: str, to: str) -> None:
        """Give a file another name. It is durable after :meth:`sync`."""
        if self._folder is None:
            self._remote.move_file(path, to)
        else:
            (self._folder / path).rename(self._folder / to)

    def list(self, folder: str) -> list[File]:
        """The files below a folder, at any depth; none where it is not there."""
        if self._folder is None:
            with _file_info():
                found: list[Any] = self._remote.get_file_info_selector(folder, allow_not_found=True, recursive=True)
            return [
                File(info.path, info.size, (info.mtime_ns or 0) / 1e9)
                for info in found
                if int(info.type) == _FileType.File and info.size is not None
            ]
        files = []
        for place, _, names in os.walk(self._folder / folder, onerror=_raise_unless_gone):
            for path in (Path(place, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found_now = path.stat()
                    files.append(File(str(path.relative_to(self._folder)), found_now.st_size, found_now.st_mtime))
        return sorted(files, key=lambda file: file.path)

    def sync(self) -> None:
        """Have all files of a folder on its disk; an object store has them when it answers."""
        if self._folder is not None:
            sync_disk(self._folder)

    def _make(self, folder: Path) -> None:
        """Make a folder below the sink's own, durably."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)


def _raise_unless_gone(error: OSError) -> None:
    """What a walk does about a folder that cannot be listed: one that another process has removed is passed over."""
    if not isinstance(error, FileNotFoundError):
        raise error


class _FileType(IntEnum):
    NotFound, Unknown, File, Directory = range(4)


class _FileInfo:
    def __init__(self, path: str, type: int = 0, *, mtime_ns: int | None = None, size: int | None = None) -> None:  # noqa: A002 - pyarrow's name
        self.path, self.type, self.mtime_ns, self.size = path, type, mtime_ns, size


@contextlib.contextmanager
def _file_info() -> Iterator[None]:
    """Let deltalake list files where pyarrow is not installed, as in the image: it needs two classes of it, no more."""
    if find_spec("pyarrow") is not None:
        yield
        return
    stand_in: Any = ModuleType("pyarrow")
    stand_in.fs = ModuleType("pyarrow.fs")
    stand_in.fs.FileInfo, stand_in.fs.FileType = _FileInfo, _FileType
    names = {"pyarrow": stand_in, "pyarrow.fs": stand_in.fs}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
