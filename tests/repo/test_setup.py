"""make setup, and make doctor which asserts it, against a stand-in of GitHub's API on every plan.

docs.github.com: "GitHub's plans"; "Managing environments for deployment"; "Available rules for rulesets"; "Managing a
merge queue"; "Immutable subject claims" (since 2026-07-15).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev import doctor, plans, points, setup
from dev.origin import Origin
from pipeline import github

from .api import Api, KilledError

HERE = Origin("github.com", "someone/fleet")
OWNERS = [("free", False), ("pro", False), ("free", True), ("team", True), ("enterprise", True)]
EVERY = [(plan, organisation, private) for plan, organisation in OWNERS for private in (False, True)]
NAMES = [f"{'organisation' if o else 'person'}-{plan}-{'private' if p else 'public'}" for plan, o, p in EVERY]
every_plan = pytest.mark.parametrize(("plan", "organisation", "private"), EVERY, ids=NAMES)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run make setup against a stand-in; return its exit code."""

    def run(api: Api, **environment: str) -> int:
        monkeypatch.setattr(github, "gh", api.gh)
        monkeypatch.setattr(setup, "origin", lambda: HERE)
        monkeypatch.setattr(setup, "owners", lambda mode, named: "")
        for name in ("MODE", "OWNERS", "VARIABLES", "DRY_RUN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return setup.main()

    return run


def state(api: Api) -> dict[str, Any]:
    left = ("calls", "refused", "killed")
    found = copy.deepcopy({key: value for key, value in api.__dict__.items() if key not in left})
    found["labels"].sort()
    return found


def misses(api: Api, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What make doctor says is missing."""
    monkeypatch.setattr(github, "gh", api.gh)
    found = doctor.asserted(points.probe(HERE))
    return {what: said for state, what, said in found if state == "MISS"}


@every_plan
def test_setup_makes_what_the_plan_offers_and_says_what_it_does_not(
    ask: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    plan: str,
    organisation: bool,
    private: bool,
) -> None:
    api = Api(plan, private, organisation)
    assert ask(api, VARIABLES="deploy_to=staging LOG_SINK=az://log/x") == 0
    said = capsys.readouterr().out
    if private and plan == "free":
        assert not api.environments
        assert not api.rulesets
        assert "nothing can be deployed" in said
        assert "anyone who may write can push to main" in said
    else:
        assert set(points.ENVIRONMENTS) == set(api.environments)
        for name in points.ENVIRONMENTS:
            assert [("main", "branch")] == [(one["name"], one["type"]) for one in api.policies[name]]
        assert ["main"] == [one["name"] for one in api.rulesets]
        assert api.about["allow_auto_merge"]
    assert api.variables == {"DEPLOY_TO": "staging", "LOG_SINK": "az://log/x"}
    assert sorted(api.labels) == ["bug", "enhancement", "idea", "model"]
    assert api.permissions["allowed_actions"] == "selected"  # what an administrator chose stays
    assert api.switches["/private-vulnerability-reporting"] is not private
    assert "repo:someone@123456/fleet@456789:environment:production\n" in said
    assert misses(api, monkeypatch) == {}
    before = state(api)
    api.calls.clear()
    assert ask(api, VARIABLES="deploy_to=staging LOG_SINK=az://log/x") == 0
    assert {"GET"} == {method for method, _ in api.calls}
    assert before == state(api)


@every_plan
def test_setup_that_was_refused_or_stopped_at_any_call_completes_when_it_is_run_again(
    ask: Callable[..., int], plan: str, organisation: bool, private: bool
) -> None:
    mode = {"MODE": "team"} if organisation else {}
    whole = Api(plan, private, organisation)
    whole_code = ask(whole, VARIABLES="DEPLOY_TO=staging", **mode)
    assert whole_code == 0
    for kind in ("refused", "killed"):
        for number in range(1, len(whole.calls) + 1):
            api = Api(plan, private, organisation)
            setattr(api, kind, number)
            try:
                ask(api, VARIABLES="DEPLOY_TO=staging", **mode)
            except KilledError:
                assert kind == "killed"
            api.refused = api.killed = 0
            assert ask(api, VARIABLES="DEPLOY_TO=staging", **mode) == 0, (kind, number, whole.calls[number - 1])
            assert state(api) == state(whole), (kind, number)


def test_where_a_point_cannot_be_read_nothing_is_changed(
    ask: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3, 20):
        api = Api()
        before = state(api)
        api.refused = number
        code = ask(api)
        if any(method != "GET" for method, _ in api.calls):
            break
        assert (code, state(api)) == (1, before)
        assert "nothing was changed" in capsys.readouterr().err
    assert number > 15


def test_a_dry_run_changes_nothing_and_says_what_would_be(
    ask: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    api = Api()
    before = state(api)
    assert ask(api, DRY_RUN="1") == 0
    assert before == state(api)
    assert re.search(r"^would +environment bot +does not exist", capsys.readouterr().out, re.MULTILINE)


def test_reviewers_and_timers_of_an_environment_stay_and_other_branches_go(ask: Callable[..., int]) -> None:
    api = Api()
    reviewers = [{"type": "User", "id": 7}]
    body = {"reviewers": reviewers, "wait_timer": 30, "prevent_self_review": True}
    open_to = {"protected_branches": False, "custom_branch_policies": True}
    api.environment("PUT", body | {"deployment_branch_policy": open_to}, "production")
    api.policy("POST", {"name": "release/*", "type": "branch"}, "production", None)
    api.policy("POST", {"name": "main", "type": "tag"}, "production", None)
    rules = copy.deepcopy(api.environments["production"]["protection_rules"])
    assert ask(api) == 0
    assert rules == api.environments["production"]["protection_rules"]
    assert [("main", "branch")] == [(one["name"], one["type"]) for one in api.policies["production"]]


def crowded(api: Api) -> Api:
    """Lists that no single page holds, with what the pipeline asks for at their ends."""
    for n in range(140):
        api.environments[f"pr/{n} ü"] = {"name": f"pr/{n} ü", "protection_rules": [], "deployment_branch_policy": None}
        api.labels.insert(0, f"label {n}")
        api.variables[f"OTHER_{n}"] = "x"
        api.rulesets.append({"id": 1000 + n, "name": f"rules {n}", "target": "branch", "enforcement": "active"})
    return api


def test_every_page_of_every_list_is_read(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs.github.com/rest/using-the-rest-api/using-pagination-in-the-rest-api: 30 a page, 10 to 30 variables."""
    api = crowded(Api())
    assert ask(api, VARIABLES="DEPLOY_TO=staging") == 0, capsys.readouterr().err
    before = state(api)
    api.calls.clear()
    assert ask(api, VARIABLES="DEPLOY_TO=staging") == 0
    assert {"GET"} == {method for method, _ in api.calls}
    assert before == state(api)
    assert misses(api, monkeypatch) == {}


def test_doctor_reads_every_variable_and_every_environment_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    api = crowded(Api())
    api.variables["DEPLOY_TO"] = "staging"
    api.environments["pr/1 ü"]["variables"] = {"OVERLAY": "aks"}
    monkeypatch.setattr(github, "gh", api.gh)
    found = {what: (state, said) for state, what, said in doctor.copy(HERE, HERE.api())}
    assert ("ok", "set in the repository") == found["variable DEPLOY_TO"]
    assert ("ok", "set in pr/1 ü") == found["variable OVERLAY"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conditions": {"ref_name": {"include": ["refs/heads/other"], "exclude": []}}}, "conditions is"),
        (
            {"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": ["refs/heads/main"]}}},
            "conditions is",
        ),
        (
            {"bypass_actors": [{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}]},
            "bypass_actors",
        ),
        ({"enforcement": "evaluate"}, "enforcement is evaluate"),
        ({"target": "tag"}, "target is tag"),
    ],
)
def test_rules_that_hold_for_another_branch_or_that_someone_may_bypass_are_none(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    """docs.github.com/rest/repos/rules: the rules alone do not say for which refs they hold, and for whom."""
    api = Api()
    assert ask(api) == 0
    api.rulesets[0] |= change
    assert says in misses(api, monkeypatch)["rules of main"]
    assert ask(api) == 0
    assert misses(api, monkeypatch) == {}


def test_where_a_login_may_not_see_who_may_bypass_the_rules_nothing_is_guessed(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs.github.com/rest/repos/rules: `bypass_actors` is only there for who may write the ruleset."""
    api = Api()
    assert ask(api) == 0
    del api.rulesets[0]["bypass_actors"]
    assert misses(api, monkeypatch) == {}


def test_where_the_plan_is_not_known_github_may_refuse_and_the_line_says_so(
    ask: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    api = Api("free", private=True)
    api.knows_plan = False
    ask(api)
    said = capsys.readouterr().out
    assert "on a plan that this login may not read" in said
    assert re.search(r"^skip +environment bot +GitHub refuses it .* so nothing can be deployed", said, re.MULTILINE)
    assert re.search(r"^skip +auto-merge +GitHub ignores it, so make pr opens", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("changed", "environment", "code", "says"),
    [
        ({}, {"MODE": "lax"}, 2, "choose solo or team"),
        ({}, {"MODE": "team"}, 1, "a team's rules are for organisations"),
        ({"permissions": {"admin": False}}, {}, 1, "only an administrator"),
        ({}, {"VARIABLES": "DEPLOY_TO"}, 1, "VARIABLES has 'DEPLOY_TO'"),
        ({}, {"VARIABLES": "GITHUB_X=1"}, 1, "VARIABLES has 'GITHUB_X=1'"),
    ],
)
def test_setup_refuses_and_changes_nothing(
    ask: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    environment: dict[str, str],
    code: int,
    says: str,
) -> None:
    api = Api()
    api.about |= changed
    assert ask(api, **environment) == code
    assert says in capsys.readouterr().err
    assert {method for method, _ in api.calls} <= {"GET"}


# --- code owners ---


def test_a_team_names_its_owners_of_the_pipeline_and_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "CODEOWNERS"
    path.write_text(setup.CODEOWNERS.read_text())
    monkeypatch.setattr(setup, "CODEOWNERS", path)
    assert setup.owners("solo", "") == ""
    for named in ("", "someone", "@org/team; x"):
        with pytest.raises(github.PipelineError, match="OWNERS=@org/team"):
            setup.owners("team", named)
    assert "commit .github/CODEOWNERS" in setup.owners("team", "@org/platform @someone")
    rules = dict(re.findall(r"^(/\S+) +(.+)$", path.read_text(), re.MULTILINE))
    assert {"/.github/", "/.ci/", "/model/accepted.json", "/src/closedloop/judge/"} <= set(rules)
    assert set(rules.values()) == {"@org/platform @someone"}
    assert setup.owners("team", "") == ""


# --- doctor ---

DRIFTS: dict[str, tuple[Callable[[Api], Any], str]] = {
    "Actions": (lambda api: api.permissions.update(enabled=False), "enabled is False"),
    "token of runs": (lambda api: api.token.update(default_workflow_permissions="write"), "is write"),
    "auto-merge": (lambda api: api.about.update(allow_auto_merge=False), "allow_auto_merge is False"),
    "merging": (lambda api: api.about.update(delete_branch_on_merge=False), "delete_branch_on_merge is False"),
    "private reports of vulnerabilities": (
        lambda api: api.switches.update({"/private-vulnerability-reporting": False}),
        "off",
    ),
    "immutable releases": (lambda api: api.switches.update({"/immutable-releases": False}), "off"),
    "environment bot": (lambda api: api.environments.pop("bot"), "would make one that every branch may use"),
    "environment mlflow": (
        lambda api: api.policies["mlflow"].append({"id": 1, "name": "topic/*", "type": "branch"}),
        "topic",
    ),
    "environment staging": (
        lambda api: api.environments["staging"].update(deployment_branch_policy={"protected_branches": True}),
        "every protected branch may use it",
    ),
    "environment production": (
        lambda api: api.environments["production"].update(
            deployment_branch_policy=None, protection_rules=[{"type": "wait_timer", "wait_timer": 1}]
        ),
        "every branch may use it",
    ),
    "rules of main": (lambda api: api.rulesets[0]["rules"].pop(), "no rule required_status_checks"),
    "label model": (lambda api: api.labels.remove("model"), "is missing"),
}

DRIFTS = {
    f"environment {name}": (
        lambda api, name=name: api.environments.pop(name),
        "would make one that every branch may use",
    )
    for name in points.ENVIRONMENTS
} | DRIFTS


@pytest.mark.parametrize("what", DRIFTS)
def test_doctor_asserts_every_point_of_setup(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    api = Api()
    assert ask(api) == 0
    drift, says = DRIFTS[what]
    drift(api)
    found = misses(api, monkeypatch)
    assert set(found) == {what}
    assert says in found[what]
    assert "run make setup" in found[what]
    assert ask(api) == 0
    assert misses(api, monkeypatch) == {}


def test_every_point_has_its_drift() -> None:
    names = {point.what for point in points.of(points.Repository(HERE, Api().about, "free"), "solo")}
    assert names - {"label bug", "label idea"} == set(DRIFTS)


def test_doctor_says_what_the_token_of_a_run_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs.github.com, "Permissions required for GitHub Apps": settings of Actions take the right to administer."""
    api = Api()

    def gh(*words: str, stdin: str | None = None, env: object = None) -> str:
        if "user" in words or any("/actions/permissions" in word or "/actions/oidc" in word for word in words):
            raise github.PipelineError("gh: Resource not accessible by integration (HTTP 403)")
        return api.gh(*words, stdin=stdin)

    monkeypatch.setattr(github, "gh", gh)
    found = {what: (state, said) for state, what, said in doctor.asserted(points.probe(HERE))}
    assert found["Actions"][0] == found["OIDC subjects"][0] == "skip"
    assert "HTTP 403" in found["Actions"][1]
    assert found["environment bot"][0] == "MISS"


# --- subjects ---


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"use_default": True, "use_immutable_subject": False}, "repo:someone/fleet:environment:staging"),
        ({"use_default": True, "use_immutable_subject": True}, "repo:someone@123456/fleet@456789:environment:staging"),
        ({"use_default": True, "sub_claim_prefix": "repo:a@1/b@2"}, "repo:a@1/b@2:environment:staging"),
        ({"use_default": False, "include_claim_keys": ["repo", "ref"]}, "a template of its own (repo:ref)"),
    ],
)
def test_the_subject_is_the_one_that_github_sends(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], expected: str
) -> None:
    api = Api()
    api.subject = answer
    monkeypatch.setattr(github, "gh", api.gh)
    assert expected in points.subjects(points.probe(HERE))


