"""The repository of the remote ``origin`` on GitHub, asked with the person's own login of ``gh``.

``gh`` is told this repository in every call: by itself it would choose the one that a fork was made from.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pipeline import github
from pipeline.github import PipelineError


def git(*words: str) -> str:
    """Run git and return its output, stripped; errors are those of :func:`pipeline.github.call`."""
    return github.call("git", *words).strip()


@dataclass(frozen=True)
class Origin:
    """A repository on GitHub: its host, and its name as ``owner/name``."""

    host: str
    name: str

    def gh(self, *words: str, stdin: str | None = None) -> str:
        """Run ``gh`` for this repository and return its output, stripped.

        Raises:
            PipelineError: gh is not installed, or the call was refused.
        """
        return github.gh(*words, stdin=stdin, env={"GH_REPO": f"{self.host}/{self.name}"}).strip()

    def api(self, path: str = "", method: str = "GET", body: object = None) -> Any:
        """Return GitHub's answer to one call of its API; ``path`` is relative to this repository.

        Raises:
            PipelineError: as for :meth:`gh`.
        """
        words = ["api", "--method", method, f"repos/{self.name}{path}"]
        if body is None:
            return json.loads(self.gh(*words) or "null")
        return json.loads(self.gh(*words, "--input", "-", stdin=json.dumps(body)) or "null")

    def objects(self, path: str, key: str = "") -> list[dict[str, Any]]:
        """Return every object of a list, over all pages, as :func:`pipeline.github.listed`.

        Raises:
            PipelineError: as for :meth:`gh`.
        """
        return github.listed(f"repos/{self.name}/{path}", key, env={"GH_REPO": f"{self.host}/{self.name}"})


def origin() -> Origin:
    """Return the repository of the remote ``origin``.

    Raises:
        PipelineError: there is no such remote, or it is not a repository on GitHub.
    """
    try:
        remote = git("remote", "get-url", "origin")
    except PipelineError:
        raise PipelineError(
            "no remote is called origin; add the address of your copy: git remote add origin …"
        ) from None
    found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", remote)
    if not found:
        raise PipelineError("the remote origin is not a repository on GitHub; change it: git remote set-url origin …")
    host = re.search(r"(?:://|@)(?:[^@/]*@)?([\w.-]+)", remote)
    return Origin(host[1] if host else "github.com", found[1])
