"""A retraining's pull request from the log to the release, run by a workflow runner (act-run) with the real programs.

The log lies in Azurite. GitHub is the stand-ins tests/repo/gh_pulls and tests/repo/gh, and its branches lie in a bare
repository. Stand-ins are also the make targets that check code and build images; tests/chaos/test_proposed_log.py has
the first proposal of a log, which a person decides on. It takes a quarter of an hour, so it runs only where it is asked
for::

    PIPELINE=1 pytest tests/repo/test_retrain_run.py
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import logged_fleet
from closedloop.log import pins
from closedloop.log.sink import Sink
from dev import fleets
from pipeline import propose, release_facts

from . import workflow_runs
from .conftest import load
from .workflow_runs import PLANT, ROOT, jobs

SINK, PIN = "az://fleet/log", "model/data.lock.json"
START = pd.Timestamp(fleets.START)
FILES_END, LOG_PINNED, FIRST_WEEK, SECOND_WEEK = 16, 20, 93, 100  # days of the plant's life
IMAGE = "ghcr.io/someone/fleet@sha256:" + "1" * 64
MANIFEST = "env:\\n  - name: IMAGE\\n    value: closedloop\\nimage: closedloop\\n"
STAND_INS = {
    "Makefile": {
        "manifests": f"@mkdir -p build/manifests && printf '{MANIFEST}' > build/manifests/local.yaml",
        **dict.fromkeys(("test", "check", "contract", "image-test"), "@echo 'a stand-in'"),
        "image": f"@echo id=sha256:{'2' * 64} >> $$GITHUB_OUTPUT",
    },
    ".ci/steps.mk": {
        **dict.fromkeys(("checkers", "scan-served", "scan"), "@mkdir -p build/scan"),
        "sbom": "@echo {} > build/sbom.json",
        "image-push": f"@printf 'image={IMAGE}\\nname={IMAGE.partition('@')[0]}\\ndigest={IMAGE.partition('@')[2]}\\n' "
        ">> $$GITHUB_OUTPUT",
    },
}

pytestmark = [
    pytest.mark.skipif("PIPELINE" not in os.environ, reason="PIPELINE=1 runs it: a quarter of an hour"),
    pytest.mark.skipif(shutil.which("act-run") is None, reason="act-run is not on PATH"),
]


def day_of(number: int) -> str:
    """When a day of the plant's life begins, as its files have it."""
    return (START + pd.Timedelta(days=number)).strftime("%Y-%m-%d %H:%M")


