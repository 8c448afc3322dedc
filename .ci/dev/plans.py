"""What GitHub offers to which repository, by its plan and visibility, and what the pipeline does where it does not.

docs.github.com: "GitHub's plans", and the note "Who can use this feature" at the head of each feature's page. The table
in docs/living-with-it.md is this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLANS = ("free", "pro", "team", "enterprise")
OTHER_NAMES = {"business": "enterprise", "business_plus": "enterprise"}  # what the API calls some older plans
PAID = ("pro", "team", "enterprise")


@dataclass(frozen=True)
class Feature:
    """Which plans offer something to a private repository, who else has it, and what is done without."""

    private: tuple[str, ...]
    without: str
    public: bool = True
    organisations: bool = False


FEATURES = {
    "environments": Feature(
        PAID, "nothing can be deployed, and a secret of the repository is readable from every branch: set none"
    ),
    "reviewers of environments": Feature(
        ("enterprise",), "a deployment starts without a person; only main can deploy, through its branch policy"
    ),
    "rules of main": Feature(PAID, "anyone who may write can push to main: watch for its red runs"),
    "auto-merge": Feature(PAID, "make pr opens the pull request, and a person merges it"),
    "code owners": Feature(PAID, "nobody in particular must approve a change of the pipeline"),
    "merge queue": Feature(
        ("enterprise",),
        "MODE=team leaves it out: a pull request is merged as it was tested",
        organisations=True,
    ),
    "attestations": Feature(
        ("enterprise",), "releases are not signed: they are compared with the artifacts of the run that made them"
    ),
    "immutable releases": Feature(PLANS, "files and tags of a release can be changed, which verification then notices"),
    "private reports of vulnerabilities": Feature((), "SECURITY.md must name an address"),
    "code scanning": Feature((), "CodeQL and dependency review are skipped, unless GitHub Advanced Security is bought"),
}


def offered(name: str, plan: str, private: bool, organisation: bool) -> bool:
    """Return whether a feature is offered; a plan that is not known is assumed to offer it, and GitHub may refuse."""
    feature = FEATURES[name]
    if feature.organisations and not organisation:
        return False
    if not private:
        return feature.public
    return bool(feature.private) and (plan not in PLANS or plan in feature.private)


def plan_of(account: dict[str, Any]) -> str:
    """Return the plan of an account, as the API describes it to its owner; an empty text where it does not say."""
    name = str((account.get("plan") or {}).get("name", "")).lower()
    return OTHER_NAMES.get(name, name)


def rows() -> list[str]:
    """Return the table of the docs, a line for each feature."""
    found = []
    for name, feature in FEATURES.items():
        who = "organisations" if feature.organisations else "yes"
        private = {PLANS: "yes", (): "no"}.get(feature.private) or ", ".join(it.capitalize() for it in feature.private)
        found.append(f"| {name} | {who} | {private} | {feature.without} |")
    return found
