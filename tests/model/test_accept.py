"""Accepting a verdict: only one of CI, only one that can be accepted, and only for the inputs that it judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closedloop.data.schema import DataError
from model import accept
from model.common import cli, decisions, provenance
from model.common.params import PARAMS
from model.common.provenance import PIN

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "decision.json").read_text(encoding="utf-8"))
CHAMPION = "c" * 40
CI = {"repository": "someone/fleet", "run_id": "7", "commit": "e" * 40}


@pytest.fixture
def decision(tmp_path):
    """Write a decision of CI about this checkout, with the changes of a test; return its path."""

    def write(**changes) -> Path:
        digest = provenance.inputs_digest(PARAMS, json.loads(PIN.read_text())["fingerprint"])
        about = {"champion": {"commit": CHAMPION, "model_digest": "sha256:m"}, "inputs_digest": digest}
        content = decisions.with_todays_keys(GOLDEN) | about | {"verdict": "worse", "green": False, "ci": CI} | changes
        cli.write_json(tmp_path / "decision.json", content)
        return tmp_path / "decision.json"

    return write


@pytest.fixture
def out(tmp_path):
    return tmp_path / "accepted.json"


def run(path: Path, out: Path, why: str = "a cheaper sensor") -> None:
    accept.main(["--decision", str(path), "--why", why, "--out", str(out)])


@pytest.mark.parametrize("verdict", ["worse", "incomparable", "inconclusive"])
def test_an_acceptance_names_champion_inputs_reason_and_the_run_that_judged(decision, out, verdict):
    path = decision(verdict=verdict)
    run(path, out, "  a cheaper\n sensor ")
    expected = {
        "champion": CHAMPION,
        "inputs_digest": json.loads(path.read_text())["inputs_digest"],
        "verdict": verdict,
        "ci": CI,
        "why": "a cheaper sensor",
    }
    assert expected == json.loads(out.read_text())


@pytest.mark.parametrize("champion", [{"commit": CHAMPION, "model_digest": "sha256:m"}, None])
def test_a_decision_of_an_older_commit_is_accepted_for_the_champion_that_it_names(decision, out, champion):
    """It has the champion's commit once more as ``reference``."""
    path = decision(champion=champion)
    content = json.loads(path.read_text())
    content |= {"reference": champion and CHAMPION, "becomes_reference": content.pop("becomes_champion")}
    cli.write_json(path, content)
    run(path, out)
    written = json.loads(out.read_text())
    assert {"champion", "inputs_digest", "verdict", "ci", "why"} == set(written)
    assert (champion and CHAMPION) == written["champion"]


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
    with pytest.raises(DataError, match=r"nowhere\.json is missing; download"):
        run(tmp_path / "nowhere.json", out)
    (tmp_path / "older.json").write_text('{"verdict": "worse"}')
    with pytest.raises(DataError, match=r"is no decision\.json of this version: it lacks champion, ci, inputs_digest"):
        run(tmp_path / "older.json", out)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"is no decision\.json of this version"):
        run(tmp_path / "list.json", out)
    assert not out.exists()


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """Install a stand-in for GitHub's command line, which lists and downloads what a test gives it."""
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


def test_where_gh_fails_one_line_says_how_to_do_it_by_hand(decision, out, gh, monkeypatch):
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
    workflow = Path(__file__).parents[2] / ".github" / "workflows" / "train.yml"  # accept.WORKFLOW calls it
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
