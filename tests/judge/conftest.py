"""The small fleet of tests/support, as fixtures."""

from judged_fleet import build, fleet

__all__ = ["build", "fleet"]
