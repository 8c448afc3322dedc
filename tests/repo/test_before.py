"""What `make before` gets: the image of the served release or of the change's base, and the manifests of its commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import before, champion, github, release_facts

RELEASE = release_facts.Release("r7", "", {"commit": "", "image": "ghcr.io/o/r@sha256:1", "served": "2026-01-01"})


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A repository of one commit, an engine and a make that note what they are asked."""
    monkeypatch.chdir(tmp_path)
    state = SimpleNamespace(calls=[], makes=[], fails=set(), folder=tmp_path)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        (tmp_path / "k8s").mkdir(exist_ok=True)
        (tmp_path / "k8s/x.yaml").write_text("old\n")
        (tmp_path / ".gitignore").write_text("/build/\n")
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], check=True, capture_output=True)
    (tmp_path / "k8s/x.yaml").write_text("new\n")
    (tmp_path / "build/bundle").mkdir(parents=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    state.head, real = head, github.call

    def call(*words: str, **how: Any) -> str:
        state.calls.append(" ".join(words))
        return "" if words[0] == "docker" else real(*words, **how)

    def make(*words: str) -> bool:
        state.makes.append(words[0])
        there = (before.TREE / "build/bundle").exists()
        return words[0] not in state.fails and not (words[0] == "image" and "old code" in state.fails and there)

    monkeypatch.setattr(github, "call", call)
    monkeypatch.setattr(before, "make", make)
    monkeypatch.setattr(before, "served", lambda: None)
    monkeypatch.setattr(champion, "base", lambda: head)
    monkeypatch.delenv("DOCKER", raising=False)
    return state


def said() -> dict[str, str]:
    found: dict[str, str] = json.loads((before.FOLDER / "before.json").read_text())
    return found


def test_a_served_release_is_pulled_by_its_digest(work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    one = release_facts.Release("r7", "", RELEASE.facts | {"commit": work.head})
    monkeypatch.setattr(before, "served", lambda: one)
    before.main()
    assert work.calls[:2] == [
        "docker pull --quiet ghcr.io/o/r@sha256:1",
        "docker tag ghcr.io/o/r@sha256:1 closedloop:before",
    ]
    assert work.makes == []
    assert said() == {"what": "the served release r7", "commit": work.head}
    assert (before.FOLDER / "k8s/x.yaml").read_text() == "old\n"  # of its commit, not of this change


def test_without_a_release_the_base_is_built_with_this_runs_bundle(work: SimpleNamespace) -> None:
    before.main()
    assert work.makes == ["image"]
    assert "since no release is served" in said()["what"]
    assert (before.TREE / "k8s/x.yaml").read_text() == "old\n"
    assert (before.FOLDER / "k8s/x.yaml").read_text() == "old\n"
    before.main()  # again, over what is there
    assert said()["commit"] == work.head


def test_a_base_that_refuses_the_bundle_trains_its_own(work: SimpleNamespace) -> None:
    work.fails = {"old code"}
    before.main()
    assert work.makes == ["image", "run", "image"]
    assert said()["commit"] == work.head


@pytest.mark.parametrize("why", ["cannot be built", "has no base"])
def test_where_there_is_nothing_to_upgrade_from_it_says_why(
    work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    if why == "has no base":
        monkeypatch.setattr(champion, "base", lambda: "")
    work.fails = {"image", "run"}
    before.main()
    assert said()["commit"] == ""
    assert why in said()["what"]
    assert "Skipped: the upgrade" in capsys.readouterr().out
    assert not (before.FOLDER / "k8s").exists()
