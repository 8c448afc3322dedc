"""Roll back to the release RELEASE for the reason REASON: stop further releases, move what is served, start the checks.

After ``hold``, rollback.yml applies the release where there is a cluster. After ``move`` it signs the move, where
releases are signed.
"""

from __future__ import annotations

import sys

from pipeline import branches, chain, gaps, github, propose, release_facts


def standing(known: list[release_facts.Release]) -> release_facts.Release:
    """Return the release RELEASE.

    Raises:
        PipelineError: there is none of that name, it was withdrawn, or it was never served.
    """
    one = release_facts.named(known, github.setting("RELEASE"))
    if withdrawn := one.facts.get("withdrawn"):
        raise github.PipelineError(f"{one.tag} was withdrawn ({withdrawn['why']}); choose an older one")
    if not one.facts.get("served"):
        raise github.PipelineError(f"{one.tag} was never served; choose one that was")
    return one


def target(known: list[release_facts.Release]) -> release_facts.Release:
    """Return the release to roll back to.

    Raises:
        PipelineError: as for :func:`standing`, or it is served already.
    """
    one = standing(known)
    if one == release_facts.latest(known, "served"):
        raise github.PipelineError(f"{one.tag} is served already; choose an older release")
    return one


def reason() -> str:
    """Return the reason on one line.

    Raises:
        PipelineError: it is empty.
    """
    why = " ".join(github.setting("REASON").split())
    if not why:
        raise github.PipelineError("a rollback needs a reason: fill in REASON")
    return why[:500]


def hold() -> None:
    """Push a branch that restores the release, and open its pull request; while that is open nothing is released."""
    one, why = target(release_facts.published()), reason()
    branch = f"{release_facts.PREFIX}{one.tag}"
    title = f"Restore release {one.tag}"
    kept = ", ".join(branches.OF_THE_PIPELINE)
    tree = branches.restored(one.commit)
    body = "\n".join(
        [
            f"Release {one.tag} is served again, and `main` is not, until this is merged. The reason given:",
            "",
            f"> {literal(why)}",
            "",
            f"This restores the tree of commit {one.commit}. The pipeline's own code stays as it is on `main`: {kept}.",
            "Until this is merged or closed nothing else is released. If you merge it, `main` is again what is served.",
            "If you close it, the next commit of `main` is released as usual.",
            "",
            "Its checks are those of `main`. If `types` or `policy` is red because the release is older than what they",
            "ask for, such as the `tool` sections of pyproject.toml or a page of docs, add that from `main` here.",
            "",
            *gaps.told(tree),
            "Its checks start once the release is served again: before that, this would be compared with the very",
            "release that the rollback withdraws. If a GitHub App opened this, its checks started too early: run them",
            "again then.",
        ]
    )
    found = propose.Proposal.now(branch, "")
    if found.by_people:
        github.tell(f"{found.waits}. It holds releases as it is.")
    else:
        message = f"{title}\n\n{why}\n\nThe tree of {one.commit}, except {kept}."
        branches.renew(tree, branch, message, found.head)
    if found.number is None:
        branches.propose(branch, title, body)
    github.tell(f"Nothing else is released until a person merges or closes the pull request of `{branch}`.")


def literal(text: str) -> str:
    """Return a person's words as a code span, in which Markdown has no effect."""
    return "`" + text.replace("`", "'") + "`"


def move() -> None:
    """Mark the release as served, and those served after it as withdrawn; write the move that is to be signed.

    A withdrawn release never becomes the champion again. What is served moves last, so that a run that died can be run
    again.

    Raises:
        PipelineError: as for :func:`standing`.
    """
    known = release_facts.published()
    one, why = standing(known), reason()
    moment = release_facts.now()
    later = [
        other
        for other in known
        if (other.facts.get("served") or "") > one.facts["served"] and not other.facts.get("withdrawn")
    ]
    if chain.signs():
        moves = [chain.move(other.tag, other.facts, "withdrawn", moment, why) for other in later]
        moves.append(chain.move(one.tag, one.facts, "served", moment))
        chain.write(one.facts["image"], moment, moves, {each.tag: each.facts for each in known})
    for other in sorted(later, key=lambda other: str(other.facts["served"])):
        facts = other.facts | {"withdrawn": {"at": moment, "why": why}}
        release_facts.edit(other.tag, release_facts.replaced(other.text, facts))
    release_facts.edit(one.tag, release_facts.replaced(one.text, one.facts | {"served": moment}), "--latest")
    github.tell(f"{one.tag} is served; withdrawn: {', '.join(other.tag for other in later) or 'none'}.")


def check() -> None:
    """Start the checks of the pull request: only now are they compared with the champion of after the rollback."""
    branches.check(f"{release_facts.PREFIX}{github.setting('RELEASE')}")


if __name__ == "__main__":
    sys.exit(github.main({"hold": hold, "move": move, "check": check}))
