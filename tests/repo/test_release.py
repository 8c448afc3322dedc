"""What the pipeline does to releases, pull requests and issues: the real programs and git, and a stand-in for gh."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline import comment, deploy, release, release_facts

IMAGE = "registry.invalid/someone/fleet@sha256:" + "1" * 64
MANIFEST = """kind: StatefulSet
spec:
  - env:
    - name: IMAGE
      value: NAME
    image: NAME
    name: score
  - image: "NAME:dev"
"""


RUN = re.compile(r"\brun: make ([a-z0-9-]+)")


class Repository:
    """A repository of three commits with a remote, and what GitHub would know of it."""

    def __init__(self, folder: Path, root: Path, name: str) -> None:
        self.manifest = MANIFEST.replace("NAME", name)
        self.root, self.work, self.state_file = root, folder / "work", folder / "state.json"
        (folder / "bin").mkdir()
        (folder / "bin/gh").symlink_to(root / "tests/repo/gh")
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GH_STATE": str(self.state_file),
            "PYTHONPATH": str(root / ".ci"),
            "PYTHONSAFEPATH": "1",
            "GITHUB_REPOSITORY": "someone/fleet",
            "GITHUB_SERVER_URL": "https://github.invalid",
            "GITHUB_RUN_ID": "99",
            "GITHUB_RUN_NUMBER": "4",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "PRIVATE": "true",
        }
        self.folder = folder
        self.state: dict[str, Any] = {"calls": [], "api": {"releases": []}, "assets": {}}
        self.keep()
        subprocess.run(["git", "init", "--quiet", "--bare", str(folder / "remote")], check=True)
        self.work.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("remote", "add", "origin", str(folder / "remote"))
        self.commits = [self.commit({"model.py": f"{n}\n", ".github/flow.yml": f"{n}\n"}) for n in range(3)]
        self.git("push", "--quiet", "origin", "main")
        self.state["api"]["git/ref/heads/main"] = {"object": {"sha": self.commits[2]}}
        self.keep()

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def keep(self) -> None:
        self.state_file.write_text(json.dumps(self.state))

    def release(self, tag: str, commit: str, **facts: Any) -> None:
        """A release of format 2, whose facts are in its text alone; tests of the sealed ones are in test_sealed.py."""
        known = {
            "closedloop": 2,
            "commit": commit,
            "image": IMAGE,
            "served": None,
            "champion": None,
            "withdrawn": None,
        } | facts
        text = f"Words of a person.\n\n{release_facts.block(known)}\n\nMore words."
        self.state["api"]["releases"].insert(0, {"tag_name": tag, "body": text, "draft": False, "id": 5})
        self.keep()

    def run(self, name: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"pipeline.{name}", *words]
        environment = self.environment | {"GITHUB_SHA": self.commits[2]} | extra
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        self.state = json.loads(self.state_file.read_text())
        return done

    def facts(self, tag: str) -> dict[str, Any]:
        one = next(one for one in self.state["api"]["releases"] if one["tag_name"] == tag)
        found: dict[str, Any] = release_facts.facts(one["body"])
        return found

    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def calls(self, *start: str) -> list[dict[str, Any]]:
        return [call for call in self.state["calls"] if tuple(call["words"][: len(start)]) == start]

    def summary(self) -> str:
        return (self.folder / "summary").read_text()


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


# --- which commit a change is compared with ---


def test_without_a_release_a_change_is_compared_with_its_base(repo: Repository) -> None:
    assert repo.run("champion", BASE_COMMIT=repo.commits[1]).returncode == 0
    assert {"commit": repo.commits[1], "base": repo.commits[1]} == repo.outputs()
    assert "no release is the champion yet" in repo.summary()


def test_a_change_is_compared_with_the_newest_champion_that_is_not_withdrawn(repo: Repository) -> None:
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01")
    repo.release("r2", repo.commits[1], served="2026-01-02")
    repo.release("r3", repo.commits[2], served="2026-01-03", champion="2026-01-03", withdrawn={"why": "hot"})
    assert repo.run("champion", BASE_COMMIT=repo.commits[1]).returncode == 0
    assert repo.commits[0] == repo.outputs()["commit"]
    assert "release r1" in repo.summary()


def bundle_archive(repo: Repository, tag: str, commit: str, tiny_bundle: Path, **other: str) -> dict[str, Any]:
    """Give a release the archive of a bundle of that commit; return the facts about it, changed by ``other``."""
    folder = repo.folder / "made/bundle"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provenance"] = {"commit": commit}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    release.pack(folder, repo.folder / "bundle.tar.gz")
    content = (repo.folder / "bundle.tar.gz").read_bytes()
    repo.state["assets"][tag] = {"bundle.tar.gz": {"base64": base64.b64encode(content).decode()}}
    known = {key: manifest[key] for key in ("bundle_digest", "model_digest")} | other
    return known | {"files": {"bundle.tar.gz": hashlib.sha256(content).hexdigest()}}


@pytest.fixture
def with_bundle(repo: Repository, tiny_bundle: Path) -> Repository:
    """A repository whose champion is release r1, which holds its bundle."""
    facts = bundle_archive(repo, "r1", repo.commits[0], tiny_bundle)
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01", **facts)
    return repo


def released(repo: Repository) -> dict[str, str]:
    found: dict[str, str] = json.loads((repo.work / "build/released/release.json").read_text())
    return found


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"PRIVATE": "false"}, "by its digest and the signature of .github/workflows/release.yml"),
        ({"PRIVATE": "true", "ATTESTATIONS": "true"}, "by its digest and the signature of"),
        ({"PRIVATE": "true"}, "by the digest in the release's facts"),
    ],
)
def test_the_champions_bundle_is_that_of_its_release_and_is_verified_as_far_as_it_can_be(
    with_bundle: Repository, tiny_bundle: Path, extra: dict[str, str], says: str
) -> None:
    done = with_bundle.run("champion", **extra)
    assert done.returncode == 0, done.stderr
    found = released(with_bundle)
    assert ("r1", with_bundle.commits[0], "") == (found["tag"], found["commit"], found["problem"])
    assert found["verified"].startswith(says)
    assert f"verified {says}" in with_bundle.summary()
    there = with_bundle.work / "build/released/bundle"
    assert sorted(path.name for path in there.rglob("*")) == sorted(path.name for path in tiny_bundle.rglob("*"))
    verified = [" ".join(call["words"]) for call in with_bundle.calls("attestation", "verify")]
    assert len(verified) == ("signature" in says)
    for call in verified:
        assert "--signer-workflow someone/fleet/.github/workflows/release.yml" in call
        assert f"--source-digest {with_bundle.commits[0]}" in call


def test_the_holdouts_that_judged_each_release_are_listed(repo: Repository) -> None:
    for n, commit in enumerate(repo.commits):
        own = {} if n == 0 else {"holdout": "sha256:a"}  # the first is older than these facts
        repo.release(f"r{n}", commit, served=f"2026-01-0{n + 1}", champion=None, **own)
    assert repo.run("champion").returncode == 0
    assert json.loads((repo.work / "build/released/holdouts.json").read_text()) == ["sha256:a", "sha256:a"]


def test_a_download_that_fails_once_is_tried_again(with_bundle: Repository) -> None:
    with_bundle.state["refuse_once"] = {"release download": "HTTP 502: bad gateway"}
    with_bundle.keep()
    assert with_bundle.run("champion", PRIVATE="false").returncode == 0
    assert released(with_bundle)["problem"] == ""
    assert len(with_bundle.calls("release", "download")) == 2


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        ("release download", "`gh release download` exited with 1: HTTP 502"),
        ("attestation verify", "`gh attestation verify` exited with 1: HTTP 502"),
    ],
)
def test_where_the_bundle_cannot_be_had_or_verified_it_is_left_out_and_the_page_says_why(
    with_bundle: Repository, refused: str, says: str
) -> None:
    with_bundle.state["refuse"] = {refused: "HTTP 502: bad gateway"}
    with_bundle.keep()
    assert with_bundle.run("champion", PRIVATE="false").returncode == 0
    assert says in released(with_bundle)["problem"]
    assert {"release.json", "holdouts.json"} == {path.name for path in (with_bundle.work / "build/released").iterdir()}
    assert "Its commit is trained again" in with_bundle.summary()
    assert says in with_bundle.summary()
    assert with_bundle.commits[0] == with_bundle.outputs()["commit"]


@pytest.mark.parametrize(("program", "folder"), [("champion", "released"), ("served", "served")])
def test_a_fetch_that_is_killed_at_any_call_is_whole_when_it_runs_again(
    with_bundle: Repository, program: str, folder: str
) -> None:
    """Of the champion's bundle, and of what was served: the first steps of a retraining."""

    def fetched(kill: int = 0) -> tuple[int, dict[str, bytes]]:
        with_bundle.state |= {"calls": [], "kill": kill}
        with_bundle.keep()
        top = with_bundle.work / "build" / folder
        code = with_bundle.run(program, PRIVATE="false").returncode
        return code, {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    whole = fetched()
    assert whole[0] == 0
    assert any(name.endswith("bundle/manifest.json") for name in whole[1])
    calls = len(with_bundle.state["calls"])
    for call in range(1, calls + 1):
        assert fetched(kill=call)[0] == -signal.SIGKILL
        assert whole == fetched()
    assert calls >= 3


def test_where_the_releases_cannot_be_read_nothing_is_compared(with_bundle: Repository) -> None:
    """Without them every model would be the first one."""
    with_bundle.state["refuse"] = {"api": "HTTP 502: bad gateway"}
    with_bundle.keep()
    done = with_bundle.run("champion", BASE_COMMIT=with_bundle.commits[1])
    assert done.returncode == 1
    assert "`gh api --paginate` exited with 1: HTTP 502" in done.stderr
    assert not (with_bundle.work / "build/released").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"bundle_digest": "sha256:other"}, "has bundle_digest sha256:"),
        ({"model_digest": "sha256:other"}, "has model_digest sha256:"),
        ({"commit": "of another"}, "has commit of another, but its facts say"),
        ({"files": {}}, "is not the file that the release's facts name"),
        ({"files": None}, "is not the file that the release's facts name"),
    ],
)
def test_a_bundle_that_is_not_the_one_of_the_facts_is_left_out(
    repo: Repository, tiny_bundle: Path, changed: dict[str, Any], says: str
) -> None:
    commit = changed.pop("commit", repo.commits[0])
    facts = bundle_archive(repo, "r1", commit, tiny_bundle) | changed
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01", **facts)
    assert repo.run("champion").returncode == 0
    assert says in released(repo)["problem"]
    assert not (repo.work / "build/released/bundle").exists()


