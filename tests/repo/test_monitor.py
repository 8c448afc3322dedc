"""The one issue on the served model, and the releases that its answers are compared with."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import github, monitor, release_facts, served

WORSE = {"action": "open", "title": "x", "body": "it foresaw 30% of 50 failures, promised were 80%"}
KEEP, CLOSE, NONE = {"action": "keep"}, {"action": "close"}, {"action": "none"}
MOVED = {"verdict": "moved", "words": "volt: mean"}
STEADY = {"verdict": "steady", "words": "nothing moved"}
LITTLE = {"verdict": "too little data", "words": "3 machines"}


class Issues:
    """The issues of a repository."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.all: list[dict[str, Any]] = []
        self.edits = 0
        self.folder = folder
        monkeypatch.chdir(folder)
        for name, value in {
            "REPOSITORY": "someone/fleet",
            "SERVER_URL": "https://github.invalid",
            "RUN_ID": "9",
        }.items():
            monkeypatch.setenv(f"GITHUB_{name}", value)
        monkeypatch.setenv("GITHUB_OUTPUT", str(folder / "output"))
        monkeypatch.setattr(github, "objects", self.objects)
        monkeypatch.setattr(github, "gh", self.gh)

    def objects(self, path: str) -> list[dict[str, Any]]:
        assert path.startswith("issues?state=open")
        return [one for one in self.all if one["open"]]

    def gh(self, what: str, how: str, *words: str, stdin: str | None = None) -> str:
        assert "issue" == what
        if how == "create":
            title = words[words.index("--title") + 1]
            self.add(title, stdin or "")
        elif how == "close":
            self.all[int(words[0]) - 1]["open"] = False
        else:
            assert "edit" == how
            self.all[int(words[0]) - 1]["body"] = stdin
            self.edits += 1
        return ""

    def add(self, title: str, body: str, kind: str = "Bot") -> None:
        self.all.append(
            {"number": len(self.all) + 1, "title": title, "body": body, "open": True, "user": {"type": kind}}
        )

    def day(self, issue: dict[str, Any] | None, drift: dict[str, Any] | None = None) -> list[bool]:
        """Run with what make monitor found; return which issues are open."""
        path = self.folder / "build/monitor/monitor.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"issue": issue} | ({} if drift is None else {"drift": drift})))
        monitor.main()
        return [one["open"] for one in self.all]

    @property
    def worse(self) -> str:
        """What the next run of make monitor is told."""
        (self.folder / "output").write_text("")
        monitor.is_open()
        return (self.folder / "output").read_text().strip()


@pytest.fixture
def issues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Issues:
    return Issues(monkeypatch, tmp_path)


def test_one_issue_is_opened_kept_closed_and_the_next_one_is_another(issues: Issues) -> None:
    assert [] == issues.day(NONE)
    assert "issue=" == issues.worse
    assert [True] == issues.day(WORSE)
    assert WORSE["body"] in issues.all[0]["body"]
    assert "issue=1" == issues.worse
    assert [True] == issues.day(KEEP | {"body": WORSE["body"]})
    assert [True] == issues.day(KEEP), "too little data, or not recovered yet: what was said stands"
    assert 0 == issues.edits
    assert WORSE["body"] in issues.all[0]["body"]
    assert [True] == issues.day(KEEP | {"body": "it foresaw 20%"})
    assert "it foresaw 20%" in issues.all[0]["body"]
    assert [False] == issues.day(CLOSE)
    assert [False, True] == issues.day(WORSE)


def test_drift_stands_until_a_look_finds_nothing_and_days_without_a_look_change_nothing(issues: Issues) -> None:
    assert [True] == issues.day(NONE, MOVED)
    assert "volt: mean" in issues.all[0]["body"]
    assert "issue=" == issues.worse, "drift is no verdict on the model"
    assert [True] == issues.day(NONE)
    assert [True] == issues.day(NONE, LITTLE)
    assert [True] == issues.day(WORSE), "the same issue"
    assert [True] == issues.day(CLOSE), "the world has still moved"
    assert WORSE["body"] not in issues.all[0]["body"]
    assert [False] == issues.day(NONE, STEADY)


def test_drift_and_quality_close_it_together_alone(issues: Issues) -> None:
    assert [True] == issues.day(WORSE, MOVED)
    assert [True] == issues.day(KEEP, STEADY)
    assert "volt" not in issues.all[0]["body"]
    assert [False] == issues.day(CLOSE, STEADY)


