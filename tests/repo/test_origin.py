"""make pr and doctor, with a stand-in for gh that answers and records what it was asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev import points

GH = """#!{python}
import json, os, sys
words, folder = sys.argv[1:], os.path.dirname(__file__)
body = sys.stdin.read() if "--input" in words else ""
with open(os.path.join(folder, "calls"), "a") as file:
    file.write(json.dumps([words, body, os.environ.get("GH_REPO", "")]) + chr(10))
answers = json.load(open(os.path.join(folder, "answers.json")))
pages = "--paginate" in words
asked = " ".join(["api --method GET", *words[words.index("--paginate") + 1:]] if pages else words)
for key, answer in answers.items():
    if asked.startswith(key):
        if isinstance(answer, dict) and "refuses" in answer:
            sys.exit(answer["refuses"])
        if pages:
            name = words[words.index("--jq") + 1].partition("[")[0].lstrip(".")
            for one in answer[name] if name else answer:
                print(json.dumps(one))
            break
        print(answer if isinstance(answer, str) else json.dumps(answer))
        break
"""
HERE = "repos/someone/fleet"
ABOUT = {
    "full_name": "someone/fleet",
    "default_branch": "main",
    "permissions": {"admin": True},
    "owner": {"type": "User", "login": "someone", "id": 1},
    "id": 2,
    **points.MERGING,
}


@dataclass
class Clone:
    """A repository with a remote and a copy of the programs; gh answers by the longest key that matches."""

    folder: Path
    bin: Path

    def ask(
        self, program: str, *words: str, answers: dict[str, Any] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        ordered = dict(sorted((answers or {}).items(), key=lambda item: -len(item[0])))
        (self.bin / "answers.json").write_text(json.dumps(ordered), encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GH_", "GITHUB_"))}
        path = (
            {"PATH": f"{self.bin}:{os.environ['PATH']}"}
            if answers is not None
            else {"PATH": str(self.bin / "git-alone")}
        )
        command = [sys.executable, "-m", f"dev.{program}", *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**clean, **path, "PYTHONPATH": ".ci", "PYTHONSAFEPATH": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        return subprocess.run(
            ["git", *who, *words], cwd=self.folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def calls(self) -> list[tuple[str, Any, str]]:
        """The calls of gh: its words, the body, the repository that it was told."""
        path = self.bin / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(" ".join(words), json.loads(body or "null"), told) for words, body, told in map(json.loads, lines)]


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Clone:
    folder, there = tmp_path / "copy", tmp_path / "someone/fleet.git"
    for name in (".ci", ".github"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model").mkdir()
    shutil.copy(root / "tests/golden/data.lock.json", folder / "model")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git-alone").mkdir()
    (tmp_path / "bin/git-alone/git").symlink_to(str(shutil.which("git")))
    gh = tmp_path / "bin/gh"
    gh.write_text(GH.format(python=sys.executable), encoding="utf-8")
    gh.chmod(0o755)
    made = Clone(folder, tmp_path / "bin")
    (folder / ".gitignore").write_text("__pycache__\n")
    made.git("init", "--quiet", "--initial-branch", "main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "first")
    subprocess.run(["git", "clone", "--quiet", "--bare", folder, there], check=True)
    made.git("remote", "add", "origin", str(there))
    made.git("switch", "--quiet", "--create", "my-change")
    (folder / "new").write_text("new\n")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "second")
    return made


PULLED = {f"api --method GET {HERE}": ABOUT, "pr list": [], "pr create": "https://github.com/someone/fleet/pull/7"}


def test_pr_pushes_opens_and_arms_with_the_login_of_the_person(clone: Clone) -> None:
    done = clone.ask("pr", answers=PULLED)
    assert done.returncode == 0, done.stderr
    url = "https://github.com/someone/fleet/pull/7"
    assert f"pr merge --repo someone/fleet --auto --squash {url}" == clone.calls()[-1][0]
    assert "pr create --repo someone/fleet --base main --head my-change --fill" in [
        words for words, _, _ in clone.calls()
    ]
    assert clone.git("rev-parse", "HEAD") == clone.git("ls-remote", "origin", "refs/heads/my-change").split()[0]
    assert url in done.stdout


def test_pr_takes_the_one_that_is_open(clone: Clone) -> None:
    assert clone.ask("pr", answers=PULLED | {"pr list": [{"url": "https://x/9"}]}).returncode == 0
    words = [words for words, _, _ in clone.calls()]
    assert not [word for word in words if word.startswith("pr create")]
    assert words[-1] == "pr merge --repo someone/fleet --auto --squash https://x/9"


def on_main(clone: Clone) -> None:
    clone.git("switch", "--quiet", "main")


def on_no_branch(clone: Clone) -> None:
    clone.git("switch", "--quiet", "--detach")


def dirty(clone: Clone) -> None:
    (clone.folder / "left").write_text("left\n")


def nothing_new(clone: Clone) -> None:
    clone.git("reset", "--quiet", "--hard", "main")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (on_main, "git switch --create"),
        (on_no_branch, "git switch --create"),
        (dirty, "left; git commit"),
        (nothing_new, "no commit that origin/main lacks"),
    ],
)
def test_pr_refuses_with_one_line_what_cannot_be_a_pull_request(
    clone: Clone, state: Callable[[Clone], None], says: str
) -> None:
    state(clone)
    done = clone.ask("pr", answers=PULLED)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [words for words, _, _ in clone.calls() if words.startswith("pr ")]


def test_pr_refuses_in_a_workflow_whose_merge_would_release_nothing(clone: Clone) -> None:
    done = clone.ask("pr", answers=PULLED, GITHUB_ACTIONS="true")
    assert (done.returncode, clone.calls()) == (1, [])
    assert "run it yourself" in done.stderr


def test_pr_says_how_to_allow_auto_merge(clone: Clone) -> None:
    refused = {"refuses": "Auto merge is not allowed for this repository"}
    done = clone.ask("pr", answers=PULLED | {"pr merge": refused})
    assert done.returncode == 1
    assert "make setup" in done.stderr
    assert "pull/7" in done.stderr


@pytest.mark.parametrize("program", ["pr", "setup"])
def test_without_gh_it_says_so(clone: Clone, program: str) -> None:
    done = clone.ask(program)
    assert done.returncode == 1
    assert "gh is not on PATH: install" in done.stderr


def healthy() -> dict[str, Any]:
    place = {"deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True}}
    places = [{"name": name, "protection_rules": [{"type": "branch_policy"}]} | place for name in points.ENVIRONMENTS]
    solo = json.loads((points.RULESETS / "solo.json").read_text(encoding="utf-8"))
    answers: dict[str, Any] = {
        f"api --method GET {HERE}": ABOUT | {"template_repository": {"full_name": "makers/closed-loop"}},
        "api user --jq": "someone",
        "api user": {"login": "someone", "plan": {"name": "free"}},
        f"api --method GET {HERE}/actions/permissions": {"enabled": True},
        f"api --method GET {HERE}/actions/permissions/workflow": points.TOKEN,
        f"api --method GET {HERE}/private-vulnerability-reporting": {"enabled": True},
        f"api --method GET {HERE}/immutable-releases": {"enabled": True},
        f"api --method GET {HERE}/rulesets": [{"name": "main", "id": 5}],
        f"api --method GET {HERE}/rulesets/5": solo,
        f"api --method GET {HERE}/environments": {"environments": places},
        f"api --method GET {HERE}/labels": [{"name": name} for name in points.LABELS],
        f"api --method GET {HERE}/actions/variables": {"variables": [{"name": "AZURE_CLIENT_ID", "value": "hidden"}]},
        f"api --method GET {HERE}/actions/secrets": {"secrets": []},
    }
    for name in points.ENVIRONMENTS:
        here = f"api --method GET {HERE}/environments/{name}"
        answers[f"{here}/deployment-branch-policies"] = {"branch_policies": [{"name": "main", "type": "branch"}]}
        answers[f"{here}/variables"] = {"variables": []}
        answers[f"{here}/secrets"] = {"secrets": [{"name": "APP_KEY"}]}
    return answers


def told(output: str) -> dict[str, str]:
    """What the table says of each thing: its state."""
    return {line[6:].split("  ")[0]: line[:4].strip() for line in output.splitlines() if line[:4].strip()}


def test_doctor_says_what_is_set_and_what_is_skipped(clone: Clone) -> None:
    flow = "x: ${{ vars.AZURE_CLIENT_ID }} ${{ vars.AZURE_TENANT_ID }} ${{ secrets.APP_KEY }}"
    flow += "${{ secrets.GITHUB_TOKEN }}\n"
    (clone.folder / ".github/workflows/more.yml").write_text(flow)
    done = clone.ask("doctor", answers=healthy())
    assert done.returncode == 0, done.stdout
    states = told(done.stdout)
    assert states["variable AZURE_CLIENT_ID"] == states["secret APP_KEY"] == states["rules of main"] == "ok"
    assert states["environment bot"] == states["environment staging"] == "ok"
    assert states["variable AZURE_TENANT_ID"] == "skip"
    assert "more.yml, release.yml, rollback.yml" in done.stdout
    assert "from the template makers/closed-loop" in done.stdout
    assert "GITHUB_TOKEN" not in done.stdout
    assert "hidden" not in done.stdout


def test_doctor_says_what_half_of_databricks_lacks(clone: Clone) -> None:
    flow = "x: ${{ vars.DATABRICKS_HOST }} ${{ vars.DATABRICKS_CLIENT_ID }}\n"
    (clone.folder / ".github/workflows/more.yml").write_text(flow)
    answers = healthy()
    assert told(clone.ask("doctor", answers=answers).stdout)["variable DATABRICKS_CLIENT_ID"] == "skip"
    answers[f"api --method GET {HERE}/actions/variables"] = {"variables": [{"name": "DATABRICKS_HOST", "value": "x"}]}
    done = clone.ask("doctor", answers=answers)
    assert done.returncode == 1
    assert told(done.stdout)["variable DATABRICKS_CLIENT_ID"] == "MISS"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (None, "Actions cannot read a log on a pod's own volume"),
        ("/var/log/fleet", "LOG_SINK is the folder /var/log/fleet, on a volume that Actions cannot read"),
        ("az://fleet/log", ""),
    ],
)
def test_doctor_says_why_there_is_no_retraining(clone: Clone, place: str | None, said: str) -> None:
    (clone.folder / ".github/workflows/retrain.yml").write_text("x: ${{ vars.LOG_SINK }}\n")
    call = f"api --method GET {HERE}/actions/variables?per_page=100"
    answers = healthy()
    answers[call] = {"variables": [{"name": "LOG_SINK", "value": place}] if place else []}
    done = clone.ask("doctor", answers=answers)
    assert done.returncode == 0, done.stdout
    assert said in done.stdout
    assert ("volume" in done.stdout) == bool(said)


def test_doctor_is_red_where_something_needed_is_missing(clone: Clone) -> None:
    """Every point has such a case in test_setup.py."""
    done = clone.ask("doctor", answers=healthy() | {f"api --method GET {HERE}/actions/permissions": {"enabled": False}})
    assert done.returncode == 1
    assert {"Actions"} == {name for name, state in told(done.stdout).items() if state == "MISS"}


def test_doctor_says_of_a_fork_what_it_lacks(clone: Clone) -> None:
    fork = ABOUT | {"fork": True, "parent": {"full_name": "makers/closed-loop"}}
    done = clone.ask("doctor", answers=healthy() | {f"api --method GET {HERE}": fork})
    assert told(done.stdout)["copy"] == "skip"
    assert "fork of makers/closed-loop" in done.stdout


def test_doctor_works_without_gh_and_without_a_remote(clone: Clone) -> None:
    done = clone.ask("doctor")
    assert (done.returncode, told(done.stdout)["GitHub"]) == (0, "skip")
    clone.git("remote", "remove", "origin")
    done = clone.ask("doctor", answers={})
    assert (done.returncode, told(done.stdout)["GitHub"]) == (0, "skip")
    assert "no remote is called origin" in done.stdout


def test_doctor_names_the_targets_that_need_an_engine(clone: Clone, root: Path) -> None:
    makefile = "".join((root / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/steps.mk"))
    needy = set(re.findall(r"^([a-z-]+): engine\b", makefile, re.MULTILINE)) - {"image-push"}  # a step of release.yml
    said = re.search(r"no make ([a-z, -]+);", clone.ask("doctor", DOCKER="none").stdout)
    assert said is not None
    assert set(said[1].split(", ")) == needy


@pytest.mark.parametrize(
    ("remote", "told_to_gh"),
    [
        ("https://github.com/someone/fleet.git", "github.com/someone/fleet"),
        ("https://someone:secret@github.com/someone/fleet", "github.com/someone/fleet"),
        ("git@github.com:someone/fleet.git", "github.com/someone/fleet"),
        ("ssh://git@git.example.com/someone/fleet", "git.example.com/someone/fleet"),
    ],
)
def test_gh_is_told_the_repository_of_origin_and_no_password(clone: Clone, remote: str, told_to_gh: str) -> None:
    clone.git("remote", "set-url", "origin", remote)
    clone.ask("setup", answers={f"api --method GET {HERE}": ABOUT})
    assert {told_to_gh} == {told for _, _, told in clone.calls()}
