"""New parts of the data pin: what a place holds now, and what pinned parts have become."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from closedloop.data.files import readable
from closedloop.data.schema import DataError
from closedloop.log.sink import FAULTS, SinkError
from closedloop.log.tables import FEEDBACK, REQUESTS
from model.common import cli, pin_rules, pinned_delta, pinned_files, places, provenance, request_log
from model.common.params import Params


def part_of(place: str, asked: Params) -> dict[str, Any]:
    """Return the part that pins a place as it is now.

    Args:
        place: a folder of the repository; an address of an object store; or the addresses of files on a web server,
            with spaces between them. What lies there is found out: a log, Delta tables, or files.
        asked: the parameters; their ``files:`` says which files belong to the fleet.

    Raises:
        DataError: nothing is found there, or it cannot be read.
    """
    if places.scheme(place) in places.WEB:
        return _of_web(place.split())
    if "://" not in place:
        return _of_folder(Path(place), asked)
    location, name = place.rstrip("/"), PurePosixPath(place.rstrip("/")).name
    if readable(Path(name)):
        location = location[: -len(name) - 1]
    part = {"location": location, **places.said(location)}
    _refuse(part)
    try:
        return _of_store({**part, "public": True}, asked)
    except DataError:  # of nobody who has not logged in
        return _of_store(part, asked)


def moved(part: dict[str, Any], asked: Params) -> dict[str, Any]:
    """Return a part as its place is now: the same files, or newest versions of the same tables.

    Raises:
        DataError: the place cannot be read.
    """
    if part["kind"] == "simulator":
        return part
    if part["kind"] == "log":
        return {**part, "versions": _newest(part)}
    if part["kind"] == "delta":
        return pinned_delta.moved(part)
    if not places.scheme(part["location"]):
        return pinned_files.part_of(provenance.ROOT / part["location"], asked.files)
    if places.scheme(part["location"]) in places.WEB:
        names = [file["path"] for file in part["files"]]
    else:
        names = _of_fleet(places.Bucket(part).names(), part["location"], asked)
    return {**part, "files": pinned_files.download(places.at(part), part["location"], names)}


def _refuse(part: Mapping[str, Any]) -> None:
    """Raise DataError where a location is none, or may hold a secret."""
    slips = pin_rules.check({"fingerprint": "", "parts": [{"kind": "log", "versions": {REQUESTS: 0}, **part}]})
    if slips:
        raise DataError(f"{part['location'].partition('?')[0]}: {slips[0].problem}; {slips[0].fix}")


def _of_folder(folder: Path, asked: Params) -> dict[str, Any]:
    """Return the part of a folder of the repository."""
    base = folder.parent if folder.is_file() else folder
    part = {"location": pinned_files.location_of(base)}
    if not base.is_dir():
        raise DataError(f"{folder}: no such file or folder; give the folder that holds your tables")
    if provenance.git("check-ignore", "--quiet", str(base.resolve())) is not None:
        cli.say(f"warning: git ignores {folder}, so only this machine can read this pin")
    if request_log.is_log(str(base)):
        return {"kind": "log", **part, "versions": _newest(part)}
    return pinned_delta.find(part, asked.files) or pinned_files.part_of(base, asked.files)


def _of_store(part: dict[str, Any], asked: Params) -> dict[str, Any]:
    """Return the part of an address of an object store."""
    own = {key: value for key, value in part.items() if key != "public"}
    names = places.Bucket(part).names() if not pinned_delta.is_table(part, "") else []
    if any(name.startswith(f"{REQUESTS}/_delta_log/") for name in names):
        return {"kind": "log", **own, "versions": _newest(own)}  # whoever pins it writes to it, so logs in
    if found := pinned_delta.find(part, asked.files):
        return found
    names = _of_fleet(names, part["location"], asked)
    return {"kind": "files", **part, "files": pinned_files.download(places.Bucket(part), part["location"], names)}


def _of_fleet(names: list[str], location: str, asked: Params) -> list[str]:
    """Return those of the listed files that belong to the fleet: as for a folder, told by their names."""
    with tempfile.TemporaryDirectory() as skeleton:
        for name in names:
            path = Path(skeleton, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        try:
            found = pinned_files.of_fleet(Path(skeleton), asked.files)
        except DataError as error:
            raise DataError(str(error).replace(skeleton, location)) from None
        return [path.relative_to(skeleton).as_posix() for path in found]


def _of_web(addresses: list[str]) -> dict[str, Any]:
    """Return the part of files on a web server."""
    for address in addresses:
        name = unquote(PurePosixPath(urlsplit(address).path).name)
        if not readable(Path(name)):
            raise DataError(
                f"{address.partition('?')[0]}: is not the address of a file; a web server has no listing, so name each "
                'file: make data-pin DATA="https://…/PdM_telemetry.csv https://…/PdM_failures.csv"'
            )
    folders = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
    location = "/".join(same[0] for same in takewhile(lambda names: len(set(names)) == 1, folders))
    part = {"location": location}
    if not urlsplit(location).netloc:
        raise DataError(f"{addresses[-1]}: is on another server than {addresses[0]}; pin each with ADD=1")
    for address in addresses:
        _refuse_address(address)
    names = [unquote(address[len(location) + 1 :]) for address in addresses]
    return {"kind": "files", **part, "files": pinned_files.download(places.Web(part), location, names)}


def _refuse_address(address: str) -> None:
    """Raise DataError where an address of a web server is none, or may hold a secret."""
    files = [{"path": "x.csv", "size": 0, "sha256": "0" * 64}]
    slips = pin_rules.check({"fingerprint": "", "parts": [{"kind": "files", "location": address, "files": files}]})
    if slips:
        raise DataError(f"{address.partition('?')[0]}: {slips[0].problem}; {slips[0].fix}")


def _newest(part: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the newest versions of a log's tables; None for one that is not there."""
    sink = places.sink(part)
    try:
        opened = {table: sink.open(table) for table in (REQUESTS, FEEDBACK)}
    except SinkError as error:
        raise DataError(str(error)) from None
    except FAULTS as error:
        raise places.trouble(part, part["location"], error) from error
    if opened[REQUESTS] is None:
        raise DataError(f"{part['location']}: there is no log; name the folder or address that LOG_SINK has")
    return {table: None if found is None else found.version() for table, found in opened.items()}
