"""What no kept version of a table needs is removed: commits, checkpoints, files.

Kept are the versions that pins name, each with a checkpoint of its own; the newest one; and all that were the newest
within the last ``grace`` seconds, for those who read or write just now. What the commits alone knew goes into the
ledger first (:mod:`closedloop.log.ledger`). Every step may be the last: the next run goes on from what it finds.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from deltalake import DeltaTable

from closedloop.log import history, ledger, pins
from closedloop.log.halt import refuse
from closedloop.log.lease import APP, Lease
from closedloop.log.ledger import Shipped
from closedloop.log.rewrite import Table
from closedloop.log.sink import FAULTS, SinkError, one_line
from closedloop.log.store import File

GRACE_SECONDS = 3600.0
_ORPHAN_SECONDS = 86_400.0  # of a file that no commit names
_FEW = 16  # commits for which a checkpoint is not worth it
_BEHIND = 128  # commits that files of shippers may keep before they are written again


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up removed, or would remove."""

    commits: int = 0
    checkpoints: int = 0
    files: int = 0
    bytes: int = 0


def clean(
    table: Table,
    lease: Lease,
    say: Callable[[str], None],
    *,
    grace: float = GRACE_SECONDS,
    dry_run: bool = False,
    few: int = _FEW,
) -> Cleaned:
    """Remove what no kept version needs.

    Raises:
        SinkError: a kept version cannot be read, the pins change, or the sink is halted: nothing more is removed.
        DeltaError, OSError, ValueError: the sink refused.
    """
    kept = pins.kept(pins.find(table.sink), table.name)
    since = _since(table, time.time() - grace)
    ranges = {version: _from(table, version) for version in kept if version < since}
    gone = [v for v in sorted(table.listing.commits) if v < since and not _within(v, ranges)]
    stale = _stale(table, since, ranges)
    needed = _needed(table, since, kept)
    seen = {path for commit in table.commits.values() for path in commit.removed}
    for file in stale:  # of a version that was pinned, or the newest, until now
        with contextlib.suppress(SinkError):  # torn: its files wait to be found twice
            seen.update(_paths(table, int(file.path.rpartition("/")[2][:20])))
    if len(gone) + len(stale) <= few:
        gone, stale = [], []
    unreferenced, removable = _files(table, needed, seen, time.time() - grace)
    named = set(_paths(table, None))  # committed meanwhile
    removable = [file for file in removable if file.path.removeprefix(f"{table.name}/") not in named]
    done = Cleaned(
        len(gone),
        len(stale),
        len(removable),
        sum(file.size for file in [*removable, *stale]) + sum(table.listing.commits[v].size for v in gone),
    )
    if dry_run:
        return done
    refuse(table.sink)
    if gone or stale:
        _checkpoints(table, lease, [*ranges, since])
        _verify(table, {*gone, *(file.path for file in stale)}, {*kept, since, table.version})
    removed = {file.path.removeprefix(f"{table.name}/") for file in removable}
    _remember(table, gone, [path for path in unreferenced if path not in removed], kept, needed)
    table.store.sync()
    _remove(table, lease, kept, [*(table.listing.commits[v] for v in gone), *stale, *removable])
    if gone or removable:
        say(f"{table.name}: removed {done.commits} commits, {done.checkpoints} checkpoints and {done.files} files")
    return done


def _since(table: Table, young: float) -> int:
    """The oldest version that stays readable without a pin: all commits from it on are kept.

    It is not later than the newest version, nor than a commit that brought a file of it which has no column for that.
    """
    return min([_oldest(table, young), *(file.first for file in table.files if file.raw)])


def _oldest(table: Table, young: float) -> int:
    """The version that was the newest at a time."""
    since = table.version
    while table.listing.commits[since].modified >= young and since - 1 in table.commits:  # before a gap are pinned ones
        since -= 1
    return since


def held_back(table: Table, grace: float) -> bool:
    """Whether many commits stay only because files of shippers, which have no column for that, came with old ones."""
    young = time.time() - grace
    return _oldest(table, young) - _since(table, young) > _BEHIND


def _from(table: Table, version: int) -> int:
    """The first commit that a pinned version needs, so that it is read as on the day on which it was pinned."""
    arrival = history.first_added(table.commits)
    paths = set(_paths(table, version))
    raw = [arrival.get(path, version) for path in paths if history.arrivals(path) is None]
    seen = [c.seen + 1 for c in table.commits.values() if c.seen is not None and c.version <= version]
    return min([version, *raw, *([max(seen)] if seen else [])])


