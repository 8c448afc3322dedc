"""Accepting a verdict: only CI's own, only where it can be accepted, only for the very inputs that it judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closedloop.data.schema import DataError
from model import accept
from model.common import cli, provenance
from model.common.params import PARAMS
from model.data import LOCK

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "decision.json").read_text(encoding="utf-8"))
CI = {"repository": "someone/fleet", "run_id": "7", "commit": "e" * 40}


@pytest.fixture
def decision(tmp_path):
    """Write a decision of CI about this checkout, with what a test changes in it; its path."""

    def write(**changes) -> Path:
        digest = provenance.inputs_digest(PARAMS, json.loads(LOCK.read_text())["fingerprint"])
        content = GOLDEN | {"verdict": "worse", "green": False, "ci": CI, "inputs_digest": digest} | changes
        cli.write_json(tmp_path / "decision.json", content)
        return tmp_path / "decision.json"

    return write


@pytest.fixture
def out(tmp_path):
    return tmp_path / "accepted.json"


def run(path: Path, out: Path, why: str = "a cheaper sensor") -> None:
    accept.main(["--decision", str(path), "--why", why, "--out", str(out)])


@pytest.mark.parametrize("verdict", ["worse", "incomparable", "inconclusive"])
def test_what_was_accepted_names_reference_inputs_reason_and_where_it_was_judged(decision, out, verdict):
    path = decision(verdict=verdict)
    run(path, out, "  a cheaper\n sensor ")
    expected = {
        "reference": GOLDEN["reference"],
        "inputs_digest": json.loads(path.read_text())["inputs_digest"],
        "verdict": verdict,
        "ci": CI,
        "why": "a cheaper sensor",
    }
    assert expected == json.loads(out.read_text())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ci": None}, "on a person's machine, and only CI's counts"),
        ({"verdict": "refused", "reason": "It has NaN."}, "a refusal cannot be accepted: It has NaN."),
        ({"verdict": "better"}, "the verdict is better, which needs no acceptance"),
        ({"verdict": "identical"}, "the verdict is identical, which needs no acceptance"),
        ({"inputs_digest": "sha256:old"}, "about other inputs"),
    ],
)
def test_what_cannot_be_accepted_is_refused_and_nothing_is_written(decision, out, changes, says):
    with pytest.raises(cli.RefusedError, match=says):
        run(decision(**changes), out)
    assert not out.exists()


def test_a_reason_a_decision_and_its_form_are_asked_for(decision, out, tmp_path):
    with pytest.raises(DataError, match="needs a reason"):
        run(decision(), out, "  ")
    with pytest.raises(DataError, match=r"nowhere\.json is not there; download"):
        run(tmp_path / "nowhere.json", out)
    (tmp_path / "older.json").write_text('{"verdict": "worse"}')
    with pytest.raises(DataError, match=r"is no decision\.json of this version"):
        run(tmp_path / "older.json", out)
    assert not out.exists()


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """A stand-in for GitHub's command line: what it is asked, and what it then puts into the folder it is given."""
    asked, programs = tmp_path / "asked", tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(provenance, "git", lambda *words: "a-branch")

    def install(listed: str, artifact: Path | None) -> Path:
        download = f'cp "{artifact}" "$7/decision.json"' if artifact else 'echo "no artifact matches" >&2; exit 1'
        program = programs / "gh"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> "{asked}"\nif [ "$2" = list ]; then echo \'{listed}\'; else {download}; fi\n'
        )
        program.chmod(0o755)
        return asked

    return install


def test_the_newest_decision_of_the_branchs_pull_request_is_fetched(decision, out, gh):
    asked = gh('[{"databaseId": 42}]', decision())
    accept.main(["--why", "a cheaper sensor", "--out", str(out)])
    assert CI == json.loads(out.read_text())["ci"]
    listed, downloaded = asked.read_text().splitlines()
    assert listed.startswith("run list --workflow ci.yml --event pull_request --branch a-branch --limit 1")
    assert downloaded.startswith("run download 42 --name report --dir ")


def test_what_gh_cannot_give_is_one_line_with_the_way_by_hand(decision, out, gh, monkeypatch):
    gh("[]", None)
    with pytest.raises(DataError, match="CI has not run on a pull request of a-branch"):
        accept.main(["--why", "x", "--out", str(out)])
    gh('[{"databaseId": 42}]', None)
    with pytest.raises(DataError, match="gh run download exited 1: no artifact matches; or download the artifact"):
        accept.main(["--why", "x", "--out", str(out)])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match=r"gh is not on PATH .*--decision PATH"):
        accept.main(["--why", "x", "--out", str(out)])


def test_the_workflow_uploads_what_is_fetched():
    workflow = Path(__file__).parents[2] / ".github" / "workflows" / "train.yml"  # which accept.WORKFLOW calls
    text = workflow.read_text(encoding="utf-8")
    assert f"name: {accept.ARTIFACT}\n" in text
    assert "build/decision.json" in text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "someone/fleet", "GITHUB_RUN_ID": "7"}, CI),
        ({"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "someone/fleet", "GITHUB_RUN_ID": "7", "ACT": "true"}, None),
    ],
)
def test_only_github_is_ci(monkeypatch, environment, expected):
    for name in ("GITHUB_ACTIONS", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "ACT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_SHA", "e" * 40)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert expected == provenance.ci()
