"""Keep one issue open while something of the pipeline itself needs a person, from what GitHub and NEEDS say.

That is: a job of this daily run, or the newest scheduled run of another workflow, has failed; GitHub has stopped a
schedule; a release waits for its reviewers; the pinned data cannot be read; a token ends soon. The issue's text is what
holds today, and the issue closes by itself. The served model has an issue of its own (monitor.py).
"""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline import github

TITLE = "The pipeline needs attention"
OWN = "daily.yml"  # its jobs are in NEEDS
BY_ITSELF = ("schedule", "workflow_dispatch")  # a run by hand shows too that it works again
GOOD = ("success", "skipped", "neutral", "cancelled")  # a person or a newer run cancels
STOPPED = {
    "disabled_inactivity": "GitHub has stopped its schedule, since nothing was committed for 60 days",
    "disabled_fork": "GitHub has not started its schedule, since this is a fork",
}
HOURS_TO_APPROVE = 24
DAYS_BEFORE = 14  # a token's end
TOKEN = re.compile(r"([A-Z][A-Z0-9_]*)=(\d{4}-\d{2}-\d{2})")


def scheduled() -> list[str]:
    """Return the workflow files that run by a schedule, without the one of this run."""
    folder = github.ROOT / ".github/workflows"
    found = [path.name for path in sorted(folder.glob("*.yml")) if "\n  schedule:\n" in path.read_text("utf-8")]
    return [name for name in found if name != OWN]


def runs(query: str) -> list[dict[str, Any]]:
    """Return the newest runs that a query names; one page, since the first ones are asked for."""
    answer = json.loads(github.gh("api", f"repos/{github.repository()}/actions/workflows/{query}"))
    found: list[dict[str, Any]] = answer["workflow_runs"]
    return found


def here(needs: dict[str, Any]) -> list[str]:
    """Return a line for each job of this run that failed, and one where the pinned data cannot be read."""
    bad = [name for name, facts in needs.items() if facts["result"] not in GOOD]
    lines = [f"Today's checks have failed: {', '.join(bad)}. [The run]({github.run_url()}) says why."] if bad else []
    why = needs.get("plan", {}).get("outputs", {}).get("not_judged")
    return [*lines, *([f"The pinned data cannot be read: {why}."] if why else [])]


def failed(name: str) -> list[str]:
    """Return a line where the newest run of a scheduled workflow on main has failed."""
    newest = [one for one in runs(f"{name}/runs?branch=main&status=completed") if one["event"] in BY_ITSELF][:1]
    return [
        f"`{name}` has failed on {one['created_at'][:10]}: [its run]({one['html_url']}) says why."
        for one in newest
        if one["conclusion"] not in GOOD
    ]


def stopped(names: list[str]) -> list[str]:
    """Return a line for each schedule that GitHub has stopped."""
    there = {one["path"].rpartition("/")[2]: one["state"] for one in github.objects("actions/workflows", "workflows")}
    return [
        f"`{name}` does not run: {STOPPED[there[name]]}. Enable it on the *Actions* tab."
        for name in [*names, OWN]
        if there.get(name) in STOPPED
    ]


def waiting(now: datetime) -> list[str]:
    """Return a line for each release that has waited for its reviewers for a day."""
    late = (now - timedelta(hours=HOURS_TO_APPROVE)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        f"The release of commit {one['head_sha'][:9]} has waited for its reviewers since {one['created_at'][:10]}: "
        f"[approve or reject it]({one['html_url']}). GitHub gives up after 30 days."
        for one in runs("ci.yml/runs?branch=main&status=waiting")
        if one["created_at"] < late
    ]


def ending(told: str, now: datetime) -> list[str]:
    """Return a line for each token of the variable TOKENS_END that ends soon or has ended, and for what is none."""
    lines = []
    for word in told.replace(",", " ").split():
        found = TOKEN.fullmatch(word)
        try:
            end = datetime.strptime(found[2], "%Y-%m-%d").replace(tzinfo=UTC) if found else None
        except ValueError:
            end = None
        if found is None or end is None:
            lines.append(
                f"The variable TOKENS_END has `{word[:60]}`; write `NAME=2027-01-31`, with a space between two."
            )
        elif end - now < timedelta(days=DAYS_BEFORE):
            how = "ends" if end > now else "has ended"
            lines.append(f"The token {found[1]} {how} on {found[2]}: make a new one, and write its end to TOKENS_END.")
    return lines


def keep(lines: list[str]) -> None:
    """Open the issue with these lines, bring it up to date, or close it where there are none."""
    there = github.issues()
    if there is None:
        return
    told = next((one for one in there if one["title"] == TITLE and one["user"]["type"] == "Bot"), None)
    where = ["--repo", github.repository()]
    end = f"`{OWN}` brings this up to date each day, and closes it when nothing is left."
    text = "\n".join([*(f"- {line}" for line in lines), "", end, ""])
    if lines and told is None:
        github.gh("issue", "create", *where, "--title", TITLE, "--body-file", "-", stdin=text)
    elif lines and told is not None and (told["body"] or "").strip() != text.strip():
        github.gh("issue", "edit", str(told["number"]), *where, "--body-file", "-", stdin=text)
    elif not lines and told is not None:
        github.gh("issue", "close", str(told["number"]), *where, "--comment", f"Nothing is left: {github.run_url()}")


def main() -> None:
    """Keep the issue, and say the same on the summary page."""
    now, names = datetime.now(UTC), scheduled()
    needs = json.loads(github.setting("NEEDS"))
    lines = [*here(needs), *(line for name in names for line in failed(name)), *stopped(names), *waiting(now)]
    lines += ending(os.environ.get("TOKENS_END", ""), now)
    github.tell("\n".join(f"- {line}" for line in lines) or "Nothing of the pipeline needs attention.")
    keep(lines)


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