@pytest.mark.parametrize("name", ["../evil", "bundle/../../evil", "/evil", "bundle/link", "no archive", "cut", "none"])
def test_an_archive_that_is_none_of_a_bundle_is_left_out(repo: Repository, tiny_bundle: Path, name: str) -> None:
    facts = bundle_archive(repo, "r1", repo.commits[0], tiny_bundle)
    path = repo.folder / "bundle.tar.gz"
    if name in ("no archive", "cut", "none"):
        path.write_bytes({"no archive": b"text", "cut": path.read_bytes()[:900], "none": b""}[name])
    else:
        with tarfile.open(path, "w:gz") as archive:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc") if name.endswith("link") else (tarfile.REGTYPE, "")
            archive.addfile(entry)
    content = path.read_bytes()
    repo.state["assets"]["r1"] = {"bundle.tar.gz": {"base64": base64.b64encode(content).decode()}}
    facts["files"] = {"bundle.tar.gz": hashlib.sha256(content).hexdigest()}
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01", **facts)
    assert repo.run("champion").returncode == 0
    assert "bundle.tar.gz of release r1" in released(repo)["problem"]
    assert not list(repo.folder.rglob("evil"))
    assert not (repo.work / "build/released/bundle").exists()


def test_a_bundle_of_an_earlier_run_is_never_taken_for_this_ones(with_bundle: Repository) -> None:
    assert with_bundle.run("champion").returncode == 0
    with_bundle.state["api"]["releases"] = []
    with_bundle.keep()
    assert with_bundle.run("champion").returncode == 0
    assert ["holdouts.json"] == [path.name for path in (with_bundle.work / "build/released").iterdir()]


def of_format_1(repo: Repository, tag: str, commit: str, **facts: Any) -> None:
    """A release of format 1: the old names of two keys, and the signature of the old workflow."""
    known = {"closedloop": 1, "commit": commit, "image": IMAGE, "becomes_reference": True, "files": {}} | facts
    known = {"served": None, "reference": None, "withdrawn": None} | known
    text = json.dumps({"closedloop": known.pop("closedloop")} | known, indent=1)
    repo.state["api"]["releases"].insert(
        0, {"tag_name": tag, "body": f"Words.\n\n```json\n{text}\n```", "draft": False, "id": 5}
    )
    repo.keep()


