"""What ``make retention`` removes, and what it never does.

docs.github.com/rest/packages/packages: list and delete versions of a package; docs.github.com/rest/releases/releases.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from dev import retention
from dev.origin import Origin
from pipeline import github, release_facts

NOW = datetime(2027, 6, 1, tzinfo=UTC)


def sha(n: int) -> str:
    return f"sha256:{n:064d}"


def facts(n: int, **titles: Any) -> dict[str, Any]:
    known = {"commit": f"{n:040d}", "image": f"ghcr.io/someone/fleet@{sha(n)}"}
    return known | dict.fromkeys(("served", "champion", "withdrawn")) | titles


def one(n: int, served: str = "", **titles: Any) -> release_facts.Release:
    return release_facts.Release(f"r{n}", "", facts(n, served=served or None, **titles))


def version(n: int, *tags: str) -> dict[str, Any]:
    about = {"id": n, "created_at": "2026-01-01T00:00:00Z", "metadata": {"container": {"tags": list(tags)}}}
    return about | {"name": sha(n)}


OLD = [one(n, f"2026-01-{n:02d}") for n in range(1, 31)]  # r30 is served


def gone(known: list[release_facts.Release], *more: dict[str, Any], **drafts: Any) -> list[int]:
    every = [version(n) for n in range(1, 31)] + list(more)
    given = {"drafts": [], "waiting": []} | drafts
    return [found["id"] for found in retention.old_images(every, known, now=NOW, **given)]


def test_what_is_served_the_champion_and_what_a_rollback_may_take_stay() -> None:
    assert list(range(1, 21)) == gone(OLD)
    champion = [one(3, "2026-01-03", champion="2026-01-03"), *(each for each in OLD if each.tag != "r3")]
    assert 3 not in gone(champion)


def test_a_withdrawn_release_is_not_among_those_that_a_rollback_may_take() -> None:
    bad = {"at": "2026-02-01", "why": "hot"}
    known = [one(n, f"2026-01-{n:02d}", withdrawn=bad if n > 25 else None) for n in range(1, 31)]
    assert [*range(1, 16), *range(26, 31)] == gone(known)
    late = [one(n, f"2026-01-{n:02d}", withdrawn=bad | {"at": "2027-05-30"} if n > 25 else None) for n in range(1, 31)]
    assert list(range(1, 16)) == gone(late)


def test_all_of_the_last_days_stay_and_so_does_one_that_was_never_served() -> None:
    assert [] == gone([one(n, f"2027-05-{n:02d}") for n in range(1, 31)])
    assert 7 not in gone([*OLD[:6], one(7), *OLD[7:]])


def test_what_no_release_names_stays_and_signatures_go_with_their_image() -> None:
    strange, own, other = version(99, "latest"), version(98, sha(5).replace(":", "-")), version(97, "sha256-0")
    assert [*range(1, 21), 98] == gone(OLD, strange, own, other)


def draft(n: int, created: str, body: str | None = None) -> dict[str, Any]:
    text = release_facts.block(facts(n)) if body is None else body
    return {"id": n, "tag_name": f"r{n}", "draft": True, "created_at": f"{created}T00:00:00Z", "body": text}


def test_only_the_pipelines_own_drafts_that_nobody_can_approve_any_more_go() -> None:
    drafts = [draft(40, "2027-01-01"), draft(41, "2027-05-20"), draft(42, "2027-01-01", "a person's")]
    assert [40] == [each["id"] for each in retention.old_drafts(drafts, NOW)]
    assert 40 in gone(OLD, version(40), drafts=[drafts[0]])
    assert 41 not in gone(OLD, version(41), waiting=[drafts[1]])
    again = draft(20, "2027-05-20")  # a draft that waits names the image of an old release
    assert 20 not in gone(OLD, waiting=[again])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def gh(*words: str, stdin: str | None = None, env: object = None) -> str:
        path = next(word for word in words if "/" in word)
        if "DELETE" in words:
            made.append(path)
            return ""
        if "--paginate" in words:
            rows = [version(n) for n in range(1, 31)] if "/packages/" in path else [draft(40, "2026-01-01")]
            return "\n".join(json.dumps(row) for row in rows)
        return json.dumps({"private": False, "owner": {"type": "User"}})

    monkeypatch.setattr(github, "gh", gh)
    monkeypatch.setattr(release_facts, "published", lambda: OLD)
    monkeypatch.setattr(retention, "origin", lambda: Origin("github.com", "Someone/Fleet"))
    for name in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "GH_REPO", "PRIVATE", "CONFIRM"):
        monkeypatch.setenv(name, "")
    return made


def test_without_a_confirmation_nothing_is_removed(calls: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert retention.main() == 0
    told = capsys.readouterr().out
    assert calls == []
    assert len(re.findall("^image ", told, re.MULTILINE)) == 20
    assert "draft r40" in told
    assert "make retention CONFIRM=Someone/Fleet" in told


def test_with_it_images_go_first_and_then_the_drafts_that_name_them(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIRM", "Someone/Fleet")
    assert retention.main() == 0
    assert calls[0] == "/users/someone/packages/container/fleet/versions/1"
    assert calls[-1] == "repos/Someone/Fleet/releases/40"
    assert len(calls) == 21


def test_the_name_of_another_repository_removes_nothing(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIRM", "Someone/Other")
    assert retention.main() == 2
    assert calls == []


def test_where_it_is_not_known_what_is_served_nothing_is_removed(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release_facts, "published", list)
    monkeypatch.setenv("CONFIRM", "Someone/Fleet")
    assert retention.main() == 1
    assert calls == []
    assert "nothing is removed" in capsys.readouterr().err
