"""The shell of every step of every workflow, run with hostile names, titles, messages and files.

The recipes and the pipeline's programs are real; gh, docker, kubectl, az and what the recipes call from .venv are
stand-ins that record how they were called. Whether or not a step succeeds, it must execute nothing of these values, and
write nothing of them as a command, an output or a variable of the run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_workflows import ROOT, steps

HOSTILE = {
    "words": "$(touch pwned)`touch pwned`$(shell touch pwned)$$(touch pwned)'; touch pwned #\"; touch pwned&"
    "touch${IFS}pwned",
    "lines": "a\npwned=true\n::set-output name=pwned::true\n ::add-path::pwned\r::error::pwned\n##[add-path]pwned\n"
    "EOF\n",
    "escapes": "%0Apwned=true%0D%0A::set-env name=pwned::true{{.pwned}}${{ github.token }}",
    "option": "--output=pwned",
}
BRANCH = "topic/$(touch${IFS}pwned)`touch${IFS}pwned`;touch${IFS}pwned|'\"{{"
FILE = "$(touch pwned)`touch pwned`;touch pwned'\"\n::error::pwned\npwned=true.md"
RECORDER = """\
#!/bin/sh
{ printf '%s' "${0##*/}"; printf '\\037%s' "$@"; printf '\\036'; } >> "$CALLS"
case "${0##*/} $1" in "kubectl "*) echo '{"kind": "List", "items": []}';; "docker image") echo '[]';; esac
"""
PYTHON = """\
#!/bin/sh
case "$2" in pipeline.*|dev.*) exec "$REAL_PYTHON" "$@";; esac
{ printf python; printf '\\037%s' "$@"; printf '\\036'; } >> "$CALLS"
"""
MAKE = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/steps.mk"))
NAME = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
EVERY = {
    (step["run"], *sorted(step.get("env", {}))): (f"{path.stem}: {where}", step)
    for path in sorted((ROOT / ".github/workflows").iterdir())
    for where, step in steps(yaml.safe_load(path.read_text(encoding="utf-8")))
    if "run" in step and step["run"] != "make refresh"  # resolves the locks for minutes, and is given nothing
} | {
    (step["run"], *sorted(step.get("env", {}))): (f"{path.parent.name}: step {number}", step)
    for path in sorted((ROOT / ".github/actions").glob("*/action.yml"))
    for number, step in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["runs"]["steps"], 1)
    if "run" in step
}  # one of those that run the same with the same settings


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Runner:
    """A checkout as a runner has it, with stand-ins for other programs."""

    def __init__(self, folder: Path) -> None:
        self.work, self.calls, self.state = folder / "work", folder / "calls", folder / "state.json"
        for name in (".ci", "requirements", "k8s"):
            shutil.copytree(ROOT / name, self.work / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE", "model/data.lock.json"):
            (self.work / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.work / name)
        for name in ("src", "score"):
            (self.work / name).mkdir()
        for name in ("gh", "docker", "kubectl", "az"):
            executable(folder / f"bin/{name}", RECORDER)
        (folder / "bin/gh").write_text((ROOT / "tests/repo/gh").read_text())
        for recipe in re.findall(r"\$\(BIN\)/([\w-]+)", MAKE):
            executable(self.work / f".venv/bin/{recipe}", RECORDER)
        executable(self.work / ".venv/bin/python", PYTHON)
        (self.work / ".venv/.installed").touch()
        (self.work / FILE).write_text("a file\n")
        self.git("init", "--quiet", "--initial-branch", BRANCH)
        self.git("add", "Makefile")
        self.git("commit", "--quiet", "--message", HOSTILE["words"])
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", HOSTILE["lines"])
        self.head = self.git("rev-parse", "HEAD").strip()
        self.git("remote", "add", "origin", str(folder / "remote"))
        self.git("clone", "--quiet", "--bare", ".", str(folder / "remote"))
        self.git("update-ref", "refs/remotes/origin/main", "HEAD~1")
        self.folder = folder

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout

    def build(self, value: str) -> None:
        """Write what earlier jobs leave: a report and evidence that contain the value."""
        decision = {"verdict": value, "becomes_champion": True, "reason": value}
        manifest = {"bundle_digest": value, "model_digest": value}
        facts = {"closedloop": 2, "commit": self.head, "image": value, "files": {}, "served": "2026-01-01T00:00:00Z"}
        files = {
            "build/decision.json": json.dumps(decision),
            "build/evidence/decision.json": json.dumps(decision | {"verdict": "better"}),
            "build/evidence/data.lock.json": "{}",
            "build/evidence/summary.md": value,
            "build/report/summary.md": value,
            "build/report/index.html": value,
            "build/bundle/manifest.json": json.dumps(manifest),
            "build/bundle/card.md": value,
            "build/sbom.json": "{}",
            "build/metrics.json": "{}",
            "build/manifests/local.yaml": f"name: IMAGE\nvalue: {NAME}\nimage: {NAME}\n",
            "build/release/facts.json": json.dumps(facts | {"becomes_champion": True, "verdict": value}),
        }
        shutil.rmtree(self.work / "build", ignore_errors=True)
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)

    def known(self, value: str) -> None:
        """Write what GitHub answers: two releases, a comment, issues and pull requests that contain the value."""
        facts = {"closedloop": 2, "commit": self.head, "image": value, "files": {}, "withdrawn": None, "verdict": value}
        found = []
        for tag, served in (("r9", "2026-02-01"), (value, "2026-01-01")):
            block = json.dumps(facts | {"served": served, "champion": served}, indent=1)
            body = f"{value}\n\n```json\n{block}\n```"
            found.append({"tag_name": tag, "body": body, "draft": False, "id": 1, "name": value})
        one = {"title": value, "body": value, "user": {"type": "User", "login": value}, "number": 1, "state": "closed"}
        api = {"releases": found, "issues?state=open": [one], f"issues/{value}/comments": [one | {"id": 1}]}
        self.state.write_text(json.dumps({"calls": [], "api": api, "assets": {value: {}, "r9": {}}}))

    def run(self, step: dict[str, Any], value: str) -> tuple[str, dict[str, str]]:
        """Run a step; return what it printed, and what it wrote to each of GitHub's files."""
        self.build(value)
        self.known(value)
        payload = {"pull_request": {"title": value, "body": value, "head": {"ref": value}}, "head_commit": value}
        (self.folder / "event.json").write_text(json.dumps(payload))
        needs = {job: {"result": "success", "outputs": {"train": value, value: value}} for job in ("plan", "train")}
        chosen = {
            key: json.dumps(needs) if "needs" in str(told) else value for key, told in step.get("env", {}).items()
        }
        chosen |= {key: "true" for key, told in step.get("env", {}).items() if "repository.private" in str(told)}
        chosen |= dict.fromkeys(("GITHUB_ACTOR", "GITHUB_HEAD_REF", "GITHUB_REF_NAME", "GITHUB_BASE_REF"), value)
        files = {name: self.folder / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH")}
        for path in (*files.values(), self.calls):
            path.write_text("")
        others = ("MAKE", "MFLAGS", "DOCKER", "IMAGE")  # a runner does not set them
        environment = {key: text for key, text in os.environ.items() if not key.startswith(others)}
        environment |= {key: str(path) for key, path in files.items()} | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "REAL_PYTHON": sys.executable,
            "GH_STATE": str(self.state),
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "GITHUB_REF": f"refs/heads/{BRANCH}",
            "GITHUB_REPOSITORY": "someone/fleet",
            "GITHUB_RUN_ID": "99",
            "GITHUB_RUN_NUMBER": "4",
            "GITHUB_SERVER_URL": "https://github.invalid",
            "GITHUB_SHA": self.head,
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.work,
            env=environment | chosen,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr, {name: path.read_text() for name, path in files.items()}


def faults(folder: Path, printed: str, files: dict[str, str]) -> list[str]:
    """Return what a step executed or wrote of a hostile value."""
    found = [f"executed: {path}" for path in folder.rglob("pwned*")]
    found += [f"a command of the run: {line}" for line in re.split(r"[\r\n]", printed) if command(line)]
    found += [f"an output: {line}" for line in files["GITHUB_OUTPUT"].splitlines() if not fine(line)]
    found += [f"a variable: {files['GITHUB_ENV']}"] if files["GITHUB_ENV"] else []
    found += [f"a path: {files['GITHUB_PATH']}"] if "pwned" in files["GITHUB_PATH"] else []
    return found


def command(line: str) -> bool:
    """Whether GitHub would run a line as a command; ``::error::`` of a program of .ci is allowed."""
    own = line.startswith("::error::") and not line.startswith("::error::pwned")
    return line.lstrip().startswith(("::", "##[")) and not own


def fine(line: str) -> bool:
    """Whether a line of GITHUB_OUTPUT is one output, with a name that the value did not choose."""
    return re.match(r"(?!pwned)[a-z_]+=", line) is not None and "<<" not in line


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("where", "step"), EVERY.values(), ids=[where for where, _ in EVERY.values()])
def test_a_step_executes_nothing_of_a_hostile_value(
    runner: Runner, where: str, step: dict[str, Any], kind: str
) -> None:
    assert step["run"].startswith("make "), where
    printed, files = runner.run(step, HOSTILE[kind])
    assert faults(runner.folder, printed, files) == []