class Site:
    """A copy of this repository that trains on a plant's files and its log, and what GitHub knows of it."""

    def __init__(self, folder: Path, azurite: dict[str, str]) -> None:
        self.folder, self.azurite, self.copy = folder, azurite, folder / "fleet"
        self.remote, self.state_file = folder / "remote", folder / "state.json"
        self.state_file.write_text(json.dumps({"calls": [], "pulls": [], "runs": [], "assets": {}, "api": {}}))
        self.know(releases=[])
        self.kit = load(ROOT / "tests/log/conftest.py")
        self.write_plant()
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", self.remote], check=True)
        self.copy.mkdir()
        fleets.copy_repository(self.copy)
        self.git("remote", "add", "origin", str(self.remote))
        pushed = {"GIT_CONFIG_COUNT": 1, "GIT_CONFIG_KEY_0": "remote.origin.pushurl", "GIT_CONFIG_VALUE_0": self.remote}
        real = {"REAL_GIT": shutil.which("git"), "REMOTE": self.remote}
        fast = {"QUICK": 1, "PYTHONPATH": ROOT / "src"}  # this checkout's library, which one job alone has to compile
        workflow_runs.stand_in(self.copy, "gh_pulls", GH_STATE=self.state_file, **fast, **pushed, **real)
        for name, recipes in STAND_INS.items():
            workflow_runs.replace(self.copy / name, recipes)
        self.live(FILES_END, LOG_PINNED)
        workflow_runs.make(self.copy, "adopt", "DATA=../plant", environ=azurite)
        workflow_runs.make(self.copy, "data-pin", f"DATA={SINK}", "ADD=1", environ=azurite)
        self.commit("Train on the plant and its log")

    def write_plant(self) -> None:
        """Write the files of the plant's whole life, and of its first days, when its sensors do not see the wear yet.

        So the first model is blind, and the next one is better.
        """
        fleets.write_files(PLANT, self.folder / "whole")
        file, sensors = self.folder / "whole/telemetry.csv", [*PLANT.sensors]
        table = pd.read_csv(file)
        blind = table["time"] < day_of(LOG_PINNED)
        table.loc[blind, sensors] = table.loc[blind, sensors].sample(frac=1, random_state=1).to_numpy()
        table.to_csv(file, index=False)
        (self.folder / "plant").mkdir()
        for path in (self.folder / "whole").iterdir():
            table = pd.read_csv(path)
            table[table["time"] < day_of(FILES_END)].to_csv(self.folder / "plant" / path.name, index=False)

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=self.copy, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit to main, and push."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")
        return self.know_main()

    def know_main(self) -> str:
        """Have GitHub know the newest commit of main; the commit."""
        commit = self.git("rev-parse", "main")
        self.know(**{"git/ref/heads/main": {"object": {"sha": commit, "type": "commit"}}})
        return commit

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
        return found

    def know(self, **answers: Any) -> None:
        """Have the API answer so."""
        self.state_file.write_text(json.dumps(self.state | {"api": self.state["api"] | answers}), encoding="utf-8")

    def live(self, first: int, last: int) -> None:
        """Log the requests of some days and what happened in them, and ship both."""
        found = {}
        for name in ("telemetry", "failures", "maint"):
            table = pd.read_csv(self.folder / "whole" / f"{name}.csv")
            table = table[(table["time"] >= day_of(first)) & (table["time"] < day_of(last))]
            found[name] = logged_fleet.columns(table.rename(columns={"time": "datetime", "machine": "machineID"}))
            found[name]["datetime"] = [logged_fleet.text(at) for at in table["time"]]
        told = {name: found[name] for name in ("failures", "maint") if found[name]["datetime"]}
        told["complete_until"] = {"datetime": [logged_fleet.text(day_of(last))], "machineID": [None]}
        now, spool = int((START + pd.Timedelta(days=last)).timestamp()) * 1_000_000, self.folder / "spool"
        low = {"machineID": PLANT.machines[0], "datetime": found["telemetry"]["datetime"][-1], "warnings": []}
        low |= {"anomaly": {"score": 0.5, "alarm": False}, "failure": {"seal": {"probability": 0.01, "alarm": False}}}
        answer = json.dumps({"request_id": "r", "model": "sha256:00", "results": [low]}).encode()
        asked = self.kit.scored(f"s{last}", {"telemetry": found["telemetry"]}, now, answer=answer)
        self.kit.fill(spool, [asked], [self.kit.fed(f"f{last}", told, now)])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.azurite.items():
                patch.setenv(name, value)
            self.kit.ship(spool, SINK, rounds=2)

    def act(self, event: str, workflow: str, branch: str, **payload: Any) -> str:
        """Run a workflow on a branch as GitHub has it; what was printed."""
        self.git("fetch", "--quiet", "--prune", "origin")
        for name in self.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes/origin").split():
            self.git("checkout", "--quiet", "-B", name, f"origin/{name}")
        self.git("checkout", "--quiet", branch)
        file = self.folder / "payload.json"
        file.write_text(json.dumps({"repository": {"private": True}} | payload), encoding="utf-8")
        variables = {"LOG_SINK": SINK, "LOG_AZURE_ACCOUNT": self.azurite["AZURE_STORAGE_ACCOUNT_NAME"]}
        words = (event, workflow, "--branch", branch, "--event-json", str(file))
        return workflow_runs.act(self.copy, self.azurite, *words, **variables)

    def retrain(self) -> str:
        return self.act("workflow_dispatch", "retrain.yml", "main")

    def proposed(self) -> tuple[str, dict[str, Any]]:
        """The commit of the proposal, which changes the pin alone, and the pin."""
        self.git("fetch", "--quiet", "origin")
        assert PIN == self.git("diff", "--name-only", "origin/main...origin/retrain")
        return self.git("rev-parse", "origin/retrain"), json.loads(self.git("show", f"origin/retrain:{PIN}"))

    def merge(self) -> tuple[str, str]:
        """Merge the pull request as one commit, as a person does; main's commit before, and now."""
        self.git("checkout", "--quiet", "main")
        before = self.git("rev-parse", "main")
        self.git("merge", "--quiet", "--squash", "origin/retrain")
        commit = self.commit("Retrain on newer data")
        self.git("push", "--quiet", "origin", "--delete", "retrain")
        self.git("branch", "--quiet", "-D", "retrain")
        (pull,) = self.state["pulls"]
        merged = pull | {"state": "closed", "merged_at": "2026-04-20T10:00:00Z"}
        self.state_file.write_text(json.dumps(self.state | {"pulls": [merged]}), encoding="utf-8")
        return before, commit

    def kept(self) -> list[tuple[str, int]]:
        """The kinds of the pins that the pipeline keeps in the sink, with the version of requests."""
        found = [pin for pin in pins.find(Sink.at(SINK, self.azurite)) if pin.id.startswith(f"{pin.kind}-")]
        return sorted((pin.kind, pin.versions["requests"]) for pin in found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, azurite: dict[str, str]) -> Site:
    return Site(tmp_path_factory.mktemp("retrained"), azurite)


