"""What a model was made from: the commit, the libraries, and one digest of all its inputs."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import closedloop

ROOT = Path(__file__).resolve().parent.parent
NOUNS = Path(closedloop.__file__).resolve().parent
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


def libraries() -> dict[str, str]:
    """Python and the libraries whose version can change a model."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def inputs_digest(params: Path, tables: str, root: Path = ROOT) -> str:
    """``sha256:…`` of everything that decides a model and its verdict.

    That is: the locks, ``src/closedloop``, ``model/`` without the acceptance, the parameters in use and the
    fingerprint of the tables. Equal digests mean that there is nothing to compare.
    """
    files = [
        *root.glob("requirements/*.txt"),
        *NOUNS.rglob("*.py"),
        *root.glob("model/*.py"),
        *root.glob("model/*.json"),
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.name != "accepted.json":
            digest.update(json.dumps([path.name, path.parent.name, len(path.read_bytes())]).encode())
            digest.update(path.read_bytes())
    digest.update(json.dumps([params.read_text(encoding="utf-8"), tables]).encode())
    return "sha256:" + digest.hexdigest()
