"""What a model was made from: the commit, the libraries, and one digest of all its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import closedloop

ROOT = Path(__file__).resolve().parents[2]
NOUNS = Path(closedloop.__file__).resolve().parent
ACCEPTED = ROOT / "model" / "accepted.json"  # about a model, so no input of it
LIBRARIES = ("numba", "numpy", "pandas", "safetensors", "scikit-learn", "scipy")


def git(*words: str) -> str | None:
    """Git's answer, or None outside a checkout (an unpacked archive trains as well as a clone)."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def commit() -> str:
    """The commit that is checked out; ``unknown`` outside git."""
    return git("rev-parse", "HEAD") or "unknown"


def is_clean() -> bool:
    """True where the checkout holds just its commit."""
    return git("status", "--porcelain") == ""


def ci() -> dict[str, str] | None:
    """The run of GitHub Actions that is at work, or None: on a person's machine, and where act plays GitHub there."""
    if os.environ.get("GITHUB_ACTIONS") != "true" or os.environ.get("ACT"):
        return None
    names = {"repository": "GITHUB_REPOSITORY", "run_id": "GITHUB_RUN_ID", "commit": "GITHUB_SHA"}
    return {key: os.environ.get(name, "unknown") for key, name in names.items()}


def libraries() -> dict[str, str]:
    """Python and the libraries whose version can change a model."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def inputs_digest(params: Path, tables: str, root: Path = ROOT, nouns: Path = NOUNS) -> str:
    """``sha256:…`` of everything that decides a model and its verdict.

    That is: the locks, ``closedloop``, ``model/`` without the acceptance, the parameters in use and the fingerprint of
    the tables. Equal digests mean that there is nothing to compare. ``root`` and ``nouns`` are those of the commit.
    """
    files = [*root.glob("requirements/*.txt"), *root.glob("model/*.py"), *root.glob("model/*.json")]
    named = {path.relative_to(root).as_posix(): path for path in files if path.name != ACCEPTED.name}
    named |= {f"closedloop/{path.relative_to(nouns).as_posix()}": path for path in nouns.rglob("*.py")}
    digest = hashlib.sha256()
    for name, path in sorted(named.items()):
        content = path.read_bytes()
        digest.update(json.dumps([name, len(content)]).encode())
        digest.update(content)
    digest.update(json.dumps([params.read_text(encoding="utf-8"), tables]).encode())
    return "sha256:" + digest.hexdigest()
