"""A rehearsal of what GitHub would do with a copy, on stand-ins: each scene prints what is expected and what was seen.

`pytest -s tests/repo/test_rehearsal.py` prints the table. docs/rehearsal.md has the same scenes for a person to walk
through once on the real GitHub; the stand-ins answer as docs.github.com says, with the address beside each in api.py,
test_events.py, test_forced.py, test_sealed.py, test_thrift.py and test_tags.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dev import setup
from dev.origin import Origin
from pipeline import github, release

from .api import Api
from .test_events import NOTHING_SET, World, ci, pull, ran, verdict
from .test_forced import GONE
from .test_release import Repository, decided, served

DATA = ({"location": "s3://fleet/plant"},)


class Stage:
    """A repository with its stand-ins, made anew for each scene."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    @property
    def repo(self) -> Repository:
        here = self.folder / str(len(list(self.folder.iterdir())))
        here.mkdir()
        return Repository(here, self.root, release.NAME)

    def event(self, event: str, **world: object) -> str:
        """Which jobs of ci.yml run, and the check that they report."""
        made = World(event, **world)  # type: ignore[arg-type]
        made.outputs["decide"] = NOTHING_SET
        jobs = ci(self.root, made)
        red = verdict(jobs)
        extra = sorted(ran(jobs) & {"comment", "cluster", "release", "status"})
        many = "all jobs" if "train" in ran(jobs) else "without a model" if "check" in ran(jobs) else "plan alone"
        check = f"`{jobs['required']['name'].strip()}` {'red: not judged' if red else 'green'}"
        return f"{check}, {many}{'; then ' * bool(extra)}{', '.join(extra)}"

    def decision(self, **extra: str) -> str:
        code, outputs = decided(self.repo, **extra)
        assert code == 0, outputs
        how = "signed" if outputs["sign"] == "true" else "not signed"
        return f"released, {how}" if outputs["release"] == "true" else "not released"


