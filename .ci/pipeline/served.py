"""Fetch what the served releases answer with and what they promised, into build/served/<tag>.

Each folder has the release's bundle, with which its logged answers are given again, and metrics.json and decision.json,
with which its answers are compared. The newest releases that were ever served are fetched, those that were withdrawn
too, since the log has their answers. A release that cannot be fetched or verified is left out, and the summary page
says why. One from before releases had the two files has its bundle alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pipeline import champion, github, release_facts

SERVED = Path("build/served")
MOST = 5  # releases; answers of older ones are counted, and are not given again
PROMISE = ("metrics.json", "decision.json")


def newest(releases: list[release_facts.Release]) -> list[release_facts.Release]:
    """Return the releases that were served, the one that became so last first."""
    found = [one for one in releases if one.facts.get("served")]
    return sorted(found, key=lambda one: str(one.facts["served"]), reverse=True)[:MOST]


def take(one: release_facts.Release) -> str:
    """Fetch one release; return in words what became of it."""
    folder = SERVED / one.tag
    folder.mkdir(parents=True)
    try:
        one = champion.known(one, folder)
        archive = champion.download(one.tag, folder)
        verified = champion.verify(archive, one)
        champion.unpack(archive, one)
        archive.unlink()
        there = [name for name in PROMISE if name in (one.facts.get("files") or {})]
        for name in there:
            champion.verify(champion.download(one.tag, folder, name), one)
    except github.PipelineError as error:
        shutil.rmtree(folder)
        return f"{one.tag} is left out: {error}"
    return f"{one.tag}, verified {verified}{'' if there else ', without what it promised'}"


def main() -> None:
    """Fetch them, and say on the summary page which there are."""
    shutil.rmtree(SERVED, ignore_errors=True)
    if not os.environ.get("GITHUB_REPOSITORY") or shutil.which("gh") is None:
        print("GitHub was not asked (that needs gh and GITHUB_REPOSITORY)")
        return
    said = [take(one) for one in newest(release_facts.published())]
    github.tell("\n".join(["Served releases:", "", *(f"- {line}" for line in said or ["none yet"])]))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