# --- plans ---


def test_the_docs_have_the_table_of_plans(root: Path) -> None:
    text = (root / "docs/living-with-it.md").read_text(encoding="utf-8")
    assert "\n".join(plans.rows()) in text


# --- auto-merge with two pull requests ---


def merged(ruleset: dict[str, Any], pulls: int) -> int:
    """How many of several armed pull requests GitHub merges, if nobody looks.

    docs.github.com, "Automatically merging a pull request" and "Available rules for rulesets": a pull request that must
    be up to date waits for a person to update its branch; auto-merge does not.
    """
    rule = next(rule["parameters"] for rule in ruleset["rules"] if rule["type"] == "required_status_checks")
    queue = any(rule["type"] == "merge_queue" for rule in ruleset["rules"])
    main, count, based = 0, 0, [0] * pulls
    for base in based:
        if queue or not rule["strict_required_status_checks_policy"] or base == main:
            main, count = main + 1, count + 1
    return count


@pytest.mark.parametrize("mode", points.MODES)
def test_two_armed_pull_requests_are_both_merged(root: Path, mode: str) -> None:
    ruleset = json.loads((root / f".github/rulesets/{mode}.json").read_text(encoding="utf-8"))
    assert merged(ruleset, 2) == 2
    for rule in ruleset["rules"]:
        if rule["type"] == "required_status_checks":
            rule["parameters"]["strict_required_status_checks_policy"] = True
    ruleset["rules"] = [rule for rule in ruleset["rules"] if rule["type"] != "merge_queue"]
    assert merged(ruleset, 2) == 1
