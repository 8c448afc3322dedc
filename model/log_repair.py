"""Say what is torn in a halted log, repair it, and let shippers write to it again.

A shipper halts the sink where undoing a torn commit could lose records: the segment that it held is not in the
shipper's own spool. Name the spools that may still have it with --spool; then nothing is lost. What no spool has can be
restored from a backup of the sink, or given up with --confirm: the rest of the log stays as it is. Where a torn
checkpoint alone said which files a table has, only that file from a backup helps. Given up, the whole table is moved to
_given_up in the sink, and shippers begin a new one.

Exit code 0: the log is whole, and no halt is left; 1: something is torn, and the output says what can be done; 2: wrong
usage.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from closedloop.data.schema import DataError
from closedloop.log.halt import halted, lift
from closedloop.log.repair import RepairError, Spools, damage, give_up, lost_checkpoint, put_aside, take_back_torn
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from model.common import cli


def tables(folder: Path) -> list[Path]:
    """The Delta tables of a local sink.

    Raises:
        DataError: there are none.
    """
    found = sorted(path.parent for path in folder.glob("*/_delta_log"))
    if not found:
        raise DataError(f"{folder}: there is no log here; name the folder that LOG_SINK has")
    return found


def show(folder: Path) -> dict[str, str]:
    """Print what is torn; by table, the words that confirm giving it up."""
    words = {}
    for table in tables(folder):
        torn = damage(table)
        for version, why in torn.items():
            print(f"{table.name}: version {version} {why}")
        if lost := lost_checkpoint(table):
            print(f"{table.name}: {lost.why}")
            words[table.name] = f"{table.name}@checkpoint-{lost.version}"
        elif torn:
            words[table.name] = f"{table.name}@" + ",".join(map(str, torn))
    return words


def repair(folder: Path, spools: Spools, confirmed: str | None) -> None:
    """Undo what is torn.

    Raises:
        RefusedError: something can only be given up, and that is not confirmed.
    """
    words = show(folder)
    needed = " ".join(words.values())
    refused: list[str] = []
    for table in tables(folder):
        lost = lost_checkpoint(table)
        try:
            taken = take_back_torn(table, spools)
        except RepairError as error:
            if confirmed == needed and table.name in words:
                _give_up(table, words[table.name])
            elif lost:
                refused.append(f"{lost.why}: restore {lost.path.relative_to(folder)} from a backup")
            else:
                refused.append(
                    f"{'; '.join(error.why)}: name the spools that may have the segments with --spool, or restore the "
                    "files from a backup"
                )
        else:
            if taken:
                print(f"{table.name}: took back version {', '.join(map(str, taken))}; its segments are shipped again")
    if refused:
        raise cli.RefusedError(f'{". ".join(refused)}. Or give the records up with --confirm "{needed}"')


def _give_up(table: Path, word: str) -> None:
    """Give up what is torn: the commits, or the whole table where nothing says any more which files it has."""
    if lost_checkpoint(table):
        aside = put_aside(table, f"given up: {word}")
        print(f"{word}: given up; its files are in {aside}, where erasure does not look. Shippers begin a new table")
    else:
        give_up(table)
        print(f"{word}: given up; its data files stay in {table}")


def main(words: list[str]) -> int:
    """Repair a sink and lift its halt, or only look with --dry-run."""
    flags = argparse.ArgumentParser(
        "python -m model.log_repair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--sink", required=True, metavar="PLACE", help="the log: a folder or an address, as LOG_SINK")
    flags.add_argument(
        "--spool",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a LOG_DIR that still has the segments; may be given again",
    )
    flags.add_argument("--dry-run", action="store_true", help="say what is torn, and change nothing")
    flags.add_argument("--confirm", metavar="WORDS", help="give up what the refusal names, in its words")
    args = flags.parse_args(words)
    if missing := [str(path) for path in args.spool if not (path / "state").exists()]:
        raise DataError(f"{missing[0]} is not a LOG_DIR: it has no file `state`")
    try:
        sink = Sink.at(args.sink, os.environ)
        why = halted(sink)
        print(why or f"{sink.place} is not halted")
        if args.dry_run:
            torn = sink.folder is not None and bool(show(sink.folder))
            return cli.REFUSED if torn else cli.DONE
        if sink.folder is not None:
            repair(sink.folder, Spools(tuple(args.spool)), args.confirm)
        if why:
            lift(sink)
            print("the halt is lifted: shippers go on by themselves")
    except (SinkError, *FAULTS) as error:
        raise DataError(one_line(error)) from None
    return cli.DONE


if __name__ == "__main__":
    cli.main(main)
