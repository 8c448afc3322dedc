"""Which folders can hold Delta tables: delta-rs makes an address of the path, and loses some of what stands in it."""

from __future__ import annotations

import re

# It reads an escape as the letter that it means; of a table behind # or ? it finds no commits; [ ] | ^ make it abort.
_LOST = re.compile(r"%[0-9A-Fa-f]{2}|[#?\[\]|^\\\x00-\x1f\x7f]")


def unfit(path: str) -> str | None:
    """Return what in a folder's absolute path keeps it from holding Delta tables, and the fix; None if nothing does."""
    if (found := _LOST.search(path)) is None:
        return None
    return f"Delta tables cannot lie in a folder with {found[0]!r} in its path; name one without it"
