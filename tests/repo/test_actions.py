"""Rules for the actions in .github/actions, which are steps that several workflows share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .release_rules import caches
from .test_workflows import commands as one_target
from .test_workflows import pins, results, steps

Action = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github/actions"
ACTIONS = {path.parent.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*/action.yml"))}
FLOWS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").iterdir())}
CALL = "$/.github/actions/"


def faults(text: str, targets: set[str]) -> Iterator[str]:
    """Yield a line for each fault of an action: its steps keep the rules of a workflow's, but name their shell."""
    action: Action = yaml.safe_load(text)
    plain = [{k: v for k, v in step.items() if k != "shell"} for step in action["runs"]["steps"]]
    flow = {"jobs": {"action": {"steps": plain}}}
    for rule in (pins, one_target, results, caches):
        yield from rule(flow, text, targets)
    if action["runs"]["using"] != "composite":
        yield "an action of this repository has steps, and no program"
    for step in action["runs"]["steps"]:
        if "run" in step and step.get("shell") != "bash":
            yield f"`{step['run']}`: its shell must be bash"
    for name, told in action.get("inputs", {}).items():
        if f"inputs.{name} " not in text:
            yield f"its input {name} is not used"
        if not told.get("required") and "default" not in told:
            yield f"its input {name} is neither required nor has a default"
    if "secrets." in text or "github.token" in text or "vars." in text:
        yield "an action sees what its inputs are; pass it"


def calls(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield where a workflow calls an action of this repository, its name and what it is given."""
    for where, step in steps(yaml.safe_load(text)):
        if (uses := str(step.get("uses", ""))).startswith(("./", CALL[:2])):
            yield where, uses.removeprefix(CALL), step.get("with", {})


def wrong_calls(text: str) -> Iterator[str]:
    for where, name, given in calls(text):
        if name not in ACTIONS:
            yield f"{where}: there is no action {name}"
            continue
        inputs = yaml.safe_load(ACTIONS[name]).get("inputs", {})
        yield from (f"{where}: {name} has no input {one}" for one in sorted(set(given) - set(inputs)))
        needed = {one for one, told in inputs.items() if told.get("required")}
        yield from (f"{where}: it does not pass {one}" for one in sorted(needed - set(given)))


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_keeps_the_rules(name: str, targets: dict[str, str]) -> None:
    assert [] == list(faults(ACTIONS[name], set(targets)))


def test_every_action_is_called_with_its_inputs_by_several_workflows() -> None:
    """One that a single job calls is better written there."""
    assert {name: [] for name in FLOWS} == {name: list(wrong_calls(text)) for name, text in FLOWS.items()}
    callers = [name for text in FLOWS.values() for _, name, _ in calls(text)]
    assert set(ACTIONS) == {name for name in callers if callers.count(name) > 1}


def test_dependabot_sees_the_folder() -> None:
    config = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    (found,) = (one for one in config["updates"] if one["package-ecosystem"] == "github-actions")
    assert ["/", "/.github/actions/*"] == found["directories"]


def test_one_commit_of_each_action_serves_workflows_and_actions() -> None:
    text = "\n".join([*FLOWS.values(), *ACTIONS.values()])
    assert list(pins({"jobs": {}}, text, set())) == []


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("run: make pin-access", "run: make pin-acces", "no target pin-acces"),
        ("run: make pin-access", "run: make pin-access || true", "more than one make target"),
        ("shell: bash", "shell: python", "must be bash"),
        ("using: composite", "using: node24", "no program"),
        ("# v3.0.1", "", "version is not beside it"),
        ("Azure/login", "someone/login", "not in MAKERS"),
        ("path: build/pinned/files", "path: build", "files of another run"),
        ("        BASE_COMMIT: ${{ inputs.base-commit }}\n", "", "base-commit is not used"),
        ("${{ inputs.aws-role }}", "${{ vars.DATA_AWS_ROLE }}", "pass it"),
        ("required: true", "deprecationMessage: no", "neither required"),
    ],
)
def test_a_planted_mistake_in_an_action_is_found(targets: dict[str, str], good: str, bad: str, says: str) -> None:
    text = ACTIONS["pinned-data"]
    assert good in text
    assert any(says in fault for fault in faults(text.replace(good, bad, 1), set(targets)))


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("actions/pinned-data", "actions/pinned", "no action pinned"),
        ("uses: $/", "uses: ./", "no action ./"),
        ("aws-role:", "aws-rol:", "no input aws-rol"),
        ("          aws-role: ${{ vars.DATA_AWS_ROLE }}\n", "", "does not pass aws-role"),
    ],
)
def test_a_planted_mistake_in_a_call_is_found(good: str, bad: str, says: str) -> None:
    text = FLOWS["retrain.yml"]
    before, _, after = text.partition("      - id: pin\n")
    assert good in after
    assert any(says in fault for fault in wrong_calls(before + "      - id: pin\n" + after.replace(good, bad, 1)))
