"""What a person's own commands share: programs that may be absent, and GitHub by the person's own login of ``gh``.

gh is told the repository of the remote ``origin``; left alone it takes the one that a fork was made from.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class RefusedError(Exception):
    """It cannot be done. The message says what was asked, why not, and how to mend it."""


def run(*words: str, stdin: str = "") -> str:
    """What a command says.

    Raises:
        RefusedError: it failed, or is not there.
    """
    try:
        done = subprocess.run(words, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        where = ": install GitHub's command line, then `gh auth login`" if words[0] == "gh" else ""
        raise RefusedError(f"{words[0]} is not on PATH{where}") from None
    if done.returncode:
        raise RefusedError(f"`{' '.join(words)}`: {' '.join((done.stderr or done.stdout).split()) or 'it failed'}")
    return done.stdout.strip()


def repository() -> str:
    """``owner/name`` on GitHub, from the remote ``origin``; later calls of gh ask that one.

    Raises:
        RefusedError: there is no such remote.
    """
    try:
        remote = run("git", "remote", "get-url", "origin")
    except RefusedError:
        raise RefusedError(
            "no remote is called origin; add the address of your copy: git remote add origin …"
        ) from None
    found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", remote)
    if not found:
        raise RefusedError("the remote origin is no repository on GitHub: git remote set-url origin …")
    host = re.search(r"(?:://|@)(?:[^@/]*@)?([\w.-]+)", remote)
    os.environ["GH_REPO"] = f"{host[1] if host else 'github.com'}/{found[1]}"
    return found[1]


def api(path: str, method: str = "GET", body: object = None) -> Any:
    """GitHub's answer to one call.

    Raises:
        RefusedError: gh is not there, or the call was refused.
    """
    words = ["gh", "api", "--method", method, path, *(["--input", "-"] if body is not None else [])]
    return json.loads(run(*words, stdin="" if body is None else json.dumps(body)) or "null")
