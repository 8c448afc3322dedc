"""``decision.json`` and ``accepted.json`` with today's keys, whatever commit wrote them.

A decision may be years old: of a recorded run, a release, or an acceptance on a branch. Its reader must not take an
unknown key for "no".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"reference": "champion", "becomes_reference": "becomes_champion"}  # the old key: the new one


def with_todays_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with each old key replaced by the new one.

    Where a file has both, the new key counts: an old decision has the champion's commit as ``reference`` and its commit
    and digest as ``champion``.
    """
    old = {RENAMED[key]: value for key, value in content.items() if key in RENAMED}
    return old | {key: value for key, value in content.items() if key not in RENAMED}


def champion_commit(decision: Mapping[str, Any]) -> str | None:
    """Return the commit of the champion that a decision was made against, or None where there was none."""
    champion = with_todays_keys(decision)["champion"]
    return None if champion is None else champion["commit"]
