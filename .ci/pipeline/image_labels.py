"""Print the build arguments for the image labels, as ``--build-arg NAME=value …``; docker/README.md explains each.

They follow from the commit and the bundle, so the same commit gives the same image labels: ``CREATED`` is the commit's
time. A value that is not known is left out. No value contains a space, so a shell can split the output.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]


def git(*words: str) -> str:
    """Return git's output, or an empty text where it fails: a downloaded copy has no history."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def source(remote: str) -> str:
    """Return the web address of a remote without any login, or an empty text where it has none."""
    if short := re.fullmatch(r"[\w.-]+@([\w.-]+):(?!/)(.+)", remote):
        remote = f"ssh://{short[1]}/{short[2]}"
    try:
        parts = urlsplit(remote)
    except ValueError:
        return ""
    if parts.scheme not in {"https", "http", "ssh", "git"} or not parts.hostname:
        return ""
    path = parts.path.removesuffix("/").removesuffix(".git")
    return f"https://{parts.hostname}{path}" if re.fullmatch(r"[\w./~-]+", path) else ""


def labels() -> dict[str, str]:
    """Return the build arguments: name and value.

    Raises:
        OSError, KeyError, ValueError: there is no bundle, or its manifest cannot be read.
    """
    manifest = json.loads((ROOT / "build/bundle/manifest.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    seconds = git("show", "--no-patch", "--format=%ct", "HEAD")
    found = {
        "COMMIT": git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
        "CREATED": datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else "",
        "SOURCE": source(git("remote", "get-url", "origin")),
        "VERSION": project["version"],
        "MODEL_DIGEST": manifest["model_digest"],
        "BUNDLE_DIGEST": manifest["bundle_digest"],
    }
    return {name: value for name, value in found.items() if value}


def main() -> int:
    """Print the build arguments and return the exit code; 1: build/bundle is not a bundle."""
    try:
        found = labels()
    except (OSError, KeyError, ValueError) as error:
        print(f"build/bundle/manifest.json cannot be used ({error}); make a bundle with: make run", file=sys.stderr)
        return 1
    print(*(f"--build-arg {name}={value}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
