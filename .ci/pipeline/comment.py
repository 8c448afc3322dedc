"""Write one comment on a pull request and keep it up to date: the verdict on its model, from the run's report.

The text comes from a job that ran the pull request's code, so it is not trusted: it is cut to a length, and mentions,
references, links, images and HTML other than folds are made ineffective.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from pipeline import github

MARK = "<!-- closed-loop: the verdict on this pull request's model -->"
SUMMARY = Path("build/report/summary.md")
LONGEST = 30_000  # characters; GitHub takes 65,536
FOLDS = re.compile(r"&lt;(/?(?:details|summary)|details open)&gt;")
GAP = "\N{ZERO WIDTH SPACE}"


def harmless(text: str) -> str:
    """Return the text so that it can only be read.

    ``<`` is escaped, except in the folds of the report. A zero-width space breaks mentions, issue numbers, links,
    images and addresses.
    """
    text = "".join(sign for sign in text[:LONGEST] if sign in "\n\t" or sign.isprintable())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = FOLDS.sub(lambda found: f"<{found[1]}>", text)
    text = re.sub(r"@(?=[\w-])", f"@{GAP}", text)
    text = re.sub(r"#(?=\d)|\b(?:GH|gh)-(?=\d)", lambda found: found[0] + GAP, text)
    text = re.sub(r"\](?=[(\[:])", f"]{GAP}", text)
    text = re.sub(r"\b(https?|ftp|mailto)(?=:)|\bwww(?=\.)", lambda found: found[0] + GAP, text, flags=re.IGNORECASE)
    open_folds = text.count("<details") - text.count("</details>")
    return text + "\n</details>" * max(open_folds, 0)


def body(summary: str | None, run: str) -> str:
    """Return the comment."""
    if summary is None:
        told = "## No verdict\n\nThe data or the training were refused, so there is no report. See the first red job."
    else:
        told = harmless(summary)
        if len(summary) > LONGEST:
            told += "\n\n…the rest is in the report."
    return (
        f"{MARK}\n{told}\n\n[Report, figures and logs of this run]({run}#artifacts); this comment is kept up to date."
    )


def main() -> None:
    """Create the comment on the pull request PULL_REQUEST, or update it."""
    number = github.setting("PULL_REQUEST")
    if not number.isdecimal():
        raise github.PipelineError("PULL_REQUEST is not a number")
    there = SUMMARY.is_file() and SUMMARY.resolve() == SUMMARY.absolute()  # a link could lead to another file
    summary = SUMMARY.read_text(encoding="utf-8", errors="replace") if there else None
    text = json.dumps({"body": body(summary, github.run_url())})
    path = f"repos/{github.repository()}/issues"
    for one in github.objects(f"issues/{number}/comments"):
        if one["user"]["type"] == "Bot" and one["body"].startswith(MARK):
            github.gh("api", "--method", "PATCH", f"{path}/comments/{one['id']}", "--input", "-", stdin=text)
            print(f"updated comment {one['id']} of #{number}")
            return
    github.gh("api", "--method", "POST", f"{path}/{number}/comments", "--input", "-", stdin=text)
    print(f"wrote the comment of #{number}")


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
