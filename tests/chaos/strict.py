"""A simulated disk that keeps no more than POSIX promises, so that every missing sync shows.

Real file systems keep more: on ext4 and XFS the sync of a new file makes its name durable too, so that no power cut
there shows that the sync of a folder is missing. Here a file holds after the cut what it held at its last sync, and a
folder names what it named when it was last synced; whatever was not synced is gone.

``install`` watches the syncs of this process and keeps a shadow of that state: ``inode-<n>`` are files, ``names-<n>``
are folders. ``rebuild`` makes a folder of it. A sync is named by the functions that call it, so that each can be left
out: ``OpenSegment.__init__>sync_folder`` is the one of the folder when a segment begins. A disk may also keep what
nobody asked it to keep, and in any order: see ``rebuild``.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).parent
_ROOT = "root"
_DURABLE = {"sync_file", "sync_records", "sync_disk"}  # of durable.py: a sync is named by what calls them


def install(root, shadow, without=(), cut=("", 0)):
    """Record the syncs of this process, but for those to leave out. ``root`` is the folder that was durable before.

    ``cut`` is a name and a number: the process ends where the sync of that name is called for the n-th time.
    """
    shadow.mkdir()
    (shadow / _ROOT).write_text(str(root.stat().st_ino))
    for path in (root, *root.rglob("*")):
        _record(shadow, path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    held, counts = {}, Counter()
    calls = shadow / "calls"

    def sync(descriptor, whole_disk=False):
        name = _name(sys._getframe(2 if whole_disk else 1))
        counts[name] += 1
        with calls.open("a") as file:
            file.write(name + "\n")
        if (name, counts[name]) == cut:
            os.kill(os.getpid(), signal.SIGKILL)
        if name in without:
            return
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        for synced in (path, *path.rglob("*")) if whole_disk else (path,):
            inode = synced.stat().st_ino
            if inode not in held:
                held[inode] = os.open(synced, os.O_RDONLY)  # its number is not given to another file while we look
            _record(shadow, synced)

    def syncfs(descriptor):
        sync(descriptor, whole_disk=True)
        return 0

    os.fsync = os.fdatasync = sync
    ctypes.CDLL = lambda *_, **__: SimpleNamespace(syncfs=syncfs)  # only durable.py loads a library after this


def cut_power(program, words, place, cut, without, luck):
    """Run a program of this folder in ``place`` until its power is cut; the folder as it is after that.

    It works in ``disk``, which may be any folder there, and has ``words`` before its other arguments.
    """
    disk, shadow, after = place / "disk", place / "shadow", place / "after"
    command = [sys.executable, HERE / program, *words, "--cut", *cut, "--without", *without.split()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr + done.stdout
    rebuild(shadow, after, disk, luck)
    return after


def rebuild(shadow, target, now=None, luck=""):
    """Write to ``target`` what the disk holds after the cut. A file that was named but never synced is empty.

    ``now`` is the folder at the cut. With the luck ``added`` the disk kept each new name in it too, though not what
    replaced or removed an old one; with ``removed`` it kept each removal, though no new name; with ``replaced`` it kept
    what replaced an old one, though no new name.
    """
    _fill(shadow, int((shadow / _ROOT).read_text()), target, now, luck, {})


def calls(shadow):
    """The names of all syncs that were called."""
    return set((shadow / "calls").read_text().split())


def _record(shadow, path):
    """Record a file or folder as it is now. If killed in between, the record of before remains."""
    if path.is_dir():
        kept = shadow / f"names-{path.stat().st_ino}"
        content = json.dumps(_entries(path)).encode()
    else:
        kept, content = shadow / f"inode-{path.stat().st_ino}", path.read_bytes()
    fresh = kept.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(kept)


def _name(frame):
    """The name of the sync that a function of ``frame`` asked for."""
    names = []
    while len(names) < 2:
        if frame.f_code.co_name not in _DURABLE:
            names.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return f"{names[1]}>{names[0]}" if names[0] == "sync_folder" else names[0]


def _entries(folder):
    return {entry.name: [entry.inode(), entry.is_dir()] for entry in os.scandir(folder)}


def _fill(shadow, inode, target, now, luck, files):
    """Fill a folder; ``files`` has by inode what is there: a file with two names is one after the cut too."""
    target.mkdir()
    kept = shadow / f"names-{inode}"
    names = json.loads(kept.read_text()) if kept.exists() else {}
    present = _entries(now) if now is not None and now.is_dir() and now.stat().st_ino == inode else {}
    if luck == "added":
        names = {**present, **names}
    elif luck == "removed":
        names = {name: entry for name, entry in names.items() if name in present}
    elif luck == "replaced":
        names = {name: present.get(name, entry) for name, entry in names.items()}
    for name, (number, is_folder) in names.items():
        if is_folder:
            _fill(shadow, number, target / name, None if now is None else now / name, luck, files)
        elif number in files:
            (target / name).hardlink_to(files[number])
        else:
            files[number] = target / name
            content = shadow / f"inode-{number}"
            (target / name).write_bytes(content.read_bytes() if content.exists() else b"")