def test_the_champion_of_an_older_release_is_found_under_its_old_key(repo: Repository) -> None:
    """Else a change would be compared with its base commit, and nobody would notice."""
    of_format_1(repo, "r1", repo.commits[0], served="2026-01-01", reference="2026-01-01")
    assert repo.run("champion", BASE_COMMIT=repo.commits[1]).returncode == 0
    assert repo.commits[0] == repo.outputs()["commit"]
    repo.release("r2", repo.commits[1], served="2026-01-02", champion="2026-01-02")
    assert repo.run("champion", BASE_COMMIT=repo.commits[1]).returncode == 0
    assert repo.commits[1] == repo.outputs()["commit"]


def test_an_older_release_keeps_its_keys_when_its_facts_change(repo: Repository) -> None:
    """A branch from before the rename still reads them, and they say who signed it."""
    of_format_1(repo, "r0", repo.commits[0], served="2026-01-01", reference="2026-01-01")
    repo.release("r1", repo.commits[1], served="2026-01-02", champion="2026-01-02")
    assert repo.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 0
    old = json.loads(repo.state["api"]["releases"][1]["body"].partition("```json\n")[2].partition("```")[0])
    assert (old["closedloop"], old["reference"], old["becomes_reference"]) == (1, "2026-01-01", True)
    assert old["served"] > "2026-01-02"
    assert not {"champion", "becomes_champion"} & set(old)
    assert repo.facts("r0")["champion"] == "2026-01-01"


def test_a_release_that_a_person_made_or_a_draft_is_no_champion(repo: Repository) -> None:
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01")
    repo.state["api"]["releases"][0]["draft"] = True
    repo.state["api"]["releases"].append({"tag_name": "v1", "body": "```json\n{}\n```", "draft": False})
    repo.keep()
    assert repo.run("champion", BASE_COMMIT=repo.commits[1]).returncode == 0
    assert repo.commits[1] == repo.outputs()["commit"]


def test_where_github_does_not_answer_no_champion_is_guessed(repo: Repository) -> None:
    repo.state["refuse"] = {"api": "HTTP 502: bad gateway"}
    repo.keep()
    done = repo.run("champion", BASE_COMMIT=repo.commits[1])
    assert done.returncode == 1
    assert "HTTP 502" in done.stderr


def test_on_a_laptop_the_champion_is_left_to_make_run(repo: Repository) -> None:
    assert repo.run("champion", GITHUB_REPOSITORY="").returncode == 0
    assert repo.outputs()["commit"] == ""


# --- what is released ---


def decided(repo: Repository, **extra: str) -> tuple[int, dict[str, str]]:
    done = repo.run("release", "decide", **({"PRIVATE": "false"} | extra))
    return done.returncode, repo.outputs() if done.returncode == 0 else {"error": done.stderr}


def test_a_fresh_copy_makes_a_release_and_says_what_it_skips(repo: Repository) -> None:
    assert (0, {"release": "true", "staging": "false", "production": "false", "sign": "true"}) == decided(repo)
    assert "Skipped: staging. The variable DEPLOY_TO does not name it." in repo.summary()


@pytest.mark.parametrize("released", [1, 2])
def test_a_commit_that_was_overtaken_or_released_before_is_not_released(repo: Repository, released: int) -> None:
    repo.release("r9", repo.commits[released], served="2026-01-01")
    assert decided(repo, GITHUB_SHA=repo.commits[1])[1]["release"] == "false"
    assert "Nothing to release: r9" in repo.summary()


def test_an_older_release_does_not_stop_a_newer_commit(repo: Repository) -> None:
    repo.release("r1", repo.commits[0], served="2026-01-01")
    assert decided(repo)[1]["release"] == "true"


def holding(repo: Repository, *tags: str) -> None:
    """Give GitHub branches of rollbacks."""
    refs = [{"ref": f"refs/heads/rollback/{tag}", "object": {"sha": "a"}} for tag in tags]
    repo.state["api"]["git/matching-refs/heads/rollback/"] = refs


def test_a_persons_own_branch_is_no_rollback_and_an_odd_name_asks_for_no_other(repo: Repository) -> None:
    """Only a branch of a release's name holds; docs.github.com/rest/pulls/pulls: `head` is part of a query."""
    holding(repo, "fix-it", "a&state=closed", "ü#1")
    repo.keep()
    assert decided(repo)[1]["release"] == "true"
    assert repo.run("release", "hold").returncode == 0
    asked = [word for call in repo.calls("api") for word in call["words"] if "releases/tags/" in word]
    assert "repos/someone/fleet/releases/tags/a%26state%3Dclosed" in asked


@pytest.mark.parametrize(
    ("pulls", "held"),
    [
        ([], True),
        ([{"number": 3, "state": "open", "head": {"sha": "a"}}], True),
        ([{"number": 3, "state": "closed", "head": {"sha": "a"}}], False),
        ([{"number": 3, "state": "closed", "head": {"sha": "of an earlier rollback"}}], True),
    ],
)
def test_a_rollback_that_waits_for_a_person_holds_everything(
    repo: Repository, pulls: list[dict[str, Any]], held: bool
) -> None:
    holding(repo, "r1")
    repo.release("r1", repo.commits[0])
    repo.state["api"]["pulls?state=all&head=someone:rollback/r1"] = pulls
    repo.keep()
    assert decided(repo)[1]["release"] == str(not held).lower()
    assert repo.run("release", "hold").returncode == int(held)


def test_a_withdrawn_release_is_not_delivered_again_by_a_job_that_is_run_again(repo: Repository) -> None:
    """Weeks later, when the rollback's pull request is closed and no newer release is there to stop it."""
    tag = f"r4-{repo.commits[2][:9]}"
    gone = {"at": "2026-02-02", "why": "it slept through a failure"}
    repo.release("r0", repo.commits[0], served="2026-01-01")
    repo.release(tag, repo.commits[2], served="2026-02-01")
    repo.keep()
    assert repo.run("release", "hold").returncode == 0
    repo.release(tag, repo.commits[2], served="2026-02-01", withdrawn=gone)
    repo.keep()
    for command in ("hold", "approved"):
        done = repo.run("release", command)
        assert done.returncode == 1
        assert f"release {tag} was withdrawn (it slept through a failure), so nothing of it is deployed" in done.stderr


