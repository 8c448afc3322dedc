"""The pull request of a retraining: one, updated, with its checks, and never over a person's commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import branches, propose, release_facts

PIN = "model/data.lock.json"
CALLS = 5  # of a proposal: which pull requests there are, the push, the pull request, which runs there are, a run


def lock(*versions: int) -> str:
    """A pin of a simulated fleet, and of a log at a version where one is given."""
    parts: list[dict[str, Any]] = [{"kind": "simulator", "profile": "default", "machines": 9, "days": 9, "seed": 1}]
    parts += [{"kind": "log", "location": "az://fleet/log", "versions": {"requests": v}} for v in versions]
    return json.dumps({"fingerprint": f"sha256:{versions}", "parts": parts}) + "\n"


class GitHub:
    """A repository with a remote, the evidence of a retraining, and what GitHub would know."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.work, self.remote = folder, folder / "work", folder / "remote"
        self.state_file = folder / "state.json"
        self.write({"calls": [], "pulls": [], "runs": [], "releases": []})
        (folder / "bin").mkdir()
        for name in ("gh", "git"):
            (folder / "bin" / name).symlink_to(root / "tests/repo/gh_pulls")
        git = shutil.which("git")
        assert git is not None
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")} | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "REAL_GIT": git,
            "REMOTE": str(self.remote),
            "GH_STATE": str(self.state_file),
            "PYTHONPATH": str(root / ".ci"),
            "PYTHONSAFEPATH": "1",
            "GITHUB_REPOSITORY": "someone/fleet",
            "PRIVATE": "true",
            "GITHUB_SERVER_URL": "https://github.invalid",
            "GITHUB_RUN_ID": "99",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        }
        self.real = git
        subprocess.run([git, "init", "--quiet", "--bare", "--initial-branch", "main", str(self.remote)], check=True)
        self.work.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("remote", "add", "origin", str(self.remote))
        self.commit({PIN: lock(), ".gitignore": "build/\n", "code.py": "1\n"})

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        command = [self.real, *identity, *words]
        return subprocess.run(command, cwd=self.work, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str], branch: str = "main") -> str:
        """Commit as a person, and push; the checkout is main's again afterwards."""
        if branch != "main":
            self.git("checkout", "--quiet", "-B", branch, f"origin/{branch}")
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        self.git("push", "--quiet", "origin", branch)
        commit = self.git("rev-parse", "HEAD")
        self.git("checkout", "--quiet", "main")
        self.fetch()
        return commit

    def fetch(self) -> None:
        self.git("fetch", "--quiet", "--prune", "origin")

    def write(self, state: dict[str, Any]) -> None:
        self.state_file.write_text(json.dumps(state))

    def change(self, **values: Any) -> None:
        self.write(self.state | values)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state_file.read_text())
        return found

    def evidence(
        self, version: int, verdict: str = "better", joins: bool = False, said: str = "New data.", model: str = "a"
    ) -> None:
        folder = self.work / "build/evidence"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        decision = {"verdict": verdict, "challenger": {"model_digest": f"sha256:{model}"}}
        (folder / "decision.json").write_text(json.dumps(decision))
        (folder / "retrain.json").write_text(json.dumps({"logs": [{"before": None if joins else {"requests": 1}}]}))
        (folder / "data.lock.json").write_text(lock(version))
        (folder / "summary.md").write_text(said)

    def run(self, module: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a program as a step of a job that has just checked out and fetched."""
        self.fetch()
        (self.folder / "output").write_text("")
        (self.folder / "summary").write_text("")
        environment = self.environment | {"GITHUB_SHA": self.git("rev-parse", "HEAD")} | extra
        command = [sys.executable, "-m", f"pipeline.{module}", *words]
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)

    def propose(self, **extra: str) -> str:
        """Propose; return what the summary page says."""
        done = self.run("propose", **extra)
        assert done.returncode == 0, done.stderr
        return (self.folder / "summary").read_text()

    def judge(self) -> dict[str, str]:
        done = self.run("propose", "judge")
        assert done.returncode == 0, done.stderr
        return dict(line.split("=") for line in (self.folder / "output").read_text().splitlines())

    @property
    def opened(self) -> list[dict[str, Any]]:
        return [one for one in self.state["pulls"] if one["state"] == "open"]

    def proposed(self) -> tuple[str, str, list[str]]:
        """The commit of the branch, the pin there, and the files that it changes."""
        self.fetch()
        commit = self.git("rev-parse", "origin/retrain")
        files = self.git("diff", "--name-only", "origin/main...origin/retrain").splitlines()
        return commit, self.git("show", f"origin/retrain:{PIN}"), files


@pytest.fixture
def site(tmp_path: Path, root: Path) -> GitHub:
    return GitHub(tmp_path, root)


def test_it_is_opened_once_updated_next_week_merged_and_the_next_one_is_another(site: GitHub) -> None:
    site.evidence(5, said="Better. @someone")
    assert {"worth": "true", "open": "false"} == site.judge()
    site.propose()
    first, pin, files = site.proposed()
    assert (lock(5).strip(), [PIN]) == (pin, files)
    assert [first] == site.state["runs"], "its checks are started"
    (pull,) = site.opened
    assert "@someone" not in pull["body"]
    assert "https://github.invalid/someone/fleet/actions/runs/99#artifacts" in pull["body"]

    site.commit({"code.py": "2\n"})  # main moves on; a week later
    site.evidence(6, said="Still better.")
    (site.work / "build/evidence/replay.md").write_text("Machine 7 loses an alarm.")
    assert {"worth": "true", "open": "true"} == site.judge()
    assert "#1" in site.propose()
    second, pin, files = site.proposed()
    assert (lock(6).strip(), [PIN]) == (pin, files)
    assert site.git("rev-parse", "origin/main") == site.git("rev-parse", f"{second}^")
    (pull,) = site.opened
    assert "Still better." in pull["body"]
    assert "Machine 7 loses an alarm." in pull["body"]
    assert [first, second] == site.state["runs"]

    site.judge()  # GitHub notes the commit that is merged
    site.change(pulls=[one | {"state": "closed"} for one in site.state["pulls"]])
    site.commit({PIN: lock(6)})  # merged as one commit; the branch is still there
    site.evidence(7)
    site.propose()
    assert [2] == [one["number"] for one in site.opened]
    assert lock(7).strip() == site.proposed()[1]


def test_the_same_evidence_again_changes_nothing(site: GitHub) -> None:
    site.evidence(5)
    site.propose()
    before = site.proposed(), len(site.state["pulls"]), site.state["runs"]
    site.propose()
    assert before == (site.proposed(), len(site.state["pulls"]), site.state["runs"])


@pytest.mark.parametrize("after", [False, True], ids=["before it is done", "when it is done"])
@pytest.mark.parametrize("call", range(1, CALLS + 1))
@pytest.mark.parametrize("week", [1, 2])
def test_a_proposal_that_is_cut_off_at_any_call_is_whole_after_the_next_run(
    site: GitHub, week: int, call: int, after: bool
) -> None:
    """The run is ended at each call of gh and of git push, once; of the first proposal, and of its update."""
    if week == 2:
        site.evidence(4)
        site.propose()
    site.evidence(5)
    site.change(calls=[], lose={"call": call, "after": after})
    site.run("propose")
    assert len(site.state["calls"]) >= call, "this call does not exist: lower CALLS"
    site.change(lose=None)
    site.propose()
    commit, pin, files = site.proposed()
    assert (lock(5).strip(), [PIN]) == (pin, files)
    assert 1 == len(site.opened) == len(site.state["pulls"])
    assert 1 == site.state["runs"].count(commit)
    assert week == len(site.state["runs"])


@pytest.mark.parametrize("file", ["model/accepted.json", PIN])
def test_a_persons_commit_is_not_overwritten(site: GitHub, file: str) -> None:
    site.evidence(5)
    site.propose()
    theirs = site.commit({file: lock(5, 6)}, "retrain")
    site.evidence(6)
    assert {"worth": "false", "open": "true"} == site.judge()
    said = site.propose()
    assert f"#1 has commits of a person ({theirs[:7]}" in said
    assert theirs == site.proposed()[0]


def test_a_person_who_pushes_meanwhile_is_not_overwritten(site: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    site.evidence(5)
    site.propose()
    site.fetch()
    before = site.git("rev-parse", "origin/retrain")
    theirs = site.commit({"model/accepted.json": "{}"}, "retrain")
    monkeypatch.chdir(site.work)
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    tree = site.git("rev-parse", "origin/main^{tree}")
    with pytest.raises(propose.github.PipelineError, match="git"):
        branches.renew(tree, "retrain", "x", before)
    assert theirs == site.proposed()[0]


def test_main_merged_into_the_branch_is_no_commit_of_a_person(site: GitHub) -> None:
    """GitHub's button Update branch makes one."""
    site.evidence(5)
    site.propose()
    site.commit({"code.py": "3\n"})
    site.git("checkout", "--quiet", "-B", "retrain", "origin/retrain")
    site.git("merge", "--quiet", "--no-edit", "main")
    site.git("push", "--quiet", "origin", "retrain")
    site.git("checkout", "--quiet", "main")
    site.evidence(6)
    site.propose()
    assert lock(6).strip() == site.proposed()[1]


def close(site: GitHub, merged: bool = False) -> None:
    """Close the open pull request, as a person does."""
    site.judge()  # GitHub notes its commit
    when = {"state": "closed", "merged_at": "2026-01-05T10:00:00Z" if merged else None}
    site.change(pulls=[one | when if one["state"] == "open" else one for one in site.state["pulls"]])


@pytest.mark.parametrize("branch", ["kept", "deleted"])
def test_what_a_person_has_closed_is_not_proposed_again(site: GitHub, branch: str) -> None:
    """The same data and the same model, though the log's versions have moved: upkeep moves them too."""
    site.evidence(5)
    site.propose()
    close(site)
    if branch == "deleted":
        site.git("push", "--quiet", "origin", "--delete", "retrain")
    site.evidence(5)
    pin = site.work / "build/evidence/data.lock.json"
    pin.write_text(json.dumps(json.loads(pin.read_text()) | {"parts": json.loads(lock(6))["parts"]}))
    assert {"worth": "false", "open": "false"} == site.judge()
    said = site.propose()
    assert "#1 proposed the same data and model and was closed without a merge" in said
    assert "reopen it" in said
    assert [] == site.opened


@pytest.mark.parametrize("new", [{"version": 6}, {"version": 5, "model": "b"}], ids=["data", "model"])
def test_what_is_new_is_proposed_after_a_closed_proposal(site: GitHub, new: dict[str, Any]) -> None:
    site.evidence(5)
    site.propose()
    close(site)
    site.evidence(**new)
    site.propose()
    assert [2] == [one["number"] for one in site.opened]


def test_a_merged_proposal_was_not_declined(site: GitHub) -> None:
    """main took the pin back afterwards, so the same proposal is worth another look."""
    site.evidence(5)
    site.propose()
    close(site, merged=True)
    site.evidence(5)
    site.propose()
    assert [2] == [one["number"] for one in site.opened]


@pytest.mark.parametrize("body", [None, "", "my own words", "<!-- proposed [1] -->", '<!-- proposed {"data": 1} -->'])
def test_a_text_that_a_person_has_rewritten_declines_nothing(site: GitHub, body: str | None) -> None:
    site.evidence(5)
    site.propose()
    close(site)
    site.change(pulls=[one | {"body": body} for one in site.state["pulls"]])
    site.evidence(5)
    site.propose()
    assert [2] == [one["number"] for one in site.opened]


@pytest.mark.parametrize(
    ("verdict", "joins", "says"),
    [
        ("better", False, ""),
        ("incomparable", True, ""),
        ("incomparable", False, "the verdict is incomparable"),
        ("inconclusive", False, "only a better model"),
        ("worse", True, "only a better model"),
    ],
)
def test_only_a_better_model_is_proposed_or_a_log_that_joins(
    site: GitHub, verdict: str, joins: bool, says: str
) -> None:
    site.evidence(5, verdict, joins)
    assert site.judge()["worth"] == str(not says).lower()
    assert says in site.propose()
    assert bool(site.opened) == (not says)


def test_nothing_is_proposed_without_evidence_or_where_the_pin_is_as_it_was(site: GitHub) -> None:
    assert site.judge()["worth"] == "false"
    assert "the log has nothing new" in site.propose()
    site.evidence(5)
    (site.work / "build/evidence/data.lock.json").write_text(lock())
    assert "the data pin is unchanged" in site.propose()
    assert [] == site.opened


def test_a_pin_that_main_has_moved_meanwhile_is_not_moved_back(site: GitHub) -> None:
    began = site.git("rev-parse", "HEAD")
    site.evidence(5)
    site.commit({PIN: lock(9)})
    assert "main pins other data" in site.propose(GITHUB_SHA=began)
    assert [] == site.opened


@pytest.mark.parametrize(
    ("place", "pinned", "says"),
    [
        ("", False, "skipped: no log is configured"),
        ("/var/log/closedloop", False, "on a volume that Actions cannot read"),
        ("az://fleet/log", False, ""),
        ("", True, ""),
    ],
)
def test_whether_there_is_a_log(site: GitHub, place: str, pinned: bool, says: str) -> None:
    if pinned:
        site.commit({PIN: lock(3)})
    done = site.run("propose", "log", LOG_SINK=place)
    assert done.returncode == 0
    assert says in (site.folder / "summary").read_text()
    assert f"log={str(not says).lower()}\ndatabricks=false\n" == (site.folder / "output").read_text()


def test_databricks_trains_where_it_is_configured(site: GitHub) -> None:
    """It needs no log: what is pinned may have newer versions."""
    done = site.run("propose", "log", DATABRICKS_HOST="https://workspace.example")
    assert done.returncode == 0
    assert "Databricks trains" in (site.folder / "summary").read_text()
    assert (site.folder / "output").read_text() == "log=true\ndatabricks=true\n"


def wanted(site: GitHub, **extra: str) -> dict[str, list[int]]:
    """The versions that the sinks must keep, by kind of pin."""
    done = site.run("log_pins", **extra)
    assert done.returncode == 0, done.stderr
    found = json.loads((site.work / "build/log-pins.json").read_text())
    return {kind: [log["versions"]["requests"] for log in logs] for kind, logs in found.items()}


def released(commit: str, **facts: Any) -> dict[str, Any]:
    known = {"commit": commit, "image": "x", "served": None, "champion": None, "withdrawn": None} | facts
    return {"tag_name": commit[:7], "body": release_facts.block(known), "draft": False, "id": 1}


def test_what_the_sinks_must_keep(site: GitHub) -> None:
    """main, what of it is not released yet, the releases that were not withdrawn, and what is proposed."""
    assert {"main": [], "proposal": [], "release": []} == wanted(site)
    three = site.commit({PIN: lock(3)})
    assert {"main": [3], "proposal": [], "release": []} == wanted(site)
    four = site.commit({PIN: lock(4)})
    five = site.commit({PIN: lock(5)})
    site.change(releases=[released(three)])
    assert {"main": [5, 4], "proposal": [], "release": [3]} == wanted(site)
    site.change(releases=[released(five), released(four, withdrawn={"why": "hot"}), released(three)])
    assert {"main": [5], "proposal": [], "release": [5, 3]} == wanted(site)
    site.evidence(6)
    assert {"main": [5], "proposal": [6], "release": [5, 3]} == wanted(site, WORTH="true", OPEN="false")
    site.propose()
    site.evidence(7)
    assert {"main": [5], "proposal": [7, 6], "release": [5, 3]} == wanted(site, WORTH="true", OPEN="true")
    assert {"main": [5], "proposal": [6], "release": [5, 3]} == wanted(site)
    assert {"main": [5], "proposal": [], "release": [5, 3]} == wanted(site, OPEN="false")


def test_a_failed_call_keeps_what_was_wanted(site: GitHub) -> None:
    """A list that is not whole would remove the pins of what it lacks."""
    site.commit({PIN: lock(3)})
    wanted(site)
    before = (site.work / "build/log-pins.json").read_bytes()
    site.change(calls=[], lose={"call": 1})
    assert 1 == site.run("log_pins").returncode
    assert before == (site.work / "build/log-pins.json").read_bytes()
