"""Authentication: bearer tokens with scopes, from a mounted file."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from score.console import say
from score.problems import Problem
from score.settings import SettingsError

Scope = Literal["score", "feedback"]
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750; no other arrives in a header as it was written
_SHORTEST = 16  # characters: a shorter token could be guessed
_CHECK_SECONDS = 1.0  # between checks for a changed file
_Callers = dict[bytes, tuple[str, frozenset[Scope]]]


class _RepeatedNameError(ValueError):
    """An object of the tokens file has this name twice."""


class _Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    scopes: list[Scope]


class Tokens:
    """The callers of a tokens file. They are looked up by the digest of their token, against timing attacks.

    The file is JSON, ``{"<caller>": {"token": "<at least 16 characters>", "scopes": ["score", "feedback"]}}``. It is
    read again when it has changed. If the new content is invalid, that is logged once and the previous tokens stay in
    use; ``stale`` is then true. ``refused`` counts refused requests, by reason.

    Raises:
        SettingsError: the file cannot be read or is invalid. The message never contains a token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._callers = _read(path)
        self._checked = time.monotonic()
        self.stale = False
        self.reloads = 0
        self.refused = {"token": 0, "scope": 0}

    def caller(self, authorization: str, scope: Scope) -> str:
        """The name of the caller who sent this ``Authorization`` header.

        Raises:
            Problem: 401 without a known token, 403 without the scope.
        """
        if (now := time.monotonic()) - self._checked >= _CHECK_SECONDS:
            self._checked = now
            self._read_again()
        kind, _, token = authorization.partition(" ")
        found = self._callers.get(sha256(token.strip().encode()).digest()) if kind.lower() == "bearer" else None
        if found is None:
            self.refused["token"] += 1
            raise Problem(
                401,
                "no known token: send the header Authorization: Bearer <token>",
                headers={"WWW-Authenticate": "Bearer"},
            )
        name, scopes = found
        if scope not in scopes:
            self.refused["scope"] += 1
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            detail = f"the token of {name} lacks the scope {scope}: send one that has it"
            raise Problem(403, detail, headers={"WWW-Authenticate": challenge})
        return name

    def _read_again(self) -> None:
        """Read the file again if it has changed; its stamp is taken first, so that no change is missed."""
        stamp = _stamp(self._path)
        if stamp == self._stamp and not self.stale:
            return
        try:
            self._callers = _read(self._path)
        except SettingsError as error:  # perhaps only for a moment: the next check reads it again
            if not self.stale or stamp != self._stamp:
                say("the new tokens file is invalid: the old tokens stay", logging.ERROR, reason=str(error))
            self.stale, self._stamp = True, stamp
            return
        self.stale, self._stamp = False, stamp
        self.reloads += 1
        say("tokens read again", callers=len(self._callers))


def _stamp(path: Path) -> tuple[int, ...]:
    """What identifies the file's version; empty if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time, in the path of every request
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _refuse_repeated_names(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _RepeatedNameError(name)
        seen.add(name)


def _read(path: Path) -> _Callers:
    try:
        content = path.read_bytes()
        named = msgspec.json.decode(content, type=dict[str, _Caller])
        json.loads(content, object_pairs_hook=_refuse_repeated_names)  # msgspec would take the last one
    except _RepeatedNameError as error:
        detail = f"the name {error} occurs twice in one object: give each caller one entry"
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: {detail}") from None
    except OSError as error:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error}; see score/README.md for its form") from None
    if not named:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: no callers: add at least one")
    callers: _Callers = {}
    for name, caller in named.items():
        key = sha256(caller.token.encode()).digest()
        if len(caller.token) < _SHORTEST:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: the token of {name} has fewer than {_SHORTEST} characters")
        if not _TOKEN.fullmatch(caller.token):
            detail = f"the token of {name} must consist of A-Z a-z 0-9 - . _ ~ + / and may end in ="
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: {detail}: clients cannot send any other in a header")
        if key in callers:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: {name} and {callers[key][0]} have the same token")
        callers[key] = name, frozenset(caller.scopes)
    return callers
