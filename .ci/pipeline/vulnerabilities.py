"""Judge a scan for vulnerabilities that have a fix: red for what the served image does not have and nobody has waived.

What is served already is no reason to stop a release: the release may be the fix of something worse, and the database
of vulnerabilities moves by itself. docker/waivers.toml has the waivers, each with a reason and an end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline import github, release_facts

NEW, SERVED = Path("build/scan/new.json"), Path("build/scan/served.json")  # as Trivy writes them
WAIVERS = Path("docker/waivers.toml")
LONGEST = timedelta(days=90)
REMEDY = (
    "take newer versions: merge the pull request of refresh.yml, or run it by hand, or `make lock UPGRADE=1`; where "
    f"that does not help, waive it in {WAIVERS} with a reason and an end"
)

Findings = dict[tuple[str, str], str]  # vulnerability and package, and what to read of it


def findings(path: Path) -> Findings:
    """Return what Trivy found.

    Raises:
        PipelineError: the file is not there or not Trivy's.
    """
    try:
        results: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")).get("Results") or []
        return {
            (one["VulnerabilityID"], one["PkgName"]): f"{one['Severity']}, {one.get('InstalledVersion', '?')}, "
            f"fixed in {one.get('FixedVersion', '?')}"
            for result in results
            for one in result.get("Vulnerabilities") or []
        }
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise github.PipelineError(f"{path} is no scan of Trivy ({error!r}); look at the step before") from error


def waivers(today: date) -> tuple[set[tuple[str, str]], list[str]]:
    """Return the waivers that hold today, and a line for each that has ended.

    Raises:
        PipelineError: a waiver lacks something, or ends too late to be looked at again.
    """
    try:
        told = tomllib.loads(WAIVERS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        told = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise github.PipelineError(f"{WAIVERS}: {error}") from error
    listed = told.get("waiver", [])
    if set(told) - {"waiver"} or not (isinstance(listed, list) and all(isinstance(one, dict) for one in listed)):
        raise github.PipelineError(f"{WAIVERS}: a waiver begins with [[waiver]], and nothing else is read")
    held, ended = set(), []
    for number, one in enumerate(listed, 1):
        lacks = [key for key in ("id", "package", "reason") if not str(one.get(key, "")).strip()]
        if lacks or type(one.get("until")) is not date:
            what = ", ".join(lacks) or "until, a date as 2026-12-31"
            raise github.PipelineError(f"{WAIVERS}: waiver {number} lacks {what}")
        if one["until"] > today + LONGEST:
            raise github.PipelineError(
                f"{WAIVERS}: waiver {number} ends in more than {LONGEST.days} days; end it sooner"
            )
        if one["until"] < today:
            ended.append(f"The waiver of {one['id']} in {one['package']} ended on {one['until']}.")
        else:
            held.add((one["id"], one["package"]))
    return held, ended


def served() -> None:
    """Set the output ``image``: what is served, by digest; empty where nothing is, or GitHub cannot be asked."""
    last = None
    if os.environ.get("GITHUB_REPOSITORY") and shutil.which("gh"):
        last = release_facts.latest(release_facts.published(), "served")
    print(github.literal(f"served: {last.tag}" if last else "nothing is served, so every finding counts"))
    github.output(image=last.facts["image"] if last else "")


def main() -> None:
    """Compare the two scans, and say on the summary page what was found.

    Raises:
        PipelineError: there is a finding that is neither served nor waived, or no scan.
    """
    if not NEW.exists() and os.environ.get("GITHUB_ACTIONS") != "true":
        print("skipped: nothing was scanned; a workflow does, with Trivy")
        return
    found, known = findings(NEW), findings(SERVED) if SERVED.exists() else {}
    held, ended = waivers(datetime.now(UTC).date())
    lines = {key: "served too" if key in known else "waived" if key in held else "**new**" for key in found}
    table = [f"| {key[0]} | {key[1]} | {found[key]} | {how} |" for key, how in sorted(lines.items())]
    head = ["### Vulnerabilities that have a fix", "", "| id | package | what | |", "| --- | --- | --- | --- |"]
    github.tell("\n".join([*(head if table else ["No vulnerability that has a fix."]), *table, "", *ended]))
    if new := sorted(f"{key[0]} in {key[1]}" for key, how in lines.items() if how == "**new**"):
        raise github.PipelineError(f"{', '.join(new[:5])}{f' and {len(new) - 5} more' * (len(new) > 5)}: {REMEDY}")


if __name__ == "__main__":
    sys.exit(github.main({"": main, "served": served}))
