"""What is served and which model is the champion: only the releases and the chain of their moves say it.

Each release's text contains a block of JSON, which ``facts`` reads and ``block`` writes. It says what the release is
(commit, image, digests, verdict), and when it was ``served``, became the ``champion`` and was ``withdrawn``; each of
the three is null until then. The newest time wins, so a run that dies after a move has lost nothing.

Everyone who may write here can edit that text. Where GitHub keeps attestations, the block is therefore a copy for
people and for older code: moves are read from the signed chain (chain.py), and what a release is from its signed file
facts.json (sealed.py).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pipeline import chain, github

# The value of `closedloop` in the block. Releases of format 1 have other names for two keys, and another signer; those
# from before format 3 have no signed facts.
FORMAT = 3
SEALED = 3
KEYS_OF_FORMAT_1 = {"reference": "champion", "becomes_reference": "becomes_champion"}
BLOCK = re.compile(r"^```json\n(\{\n \"closedloop\": .*?\n\})\n```$", re.MULTILINE | re.DOTALL)
PREFIX = "rollback/"  # of the branch that a rollback leaves for a person to merge


@dataclass(frozen=True)
class Release:
    """One published release that the pipeline made."""

    tag: str
    text: str
    facts: dict[str, Any] = field(hash=False)

    @property
    def commit(self) -> str:
        """The commit that it was made from."""
        return str(self.facts["commit"])

    @property
    def is_sealed(self) -> bool:
        """Whether it has a file facts.json; the signed chain knows that, whatever the text says."""
        return int(self.facts.get("closedloop", 1)) >= SEALED or bool(self.facts.get("facts"))


def now() -> str:
    """Return the present time, written so that texts sort as times do."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def today(known: dict[str, Any]) -> dict[str, Any]:
    """Return facts or a decision with today's keys in place of those of format 1."""
    return {KEYS_OF_FORMAT_1.get(key, key): value for key, value in known.items()}


def facts(text: str) -> dict[str, Any] | None:
    """Return the facts in a release's text with today's keys, or None where it has none."""
    found = BLOCK.search(text.replace("\r\n", "\n"))
    if found is None:
        return None
    known = json.loads(found[1])
    return today(known) if isinstance(known.get("commit"), str) else None


def block(known: dict[str, Any]) -> str:
    """Return facts as the block in a release's text; those of format 1 keep its keys, which old commits read."""
    known = {"closedloop": FORMAT} | known
    if known["closedloop"] == 1:
        old = {new: key for key, new in KEYS_OF_FORMAT_1.items()}
        known = {old.get(key, key): value for key, value in known.items()}
    return f"```json\n{json.dumps(known, indent=1)}\n```"


def replaced(text: str, known: dict[str, Any]) -> str:
    """Return a release's text with other facts."""
    return BLOCK.sub(lambda _: block(known), text.replace("\r\n", "\n"), count=1)


def published() -> list[Release]:
    """Return the pipeline's published releases in the order of GitHub, the newest first.

    What was moved is what the signed chain says, if there is one: also of a release that is no longer to be found.
    """
    found: list[Release] = []
    assets: dict[str, str] = {}
    for one in github.objects("releases"):
        known = facts(one.get("body") or "")
        if known is not None and not one["draft"]:
            found.append(Release(one["tag_name"], one["body"], known))
            named_facts = [each["digest"] for each in one.get("assets", []) if each["name"] == "facts.json"]
            assets[one["tag_name"]] = named_facts[0] if named_facts else ""
    moved = chain.held(chain.records()) if chain.signs() else {}
    if not moved:
        return unmoved(found, assets) if chain.signs() else found
    none: dict[str, Any] = dict.fromkeys(chain.TITLES)
    there = {one.tag for one in found}
    lost = [Release(tag, "", {"closedloop": FORMAT} | known) for tag, known in moved.items() if tag not in there]
    return [Release(one.tag, one.text, one.facts | none | moved.get(one.tag, {})) for one in found] + lost


def unmoved(found: list[Release], assets: dict[str, str]) -> list[Release]:
    """Return the releases where no move was ever signed; ``assets`` has the digest of each one's facts.json.

    What the texts say counts then, as in a repository that has become public. A release whose facts were signed is
    another matter: the first one may have died before its move was signed, and so is not served yet.

    Raises:
        PipelineError: the facts of several were signed, so their moves were signed too, and are gone.
    """
    signed = [one for one in found if chain.is_attested(assets.get(one.tag, ""))] if not chain.begins_anew() else []
    if len(signed) > 1:
        raise github.PipelineError(
            f"what is served cannot be told: no move is signed, and {len(signed)} releases are; {chain.REMEDY}"
        )
    none: dict[str, Any] = dict.fromkeys(chain.TITLES)
    return [Release(one.tag, one.text, one.facts | none) if one in signed else one for one in found]


