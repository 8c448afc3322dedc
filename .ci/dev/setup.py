"""Set up this repository on GitHub: ``make setup [MODE=team] [VARIABLES="NAME=value …"] [DRY_RUN=1]``.

It uses the person's own login of gh. First it reads everything and changes nothing: plan, visibility, and each point of
points.py. Then it changes what differs, one call at a time, and reads that back. It can be stopped anywhere and run
again. What a plan does not offer is left out, and the line says what is done instead. `make doctor` asserts the same
points.
"""

from __future__ import annotations

import os
import re
import sys

from dev import points
from dev.origin import Origin, origin
from dev.points import Point, Repository
from pipeline.github import ROOT, PipelineError

CODEOWNERS = ROOT / ".github/CODEOWNERS"
REFUSALS = ("Upgrade to", "not available", "not supported", "HTTP 403", "HTTP 404")  # of what a plan does not offer
Line = tuple[str, str, str]  # ok, done, would, skip or FAIL; the thing; its state


def asked(text: str) -> dict[str, str]:
    """Return the variables of ``NAME=value NAME=value``.

    Raises:
        PipelineError: a word has no name or no value.
    """
    found = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not value or name.upper().startswith("GITHUB_"):
            raise PipelineError(f'VARIABLES has {word!r}; write: VARIABLES="DEPLOY_TO=staging OVERLAY=aks"')
        found[name] = value
    return found


def owners(mode: str, named: str) -> str:
    """Name the owners of the pipeline in CODEOWNERS for a team; return what was done, or an empty text.

    Raises:
        PipelineError: a team's rules ask for code owners, and there is none.
    """
    text = CODEOWNERS.read_text(encoding="utf-8")
    if mode != "team" or re.search(r"^[^#\s]", text, re.MULTILINE):
        return ""
    if not re.fullmatch(r"@[\w.-]+(/[\w.-]+)?( @[\w.-]+(/[\w.-]+)?)*", named):
        raise PipelineError(
            "the rules of a team ask code owners, and .github/CODEOWNERS names none; say who: "
            "make setup MODE=team OWNERS=@org/team"
        )
    CODEOWNERS.write_text(re.sub(r"^# (/\S+ +)@OWNER$", rf"\g<1>{named}", text, flags=re.MULTILINE), encoding="utf-8")
    return f"{named} must approve changes of the pipeline and the gate: commit .github/CODEOWNERS, and make pr"


def read(repository: Repository, point: Point) -> Line:
    """Return a line that says whether a point is as wanted; nothing is changed."""
    if without := repository.without(point):
        return "skip", point.what, without
    try:
        differs = point.differs(repository)
    except PipelineError as error:
        return refused(repository, point, error) or ("FAIL", point.what, f"cannot be read: {error}")
    return ("would", point.what, differs) if differs else ("ok", point.what, point.wanted)


def refused(repository: Repository, point: Point, error: PipelineError) -> Line | None:
    """Return a line where GitHub refused what a plan that is not known may not offer; else None."""
    if point.feature and not repository.plan and any(word in str(error) for word in REFUSALS):
        return "skip", point.what, f"GitHub refuses it ({error}), so {points.without(point.feature)}"
    return None


def write(repository: Repository, point: Point, differs: str) -> Line:
    """Change a point, read it back and return a line that says so."""
    try:
        point.write(repository)
        left = point.differs(repository)
    except PipelineError as error:
        return refused(repository, point, error) or ("FAIL", point.what, str(error))
    if left and point.feature and not repository.plan:
        return "skip", point.what, f"GitHub ignores it, so {points.without(point.feature)}"
    if left:
        return "FAIL", point.what, f"GitHub accepted the change, and still: {left}"
    return "done", point.what, f"{differs}; now {point.wanted}"


def run(here: Origin, mode: str, variables: dict[str, str], dry: bool) -> list[Line]:
    """Bring the repository to what is wanted; return a line for each point.

    Raises:
        PipelineError: the repository cannot be asked, or this login may not change it.
    """
    repository = points.probe(here)
    if not repository.about.get("permissions", {}).get("admin"):
        raise PipelineError(f"only an administrator of {here.name} may set it up")
    if mode == "team" and not repository.organisation:
        raise PipelineError(f"{here.name} belongs to a person, and a team's rules are for organisations: make setup")
    wanted = points.of(repository, mode, variables)
    lines = [read(repository, point) for point in wanted]
    if dry or any(state == "FAIL" for state, _, _ in lines):
        return lines
    return [
        write(repository, point, line[2]) if line[0] == "would" else line
        for point, line in zip(wanted, lines, strict=True)
    ]


def main() -> int:
    """Run ``make setup`` and return the exit code; 1: something is not as wanted; 2: there is no such mode."""
    mode, dry = os.environ.get("MODE") or "solo", bool(os.environ.get("DRY_RUN"))
    if mode not in points.MODES:
        print(f"make setup: MODE={mode}: choose {' or '.join(points.MODES)}", file=sys.stderr)
        return 2
    try:
        variables = asked(os.environ.get("VARIABLES", ""))
        here = origin()
        if not dry and (said := owners(mode, os.environ.get("OWNERS", ""))):
            print(said)
        lines = run(here, mode, variables, dry)
        repository = points.probe(here)
        told = points.subjects(repository)
    except PipelineError as error:
        print(f"make setup: {error}", file=sys.stderr)
        return 1
    wide = max(len(what) for _, what, _ in lines)
    print(f"{here.name}: {repository.visibility}, {repository.said_plan}\n")
    for state, what, said in lines:
        print(f"{state:5}  {what:{wide}}  {said}")
    print(f"\nWhat GitHub's tokens say of a job in an environment, and what a cloud must trust:\n{told}")
    failed = [what for state, what, _ in lines if state == "FAIL"]
    if failed:
        changed = "" if any(state == "done" for state, _, _ in lines) else "; nothing was changed"
        print(f"\nmake setup: {len(failed)} points failed{changed}. Run it again.", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
