"""Machines that are kept untouched: their alarms are logged and not shown, so that nobody prevents their failures.

Whoever acts on alarms takes away the very failures that the next model would learn from and be judged by. A small share
of machines that nobody acts on keeps that knowledge in the log, at the price of their failures.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from closedloop.data.machines import Id

KEY = "untouched_share"  # in a bundle's provenance
WARNING = "kept untouched: alarms of this machine are not shown"


@lru_cache(maxsize=1 << 16)
def is_untouched(machine: Id, share: float) -> bool:
    """Whether a machine is kept untouched: decided by its id alone, and not by the hash that holds machines out."""
    return int.from_bytes(hashlib.sha256(f"untouched:{machine}".encode()).digest()[:8]) < share * 2**64


def share_of(provenance: dict[str, object]) -> float:
    """The share that a bundle's provenance names, 0 where it names none.

    Raises:
        ValueError: it is no number from 0 to 1.
    """
    share = provenance.get(KEY, 0.0)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise ValueError(f"provenance.{KEY} is {share!r:.40}, and no number from 0 to 1; train again")
    return float(share)