def _stale(table: Table, since: int, ranges: dict[int, int]) -> list[File]:
    """The checkpoints of versions that nobody keeps."""
    checkpoints = sorted(table.listing.checkpoints.items())
    return [file for version, files in checkpoints if version < since and version not in ranges for file in files]


def _within(version: int, ranges: dict[int, int]) -> bool:
    return any(first <= version <= last for last, first in ranges.items())


def _paths(table: Table, version: int | None) -> list[str]:
    """The files of a version, None for the newest.

    Raises:
        SinkError: it cannot be read.
    """
    if version in table.paths:
        return table.paths[version]
    try:
        opened = table.sink.open(table.name, version)
    except FAULTS as error:
        if version is None:
            raise
        names = ", ".join(pins.kept(pins.find(table.sink), table.name).get(version, ["nobody"]))
        raise SinkError(
            f"{table.name}: version {version}, pinned by {names}, cannot be read ({one_line(error)}): nothing was "
            f"removed; restore it, or remove the file of that pin from {pins.FOLDER}"
        ) from error
    if opened is None:
        raise SinkError(f"{table.name} has gone from {table.sink.place}")
    found = [str(path) for path in opened.get_add_actions().column("path").to_pylist()]
    if version is not None:
        table.paths[version] = found
    return found


def _needed(table: Table, since: int, kept: Iterable[int]) -> set[str]:
    """The files of all versions that stay readable."""
    needed = {file.path for file in table.files} | set(_paths(table, since))
    for commit in table.commits.values():
        if commit.version > since:
            needed.update(commit.added)
    for version in kept:
        needed.update(_paths(table, version))
    return needed


def _files(table: Table, needed: set[str], known: set[str], young: float) -> tuple[list[str], list[File]]:
    """The files that no version holds, and those of them to remove: of ``known`` ones, which some version had, all.

    Another may be of a shipper that is about to commit it, whatever the clocks say. So it goes only when it was found
    before, and is old.
    """
    seen = set(table.ledger.unreferenced) | known
    unreferenced, removable = [], []
    for file in table.store.list(table.name):
        path = file.path.removeprefix(f"{table.name}/")
        if path.startswith("_") or path in needed:
            continue
        unreferenced.append(path)
        old = young if path in known else min(young, time.time() - _ORPHAN_SECONDS)
        if path in seen and file.modified < old:
            removable.append(file)
    return unreferenced, removable


def _checkpoints(table: Table, lease: Lease, versions: list[int]) -> None:
    """Have a checkpoint at each of these versions, and let ``_last_checkpoint`` name none that is to go.

    deltalake writes a checkpoint only together with ``_last_checkpoint``, which would move back to a pinned version. So
    it writes them into a copy of the log, and each is compared with the version that it stands for.
    """
    table.store.sync()  # what a checkpoint stands for is on the disk: repair does not look there again
    newest = max(versions)
    path = f"{history.log_of(table.name)}/{history.LAST_CHECKPOINT}"
    for version in sorted(set(versions)):
        lease.renew()
        behind = version == newest and _named(table.store.read(path)) < newest
        if version not in table.listing.checkpoints or behind:
            hint = _checkpoint(table, version)
            if behind and _named(table.store.read(path)) < newest:  # a shipper may have moved it on
                table.store.write(path, hint)


