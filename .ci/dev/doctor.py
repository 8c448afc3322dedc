"""Say what is set up here, and what is skipped and why: ``make doctor``. It changes nothing, and shows no secret.

Every line is ``ok``, ``skip`` (works without it; the line says what is skipped) or ``MISS`` (needed, with its mend).
What cannot be asked, offline or without gh, is skipped with that reason. Exit code 1: something needed is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from dev.desk import ROOT, RefusedError, api, repository, run

Line = tuple[str, str, str]  # ok, skip or MISS; what; what of it
WORKFLOWS = ROOT / ".github/workflows"
WITHOUT = {
    "actionlint": "make policy leaves the workflows to zizmor and the repository's own tests",
    "gitleaks": "make policy looks for no secrets; GitHub does when a public repository is pushed to",
    "kustomize": "make manifests takes kubectl, else renders nothing; GitHub's runners have both",
}
GIVEN = {"GITHUB_TOKEN"}  # by GitHub, to every run


def machine() -> Iterator[Line]:
    """The programs of this machine."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield ("ok" if sys.version_info >= (3, 11) else "MISS"), "Python", f"{found}; 3.11 or newer is needed"
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".venv/bin/uv"))
    yield ("ok", "uv", uv) if uv else ("skip", "uv", "make puts it into .venv when it is needed")
    engine = os.environ.get("DOCKER", "docker")
    try:
        answers = subprocess.run([engine, "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    why = f"`{engine} info` is silent: no make image, image-test, image-same, sbom; name another client: DOCKER=path"
    yield ("ok", "container engine", engine) if answers else ("skip", "container engine", why)
    for name, without in WITHOUT.items():
        there = shutil.which(name)
        yield ("ok", name, there) if there else ("skip", name, f"not on PATH: {without}")


def settings() -> dict[str, dict[str, set[str]]]:
    """The variables and secrets that workflows ask for: kind, name, the workflows."""
    asked: dict[str, dict[str, set[str]]] = {"vars": {}, "secrets": {}}
    for path in sorted(WORKFLOWS.glob("*.yml")):
        for kind, name in re.findall(r"\b(vars|secrets)\.([A-Za-z_]\w*)", path.read_text(encoding="utf-8")):
            if name not in GIVEN:
                asked[kind].setdefault(name, set()).add(path.name)
    return asked


def owners() -> Line:
    """Whether anyone owns the code."""
    text = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rules:
        return "ok", "code owners", f"{len(rules)} rules"
    return "skip", "code owners", "nobody is written into .github/CODEOWNERS; only teams need them"


def copy(about: dict) -> Iterator[Line]:
    """The repository on GitHub, and whether it can work and ship."""
    name = about["full_name"]
    here = f"repos/{name}"
    kind = "private" if about.get("private") else "public"
    if about.get("fork"):
        yield (
            "skip",
            "copy",
            f"{kind} fork of {about.get('parent', {}).get('full_name', 'another')}: schedules are off, and pull "
            "requests point there unless `make pr` opens them; docs/living-with-it.md says what else",
        )
    else:
        origin = (about.get("template_repository") or {}).get("full_name")
        yield "ok", "copy", f"{kind}, " + (f"from the template {origin}" if origin else "on its own")
    on = api(f"{here}/actions/permissions")["enabled"]
    yield ("ok", "Actions", "on") if on else ("MISS", "Actions", "off: Settings, Actions, General; or the Actions tab")
    merge = about.get("allow_auto_merge")
    yield ("ok", "auto-merge", "on") if merge else ("MISS", "auto-merge", "off, so make pr cannot arm it: make protect")
    rules = {rule["type"] for rule in api(f"{here}/rules/branches/{about['default_branch']}")}
    if {"pull_request", "required_status_checks"} <= rules:
        yield "ok", "rules of main", ", ".join(sorted(rules))
    else:
        yield "MISS", "rules of main", "anyone may push what is not green: make protect"
    found = {place["name"]: place for place in api(f"{here}/environments")["environments"]}
    for place in ("staging", "production"):
        if place not in found:
            yield "skip", f"environment {place}", "not there, so nothing is deployed to it"
        elif place == "production" and not found[place].get("protection_rules"):
            yield "MISS", f"environment {place}", "has no protection rules, so deploying to it is refused"
        else:
            yield "ok", f"environment {place}", f"{len(found[place].get('protection_rules', []))} protection rules"
    yield from configured(here, list(found))


def configured(here: str, environments: list[str]) -> Iterator[Line]:
    """Each variable and secret that a workflow asks for: where it is set, or who does without."""
    for kind, path, word in (("vars", "variables", "variable"), ("secrets", "secrets", "secret")):
        places = {"the repository": f"{here}/actions/{path}"}
        places |= {place: f"{here}/environments/{place}/{path}" for place in environments}
        there: dict[str, list[str]] = {}
        for place, address in places.items():
            for entry in api(f"{address}?per_page=100")[path]:
                there.setdefault(entry["name"], []).append(place)
        for name, flows in sorted(settings()[kind].items()):
            if name in there:
                yield "ok", f"{word} {name}", "set in " + ", ".join(there[name])
            else:
                yield "skip", f"{word} {name}", f"not set: what needs it is skipped in {', '.join(sorted(flows))}"


def github() -> Iterator[Line]:
    """All that GitHub knows, or the reason why it cannot be asked."""
    try:
        name = repository()
        yield "ok", "remote origin", name
        yield "ok", "login of gh", run("gh", "api", "user", "--jq", ".login")
        yield from copy(api(f"repos/{name}"))
    except (RefusedError, KeyError, TypeError) as error:
        yield "skip", "GitHub", f"the rest is not asked: {error}"


def main() -> int:
    """Print the table."""
    lines = [*machine(), owners()]
    lines += github()
    wide = max(len(what) for _, what, _ in lines)
    for state, what, said in lines:
        print(f"{state:4}  {what:{wide}}  {said}")
    missing = sum(state == "MISS" for state, _, _ in lines)
    print(f"\n{missing} missing" if missing else "\nnothing that is needed is missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
