"""What the line does to releases, pull requests and issues: real programs, a real repository, and a stand-in for gh."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

Program = Callable[[str], ModuleType]
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


class Line:
    """A repository of three commits with a remote, and what GitHub would know of it."""

    def __init__(self, folder: Path, root: Path, name: str) -> None:
        self.manifest = MANIFEST.replace("NAME", name)
        self.root, self.work, self.state_file = root, folder / "work", folder / "state.json"
        (folder / "bin").mkdir()
        (folder / "bin/gh").symlink_to(root / "tests/repo/gh")
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GH_STATE": str(self.state_file),
            "GITHUB_REPOSITORY": "someone/fleet",
            "GITHUB_SERVER_URL": "https://github.invalid",
            "GITHUB_RUN_ID": "99",
            "GITHUB_RUN_NUMBER": "4",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
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

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.work / name).parent.mkdir(exist_ok=True)
            (self.work / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def keep(self) -> None:
        self.state_file.write_text(json.dumps(self.state))

    def release(self, program: Program, tag: str, commit: str, **facts: Any) -> None:
        known = {"commit": commit, "image": IMAGE, "served": None, "reference": None, "withdrawn": None} | facts
        text = f"Words of a person.\n\n{program('releases').block(known)}\n\nMore words."
        self.state["api"]["releases"].insert(0, {"tag_name": tag, "body": text, "draft": False, "id": 5})
        self.keep()

    def run(self, name: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, self.root / f".ci/{name}.py", *words]
        environment = self.environment | {"GITHUB_SHA": self.commits[2]} | extra
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        self.state = json.loads(self.state_file.read_text())
        return done

    def facts(self, program: Program, tag: str) -> dict[str, Any]:
        one = next(one for one in self.state["api"]["releases"] if one["tag_name"] == tag)
        found: dict[str, Any] = program("releases").facts(one["body"])
        return found

    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def calls(self, *start: str) -> list[dict[str, Any]]:
        return [call for call in self.state["calls"] if tuple(call["words"][: len(start)]) == start]

    def summary(self) -> str:
        return (self.folder / "summary").read_text()


@pytest.fixture
def line(tmp_path: Path, root: Path, program: Program) -> Line:
    return Line(tmp_path, root, program("promote").NAME)


# --- which commit a change meets ---


def test_without_a_release_a_change_meets_its_base(line: Line) -> None:
    assert line.run("reference", BASE_COMMIT="b" * 40).returncode == 0
    assert {"commit": "b" * 40, "base": "b" * 40} == line.outputs()
    assert "no release is the reference yet" in line.summary()


def test_a_change_meets_the_newest_reference_that_is_not_withdrawn(line: Line, program: Program) -> None:
    line.release(program, "r1", line.commits[0], served="2026-01-01", reference="2026-01-01")
    line.release(program, "r2", line.commits[1], served="2026-01-02")
    line.release(program, "r3", line.commits[2], served="2026-01-03", reference="2026-01-03", withdrawn={"why": "hot"})
    assert line.run("reference", BASE_COMMIT="b" * 40).returncode == 0
    assert line.commits[0] == line.outputs()["commit"]
    assert "release r1" in line.summary()


def test_a_release_that_people_made_or_a_draft_is_no_reference(line: Line, program: Program) -> None:
    line.release(program, "r1", line.commits[0], served="2026-01-01", reference="2026-01-01")
    line.state["api"]["releases"][0]["draft"] = True
    line.state["api"]["releases"].append({"tag_name": "v1", "body": "```json\n{}\n```", "draft": False})
    line.keep()
    assert line.run("reference", BASE_COMMIT="b" * 40).returncode == 0
    assert "b" * 40 == line.outputs()["commit"]


def test_where_github_does_not_answer_no_reference_is_guessed(line: Line) -> None:
    line.state["refuse"] = {"api": "HTTP 502: bad gateway"}
    line.keep()
    done = line.run("reference", BASE_COMMIT="b" * 40)
    assert done.returncode == 1
    assert "HTTP 502" in done.stderr


def test_on_a_laptop_the_reference_is_left_to_make_run(line: Line) -> None:
    assert line.run("reference", GITHUB_REPOSITORY="").returncode == 0
    assert line.outputs()["commit"] == ""


# --- what ships ---


def plan(line: Line, **extra: str) -> tuple[int, dict[str, str]]:
    done = line.run("promote", "plan", **({"PRIVATE": "false"} | extra))
    return done.returncode, line.outputs() if done.returncode == 0 else {"error": done.stderr}


def test_a_fresh_copy_ships_a_release_and_says_what_it_skips(line: Line) -> None:
    assert (0, {"ship": "true", "staging": "false", "production": "false", "sign": "true"}) == plan(line)
    assert "Skipped: staging. The variable DEPLOY_TO does not name it." in line.summary()


@pytest.mark.parametrize("released", [1, 2])
def test_a_commit_that_was_overtaken_or_shipped_before_ships_nothing(
    line: Line, program: Program, released: int
) -> None:
    line.release(program, "r9", line.commits[released], served="2026-01-01")
    assert plan(line, GITHUB_SHA=line.commits[1])[1]["ship"] == "false"
    assert "release r9" in line.summary()


def test_an_older_release_does_not_stop_a_newer_commit(line: Line, program: Program) -> None:
    line.release(program, "r1", line.commits[0], served="2026-01-01")
    assert plan(line)[1]["ship"] == "true"


@pytest.mark.parametrize(
    ("pulls", "held"),
    [([], True), ([{"number": 3, "state": "open"}], True), ([{"number": 3, "state": "closed"}], False)],
)
def test_a_rollback_that_waits_for_a_person_holds_everything(
    line: Line, pulls: list[dict[str, Any]], held: bool
) -> None:
    line.state["api"]["git/matching-refs/heads/rollback/"] = [{"ref": "refs/heads/rollback/r1"}]
    line.state["api"]["pulls?state=all&head=someone:rollback/r1"] = pulls
    line.keep()
    assert plan(line)[1]["ship"] == str(not held).lower()
    assert line.run("promote", "hold").returncode == int(held)


@pytest.mark.parametrize("environment", [None, {"protection_rules": []}, {}])
def test_production_without_protection_is_refused(line: Line, environment: dict[str, Any] | None) -> None:
    if environment is not None:
        line.state["api"]["environments/production"] = environment
        line.keep()
    code, found = plan(line, DEPLOY_TO="staging production")
    assert code == 1
    assert "production is refused" in found["error"]


def test_production_with_protection_is_planned(line: Line) -> None:
    line.state["api"]["environments/production"] = {"protection_rules": [{"type": "required_reviewers"}]}
    line.keep()
    assert plan(line, DEPLOY_TO="staging,production")[1]["production"] == "true"


def test_a_target_that_is_none_is_refused(line: Line) -> None:
    assert "DEPLOY_TO names prod" in plan(line, DEPLOY_TO="prod")[1]["error"]


@pytest.mark.parametrize(("private", "variable", "sign"), [("true", "", "false"), ("true", "true", "true")])
def test_a_private_repository_signs_where_it_is_told_that_it_can(
    line: Line, private: str, variable: str, sign: str
) -> None:
    assert plan(line, PRIVATE=private, ATTESTATIONS=variable)[1]["sign"] == sign
    assert ("Skipped: attestations" in line.summary()) == (sign == "false")


def gathered(line: Line, becomes_reference: bool = True) -> None:
    """A run's artifacts, and what promote.py makes of them."""
    decision = {"verdict": "better", "becomes_reference": becomes_reference, "reason": "Saves."}
    files = {
        "decision.json": json.dumps(decision),
        "bundle/manifest.json": json.dumps({"bundle_digest": "sha256:b", "model_digest": "sha256:m"}),
        "bundle/heads/a.safetensors": "0",
        "bundle/card.md": "card",
        "report/index.html": "<html>",
        "sbom.json": "{}",
        "wheel/x.whl": "wheel",
        "manifests/aks.yaml": line.manifest,
    }
    for name, text in files.items():
        path = line.work / "build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (line.work / "requirements").mkdir(exist_ok=True)
    (line.work / "requirements/serve.txt").write_text("numpy==1\n")
    assert line.run("promote", "gather", IMAGE_BY_DIGEST=IMAGE).returncode == 0


