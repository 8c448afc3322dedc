"""The service's settings, from the environment. Whatever is missing or wrong stops the start, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from closedloop.log.spool import Durability


class SettingsError(ValueError):
    """A setting is missing or wrong. The message begins with its name and says how to mend it."""


@dataclass(frozen=True)
class Settings:
    """What the service needs beside the bundle; ``tokens_file`` is None where everyone may ask (``AUTH=open``)."""

    log_dir: Path
    log_durability: Durability = "fsync"
    tokens_file: Path | None = None
    port: int = 8000
    max_body_bytes: int = 16 << 20
    image: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read them all.

        Raises:
            SettingsError: the first that is missing or wrong.
        """
        durability = environ.get("LOG_DURABILITY") or "fsync"
        if durability not in get_args(Durability):
            raise SettingsError(f"LOG_DURABILITY={durability}: choose fsync, os or off")
        log_dir = environ.get("LOG_DIR")
        if not log_dir:
            raise SettingsError("LOG_DIR is not set: name the folder on a local disk that keeps the request log")
        return cls(
            log_dir=Path(log_dir),
            log_durability=cast(Durability, durability),
            tokens_file=_tokens_file(environ),
            port=_whole(environ, "PORT", cls.port, low=0, high=65_535),
            max_body_bytes=_whole(environ, "MAX_BODY_BYTES", cls.max_body_bytes, low=1, high=1 << 30),
            image=environ.get("IMAGE", cls.image),
        )


def model_dir(environ: Mapping[str, str]) -> Path:
    """The bundle's folder: ``MODEL_DIR``, else ``AZUREML_MODEL_DIR`` or the only folder in it.

    Raises:
        SettingsError: neither is set, or there is no bundle.
    """
    if named := environ.get("MODEL_DIR"):
        name, folder = "MODEL_DIR", Path(named)
    elif named := environ.get("AZUREML_MODEL_DIR"):
        name, folder = "AZUREML_MODEL_DIR", Path(named)
        if folder.is_dir() and not (folder / "manifest.json").exists():
            folders = [path for path in folder.iterdir() if path.is_dir()]
            folder = folders[0] if len(folders) == 1 else folder
    else:
        raise SettingsError(
            "MODEL_DIR is not set: name the folder of a bundle, as `make run` leaves it in build/bundle"
        )
    if not (folder / "manifest.json").is_file():
        raise SettingsError(f"{name}={named}: no bundle there (no manifest.json): make one with `make run`")
    return folder


def max_rows(environ: Mapping[str, str]) -> int:
    """The most rows that one table of a request may have.

    Raises:
        SettingsError: it is no such number.
    """
    return _whole(environ, "MAX_ROWS", 200_000, low=1, high=100_000_000)


def _tokens_file(environ: Mapping[str, str]) -> Path | None:
    auth = environ.get("AUTH") or "tokens"
    if auth == "open":
        return None
    if auth != "tokens":
        raise SettingsError(f"AUTH={auth}: choose tokens (the default), or open to let everyone ask")
    if not (named := environ.get("AUTH_TOKENS_FILE")):
        raise SettingsError(
            "AUTH_TOKENS_FILE is not set: name the file of tokens, or set AUTH=open to let everyone ask"
        )
    return Path(named)


def _whole(environ: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{name}={text}: write a whole number from {low} to {high}")
    return int(text)
