"""Each alert fires where it should, and is silent where it should be; promtool decides."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import azure_alerts

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
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    files = [_tested(case, rules[case["alert"]], folder / f"{number}.yaml") for number, case in enumerate(cases)]
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", *files], cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _tested(case: dict[str, Any], rule: dict[str, Any], file: Path) -> str:
    """Write a file that tests one rule by itself, since promtool evaluates every rule of a test each minute."""
    rules = file.with_suffix(".rules.yaml")
    rules.write_text(yaml.safe_dump({"groups": [{"name": "tested", "rules": [rule]}]}), encoding="utf-8")
    # The query is 1 where any alert of that name fires, whatever its labels and text.
    asked = {
        "expr": f'count(count by (alertname) (ALERTS{{alertname="{case["alert"]}",alertstate="firing"}}))',
        "eval_time": case["at"],
        "exp_samples": [{"labels": "{}", "value": 1}] if case.get("fires", True) else [],
    }
    series = [{"series": name, "values": values} for name, values in case["series"].items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}
    whole = {"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return file.name


def test_every_alert_has_a_case(groups: list[dict[str, Any]]) -> None:
    named = list(dict.fromkeys(case["alert"] for case in CASES))
    assert [rule["alert"] for group in groups for rule in group["rules"]] == named
    assert [case["alert"] for case in CASES if not case.get("quiet") and case["series"]] == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_each_alert_fires_and_is_silent_as_its_case_says(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    quiet = [case | {"series": case["quiet"], "fires": False} for case in CASES if "quiet" in case]
    assert fired(groups, CASES + quiet, tmp_path) == ""


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_a_threshold_that_is_never_reached_is_found(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    text = yaml.safe_dump(groups)
    assert "> 0.01" in text
    cases = [case for case in CASES if case["alert"] == "ScoreErrors"]
    assert "ScoreErrors" in fired(yaml.safe_load(text.replace("> 0.01", "> 0.5")), cases, tmp_path)


# --- as Azure takes them ---


@pytest.fixture(scope="module")
def arm(root: Path) -> dict[str, Any]:
    """The ARM template of the same rules."""
    made: dict[str, Any] = json.loads(azure_alerts.template(root / SOURCE))
    return made


def minutes(text: str) -> int:
    """The minutes of a duration of Prometheus."""
    return int(text[:-1]) * {"m": 1, "h": 60, "d": 1440}[text[-1]]


def test_azure_gets_every_alert_as_it_is_here(groups: list[dict[str, Any]], arm: dict[str, Any]) -> None:
    assert [one["name"] for one in arm["resources"]] == [group["name"] for group in groups]
    for one, group in zip(arm["resources"], groups, strict=True):
        assert (one["type"], one["apiVersion"]) == ("Microsoft.AlertsManagement/prometheusRuleGroups", "2023-03-01")
        assert re.fullmatch(r"[^:@/#{}%&+*<>?]+", one["name"])
        for made, rule in zip(one["properties"]["rules"], group["rules"], strict=True):
            assert (made["alert"], made["expression"]) == (rule["alert"], rule["expr"])
            assert made["for"] == f"PT{minutes(rule['for'])}M"
            assert made["severity"] == {"critical": 0, "warning": 2}[rule["labels"]["severity"]]
            assert made["annotations"] == rule["annotations"]
    text = json.dumps(arm)
    assert set(re.findall(r"parameters\('(\w+)'\)", text)) == set(arm["parameters"])


def test_azure_is_sent_nothing_that_it_refuses_or_evaluates(tmp_path: Path) -> None:
    """More than 20 rules in a group, a severity that it has no number for, and a text that looks like an expression."""
    rule = {"alert": "A", "expr": "up == 0", "for": "5m", "labels": {"severity": "warning"}, "annotations": {}}

    def made(*rules: dict[str, Any]) -> dict[str, Any]:
        source = tmp_path / "rules.yaml"
        source.write_text(yaml.safe_dump({"spec": {"groups": [{"name": "g", "rules": list(rules)}]}}))
        whole: dict[str, Any] = json.loads(azure_alerts.template(source))
        return whole

    (group,) = made(rule | {"annotations": {"summary": "[a] b"}})["resources"]
    assert group["properties"]["rules"][0]["annotations"]["summary"] == "[[a] b"
    made(*[rule] * 20)
    with pytest.raises(ValueError, match="more than 20 rules"):
        made(*[rule] * 21)
    with pytest.raises(ValueError, match="has the severity 'page'"):
        made(rule | {"labels": {"severity": "page"}})
