"""Collect what the log's sinks must keep: the log versions that main, the open proposal and the releases name.

Writes build/log-pins.json, from which ``python -m model.log_pins`` makes the pins in the sinks. ``main`` keeps the
versions of its newest commit, and those of earlier commits that no release has overtaken yet. WORTH=true: those of
build/evidence are about to be proposed. OPEN=false: the branch of the proposal has no open pull request.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import branches, github, pin_access, propose, release_facts

WANTED = Path("build/log-pins.json")
Logs = list[dict[str, Any]]


def logs(text: str, commit: str) -> Logs:
    """Return the log parts of a pin, each with the commit that names it."""
    return [part | {"commit": commit} for part in pin_access.parts_of(text) if part.get("kind") == "log"]


def of_commits(commits: Iterable[str]) -> Logs:
    """Return the log parts that commits pin."""
    return [log for commit in commits for log in logs(branches.content(commit, pin_access.PIN), commit)]


def of_main(released: list[str]) -> Logs:
    """Return the log parts of main's newest commit, and of those after the newest release."""
    newest = branches.git("rev-parse", branches.MAIN)
    since = next((commit for commit in branches.history(branches.MAIN) if commit in released), None)
    words = [f"{since}..{branches.MAIN}"] if since else ["-1", branches.MAIN]
    changed = branches.git("log", "--format=%H", *words, "--", pin_access.PIN).split()
    return of_commits(dict.fromkeys([newest, *changed]))


def of_proposal() -> Logs:
    """Return the log parts of the open pull request, and of the one that follows from this run."""
    found: Logs = []
    if os.environ.get("WORTH") == "true":
        found += logs((propose.EVIDENCE / "data.lock.json").read_text(encoding="utf-8"), "")
    if os.environ.get("OPEN") != "false" and (head := branches.head(propose.BRANCH)):
        found += of_commits([head])
    return found


def main() -> None:
    """Write build/log-pins.json."""
    known = [one.commit for one in release_facts.published() if not one.facts.get("withdrawn")]
    wanted = {"main": of_main(known), "proposal": of_proposal(), "release": of_commits(dict.fromkeys(known))}
    WANTED.parent.mkdir(exist_ok=True)
    WANTED.write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(", ".join(f"{kind}: {len(found)}" for kind, found in wanted.items()))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
