"""The limits of a service, and what is in flight of each."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import Any

from score.settings import Settings

_RESERVED = 64  # connections beyond MAX_CONNECTIONS, for the probes
_OTHER_DESCRIPTORS = 48  # listener, event loop, log, shipper, libraries, and a reserve


@dataclass
class Load:
    """The limits and the live figures of one service; changed by the event loop's thread alone.

    ``requests`` counts those of /score and /feedback that are not answered yet, ``body_bytes`` what was read of their
    bodies, ``untaken_bytes`` what clients have yet to take of long answers. ``reserved`` are the connections beyond
    ``max_connections``, oldest first: only probes are answered there. ``upgrades`` counts requests to speak another
    protocol. ``shed`` counts refused requests and ``closed`` closed connections, by reason. ``stopping`` is set by the
    first signal.
    """

    max_requests: int
    max_body_bytes: int
    max_bytes: int
    max_connections: int
    max_reserved: int
    requests: int = 0
    body_bytes: int = 0
    untaken_bytes: int = 0
    connections: int = 0
    reserved: dict[Any, None] = field(default_factory=dict)
    upgrades: int = 0
    stopping: bool = False
    shed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("requests", "bytes", "answers"), 0))
    closed: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("slow", "deaf", "malformed", "long", "many"), 0)
    )

    @classmethod
    def of(cls, settings: Settings) -> Load:
        """The limits in the settings; no more connections than the process can have file descriptors."""
        available = max(descriptors() - _OTHER_DESCRIPTORS, 5)
        reserved = min(_RESERVED, available // 5)
        return cls(
            max_requests=settings.max_in_flight,
            max_body_bytes=settings.max_body_bytes,
            max_bytes=settings.max_in_flight_bytes,
            max_connections=min(settings.max_connections, available - reserved),
            max_reserved=reserved,
        )


def descriptors() -> int:
    """How many file descriptors this process may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def raise_descriptors(settings: Settings) -> None:
    """Raise the process's limit of file descriptors to what its connections need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _RESERVED + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        fits = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        while fits > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (fits, hard))
                return
            except (ValueError, OSError):  # macOS names no limit, and has one that is lower
                fits //= 2
