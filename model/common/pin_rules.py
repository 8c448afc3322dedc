"""What ``model/data.lock.json`` may hold: the keys of each kind of part, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from closedloop.data.schema import KEYS
from closedloop.log.sink import REMOTE
from closedloop.log.tables import FEEDBACK, REQUESTS
from model.common.param_rules import Rule
from model.common.places import LOOPBACK, SAID, WEB, scheme
from model.common.slips import Slip, SlipCheck
from model.common.yaml_lines import Where

STORE = (*SAID, "public")  # of any part that lies in an object store
PROFILE = Rule(str, choices=("azure", "default"))
COUNT, SEED, TEXT = Rule(int, 1, closed="left"), Rule(int, 0, 2**32 - 1), Rule(str)
VERSION = Rule(int, 0, closed="left", example=12)
SIZE = Rule(int, 0, closed="left")
FILE = ("path", "size", "sha256")
# Kind: the keys that a part of it needs, and those that it may have.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "simulator": (("profile", "machines", "days", "seed"), ()),
    "files": (("location", "files"), STORE),
    "delta": (("location", "tables", "versions"), ("columns", "from", "until", *STORE)),
    "log": (("location", "versions"), STORE),
}
TOP = ("fingerprint", "parts")
HOLDS = "holds"


def check(pin: Any) -> list[Slip]:
    """Return every slip in the content of the pin."""
    to = SlipCheck(pin if isinstance(pin, Mapping) else {})
    to.keys((), pin, (*TOP, HOLDS), TOP)
    if isinstance(pin, Mapping) and "parts" in pin:
        parts = pin["parts"]
        if not isinstance(parts, list) or not parts:
            to.say(("parts",), "is not a list of parts", "write one with: make data-pin DATA=place")
        else:
            for n, part in enumerate(parts):
                _part(to, ("parts", n), part)
    return to.found


def _part(to: SlipCheck, where: Where, part: Any) -> None:
    if not isinstance(part, Mapping):
        to.say(where, "is not a part", "write one with: make data-pin DATA=place")
        return
    kind = str(part.get("kind"))
    if not to.value((*where, "kind"), part.get("kind"), Rule(str, choices=tuple(KINDS))):
        return
    needed, more = KINDS[kind]
    to.keys(where, part, ("kind", *needed, *more), needed)
    for key, value in part.items():
        if key in _OF_KEY:
            _OF_KEY[key](to, (*where, key), value)
    for key in ("tables", "versions"):
        if kind == "delta" and isinstance(part.get(key), Mapping):
            _tables(to, (*where, key), part[key], TEXT if key == "tables" else VERSION)
    if kind == "delta" and isinstance(part.get("tables"), Mapping) and isinstance(part.get("versions"), Mapping):
        for table in set(part["tables"]) ^ set(part["versions"]):
            to.say((*where, "versions", str(table)), "is not in both tables and versions", "name its version")
    if kind == "log" and isinstance(part.get("versions"), Mapping):
        _log_versions(to, (*where, "versions"), part["versions"])
    if kind in ("delta", "log") and scheme(str(part.get("location"))) in WEB:
        to.say((*where, "location"), "is on a web server, which has no tables", "name a folder, az://, s3:// or gs://")


def _location(to: SlipCheck, where: Where, value: Any) -> None:
    if not to.value(where, value, TEXT):
        return
    if "://" not in value:
        _inside(to, where, value, "the repository")
        return
    found = urlsplit(value)
    if value.partition("://")[0] not in (*REMOTE, *WEB):
        known = ", ".join(f"{name}://" for name in (*REMOTE, "https"))
        to.say(where, f"is {value!r}", f"choose a folder of the repository, or one of {known}")
    elif found.scheme == "http" and found.hostname not in LOOPBACK:
        to.say(where, f"is {value!r}, which anybody on the way can change", "write https://")
    elif found.query or found.username or found.password:
        to.say(where, "holds what may be secret", "remove user name, password and everything from ? on")


def _inside(to: SlipCheck, where: Where, value: str, of: str) -> None:
    """Check that a relative path stays inside ``of``."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value:
        to.say(where, f"is {value!r}", f"write a path inside {of}, without a leading / and ..")


def _files(to: SlipCheck, where: Where, value: Any) -> None:
    if not isinstance(value, list) or not value:
        to.say(where, "is not a list of files", "write it with: make data-pin DATA=place")
        return
    seen: set[str] = set()
    for n, file in enumerate(value):
        there = to.keys((*where, n), file, FILE, FILE)
        if "path" in there and to.value((*where, n, "path"), there["path"], TEXT):
            _inside(to, (*where, n, "path"), there["path"], "the location")
            if there["path"] in seen:
                to.say((*where, n, "path"), f"is {there['path']!r}, a second time", "remove one of the two")
            seen.add(there["path"])
        if "size" in there:
            to.value((*where, n, "size"), there["size"], SIZE)
        if "sha256" in there and not re.fullmatch(r"[0-9a-f]{64}", str(there["sha256"])):
            to.say((*where, n, "sha256"), f"is {there['sha256']!r}", "it must be 64 digits of 0-9 and a-f")


def _tables(to: SlipCheck, where: Where, value: Mapping[str, Any], rule: Rule) -> None:
    """Check a mapping by the names of our tables."""
    for table, one in to.keys(where, value, tuple(KEYS)).items():
        if to.value((*where, str(table)), one, rule) and rule is TEXT:
            _inside(to, (*where, str(table)), one, "the location")


def _log_versions(to: SlipCheck, where: Where, value: Mapping[str, Any]) -> None:
    for table, version in to.keys(where, value, (REQUESTS, FEEDBACK), (REQUESTS,)).items():
        if version is not None or table == REQUESTS:
            to.value((*where, str(table)), version, VERSION)


def _columns(to: SlipCheck, where: Where, value: Any) -> None:
    for table, mapping in to.keys(where, value, tuple(KEYS)).items():
        if not isinstance(mapping, Mapping) or not all(isinstance(name, str) for name in mapping.values()):
            to.say((*where, str(table)), f"is {mapping!r}", "write your column names with ours, as in params.yaml")


def _time(to: SlipCheck, where: Where, value: Any) -> None:
    try:
        fine = isinstance(value, str) and pd.notna(pd.to_datetime(value, utc=True, format="ISO8601"))
    except ValueError:
        fine = False
    if not fine:
        to.say(where, f"is {value!r}", 'it must be a time, such as "2025-01-01" or "2025-01-01T06:00:00Z"')


def _public(to: SlipCheck, where: Where, value: Any) -> None:
    if value is not True:
        to.say(where, f"is {value!r}", "it must be true, or be left out")


def _mapping(to: SlipCheck, where: Where, value: Any) -> None:
    if not isinstance(value, Mapping) or not value:
        to.say(where, f"is {value!r}, not a mapping", "write it with: make data-pin DATA=place")


def _valued(rule: Rule) -> Callable[[SlipCheck, Where, Any], object]:
    return lambda to, where, value: to.value(where, value, rule)


_OF_KEY: dict[str, Callable[[SlipCheck, Where, Any], object]] = {
    "profile": _valued(PROFILE),
    "machines": _valued(COUNT),
    "days": _valued(COUNT),
    "seed": _valued(SEED),
    "location": _location,
    "files": _files,
    "tables": _mapping,
    "versions": _mapping,
    "columns": _columns,
    "from": _time,
    "until": _time,
    "public": _public,
    **dict.fromkeys(SAID, _valued(TEXT)),
}