def environment(repo: Repository, name: str, rule: dict[str, bool] | None, *allowed: dict[str, str]) -> None:
    found = repo.state["api"].setdefault("environments", {"environments": []})["environments"]
    timer = {"type": "wait_timer", "wait_timer": 1}
    found.append({"name": name, "protection_rules": [timer], "deployment_branch_policy": rule})
    repo.state["api"][f"environments/{name}/deployment-branch-policies"] = {"branch_policies": list(allowed)}
    repo.keep()


MAIN, CUSTOM = {"name": "main", "type": "branch"}, {"protected_branches": False, "custom_branch_policies": True}


@pytest.mark.parametrize(
    ("rule", "allowed", "says"),
    [
        ("absent", [], "does not exist"),
        (None, [], "every branch may use it"),
        ({"protected_branches": True, "custom_branch_policies": False}, [], "every protected branch may use it"),
        (CUSTOM, [MAIN, {"name": "release/*", "type": "branch"}], "release/* may use it too"),
        (CUSTOM, [{"name": "main", "type": "tag"}], "main may use it too"),
        (CUSTOM, [], "not even main may use it"),
    ],
)
@pytest.mark.parametrize("name", ["production", "staging", "mlflow"])
def test_an_environment_that_other_branches_may_use_is_refused(
    repo: Repository, name: str, rule: Any, allowed: list[dict[str, str]], says: str
) -> None:
    """Also where it has a timer, which protects nothing."""
    repo.state["api"]["environments"] = {"environments": []}
    if rule != "absent":
        environment(repo, name, rule, *allowed)
    repo.keep()
    asked = {"MLFLOW_TRACKING_URI": "https://x.invalid"} if name == "mlflow" else {"DEPLOY_TO": name}
    code, found = decided(repo, **asked)
    assert code == 1
    assert f"the environment {name} is refused: {says}" in found["error"]


def test_production_that_only_main_may_use_is_planned(repo: Repository) -> None:
    environment(repo, "staging", CUSTOM, MAIN)
    environment(repo, "production", CUSTOM, MAIN)
    assert decided(repo, DEPLOY_TO="staging,production")[1]["production"] == "true"


def test_an_unknown_environment_is_refused(repo: Repository) -> None:
    assert "DEPLOY_TO names prod" in decided(repo, DEPLOY_TO="prod")[1]["error"]


@pytest.mark.parametrize(("private", "variable", "sign"), [("true", "", "false"), ("true", "true", "true")])
def test_a_private_repository_signs_where_it_is_told_that_it_can(
    repo: Repository, private: str, variable: str, sign: str
) -> None:
    assert decided(repo, PRIVATE=private, ATTESTATIONS=variable)[1]["sign"] == sign
    assert ("Skipped: attestations" in repo.summary()) == (sign == "false")


