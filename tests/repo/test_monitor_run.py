"""monitor.yml, run by a workflow runner (act-run) with the real programs: four days of a log that lies in Azurite.

GitHub is the stand-in tests/repo/gh, which the copy's makefiles find first. Each run takes a minute or more, so it runs
only where it is asked for::

    PIPELINE=1 pytest tests/repo/test_monitor_run.py
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from answered_fleet import write_log
from dev import fleets
from pipeline import monitor

from . import workflow_runs
from .test_runner import git
from .workflow_runs import jobs

pytestmark = [
    pytest.mark.skipif("PIPELINE" not in os.environ, reason="PIPELINE=1 runs it: five minutes and more"),
    pytest.mark.skipif(shutil.which("act-run") is None, reason="act-run is not on PATH"),
]


class Site:
    """A copy of this repository, and what GitHub knows of it."""

    def __init__(self, folder: Path, azurite: dict[str, str]) -> None:
        self.copy, self.azurite, self.state_file = folder / "fleet", azurite, folder / "state.json"
        self.issues: list[dict[str, Any]] = []
        self.copy.mkdir()
        fleets.copy_repository(self.copy)
        workflow_runs.stand_in(self.copy, "gh", GH_STATE=self.state_file)
        git(self.copy, "commit", "--quiet", "--all", "--message", "Ask the stand-in for GitHub")

    def day(self, sink: str) -> str:
        """Run the workflow; what it printed. The issues are as they are afterwards."""
        there = [one for one in self.issues if one["state"] == "open"]
        api = {"issues?state=open": there, "releases": []}
        self.state_file.write_text(json.dumps({"calls": [], "api": api}), encoding="utf-8")
        variables = {"LOG_SINK": sink, "LOG_AZURE_ACCOUNT": self.azurite["AZURE_STORAGE_ACCOUNT_NAME"]}
        words = ("workflow_dispatch", "monitor.yml", "--branch", "main")
        shown = workflow_runs.act(self.copy, self.azurite, *words, **variables)
        for call in json.loads(self.state_file.read_text(encoding="utf-8"))["calls"]:
            self.note(call["words"], call["stdin"])
        return shown

    def note(self, words: list[str], stdin: str) -> None:
        """Do what a call asks for, with the issues."""
        if words[:2] == ["issue", "create"]:
            title, number = words[words.index("--title") + 1], len(self.issues) + 1
            one = {"number": number, "title": title, "state": "open", "user": {"type": "Bot"}, "edits": 0}
            self.issues.append(one | {"body": stdin})
        elif words[:2] == ["issue", "edit"]:
            one = self.issues[int(words[2]) - 1]
            one |= {"body": stdin, "edits": one["edits"] + 1}
        elif words[:2] == ["issue", "close"]:
            self.issues[int(words[2]) - 1]["state"] = "closed"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, azurite: dict[str, str]) -> Site:
    return Site(tmp_path_factory.mktemp("monitored"), azurite)


def test_without_a_log_it_says_that_it_is_skipped(site: Site) -> None:
    shown = site.day("")
    assert monitor.NO_LOG in shown
    assert {"Find the log": "success"} == {name: result for name, result in jobs(shown).items() if result != "skipped"}
    assert [] == site.issues


def test_one_issue_is_opened_brought_up_to_date_and_closed(site: Site, azurite: dict[str, str], tmp_path: Path) -> None:
    """Below the floor of the recall; a week later on more failures; then as good as the floor asks for."""
    for name, foreseen, failing in (("low", 0, 8), ("lower", 1, 16), ("good", 15, 16)):
        write_log(tmp_path / name, f"az://fleet/{name}", foreseen, machines=24, failing=failing, environ=azurite)
    shown = site.day("az://fleet/low")
    assert {"success"} == set(jobs(shown).values())
    assert "Azure/login" in workflow_runs.recorded(shown)
    (issue,) = site.issues
    assert ("open", 0) == (issue["state"], issue["edits"])
    assert "it foresaw 0% of 8 failures, the floor is 50%" in issue["body"]
    site.day("az://fleet/low")
    assert [("open", 0)] == [(one["state"], one["edits"]) for one in site.issues], "nothing is new"
    site.day("az://fleet/lower")
    (issue,) = site.issues
    assert ("open", 1) == (issue["state"], issue["edits"])
    assert "it foresaw 6% of 16 failures" in issue["body"]
    assert "the issue was closed" in site.day("az://fleet/good")
    assert [("closed", 1)] == [(one["state"], one["edits"]) for one in site.issues]