def rollback(stage: Stage) -> str:
    repo = stage.repo
    served(repo)
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    repo.state["api"]["git/matching-refs/heads/rollback/"] = [{"ref": "refs/heads/rollback/r0", "object": {"sha": "a"}}]
    pulls = [{"number": 3, "state": "open", "head": {"sha": "a"}}]
    repo.state["api"]["pulls?state=all&head=someone:rollback/r0"] = pulls
    repo.keep()
    held = decided(repo, PRIVATE="true")[1]["release"]
    assert repo.run("rollback", "move", RELEASE="r0", REASON="hot").returncode == 0
    gone = [tag for tag in ("r0", "r1", "r2") if repo.facts(tag)["withdrawn"]]
    pulls[0]["state"] = "closed"
    repo.state["api"]["pulls?state=all&head=someone:rollback/r0"] = pulls
    repo.commits[2] = repo.commit({"model.py": "next\n"})
    repo.git("push", "--quiet", "origin", "main")
    repo.state["api"]["git/ref/heads/main"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()
    after = decided(repo, PRIVATE="true", GITHUB_EVENT_NAME="push")[1]["release"]
    opened = len(repo.calls("pr", "create"))
    told = f"{opened} pull request; while it is open released: {held}; withdrawn: {', '.join(gone)}"
    return f"{told}; closed, the next commit: {after}"


def moved(stage: Stage) -> str:
    repo = stage.repo
    repo.state["api"]["git/ref/heads/main"] = {"object": {"sha": "f" * 40}}
    repo.keep()
    released = decided(repo)[1]["release"]
    return f"released: {released}, and the page names the newer commit: {'main has moved on to' in repo.summary()}"


def forced(stage: Stage) -> str:
    repo = stage.repo
    assert repo.run("champion", BASE_COMMIT=GONE).returncode == 0
    return f"judged by the parent: {repo.outputs()['base'] == repo.commits[1]}"


def prose(stage: Stage) -> str:
    repo = stage.repo
    repo.release("r1", repo.commits[2], served="2026-01-01")
    repo.commits[2] = repo.commit({"docs/loop.md": "new\n"})
    repo.git("push", "--quiet", "origin", "main")
    repo.state["api"]["git/ref/heads/main"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()
    released = decided(repo, GITHUB_EVENT_NAME="push")[1]["release"]
    return f"released: {released}; daily check: {'green' if repo.run('notices', 'head').returncode == 0 else 'red'}"


def waits(stage: Stage) -> str:
    repo = stage.repo
    served(repo)
    assert repo.run("rollback", "hold", RELEASE="r0", REASON="hot").returncode == 0
    told = "approve workflows to run" in repo.calls("pr", "create")[0]["stdin"]
    checks = stage.event("workflow_dispatch", ref="refs/heads/rollback/r0")
    return f"its text says that nothing need be approved: {told}; {checks}"


PULL = {"payload": pull()}
MAIN = "refs/heads/main"
SCENES: dict[str, tuple[Callable[[Stage], str], str]] = {
    "first push of a public copy": (lambda it: it.event("push", ref=MAIN), "`required` green, all jobs; then release"),
    "its release": (lambda it: it.decision(PRIVATE="false"), "released, signed"),
    "the same in a private copy without Enterprise": (lambda it: it.decision(PRIVATE="true"), "released, not signed"),
    "the same in a private copy with it (`ATTESTATIONS=true`)": (
        lambda it: it.decision(PRIVATE="true", ATTESTATIONS="true"),
        "released, signed",
    ),
    "push to a branch": (lambda it: it.event("push"), "`branch` green, all jobs"),
    "push to a branch that an open pull request has": (
        lambda it: it.event("push", elsewhere=True),
        "`branch` green, plan alone",
    ),
    "pull request": (lambda it: it.event("pull_request", **PULL), "`required` green, all jobs; then comment"),
    "pull request of prose": (
        lambda it: it.event("pull_request", changed=("README.md",), **PULL),
        "`required` green, without a model",
    ),
    "pull request of manifests": (
        lambda it: it.event("pull_request", changed=("k8s/base/service.yaml",), **PULL),
        "`required` green, all jobs; then cluster, comment",
    ),
    "pull request from a fork": (
        lambda it: it.event("pull_request", payload=pull(fork=True)),
        "`required` green, all jobs",
    ),
    "the same where the data takes a login": (
        lambda it: it.event("pull_request", payload=pull(fork=True), pinned=DATA),
        "`required` red: not judged, without a model",
    ),
    "pull request of Dependabot": (
        lambda it: it.event("pull_request", payload=pull(kind="Bot")),
        "`required` green, all jobs",
    ),
    "pull request that a run opened with its own token": (
        waits,
        "its text says that nothing need be approved: True; `branch` green, all jobs; then status",
    ),
    "merge queue": (
        lambda it: it.event("merge_group", ref="refs/heads/gh-readonly-queue/main/pr-7"),
        "`required` green, all jobs",
    ),
    "commit of prose on main": (prose, "released: false; daily check: green"),
    "commit that is no longer main's head": (moved, "released: false, and the page names the newer commit: True"),
    "force push of main": (forced, "judged by the parent: True"),
    "rollback": (
        rollback,
        "1 pull request; while it is open released: false; withdrawn: r1, r2; closed, the next commit: true",
    ),
}
# The points of make setup that GitHub does not offer, by plan and visibility; every other point is made so.
WITHOUT = {
    ("free", False): set(),
    ("pro", False): set(),
    ("team", False): set(),
    ("enterprise", False): set(),
    ("free", True): {"auto-merge", "environment", "rules", "private"},
    ("pro", True): {"private"},
    ("team", True): {"private"},
    ("enterprise", True): {"private"},
}


def walked(docs: str) -> dict[str, str]:
    """The scenes of the page, with what is expected."""
    return dict(re.findall(r"^\| \d+ \| ([^|]+?) \| [^|]+ \| ([^|]+?) \|$", docs, re.MULTILINE))


@pytest.fixture(scope="module")
def seen(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    stage = Stage(tmp_path_factory.mktemp("stage"), root)
    return {title: play(stage) for title, (play, _) in SCENES.items()}


def test_every_scene_ends_as_expected(seen: dict[str, str]) -> None:
    expected = {title: told for title, (_, told) in SCENES.items()}
    for title, told in expected.items():
        mark = "ok " if seen[title] == told else "NOT"
        print(f"{mark} {title}\n      expected: {told}\n      seen:     {seen[title]}")
    assert expected == seen


def test_the_page_for_a_person_has_the_same_scenes(root: Path) -> None:
    docs = (root / "docs/rehearsal.md").read_text(encoding="utf-8")
    assert {title: told for title, (_, told) in SCENES.items()} == walked(docs)
    assert "No run here has met the real GitHub" in docs


@pytest.mark.parametrize(("plan", "private"), list(WITHOUT))
def test_make_setup_makes_what_the_plan_offers(monkeypatch: pytest.MonkeyPatch, plan: str, private: bool) -> None:
    monkeypatch.setattr(github, "gh", Api(plan, private).gh)
    lines = setup.run(Origin("github.com", "someone/fleet"), "solo", {}, dry=False)
    without = {what.split()[0] for state, what, _ in lines if state not in ("done", "ok")}
    where = f"{plan}, {'private' if private else 'public'}"
    print(
        f"{where}\n      expected without: {sorted(WITHOUT[plan, private])}\n      seen:             {sorted(without)}"
    )
    assert WITHOUT[plan, private] == without, [line for line in lines if line[0] not in ("done", "ok")]
