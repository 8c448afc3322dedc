"""The upkeep of the request log in LOG_SINK (a folder, az://, s3://, gs://), safe beside a running service.

status   what the sink holds: files, bytes, commits, pins, orders of erasure, owners, a halt
compact  many small files as few large ones; then what no pinned or newest version needs is removed
expire   leave out the records that came more than so many days ago
erase    remove a machine's or a caller's records from all versions, pinned ones too; stays as a standing order

A command that was killed can be run again. One works at a time; another one waits for it, or for its lease to end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from closedloop.data import machines
from closedloop.data.schema import DataError
from closedloop.log import erase, expire, orders, upkeep
from closedloop.log.clean import GRACE_SECONDS, clean
from closedloop.log.erase import Erased
from closedloop.log.lease import SECONDS, Lease
from closedloop.log.orders import Order
from closedloop.log.rewrite import Table, sweep_scratch
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from closedloop.log.status import status
from closedloop.log.tables import REJECTS
from model.common import cli, params

_ROUNDS = 10  # of an erasure, while shippers bring more of what must go
_US = 1_000_000


def main(words: list[str]) -> int | None:
    """Run a command on the sink."""
    args = _flags().parse_args(words)
    place = args.sink or os.environ.get("LOG_SINK")
    if not place:
        raise DataError("no sink is named; set LOG_SINK, or pass --sink: the folder or address of the log's tables")
    try:
        return _COMMANDS[args.command](Sink.at(place, os.environ), args)
    except DataError:  # a ValueError, and not the sink's
        raise
    except BrokenPipeError:  # of standard output: whoever read it has left
        raise
    except SinkError as error:
        raise DataError(str(error)) from None
    except FAULTS as error:
        raise DataError(f"{place}: the sink refused, what was done until then is whole: {one_line(error)}") from error


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m model.log", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in _COMMANDS:
        command = commands.add_parser(name)
        command.add_argument("--sink", help="the log's tables (default: LOG_SINK)")
        command.add_argument("--json", action="store_true", help="the report as JSON")
        if name != "status":
            command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
            command.add_argument("--wait", type=_seconds, default=SECONDS, help="seconds to wait for another one")
        if name == "compact":
            command.add_argument("--all", action="store_true", help="also where only a few small files are left")
            command.add_argument(
                "--grace",
                type=_seconds,
                default=GRACE_SECONDS,
                help="seconds for which what was replaced stays readable",
            )
        if name == "expire":
            command.add_argument("--days", type=float, required=True, help="older records go")
        if name == "erase":
            who = command.add_mutually_exclusive_group(required=True)
            who.add_argument("--machine", help="whose records must go: a machineID, a number or a name as in --params")
            who.add_argument("--caller", help="whose records must go")
            command.add_argument("--confirm", help="the machine or caller again: without it nothing is changed")
            command.add_argument("--withdraw", action="store_true", help="take a standing order back")
            command.add_argument("--params", type=Path, default=params.PARAMS, help="parameter file of the fleet")
    return parser


def _seconds(text: str) -> float:
    """Seconds, 0 or more.

    Raises:
        ArgumentTypeError: they are not.
    """
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")


def _status(sink: Sink, args: argparse.Namespace) -> None:
    found = status(sink)
    if not found["tables"] and not found["halted"]:
        upkeep.present(sink)  # says that there is no log
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(found["halted"] or f"{found['sink']} is not halted")
    for name, state in found["tables"].items():
        print(
            f"{name}: version {state['version']}, {state['rows']:,} records of {state['oldest']} to {state['newest']}"
        )
        print(f"  {state['files']:,} files ({state['small_files']:,} not compacted), {state['bytes']:,} bytes")
        print(f"  with older versions {state['all_files']:,} files, {state['all_bytes']:,} bytes")
        print(f"  {state['commits']:,} commits and {state['checkpoints']:,} checkpoints, {state['log_bytes']:,} bytes")
        if state["leased_until"]:
            print(f"  upkeep is at work; its lease ends in {state['leased_until'] - time.time():.0f} s")
    for pin in found["pins"]:
        print(
            f"pin {pin['id']} ({pin['kind']}): {pin['versions']}" + (f", {pin['unreadable']}" * bool(pin["unreadable"]))
        )
    for order in found["erasures"]:
        print(f"standing order of erasure: {order}")


def _compact(sink: Sink, args: argparse.Namespace) -> None:
    settings = upkeep.UpkeepSettings(
        everything=args.all, dry_run=args.dry_run, grace_seconds=args.grace, wait_seconds=args.wait
    )
    reports = {name: asdict(report) for name, report in upkeep.keep(sink, cli.say, settings).items()}
    _report(args, reports)


def _expire(sink: Sink, args: argparse.Namespace) -> None:
    if not 0 < args.days < math.inf:  # NaN is in no order
        raise DataError("--days: name how many days of records stay, more than 0")
    before_us = int(max(time.time() - args.days * 86400, 0.0) * _US)
    reports = {}
    for name in upkeep.present(sink):
        if args.dry_run:
            reports[name] = asdict(expire.expire(Table(sink, name), upkeep.NoLease(), before_us, cli.say, dry_run=True))
            continue
        lease = Lease(sink, name, wait=args.wait, say=cli.say)
        with lease:
            table = Table(sink, name)
            sweep_scratch(table, cli.say)
            reports[name] = asdict(expire.expire(table, lease, before_us, cli.say))
            clean(Table(sink, name, table), lease, cli.say)
    _report(args, reports)
    if not args.json:
        if kept := sum(report["kept"] for report in reports.values()):
            print(f"{kept} old records of feedback stay, without their events: what they retract or mark is final.")
        print("Pinned versions keep what they hold until their pin is removed.")
        if not args.dry_run and any(report["rows"] for report in reports.values()):
            print("Now: make data-pin")


def _erase(sink: Sink, args: argparse.Namespace) -> int | None:
    subject: orders.Subject = "machine" if args.machine is not None else "caller"
    typed = args.machine if subject == "machine" else args.caller
    kind = _kind(sink, typed, params.load(args.params).schema.machine_id) if subject == "machine" else machines.NUMBER
    if args.withdraw:
        _withdraw(sink, subject, typed, kind)
        return None
    order = Order(subject, _machine(typed, kind) if subject == "machine" else typed, time.time_ns() // 1000)
    names = upkeep.present(sink)
    found = {name: erase.look(Table(sink, name), order, cli.say) for name in names}
    _foretell(sink, order, found, args)
    if args.dry_run:
        return None
    tell = cli.say if args.json else print
    if args.confirm not in (order.name, typed):
        name = shlex.quote(order.name)
        tell(f"Nothing was changed. To erase for good: the same again with CONFIRM={name}")
        return cli.USAGE
    orders.give(sink, order)
    erased = left = 0
    try:
        for name in names:
            lease = Lease(sink, name, wait=args.wait, say=cli.say)
            with lease:
                sweep_scratch(Table(sink, name), cli.say)
                files, waiting = _until_gone(sink, name, lease, order)
            erased, left = erased + files, left + waiting
    except SinkError as error:
        stands = f"The order stands, so what arrives later is stored without {order}; run it again to erase the rest"
        raise SinkError(f"{error}. {stands}") from error
    if left:
        tell(f"{left} files that no version has yet hold {order}: run this again in a day")
    stands = "The order stands: what arrives later is stored without it."
    if erased:
        tell(f"Erased {order}. {stands} Now: make data-pin")
    elif not left:
        tell(f"The log holds nothing of {order}: nothing was erased. {stands}")
    else:
        tell(stands)
    return None


def _kind(sink: Sink, text: str, declared: str) -> str:
    """Whether a person means a machine's number or its name: the log may be of a fleet that is declared elsewhere."""
    number = machines.whole(text)
    if declared == machines.TEXT or (number is not None and str(number) == machines.canonical(text)):
        return declared  # 7 is the same either way
    tables = [name for name in upkeep.present(sink) if name != REJECTS]
    if any(erase.has_names(Table(sink, name)) for name in tables):
        cli.say(f"the log has machines with names, so {machines.clip(text)} is taken for a name")
        return machines.TEXT
    return declared


