"""Whether a commit changes anything of the product since the served release: if nothing, it needs no release.

Everything counts as the product but what is listed here: prose, tests, and what only workflows and developers use. The
README is in the wheel's description too, and no answer depends on it.
"""

from __future__ import annotations

import re
import subprocess

from pipeline import release_facts

NOT_PRODUCT = re.compile(
    r".*\.md|LICENSE|\.editorconfig|\.gitignore|\.gitattributes"
    r"|(docs|tests|notebooks|\.github|\.devcontainer|\.ci/(dev|tools))/.*"
)


def changed(older: str, newer: str) -> list[str] | None:
    """Return the files in which two commits differ; None where git does not know one of them."""
    words = ["git", "diff", "--name-only", "--no-renames", "-z", older, newer]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return [path for path in done.stdout.split("\0") if path] if done.returncode == 0 else None


def unchanged(served: release_facts.Release | None, commit: str) -> str:
    """Return in words that a commit changes nothing of the product since the served release; else an empty text."""
    found = None if served is None else changed(served.commit, commit)
    if served is None or found is None or any(not NOT_PRODUCT.fullmatch(path) for path in found):
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    which = f"only {', '.join(found[:3])}{more}" if found else "no file"
    return f"since {served.tag}, which is served, nothing of the product has changed ({which})"
