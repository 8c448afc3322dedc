"""Decisions and acceptances of older commits are read with today's keys."""

from __future__ import annotations

import json

import pytest

from model import evaluate
from model.common import cli, decisions, provenance

CHAMPION = {"commit": "c" * 40, "model_digest": "sha256:champion"}
# what a commit before the rename wrote
OLD_DECISION = {
    "verdict": "better",
    "reason": "Saves 100.",
    "green": True,
    "accepted": False,
    "becomes_reference": True,
    "reference": CHAMPION["commit"],
    "inputs_digest": "sha256:inputs",
    "champion": CHAMPION,
    "ci": None,
}
OLD_ACCEPTANCE = {
    "reference": CHAMPION["commit"],
    "inputs_digest": "sha256:inputs",
    "verdict": "worse",
    "ci": {"run_id": "7"},
    "why": "a cheaper sensor",
}
NEW_DECISION = {key: OLD_DECISION[key] for key in OLD_DECISION if "reference" not in key} | {"becomes_champion": True}
NEW_ACCEPTANCE = {key: OLD_ACCEPTANCE[key] for key in OLD_ACCEPTANCE if key != "reference"} | {
    "champion": CHAMPION["commit"]
}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (OLD_DECISION, NEW_DECISION),
        (NEW_DECISION, NEW_DECISION),
        (OLD_ACCEPTANCE, NEW_ACCEPTANCE),
        (NEW_ACCEPTANCE, NEW_ACCEPTANCE),
        ({"reference": None, "champion": None}, {"champion": None}),
        ({"becomes_reference": False}, {"becomes_champion": False}),
    ],
)
def test_old_keys_become_todays_and_nothing_is_lost(content, expected):
    before = json.dumps(content)
    assert expected == decisions.with_todays_keys(content)
    assert before == json.dumps(content)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (OLD_DECISION, CHAMPION["commit"]),
        (NEW_DECISION, CHAMPION["commit"]),
        (OLD_DECISION | {"reference": None, "champion": None}, None),
        (NEW_DECISION | {"champion": None}, None),
    ],
)
def test_the_champion_that_a_decision_was_made_against(decision, expected):
    assert expected == decisions.champion_commit(decision)


@pytest.mark.parametrize("content", [OLD_ACCEPTANCE, NEW_ACCEPTANCE])
def test_an_acceptance_of_either_form_is_read_for_the_gate(content, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ACCEPTED", tmp_path / "accepted.json")
    assert evaluate.acceptance() is None
    cli.write_json(tmp_path / "accepted.json", content)
    found = evaluate.acceptance()
    assert NEW_ACCEPTANCE.items() <= found.items()
