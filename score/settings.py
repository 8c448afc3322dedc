"""The service's settings, from the environment. A missing or invalid one stops the start, and the error names it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from closedloop.log.folders import unfit
from closedloop.log.spool import Durability

LOG_FIELDS = ("caller", "image", "answer", "telemetry", "errors", "maint", "machines")
# With LOG_VOLUME=ephemeral: a segment is sealed this long after its first record, and a record may wait so long for the
# shipper, so that a sink that is out of reach stops the answers before much could be lost.
EPHEMERAL_SEAL_SECONDS = 2
EPHEMERAL_MAX_AGE_SECONDS = 60
_SINK = re.compile(r"(az|abfss?|s3|gs)://[^/].*")
_ORIGIN = re.compile(r"https?://[^/\s,*]+")


class SettingsError(ValueError):
    """A setting is missing or invalid. The message begins with its name and says how to fix it."""


@dataclass(frozen=True)
class Settings:
    """The settings of one service, apart from its bundle.

    ``tokens_file`` is None with ``AUTH=open`` and ``AUTH=platform``; ``behind_platform`` is true with the latter.
    ``log_sink`` is None with ``LOG_SINK=none``, and a limit of the log is None if it is off. Fractions are from 0 to 1.
    """

    log_dir: Path
    log_durability: Durability = "fsync"
    tokens_file: Path | None = None
    port: int = 8000
    max_body_bytes: int = 16 << 20
    image: str = ""
    log_sink: str | None = None
    log_ephemeral: bool = False
    log_sample: float = 1.0
    log_fields: frozenset[str] = frozenset(LOG_FIELDS)
    log_rejects: bool = True
    log_max_bytes: int | None = None
    log_max_age_seconds: int | None = None
    max_in_flight: int = 512
    max_in_flight_bytes: int = 64 << 20
    max_connections: int = 2000
    cors_origins: tuple[str, ...] = ()
    access_log: float = 0.0
    drain_seconds: int = 1
    stop_seconds: int = 9
    behind_platform: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings of an environment.

        Raises:
            SettingsError: a setting is missing or invalid; only the first one is reported.
        """
        durability = environ.get("LOG_DURABILITY") or "fsync"
        if durability not in get_args(Durability):
            raise SettingsError(f"LOG_DURABILITY={durability}: choose fsync, os or off")
        log_dir = environ.get("LOG_DIR")
        if not log_dir:
            raise SettingsError("LOG_DIR is not set: set it to a folder on a local disk, for the request log")
        sink = log_sink(environ)
        log_compact(environ)  # the shipper's, but refused here
        ephemeral = _log_ephemeral(environ, sink)
        age = EPHEMERAL_MAX_AGE_SECONDS if ephemeral else 0
        limit = log_max_bytes(environ)
        max_body = _whole(environ, "MAX_BODY_BYTES", cls.max_body_bytes, low=1, high=1 << 30)
        if 0 < limit < 2 * max_body:
            raise SettingsError(f"LOG_MAX_BYTES={limit}: write 0, or at least twice MAX_BODY_BYTES ({max_body})")
        in_flight = max(cls.max_in_flight_bytes, max_body)
        drain = _whole(environ, "DRAIN_SECONDS", cls.drain_seconds, low=0, high=600)
        return cls(
            log_dir=Path(log_dir),
            log_durability=cast(Durability, durability),
            tokens_file=_tokens_file(environ),
            behind_platform=environ.get("AUTH") == "platform",
            port=_whole(environ, "PORT", cls.port, low=0, high=65_535),
            max_body_bytes=max_body,
            image=environ.get("IMAGE", cls.image),
            log_sink=sink,
            log_ephemeral=ephemeral,
            log_sample=_fraction(environ, "LOG_SAMPLE", cls.log_sample),
            log_fields=_log_fields(environ),
            log_rejects=_on(environ, "LOG_REJECTS"),
            log_max_bytes=limit or None,
            log_max_age_seconds=_whole(environ, "LOG_MAX_AGE_SECONDS", age, low=0, high=10**9) or None,
            max_in_flight=_whole(environ, "MAX_IN_FLIGHT", cls.max_in_flight, low=1, high=100_000),
            max_in_flight_bytes=_whole(environ, "MAX_IN_FLIGHT_BYTES", in_flight, low=max_body, high=1 << 40),
            max_connections=_whole(environ, "MAX_CONNECTIONS", cls.max_connections, low=1, high=100_000),
            cors_origins=_origins(environ),
            access_log=_fraction(environ, "ACCESS_LOG", cls.access_log),
            drain_seconds=drain,
            stop_seconds=_whole(environ, "STOP_SECONDS", drain + 8, low=drain + 1, high=3600),
        )


def log_sink(environ: Mapping[str, str]) -> str | None:
    """Where the log is shipped: ``LOG_SINK``, or else the folder ``delta`` in ``LOG_DIR``; None for ``none``.

    Raises:
        SettingsError: it is neither an address of a supported kind, nor the path of a folder that can hold the tables.
    """
    sink = environ.get("LOG_SINK") or str(Path(environ.get("LOG_DIR", "")) / "delta")
    if "://" in sink and not _SINK.fullmatch(sink):
        shown = sink.partition("://")[0]  # the rest may contain a credential
        raise SettingsError(f"LOG_SINK={shown}://…: name a local path, az://…, s3://…, gs://… or none")
    if sink == "none":
        return None
    if "://" not in sink and (why := unfit(str(Path(sink).absolute()))):
        said = f"LOG_SINK={sink!r}" if environ.get("LOG_SINK") else f"LOG_SINK is not set, so it is {sink!r}"
        raise SettingsError(f"{said}: {why}")
    return sink