def unsigned(releases: Iterable[Release]) -> list[tuple[str, str, str]]:
    """Return what the releases' texts say and no signed move does: tag, title and time, the oldest first.

    Nothing shows from within the chain that its newest record is gone, and who may delete one can edit a text too; but
    whoever deletes it alone is noticed, and so is a job that failed to sign. A release with signed facts that is
    published was served, whatever its text says.
    """
    found = []
    for one in releases if chain.signs() else ():
        told = facts(one.text) or {}
        for title in chain.TITLES:
            said, signed = (at(known.get(title)) for known in (told, one.facts))
            if said > signed:
                found.append((one.tag, title, said))
        if one.text and one.is_sealed and not one.facts.get("served") and not at(told.get("served")):
            found.append((one.tag, "served", ""))
    return sorted(found, key=lambda each: each[2])


def at(value: Any) -> str:
    """Return the time of a title, which ``withdrawn`` has inside; an empty text where it has none."""
    return str((value.get("at", "") if isinstance(value, dict) else value) or "")


def latest(releases: Iterable[Release], title: str) -> Release | None:
    """Return the release that is ``served`` or the ``champion``: the last to become it that is not withdrawn."""
    held = [one for one in releases if one.facts.get(title) and not one.facts.get("withdrawn")]
    return max(held, key=lambda one: one.facts[title], default=None)


def named(releases: Iterable[Release], tag: str) -> Release:
    """Return the release with that tag.

    Raises:
        PipelineError: there is none.
    """
    known = list(releases)
    for one in known:
        if one.tag == tag:
            return one
    raise github.PipelineError(
        f"{tag!r} is not a published release of this pipeline; there are: {', '.join(o.tag for o in known) or 'none'}"
    )


def is_ancestor(older: str, newer: str) -> bool:
    """Return whether one commit is an ancestor of another; the whole history must be here (fetch-depth: 0).

    A commit that a force push has removed is no ancestor, and has none.

    Raises:
        PipelineError: git does not know one of them, and the history is not here.
    """
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", older, newer], capture_output=True, text=True, check=False
    )
    words = ["git", "rev-parse", "--is-shallow-repository"]
    if done.returncode > 1 and subprocess.run(words, capture_output=True, text=True, check=False).stdout != "false\n":
        raise github.PipelineError(f"git cannot compare {older[:12]} and {newer[:12]}: {done.stderr.strip()}")
    return done.returncode == 0


def overtaken(releases: Iterable[Release], commit: str, behind: Callable[[str, str], bool]) -> Release | None:
    """Return a release of this commit or of a later one, after which this commit needs none; else None."""
    return next((one for one in releases if one.commit == commit or behind(commit, one.commit)), None)


def holder() -> str | None:
    """Return in words which rollback still waits for a person and so stops every release; else None."""
    owner = github.repository().partition("/")[0]
    for ref in github.objects(f"git/matching-refs/heads/{PREFIX}"):
        branch = ref["ref"].removeprefix("refs/heads/")
        if not is_release(branch.removeprefix(PREFIX)):
            continue  # a person's own branch
        pulls = github.objects(f"pulls?state=all&head={quote(f'{owner}:{branch}', safe=':/')}")
        for pull in pulls:
            if pull["state"] == "open":
                return f"pull request #{pull['number']} restores what is served: merge it, or close it"
        # One that was closed or merged with another commit is of an earlier rollback to the same release.
        if not any(pull["head"]["sha"] == ref["object"]["sha"] for pull in pulls):
            return f"the branch {branch} has no pull request: open one, or delete the branch"
    return None


def is_release(tag: str) -> bool:
    """Return whether GitHub has a published release of that tag."""
    try:
        github.gh("api", f"repos/{github.repository()}/releases/tags/{quote(tag, safe='')}")
    except github.PipelineError as error:
        if "HTTP 404" in str(error):
            return False
        raise
    return True


def edit(tag: str, text: str, *words: str) -> None:
    """Write a release's text; ``words`` are further options of ``gh release edit``. A lost release has no text."""
    if not text:
        return
    github.gh("release", "edit", tag, "--repo", github.repository(), "--notes-file", "-", *words, stdin=text)