def _machine(text: str, kind: str) -> str:
    """A machine as the tables have it: its name, or a whole number of 64 bits, where ``01`` is ``1``.

    Raises:
        DataError: it is none.
    """
    if kind == machines.TEXT:
        name = machines.canonical(text)
        if why := machines.fault_of(name):
            raise DataError(f"--machine: {machines.clip(name)} {why}")
        return name
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text) or not -(2**63) <= int(text) < 2**63:
        raise DataError(f"--machine: {text!r} is no machineID: name a whole number, as in the data")
    return str(int(text))


def _withdraw(sink: Sink, subject: orders.Subject, typed: str, kind: str) -> None:
    """Take an order back, also one that an earlier version stored as it was typed."""
    names = {typed}
    if subject == "machine":
        with contextlib.suppress(DataError):
            names.add(_machine(typed, kind))
    stood = [name for name in names if orders.withdraw(sink, Order(subject, name, 0))]
    said = "new records are kept again; what was erased does not come back" if stood else "no order"
    print(f"{subject} {typed}: {said}")


def _until_gone(sink: Sink, name: str, lease: Lease, order: Order) -> tuple[int, int]:
    """Erase until nothing is found; how many files held rows of it, and how many wait for another time."""
    erased = 0
    for _ in range(_ROUNDS):
        table = Table(sink, name)
        found = erase.look(table, order, cli.say)
        if not found.paths:
            return erased, len(found.waiting)
        erased += len(found.paths)
        erase.erase(table, lease, order, found, cli.say)
    raise DataError(f"{name}: shippers keep bringing {order}: update or stop them, and run it again")