def test_a_release_holds_everything_that_is_served_and_names_the_image_by_digest(line: Line) -> None:
    gathered(line)
    held = {path.name for path in (line.work / "build/release").iterdir()}
    names = "bundle.tar.gz card.md report.html serve.txt sbom.json x.whl manifests-aks.yaml facts.json"
    assert set(names.split()) == held
    text = (line.work / "build/release/manifests-aks.yaml").read_text()
    assert text.count(f"image: {IMAGE}\n") == 2
    assert f"name: IMAGE\n      value: {IMAGE}\n" in text  # what /version will say
    archive = (line.work / "build/release/bundle.tar.gz").read_bytes()
    for path in (line.work / "build/bundle").rglob("*"):
        os.utime(path, (0, 0))
    gathered(line)
    assert archive == (line.work / "build/release/bundle.tar.gz").read_bytes()


def test_from_draft_to_published_what_is_served_moves_last(line: Line, program: Program) -> None:
    gathered(line)
    assert line.run("promote", "draft").returncode == 0
    tag = f"r4-{line.commits[2][:9]}"
    assert line.facts(program, tag)["served"] is None
    created = line.calls("release", "create")[0]["words"]
    assert "--draft" in created
    assert created[created.index("--target") + 1] == line.commits[2]
    assert line.run("promote", "publish").returncode == 0
    facts = line.facts(program, tag)
    assert facts["served"] == facts["reference"] is not None
    assert not line.state["api"]["releases"][0]["draft"]


