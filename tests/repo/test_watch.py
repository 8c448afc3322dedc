"""The issue on the pipeline itself: one, updated, closed.

docs.github.com/rest/actions/workflow-runs (status `waiting`, `completed`), /rest/actions/workflows (states), and
docs.github.com/actions/using-workflows/events-that-trigger-workflows#schedule (60 days);
docs.github.com/actions/how-tos/deploy/configure-and-manage-deployments/review-deployments (30 days).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import github, watch

FINE = {"plan": {"result": "success", "outputs": {"not_judged": ""}}, "head": {"result": "success", "outputs": {}}}
NOW = datetime(2027, 1, 20, tzinfo=UTC)


class GitHub:
    """What GitHub answers, and what was written there."""

    def __init__(self) -> None:
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.states: dict[str, str] = {}
        self.issues: list[dict[str, Any]] | None = []
        self.written: list[tuple[str, ...]] = []

    def gh(self, *words: str, stdin: str | None = None, env: object = None) -> str:
        if words[0] == "issue":
            self.written.append((words[1], stdin or " ".join(words)))
            return ""
        query = words[1].removeprefix("repos/someone/fleet/actions/workflows/")
        return json.dumps({"workflow_runs": self.runs.get(query, [])})

    def workflows(self) -> list[dict[str, str]]:
        return [{"path": f".github/workflows/{name}", "state": state} for name, state in self.states.items()]


def run(event: str, conclusion: str, day: str = "2027-01-18") -> dict[str, Any]:
    times = {"created_at": f"{day}T04:17:00Z", "html_url": f"https://github.invalid/{day}", "head_sha": "c" * 40}
    return {"event": event, "conclusion": conclusion, **times}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> GitHub:
    made = GitHub()
    for name, value in {
        "GITHUB_REPOSITORY": "someone/fleet",
        "GITHUB_SERVER_URL": "https://github.invalid",
        "GITHUB_RUN_ID": "9",
        "NEEDS": json.dumps(FINE),
        "TOKENS_END": "",
        "GITHUB_STEP_SUMMARY": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(github, "gh", made.gh)
    monkeypatch.setattr(github, "issues", lambda: made.issues)
    monkeypatch.setattr(github, "objects", lambda path, key: made.workflows())
    return made


COMPLETED = "runs?branch=main&status=completed"


def test_while_all_is_well_there_is_no_issue(site: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    site.runs[f"retrain.yml/{COMPLETED}"] = [run("schedule", "success")]
    watch.main()
    assert site.written == []
    assert "Nothing of the pipeline needs attention" in capsys.readouterr().out


def test_every_schedule_but_its_own_is_looked_at(root: Path) -> None:
    assert {"retrain.yml", "monitor.yml", "refresh.yml", "security.yml"} == set(watch.scheduled())
    assert "\n  schedule:\n" in (root / ".github/workflows" / watch.OWN).read_text(encoding="utf-8")


def test_one_issue_is_opened_brought_up_to_date_and_closed(site: GitHub) -> None:
    site.runs[f"retrain.yml/{COMPLETED}"] = [run("schedule", "failure")]
    watch.main()
    ((how, text),) = site.written
    assert how == "create"
    assert "- `retrain.yml` has failed on 2027-01-18: [its run](https://github.invalid/2027-01-18)" in text

    site.issues = [{"number": 4, "title": watch.TITLE, "user": {"type": "Bot"}, "body": text}]
    watch.main()
    assert len(site.written) == 1, "nothing new is nothing to write"
    site.states["refresh.yml"] = "disabled_inactivity"
    watch.main()
    assert site.written[-1][0] == "edit"
    assert "`refresh.yml` does not run: GitHub has stopped its schedule" in site.written[-1][1]

    site.states, site.runs = {}, {}
    watch.main()
    assert site.written[-1][0] == "close"
    assert len(site.written) == 3


def test_an_issue_of_a_person_with_that_title_is_left_alone(site: GitHub) -> None:
    site.issues = [{"number": 4, "title": watch.TITLE, "user": {"type": "User"}, "body": ""}]
    watch.main()
    assert site.written == []


def test_where_issues_are_off_only_the_page_says_it(site: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    site.issues = None
    site.runs[f"monitor.yml/{COMPLETED}"] = [run("schedule", "timed_out")]
    watch.main()
    assert site.written == []
    assert "`monitor.yml` has failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([run("schedule", "failure"), run("schedule", "success")], True),
        ([run("workflow_dispatch", "success"), run("schedule", "failure")], False),  # a person has repeated it
        ([run("push", "failure"), run("schedule", "success")], False),  # main's own issue says that
        ([run("schedule", "cancelled")], False),
        ([run("schedule", "startup_failure")], True),
        ([], False),
    ],
)
def test_the_newest_run_by_itself_counts(site: GitHub, found: list[dict[str, Any]], told: bool) -> None:
    site.runs[f"security.yml/{COMPLETED}"] = found
    assert told == bool(watch.failed("security.yml"))


def test_jobs_of_this_run_and_data_that_cannot_be_read_are_told(site: GitHub) -> None:
    needs = FINE | {"scan": {"result": "failure", "outputs": {}}, "macos": {"result": "skipped", "outputs": {}}}
    needs["plan"] = {"result": "success", "outputs": {"not_judged": "s3://fleet takes a login"}}
    failed, data = watch.here(needs)
    assert failed.startswith("Today's checks have failed: scan. ")
    assert data == "The pinned data cannot be read: s3://fleet takes a login."


@pytest.mark.parametrize(("day", "told"), [("2027-01-18", True), ("2027-01-20", False)])
def test_a_release_that_has_waited_for_a_day_is_told(site: GitHub, day: str, told: bool) -> None:
    site.runs["ci.yml/runs?branch=main&status=waiting"] = [run("push", "", day)]
    lines = watch.waiting(NOW)
    assert told == bool(lines)
    assert not told or "The release of commit ccccccccc has waited for its reviewers since 2027-01-18" in lines[0]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("", None),
        ("A_TOKEN=2027-06-30", None),
        ("A_TOKEN=2027-06-30,B=2027-01-31", "The token B ends on 2027-01-31"),
        ("SMOKE_TOKEN=2026-12-31", "The token SMOKE_TOKEN has ended on 2026-12-31"),
        ("SMOKE_TOKEN=soon", "TOKENS_END has `SMOKE_TOKEN=soon`"),
        ("SMOKE_TOKEN=2027-02-31", "TOKENS_END has `SMOKE_TOKEN=2027-02-31`"),
    ],
)
def test_a_token_that_ends_soon_is_told(told: str, says: str | None) -> None:
    lines = watch.ending(told, NOW)
    assert (says is None) == (lines == [])
    assert says is None or lines[0].startswith((says, f"The variable {says}"))


def test_the_job_waits_for_every_other_of_its_run_and_runs_whatever_they_are(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/daily.yml").read_text(encoding="utf-8"))["jobs"]
    assert set(jobs) - {"watch"} == set(jobs["watch"]["needs"])
    assert "always()" in jobs["watch"]["if"]
