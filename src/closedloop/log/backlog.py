"""How much the log takes of its disk, how long it has waited to be shipped, and when that is too much."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from closedloop.log import budget
from closedloop.log.frame import SEALED
from closedloop.log.quarantine import size_bytes

LOOK_SECONDS = 0.5  # between looks at what a shipper has taken away


class Backlog:
    """The sealed segments of a folder, as last looked at. Ages are by the monotonic clock.

    Args:
        folder: the spool's.
        limit_bytes: more than this, with what is not sealed, what is in quarantine and a sink on the same disk, is too
            much; None for no limit.
        limit_seconds: a record that has waited longer is waiting too long; None for no limit.
    """

    def __init__(self, folder: Path, limit_bytes: int | None, limit_seconds: float | None) -> None:
        self._folder, self._limit_bytes, self._limit_seconds = folder, limit_bytes, limit_seconds
        self._since: dict[
            Path, float
        ] = {}  # when each was begun; of one from before the start, when it was last written
        self._seen = float("-inf")
        self.segments = 0
        self.bytes = 0
        self.kept_bytes = 0  # in quarantine
        self.sink_bytes = 0  # of a sink on the same disk, as the shipper says
        self.look()

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._limit_bytes is not None or self._limit_seconds is not None

    def look(self, *, begun: float | None = None) -> None:
        """See what is there; ``begun`` is when a segment that was sealed just now got its first record."""
        now, wall = time.monotonic(), time.time()
        since, size = {}, 0
        for path in self._folder.glob("*" + SEALED):
            with contextlib.suppress(FileNotFoundError):  # it has just been shipped
                found = path.stat()
                size += found.st_size
                fresh = begun if begun is not None else now - max(0.0, wall - found.st_mtime)
                since[path] = self._since.get(path, fresh)
        self.kept_bytes = size_bytes(self._folder)
        self.sink_bytes = budget.reported(self._folder)
        self._since, self.bytes, self.segments, self._seen = since, size, len(since), now

    @property
    def due(self) -> bool:
        """Whether to look again."""
        return time.monotonic() >= self._seen + LOOK_SECONDS

    def oldest_seconds(self, first: float | None = None) -> float | None:
        """How long the oldest record has waited; ``first`` is when the first one that is not sealed came."""
        begun = [*self._since.values(), *([] if first is None else [first])]
        return time.monotonic() - min(begun) if begun else None

    def refusal(self, unsealed: int, first: float | None) -> str | None:
        """Why no record of ``unsealed`` bytes with those before it may be added, or None if it may."""
        held = self.bytes + unsealed
        if self._limit_bytes is not None and held + self.kept_bytes + self.sink_bytes > self._limit_bytes:
            kept = f", {self.kept_bytes} are in quarantine" if self.kept_bytes else ""
            shipped = f", {self.sink_bytes} are in LOG_SINK on the same disk" if self.sink_bytes else ""
            return f"{held} bytes of the log wait to be shipped{kept}{shipped}, the limit is {self._limit_bytes}"
        waited = self.oldest_seconds(first)
        if self._limit_seconds is not None and waited is not None and waited > self._limit_seconds:
            return f"the log has not been shipped for {waited:.0f} s, the limit is {self._limit_seconds:g}"
        return None
