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

from closedloop.log import pins
from closedloop.log.clean import GRACE_SECONDS, Cleaned, clean, held_back
from closedloop.log.compact import Compacted, compact, plan
from closedloop.log.halt import refuse
from closedloop.log.lease import SECONDS, Held, Lease
from closedloop.log.rewrite import Table, sweep_scratch
from closedloop.log.sink import Sink, SinkError
from closedloop.log.tables import SCHEMAS

_PRESSED_GRACE_SECONDS = 300.0


@dataclass(frozen=True)
class UpkeepSettings:
    """How upkeep works. ``wait_seconds`` is for another owner to end; ``grace_seconds`` see :mod:`clean`.

    Without ``clean_up`` every version stays.
    """

    everything: bool = False
    clean_up: bool = True
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
    return _keep(sink, present(sink), say, settings)


def _keep(sink: Sink, names: list[str], say: Callable[[str], None], settings: UpkeepSettings) -> dict[str, Report]:
    reports = {}
    for name in names:
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
    behind = settings.clean_up and held_back(table, settings.grace_seconds)
    everything = settings.everything or behind
    table, compacted = compact(table, lease, say, everything=everything, each_raw=behind, dry_run=settings.dry_run)
    if not settings.clean_up:
        return Report(compacted, Cleaned())
    cleaned = clean(table, lease, say, grace=settings.grace_seconds, dry_run=settings.dry_run)
    return Report(compacted, cleaned)


class NoLease(Lease):
    """For a dry run, which changes nothing, and so not the lease either."""

    def __init__(self) -> None:
        """Nobody's."""

    def renew(self) -> None:
        """Nothing to keep."""


def due(sink: Sink, name: str, settings: UpkeepSettings | None = None) -> bool:
    """Whether upkeep would change a table: to look takes no lease, which would be two commits each time.

    Raises:
        SinkError, DeltaError, OSError, ValueError: the sink does not answer.
    """
    settings = settings or UpkeepSettings()
    table = Table(sink, name)
    if plan(table.files, everything=settings.everything) is not None:
        return True
    if not settings.clean_up:
        return False
    found = clean(table, NoLease(), lambda _: None, grace=settings.grace_seconds, dry_run=True)
    return found != Cleaned() or held_back(table, settings.grace_seconds)


def tend(sink: Sink, say: Callable[[str], None], *, pressed: bool = False, unpinned: bool = False) -> None:
    """Keep the sink's tables small, if there is enough to do: for a process of its own beside a shipper.

    Older versions are removed only where someone pins what must stay: a sink without a pin may be one whose versions
    are named elsewhere, as in a ``data.lock.json``.

    Args:
        sink: the log's.
        say: hears in one line what was done.
        pressed: the log takes nearly all that it may: all that can be compacted is, and replaced files go soon, also
            where nothing is pinned.
        unpinned: clean up also where nothing is pinned.

    Raises:
        SinkError, DeltaError, OSError, ValueError: as :func:`keep`. Another owner is no error: it does the same.
    """
    refuse(sink)
    pinned = bool(pins.find(sink))
    settings = UpkeepSettings(
        everything=pressed,
        clean_up=pinned or unpinned or pressed,
        grace_seconds=_PRESSED_GRACE_SECONDS if pressed else GRACE_SECONDS,
    )
    names = [name for name in _tables(sink) if due(sink, name, settings)]
    if names and pressed and not (pinned or unpinned):
        say("the disk is nearly full: older versions are removed, though no pin says which of them must stay")
    for name in names:
        with contextlib.suppress(Held):
            _keep(sink, [name], say, settings)


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
