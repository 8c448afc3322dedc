"""Put .github/rulesets/<mode>.json on this repository, and switch on what the line needs: ``make protect [MODE=team]``.

It says what it changed and reads the rules back. Safe to run again: the ruleset has one name in both modes, so that one
replaces the other.
"""

from __future__ import annotations

import json
import sys

from dev.desk import ROOT, RefusedError, api, repository

RULESETS = ROOT / ".github/rulesets"


def protect(mode: str) -> list[str]:
    """Apply the rules of a mode; one line for each thing done.

    Raises:
        RefusedError: it cannot be done here, or did not hold.
    """
    wanted = json.loads((RULESETS / f"{mode}.json").read_text(encoding="utf-8"))
    name = repository()
    here = f"repos/{name}"
    about = api(here)
    if not about.get("permissions", {}).get("admin"):
        raise RefusedError(f"only an administrator of {name} may set its rules")
    if mode == "team" and about["owner"]["type"] != "Organization":
        raise RefusedError(
            f"{name} belongs to a person, and merge queues are for organisations: make protect MODE=solo"
        )
    api(here, "PATCH", {"allow_auto_merge": True, "allow_squash_merge": True, "delete_branch_on_merge": True})
    said = ["pull requests may merge themselves once they are green, and their branches go then"]
    try:
        api(f"{here}/private-vulnerability-reporting", "PUT")
        said.append("weaknesses can be reported privately")
    except RefusedError as error:  # a private copy has no strangers who would
        said.append(f"skipped: private reports of weaknesses: {error}")
    same = [rules for rules in api(f"{here}/rulesets?includes_parents=false") if rules["name"] == wanted["name"]]
    path, method = (f"{here}/rulesets/{same[0]['id']}", "PUT") if same else (f"{here}/rulesets", "POST")
    held = {rule["type"] for rule in api(f"{here}/rulesets/{api(path, method, wanted)['id']}")["rules"]}
    if lost := {rule["type"] for rule in wanted["rules"]} - held:
        raise RefusedError(f"GitHub took the ruleset of {name}, but not its rules {', '.join(sorted(lost))}")
    return [*said, f"main of {name} is under the rules of {mode}.json: {', '.join(sorted(held))}"]


def main() -> int:
    """Apply. Exit code 2: no such mode; 1: refused."""
    modes = sorted(path.stem for path in RULESETS.glob("*.json"))
    mode = sys.argv[1] if len(sys.argv) > 1 else "solo"
    if mode not in modes:
        print(f"make protect: MODE={mode}: choose {' or '.join(modes)}", file=sys.stderr)
        return 2
    try:
        print(*protect(mode), sep="\n")
    except RefusedError as error:
        print(f"make protect: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