def test_a_hostile_value_arrives_as_one_word(runner: Runner) -> None:
    """Else the steps of the test above might stop before they use it."""
    value = HOSTILE["words"]
    given = {"RELEASE": "${{ inputs.release }}", "PRIVATE": "${{ github.event.repository.private }}"}
    runner.run({"run": "make release-fetch", "env": given}, value)
    called = [call["words"] for call in json.loads(runner.state.read_text())["calls"]]
    assert ["release", "download", value] in [words[:3] for words in called]
    runner.run({"run": "make release-files", "env": {"IMAGE_BY_DIGEST": "${{ steps.push.outputs.image }}"}}, value)
    assert f"image: {value}\n" in (runner.work / "build/release/manifests-local.yaml").read_text()


def test_what_is_pushed_is_the_image_that_was_tested_and_not_what_a_tag_names_by_now(runner: Runner) -> None:
    tested, name = "sha256:" + "1" * 64, f"ghcr.io/someone/fleet:{runner.head}"
    step = {"run": "make image-push", "env": {"IMAGE": "${{ steps.image.outputs.id }}"}}
    runner.run(step, tested)
    pushed = f"docker\x1ftag\x1f{tested}\x1f{name}\x1edocker\x1fpush\x1f{name}\x1e"
    assert pushed in runner.calls.read_text()
    assert f"{{{{json .RepoDigests}}}}\x1f{tested}\x1e" in runner.calls.read_text()
    printed, _ = runner.run(
        {"run": "make image-push", "env": {"IMAGE": "${{ steps.image.outputs.id }}"}}, f"{NAME}:dev"
    )
    assert "must be the id that `make image` printed" in printed
    assert "push" not in runner.calls.read_text()