def gathered(repo: Repository, becomes_champion: bool = True) -> None:
    """The artifacts of a run, and what release.py gathers of them."""
    decision = {"verdict": "better", "becomes_champion": becomes_champion, "reason": "Saves."}
    decision |= {"looks": {"holdout": "sha256:a", "releases": 0}}
    files = {
        "decision.json": json.dumps(decision),
        "bundle/manifest.json": json.dumps({"bundle_digest": "sha256:b", "model_digest": "sha256:m"}),
        "bundle/heads/a.safetensors": "0",
        "bundle/card.md": "card",
        "report/index.html": "<html>",
        "sbom.json": "{}",
        "metrics.json": "{}",
        "wheel/x.whl": "wheel",
        "manifests/aks.yaml": repo.manifest,
        "manifests/alerts-azure.json": "{}",
    }
    for name, text in files.items():
        path = repo.work / "build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (repo.work / "requirements").mkdir(exist_ok=True)
    (repo.work / "requirements/serve.txt").write_text("numpy==1\n")
    assert repo.run("release", "gather", IMAGE_BY_DIGEST=IMAGE).returncode == 0
    repo.state["api"][f"git/ref/tags/r4-{repo.commits[2][:9]}"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()


def test_a_release_holds_everything_that_is_served_and_names_the_image_by_digest(repo: Repository) -> None:
    gathered(repo)
    held = {path.name for path in (repo.work / "build/release").iterdir()}
    names = "bundle.tar.gz card.md report.html serve.txt sbom.json x.whl manifests-aks.yaml facts.json"
    assert {*names.split(), "metrics.json", "decision.json", "alerts-azure.json"} == held
    text = (repo.work / "build/release/manifests-aks.yaml").read_text()
    assert text.count(f"image: {IMAGE}\n") == 2
    assert f"name: IMAGE\n      value: {IMAGE}\n" in text  # what /version will say
    archive = (repo.work / "build/release/bundle.tar.gz").read_bytes()
    for path in (repo.work / "build/bundle").rglob("*"):
        os.utime(path, (0, 0))
    gathered(repo)
    assert archive == (repo.work / "build/release/bundle.tar.gz").read_bytes()


def test_from_draft_to_published_what_is_served_moves_last(repo: Repository) -> None:
    gathered(repo)
    assert repo.run("release", "draft").returncode == 0
    tag = f"r4-{repo.commits[2][:9]}"
    assert repo.facts(tag)["served"] is None
    assert repo.facts(tag)["holdout"] == "sha256:a"
    created = repo.calls("release", "create")[0]["words"]
    assert "--draft" in created
    assert "--verify-tag" in created  # never one that GitHub makes then, at whatever commit
    assert "--target" not in created
    assert repo.run("release", "publish").returncode == 0
    facts = repo.facts(tag)
    assert facts["served"] == facts["champion"] is not None
    assert not repo.state["api"]["releases"][0]["draft"]


def test_a_model_that_is_not_proven_is_served_and_the_champion_stays(repo: Repository) -> None:
    repo.release("r1", repo.commits[0], served="2026-01-01", champion="2026-01-01")
    gathered(repo, becomes_champion=False)
    repo.run("release", "draft")
    repo.run("release", "publish")
    repo.run("champion")
    assert repo.commits[0] == repo.outputs()["commit"]


@pytest.mark.parametrize("command", ["draft", "publish", "verify"])
def test_a_file_that_was_changed_after_it_was_gathered_goes_nowhere(repo: Repository, command: str) -> None:
    gathered(repo)
    (repo.work / "build/release/manifests-aks.yaml").write_text(repo.manifest)
    done = repo.run("release", command)
    assert done.returncode == 1
    assert "manifests-aks.yaml: not as gathered" in done.stderr
    assert not repo.calls("release")


@pytest.mark.parametrize("becomes", [True, False])
def test_a_decision_with_the_old_key_is_read(repo: Repository, becomes: bool) -> None:
    """A rollback restores model code that writes it."""
    gathered(repo)
    decision = {"verdict": "better", "becomes_reference": becomes, "reason": "Saves."}
    (repo.work / "build/decision.json").write_text(json.dumps(decision))
    assert repo.run("release", "gather", IMAGE_BY_DIGEST=IMAGE).returncode == 0
    facts = json.loads((repo.work / "build/release/facts.json").read_text())
    assert (facts["closedloop"], facts["becomes_champion"]) == (3, becomes)
    assert "becomes_reference" not in facts


@pytest.mark.parametrize(("expected", "code"), [(None, 0), ("the same", 0), ("sha256:other", 1), ("", 1)])
def test_a_bundle_that_is_not_the_judged_one_is_refused_also_where_the_digest_was_lost(
    repo: Repository, tiny_bundle: Path, expected: str | None, code: int
) -> None:
    shutil.copytree(tiny_bundle, repo.work / "build/bundle")
    digest = json.loads((tiny_bundle / "manifest.json").read_text())["bundle_digest"]
    done = repo.run("bundle", **({} if expected is None else {"EXPECTED": expected.replace("the same", digest)}))
    assert done.returncode == code, done.stderr
    assert ("was judged; run the workflow again" in done.stderr) == bool(code)


# --- rolling back ---


def served(repo: Repository) -> None:
    """Three releases, each served after the other."""
    for n, commit in enumerate(repo.commits):
        moment = f"2026-01-0{n + 1}"
        repo.release(f"r{n}", commit, served=moment, champion=moment)


def test_a_rollback_restores_the_tree_but_not_the_workflows_and_holds_the_rest(repo: Repository) -> None:
    served(repo)
    done = repo.run("rollback", "hold", RELEASE="r0", REASON="it $(touch x) `burns` @everyone")
    assert done.returncode == 0, done.stderr
    repo.git("fetch", "--quiet", "origin")
    assert repo.git("show", "origin/rollback/r0:model.py") == "0"
    assert repo.git("show", "origin/rollback/r0:.github/flow.yml") == "2"
    assert repo.git("rev-parse", "origin/rollback/r0^") == repo.commits[2]
    (pull,) = repo.calls("pr", "create")
    assert "> `it $(touch x) 'burns' @everyone`" in pull["stdin"]
    assert "If `types` or `policy` is red because the release is older than what they\nask for" in pull["stdin"]
    assert not repo.calls("workflow")  # it would be compared with the release that is withdrawn only later
    assert not (repo.work / "x").exists()


def test_a_rollback_to_before_the_pipeline_moved_keeps_every_target_that_workflows_call(
    repo: Repository, root: Path, targets: dict[str, str]
) -> None:
    """The release has the old programs, an old Makefile and no steps.mk; today's workflows call today's targets."""
    old = repo.commit(
        {
            "Makefile": "old-plan:\n\t@python3 .ci/old.py plan\n",
            ".ci/old.py": "old\n",
            ".github/workflows/old.yml": "old\n",
            "tests/repo/test_old.py": "old\n",
            "tests/model/test_train.py": "old\n",
            "model/train.py": "old\n",
            "src/closedloop/x.py": "old\n",
        }
    )
    repo.git("rm", "-r", "--quiet", ".ci", ".github", "tests/repo", "tests/model", "model")
    today = {path: (root / path).read_text() for path in ("Makefile", ".ci/steps.mk", ".ci/pipeline/plan.py")}
    today |= {str(path.relative_to(root)): path.read_text() for path in (root / ".github/workflows").iterdir()}
    repo.commit(today | {"tests/repo/test_release.py": "new\n", "model/train.py": "new\n", "docs/new.md": "new\n"})
    repo.git("push", "--quiet", "origin", "main")
    of_format_1(repo, "r0", old, served="2026-01-01", reference="2026-01-01")
    repo.release("r1", repo.git("rev-parse", "HEAD"), served="2026-01-02", champion="2026-01-02")
    done = repo.run("rollback", "hold", RELEASE="r0", REASON="hot")
    assert done.returncode == 0, done.stderr

    repo.git("fetch", "--quiet", "origin")
    repo.git("checkout", "--quiet", "--detach", "origin/rollback/r0")
    there = set(repo.git("ls-files").splitlines())
    assert set(today) | {"tests/repo/test_release.py"} <= there
    assert {"tests/model/test_train.py", "src/closedloop/x.py"} <= there
    assert (repo.work / "model/train.py").read_text() == "old\n"
    assert [name for name in there if "old" in name or name == "docs/new.md"] == []
    called = {word for name in there if name.endswith(".yml") for word in RUN.findall((repo.work / name).read_text())}
    assert {"release-decide", "champion", "run"} <= called
    assert called <= set(targets)
    for target in sorted(called):
        words = ["make", "--dry-run", "INSTALLED=", "WHEEL=", "BUNDLE=", target]
        assert subprocess.run(words, cwd=repo.work, capture_output=True, check=False).returncode == 0, target


def test_a_rollback_that_is_run_again_keeps_what_a_person_added_to_its_branch(repo: Repository) -> None:
    served(repo)
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    repo.git("fetch", "--quiet", "origin")
    first = repo.git("rev-parse", "origin/rollback/r0")
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    repo.git("fetch", "--quiet", "origin")
    assert first == repo.git("rev-parse", "origin/rollback/r0")

    repo.git("checkout", "--quiet", "-b", "mine", "origin/rollback/r0")
    mine = repo.commit({"pyproject.toml": "[tool.x]\n"})
    repo.git("push", "--quiet", "origin", "mine:rollback/r0")
    repo.git("fetch", "--quiet", "origin")
    repo.state["api"]["pulls?state=all&base=main&head=someone:rollback/r0"] = [
        {"number": 4, "state": "open", "head": {"sha": mine}, "body": ""}
    ]
    repo.keep()
    before = len(repo.calls("pr", "create"))
    done = repo.run("rollback", "hold", RELEASE="r0", REASON="hot")
    assert done.returncode == 0, done.stderr
    repo.git("fetch", "--quiet", "origin")
    assert mine == repo.git("rev-parse", "origin/rollback/r0")
    assert len(repo.calls("pr", "create")) == before
    assert f"#4 has commits of a person ({mine[:7]}" in repo.summary()


def test_where_no_pull_request_may_be_opened_the_branch_holds_and_a_person_is_told(repo: Repository) -> None:
    served(repo)
    repo.state["refuse"] = {"pr create": "GitHub Actions is not permitted to create or approve pull requests"}
    repo.keep()
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    assert "compare/rollback/r0?expand=1" in repo.summary()


def test_an_app_needs_no_second_start(repo: Repository) -> None:
    served(repo)
    assert repo.run("rollback", "check", RELEASE="r0", AS_APP="true").returncode == 0
    assert not repo.calls("workflow", "run")


def test_the_pull_request_of_a_rollback_is_checked_once_the_champion_is_what_it_restores(repo: Repository) -> None:
    served(repo)
    assert repo.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 0
    edits = [call["words"] for call in repo.state["calls"] if call["words"][0] in ("release", "workflow")]
    assert ["r1", "r2", "r0"] == [words[2] for words in edits]
    assert repo.run("rollback", "check", RELEASE="r0").returncode == 0
    (started,) = (call["words"] for call in repo.calls("workflow"))
    assert ["workflow", "run", "ci.yml"] == started[:3]
    assert started[-2:] == ["--ref", "rollback/r0"]


@pytest.mark.parametrize("dies", ["release edit r1", "release edit r2", "release edit r0"])
def test_a_rollback_that_died_half_way_can_be_run_again(repo: Repository, dies: str) -> None:
    served(repo)
    repo.state["refuse"] = {dies: "HTTP 502: bad gateway"}
    repo.keep()
    assert repo.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 1
    del repo.state["refuse"]
    repo.keep()
    done = repo.run("rollback", "move", RELEASE="r0", REASON="hot")
    assert done.returncode == 0, done.stderr
    assert ["r0"] == [tag for tag in ("r0", "r1", "r2") if not repo.facts(tag)["withdrawn"]]
    assert repo.facts("r0")["served"] > "2026-01-03"


def test_what_was_served_later_is_withdrawn_and_never_the_champion_again(repo: Repository) -> None:
    served(repo)
    assert repo.run("rollback", "move", RELEASE="r0", REASON="too hot").returncode == 0
    assert [None, "too hot", "too hot"] == [
        (repo.facts(tag)["withdrawn"] or {}).get("why") for tag in ("r0", "r1", "r2")
    ]
    assert "Words of a person." in repo.state["api"]["releases"][-1]["body"]
    repo.run("champion")
    assert repo.commits[0] == repo.outputs()["commit"]
    again = repo.run("rollback", "move", RELEASE="r2", REASON="no, back")
    assert "was withdrawn (too hot)" in again.stderr


@pytest.mark.parametrize(("release", "says"), [("r2", "is served already"), ("r7", "there are: r2, r1, r0")])
def test_a_rollback_to_nowhere_is_refused(repo: Repository, release: str, says: str) -> None:
    served(repo)
    done = repo.run("rollback", "hold", RELEASE=release, REASON="hot")
    assert done.returncode == 1
    assert says in done.stderr


@pytest.mark.parametrize("command", ["hold", "move"])
def test_a_rollback_to_what_never_was_served_withdraws_nothing(repo: Repository, command: str) -> None:
    served(repo)
    repo.release("r9", repo.commits[0], served=None)
    done = repo.run("rollback", command, RELEASE="r9", REASON="hot")
    assert done.returncode == 1
    assert "was never served" in done.stderr
    assert not repo.calls("release", "edit")


def kubectl_of(repo: Repository) -> Path:
    """Put a kubectl on PATH that keeps a cluster in a file, as the API server would; return that file."""
    program = repo.folder / "bin/kubectl"
    program.write_text(f"#!{sys.executable}\n" + (repo.root / "tests/repo/kubectl").read_text(encoding="utf-8"))
    program.chmod(0o755)
    return repo.folder / "cluster.json"


def cluster(file: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(file.read_text())
    return known


SCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "score", "namespace": "n"},
    "spec": {"minReplicas": 2, "scaleTargetRef": {"kind": "StatefulSet", "name": "score"}},
}


