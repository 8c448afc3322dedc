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
LIBRARY = Path(closedloop.__file__).resolve().parent
LIBRARY_IN_COMMIT = Path("src") / "closedloop"
PIN_NAME = "model/data.lock.json"  # in every commit
PIN = ROOT / PIN_NAME
ACCEPTED = ROOT / "model" / "accepted.json"
VERSIONED = ("numba", "numpy", "pandas", "safetensors", "scikit-learn", "scipy")


def git(*words: str) -> str | None:
    """Return what git prints, or None where it fails: an unpacked archive trains as well as a clone."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def commit() -> str:
    """Return the commit that is checked out; outside git what ``SOURCE_COMMIT`` says, else ``unknown``."""
    return git("rev-parse", "HEAD") or os.environ.get("SOURCE_COMMIT") or "unknown"


def is_clean() -> bool:
    """Return whether the checkout is exactly its commit, with no changed and no untracked file."""
    return git("status", "--porcelain") == ""


def is_as_committed(*but: Path) -> bool:
    """Return whether code, locks, parameters and pin are those of the commit; the files ``but`` may differ."""
    inputs = (LIBRARY_IN_COMMIT.as_posix(), "model", "requirements")
    left_out = (f":(exclude){path.relative_to(ROOT).as_posix()}" for path in (ACCEPTED, *but))
    return git("status", "--porcelain", "--", *inputs, *left_out) == ""


def in_actions() -> bool:
    """Return whether a workflow runs this, also one that ``act`` runs on a person's machine."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def ci() -> dict[str, str] | None:
    """Return the run of GitHub Actions that this is, or None on a person's machine (also where ``act`` runs there)."""
    if not in_actions() or os.environ.get("ACT"):
        return None
    names = {"repository": "GITHUB_REPOSITORY", "run_id": "GITHUB_RUN_ID", "commit": "GITHUB_SHA"}
    return {key: os.environ.get(name, "unknown") for key, name in names.items()}


def libraries() -> dict[str, str]:
    """Return the versions of Python and of each library that can change a model."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONED}


def inputs_digest(params: Path, tables: str, root: Path = ROOT, library: Path = LIBRARY, pin: str | None = None) -> str:
    """Return ``sha256:…`` of everything that decides a model and its verdict.

    These are the locks, the code of ``closedloop``, every file below ``model/`` except the acceptance, the parameters
    in use, and the fingerprint of the tables. Where two digests are equal there is nothing to compare.

    Args:
        params: the parameter file in use.
        tables: the fingerprint of the tables.
        root: the folder of the commit.
        library: the folder of the commit's ``closedloop``.
        pin: the file of a data pin that is proposed in place of the commit's own.
    """
    accepted = root / ACCEPTED.relative_to(ROOT)  # about a model, so no input of it
    found = [*root.glob("requirements/*.txt"), *(path for path in _files(root / "model") if path != accepted)]
    named = {path.relative_to(root).as_posix(): path for path in found}
    named |= {f"closedloop/{path.relative_to(library).as_posix()}": path for path in library.rglob("*.py")}
    named |= {} if pin is None else {PIN_NAME: Path(pin)}
    digest = hashlib.sha256()
    for name, path in sorted(named.items()):
        content = path.read_bytes()
        digest.update(json.dumps([name, len(content)]).encode())
        digest.update(content)
    digest.update(json.dumps([params.read_text(encoding="utf-8"), tables]).encode())
    return "sha256:" + digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Return every file below a folder, at any depth, without hidden files and Python's caches."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    ]
