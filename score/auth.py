"""Who may ask what: bearer tokens with scopes, from a mounted file."""

from __future__ import annotations

import logging
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from score.console import say
from score.problems import Problem
from score.settings import SettingsError

Scope = Literal["score", "feedback"]
_SHORTEST = 16  # fewer characters could be guessed
_LOOK_SECONDS = 1.0  # how often the file is looked at
_Callers = dict[bytes, tuple[str, frozenset[Scope]]]


class _Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    scopes: list[Scope]


class Tokens:
    """The callers of a tokens file, found by the digest of their token, so that the time it takes tells nothing of it.

    The file is JSON, ``{"<caller>": {"token": "<at least 16 characters>", "scopes": ["score", "feedback"]}}``. It is
    read again when it has changed; a new one that is wrong is said once, and the old tokens stay. ``stale`` says that
    this is so, ``refused`` counts who was turned away, by reason.

    Raises:
        SettingsError: the file cannot be read, or holds no such thing. The message never shows a token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._callers = _read(path)
        self._looked = time.monotonic()
        self.stale = False
        self.reloads = 0
        self.refused = {"token": 0, "scope": 0}

    def caller(self, authorization: str, scope: Scope) -> str:
        """The name of who sent this ``Authorization`` header.

        Raises:
            Problem: 401 without a known token, 403 without the scope.
        """
        if (now := time.monotonic()) - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look()
        kind, _, token = authorization.partition(" ")
        found = self._callers.get(sha256(token.strip().encode()).digest()) if kind.lower() == "bearer" else None
        if found is None:
            self.refused["token"] += 1
            raise Problem(
                401, "send a known token: Authorization: Bearer <token>", headers={"WWW-Authenticate": "Bearer"}
            )
        name, scopes = found
        if scope not in scopes:
            self.refused["scope"] += 1
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise Problem(403, f"the token of {name} lacks the scope {scope}", headers={"WWW-Authenticate": challenge})
        return name

    def _look(self) -> None:
        """Read the file again if it is another than before; the stamp is taken first, so that no change is missed."""
        stamp = _stamp(self._path)
        if stamp == self._stamp and not self.stale:
            return
        try:
            self._callers = _read(self._path)
        except SettingsError as error:  # perhaps for a moment only: it is read again at the next look
            if not self.stale or stamp != self._stamp:
                say("the new tokens file is wrong: the old tokens stay", logging.ERROR, reason=str(error))
            self.stale, self._stamp = True, stamp
            return
        self.stale, self._stamp = False, stamp
        self.reloads += 1
        say("tokens read again", callers=len(self._callers))


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the file; empty where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time, in the path of every request
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path) -> _Callers:
    try:
        named = msgspec.json.decode(path.read_bytes(), type=dict[str, _Caller])
    except OSError as error:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error}; see score/README.md for its form") from None
    if not named:
        raise SettingsError(f"AUTH_TOKENS_FILE={path}: names no caller, so that nobody could ask")
    callers: _Callers = {}
    for name, caller in named.items():
        key = sha256(caller.token.encode()).digest()
        if len(caller.token) < _SHORTEST:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: the token of {name} is shorter than {_SHORTEST}")
        if key in callers:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: {name} has the token of {callers[key][0]}")
        callers[key] = name, frozenset(caller.scopes)
    return callers
