"""The limits of a service, and what is in flight of each."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

from score.settings import Settings

_OTHER_DESCRIPTORS = 48  # listener, event loop, log, shipper, libraries, and a reserve


@dataclass
class Load:
    """The limits and the live figures of one service; changed by the event loop's thread alone.

    ``requests`` counts those of /score and /feedback that are not answered yet, ``body_bytes`` what was read of their
    bodies. ``shed`` counts refused requests and ``closed`` closed connections, by reason. ``stopping`` is set by the
    first signal.
    """

    max_requests: int
    max_body_bytes: int
    max_bytes: int
    max_connections: int
    requests: int = 0
    body_bytes: int = 0
    connections: int = 0
    stopping: bool = False
    shed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("requests", "bytes"), 0))
    closed: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("slow", "deaf", "malformed", "long", "many"), 0)
    )

    @classmethod
    def of(cls, settings: Settings) -> Load:
        """The limits in the settings; no more connections than the process can have file descriptors."""
        return cls(
            max_requests=settings.max_in_flight,
            max_body_bytes=settings.max_body_bytes,
            max_bytes=settings.max_in_flight_bytes,
            max_connections=min(settings.max_connections, max(descriptors() - _OTHER_DESCRIPTORS, 4)),
        )


def descriptors() -> int:
    """How many file descriptors this process may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def raise_descriptors(settings: Settings) -> None:
    """Raise the process's limit of file descriptors to what its connections need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        fits = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fits, soft), hard))
