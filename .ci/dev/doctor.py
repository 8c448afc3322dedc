"""Print what is configured here, and what is skipped and why: ``make doctor``. It changes nothing and shows no secret.

Every line is ``ok``, ``skip`` (works without it; the line says what is skipped) or ``MISS`` (needed; the line says how
to fix it). What cannot be asked, offline or without gh, is skipped with that reason. Exit code 1: something is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from dev import points
from dev.origin import Origin, origin
from pipeline import pin_access
from pipeline.github import ROOT, PipelineError

Line = tuple[str, str, str]  # ok, skip or MISS; the thing; its state
WORKFLOWS = ROOT / ".github/workflows"
WITHOUT = {
    "actionlint": "make policy checks the workflows with zizmor and the repository's own tests alone",
    "gitleaks": "make policy does not look for secrets; GitHub does when a public repository is pushed to",
    "kube-score": "make manifests renders without its advice",
    "kustomize": "make manifests uses kubectl, else renders nothing; GitHub's runners have both",
    "promtool": "make check does not fire the alerts",
}
GIVEN = {"GITHUB_TOKEN"}  # GitHub gives it to every run


def machine() -> Iterator[Line]:
    """Yield a line for each program of this machine."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield ("ok" if sys.version_info >= (3, 11) else "MISS"), "Python", f"{found}; 3.11 or newer is needed"
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".venv/bin/uv"))
    yield ("ok", "uv", uv) if uv else ("skip", "uv", "make installs it into .venv when it is needed")
    engine = os.environ.get("DOCKER", "docker")
    try:
        answers = subprocess.run([engine, "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    why = (
        f"`{engine} info` fails: no make before, image, image-test, image-same, sbom; name another client: DOCKER=path"
    )
    yield ("ok", "container engine", engine) if answers else ("skip", "container engine", why)
    for name, without in WITHOUT.items():
        there = shutil.which(name)
        yield ("ok", name, there) if there else ("skip", name, f"not on PATH: {without}; make checkers builds it")


def settings() -> dict[str, dict[str, set[str]]]:
    """Return the variables and secrets that workflows use: kind, then name, then the workflows."""
    asked: dict[str, dict[str, set[str]]] = {"vars": {}, "secrets": {}}
    for path in sorted(WORKFLOWS.glob("*.yml")):
        for kind, name in re.findall(r"\b(vars|secrets)\.([A-Za-z_]\w*)", path.read_text(encoding="utf-8")):
            if name not in GIVEN:
                asked[kind].setdefault(name, set()).add(path.name)
    return asked


def data() -> Line:
    """Return what it takes to read the data that is pinned."""
    path = ROOT / pin_access.PIN
    parts = pin_access.parts_of(path.read_text(encoding="utf-8")) if path.is_file() else []
    if found := pin_access.clouds(parts):
        told = [f"{place} takes a login to {name}" for name, place in found.items()]
        return "ok", "pinned data", f"{', '.join(told)}; forks and Dependabot are not judged"
    if not parts:
        return "MISS", "pinned data", f"{pin_access.PIN} names none: restore it from git"
    return (
        "ok",
        "pinned data",
        ", ".join(dict.fromkeys(str(part.get("kind")) for part in parts)) + "; it takes no login",
    )


def logins() -> dict[str, str]:
    """Return the variables that a login to the pinned data needs, each with the place of the data."""
    path = ROOT / pin_access.PIN
    found = pin_access.clouds(pin_access.parts_of(path.read_text(encoding="utf-8")) if path.is_file() else [])
    return {name: place for cloud, place in found.items() for name in pin_access.VARIABLES[cloud]}


def owners() -> Line:
    """Return what is configured for the code owners."""
    text = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rules:
        return "ok", "code owners", f"{len(rules)} rules"
    return "skip", "code owners", "nobody is named in .github/CODEOWNERS; only teams need them"


def copy(here: Origin, about: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines for the repository on GitHub: where it comes from, and its settings."""
    kind = "private" if about.get("private") else "public"
    if about.get("fork"):
        yield (
            "skip",
            "copy",
            f"{kind} fork of {about.get('parent', {}).get('full_name', 'another')}: schedules are off, and pull "
            "requests go there unless `make pr` opens them; docs/living-with-it.md lists the rest",
        )
    else:
        template = (about.get("template_repository") or {}).get("full_name")
        yield "ok", "copy", f"{kind}, " + (f"from the template {template}" if template else "made without a template")
    yield from asserted(points.probe(here))
    found = here.objects("environments", "environments")
    yield from configured(here, [place["name"] for place in found])


def asserted(repository: points.Repository) -> Iterator[Line]:
    """Yield a line for each point of `make setup`; one that this login may not read is skipped."""
    yield "ok", "plan", f"{repository.visibility}, {repository.said_plan}; docs/living-with-it.md has what it offers"
    for point in points.of(repository, mode_of(repository)):
        if without := repository.without(point):
            yield "skip", point.what, without
            continue
        try:
            differs = point.differs(repository)
        except (PipelineError, KeyError, TypeError) as error:
            yield "skip", point.what, f"cannot be read with this login ({error})"
            continue
        yield ("MISS", point.what, f"{differs}: run make setup") if differs else ("ok", point.what, point.wanted)
    try:
        yield "ok", "OIDC subjects", " ".join(points.subjects(repository).split())
    except (PipelineError, KeyError, TypeError) as error:
        yield "skip", "OIDC subjects", f"cannot be read with this login ({error})"


def mode_of(repository: points.Repository) -> str:
    """Return which of the two rulesets was applied: that of a team asks for reviews."""
    try:
        found = points.held(repository, "main")
    except (PipelineError, KeyError, TypeError):
        found = {}
    asked = [rule.get("parameters") or {} for rule in found.get("rules", []) if rule["type"] == "pull_request"]
    return "team" if any(one.get("required_approving_review_count") for one in asked) else "solo"


def configured(here: Origin, places: list[str]) -> Iterator[Line]:
    """Yield a line for each variable and secret that a workflow uses: where it is set, or what is skipped without."""
    for kind, path, word in (("vars", "variables", "variable"), ("secrets", "secrets", "secret")):
        addresses = {"the repository": f"actions/{path}"}
        addresses |= {place: f"environments/{quote(place, safe='')}/{path}" for place in places}
        there: dict[str, list[str]] = {}
        for place, address in addresses.items():
            for entry in here.objects(address, path):
                there.setdefault(entry["name"], []).append(place)
                if entry["name"] == "LOG_SINK" and not pin_access.cloud({"location": entry.get("value", "")}):
                    yield "skip", "retraining", pin_access.unreadable(entry.get("value", ""))
        for name, flows in sorted(settings()[kind].items()):
            if name in there:
                yield "ok", f"{word} {name}", "set in " + ", ".join(there[name])
            elif name == "DATABRICKS_CLIENT_ID" and "DATABRICKS_HOST" in there:
                yield "MISS", f"{word} {name}", "not set, and DATABRICKS_HOST is: .github/README.md says what it is"
            elif name in logins():
                fix = f"not set, and training needs it to read {logins()[name]}: .github/README.md says what it is"
                yield "MISS", f"{word} {name}", fix
            elif name == "LOG_SINK":
                why = "not set: retraining is skipped; Actions cannot read a log on a pod's own volume, so ship it to "
                yield "skip", f"{word} {name}", f"{why}az://, s3:// or gs://"
            else:
                yield "skip", f"{word} {name}", f"not set: what needs it is skipped in {', '.join(sorted(flows))}"


def remote() -> Iterator[Line]:
    """Yield all that GitHub knows, or one line with the reason why it cannot be asked."""
    try:
        here = origin()
        yield "ok", "remote origin", here.name
        if os.environ.get("GITHUB_ACTIONS") == "true":
            yield "ok", "login of gh", "the token of this run, which may not read every setting"
        else:
            yield "ok", "login of gh", here.gh("api", "user", "--jq", ".login")
        yield from copy(here, here.api())
    except (PipelineError, KeyError, TypeError) as error:
        yield "skip", "GitHub", f"not asked: {error}"


def main() -> int:
    """Print the table and return the exit code; 1: something needed is missing."""
    lines = [*machine(), owners(), data()]
    lines += remote()
    wide = max(len(what) for _, what, _ in lines)
    for state, what, said in lines:
        print(f"{state:4}  {what:{wide}}  {said}")
    missing = sum(state == "MISS" for state, _, _ in lines)
    print(f"\n{missing} missing" if missing else "\nnothing that is needed is missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