def _named(content: bytes | None) -> int:
    """The version that ``_last_checkpoint`` names; -1 if there is none, or it is damaged: readers pass over that."""
    try:
        return -1 if content is None else int(msgspec.json.decode(content)["version"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return -1


def _checkpoint(table: Table, version: int) -> bytes:
    """Write the checkpoint of a version; what ``_last_checkpoint`` says of it."""
    store = table.store
    base = max((v for v in table.listing.checkpoints if v <= version), default=-1)
    paths = [file.path for file in table.listing.checkpoints.get(base, [])]
    paths += [table.listing.commits[v].path for v in sorted(table.listing.commits) if base < v <= version]
    with tempfile.TemporaryDirectory(prefix="closedloop-") as folder:
        log = Path(folder) / "_delta_log"
        log.mkdir()
        for path, content in store.read_many(paths):
            (log / path.rpartition("/")[2]).write_bytes(content)
        whole = DeltaTable(folder, version=version)
        applications = {APP, *(commit.spool for commit in table.commits.values() if commit.spool is not None)}
        expected = {name: whole.transaction_version(name) for name in applications}
        whole.create_checkpoint()
        made = log / f"{version:020}.checkpoint.parquet"
        hint = (log / history.LAST_CHECKPOINT).read_bytes()
        for found in log.iterdir():
            if found != made:
                found.unlink()
        alone = DeltaTable(folder, version=version)
        if expected != {name: alone.transaction_version(name) for name in applications}:
            raise SinkError(f"{table.name}: the checkpoint of version {version} holds other transactions: stopped")
        if set(alone.get_add_actions().column("path").to_pylist()) != set(_paths(table, version)):
            raise SinkError(f"{table.name}: the checkpoint of version {version} holds other files than it: stopped")
        store.write(history.checkpoint_path(table.name, version), made.read_bytes())
    return hint


def _verify(table: Table, going: set[int | str], versions: set[int]) -> None:
    """Make sure that each of these versions holds the same files without what is to go: opened from a copy of the rest.

    Raises:
        SinkError: one does not.
    """
    now = history.listing(table.store, table.name)
    rest = [file for version, file in now.commits.items() if version <= table.version and version not in going]
    for version, files in now.checkpoints.items():
        rest += [file for file in files if version <= table.version and file.path not in going]
    paths = [file.path for file in rest]
    pointer = f"{history.log_of(table.name)}/{history.LAST_CHECKPOINT}"
    if _named(table.store.read(pointer)) <= table.version:  # else a shipper has just moved it on
        paths.append(pointer)
    with tempfile.TemporaryDirectory(prefix="closedloop-") as folder:
        log = Path(folder) / "_delta_log"
        log.mkdir()
        for path, content in table.store.read_many(paths):
            (log / path.rpartition("/")[2]).write_bytes(content)
        for version in sorted(versions):
            left: set[str] | None = None
            why = "holds other files"
            try:
                opened = DeltaTable(folder, version=version)
                left = set(opened.get_add_actions().column("path").to_pylist())
            except FAULTS as error:
                why = f"cannot be opened ({one_line(error)})"
            if left != set(_paths(table, version)):
                raise SinkError(f"{table.name}: after the clean-up version {version} {why}: nothing was removed")


def _remember(
    table: Table, gone: list[int], unreferenced: list[str], kept: Iterable[int], needed: Iterable[str]
) -> None:
    """Write into the ledger what the commits that are to go alone know."""
    book = ledger.load(table.store, table.name)
    for version in gone:
        commit = table.commits[version]
        if commit.spool is not None and commit.segment is not None and commit.sha256 is not None:
            known = book.shipped.get(commit.spool)
            if known is None or known.segment <= commit.segment:
                book.shipped[commit.spool] = Shipped(commit.segment, commit.sha256)
    floors = {(start, end): least for start, end, least in book.floors}
    starts = sorted({c.seen + 1 for c in table.commits.values() if c.seen is not None})
    for start, end in _stretches(gone, starts):
        times = [table.commits[v].time_us for v in gone if start <= v <= end]
        floors[start, end] = min(times)
    arrival = history.first_added(table.commits)
    spans = [history.arrivals(path) or (arrival.get(path, -1),) * 2 for path in needed]
    book.floors = ledger.merged(((start, end, least) for (start, end), least in floors.items()), kept, spans)
    book.unreferenced = unreferenced
    ledger.save(table.store, table.name, book)
    table.ledger = book


def _stretches(gone: list[int], starts: list[int]) -> list[tuple[int, int]]:
    """Runs of versions without a gap, cut where a rewriting began to see."""
    runs: list[tuple[int, int]] = []
    for version in gone:
        if runs and version == runs[-1][1] + 1 and version not in starts:
            runs[-1] = (runs[-1][0], version)
        else:
            runs.append((version, version))
    return runs


def _remove(table: Table, lease: Lease, kept: dict[int, list[str]], files: list[File]) -> None:
    """Remove, of commits the oldest first: there is no gap after a checkpoint, wherever this ends.

    Raises:
        SinkError: the pins are not those any more for which it was found out what may go.
    """
    for number, file in enumerate(files):
        if number % 100 == 0:
            refuse(table.sink)
            lease.renew()
            if pins.kept(pins.find(table.sink), table.name) != kept:
                raise SinkError(f"{table.name}: the pins changed during the clean-up: it was stopped, run it again")
        table.store.delete(file.path)
    table.store.sync()
