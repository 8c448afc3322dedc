"""What ``model.adopt`` does to files: a fleet's copy in the repository, and changes that all happen or none.

Nothing is ever deleted: what is replaced or taken back lies below build/adopt afterwards, and is not overwritten there.
"""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from closedloop.data.schema import DataError
from model.common import cli
from model.common.provenance import ROOT, git

FOLDER = "data"  # of the repository, for the files of adopted fleets
WORK = cli.BUILD / "adopt"
REPLACED, UNDONE, COPIED = WORK / "replaced", WORK / "undone", WORK / "copied.json"
MOST_MB = 50  # of a fleet in git; GitHub warns of a file of that size, and refuses one of twice that


def in_git(location: Path) -> bool:
    """Return whether git would keep what lies at a place: it is in the repository, and not ignored."""
    place = location.resolve()
    return place.is_relative_to(ROOT) and place != ROOT and git("check-ignore", "--quiet", str(place)) is None


def home(location: Path, source: str) -> Path:
    """Return the folder of the repository in which the files of a fleet lie, or will."""
    if in_git(location):
        return location.resolve() if location.is_dir() else location.resolve().parent
    return ROOT / FOLDER / (re.sub(r"[^\w.-]+", "-", source).strip(".-") or "fleet")


def refuse_large(location: Path, names: list[str]) -> None:
    """Check that the files of a fleet are small enough for git.

    Raises:
        DataError: they are not.
    """
    sizes = {name: (location / name).stat().st_size / 1e6 for name in names}
    if sum(sizes.values()) > MOST_MB:
        largest = max(sizes, key=sizes.__getitem__)
        raise DataError(
            f"{location}: the fleet's files have {sum(sizes.values()):,.0f} MB ({largest} {sizes[largest]:,.0f} MB), "
            f"and git is no place for more than {MOST_MB} MB; give compressed Parquet files, or upload the folder, and "
            "name its address (az://, s3://, gs://) as well: PLACE="
        )


def same_files(location: Path, target: Path, names: list[str]) -> bool:
    """Return whether ``target`` holds these files of ``location`` with the same content, and no others."""
    if not target.is_dir():
        return False
    there = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    return there == sorted(names) and not any(filecmp.cmpfiles(location, target, names, shallow=False)[1:])


class Changes:
    """Changes of files of the repository; :meth:`undo` takes back all that were made, in reverse order."""

    def __init__(self) -> None:
        self._back: list[tuple[Path, Path | None]] = []  # a changed path, and where it was moved to

    @property
    def replaced(self) -> dict[Path, Path]:
        """Where each changed path lies that was there before."""
        return {path: old for path, old in self._back if old is not None}

    def write(self, path: Path, content: bytes | None) -> bool:
        """Write a file, or take it away where there is no content; return whether that changes anything."""
        if (path.read_bytes() if path.exists() else None) == content:
            return False
        new = WORK / "new"
        if content is not None:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content)
        self._swap(path, None if content is None else new)
        return True

    def copy(self, location: Path, target: Path, names: list[str]) -> bool:
        """Make ``target`` a folder of these files of ``location`` alone; return whether that changes anything."""
        if same_files(location, target, names):
            return False
        new = WORK / "copy"
        shutil.rmtree(new, ignore_errors=True)
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(location / name, new / name)
        self._swap(target, new)
        origin = {_name(target / name): str((location / name).resolve()) for name in names}
        cli.write_json(COPIED, {**_copied(), **origin})
        return True

    def undo(self) -> None:
        """Take every change back."""
        while self._back:
            path, old = self._back.pop()
            _remove(path)
            if old is not None:
                shutil.move(old, path)

    def _swap(self, path: Path, new: Path | None) -> None:
        old = None
        if path.exists():
            old = spare(REPLACED / path.relative_to(ROOT))
            old.parent.mkdir(parents=True, exist_ok=True)
            self._back.append((path, old))
            shutil.move(path, old)
        else:
            self._back.append((path, None))
        if new is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.replace(path)


@contextmanager
def all_or_none() -> Iterator[Changes]:
    """Yield changes that are taken back where the block is left by an error, or by Ctrl-C."""
    changes = Changes()
    try:
        yield changes
    except BaseException:
        changes.undo()
        raise


def take_back(paths: list[Path], copies: Path | None) -> tuple[list[str], list[str]]:
    """Bring back files as git has them, and remove copies of files that still lie where they were copied from.

    Args:
        paths: files to restore; one that git does not have is moved away.
        copies: the folder of the copies, if any.

    Returns:
        What was done, and which copies stay because their original is gone or has changed; a line for each.
    """
    done, stay = [], []
    for path in paths:
        name = _name(path)
        known, changed = git("ls-files", name) != "", git("status", "--porcelain", "--", name) != ""
        if not changed:
            continue
        was = ""
        if path.exists():
            kept = spare(UNDONE / name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)
            path.unlink()
            was = f"; what it was is {kept}"
        if known:
            git("checkout", "HEAD", "--", name)
        done.append(f"{name} is {'as committed' if known else 'gone'}{was}")
    copied = {ROOT / name for name in _copied()}
    if copies is not None:
        copied |= set(copies.rglob("*"))
    for path in sorted(copied):
        name = _name(path)
        if not path.is_file() or git("ls-files", name) != "":
            continue
        origin = Path(_copied().get(name, ""))
        if origin.is_file() and filecmp.cmp(origin, path, shallow=False):
            path.unlink()
            done.append(f"{name} is gone; it is still in {origin.parent}")
        else:
            stay.append(f"{name} stays: its original is gone or has changed; delete it if you do not need it")
    for folder in sorted({path.parent for path in copied}, reverse=True):
        _remove_empty(folder)
    return done, stay


def earlier(paths: list[Path]) -> list[Path]:
    """Return what adoptions have replaced of these files and git does not have: a person's own changes, too."""
    found: list[Path] = []
    for path in paths:
        name = _name(path)
        committed, place = (git("show", f"HEAD:{name}") or "").strip(), REPLACED / name
        kept = sorted(place.parent.glob(f"{place.name}*")) if place.parent.is_dir() else []
        found += [old for old in kept if old.read_text(encoding="utf-8").strip() != committed]
    return found


def spare(place: Path) -> Path:
    """Return the place, or one with a number beside it where something lies there already."""
    free, number = place, 1
    while free.exists():
        number += 1
        free = place.with_name(f"{place.name}~{number}")
    return free


def uncommitted(path: Path) -> bool:
    """Return whether a file or folder is not as git has it: changed, new or gone."""
    return git("status", "--porcelain", "--", _name(path)) != ""


def _copied() -> Mapping[str, str]:
    return cli.read_json(COPIED, "delete it") if COPIED.exists() else {}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Remove a folder of empty folders, and the folders above it that are empty then."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    while folder != ROOT and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
