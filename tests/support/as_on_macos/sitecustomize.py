"""Take away from a Python process what macOS does not have. Python imports this where its folder is on PYTHONPATH.

A process that is started by this one inherits it, as the shipper does. ``F_FULLFSYNC``, which macOS has and Linux does
not, syncs here. It shows which calls of Linux alone are left; only a Mac shows whether its own work, and CI's daily run
has one.
"""

import ctypes
import fcntl
import os
import resource
import select
import sys

FULL_SYNC = 51
DESCRIPTORS = 10_240  # OPEN_MAX, although the hard limit names none
OF_LINUX = ("sched_get", "sched_set", "SCHED_", "EFD_", "MFD_", "copy_file_range", "eventfd", "fdatasync", "getrandom")
OF_LINUX += ("listxattr", "memfd_create", "pidfd_open", "posix_fadvise", "posix_fallocate", "setresuid", "splice")
MISSING = {
    os: [name for name in dir(os) if name.startswith(OF_LINUX)],
    select: ["epoll"],
    resource: ["prlimit"],
}
LIBC = {"syncfs", "prctl", "sched_setaffinity", "fallocate", "ioprio_set"}
OURS = ("closedloop", "score", "model")


class _Libc:
    """The C library without the functions that macOS does not have."""

    def __init__(self, real: ctypes.CDLL) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        if name in LIBC:
            raise AttributeError(f"dlsym: symbol not found: {name}")
        return getattr(self._real, name)


def _full_sync(real):
    def call(descriptor, command, *rest):
        if command == FULL_SYNC:
            os.fsync(descriptor)
            return 0
        return real(descriptor, command, *rest)

    return call


def _limited(real):
    def call(what, limits):
        if what == resource.RLIMIT_NOFILE and limits[0] > DESCRIPTORS:
            raise ValueError("current limit exceeds maximum limit")
        return real(what, limits)

    return call


def _without_proc(event: str, given: tuple) -> None:
    """There is no /proc for this project's code; libraries that read it have other ways on macOS."""
    if event in ("open", "os.listdir", "os.scandir") and str(given[0]).startswith(("/proc", "/sys/")):
        frame = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("pathlib", "os", "io"):
            frame = frame.f_back
        if frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in OURS:
            raise FileNotFoundError(2, "No such file or directory", str(given[0]))


for _module, _names in MISSING.items():
    for _name in _names:
        if hasattr(_module, _name):
            delattr(_module, _name)
_cdll = ctypes.CDLL
ctypes.CDLL = lambda name=None, *given, **more: (
    _Libc(_cdll(name, *given, **more)) if name is None else _cdll(name, *given, **more)
)
fcntl.fcntl, fcntl.F_FULLFSYNC = _full_sync(fcntl.fcntl), FULL_SYNC
resource.setrlimit = _limited(resource.setrlimit)
resource.getrlimit = (lambda real: lambda what: (real(what)[0], resource.RLIM_INFINITY))(resource.getrlimit)
sys.addaudithook(_without_proc)
