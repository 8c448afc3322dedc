"""How much is going on: what the limits are held against, and whether the service is about to stop."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

from score.settings import Settings

_OTHER_DESCRIPTORS = 48  # listener, loop, log, shipper, libraries, and some to spare


@dataclass
class Load:
    """Live figures of one service, changed in the event loop's thread alone.

    ``requests`` are those of /score and /feedback between head and answer, ``body_bytes`` what was read of their
    bodies. ``shed`` and ``closed`` count what was turned away, by reason.
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
        """The limits of the settings, and no more connections than the process may have descriptors for."""
        return cls(
            max_requests=settings.max_in_flight,
            max_body_bytes=settings.max_body_bytes,
            max_bytes=settings.max_in_flight_bytes,
            max_connections=min(settings.max_connections, max(descriptors() - _OTHER_DESCRIPTORS, 4)),
        )


def descriptors() -> int:
    """How many descriptors this process may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def raise_descriptors(settings: Settings) -> None:
    """Let the process have as many descriptors as its connections need, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        fits = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fits, soft), hard))