def _log_ephemeral(environ: Mapping[str, str], sink: str | None) -> bool:
    """Whether ``LOG_DIR`` ends with the instance, so that records must leave it within seconds.

    Raises:
        SettingsError: it does, and the sink would end with it.
    """
    volume = environ.get("LOG_VOLUME") or "kept"
    if volume not in ("kept", "ephemeral"):
        raise SettingsError(f"LOG_VOLUME={volume}: choose kept (the default) or ephemeral")
    if volume == "ephemeral" and (sink is None or "://" not in sink):
        raise SettingsError(
            "LOG_VOLUME=ephemeral: LOG_DIR ends with the instance, so LOG_SINK must name an object store: "
            "set it to az://…, s3://… or gs://…"
        )
    return volume == "ephemeral"


def log_max_bytes(environ: Mapping[str, str]) -> int:
    """How many bytes the log may take of its disk; 0 for no limit.

    Raises:
        SettingsError: ``LOG_MAX_BYTES`` is not a whole number in range.
    """
    sink = log_sink(environ)
    shipped = 4 << 30 if sink and "://" in sink else 8 << 30
    default = shipped if sink else 0  # with LOG_SINK=none nothing is shipped, so segments may fill the disk
    return _whole(environ, "LOG_MAX_BYTES", default, low=0, high=1 << 50)


def log_compact(environ: Mapping[str, str]) -> bool:
    """Whether the shipper compacts the sink: ``LOG_COMPACT``; ``auto`` is for a sink in a folder.

    Raises:
        SettingsError: it is not ``auto``, ``on`` or ``off``.
    """
    chosen = environ.get("LOG_COMPACT") or "auto"
    if chosen not in ("auto", "on", "off"):
        raise SettingsError(f"LOG_COMPACT={chosen}: choose auto, on or off")
    sink = log_sink(environ)
    return sink is not None and (chosen == "on" or (chosen == "auto" and "://" not in sink))


def model_dir(environ: Mapping[str, str]) -> Path:
    """The bundle's folder: ``MODEL_DIR``, or else ``AZUREML_MODEL_DIR`` or the only folder in it.

    Raises:
        SettingsError: neither is set, or the folder holds no bundle.
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
            "MODEL_DIR is not set: set it to the folder of a bundle; `make run` writes one to build/bundle"
        )
    if not (folder / "manifest.json").is_file():
        raise SettingsError(f"{name}={named}: no bundle there (no manifest.json): make one with `make run`")
    return folder


def request_limits(environ: Mapping[str, str]) -> dict[str, int]:
    """The limits of one request, as the scorer takes them.

    Raises:
        SettingsError: one of them is not a whole number in range.
    """
    return {
        "max_rows": _whole(environ, "MAX_ROWS", 200_000, low=1, high=100_000_000),
        "max_machines": _whole(environ, "MAX_MACHINES", 10_000, low=1, high=100_000_000),
        "max_answer_bytes": _whole(environ, "MAX_ANSWER_BYTES", 16 << 20, low=1 << 10, high=1 << 30),
        "max_ahead_us": _whole(environ, "MAX_AHEAD_HOURS", 24, low=0, high=1_000_000) * 3_600_000_000,
    }


def _tokens_file(environ: Mapping[str, str]) -> Path | None:
    auth = environ.get("AUTH") or "tokens"
    if auth == "open":
        return None
    if auth == "platform":
        if not environ.get("AZUREML_MODEL_DIR"):
            raise SettingsError(
                "AUTH=platform: only behind an endpoint of Azure ML, which checks its key and sets AZUREML_MODEL_DIR; "
                "elsewhere nobody would check anything: choose tokens"
            )
        return None
    if auth != "tokens":
        raise SettingsError(
            f"AUTH={auth}: choose tokens (the default), platform behind Azure ML, or open to serve without tokens"
        )
    if not (named := environ.get("AUTH_TOKENS_FILE")):
        raise SettingsError(
            "AUTH_TOKENS_FILE is not set: set it to the tokens file, or set AUTH=open to serve without tokens"
        )
    return Path(named)


def _log_fields(environ: Mapping[str, str]) -> frozenset[str]:
    named = environ.get("LOG_FIELDS")
    if not named:
        return frozenset(LOG_FIELDS)
    fields = frozenset(field.strip() for field in named.split(","))
    if unknown := sorted(fields - set(LOG_FIELDS)):
        raise SettingsError(f"LOG_FIELDS={named}: {unknown[0]!r} is unknown: choose from {','.join(LOG_FIELDS)}")
    return fields


def _on(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name) or "on"
    if text not in ("on", "off"):
        raise SettingsError(f"{name}={text}: choose on or off")
    return text == "on"


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    named = environ.get("CORS_ORIGINS", "")
    origins = tuple(origin.strip() for origin in named.split(",") if origin.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"CORS_ORIGINS={named}: write each origin as https://host, without a path or *, separated by commas"
            )
    return origins


def _fraction(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        fraction = float(text)
    except ValueError:
        fraction = math.nan
    if not 0.0 <= fraction <= 1.0:
        raise SettingsError(f"{name}={text}: write a fraction from 0 to 1")
    return fraction


def _whole(environ: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{name}={text}: write a whole number from {low} to {high}")
    return int(text)
