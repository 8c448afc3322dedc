"""Go back to a release (RELEASE), for a reason (REASON): hold everything else back, and move what is served.

Between the two, rollback.yml applies the release where there is a cluster.
"""

from __future__ import annotations

import sys

import hub
import pulls
import releases


def standing(known: list[releases.Release]) -> releases.Release:
    """The release RELEASE.

    Raises:
        LineError: there is none of that name, it was withdrawn, or it never was served.
    """
    one = releases.named(known, hub.setting("RELEASE"))
    if withdrawn := one.facts.get("withdrawn"):
        raise hub.LineError(f"{one.tag} was withdrawn ({withdrawn['why']}); choose an older one")
    if not one.facts.get("served"):
        raise hub.LineError(f"{one.tag} never was served; choose one that was")
    return one


def target(known: list[releases.Release]) -> releases.Release:
    """The release to go back to.

    Raises:
        LineError: as of :func:`standing`, or it is what is served.
    """
    one = standing(known)
    if one == releases.latest(known, "served"):
        raise hub.LineError(f"{one.tag} is what is served; there is nothing to go back from")
    return one


def reason() -> str:
    """Why, on one line. Raises LineError where it is empty."""
    why = " ".join(hub.setting("REASON").split())
    if not why:
        raise hub.LineError("a rollback needs a reason")
    return why[:500]


def hold() -> None:
    """Push a branch that restores the release's tree, and open its pull request: while it waits, nothing else ships."""
    one, why = target(releases.published()), reason()
    branch = f"{releases.PREFIX}{one.tag}"
    title = f"Restore release {one.tag}"
    pulls.push(pulls.restored(one.commit), branch, f"{title}\n\n{why}\n\nThe tree of {one.commit}, but for .github/.")
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
    pulls.propose(branch, title, body)
    hub.tell(f"Held: nothing else ships until a person merges or closes the pull request of `{branch}`.")


def literal(text: str) -> str:
    """A person's words as Markdown shows them, unread."""
    return "`" + text.replace("`", "'") + "`"


def move() -> None:
    """The release is served from now on; those that came after it are withdrawn, and never the reference again.

    What is served moves last, so that a run that died can be run again. Then the pull request gets its checks.

    Raises:
        LineError: as of :func:`standing`.
    """
    known = releases.published()
    one, why = standing(known), reason()
    moment = releases.now()
    later = [
        other
        for other in known
        if (other.facts.get("served") or "") > one.facts["served"] and not other.facts.get("withdrawn")
    ]
    for other in sorted(later, key=lambda other: str(other.facts["served"])):
        facts = other.facts | {"withdrawn": {"at": moment, "why": why}}
        releases.edit(other.tag, releases.replaced(other.text, facts))
    releases.edit(one.tag, releases.replaced(one.text, one.facts | {"served": moment}), "--latest")
    pulls.check(f"{releases.PREFIX}{one.tag}")
    hub.tell(f"{one.tag} is what is served; withdrawn: {', '.join(other.tag for other in later) or 'none'}.")


if __name__ == "__main__":
    sys.exit(hub.main({"hold": hold, "move": move}))
