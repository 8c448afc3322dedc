"""Each alert fires where it should, and is silent where it should be; promtool decides."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

SOURCE = "k8s/components/monitoring/prometheus/prometheusrule.yaml"
CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text(encoding="utf-8"))
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def groups(root: Path) -> list[dict[str, Any]]:
    """The groups of rules."""
    groups: list[dict[str, Any]] = yaml.safe_load((root / SOURCE).read_text(encoding="utf-8"))["spec"]["groups"]
    return groups


def fired(groups: list[dict[str, Any]], cases: list[dict[str, Any]], folder: Path) -> str:
    """What promtool says against the cases with these rules; empty if each alert fires as its case says."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
            # A query counts the firing alerts of that name, whatever their labels and texts.
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{case["alert"]}",alertstate="firing"}})',
                    "eval_time": case["at"],
                    "exp_samples": [{"labels": "{}", "value": 1}] if case.get("fires", True) else [],
                }
            ],
        }
        for case in cases
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    (folder / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}), encoding="utf-8"
    )
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case(groups: list[dict[str, Any]]) -> None:
    assert [rule["alert"] for group in groups for rule in group["rules"]] == [case["alert"] for case in CASES]
    assert [case["alert"] for case in CASES if not case.get("quiet") and case["series"]] == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_each_alert_fires_and_is_silent_as_its_case_says(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    quiet = [case | {"series": case["quiet"], "fires": False} for case in CASES if "quiet" in case]
    assert fired(groups, CASES + quiet, tmp_path) == ""


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_a_threshold_that_is_never_reached_is_found(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    text = yaml.safe_dump(groups)
    assert "> 0.01" in text
    assert "ScoreErrors" in fired(yaml.safe_load(text.replace("> 0.01", "> 0.5")), CASES, tmp_path)