def versions(pin: dict[str, Any]) -> int:
    """The version of the requests that a pin names."""
    (log,) = [part for part in pin["parts"] if part["kind"] == "log"]
    found: int = log["versions"]["requests"]
    return found


def without_versions(pin: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a pin, but for the versions of its log."""
    return [{key: value for key, value in part.items() if key != "versions"} for part in pin["parts"]]


def ended(shown: str) -> set[str]:
    """The results of the jobs that ran."""
    return set(jobs(shown).values()) - {"skipped"}


def test_it_is_opened_once_updated_next_week_checked_merged_and_released(site: Site) -> None:
    pinned = json.loads((site.copy / PIN).read_text(encoding="utf-8"))
    site.live(LOG_PINNED, FIRST_WEEK)
    assert {"success"} == ended(site.retrain())
    first, pin = site.proposed()
    assert versions(pinned) < versions(pin)
    assert without_versions(pinned) == without_versions(pin)
    (pull,) = site.state["pulls"]
    assert (propose.BRANCH, "open") == (pull["branch"], pull["state"])
    assert "Better" in pull["body"]

    site.live(FIRST_WEEK, SECOND_WEEK)
    assert {"success"} == ended(site.retrain())
    second, pin = site.proposed()
    (updated,) = site.state["pulls"]
    assert pull["body"] != updated["body"]
    assert [first, second] == site.state["runs"], "its checks are started for each commit, once"
    assert ("proposal", versions(pin)) in site.kept()

    shown = site.act("workflow_dispatch", "ci.yml", propose.BRANCH)
    assert {"success"} == ended(shown)
    assert "success" == jobs(shown)["branch"]
    told = [call for call in site.state["calls"] if isinstance(call, dict)]
    (status,) = [call for call in told if f"repos/someone/fleet/statuses/{second}" in call["words"]]
    assert "success" == json.loads(status["stdin"])["state"]

    before, commit = site.merge()
    shown = site.act("push", "ci.yml", "main", before=before)
    assert {"success"} == ended(shown)
    (release,) = site.state["api"]["releases"]
    facts = release_facts.facts(release["body"])
    assert (False, commit, "better") == (release["draft"], facts["commit"], facts["verdict"])
    assert facts["served"]
    assert facts["champion"]
    assert pin == json.loads(site.git("show", f"{facts['commit']}:{PIN}")), "the commit that the release names"
    archive = base64.b64decode(site.state["assets"][release["tag_name"]]["bundle.tar.gz"]["base64"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        manifest = json.load(packed.extractfile("bundle/manifest.json"))  # type: ignore[arg-type]
    assert pin["fingerprint"] == manifest["training"]["fingerprint"], "it learned from what the pin names"
    assert [("main", versions(pin))] == site.kept()

    shown = site.retrain()
    assert "nothing new" in shown
    assert "skipped" == jobs(shown)["Open or update the pull request for the newer data"]
    assert 1 == len(site.state["pulls"])
    assert {("main", versions(pin)), ("release", versions(pin))} == set(site.kept())
