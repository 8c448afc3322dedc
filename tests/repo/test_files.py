"""Files that GitHub and compose read by themselves: nobody would notice a slip in them before it mattered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import yaml

SCHEMAS = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor"
ACTIONS = 15368  # GitHub's number for its own Actions: no other app may report the check

# What GitHub's REST API documents for a repository ruleset ("Create a repository ruleset"), as far as we use it: each
# rule with its parameters and their types. A name that is not there would be refused, or ignored without a word.
PULL_REQUEST = {
    "required_approving_review_count": int,
    "dismiss_stale_reviews_on_push": bool,
    "require_code_owner_review": bool,
    "require_last_push_approval": bool,
    "required_review_thread_resolution": bool,
    "allowed_merge_methods": list,
}
CHECKS = {
    "strict_required_status_checks_policy": bool,
    "do_not_enforce_on_create": bool,
    "required_status_checks": list,
}
QUEUE = {
    "merge_method": str,
    "grouping_strategy": str,
    "max_entries_to_build": int,
    "min_entries_to_merge": int,
    "max_entries_to_merge": int,
    "min_entries_to_merge_wait_minutes": int,
    "check_response_timeout_minutes": int,
}
RULES = {
    "deletion": {},
    "non_fast_forward": {},
    "pull_request": PULL_REQUEST,
    "required_status_checks": CHECKS,
    "merge_queue": QUEUE,
}


def rules_of(root: Path, mode: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    ruleset = json.loads((root / f".github/rulesets/{mode}.json").read_text(encoding="utf-8"))
    return ruleset, {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}


@pytest.mark.parametrize("mode", ["solo", "team"])
def test_a_ruleset_has_the_fields_that_github_documents(root: Path, mode: str) -> None:
    ruleset, rules = rules_of(root, mode)
    assert set(ruleset) == {"name", "target", "enforcement", "bypass_actors", "conditions", "rules"}
    assert (ruleset["target"], ruleset["enforcement"]) == ("branch", "active")
    assert ruleset["conditions"] == {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}}
    for name, parameters in rules.items():
        assert {key: type(value) for key, value in parameters.items()} == RULES[name], name


@pytest.mark.parametrize("mode", ["solo", "team"])
def test_no_one_gets_to_main_past_the_required_check(root: Path, mode: str) -> None:
    ruleset, rules = rules_of(root, mode)
    assert ruleset["bypass_actors"] == []
    assert {"deletion", "non_fast_forward", "pull_request", "required_status_checks"} <= set(rules)
    assert rules["required_status_checks"]["required_status_checks"] == [
        {"context": "required", "integration_id": ACTIONS}
    ]
    up_to_date = rules["required_status_checks"]["strict_required_status_checks_policy"]
    assert not up_to_date, "auto-merge updates no branch, so the second of two pull requests would wait for ever"


def test_a_check_of_that_name_exists(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert "'required'" in jobs["required"]["name"]


def test_a_team_reviews_and_has_a_queue_and_one_person_alone_can_merge(root: Path) -> None:
    _, solo = rules_of(root, "solo")
    _, team = rules_of(root, "team")
    assert "merge_queue" not in solo  # only organisations have one
    assert solo["pull_request"]["required_approving_review_count"] == 0
    assert team["pull_request"]["required_approving_review_count"] >= 1
    assert team["pull_request"]["require_code_owner_review"]
    assert team["merge_queue"]["merge_method"].lower() in team["pull_request"]["allowed_merge_methods"]
    assert "squash" in solo["pull_request"]["allowed_merge_methods"]  # as make pr asks for


def faults(schema: str, value: object) -> list[str]:
    """What a published schema objects to."""
    text = json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))
    return [error.message for error in jsonschema.validators.validator_for(text)(text).iter_errors(value)]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_issue_forms_are_forms(root: Path) -> None:
    folder = root / ".github/ISSUE_TEMPLATE"
    forms = [path for path in folder.glob("*.yml") if path.name != "config.yml"]
    assert {"wrong", "bug", "idea"} <= {path.stem for path in forms}
    assert {path.name: faults("github-issue-forms", load(path)) for path in forms} == {path.name: [] for path in forms}
    assert faults("github-issue-config", load(folder / "config.yml")) == []


def test_dependabot_waits_a_week_and_sees_every_ecosystem(root: Path) -> None:
    config = load(root / ".github/dependabot.yml")
    assert faults("dependabot", config) == []
    assert {"github-actions", "docker", "gomod"} == {update["package-ecosystem"] for update in config["updates"]}
    assert all(update["cooldown"]["default-days"] >= 7 and update["groups"] for update in config["updates"])
    (image,) = [update for update in config["updates"] if update["package-ecosystem"] == "docker"]
    base = re.search(r"^FROM (\S+?):", (root / "docker/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert base is not None
    (kept,) = image["ignore"]  # else it proposes the next minor of Python in place of this one's newest digest
    assert base[1] == kept["dependency-name"]
    assert {"version-update:semver-major", "version-update:semver-minor"} == set(kept["update-types"])


def test_compose_is_what_its_specification_says_and_gives_no_privilege(root: Path) -> None:
    compose = load(root / "compose.yaml")
    assert faults("compose-spec", compose) == []
    assert {"score", "mlflow"} == set(compose["services"])
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
    stages = re.findall(r"^FROM .+ AS (\w+)", (root / "docker/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert compose["services"]["mlflow"]["build"]["target"] in stages


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("compose-spec", {"services": {"score": {"imagee": "x"}}}),
        ("dependabot", {"version": 2, "updates": [{"package-ecosystem": "pip", "directory": "/"}]}),
        ("github-issue-forms", {"name": "x", "description": "y", "body": [{"type": "inptu"}]}),
    ],
)
def test_a_planted_slip_is_found(schema: str, value: object) -> None:
    assert faults(schema, value) != []


def test_every_file_that_has_an_owner_is_there(root: Path, files: list[Path]) -> None:
    """Also those of the lines that wait for a name."""
    names = {"/" + path.relative_to(root).as_posix() for path in files}
    patterns = re.findall(r"^(?:# )?(/\S+) +@", (root / ".github/CODEOWNERS").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(patterns) >= 5
    late = {"/model/accepted.json"}  # written by make accept
    assert [p for p in patterns if p not in late and not any(name.startswith(p) for name in names)] == []


def test_links_in_markdown_lead_somewhere(root: Path, files: list[Path]) -> None:
    broken = [
        f"{path.relative_to(root)}: {link}"
        for path in files
        if path.suffix == ".md"
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]
    assert broken == []


def test_no_program_is_committed(root: Path, files: list[Path]) -> None:
    """What Scorecard calls a binary artifact: nobody can review one."""
    magic = (b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\x00asm", b"!<arch>")
    assert [str(path.relative_to(root)) for path in files if path.read_bytes().startswith(magic)] == []


def test_the_policy_of_security_says_where_and_when(root: Path) -> None:
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    assert re.search(r"https?://|Security\* tab", text)
    assert re.search(r"\b\d+ days|a week\b", text)
    assert re.search(r"vulnerab", text)


def test_every_base_image_is_pinned_by_digest(root: Path) -> None:
    text = (root / "docker/Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    stages = set(re.findall(r" AS (\w+)", text)) | {"${PYTHON_IMAGE:-official}"}
    assert [b for b in bases if b not in stages and not re.search(r"@sha256:[0-9a-f]{64}$", b)] == []
