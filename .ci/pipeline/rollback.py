"""Go back to a release (RELEASE), for a reason (REASON): hold everything else back, and move what is served.

Between the two, rollback.yml applies the release where there is a cluster.
"""

from __future__ import annotations

import sys

from pipeline import branches, github, release_facts


def standing(known: list[release_facts.Release]) -> release_facts.Release:
    """The release RELEASE.

    Raises:
        LineError: there is none of that name, it was withdrawn, or it never was served.
    """
    one = release_facts.named(known, github.setting("RELEASE"))
    if withdrawn := one.facts.get("withdrawn"):
        raise github.LineError(f"{one.tag} was withdrawn ({withdrawn['why']}); choose an older one")
    if not one.facts.get("served"):
        raise github.LineError(f"{one.tag} never was served; choose one that was")
    return one


def target(known: list[release_facts.Release]) -> release_facts.Release:
    """The release to go back to.

    Raises:
        LineError: as of :func:`standing`, or it is what is served.
    """
    one = standing(known)
    if one == release_facts.latest(known, "served"):
        raise github.LineError(f"{one.tag} is what is served; there is nothing to go back from")
    return one


def reason() -> str:
    """Why, on one line. Raises LineError where it is empty."""
    why = " ".join(github.setting("REASON").split())
    if not why:
        raise github.LineError("a rollback needs a reason")
    return why[:500]


def hold() -> None:
    """Push a branch that restores the release's tree, and open its pull request: while it waits, nothing else ships."""
    one, why = target(release_facts.published()), reason()
    branch = f"{release_facts.PREFIX}{one.tag}"
    title = f"Restore release {one.tag}"
    branches.push(
        branches.restored(one.commit), branch, f"{title}\n\n{why}\n\nThe tree of {one.commit}, but for .github/."
    )
    body = "\n".join(
        [
            f"Release {one.tag} is served again, and `main` is not, until this is merged. The reason given:",
            "",
            f"> {literal(why)}",
            "",
            f"This restores the tree of commit {one.commit}, but for `.github/`, which a run may not write.",
            "Until this is merged or closed nothing else ships. Merge it to make `main` what is served; close it, and",
            "the next commit of `main` ships as ever.",
            "",
            "Its checks begin when the release is served again: before, it would be held against the very release that",
            "it withdraws. A check that began earlier, as a GitHub App's do, is to be run again then.",
        ]
    )
    branches.propose(branch, title, body)
    github.tell(f"Held: nothing else ships until a person merges or closes the pull request of `{branch}`.")


def literal(text: str) -> str:
    """A person's words as Markdown shows them, unread."""
    return "`" + text.replace("`", "'") + "`"


def move() -> None:
    """The release is served from now on; those that came after it are withdrawn, and never the reference again.

    What is served moves last, so that a run that died can be run again. Then the pull request gets its checks.

    Raises:
        LineError: as of :func:`standing`.
    """
    known = release_facts.published()
    one, why = standing(known), reason()
    moment = release_facts.now()
    later = [
        other
        for other in known
        if (other.facts.get("served") or "") > one.facts["served"] and not other.facts.get("withdrawn")
    ]
    for other in sorted(later, key=lambda other: str(other.facts["served"])):
        facts = other.facts | {"withdrawn": {"at": moment, "why": why}}
        release_facts.edit(other.tag, release_facts.replaced(other.text, facts))
    release_facts.edit(one.tag, release_facts.replaced(one.text, one.facts | {"served": moment}), "--latest")
    branches.check(f"{release_facts.PREFIX}{one.tag}")
    github.tell(f"{one.tag} is what is served; withdrawn: {', '.join(other.tag for other in later) or 'none'}.")


if __name__ == "__main__":
    sys.exit(github.main({"hold": hold, "move": move}))
