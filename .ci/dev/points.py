"""The points in which a repository on GitHub must be as the pipeline needs it; `make setup` makes them so.

Each point can be read and written alone, and writing it twice is the same as once. The answers' shapes are those of
docs.github.com/rest: actions/permissions, actions/oidc, actions/variables, deployments/environments,
deployments/branch-policies, repos/repos, repos/rules, issues/labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dev import plans
from dev.origin import Origin
from pipeline import environments
from pipeline.github import ROOT, PipelineError

RULESETS = ROOT / ".github/rulesets"
MODES = tuple(sorted(path.stem for path in RULESETS.glob("*.json")))
# What holds secrets or an identity that deploys. `data` is not one of them: every branch reads the data that it names.
ENVIRONMENTS: tuple[str, ...] = ("approval", "bot", "mlflow", "production", "staging")
ENVIRONMENTS += ("azureml",)
ENVIRONMENTS += ("databricks",)
LABELS = {
    "bug": ("d73a4a", "Something does not do what it says"),
    "idea": ("a2eeef", "Something that is missing"),
    "model": ("5319e7", "What the model answered"),
}
MERGING = {"allow_auto_merge": True, "allow_squash_merge": True, "delete_branch_on_merge": True}
TOKEN = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": True}


@dataclass(frozen=True)
class Repository:
    """A repository as GitHub describes it, and the plan of its owner; an empty plan is not known."""

    here: Origin
    about: dict[str, Any]
    plan: str

    @property
    def main(self) -> str:
        """The default branch."""
        return str(self.about["default_branch"])

    @property
    def organisation(self) -> bool:
        """Whether an organisation owns it."""
        return bool(self.about["owner"]["type"] == "Organization")

    @property
    def visibility(self) -> str:
        """``private`` or ``public``."""
        return "private" if self.about.get("private") else "public"

    @property
    def said_plan(self) -> str:
        """The plan, in words."""
        return f"on the plan {self.plan.capitalize()}" if self.plan else "on a plan that this login may not read"

    def offers(self, feature: str) -> bool:
        """Return whether GitHub offers a feature to this repository."""
        return plans.offered(feature, self.plan, bool(self.about.get("private")), self.organisation)

    def without(self, point: Point) -> str:
        """Return what is done instead where GitHub does not offer what a point needs; else an empty text."""
        if not point.feature or self.offers(point.feature):
            return ""
        return f"GitHub does not offer it to a {self.visibility} repository {self.said_plan}: {without(point.feature)}"


@dataclass(frozen=True)
class Point:
    """One setting: how to read in what it differs (an empty text: in nothing), and how to write it."""

    what: str
    wanted: str
    feature: str
    differs: Callable[[Repository], str]
    write: Callable[[Repository], Any]


def without(feature: str) -> str:
    """Return what the pipeline does without a feature."""
    return plans.FEATURES[feature].without


def probe(here: Origin) -> Repository:
    """Return the repository and its plan, which only the owner's login may read.

    Raises:
        PipelineError: the repository cannot be read.
    """
    about = here.api()
    path = f"orgs/{about['owner']['login']}" if about["owner"]["type"] == "Organization" else "user"
    try:
        account = json.loads(here.gh("api", path) or "{}")
    except PipelineError:  # the token of a run may not ask
        account = {}
    mine = path != "user" or account.get("login") == about["owner"]["login"]
    return Repository(here, about, plans.plan_of(account) if mine else "")


def compared(found: Any, wanted: dict[str, Any]) -> str:
    """Return which values of an answer are not as wanted."""
    found = found or {}
    return ", ".join(f"{key} is {found.get(key)}" for key, value in wanted.items() if found.get(key) != value)


def values(what: str, wanted: dict[str, Any], path: str, method: str, feature: str = "", said: str = "") -> Point:
    """Return the point of settings that one call reads and one call writes."""

    def write(repository: Repository) -> None:
        there = repository.here.api(path) if path else {}
        kept = {"allowed_actions": there["allowed_actions"]} if "allowed_actions" in (there or {}) else {}
        repository.here.api(path, method, kept | wanted)

    return Point(what, said or "on", feature, lambda it: compared(it.here.api(path), wanted), write)


def switch(what: str, path: str) -> Point:
    """Return the point of a feature that a PUT without a body turns on, and whose GET is 404 where it is off."""

    def differs(repository: Repository) -> str:
        try:
            on = repository.here.api(path)["enabled"]
        except PipelineError as error:
            if "HTTP 404" not in str(error):
                raise
            on = False
        return "" if on else "off"

    return Point(what, "on", what, differs, lambda it: it.here.api(path, "PUT"))


def guard(repository: Repository, name: str) -> None:
    """Let only main deploy to an environment; its reviewers and timers stay."""
    here = repository.here
    there = {one["name"]: one for one in here.objects("environments", "environments")}
    body: dict[str, Any] = {"deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True}}
    for rule in there.get(name, {}).get("protection_rules", []):
        if rule["type"] == "wait_timer":
            body["wait_timer"] = rule["wait_timer"]
        if rule["type"] == "required_reviewers":
            body["prevent_self_review"] = rule.get("prevent_self_review", False)
            body["reviewers"] = [{"type": one["type"], "id": one["reviewer"]["id"]} for one in rule["reviewers"]]
    here.api(f"/environments/{name}", "PUT", body)
    path, found = f"/environments/{name}/deployment-branch-policies", environments.policies(here.objects, name)
    right = [one for one in found if environments.is_main(one, repository.main)]
    if not right:
        here.api(path, "POST", {"name": repository.main, "type": "branch"})
    for one in found:
        if one not in right:
            here.api(f"{path}/{one['id']}", "DELETE")


def environment(name: str) -> Point:
    """Return the point of an environment that only main may use."""
    return Point(
        f"environment {name}",
        "only main may use it",
        "environments",
        lambda it: environments.unguarded(it.here.objects, name, it.main),
        lambda it: guard(it, name),
    )


def rules(repository: Repository, mode: str) -> dict[str, Any]:
    """Return the ruleset of a mode, without what GitHub does not offer here."""
    wanted: dict[str, Any] = json.loads((RULESETS / f"{mode}.json").read_text(encoding="utf-8"))
    if not repository.offers("merge queue"):
        wanted["rules"] = [rule for rule in wanted["rules"] if rule["type"] != "merge_queue"]
    return wanted


def held(repository: Repository, name: str) -> dict[str, Any]:
    """Return the ruleset of that name in full, or an empty one."""
    same = [one for one in repository.here.objects("rulesets?includes_parents=false") if one["name"] == name]
    found: dict[str, Any] = repository.here.api(f"/rulesets/{same[0]['id']}") if same else {}
    return found


def lacks(repository: Repository, wanted: dict[str, Any]) -> str:
    """Return in words what the ruleset on GitHub lacks of the wanted one, or has differently."""
    found = held(repository, wanted["name"])
    if not found:
        return "commits that are not green can be pushed to main"
    there = {rule["type"]: rule.get("parameters") or {} for rule in found["rules"]}
    # A login that may not write the ruleset is not shown who may bypass it.
    about = [key for key in ("target", "enforcement", "conditions", "bypass_actors") if key in found]
    bad = [said] if (said := compared(found, {key: wanted[key] for key in about})) else []
    for rule in wanted["rules"]:
        if rule["type"] not in there:
            bad.append(f"no rule {rule['type']}")
        elif said := compared(there[rule["type"]], rule.get("parameters", {})):
            bad.append(f"{rule['type']}: {said}")
    bad += [f"{kind} too" for kind in there if kind not in {rule["type"] for rule in wanted["rules"]}]
    return "; ".join(bad)


def ruleset(repository: Repository, mode: str) -> Point:
    """Return the point of the rules of main."""
    wanted = rules(repository, mode)

    def write(it: Repository) -> None:
        found = held(it, wanted["name"])
        path, method = (f"/rulesets/{found['id']}", "PUT") if found else ("/rulesets", "POST")
        it.here.api(path, method, wanted)

    kinds = ", ".join(rule["type"] for rule in wanted["rules"])
    return Point("rules of main", f"{mode}: {kinds}", "rules of main", lambda it: lacks(it, wanted), write)


def label(name: str) -> Point:
    """Return the point of a label that the forms for issues give."""
    colour, description = LABELS[name]

    def differs(repository: Repository) -> str:
        there = {one["name"].lower() for one in repository.here.objects("labels")}
        return "" if name in there else "is missing"

    body = {"name": name, "color": colour, "description": description}
    return Point(f"label {name}", "there", "", differs, lambda it: it.here.api("/labels", "POST", body))


def variable(name: str, value: str) -> Point:
    """Return the point of a variable of the repository that was asked for."""

    def there(repository: Repository) -> dict[str, str]:
        found = repository.here.objects("actions/variables", "variables")
        return {one["name"]: one["value"] for one in found}

    def write(repository: Repository) -> None:
        body = {"name": name.upper(), "value": value}
        if name.upper() in there(repository):
            repository.here.api(f"/actions/variables/{name.upper()}", "PATCH", body)
        else:
            repository.here.api("/actions/variables", "POST", body)

    def differs(repository: Repository) -> str:
        return "" if there(repository).get(name.upper()) == value else "is not set to that"

    return Point(f"variable {name.upper()}", value, "", differs, write)


def of(repository: Repository, mode: str, variables: dict[str, str] | None = None) -> list[Point]:
    """Return every point, in the order in which they are made so."""
    return [
        values("Actions", {"enabled": True}, "/actions/permissions", "PUT"),
        values(
            "token of runs",
            TOKEN,
            "/actions/permissions/workflow",
            "PUT",
            said="reads, unless a job asks for more; may open pull requests",
        ),
        values("auto-merge", {"allow_auto_merge": True}, "", "PATCH", feature="auto-merge"),
        values("merging", {key: MERGING[key] for key in list(MERGING)[1:]}, "", "PATCH", said="squash; branch deleted"),
        switch("private reports of vulnerabilities", "/private-vulnerability-reporting"),
        switch("immutable releases", "/immutable-releases"),
        *(environment(name) for name in ENVIRONMENTS),
        ruleset(repository, mode),
        *(label(name) for name in LABELS),
        *(variable(name, value) for name, value in (variables or {}).items()),
    ]


def subjects(repository: Repository) -> str:
    """Return the OIDC subjects of jobs in the environments, a line for each, exactly as GitHub's tokens have them.

    Repositories made since 2026-07-15 have ids in them (docs.github.com, "Immutable subject claims").

    Raises:
        PipelineError: GitHub cannot be asked.
    """
    found = repository.here.api("/actions/oidc/customization/sub") or {}
    if not found.get("use_default", True):
        keys = ":".join(found.get("include_claim_keys") or [])
        return f"  this repository has a template of its own ({keys}): read a token's `sub` before you trust it"
    prefix = found.get("sub_claim_prefix")
    if not prefix:
        owner, name = repository.here.name.split("/")
        if found.get("use_immutable_subject"):
            owner, name = f"{owner}@{repository.about['owner']['id']}", f"{name}@{repository.about['id']}"
        prefix = f"repo:{owner}/{name}"
    clouds = sorted({"data", *ENVIRONMENTS} - {"approval", "bot", "mlflow"})  # no cloud trusts those
    return "\n".join(f"  {prefix}:environment:{name}" for name in clouds)