def applied(repo: Repository, file: Path, *objects: dict[str, Any], **spec: Any) -> subprocess.CompletedProcess[str]:
    """What ``make deploy`` does with a release of a StatefulSet and more objects."""
    folder = repo.work / "build/release"
    folder.mkdir(parents=True, exist_ok=True)
    one = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "score", "namespace": "n"},
        "spec": spec,
    }
    text = "---\n".join(json.dumps(each) + "\n" for each in (one, *objects))
    (folder / "manifests-aks.yaml").write_text(text)
    commit, files = repo.commits[2], {"manifests-aks.yaml": hashlib.sha256(text.encode()).hexdigest()}
    facts = {"closedloop": 3, "tag": f"r4-{commit[:9]}", "commit": commit, "image": IMAGE, "files": files}
    (folder / "facts.json").write_text(json.dumps(facts))
    return repo.run("deploy", "apply", OVERLAY="aks", CLUSTER=str(file))


def replicas(file: Path) -> int:
    count: int = cluster(file)["objects"]["StatefulSet/score"]["spec"]["replicas"]
    return count


def test_replicas_pass_to_the_autoscaler_and_survive_a_rollback(repo: Repository) -> None:
    """Server-side apply sets a field that nobody owns any more to its default, which is one replica."""
    file = kubectl_of(repo)
    assert applied(repo, file, replicas=4).returncode == 0
    assert replicas(file) == 4
    assert applied(repo, file, SCALER).returncode == 0
    assert replicas(file) == 4  # now the autoscaler's
    known = cluster(file)
    known["objects"]["StatefulSet/score"]["spec"]["replicas"], known["owners"]["StatefulSet/score"] = 7, ["autoscaler"]
    file.write_text(json.dumps(known))
    assert applied(repo, file, replicas=2).returncode == 0  # a rollback to a release that had no autoscaler
    assert replicas(file) == 7
    assert applied(repo, file, SCALER).returncode == 0
    assert replicas(file) == 7


def test_a_first_release_with_an_autoscaler_starts_at_its_floor(repo: Repository) -> None:
    file = kubectl_of(repo)
    assert applied(repo, file, SCALER).returncode == 0
    assert replicas(file) == 2


ELSEWHERE: dict[str, Any] = {"configMapKeyRef": {"name": "x", "key": "y"}}


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ({"env": [{"name": "AUTH", "value": "open"}]}, "AUTH=open"),
        ({"env": [{"name": "AUTH", "valueFrom": ELSEWHERE}]}, "AUTH from another object"),
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, "envFrom"),
    ],
)
def test_an_overlay_that_opens_the_service_is_refused(repo: Repository, container: dict[str, Any], says: str) -> None:
    file = kubectl_of(repo)
    done = applied(repo, file, replicas=2, template={"spec": {"containers": [{"name": "score", **container}]}})
    assert done.returncode == 1
    assert "StatefulSet score has " in done.stderr
    assert says in done.stderr
    assert cluster(file)["objects"] == {}


