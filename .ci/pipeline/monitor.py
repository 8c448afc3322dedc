"""Keep one issue open while the served model does worse than promised, or the world has moved since its training.

Reads build/monitor/monitor.json of ``make monitor``. Live quality is judged each day. Drift is looked for once a week,
and on the other days what the last look found stands. A comment in the issue's text, which people do not see, holds
both. ``log``: whether there is a log to judge. ``open``: whether the issue says already that the model does worse.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import comment, github, pin_access

FOUND = Path("build/monitor/monitor.json")
TITLE = "The served model needs attention"
STATE = re.compile(r"<!-- monitor (\{.*\}) -->")
NO_LOG = "skipped: the variable LOG_SINK is not set, so there are no answers to judge (.github/README.md says how)"


@dataclass(frozen=True)
class IssueState:
    """What the issue says of live quality and of drift, in words; empty where there is nothing to say."""

    live: str = ""
    drift: str = ""

    @classmethod
    def of(cls, text: str) -> IssueState:
        """Return the state that an issue's text holds; that of a text which a person changed beyond use is empty."""
        try:
            known = json.loads(found[1]) if (found := STATE.search(text)) else {}
            return cls(str(known.get("live", "")), str(known.get("drift", "")))
        except (ValueError, AttributeError):
            return cls()

    def after(self, found: dict[str, Any]) -> IssueState:
        """Return the state after a run; ``found`` is the content of monitor.json."""
        issue, moved = found.get("issue") or {"action": "keep"}, found.get("drift")
        live = issue.get("body", self.live) if issue["action"] in ("open", "keep") else ""
        drift = self.drift
        if moved is not None and moved["verdict"] != "too little data":
            drift = moved["words"] if moved["verdict"] == "moved" else ""
        return IssueState(live, drift)


def text(state: IssueState) -> str:
    """Return the text of the issue."""
    parts = []
    if state.live:
        parts.append(comment.harmless(state.live))
    if state.drift:
        parts.append(
            f"The world has moved since the model learned: {comment.harmless(state.drift)}. Drift is no verdict on the "
            "model. See whether the sensors are right; if they are, retrain on the log: the workflow *retrain*."
        )
    parts.append(f"The page with the figures is in [the run]({github.run_url()}#artifacts). Nothing was released or "
                 "stopped because of it. This issue closes by itself when neither is so any more.")  # fmt: skip
    hidden = json.dumps(asdict(state)).replace(">", "\\u003e")  # nothing in it ends the comment
    return "\n\n".join([*parts, f"<!-- monitor {hidden} -->"])


def opened() -> dict[str, Any] | None:
    """Return the open issue, or None."""
    return next((one for one in github.issues() or [] if one["title"] == TITLE and one["user"]["type"] == "Bot"), None)


def main() -> None:
    """Open the issue, bring it up to date or close it, and say on the summary page what was done."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    issue = opened()
    state = IssueState.of(issue["body"] or "" if issue else "").after(found)
    where = ["--repo", github.repository()]
    if state == IssueState():
        if issue:
            words = ["--comment", f"Neither is so any more: {github.run_url()}"]
            github.gh("issue", "close", str(issue["number"]), *where, *words)
        github.tell(f"Nothing needs attention{'; the issue was closed' * bool(issue)}.")
    elif issue is None and github.issues() is None:
        github.tell("The served model needs attention: the page of this run says why.")
    elif issue is None:
        github.gh("issue", "create", *where, "--title", TITLE, "--body-file", "-", stdin=text(state))
        github.tell("An issue was opened: the served model needs attention.")
    else:
        if IssueState.of(issue["body"] or "") != state:
            github.gh("issue", "edit", str(issue["number"]), *where, "--body-file", "-", stdin=text(state))
        github.tell(f"Issue #{issue['number']} stays open.")


def is_open() -> None:
    """Set the output ``issue``: 1 where the open issue says that the model does worse than promised."""
    issue = opened()
    github.output(issue="1" if issue and IssueState.of(issue["body"] or "").live else "")


def log() -> None:
    """Set the output ``log``: whether there is a log that Actions can read. The summary page says why not."""
    place = os.environ.get("LOG_SINK", "")
    why = "" if place else NO_LOG
    if place and pin_access.cloud({"location": place}) is None:
        why = f"skipped: {pin_access.unreadable(place)}"
    github.tell(why or "There is a log with answers to judge.")
    github.output(log=not why)


if __name__ == "__main__":
    sys.exit(github.main({"": main, "open": is_open, "log": log}))
