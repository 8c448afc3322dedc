"""Open the pull request of a retraining: it moves the data pin and nothing else, and only where the model is better."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comment
import hub
import pulls

EVIDENCE = Path("build/evidence")
PIN = "model/data.lock.json"


def worth() -> str:
    """Why there is nothing to propose, or an empty text where there is."""
    verdict = json.loads((EVIDENCE / "decision.json").read_text(encoding="utf-8"))["verdict"]
    if (EVIDENCE / "data.lock.json").read_bytes() == Path(PIN).read_bytes():
        return f"the data pin is as it was, so a pull request would change nothing (verdict: {verdict})"
    return "" if verdict == "better" else f"the verdict is {verdict}, and only a better model is proposed"


def main() -> None:
    """Propose it, or say why not."""
    if why := worth():
        hub.tell(f"Nothing proposed: {why}.")
        return
    branch = f"retrain/{hub.setting('GITHUB_RUN_ID')}"
    summary = (EVIDENCE / "summary.md").read_text(encoding="utf-8", errors="replace")
    title = "Retrain on newer data"
    pulls.push(pulls.changed(PIN, EVIDENCE / "data.lock.json"), branch, f"{title}\n\nEvidence: {hub.run_url()}")
    pulls.propose(
        branch, title, f"{comment.harmless(summary)}\n\nThe evidence is in [the run]({hub.run_url()}#artifacts)."
    )
    pulls.check(branch)
    hub.tell(f"Proposed: the pull request of `{branch}`.")


def judge() -> None:
    """Hand on whether there is anything to propose, and say why not."""
    why = worth()
    hub.tell(f"Nothing to propose: {why}." if why else "A better model: its pull request follows.")
    hub.output(worth=not why)


if __name__ == "__main__":
    sys.exit(hub.main({"": main, "judge": judge}))
