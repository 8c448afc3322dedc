"""Whether only main may use an environment, which holds secrets or an identity that deploys.

An environment that is absent is made without rules by the first job that names it, and then every branch may use it
(docs.github.com, "Managing environments for deployment"). A reviewer or a timer is no such rule: a workflow of a branch
waits for them, and reads the secrets then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline import github

Read = Callable[[str, str], list[dict[str, Any]]]  # a list by its path below repos/OWNER/NAME, and its name there


def unguarded(read: Read, name: str, main: str = "main") -> str:
    """Return in words why not only main may use an environment; an empty text where only main may.

    The rule "protected branches" does not count: it knows no rulesets, and where no branch has a protection rule of the
    old kind every branch may deploy.
    """
    there = {one["name"]: one for one in read("environments", "environments")}
    if name not in there:
        return "does not exist: the first job that names it would make one that every branch may use"
    rule = there[name].get("deployment_branch_policy") or {}
    if not rule.get("custom_branch_policies"):
        return "every protected branch may use it" if rule else "every branch may use it"
    found = policies(read, name)
    strange = sorted(one["name"] for one in found if not is_main(one, main))
    if strange:
        return f"{', '.join(strange)} may use it too"
    return "" if found else f"not even {main} may use it"


def is_main(policy: dict[str, Any], main: str) -> bool:
    """Return whether a policy allows the branch main, and not a tag of that name."""
    return bool(policy["name"] == main and policy.get("type", "branch") == "branch")


def policies(read: Read, name: str) -> list[dict[str, Any]]:
    """Return the branches and tags that may use an environment, as patterns."""
    return read(f"environments/{name}/deployment-branch-policies", "branch_policies")


def refuse_unguarded(names: list[str]) -> None:
    """Refuse to use an environment of this repository that other branches than main may use.

    Raises:
        PipelineError: there is one, or GitHub cannot be asked.
    """
    for name in names:
        try:
            why = unguarded(github.objects, name)
        except github.PipelineError as error:
            why = f"cannot be read ({error})"
        if why:
            raise github.PipelineError(
                f"the environment {name} is refused: {why}. An administrator sets it up with: make setup"
            )
