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
from closedloop.log.frame import OPEN, SEALED
from closedloop.log.lease import SECONDS, Lease
from closedloop.log.rewrite import Table, sweep_scratch
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from closedloop.log.store import Store
from closedloop.log.tables import SCHEMAS

HALT = "halt"  # a file of the sink: a shipper found damage that a person must decide about
_ROUND_SECONDS = 600.0
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
        SinkError: it has none, or shippers are halted.
    """
    store = Store(sink)
    reason = store.read(HALT)
    if reason is not None:
        raise SinkError(
            f"{sink.place} is halted: {reason.decode(errors='replace').strip()[:300]} "
            "Nothing is changed until a person has looked, and removed that with log-repair"
        )
    found = [name for name in SCHEMAS if sink.open(name) is not None]
    if not found:
        raise SinkError(f"{sink.place}: there is no log; name the folder or address that LOG_SINK has")
    return found


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


def keep_up(sink: Sink, say: Callable[[str], None], wait: Callable[[float], bool]) -> None:
    """Keep the sink's tables small until told to stop: for a process of its own beside a shipper.

    Args:
        sink: the log's.
        say: hears in one line what was done, or why not; the same trouble once.
        wait: waits so many seconds; whether to stop.
    """
    trouble = None
    while not wait(_ROUND_SECONDS):
        try:
            if any(due(sink, name) for name in present(sink)):
                keep(sink, say, UpkeepSettings())
            trouble = None
        except (SinkError, *FAULTS) as error:
            line = one_line(error)
            if line != trouble:
                say(f"no upkeep of the log now, it is tried again: {line}")
            trouble = line


def be_idle() -> None:
    """Let this process work only when no other one wants the processor or the disk."""
    os.nice(19)
    with contextlib.suppress(OSError):
        _ioprio_idle()


def _ioprio_idle() -> None:
    """The idle class of the disk's scheduler, which the standard library has no call for.

    Raises:
        OSError: the kernel has no such class.
    """
    import ctypes
    import platform

    number = {"x86_64": 251, "aarch64": 30}.get(platform.machine())
    if number is None or ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, 3 << 13) != 0:
        raise OSError("no idle class")


@dataclass(frozen=True)
class Usage:
    """The bytes of the log on this machine's disk: what one budget must hold."""

    spool: int
    quarantine: int
    sink: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.spool + self.quarantine + self.sink


def usage(log_dir: Path, sink: Sink | None) -> Usage:
    """What the spool, its quarantine and a local sink hold; an object store is no disk of this machine."""
    spool = sum(_size(path) for suffix in (SEALED, OPEN) for path in log_dir.glob("*" + suffix))
    quarantine = sum(map(_size, (log_dir / "quarantine").rglob("*")))
    folder = None if sink is None else sink.folder
    return Usage(spool, quarantine, 0 if folder is None else sum(map(_size, folder.rglob("*"))))


def _size(path: Path) -> int:
    try:
        stat = path.stat()
    except FileNotFoundError:  # it was shipped, or removed
        return 0
    return stat.st_size if path.is_file() else 0


def over_budget(log_dir: Path, sink: Sink | None, limit_bytes: int) -> str | None:
    """Why no more may be written, or None: for the service to refuse before the disk does."""
    found = usage(log_dir, sink)
    if found.total <= limit_bytes:
        return None
    return (
        f"the log takes {found.total} bytes of the {limit_bytes} it may (spool {found.spool}, quarantine "
        f"{found.quarantine}, sink {found.sink}): compact, expire, or give it more"
    )
