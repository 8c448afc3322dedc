"""Open or update the one pull request of a retraining. It changes the data pin alone, and only for a better model.

Where a log joins the pin for the first time, nothing can be compared: then a person decides on the proposal.
The pull request's branch is always BRANCH. Where it has a person's commit, such as an acceptance, it stays as it is.
What a person closed without merging is not proposed again while data and model are the same: a comment in the pull
request's text, which people do not see, names both.
Each step can be run again after a run that died: what is done already is found, and not done twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import branches, comment, github, pin_access

EVIDENCE = Path("build/evidence")
PARTS = (EVIDENCE / "summary.md", EVIDENCE / "replay.md")  # for a person; the alarms gained and lost where replayed
PIN = pin_access.PIN
BRANCH = "retrain"
TITLE = "Retrain on newer data"
PROPOSED = re.compile(r"<!-- proposed (\{.*\}) -->")
NO_DATABRICKS = "skipped: Databricks is not configured (set the variable DATABRICKS_HOST: .github/README.md says how)"
NO_LOG = "skipped: no log is configured (set the variable LOG_SINK: .github/README.md says how)"


@dataclass(frozen=True)
class Proposal:
    """What GitHub knows of the proposal: the branch's newest commit, and its open pull request.

    ``head`` is empty where there is no branch, ``number`` is None where no pull request is open. ``by_people`` are the
    commits on the branch that a person made and that would be lost if it was overwritten. ``declined`` is the number of
    the pull request that was closed without a merge though it proposed what the evidence has, None where there is none.
    """

    head: str
    number: int | None
    by_people: list[str]
    declined: int | None
    branch: str = BRANCH

    @classmethod
    def now(cls, branch: str = BRANCH, paths: str = PIN) -> Proposal:
        """Return the proposal of a branch as it is; ``paths`` are those that it may change, a line for each."""
        head = branches.head(branch)
        owner = github.repository().partition("/")[0]
        pulls = github.objects(f"pulls?state=all&base=main&head={owner}:{branch}")
        number = next((one["number"] for one in pulls if one["state"] == "open"), None)
        # GitHub keeps the commits of a pull request that was merged or closed, so they are not lost
        kept = number is None and any(one["head"]["sha"] == head for one in pulls)
        closed = [one for one in pulls if one["state"] == "closed" and not one.get("merged_at")]
        same = (one["number"] for one in closed if branch == BRANCH and recorded(one["body"] or "") == identity())
        by_people = [] if kept or not head else branches.by_people(branch, paths)
        return cls(head, number, by_people, next(same, None), branch)

    @property
    def waits(self) -> str:
        """Why nothing is proposed now, or an empty text where the branch may be overwritten."""
        if self.declined:
            return (
                f"#{self.declined} proposed the same data and model and was closed without a merge; reopen it, or wait "
                "for newer data"
            )
        if not self.by_people:
            return ""
        where = f"#{self.number}" if self.number else f"the branch `{self.branch}`"
        do = "merge or close it" if self.number else "delete the branch"
        return f"{where} has commits of a person ({', '.join(self.by_people)}), so it stays as it is; first {do}"


def objection() -> str:
    """Return why the evidence is not worth a pull request, or an empty text where it is."""
    if not EVIDENCE.exists():
        return "the log has nothing new"
    verdict = read("decision.json")["verdict"]
    if (EVIDENCE / "data.lock.json").read_bytes() == Path(PIN).read_bytes():
        return f"the data pin is unchanged, so a pull request would change nothing (verdict: {verdict})"
    if verdict == "incomparable" and any(log["before"] is None for log in read("retrain.json")["logs"]):
        return ""
    return "" if verdict == "better" else f"the verdict is {verdict}, and only a better model is proposed"


def read(name: str) -> Any:
    """Return the content of a JSON file of the evidence."""
    return json.loads((EVIDENCE / name).read_text(encoding="utf-8"))


def identity() -> dict[str, str]:
    """Return what the evidence proposes: the fingerprint of the tables, and the digest of the model."""
    if not EVIDENCE.exists():
        return {}
    return {"data": read("data.lock.json")["fingerprint"], "model": read("decision.json")["challenger"]["model_digest"]}


def recorded(body: str) -> dict[str, str] | None:
    """Return what a pull request proposed, from its text; None where the text does not say it."""
    try:
        return json.loads(found[1]) if (found := PROPOSED.search(body)) else None
    except ValueError:
        return None


def overtaken() -> str:
    """Return why the evidence is out of date: ``main`` pins other data than the run began with."""
    commit = github.setting("GITHUB_SHA")
    if branches.content(commit, PIN) == branches.content(branches.MAIN, PIN):
        return ""
    return "main pins other data than when this run began; the next run starts from there"


def text() -> str:
    """Return the text of the pull request: the evidence for a person."""
    told = [comment.harmless(part.read_text(encoding="utf-8", errors="replace")) for part in PARTS if part.exists()]
    told.append(
        f"This changes `{PIN}` alone, and is kept up to date until someone merges or closes it, or adds a commit. "
        f"The evidence is in [the run]({github.run_url()}#artifacts)."
    )
    told.append(f"<!-- proposed {json.dumps(identity())} -->")
    return "\n\n".join(told)


def main() -> None:
    """Open or update the pull request, or say on the summary page why not."""
    found = Proposal.now()
    if why := objection() or found.waits or overtaken():
        github.tell(f"Nothing proposed: {why}.")
        return
    message = f"{TITLE}\n\nEvidence: {github.run_url()}"
    commit = branches.renew(branches.changed({PIN: EVIDENCE / "data.lock.json"}), BRANCH, message, found.head)
    if found.number is None:
        branches.propose(BRANCH, TITLE, text())
    else:
        branches.update(found.number, TITLE, text())
    branches.check_once(BRANCH, commit)
    github.tell(f"Proposed: the pull request of `{BRANCH}`{f', #{found.number}' * bool(found.number)}.")


def judge() -> None:
    """Set the outputs ``worth``: whether a pull request follows, and ``open``: whether there is one.

    The summary page gets the evidence, or why there is none.
    """
    found = Proposal.now()
    for part in PARTS:
        if part.exists():
            github.tell(part.read_text(encoding="utf-8"))
    why = objection() or found.waits
    github.tell(f"Nothing to propose: {why}." if why else "This is worth a pull request, which follows.")
    github.output(worth=not why, open=found.number is not None)


def log() -> None:
    """Set as outputs what there is to train on, and where; the summary page says what there is not."""
    place = os.environ.get("LOG_SINK", "")
    pinned = any(part.get("kind") == "log" for part in pin_access.pinned())
    why = ""
    if place and pin_access.cloud({"location": place}) is None:
        why = f"skipped: {pin_access.unreadable(place)}"
    elif not place and not pinned:
        why = NO_LOG
    github.tell(why or "There is a log to train on.")
    there = bool(os.environ.get("DATABRICKS_HOST"))
    github.tell("Databricks trains, on the newest versions of what is pinned." if there else NO_DATABRICKS)
    github.output(log=there or not why, databricks=there)


if __name__ == "__main__":
    sys.exit(github.main({"": main, "judge": judge, "log": log}))