def test_a_model_that_is_not_proven_is_served_and_the_reference_stays(line: Line, program: Program) -> None:
    line.release(program, "r1", line.commits[0], served="2026-01-01", reference="2026-01-01")
    gathered(line, becomes_reference=False)
    line.run("promote", "draft")
    line.run("promote", "publish")
    line.run("reference")
    assert line.commits[0] == line.outputs()["commit"]


@pytest.mark.parametrize("verb", ["draft", "publish", "verify"])
def test_a_file_that_was_changed_after_it_was_gathered_goes_nowhere(line: Line, verb: str) -> None:
    gathered(line)
    (line.work / "build/release/manifests-aks.yaml").write_text(line.manifest)
    done = line.run("promote", verb)
    assert done.returncode == 1
    assert "manifests-aks.yaml: not what was gathered" in done.stderr
    assert not line.calls("release")


def test_before_a_deployment_image_and_bundle_are_verified_by_signer_and_commit(line: Line) -> None:
    gathered(line)
    assert line.run("promote", "verify", SIGNED="true").returncode == 0
    calls = [" ".join(call["words"]) for call in line.calls("attestation", "verify")]
    assert len(calls) == 2
    for call in calls:
        assert "--signer-workflow someone/fleet/.github/workflows/promote.yml" in call
        assert f"--source-digest {line.commits[2]}" in call
    line.state["refuse"] = {"attestation": "no attestations found"}
    line.keep()
    assert line.run("promote", "verify", SIGNED="true").returncode == 1
    assert line.run("promote", "verify", SIGNED="false").returncode == 0
    assert "Not verified" in line.summary()


@pytest.mark.parametrize(("expected", "code"), [(None, 0), ("the same", 0), ("sha256:other", 1), ("", 1)])
def test_a_bundle_that_is_not_the_judged_one_is_refused_also_where_the_digest_was_lost(
    line: Line, tiny_bundle: Path, expected: str | None, code: int
) -> None:
    shutil.copytree(tiny_bundle, line.work / "build/bundle")
    digest = json.loads((tiny_bundle / "manifest.json").read_text())["bundle_digest"]
    done = line.run("bundle", **({} if expected is None else {"EXPECTED": expected.replace("the same", digest)}))
    assert done.returncode == code, done.stderr
    assert ("was trained and judged; run the workflow again" in done.stderr) == bool(code)


# --- the way back ---


def served(line: Line, program: Program) -> None:
    """Three releases, each served after the other."""
    for n, commit in enumerate(line.commits):
        files = {"manifests-aks.yaml": f"release {n}\n"}
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
        line.state["assets"][f"r{n}"] = files
        moment = f"2026-01-0{n + 1}"
        line.release(program, f"r{n}", commit, served=moment, reference=moment, files=digests)


