"""The billed minutes are computed from the workflow files: what runs, how often, on which machine.

docs.github.com/billing/concepts/product-billing/github-actions: each job is rounded up to whole minutes.
"""

from __future__ import annotations

import re
from pathlib import Path

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
    assert str(total) == row(minutes.table(SECONDS), title)[-1]


def test_a_change_of_manifests_takes_the_cluster_too() -> None:
    lines = minutes.table(SECONDS | {"cluster": 600})
    assert ("11" if MORE else "") == row(lines, "pull request of manifests")[row(lines, "event").index("cluster")]


def test_every_machine_of_the_workflows_has_a_rate(root: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (root / ".github/workflows").iterdir()]
    assert set(minutes.RATES) == {name for text in texts for name in re.findall(r"runs-on: (\S+)", text)}


def test_without_a_run_it_says_which_command_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_ci, "MEASURED", tmp_path / "none.json")
    with pytest.raises(github.PipelineError, match="run: make ci"):
        minutes.main()
