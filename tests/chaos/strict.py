"""A simulated disk that keeps no more than POSIX promises, so that every missing sync shows.

Real file systems keep more: on ext4 and XFS the sync of a new file makes its name durable too, so that no power cut
there shows that the sync of a folder is missing. Here a file holds after the cut what it held at its last sync, and a
folder names what it named when it was last synced; whatever was not synced is gone.

``install`` watches the syncs of this process and keeps a shadow of that state: ``inode-<n>`` are files, ``names-<n>``
are folders. ``rebuild`` makes a folder of it. A sync is named by the functions that call it, so that each can be left
out: ``OpenSegment.__init__>sync_folder`` is the one of the folder when a segment begins.
"""

import json
import os
import resource
import sys
from pathlib import Path

_ROOT = "root"


def install(root, shadow, without=""):
    """Record the syncs of this process. ``root`` is the folder that was durable before."""
    shadow.mkdir()
    (shadow / _ROOT).write_text(str(root.stat().st_ino))
    for path in (root, *root.rglob("*")):
        _record(shadow, path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    held = {}
    calls = shadow / "calls"

    def sync(descriptor):
        frames = [sys._getframe(1), sys._getframe(2), sys._getframe(3)]  # a comprehension would be a frame of its own
        names = [frame.f_code.co_qualname for frame in frames]
        names = [name for name in names if name not in ("sync_file", "sync_records")]
        name = f"{names[1]}>{names[0]}" if names[0] == "sync_folder" else names[0]
        with calls.open("a") as file:
            file.write(name + "\n")
        if name == without:
            return
        inode = os.fstat(descriptor).st_ino
        if inode not in held:
            held[inode] = os.dup(descriptor)  # its number is not given to another file while we look
        _record(shadow, Path(f"/proc/self/fd/{descriptor}").readlink())

    os.fsync = os.fdatasync = sync


def rebuild(shadow, target):
    """Write to ``target`` what the disk holds after the cut. A file that was named but never synced is empty."""
    _fill(shadow, (shadow / _ROOT).read_text(), target)


def calls(shadow):
    """The names of all syncs that were called."""
    return set((shadow / "calls").read_text().split())


def _record(shadow, path):
    """Record a file or folder as it is now. If killed in between, the record of before remains."""
    if path.is_dir():
        kept = shadow / f"names-{path.stat().st_ino}"
        content = json.dumps({entry.name: [entry.inode(), entry.is_dir()] for entry in os.scandir(path)}).encode()
    else:
        kept, content = shadow / f"inode-{path.stat().st_ino}", path.read_bytes()
    fresh = kept.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(kept)


def _fill(shadow, inode, target):
    target.mkdir()
    names = shadow / f"names-{inode}"
    for name, (number, is_folder) in json.loads(names.read_text()).items() if names.exists() else ():
        if is_folder:
            _fill(shadow, number, target / name)
        else:
            content = shadow / f"inode-{number}"
            (target / name).write_bytes(content.read_bytes() if content.exists() else b"")