@pytest.mark.parametrize("body", [None, "", "<!-- monitor {} -->", "<!-- monitor [1] -->", '<!-- monitor {"live": -->'])
def test_a_text_that_a_person_changed_is_written_anew_or_closed(issues: Issues, body: str | None) -> None:
    issues.add(monitor.TITLE, "")
    issues.all[0]["body"] = body
    assert [True] == issues.day(WORSE)
    assert [False] == issues.day(CLOSE)


def test_issues_of_people_are_left_alone(issues: Issues) -> None:
    issues.add(monitor.TITLE, "mine", "User")
    issues.add("Other", "theirs")
    assert [True, True] == issues.day(NONE)
    assert [True, True, True] == issues.day(WORSE)
    assert ["mine", "theirs"] == [one["body"] for one in issues.all[:2]]


@pytest.mark.parametrize("words", ["a --> b", "@someone see #1", "<script>", "x\n<!-- monitor {} -->"])
def test_names_from_the_data_neither_end_the_comment_nor_have_an_effect(issues: Issues, words: str) -> None:
    issues.day(WORSE | {"body": words}, MOVED | {"words": words})
    body = issues.all[0]["body"]
    assert monitor.IssueState(live=words, drift=words) == monitor.IssueState.of(body)
    assert 1 == body.count("-->")
    read = body.rpartition("\n\n<!-- monitor ")[0]
    assert "@someone" not in read
    assert "<" not in read


@pytest.mark.parametrize(
    ("place", "log"), [("", "false"), ("/log", "false"), ("az://fleet/log", "true"), ("s3://fleet/log", "true")]
)
def test_whether_there_is_a_log(
    issues: Issues, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, log: str
) -> None:
    monkeypatch.setenv("LOG_SINK", place)
    monitor.log()
    assert f"log={log}" in (issues.folder / "output").read_text()
    assert (log == "false") == ("skipped: " in capsys.readouterr().out)


# --- the releases ---


def archive(digest: str) -> bytes:
    manifest = json.dumps(
        {"bundle_digest": digest, "model_digest": digest, "provenance": {"commit": "c" * 40}}
    ).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        entry = tarfile.TarInfo("bundle/manifest.json")
        entry.size = len(manifest)
        packed.addfile(entry, io.BytesIO(manifest))
    return buffer.getvalue()


def released(tag: str, when: str | None, files: dict[str, bytes]) -> release_facts.Release:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    facts = {"commit": "c" * 40, "bundle_digest": tag, "model_digest": tag, "files": digests, "served": when}
    return release_facts.Release(tag, "", facts | {"withdrawn": "2026-02" if tag == "r2" else None})


def test_the_releases_that_were_served_are_fetched_and_one_that_was_changed_is_left_out(
    issues: Issues, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promise = {"metrics.json": b"{}", "decision.json": b"{}"}
    there = {f"r{n}": {"bundle.tar.gz": archive(f"r{n}")} | (promise if n > 1 else {}) for n in range(1, 5)}
    releases = [released(tag, None if tag == "r4" else f"2026-0{tag[1]}", files) for tag, files in there.items()]
    there["r3"]["metrics.json"] = b"{ }"

    def gh(*words: str, **_: Any) -> str:
        folder, name = Path(words[words.index("--dir") + 1]), words[words.index("--pattern") + 1]
        (folder / name).write_bytes(there[words[2]][name])
        return ""

    monkeypatch.setattr(github, "gh", gh)
    monkeypatch.setattr(release_facts, "published", lambda: releases)
    monkeypatch.setattr(served.shutil, "which", lambda _: "gh")
    monkeypatch.setenv("PRIVATE", "true")
    stale = issues.folder / "build/served/r0"
    stale.mkdir(parents=True)
    served.main()
    top = issues.folder / "build/served"
    found = sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())
    assert ["r1/bundle/manifest.json", "r2/bundle/manifest.json", "r2/decision.json", "r2/metrics.json"] == found
    said = capsys.readouterr().out
    assert "r3 is left out: metrics.json of release r3 is not the file that the release's facts name" in said
    assert "without what it promised" in said


def test_the_newest_are_fetched_alone() -> None:
    many = [released(f"r{n}", f"2026-{n:02}", {}) for n in range(1, 9)]
    assert ["r8", "r7", "r6", "r5", "r4"] == [one.tag for one in served.newest(many)]
