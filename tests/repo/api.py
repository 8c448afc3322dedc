"""A stand-in for GitHub's API in this process: what `make setup` and `make doctor` ask, in the documented shapes.

docs.github.com/rest: repos/repos, repos/rules, actions/permissions, actions/oidc, actions/variables,
deployments/environments, deployments/branch-policies, issues/labels, users/users, orgs/orgs.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from pipeline.github import PipelineError

UPGRADE = "Upgrade to GitHub Pro or make this repository public to enable this feature. (HTTP 403)"
MISSING = "Not Found (HTTP 404)"


class KilledError(BaseException):
    """The process was killed after a call; nothing catches it."""


def error(text: str) -> PipelineError:
    return PipelineError(f"`gh api --method` exited with 1: gh: {text}")


def first_page(found: Any, path: str) -> Any:
    """What GitHub answers at once: 30 of a list, 10 variables, or as many as are asked for, but never all."""
    most = 30 if "/variables" in path else 100
    asked = re.search(r"per_page=(\d+)", path)
    size = min(most, int(asked[1]) if asked else 10 if "/variables" in path else 30)
    if isinstance(found, list):
        return found[:size]
    return {key: one[:size] if isinstance(one, list) else one for key, one in found.items()}


class Api:
    """A repository of an account on a plan. Call number ``refused`` is refused, and ``killed`` is the last one."""

    def __init__(self, plan: str = "free", private: bool = False, organisation: bool = False) -> None:
        self.plan, self.private, self.organisation = plan, private, organisation
        self.about: dict[str, Any] = {
            "id": 456789,
            "name": "fleet",
            "full_name": "someone/fleet",
            "private": private,
            "default_branch": "main",
            "owner": {"login": "someone", "id": 123456, "type": "Organization" if organisation else "User"},
            "permissions": {"admin": True},
            "allow_auto_merge": False,
            "allow_squash_merge": True,
            "delete_branch_on_merge": False,
        }
        self.permissions: dict[str, Any] = {"enabled": True, "allowed_actions": "selected"}
        self.token = {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": False}
        self.switches = {"/private-vulnerability-reporting": False, "/immutable-releases": False}
        self.environments: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, list[dict[str, Any]]] = {}
        self.rulesets: list[dict[str, Any]] = []
        self.labels: list[str] = ["bug", "enhancement"]
        self.variables: dict[str, str] = {}
        self.subject: dict[str, Any] = {
            "use_default": True,
            "use_immutable_subject": True,
            "sub_claim_prefix": "repo:someone@123456/fleet@456789",
        }
        self.calls: list[tuple[str, str]] = []
        self.refused = self.killed = 0
        self.knows_plan = True

    @property
    def paid(self) -> bool:
        return not self.private or self.plan != "free"

    def gh(self, *words: str, stdin: str | None = None, env: object = None) -> str:
        """Answer ``gh api`` as :func:`pipeline.github.gh` does."""
        assert words[0] == "api", words
        method = words[words.index("--method") + 1] if "--method" in words else "GET"
        path = next(word for word in words[1:] if "/" in word or word == "user")
        self.calls.append((method, path))
        if self.refused == len(self.calls):
            raise error("HTTP 502: Bad Gateway")
        before = copy.deepcopy(self.__dict__)
        try:
            found = self.answer(method, path, json.loads(stdin or "null"))
        except PipelineError:
            assert {key: value for key, value in before.items() if key != "calls"} == {
                key: value for key, value in self.__dict__.items() if key != "calls"
            }
            raise
        if self.killed == len(self.calls):
            raise KilledError
        if method == "GET" and "--paginate" in words:
            every = found if isinstance(found, list) else found[words[words.index("--jq") + 1][1:].partition("[")[0]]
            return "\n".join(json.dumps(one) for one in every)
        return "" if found is None else json.dumps(found if method != "GET" else first_page(found, path))

    def answer(self, method: str, path: str, body: Any) -> Any:
        if path in ("user", "orgs/someone"):
            return {"login": "someone", "id": 123456, **({"plan": {"name": self.plan}} if self.knows_plan else {})}
        path = path.removeprefix("repos/someone/fleet").partition("?")[0]
        if path == "":
            return self.repository(method, body)
        if path in self.switches:
            return self.switch(method, path)
        routes: list[tuple[str, Callable[..., Any]]] = [
            (r"/actions/permissions", self.of_actions),
            (r"/actions/permissions/workflow", self.of_token),
            (r"/environments", self.listed),
            (r"/environments/(\w+)", self.environment),
            (r"/environments/(\w+)/deployment-branch-policies(?:/(\d+))?", self.policy),
            (r"/rulesets(?:/(\d+))?", self.ruleset),
            (r"/labels", self.label),
            (r"/actions/variables(?:/(\w+))?", self.variable),
            (r"/actions/oidc/customization/sub", lambda *_: self.subject),
            (r"/environments/([^/]+)/(secrets|variables)", self.of_environment),
            (r"/actions/(secrets)", lambda _, __, kind: {"total_count": 0, kind: []}),
        ]
        for pattern, route in routes:
            if found := re.fullmatch(pattern, path):
                return route(method, body, *found.groups())
        raise AssertionError(f"the stand-in does not know {method} {path}")

    def repository(self, method: str, body: Any) -> Any:
        if method == "PATCH":
            self.about |= body if self.paid else {k: v for k, v in body.items() if k != "allow_auto_merge"}
        return self.about

    def switch(self, method: str, path: str) -> Any:
        if path == "/private-vulnerability-reporting" and self.private:
            raise error("Validation Failed (HTTP 422)")
        if method == "PUT":
            self.switches[path] = True
            return None
        if path == "/immutable-releases" and not self.switches[path]:
            raise error(MISSING)
        return {"enabled": self.switches[path]}

    def of_actions(self, method: str, body: Any) -> Any:
        if method == "PUT":
            self.permissions = body
            return None
        return self.permissions

    def of_token(self, method: str, body: Any) -> Any:
        if method == "PUT":
            self.token = body
            return None
        return self.token

    def listed(self, method: str, body: Any) -> Any:
        return {"total_count": len(self.environments), "environments": list(self.environments.values())}

    def environment(self, method: str, body: Any, name: str) -> Any:
        """What a PUT leaves out is removed."""
        if not self.paid:
            raise error(MISSING)
        rules: list[dict[str, Any]] = []
        if body.get("reviewers"):
            if self.private and self.plan != "enterprise":
                raise error("Validation Failed (HTTP 422)")
            people = [{"type": one["type"], "reviewer": {"id": one["id"]}} for one in body["reviewers"]]
            self_review = body.get("prevent_self_review", False)
            rules.append({"type": "required_reviewers", "reviewers": people, "prevent_self_review": self_review})
        if body.get("wait_timer"):
            rules.append({"type": "wait_timer", "wait_timer": body["wait_timer"]})
        policy = body.get("deployment_branch_policy")
        rules += [{"type": "branch_policy"}] if policy else []
        self.environments[name] = {"name": name, "protection_rules": rules, "deployment_branch_policy": policy}
        self.policies.setdefault(name, [])
        return self.environments[name]

    def policy(self, method: str, body: Any, name: str, number: str | None) -> Any:
        if name not in self.environments:
            raise error(MISSING)
        found = self.policies[name]
        if method == "POST":
            if not (self.environments[name]["deployment_branch_policy"] or {}).get("custom_branch_policies"):
                raise error(MISSING)
            assert body not in [{key: one[key] for key in body} for one in found], "HTTP 303: it exists"
            found.append({"id": len(found) + 900, **body})
            return found[-1]
        if method == "DELETE":
            self.policies[name] = [one for one in found if str(one["id"]) != number]
            return None
        return {"total_count": len(found), "branch_policies": found}

    def of_environment(self, method: str, body: Any, name: str, kind: str) -> Any:
        """An environment that a path does not name is 404, as one that is not there."""
        if unquote(name) not in self.environments:
            raise error(MISSING)
        found = self.environments[unquote(name)].get(kind, {})
        return {"total_count": len(found), kind: [{"name": one, "value": value} for one, value in found.items()]}

    def ruleset(self, method: str, body: Any, number: str | None) -> Any:
        if not self.paid:
            raise error(UPGRADE)
        queue = body and any(rule["type"] == "merge_queue" for rule in body["rules"])
        if queue and (not self.organisation or (self.private and self.plan != "enterprise")):
            raise error("Validation Failed: Invalid rule 'merge_queue' (HTTP 422)")
        if method == "POST":
            self.rulesets.append({"id": len(self.rulesets) + 5, **body})
            return self.rulesets[-1]
        if method == "GET" and number is None:
            return [{key: one[key] for key in ("id", "name", "target", "enforcement")} for one in self.rulesets]
        one = next(one for one in self.rulesets if str(one["id"]) == number)
        if method == "PUT":
            one |= body
        return one

    def label(self, method: str, body: Any) -> Any:
        if method == "POST":
            assert body["name"] not in self.labels, "HTTP 422: already_exists"
            self.labels.append(body["name"])
        return [{"name": name} for name in self.labels]

    def variable(self, method: str, body: Any, name: str | None) -> Any:
        if method == "POST":
            assert body["name"] not in self.variables, "HTTP 409: already exists"
        if body:
            self.variables[name or body["name"]] = body["value"]
            return None
        found = [{"name": name, "value": value} for name, value in self.variables.items()]
        return {"total_count": len(found), "variables": found}