def _foretell(sink: Sink, order: Order, found: dict[str, Erased], args: argparse.Namespace) -> None:
    """Say what an erasure takes away, and what it cannot reach."""
    pins = {pin.id: pin for each in found.values() for pin in each.pins}
    if args.json:
        tables = {name: {"records": each.rows, "files": len(each.paths)} for name, each in found.items()}
        print(json.dumps({"subject": str(order), "tables": tables, "pins": sorted(pins)}, indent=1))
        return
    for name, each in found.items():
        print(f"{name}: {each.rows:,} records in the newest version, {len(each.paths):,} files in all versions")
    for pin in pins.values():
        print(f"becomes unreadable: pin {pin.id} ({pin.kind}, {pin.versions})")
    if not any(each.paths or each.waiting for each in found.values()):
        print(f"The log holds nothing of {order}.")
    print("Out of reach, look there yourself:")
    print("  segments and quarantine in the LOG_DIR of each replica, until they are shipped")
    print("  backups of the sink, runs in MLflow, and every release whose model learned from it:")
    for pin in pins.values():
        if pin.kind == "release":
            print(f"    {pin.id}: bundle, report, card, and its image")
    for path in (cli.BUNDLE, cli.CHAMPIONS, cli.DATA, cli.HOLDOUT, cli.PREDICTIONS, Path("build/report")):
        if path.exists():
            print(f"    {path} of this checkout")
    if not sink.folder:
        print("  old versions of objects, where the store keeps them (versioning, soft delete)")


def _report(args: argparse.Namespace, reports: dict[str, dict[str, Any]]) -> None:
    if args.json:
        print(json.dumps(reports, indent=1))
        return
    would = "would be " if args.dry_run else ""
    for name, report in reports.items():
        parts = report if all(isinstance(x, dict) for x in report.values()) else {"expired": report}
        for part, figures in parts.items():
            told = ", ".join(f"{key} {value}" for key, value in figures.items() if value is not None)
            print(f"{name} {would}{part}: {told}")


_COMMANDS = {"status": _status, "compact": _compact, "expire": _expire, "erase": _erase}

if __name__ == "__main__":
    cli.main(main)
