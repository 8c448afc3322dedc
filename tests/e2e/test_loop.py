"""``make loop``, smaller: the whole loop over HTTP, from a history to a better model that is served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STRANGER = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}


def state(root: Path) -> dict[str, bytes]:
    """The files of the checkout that a demonstration must leave alone."""
    files = [root / "model/data.lock.json", root / "model/params.yaml"]
    files += [path for name in ("bundle", "champion", "data") for path in (root / "build" / name).rglob("*.json")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def shown(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small demonstration, and what it printed. The checkout is as it was."""
    before, out = state(root), tmp_path_factory.mktemp("loop")
    command = [sys.executable, "-m", "model.loop", "--small", "--out", str(out)]
    done = subprocess.run(command, cwd=root, env=STRANGER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert state(root) == before
    return out, done.stdout + done.stderr


@pytest.fixture(scope="module")
def content(shown: tuple[Path, str]) -> dict:
    return json.loads((shown[0] / "loop.json").read_text(encoding="utf-8"))


def test_the_second_model_is_better_on_what_happened_after_the_world_moved(content: dict) -> None:
    assert content["decision"]["verdict"] == "better"
    first, second = content["holdout"]["first"], content["holdout"]["second"]
    assert first["cost_per_machine_year"] > second["cost_per_machine_year"]
    assert content["decision"]["delta"]["cost_per_machine_year"]["low"] > 0
    assert content["models"]["first"] != content["models"]["second"]


def test_drift_and_live_quality_saw_the_world_move(content: dict) -> None:
    assert content["drift"]["verdict"] == "moved"
    assert {"volt", "pressure"} <= set(content["drift"]["subjects"])
    assert "moved" not in content["drift_by_week"][:1]
    assert content["issue"]["action"] == "open"


def test_every_request_is_in_the_log_and_answered_again_with_the_same_bits(content: dict) -> None:
    plan = content["plan"]
    assert content["windows"] == plan["machines"] * plan["end"] * 24 // plan["every_hours"]
    records = content["replay"]["records"]
    assert records["mismatched"] == 0
    assert records["replayed"] == 7 * 24 // plan["every_hours"]


def test_the_pull_request_moves_the_pin_alone_and_is_printed_and_merged(shown: tuple[Path, str], content: dict) -> None:
    out, said = shown
    assert content["pull_request"]["files"] == ["model/data.lock.json"]
    assert "Pull request: Retrain on newer data" in said
    assert "### Replayed requests" in said
    log = subprocess.run(["git", "log", "--format=%s"], cwd=out / "copy", capture_output=True, text=True, check=True)
    assert log.stdout.splitlines()[:2] == ["Merge the retraining", "Retrain on newer data"]


def test_the_second_model_answered_at_the_end(content: dict) -> None:
    assert content["live"]["second"]["false_alarms_per_machine_year"] is not None
    assert content["live"]["before"]["failures"] + content["live"]["after_the_move"]["failures"] > 20


def test_the_page_fetches_nothing_and_names_both_models(shown: tuple[Path, str], content: dict) -> None:
    page = (shown[0] / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'<script|<link|src="http|@import', page)
    for digest in content["models"].values():
        assert digest.removeprefix("sha256:")[:12] in page
    assert page.count("<svg") == 4
