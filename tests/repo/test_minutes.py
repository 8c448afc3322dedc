"""The minutes, billed and to the verdict, are computed from the workflow files: what runs, how often, after what.

docs.github.com/billing/concepts/product-billing/github-actions: each job is rounded up to whole minutes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dev import local_ci, minutes
from pipeline import github

SECONDS = {"plan": 1, "check": 200, "test": 130, "train": 20.5, "contract": 21, "image": 140}
MORE = int((github.ROOT / ".github/workflows/manifests.yml").exists())  # a copy may have taken that job away


def row(lines: list[str], title: str) -> list[str]:
    return [cell.strip() for cell in next(line for line in lines if line.startswith(f"| {title} |")).split("|")[2:-1]]


def test_each_job_is_rounded_up_and_a_matrix_counts_each_of_its_jobs() -> None:
    lines = minutes.table(SECONDS)
    names = row(lines, "event")
    found = dict(zip(names, row(lines, "pull request"), strict=True))
    assert {"plan": "1", "check": "4", "test": "6", "train": "2", "contract": "2", "image": "3"} == {
        name: found[name] for name in SECONDS
    }
    assert ("", "1", str(19 + MORE)) == (found["cluster"], found["required"], found["billed minutes"])
    assert lines[-1] == f"Not measured, and counted as 1: cluster, {'manifests, ' * MORE}required."


@pytest.mark.parametrize(
    ("title", "total"),
    [("push, with a pull request", 2), ("push, without one", 19 + MORE), ("pull request of prose", 12 + MORE)],
)
def test_the_plan_says_which_jobs_an_event_runs(title: str, total: int) -> None:
    assert str(total) == row(minutes.table(SECONDS), title)[-2]


def test_a_change_of_manifests_takes_the_cluster_too() -> None:
    lines = minutes.table(SECONDS | {"cluster": 600})
    assert ("11" if MORE else "") == row(lines, "pull request of manifests")[row(lines, "event").index("cluster")]


def test_every_machine_of_the_workflows_has_a_rate(root: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (root / ".github/workflows").iterdir()]
    assert set(minutes.RATES) == {name for text in texts for name in re.findall(r"runs-on: (\S+)", text)}


@pytest.mark.parametrize(
    ("title", "seconds"),
    [
        ("pull request", 1 + 20.5 + 140 + 4 * 40),  # plan, train, image, required
        ("pull request of prose", 1 + 200 + 3 * 40),  # plan, check, required
        ("push, with a pull request", 1 + 2 * 40),
    ],
)
def test_the_verdict_waits_for_the_longest_way_through_the_jobs(title: str, seconds: float) -> None:
    assert f"{seconds / 60:.1f}" == row(minutes.table(SECONDS), title)[-1]


def test_a_job_that_needs_another_starts_after_it() -> None:
    found, path = minutes.slowest(SECONDS | {"image": 300}, minutes.runs(*minutes.EVENTS[minutes.JUDGED]))
    assert ["plan", "train", "image", "required"] == path
    assert found == pytest.approx(1 + 20.5 + 300 + 4 * minutes.SETUP)


def test_a_goal_that_is_missed_is_said_with_what_limits_it() -> None:
    slow = minutes.goals(SECONDS | {"test": 700})
    assert "at most 6 minutes to the verdict, **missed** (13.7)" in slow
    assert f"at most 25 minutes billed, **missed** ({39 + MORE})" in slow
    assert "waits for `plan` 1 s, `test` 700 s, `required` 0 s; most is billed for `test` 26 and `check` 4" in slow
    assert "**missed**" not in minutes.goals(SECONDS)


@pytest.fixture
def noted(root: Path) -> dict[str, Any]:
    """What was measured, as .github/README.md has it."""
    found = minutes.SECTION.search((root / ".github/README.md").read_text(encoding="utf-8"))
    assert found is not None
    known: dict[str, Any] = json.loads(found[1])
    return known


@pytest.mark.skipif(not MORE, reason="a copy took jobs away: make ci && make minutes WRITE=1 counts anew")
def test_the_readme_has_what_the_workflow_files_and_its_measured_seconds_give(
    root: Path, noted: dict[str, Any]
) -> None:
    """So a change of the workflows is red until the section is written again."""
    text = (root / ".github/README.md").read_text(encoding="utf-8")
    assert minutes.section(noted) in text
    total = row(minutes.table(noted["seconds"]), "push, without one")[-2]
    assert re.search(rf"^\| `ci.yml` \|.*\| {total} \|$", text, re.MULTILINE)


def test_what_was_measured_replaces_the_section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = {"commit": "abc1234", "processors": 4, "seconds": SECONDS}
    measured, readme = tmp_path / "ci.json", tmp_path / "README.md"
    measured.write_text(json.dumps(known))
    monkeypatch.setattr(local_ci, "MEASURED", measured)
    monkeypatch.setattr(minutes, "README", readme)
    readme.write_text("before\nafter\n")
    with pytest.raises(github.PipelineError, match="has no place"):
        minutes.write()
    readme.write_text("before\n<!-- minutes {} -->\nold\n<!-- /minutes -->\nafter\n")
    minutes.write()
    assert f"before\n{minutes.section(known)}\nafter\n" == readme.read_text()
    words = " ".join(readme.read_text().split())
    assert "make ci` at commit abc1234 on 4 processors, in seconds: plan 1, check 200" in words


def test_without_a_run_it_says_which_command_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_ci, "MEASURED", tmp_path / "none.json")
    with pytest.raises(github.PipelineError, match="run: make ci"):
        minutes.main()
    (tmp_path / "none.json").write_text('{"plan": 1}')
    with pytest.raises(github.PipelineError, match="of an older make ci"):
        minutes.main()
