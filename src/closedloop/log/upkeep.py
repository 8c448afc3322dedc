"""The upkeep of a sink: compaction and clean-up of its tables, by command or beside a running service.

Safe beside shippers and beside itself, and to be killed anywhere: a table is changed by whole commits only, and what
they replace goes later, when no kept version needs it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from closedloop.log import history
from closedloop.log.clean import GRACE_SECONDS, Cleaned, clean
from closedloop.log.compact import Compacted, compact, plan
from closedloop.log.halt import refuse
from closedloop.log.lease import SECONDS, Held, Lease
from closedloop.log.rewrite import Table, sweep_scratch
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import SCHEMAS

_PRESSED_GRACE_SECONDS = 300.0
_COMMITS = 128  # more than these in a log are worth a clean-up


@dataclass(frozen=True)
class UpkeepSettings:
    """How upkeep works. ``wait_seconds`` is for another owner to end; ``grace_seconds`` see :mod:`clean`."""

    everything: bool = False
    dry_run: bool = False
    grace_seconds: float = GRACE_SECONDS
    lease_seconds: float = SECONDS
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What was done to a table, or would be."""

    compacted: Compacted
    cleaned: Cleaned


def present(sink: Sink) -> list[str]:
    """The tables that the sink has.

    Raises:
        SinkError: it has none, or is halted.
    """
    refuse(sink)
    found = _tables(sink)
    if not found:
        raise SinkError(f"{sink.place}: there is no log; name the folder or address that LOG_SINK has")
    return found


def _tables(sink: Sink) -> list[str]:
    return [name for name in SCHEMAS if sink.open(name) is not None]


def keep(sink: Sink, say: Callable[[str], None], settings: UpkeepSettings) -> dict[str, Report]:
    """Compact and clean each table once; what was done, by table.

    Raises:
        Held: another process is at work.
        SinkError, DeltaError, OSError, ValueError: the sink refused; what was done until then is whole.
    """
    reports = {}
    for name in present(sink):
        if settings.dry_run:
            table = Table(sink, name)
            reports[name] = _tend(table, NoLease(), say, settings)
            continue
        lease = Lease(sink, name, seconds=settings.lease_seconds, wait=settings.wait_seconds, say=say)
        with lease:
            table = Table(sink, name)
            sweep_scratch(table, say)
            reports[name] = _tend(table, lease, say, settings)
    return reports


def _tend(table: Table, lease: Lease, say: Callable[[str], None], settings: UpkeepSettings) -> Report:
    table, compacted = compact(table, lease, say, everything=settings.everything, dry_run=settings.dry_run)
    cleaned = clean(table, lease, say, grace=settings.grace_seconds, dry_run=settings.dry_run)
    return Report(compacted, cleaned)


class NoLease(Lease):
    """For a dry run, which changes nothing, and so not the lease either."""

    def __init__(self) -> None:
        """Nobody's."""

    def renew(self) -> None:
        """Nothing to keep."""


def due(sink: Sink, name: str) -> bool:
    """Whether a table has enough small files or commits for upkeep to be worth its while.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink does not answer.
    """
    table = Table(sink, name)
    return plan(table.files) is not None or len(history.listing(table.store, name).commits) > _COMMITS


def tend(sink: Sink, say: Callable[[str], None], *, pressed: bool = False) -> None:
    """Keep the sink's tables small, if there is enough to do: for a process of its own beside a shipper.

    Args:
        sink: the log's.
        say: hears in one line what was done.
        pressed: the log takes nearly all that it may: all that can be compacted is, and replaced files go soon.

    Raises:
        SinkError, DeltaError, OSError, ValueError: as :func:`keep`. Another owner is no error: it does the same.
    """
    refuse(sink)
    if not any(pressed or due(sink, name) for name in _tables(sink)):
        return
    settings = UpkeepSettings(everything=pressed, grace_seconds=_PRESSED_GRACE_SECONDS if pressed else GRACE_SECONDS)
    with contextlib.suppress(Held):
        keep(sink, say, settings)


def be_idle() -> None:
    """Let this process work only when no other one wants the processor or the disk."""
    os.nice(19)
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has idle classes, for each thread its own
        for thread in (int(path.name) for path in Path("/proc/self/task").iterdir()):  # later ones inherit
            os.setpriority(os.PRIO_PROCESS, thread, 19)
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            _ioprio_idle(thread)


def _ioprio_idle(thread: int) -> None:
    """The idle class of the disk's scheduler, which the standard library has no call for.

    Raises:
        OSError: the kernel has no such class.
    """
    import ctypes
    import platform

    number = {"x86_64": 251, "aarch64": 30}.get(platform.machine())
    if number is None or ctypes.CDLL(None, use_errno=True).syscall(number, 1, thread, 3 << 13) != 0:
        raise OSError("no idle class")
