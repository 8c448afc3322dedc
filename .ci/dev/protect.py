"""Apply .github/rulesets/<mode>.json to this repository, and the settings it needs: ``make protect [MODE=team]``.

It prints what it changed and reads the rules back. It can be run again: the ruleset has the same name in both modes,
so one replaces the other.
"""

from __future__ import annotations

import json
import sys

from dev.origin import origin
from pipeline.github import ROOT, PipelineError

RULESETS = ROOT / ".github/rulesets"


def protect(mode: str) -> list[str]:
    """Apply the rules of a mode; return one line for each thing done.

    Raises:
        PipelineError: this repository or this login does not allow it, or GitHub dropped a rule.
    """
    wanted = json.loads((RULESETS / f"{mode}.json").read_text(encoding="utf-8"))
    here = origin()
    about = here.api()
    if not about.get("permissions", {}).get("admin"):
        raise PipelineError(f"only an administrator of {here.name} may set its rules")
    if mode == "team" and about["owner"]["type"] != "Organization":
        raise PipelineError(
            f"{here.name} belongs to a person, and merge queues are for organisations: make protect MODE=solo"
        )
    here.api("", "PATCH", {"allow_auto_merge": True, "allow_squash_merge": True, "delete_branch_on_merge": True})
    done = ["auto-merge is allowed, and a branch is deleted once it is merged"]
    try:
        here.api("/private-vulnerability-reporting", "PUT")
        done.append("vulnerabilities can be reported privately")
    except PipelineError as error:  # GitHub offers this to public repositories only
        done.append(f"skipped: private reports of vulnerabilities: {error}")
    same = [rules for rules in here.api("/rulesets?includes_parents=false") if rules["name"] == wanted["name"]]
    path, method = (f"/rulesets/{same[0]['id']}", "PUT") if same else ("/rulesets", "POST")
    held = {rule["type"] for rule in here.api(f"/rulesets/{here.api(path, method, wanted)['id']}")["rules"]}
    if lost := {rule["type"] for rule in wanted["rules"]} - held:
        raise PipelineError(f"GitHub accepted the ruleset of {here.name} without its rules {', '.join(sorted(lost))}")
    return [*done, f"main of {here.name} has the rules of {mode}.json: {', '.join(sorted(held))}"]


def main() -> int:
    """Run ``make protect`` and return the exit code; 1: refused; 2: there is no such mode."""
    modes = sorted(path.stem for path in RULESETS.glob("*.json"))
    mode = sys.argv[1] if len(sys.argv) > 1 else "solo"
    if mode not in modes:
        print(f"make protect: MODE={mode}: choose {' or '.join(modes)}", file=sys.stderr)
        return 2
    try:
        print(*protect(mode), sep="\n")
    except PipelineError as error:
        print(f"make protect: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
