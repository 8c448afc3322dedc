"""What is served, and what is the reference: the releases say it, and nothing else does.

Each release has a block of JSON in its text, which ``facts`` reads and ``block`` writes. It holds what the release is
(commit, image, digests, verdict) and three moments, each null until it came: ``served``, ``reference``, ``withdrawn``.
The newest moment wins, so that moving what is served is one edit of one release, and nothing is lost if a run dies
after it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline import github

BLOCK = re.compile(r"^```json\n(\{\n \"closedloop\": .*?\n\})\n```$", re.MULTILINE | re.DOTALL)
PREFIX = "rollback/"  # of the branch that a rollback leaves for a person to merge


@dataclass(frozen=True)
class Release:
    """One published release that the line made."""

    tag: str
    text: str
    facts: dict[str, Any] = field(hash=False)

    @property
    def commit(self) -> str:
        """The commit that it was made from."""
        return str(self.facts["commit"])


def now() -> str:
    """The moment, so written that texts sort as times do."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def facts(text: str) -> dict[str, Any] | None:
    """The facts in a release's text, or None where it is not one of ours."""
    found = BLOCK.search(text.replace("\r\n", "\n"))
    if found is None:
        return None
    known = json.loads(found[1])
    return known if isinstance(known.get("commit"), str) else None


def block(known: dict[str, Any]) -> str:
    """The facts as they stand in a release's text."""
    return f"```json\n{json.dumps({'closedloop': 1} | known, indent=1)}\n```"


def replaced(text: str, known: dict[str, Any]) -> str:
    """A release's text with other facts."""
    return BLOCK.sub(lambda _: block(known), text.replace("\r\n", "\n"), count=1)


def published() -> list[Release]:
    """The releases that are published, the newest first as GitHub has them."""
    found = []
    for one in github.objects("releases?per_page=100"):
        known = facts(one.get("body") or "")
        if known is not None and not one["draft"]:
            found.append(Release(one["tag_name"], one["body"], known))
    return found


def latest(releases: Iterable[Release], moment: str) -> Release | None:
    """The release that holds a title (``served``, ``reference``): the last to get it that is not withdrawn."""
    held = [one for one in releases if one.facts.get(moment) and not one.facts.get("withdrawn")]
    return max(held, key=lambda one: one.facts[moment], default=None)


def named(releases: Iterable[Release], tag: str) -> Release:
    """The release of that tag.

    Raises:
        LineError: there is none.
    """
    known = list(releases)
    for one in known:
        if one.tag == tag:
            return one
    raise github.LineError(
        f"{tag!r} is no published release of this line; there are: {', '.join(o.tag for o in known) or 'none'}"
    )


def is_ancestor(older: str, newer: str) -> bool:
    """Whether a commit is behind another one; the history must be here (fetch-depth: 0).

    Raises:
        LineError: git does not know one of them.
    """
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", older, newer], capture_output=True, text=True, check=False
    )
    if done.returncode > 1:
        raise github.LineError(f"git cannot compare {older[:12]} and {newer[:12]}: {done.stderr.strip()}")
    return done.returncode == 0


def overtaken(releases: Iterable[Release], commit: str, behind: Callable[[str, str], bool]) -> Release | None:
    """A release of this commit or of one that came after it: then there is nothing left to ship."""
    return next((one for one in releases if one.commit == commit or behind(commit, one.commit)), None)


def holder() -> str | None:
    """What holds everything back: a rollback whose pull request is neither merged nor closed, in words; else None."""
    for ref in github.objects(f"git/matching-refs/heads/{PREFIX}"):
        branch = ref["ref"].removeprefix("refs/heads/")
        owner = github.repository().partition("/")[0]
        pulls = github.objects(f"pulls?state=all&head={owner}:{branch}&per_page=100")
        if not pulls:
            return f"the branch {branch} waits for its pull request: open one, or delete the branch"
        for pull in pulls:
            if pull["state"] == "open":
                return f"pull request #{pull['number']} restores what is served: merge it, or close it"
    return None


def edit(tag: str, text: str, *words: str) -> None:
    """Write a release's text."""
    github.gh("release", "edit", tag, "--repo", github.repository(), "--notes-file", "-", *words, stdin=text)
