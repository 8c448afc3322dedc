"""Every input, secret and variable of the workflows is documented in .github/README.md, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROW = re.compile(r"^\| (`[^|]+`) \| (variable|secret|input) \|", re.MULTILINE)


def told(text: str) -> set[tuple[str, str]]:
    return {(kind, name) for names, kind in ROW.findall(text) for name in re.findall(r"`(\w+)`", names)}


def used(text: str) -> set[tuple[str, str]]:
    found = {("variable", name) for name in re.findall(r"\bvars\.(\w+)", text)}
    found |= {("secret", name) for name in re.findall(r"\bsecrets\.(\w+)", text)}
    on = yaml.safe_load(text)[True]
    for event in ("workflow_call", "workflow_dispatch"):
        declared = (on.get(event) or {}) if isinstance(on, dict) else {}
        found |= {("input", name) for name in declared.get("inputs", {})}
        found |= {("secret", name) for name in declared.get("secrets", {})}
    return found


@pytest.fixture
def flows(root: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((root / ".github/workflows").iterdir())}


def test_every_setting_is_told_and_every_one_that_is_told_exists(root: Path, flows: dict[str, str]) -> None:
    needed = set().union(*(used(text) for text in flows.values()))
    assert ("variable", "DEPLOY_TO") in needed
    assert needed == told((root / ".github/README.md").read_text(encoding="utf-8"))


def test_every_workflow_is_told_with_its_minutes(root: Path, flows: dict[str, str]) -> None:
    table = (root / ".github/README.md").read_text(encoding="utf-8").partition("## What can be set")[0]
    assert set(flows) == set(re.findall(r"`(\w+\.yml)`(?=[,` |])", table.replace("`ci.yml` there", "")))


def test_the_example_of_a_week_is_computed_from_the_minutes_of_the_table(root: Path) -> None:
    table = (root / ".github/README.md").read_text(encoding="utf-8").partition("## What can be set")[0]
    found = re.findall(r"^\| `(\w+)\.yml` \|.*\| (\d+) \|$", table, re.MULTILINE)
    minutes = {name: int(figure) for name, figure in found}
    ci, scans, release, daily = (minutes[name] for name in ("ci", "security", "release", "daily"))
    retrain, monitor = minutes["retrain"], minutes["monitor"]
    week = (
        10 * (4 * ci + 2 * scans + ci + release + scans)
        + 7 * daily
        + retrain
        + 7 * monitor
        + scans
        + minutes["refresh"]
    )
    example = f"10 * (4*{ci} + 2*{scans} + {ci} + {release} + {scans}) + 7*{daily} + {retrain} + 7*{monitor} + {scans}"
    example += f" + {minutes['refresh']}"
    text = (root / "docs/living-with-it.md").read_text(encoding="utf-8").replace("\u00d7", "*")
    assert f"{example} = {week:,} minutes a week\n" in text
    assert f"saves about {round((365 - 52) / 12 * daily, -2):.0f} minutes a month" in text


def test_a_setting_that_is_not_told_is_found() -> None:
    text = "on: {workflow_dispatch: {inputs: {a: {}}}}\nenv: {B: '${{ vars.B }}', C: '${{ secrets.C }}'}\n"
    assert {("input", "a"), ("variable", "B"), ("secret", "C")} == used(text)
