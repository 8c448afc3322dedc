"""Inspect a request log on disk: ``python -m score.log inspect|verify|recover FOLDER``.

FOLDER is a LOG_DIR, its quarantine, or a copy of either; it is only read. ``inspect`` lists the segments and their
records, ``verify`` lists what is damaged or unreadable, ``recover`` copies all intact records to a new spool. Exit code
0: no damage; 1: something is damaged or lost, and the output says what; 2: wrong usage, or FOLDER holds no log.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from closedloop.log import quarantine
from closedloop.log.frame import OPEN, SEALED, Segment, damage
from closedloop.log.quarantine import KEPT, Kept
from closedloop.log.record import Record, decode
from closedloop.log.segment import OpenSegment
from closedloop.log.spool import segments
from closedloop.log.state import SpoolError, make_folder, read_state, write_state


@dataclass
class Found:
    """The content of a folder: its segments in order, and one line for each loss."""

    spool: str | None
    segments: list[tuple[Path, Segment]] = field(default_factory=list)
    kept: list[tuple[Path, list[Kept]]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[list[bytes]]:
        """The records of each file: those of segments, and whole ones that a shipper kept aside."""
        kept = [[found.payload for found in records if found.index is not None] for _, records in self.kept]
        return [segment.records for _, segment in self.segments] + [records for records in kept if records]

    @property
    def records(self) -> int:
        """The number of intact records."""
        return sum(map(len, self.parts))


def read_folder(folder: Path) -> Found:
    """The content of a folder.

    Raises:
        FileNotFoundError: the folder holds no log.
    """
    state = folder / "state"
    if not any([*folder.glob("*" + SEALED), *folder.glob("*" + OPEN), *folder.glob("*" + KEPT), state.exists()]):
        raise FileNotFoundError(f"{folder}: no log here: name a LOG_DIR, its quarantine, or a copy of one")
    found = Found(None)
    if state.exists():
        try:
            found.spool = read_state(folder)[0]
        except SpoolError as error:
            found.losses.append(str(error))
    elif folder.name != quarantine.FOLDER:
        found.losses.append(f"{state} is missing: the log can be read, but no service can add to it")
    for path, segment in segments(folder, found.spool, found.losses.append):
        found.segments.append((path, segment))
        # the incomplete end of an open segment is being written now, or was never acknowledged
        whole = replace(segment, torn=0) if path.suffix == OPEN else segment
        found.losses += [f"{path}: {lost}" for lost in damage(whole)]
    for path, records, lost in quarantine.read(folder):
        found.kept.append((path, records))
        found.losses += [f"{path}: {why}" for why in lost]
    return found


def inspect(folder: Path) -> int:
    """Print each segment and its records; return the exit code."""
    found = read_folder(folder)
    print(f"spool {found.spool or 'unknown'}: {len(found.segments)} segments, {found.records} records")
    for path, segment in found.segments:
        records = [record for payload in segment.records if (record := _decoded(payload)) is not None]
        kinds = Counter(record.kind for record in records)
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no readable record"
        times = [record.received_us for record in records]
        span = f", received {_text(min(times))} to {_text(max(times))}" if times else ""
        print(f"  {path.name}  {path.stat().st_size:>12,} bytes  {what}{span}")
    for path, kept in found.kept:
        print(f"  {path.name}  {path.stat().st_size:>12,} bytes  {len(kept)} that could not be shipped")
        for one in kept:
            print(f"    {one.where}: {one.why}")
    return _report(found.losses)


def verify(folder: Path) -> int:
    """Check each checksum and decode each record; return the exit code."""
    found = read_folder(folder)
    for path, segment in found.segments:
        bad = sum(_decoded(payload) is None for payload in segment.records)
        if bad:
            found.losses.append(
                f"{path}: {bad} of {len(segment.records)} records have a format unknown to this version"
            )
    found.losses += [
        f"{path}: {one.where}: {one.why}" for path, kept in found.kept for one in kept if one.index is not None
    ]
    print(f"{folder}: {len(found.segments)} segments, {found.records} records; {len(found.losses)} faults")
    return _report(found.losses)


def recover(folder: Path, to: Path) -> int:
    """Copy all intact records to a new spool, which can be shipped like any other; return the exit code."""
    found = read_folder(folder)
    if to.exists():
        raise FileExistsError(f"{to} exists: name a new folder with --to")
    make_folder(to)
    spool = uuid4().hex
    write_state(to, spool, len(found.parts) + 1)
    for number, records in enumerate(found.parts, start=1):
        opened = OpenSegment(to, spool, number)
        if records:
            opened.append(records, sync=True)
        opened.seal()
    print(f"{to}: {found.records} records recovered as spool {spool}; {folder} is unchanged")
    return _report(found.losses)


def _report(losses: list[str]) -> int:
    """Print the losses; return the exit code."""
    for lost in losses:
        print(f"  lost: {lost}")
    return 1 if losses else 0


def _decoded(payload: bytes) -> Record | None:
    try:
        return decode(payload)
    except msgspec.DecodeError:
        return None


def _text(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def main() -> int:
    """Run one of the three commands; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m score.log", description="Inspect a request log on disk")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, about in (
        ("inspect", "list the segments and their records"),
        ("verify", "list what is damaged or unreadable"),
        ("recover", "copy all intact records to a new spool"),
    ):
        flags = commands.add_parser(command, help=about)
        flags.add_argument("folder", type=Path, metavar="FOLDER")
        if command == "recover":
            flags.add_argument("--to", type=Path, help="the new folder (default: FOLDER.recovered)")
    args = parser.parse_args()
    try:
        if args.command == "recover":
            folder: Path = args.folder
            return recover(folder, args.to or folder.with_name(folder.name + ".recovered"))
        return inspect(args.folder) if args.command == "inspect" else verify(args.folder)
    except (OSError, OverflowError) as error:
        print(f"score.log: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