def test_an_object_of_the_whole_cluster_is_refused_before_anything_is_applied(repo: Repository) -> None:
    """The role of the deployer ends at its namespace: kubectl would apply the rest, and then fail."""
    file = kubectl_of(repo)
    policy = {"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "p"}}
    done = applied(repo, file, policy, replicas=2)
    assert done.returncode == 1
    assert "ClusterImagePolicy p is of the whole cluster" in done.stderr
    assert cluster(file)["objects"] == {}


def test_the_cluster_pulls_the_same_digest_from_a_cache(repo: Repository) -> None:
    file = kubectl_of(repo)
    boxes = [{"name": "score", "image": IMAGE}, {"name": "other", "image": "other@sha256:2"}]
    assert applied(repo, file, template={"spec": {"containers": boxes}}).returncode == 0
    done = repo.run("deploy", "apply", OVERLAY="aks", CLUSTER=str(file), IMAGE_CACHE="cache.invalid/someone/fleet")
    assert done.returncode == 0, done.stderr
    pod = cluster(file)["objects"]["StatefulSet/score"]["spec"]["template"]["spec"]
    pulled = [each["image"] for each in pod["containers"]]
    assert pulled == ["cache.invalid/someone/fleet@sha256:" + "1" * 64, "other@sha256:2"]


class Service(BaseHTTPRequestHandler):
    """What answers like the service, with the faults that a test gives."""

    answers: ClassVar[dict[str, tuple[int, dict[str, Any]]]] = {}
    asked: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        self.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def log_message(self, *words: Any) -> None:
        """Print nothing."""


EXAMPLE = {"telemetry": {"temp": [61.2]}}
BODY = {"content": {"application/json": {"schema": {"examples": [EXAMPLE]}}}}
DOCUMENT = {"paths": {"/score": {"post": {"requestBody": BODY}}}}
FACTS = {"bundle_digest": "sha256:b", "model_digest": "sha256:m", "commit": "c"}


@pytest.mark.parametrize(
    ("changed", "token", "says"),
    [
        ({}, "", []),
        ({}, "t", []),
        ({"/score": (401, {})}, "", []),
        ({"/score": (401, {})}, "t", ["/score answered 401"]),
        ({"/score": (500, {})}, "", ["/score answered 500"]),
        ({"/score": (200, {"model": "sha256:other"})}, "t", ["another model"]),
        ({"/readyz": (503, {"why": "disk"})}, "", ["/readyz answered 503"]),
        ({"/version": (200, FACTS | {"commit": "d"})}, "", ["/version has commit d"]),
        ({"/version": (404, {})}, "", ["bundle_digest None", "model_digest None", "commit None"]),
        ({"/openapi.json": (404, {})}, "", ["no example of a request: 404"]),
        ({"/openapi.json": (200, {"paths": {"/score": {}}})}, "", ["no example of a request: 200"]),
    ],
)
def test_the_smoke_test_finds_what_is_not_what_was_released(
    changed: dict[str, Any], token: str, says: list[str]
) -> None:
    answers = {"/readyz": (200, {}), "/version": (200, FACTS), "/score": (200, {"model": "sha256:m"})}
    answers |= {"/openapi.json": (200, DOCUMENT)} | changed
    handler = type("Faulty", (Service,), {"answers": answers, "asked": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = deploy.objections(f"http://127.0.0.1:{server.server_port}", FACTS, token)
        server.shutdown()
        thread.join()
    assert len(says) == len(found)
    assert all(part in line for part, line in zip(says, found, strict=True))
    assert [EXAMPLE] * ("/openapi.json" not in changed) == [json.loads(body) for body in handler.asked]  # type: ignore[attr-defined]


def test_where_nobody_answers_every_question_is_an_objection() -> None:
    assert len(deploy.objections("http://127.0.0.1:1", FACTS, "")) == 5


# --- comments, issues and statuses ---


def test_the_comment_is_written_once_and_then_kept(repo: Repository) -> None:
    report = repo.work / "build/report/summary.md"
    report.parent.mkdir(parents=True)
    report.write_text("## Better\n\n<details open><summary>x</summary>\n@someone fixes #1\n")
    assert repo.run("comment", PULL_REQUEST="7").returncode == 0
    mark = comment.MARK
    repo.state["api"]["issues/7/comments"] = [
        {"id": 1, "user": {"type": "User"}, "body": f"{mark} by a person"},
        {"id": 2, "user": {"type": "Bot"}, "body": f"{mark}\nold"},
    ]
    repo.keep()
    assert repo.run("comment", PULL_REQUEST="7").returncode == 0
    posted, patched = (call for call in repo.state["calls"] if "--method" in call["words"])
    assert posted["words"][2:4] == ["POST", "repos/someone/fleet/issues/7/comments"]
    assert patched["words"][2:4] == ["PATCH", "repos/someone/fleet/issues/comments/2"]
    body = json.loads(patched["stdin"])["body"]
    assert body.startswith(mark)
    assert "<details open><summary>x</summary>" in body
    assert body.count("</details>") == 1  # what was left open is closed
    assert "@someone" not in body
    assert "#1" not in body
    assert "actions/runs/99#artifacts" in body


def test_without_a_report_the_comment_says_where_to_look(repo: Repository) -> None:
    assert repo.run("comment", PULL_REQUEST="7").returncode == 0
    assert "first red job" in repo.state["calls"][-1]["stdin"]


def test_a_link_in_place_of_the_report_is_not_followed(repo: Repository) -> None:
    report = repo.work / "build/report/summary.md"
    report.parent.mkdir(parents=True)
    (repo.work / "secret").write_text("the token")
    report.symlink_to(repo.work / "secret")
    assert repo.run("comment", PULL_REQUEST="7").returncode == 0
    assert "the token" not in repo.state["calls"][-1]["stdin"]


@pytest.mark.parametrize(
    "text",
    [
        *("@team/all", "fixes #12", "GH-12", "[x](https://x.invalid)", "![x](y)", "https://x.invalid", "<script>"),
        *("<!-- x -->", "[x]: y", "www.x.invalid", "\x1b[31m", "&lt;img&gt;", "<img src=x>", "<details onclick=x>"),
        "\u202ereversed",
    ],
)
def test_what_a_comment_could_do_is_shown_and_not_done(text: str) -> None:
    assert text not in comment.harmless(text)


def test_a_long_report_is_cut() -> None:
    body = comment.body("x" * 1_000_000, "https://github.invalid/run")
    assert len(body) < 32_000
    assert "the rest is in the report" in body


def test_a_red_main_is_one_issue_until_it_is_green(repo: Repository) -> None:
    needs = {"required": {"result": "failure"}, "deliver": {"result": "skipped"}}
    assert repo.run("notices", "issue", NEEDS=json.dumps(needs)).returncode == 0
    (made,) = repo.calls("issue", "create")
    assert "required (failure)" in made["stdin"]
    title = made["words"][made["words"].index("--title") + 1]
    repo.state["api"]["issues?state=open"] = [{"number": 3, "title": title, "user": {"type": "Bot"}}]
    repo.keep()
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert len(repo.calls("issue", "create")) == 1
    assert repo.calls("issue", "comment", "3")
    repo.run("notices", "issue", NEEDS=json.dumps({"required": {"result": "success"}}))
    assert repo.calls("issue", "close", "3")


def test_a_copy_that_failed_after_the_release_does_not_say_that_nothing_is_served(repo: Repository) -> None:
    """docs.github.com, "Contexts": `jobs.<id>.result` reaches the caller of a workflow that failed."""
    needs = {"required": {"result": "success"}, "deliver": {"result": "failure", "outputs": {"served": "true"}}}
    assert repo.run("notices", "issue", NEEDS=json.dumps(needs)).returncode == 0
    (made,) = repo.calls("issue", "create")
    title = made["words"][made["words"].index("--title") + 1]
    assert "main is red" not in title
    assert "is released and served" in made["stdin"]
    repo.state["api"]["issues?state=open"] = [{"number": 3, "title": title, "user": {"type": "Bot"}}]
    repo.keep()
    needs["deliver"]["result"] = "success"
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert repo.calls("issue", "close", "3")
    needs["deliver"] = {"result": "failure", "outputs": {"served": "false"}}
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert "is not served: deliver (failure)" in repo.calls("issue", "create")[-1]["stdin"]


def test_where_issues_are_off_the_page_says_so_and_the_job_is_green(repo: Repository) -> None:
    """docs.github.com/rest/issues/issues: 410 Gone; another answer is an error."""
    needs = json.dumps({"required": {"result": "failure"}})
    for answer, code in (("HTTP 410: Issues are disabled for this repo", 0), ("HTTP 502: bad gateway", 1)):
        repo.state["refuse"] = {"api --paginate repos/someone/fleet/issues": answer}
        repo.keep()
        assert repo.run("notices", "issue", NEEDS=needs).returncode == code
    assert "No issue is kept" in repo.summary()
    assert not repo.calls("issue")


def test_a_target_that_is_behind_is_an_issue_of_its_own(repo: Repository) -> None:
    """The release is served: main is not red, and only the other target is named."""
    needs = {"required": {"result": "success"}, "deliver": {"result": "failure", "outputs": {"behind": "Azure ML"}}}
    assert repo.run("notices", "issue", NEEDS=json.dumps(needs)).returncode == 0
    (made,) = repo.calls("issue", "create")
    assert made["stdin"].startswith("Azure ML still serves what it served before commit")
    title = made["words"][made["words"].index("--title") + 1]
    assert "main is red" not in title
    repo.state["api"]["issues?state=open"] = [{"number": 3, "title": title, "user": {"type": "Bot"}}]
    repo.keep()
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert repo.calls("issue", "comment", "3")
    needs["deliver"] = {
        "result": "success",
        "outputs": {"behind": ""},
    }  # no release, or the target was not tried: it may still be behind
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert not repo.calls("issue", "close")
    needs["deliver"]["outputs"] = {"behind": "none"}
    repo.run("notices", "issue", NEEDS=json.dumps(needs))
    assert repo.calls("issue", "close", "3")
    assert len(repo.calls("issue", "create")) == 1


def test_a_release_cancelled_for_a_newer_one_is_no_red_main(repo: Repository) -> None:
    needs = {"required": {"result": "success"}, "deliver": {"result": "cancelled"}}
    assert repo.run("notices", "issue", NEEDS=json.dumps(needs)).returncode == 0
    assert not repo.calls("issue")


@pytest.mark.parametrize(
    ("result", "state"), [("success", "success"), ("failure", "failure"), ("cancelled", "failure")]
)
def test_a_run_started_by_hand_reports_a_status(repo: Repository, result: str, state: str) -> None:
    assert repo.run("notices", "status", NEEDS=json.dumps({"required": {"result": result}})).returncode == 0
    sent = json.loads(repo.state["calls"][-1]["stdin"])
    assert (sent["state"], sent["context"]) == (state, "required")


def test_the_head_of_main_has_its_release_or_is_young_or_is_named(repo: Repository) -> None:
    assert repo.run("notices", "head").returncode == 0
    old = repo.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x")
    environment = {"GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}
    os.environ.update(environment)
    try:
        old = repo.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x")
    finally:
        del os.environ["GIT_COMMITTER_DATE"]
    red = repo.run("notices", "head", GITHUB_SHA=old)
    assert red.returncode == 1
    assert "has no release" in red.stderr
    repo.release("r8", old, served="2026-01-01")
    assert repo.run("notices", "head", GITHUB_SHA=old).returncode == 0
    holding(repo, "r8")
    repo.keep()
    held = repo.run("notices", "head", GITHUB_SHA=old)
    assert held.returncode == 1
    assert "main is not what is served" in held.stderr


@pytest.mark.parametrize(
    ("private", "fork", "variable", "expected"),
    [
        ("false", "false", "", {"code": "true", "review": "true", "scorecard": "true"}),
        ("false", "true", "", {"code": "false", "review": "true", "scorecard": "true"}),
        ("true", "false", "", {"code": "false", "review": "false", "scorecard": "false"}),
        ("true", "false", "true", {"code": "true", "review": "true", "scorecard": "false"}),
    ],
)
def test_scanners_that_cannot_be_had_are_named(
    repo: Repository, private: str, fork: str, variable: str, expected: dict[str, str]
) -> None:
    assert repo.run("notices", "scans", PRIVATE=private, FORK=fork, CODE_SCANNING=variable).returncode == 0
    assert expected == repo.outputs()
    assert repo.summary().count("Skipped: ") == list(expected.values()).count("false")