def test_a_rollback_restores_the_tree_but_not_the_workflows_and_holds_the_rest(line: Line, program: Program) -> None:
    served(line, program)
    done = line.run("rollback", "hold", RELEASE="r0", REASON="it $(touch x) `burns` @everyone")
    assert done.returncode == 0, done.stderr
    line.git("fetch", "--quiet", "origin")
    assert line.git("show", "origin/rollback/r0:model.py") == "0"
    assert line.git("show", "origin/rollback/r0:.github/flow.yml") == "2"
    assert line.git("rev-parse", "origin/rollback/r0^") == line.commits[2]
    (pull,) = line.calls("pr", "create")
    assert "> `it $(touch x) 'burns' @everyone`" in pull["stdin"]
    assert not line.calls("workflow")  # it would meet the release that is withdrawn only later
    assert not (line.work / "x").exists()


def test_where_no_pull_request_may_be_opened_the_branch_holds_and_a_person_is_told(
    line: Line, program: Program
) -> None:
    served(line, program)
    line.state["refuse"] = {"pr create": "GitHub Actions is not permitted to create or approve pull requests"}
    line.keep()
    assert line.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    assert "compare/rollback/r0?expand=1" in line.summary()


def test_an_app_needs_no_second_start(line: Line, program: Program) -> None:
    served(line, program)
    assert line.run("rollback", "move", RELEASE="r0", REASON="hot", AS_APP="true").returncode == 0
    assert not line.calls("workflow", "run")


def test_the_pull_request_of_a_rollback_is_checked_once_the_reference_is_what_it_restores(
    line: Line, program: Program
) -> None:
    served(line, program)
    assert line.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 0
    *edits, started = (call["words"] for call in line.state["calls"] if call["words"][0] in ("release", "workflow"))
    assert ["r1", "r2", "r0"] == [words[2] for words in edits]
    assert ["workflow", "run", "ci.yml"] == started[:3]
    assert started[-2:] == ["--ref", "rollback/r0"]


@pytest.mark.parametrize("dies", ["release edit r1", "release edit r2", "release edit r0", "workflow run"])
def test_a_rollback_that_died_half_way_can_be_run_again(line: Line, program: Program, dies: str) -> None:
    served(line, program)
    line.state["refuse"] = {dies: "HTTP 502: bad gateway"}
    line.keep()
    assert line.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 1
    del line.state["refuse"]
    line.keep()
    done = line.run("rollback", "move", RELEASE="r0", REASON="hot")
    assert done.returncode == 0, done.stderr
    assert ["r0"] == [tag for tag in ("r0", "r1", "r2") if not line.facts(program, tag)["withdrawn"]]
    assert line.facts(program, "r0")["served"] > "2026-01-03"
    assert line.calls("workflow", "run", "ci.yml")


def test_what_was_served_later_is_withdrawn_and_never_the_reference_again(line: Line, program: Program) -> None:
    served(line, program)
    assert line.run("rollback", "move", RELEASE="r0", REASON="too hot").returncode == 0
    assert [None, "too hot", "too hot"] == [
        (line.facts(program, tag)["withdrawn"] or {}).get("why") for tag in ("r0", "r1", "r2")
    ]
    assert "Words of a person." in line.state["api"]["releases"][-1]["body"]
    line.run("reference")
    assert line.commits[0] == line.outputs()["commit"]
    again = line.run("rollback", "move", RELEASE="r2", REASON="no, back")
    assert "was withdrawn (too hot)" in again.stderr


@pytest.mark.parametrize(("release", "says"), [("r2", "is what is served"), ("r7", "there are: r2, r1, r0")])
def test_a_rollback_to_nowhere_is_refused(line: Line, program: Program, release: str, says: str) -> None:
    served(line, program)
    done = line.run("rollback", "hold", RELEASE=release, REASON="hot")
    assert done.returncode == 1
    assert says in done.stderr


@pytest.mark.parametrize("verb", ["hold", "move"])
def test_a_rollback_to_what_never_was_served_withdraws_nothing(line: Line, program: Program, verb: str) -> None:
    served(line, program)
    line.release(program, "r9", line.commits[0], served=None)
    done = line.run("rollback", verb, RELEASE="r9", REASON="hot")
    assert done.returncode == 1
    assert "never was served" in done.stderr
    assert not line.calls("release", "edit")


