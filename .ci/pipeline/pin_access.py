"""Tell which clouds a run must log in to, to read the data that model/data.lock.json names.

Parts that lie in an object store and are not pinned as public need a login. Runs of forks and of Dependabot get none
from GitHub, and no run gets one where the repository's variables for it are not set. Such a run cannot judge a model:
the plan skips its training, and ``required`` says so, once.

``make pin-access`` sets for the training job the outputs ``azure``, ``aws`` and ``gcp``, and ``cache``: the key under
which downloads may be kept for later runs, or an empty text. A public repository keeps only what is public: the pull
request of a fork may restore what a run of the base branch has kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import github

PIN = "model/data.lock.json"
CLOUDS = {"az": "azure", "abfs": "azure", "abfss": "azure", "s3": "aws", "gs": "gcp"}
# The variables that log in to each cloud, in the training jobs.
VARIABLES = {
    "azure": ("DATA_AZURE_CLIENT_ID", "DATA_AZURE_TENANT_ID"),
    "aws": ("DATA_AWS_ROLE", "DATA_AWS_REGION"),
    "gcp": ("DATA_GCP_PROVIDER", "DATA_GCP_SERVICE_ACCOUNT"),
}
DEPENDABOT = "dependabot[bot]"


def parts_of(text: str) -> list[dict[str, Any]]:
    """Return the parts of a pin; none where it is no pin, which fetching says better."""
    try:
        parts = json.loads(text)["parts"]
        return [part for part in parts if isinstance(part, dict)]
    except (ValueError, KeyError, TypeError):
        return []


def cloud(part: dict[str, Any]) -> str | None:
    """Return the cloud that a part lies in, or None: in the repository, or on a web server."""
    return CLOUDS.get(str(part.get("location", "")).partition("://")[0])


def clouds(parts: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the clouds that need a login, each with the first place that does."""
    found: dict[str, str] = {}
    for part in parts:
        if (name := cloud(part)) and part.get("public") is not True:
            found.setdefault(name, part["location"])
    return found


def unreadable(place: str) -> str:
    """Return why Actions cannot read a log that is shipped to a folder."""
    return (
        f"LOG_SINK is the folder {place}, on a volume that Actions cannot read; ship the log to az://, s3:// or gs://"
    )


def stranger(event: str, actor: str, payload: dict[str, Any], repository: str) -> str | None:
    """Return whose run gets no login from GitHub: ``a fork``, ``Dependabot``, or None."""
    if event in ("push", "pull_request") and actor == DEPENDABOT:
        return "Dependabot"
    if event == "pull_request":
        head = payload.get("pull_request", {}).get("head", {}).get("repo") or {}
        return None if head.get("full_name") == repository else "a fork"
    return None


def lacking(found: dict[str, str], variables: Mapping[str, str]) -> list[str]:
    """Return a sentence for each cloud whose login has variables that are not set."""
    sentences = []
    for name, place in found.items():
        if unset := [variable for variable in VARIABLES[name] if not variables.get(variable)]:
            how = f"set the repository's {'variables' if unset[1:] else 'variable'} {' and '.join(unset)}"
            sentences.append(f"{place} takes a login to {name}: {how} (.github/README.md says how)")
    return sentences


def not_judged(
    found: dict[str, str], who: str | None, payload: dict[str, Any], variables: Mapping[str, str] | None = None
) -> str:
    """Return why this run cannot judge, and who can; an empty text where it can.

    ``variables`` are those of the repository; None: not in a run of GitHub, where credentials come from elsewhere.
    """
    if not found:
        return ""
    if who is None:
        return "; ".join(lacking(found, variables)) if variables is not None else ""
    number = payload.get("pull_request", {}).get("number")
    fetch = f"gh pr checkout {number}" if number else "git fetch origin and git checkout its branch"
    return (
        f"the data is at {', '.join(found.values())} and takes a login, which runs of {who} do not get. Someone who "
        f"may push here reviews the commits and judges them on a branch of this repository: {fetch}, then "
        f"git push origin HEAD:refs/heads/judge-{number or 'it'}, and a pull request from there"
    )


def payload_of(path: str | None) -> dict[str, Any]:
    """Return the payload of this run's event; an empty one where there is none."""
    if not path or not Path(path).is_file():
        return {}
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def pinned() -> list[dict[str, Any]]:
    """Return the parts that this checkout pins."""
    path = Path(PIN)
    return parts_of(path.read_text(encoding="utf-8")) if path.is_file() else []


def also(commits: Iterable[str]) -> list[dict[str, Any]]:
    """Return the parts that other commits pin, which are trained too."""
    parts = []
    for commit in filter(None, commits):
        shown = subprocess.run(["git", "show", f"{commit}:{PIN}"], capture_output=True, text=True, check=False)
        parts += parts_of(shown.stdout) if shown.returncode == 0 else []
    return parts


def cache_key(parts: list[dict[str, Any]], private: bool) -> str:
    """Return the key of the downloads; empty where there are none, or where a stranger could restore them."""
    remote = [part for part in parts if part.get("kind") == "files" and "://" in str(part.get("location"))]
    if not remote or not (private or not clouds(remote)):
        return ""
    digests = sorted(str(file.get("sha256")) for part in remote for file in part.get("files", []))
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32]


def variables_of_run() -> Mapping[str, str] | None:
    """Return where this run's variables stand; None outside GitHub Actions."""
    return os.environ if os.environ.get("GITHUB_ACTIONS") == "true" else None


def main() -> None:
    """Set the outputs, and say on the summary page which login to the data of other commits is missing.

    Raises:
        PipelineError: the login to the data of this commit is missing.
    """
    parts = pinned()
    own_log = [{"location": os.environ["LOG_SINK"]}] if os.environ.get("LOG_SINK") else []  # it may join the pin
    variables = variables_of_run()
    if why := not_judged(clouds([*parts, *own_log]), None, {}, variables):
        raise github.PipelineError(why)
    found = clouds([*parts, *own_log, *also(os.environ.get(name, "") for name in ("BASE_COMMIT", "CHAMPION_COMMIT"))])
    for sentence in [] if variables is None else lacking(found, variables):
        github.tell(f"{sentence}.")
    private = os.environ.get("PRIVATE") == "true"
    has_log = any(part.get("kind") == "log" for part in parts)
    github.output(**{name: name in found for name in VARIABLES}, cache=cache_key(parts, private), log=has_log)


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
