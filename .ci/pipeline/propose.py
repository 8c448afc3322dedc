"""Open the pull request of a retraining: only where the model is better, and changing the data pin alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipeline import branches, comment, github

EVIDENCE = Path("build/evidence")
PIN = "model/data.lock.json"


def objection() -> str:
    """Return why there is nothing to propose, or an empty text where there is."""
    if not EVIDENCE.exists():
        return "there is no log, or it has nothing new"
    verdict = json.loads((EVIDENCE / "decision.json").read_text(encoding="utf-8"))["verdict"]
    if (EVIDENCE / "data.lock.json").read_bytes() == Path(PIN).read_bytes():
        return f"the data pin is unchanged, so a pull request would change nothing (verdict: {verdict})"
    return "" if verdict == "better" else f"the verdict is {verdict}, and only a better model is proposed"


def main() -> None:
    """Open the pull request, or say on the summary page why there is none."""
    if why := objection():
        github.tell(f"Nothing proposed: {why}.")
        return
    branch = f"retrain/{github.setting('GITHUB_RUN_ID')}"
    summary = (EVIDENCE / "summary.md").read_text(encoding="utf-8", errors="replace")
    title = "Retrain on newer data"
    branches.push(
        branches.changed(PIN, EVIDENCE / "data.lock.json"), branch, f"{title}\n\nEvidence: {github.run_url()}"
    )
    branches.propose(
        branch, title, f"{comment.harmless(summary)}\n\nThe evidence is in [the run]({github.run_url()}#artifacts)."
    )
    branches.check(branch)
    github.tell(f"Proposed: the pull request of `{branch}`.")


def judge() -> None:
    """Set the output ``worth``: whether a pull request follows. The summary page says why not."""
    why = objection()
    github.tell(f"Nothing to propose: {why}." if why else "A better model: its pull request follows.")
    github.output(worth=not why)


if __name__ == "__main__":
    sys.exit(github.main({"": main, "judge": judge}))
