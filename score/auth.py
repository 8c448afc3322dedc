"""Who may ask what: bearer tokens with scopes, from a mounted file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from score.problems import Problem
from score.settings import SettingsError

Scope = Literal["score", "feedback"]
_SHORTEST = 16  # fewer characters could be guessed


class _Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    scopes: list[Scope]


class Tokens:
    """The callers of a tokens file, found by the digest of their token, so that the time it takes tells nothing of it.

    The file is JSON, ``{"<caller>": {"token": "<at least 16 characters>", "scopes": ["score", "feedback"]}}``.

    Raises:
        SettingsError: the file cannot be read, or holds no such thing. The message never shows a token.
    """

    def __init__(self, path: Path) -> None:
        try:
            callers = msgspec.json.decode(path.read_bytes(), type=dict[str, _Caller])
        except OSError as error:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: {error}; see score/README.md for its form") from None
        if not callers:
            raise SettingsError(f"AUTH_TOKENS_FILE={path}: names no caller, so that nobody could ask")
        self._callers: dict[bytes, tuple[str, frozenset[Scope]]] = {}
        for name, caller in callers.items():
            key = sha256(caller.token.encode()).digest()
            if len(caller.token) < _SHORTEST:
                raise SettingsError(f"AUTH_TOKENS_FILE={path}: the token of {name} is shorter than {_SHORTEST}")
            if key in self._callers:
                raise SettingsError(f"AUTH_TOKENS_FILE={path}: {name} has the token of {self._callers[key][0]}")
            self._callers[key] = name, frozenset(caller.scopes)

    def caller(self, authorization: str, scope: Scope) -> str:
        """The name of who sent this ``Authorization`` header.

        Raises:
            Problem: 401 without a known token, 403 without the scope.
        """
        kind, _, token = authorization.partition(" ")
        found = self._callers.get(sha256(token.strip().encode()).digest()) if kind.lower() == "bearer" else None
        if found is None:
            raise Problem(
                401, "send a known token: Authorization: Bearer <token>", headers={"WWW-Authenticate": "Bearer"}
            )
        name, scopes = found
        if scope not in scopes:
            raise Problem(403, f"the token of {name} lacks the scope {scope}")
        return name
