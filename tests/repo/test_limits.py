"""GitHub's limits of requests are waited for, within bounds.

docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api: a request over a limit is answered 403 or 429; a
`retry-after` says how many seconds to wait; with `x-ratelimit-remaining: 0`, until `x-ratelimit-reset`; else at least
a minute.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline import github

PRIMARY = "gh: API rate limit exceeded for installation ID 1. (HTTP 403)"
SECONDARY = "gh: You have exceeded a secondary rate limit. Please wait.\nSee https://docs.invalid (HTTP 403)\nrequest 1"
# A stand-in that is refused as often as the file `left` says, with the headers of the file `headers`.
GH = """#!/bin/sh
echo "$*" >> calls
[ "$3" = rate_limit ] && { cat headers; exit 0; }
left=$(cat left)
[ "$left" = 0 ] && { echo done; exit 0; }
echo $((left - 1)) > left
cat said >&2
exit 1
"""


@pytest.fixture
def asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    slept: list[float] = []
    monkeypatch.setattr(github.time, "sleep", slept.append)
    return slept


def limited(said: str, headers: str = "", left: int = 1) -> None:
    Path("said").write_text(said)
    Path("headers").write_text(f"HTTP/2.0 200 OK\r\n{headers}\r\n\r\n{{}}\n")
    Path("left").write_text(str(left))


@pytest.mark.parametrize(
    ("said", "headers", "pause"),
    [
        (SECONDARY, "Retry-After: 7", 7),
        ("gh: HTTP 429", "retry-after: 30", 30),
        (SECONDARY, "X-Ratelimit-Remaining: 900", 60),
        (SECONDARY, "", 60),
    ],
)
def test_a_call_over_the_limit_is_repeated_after_what_github_asks(
    asleep: list[float], said: str, headers: str, pause: int
) -> None:
    limited(said, headers)
    assert github.gh("api", "repos/x/y") == "done\n"
    assert asleep == [pause]


def test_an_hours_limit_is_waited_for_until_it_ends(asleep: list[float]) -> None:
    limited(PRIMARY, f"X-Ratelimit-Remaining: 0\r\nX-Ratelimit-Reset: {int(time.time()) + 90}")
    assert github.gh("api", "repos/x/y") == "done\n"
    assert 85 < asleep[0] < 95


@pytest.mark.parametrize("left", [3, 99])
def test_the_waiting_has_an_end(asleep: list[float], left: int) -> None:
    limited(SECONDARY, "Retry-After: 60", left)
    if left > 3:
        with pytest.raises(github.PipelineError, match="limit lasts 60 s more; run this job again then"):
            github.gh("api", "repos/x/y")
    else:
        assert github.gh("api", "repos/x/y") == "done\n"
    assert asleep == [60, 60, 60]


def test_a_limit_that_ends_too_late_is_told_at_once(asleep: list[float]) -> None:
    limited(PRIMARY, f"X-Ratelimit-Remaining: 0\r\nX-Ratelimit-Reset: {int(time.time()) + 3000}")
    with pytest.raises(github.PipelineError, match=r"rate limit exceeded .*run this job again then"):
        github.gh("api", "repos/x/y")
    assert asleep == []


@pytest.mark.parametrize("said", ["gh: Resource not accessible by integration (HTTP 403)", "gh: Not Found (HTTP 404)"])
def test_another_refusal_is_not_repeated(asleep: list[float], said: str) -> None:
    limited(said)
    with pytest.raises(github.PipelineError, match="HTTP 40"):
        github.gh("api", "repos/x/y")
    assert asleep == []
    assert Path("calls").read_text().count("\n") == 1