def test_after_a_rollout_that_failed_what_was_served_last_is_applied_again(line: Line, program: Program) -> None:
    served(line, program)
    kubectl = line.folder / "bin/kubectl"
    kubectl.write_text(
        '#!/bin/sh\necho "$@" >> "$KUBECTL_LOG"\n'
        '[ "$1" != apply ] || { cat "$3" >> "$KUBECTL_LOG"; '
        'echo \'{"kind": "StatefulSet", "metadata": {"name": "score", "namespace": "n"}}\'; }\n'
    )
    kubectl.chmod(0o755)
    log = line.folder / "kubectl.log"
    done = line.run("deploy", "served", OVERLAY="aks", KUBECTL_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert "release 2\n" in log.read_text()
    assert "rollout status statefulset/score --namespace n" in log.read_text()
    assert "was applied again" in line.summary()
    lost = line.run("deploy", "served", OVERLAY="gke", KUBECTL_LOG=str(log))
    assert "the release has manifests for: aks" in lost.stderr


class Service(BaseHTTPRequestHandler):
    """What answers like the service, with the faults that a test gives."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str]]]] = {}

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *words: Any) -> None:
        """Print nothing."""


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
        ({"/version": (200, FACTS | {"commit": "d"})}, "", ["/version says commit d"]),
        ({"/version": (404, {})}, "", ["bundle_digest None", "model_digest None", "commit None"]),
    ],
)
def test_the_smoke_test_finds_what_is_not_what_was_released(
    program: Program, changed: dict[str, Any], token: str, says: list[str]
) -> None:
    answers = {"/readyz": (200, {}), "/version": (200, FACTS), "/score": (200, {"model": "sha256:m"})} | changed
    handler = type("Faulty", (Service,), {"answers": answers})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = program("deploy").objections(f"http://127.0.0.1:{server.server_port}", FACTS, b"{}", token)
        server.shutdown()
        thread.join()
    assert len(says) == len(found)
    assert all(part in line for part, line in zip(says, found, strict=True))


def test_where_nobody_answers_every_question_is_an_objection(program: Program) -> None:
    assert len(program("deploy").objections("http://127.0.0.1:1", FACTS, b"{}", "")) == 5


# --- what people are told ---


def test_the_comment_is_written_once_and_then_kept(line: Line, program: Program) -> None:
    report = line.work / "build/report/summary.md"
    report.parent.mkdir(parents=True)
    report.write_text("## Better\n\n<details open><summary>x</summary>\n@someone fixes #1\n")
    assert line.run("comment", PULL_REQUEST="7").returncode == 0
    mark = program("comment").MARK
    line.state["api"]["issues/7/comments"] = [
        {"id": 1, "user": {"type": "User"}, "body": f"{mark} by a person"},
        {"id": 2, "user": {"type": "Bot"}, "body": f"{mark}\nold"},
    ]
    line.keep()
    assert line.run("comment", PULL_REQUEST="7").returncode == 0
    posted, patched = (call for call in line.state["calls"] if "--method" in call["words"])
    assert posted["words"][2:4] == ["POST", "repos/someone/fleet/issues/7/comments"]
    assert patched["words"][2:4] == ["PATCH", "repos/someone/fleet/issues/comments/2"]
    body = json.loads(patched["stdin"])["body"]
    assert body.startswith(mark)
    assert "<details open><summary>x</summary>" in body
    assert body.count("</details>") == 1  # what was left open is closed
    assert "@someone" not in body
    assert "#1" not in body
    assert "actions/runs/99#artifacts" in body


def test_without_a_report_the_comment_says_where_to_look(line: Line) -> None:
    assert line.run("comment", PULL_REQUEST="7").returncode == 0
    assert "first red job" in line.state["calls"][-1]["stdin"]


def test_a_link_in_place_of_the_report_is_not_followed(line: Line) -> None:
    report = line.work / "build/report/summary.md"
    report.parent.mkdir(parents=True)
    (line.work / "secret").write_text("the token")
    report.symlink_to(line.work / "secret")
    assert line.run("comment", PULL_REQUEST="7").returncode == 0
    assert "the token" not in line.state["calls"][-1]["stdin"]


@pytest.mark.parametrize(
    "text",
    [
        *("@team/all", "fixes #12", "GH-12", "[x](https://x.invalid)", "![x](y)", "https://x.invalid", "<script>"),
        *("<!-- x -->", "[x]: y", "www.x.invalid", "\x1b[31m", "&lt;img&gt;", "<img src=x>", "<details onclick=x>"),
        "\u202ereversed",
    ],
)
def test_what_a_comment_could_do_is_shown_and_not_done(program: Program, text: str) -> None:
    assert text not in program("comment").harmless(text)


def test_a_long_report_is_cut(program: Program) -> None:
    body = program("comment").body("x" * 1_000_000, "https://github.invalid/run")
    assert len(body) < 32_000
    assert "the rest is in the report" in body


def test_a_red_main_is_one_issue_until_it_is_green(line: Line) -> None:
    needs = {"required": {"result": "failure"}, "promote": {"result": "skipped"}}
    assert line.run("watch", "issue", NEEDS=json.dumps(needs)).returncode == 0
    (made,) = line.calls("issue", "create")
    assert "required (failure)" in made["stdin"]
    title = made["words"][made["words"].index("--title") + 1]
    line.state["api"]["issues?state=open"] = [{"number": 3, "title": title, "user": {"type": "Bot"}}]
    line.keep()
    line.run("watch", "issue", NEEDS=json.dumps(needs))
    assert len(line.calls("issue", "create")) == 1
    assert line.calls("issue", "comment", "3")
    line.run("watch", "issue", NEEDS=json.dumps({"required": {"result": "success"}}))
    assert line.calls("issue", "close", "3")


def test_a_promotion_that_a_newer_one_replaced_is_no_red_main(line: Line) -> None:
    needs = {"required": {"result": "success"}, "promote": {"result": "cancelled"}}
    assert line.run("watch", "issue", NEEDS=json.dumps(needs)).returncode == 0
    assert not line.calls("issue")


@pytest.mark.parametrize(
    ("result", "state"), [("success", "success"), ("failure", "failure"), ("cancelled", "failure")]
)
def test_a_run_started_by_hand_reports_a_status(line: Line, result: str, state: str) -> None:
    assert line.run("watch", "status", NEEDS=json.dumps({"required": {"result": result}})).returncode == 0
    sent = json.loads(line.state["calls"][-1]["stdin"])
    assert (sent["state"], sent["context"]) == (state, "required")


def test_the_head_of_main_has_its_release_or_is_young_or_is_named(line: Line, program: Program) -> None:
    assert line.run("watch", "head").returncode == 0
    old = line.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x")
    environment = {"GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}
    os.environ.update(environment)
    try:
        old = line.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x")
    finally:
        del os.environ["GIT_COMMITTER_DATE"]
    red = line.run("watch", "head", GITHUB_SHA=old)
    assert red.returncode == 1
    assert "has no release" in red.stderr
    line.release(program, "r8", old, served="2026-01-01")
    assert line.run("watch", "head", GITHUB_SHA=old).returncode == 0
    line.state["api"]["git/matching-refs/heads/rollback/"] = [{"ref": "refs/heads/rollback/r1"}]
    line.keep()
    held = line.run("watch", "head", GITHUB_SHA=old)
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
    line: Line, private: str, fork: str, variable: str, expected: dict[str, str]
) -> None:
    assert line.run("watch", "scans", PRIVATE=private, FORK=fork, CODE_SCANNING=variable).returncode == 0
    assert expected == line.outputs()
    assert line.summary().count("Skipped: ") == list(expected.values()).count("false")


@pytest.mark.parametrize(
    ("verdict", "moved", "says"),
    [
        ("better", True, ""),
        ("inconclusive", True, "only a better model"),
        ("better", False, "the data pin is as it was"),
    ],
)
def test_a_retraining_proposes_the_pin_alone_and_only_what_is_better(
    line: Line, verdict: str, moved: bool, says: str
) -> None:
    line.commit({"model/data.lock.json": "{}\n"})
    line.git("push", "--quiet", "origin", "main")
    line.git("fetch", "--quiet", "origin")
    evidence = line.work / "build/evidence"
    evidence.mkdir(parents=True)
    (evidence / "decision.json").write_text(json.dumps({"verdict": verdict}))
    (evidence / "summary.md").write_text("Better. @someone")
    (evidence / "data.lock.json").write_text('{"moved": 1}\n' if moved else "{}\n")
    assert line.run("propose", "judge").returncode == 0
    assert line.outputs()["worth"] == str(not says).lower()
    assert line.run("propose").returncode == 0
    assert says in line.summary()
    assert bool(line.calls("pr", "create")) == (not says)
    if not says:
        line.git("fetch", "--quiet", "origin")
        assert line.git("diff", "--name-only", "origin/main", "origin/retrain/99") == "model/data.lock.json"
        assert "@someone" not in line.calls("pr", "create")[0]["stdin"]
