"""The alert rules as Azure Monitor takes them: an ARM template of Prometheus rule groups, from their one source.

Azure's managed Prometheus reads no PrometheusRule of the cluster. ``manifests.py`` writes the template to
build/manifests/alerts-azure.json; k8s/components/monitoring/README.md says how to deploy it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

API = "2023-03-01"
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
MOST_RULES = 20  # of a group
SEVERITIES = {"critical": 0, "warning": 2}  # Azure's 1 is an error, 3 is information
MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
PARAMETERS = {
    "workspace": {"type": "string", "metadata": {"description": "resource id of the Azure Monitor workspace"}},
    "cluster": {"type": "string", "metadata": {"description": "name of the AKS cluster"}},
    "actionGroup": {
        "type": "string",
        "defaultValue": "",
        "metadata": {"description": "resource id of the action group that is told; empty: nobody is"},
    },
    "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
}
ACTIONS = (
    "[if(empty(parameters('actionGroup')), createArray(), "
    "createArray(createObject('actionGroupId', parameters('actionGroup'))))]"
)


def template(source: Path) -> str:
    """Return the ARM template of a PrometheusRule.

    Raises:
        ValueError: Azure would not take a group or a rule of it.
    """
    groups = yaml.safe_load(source.read_text(encoding="utf-8"))["spec"]["groups"]
    whole = {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": PARAMETERS,
        "resources": [_group(one) for one in groups],
    }
    return json.dumps(whole, indent=1) + "\n"


def _group(group: dict[str, Any]) -> dict[str, Any]:
    if len(group["rules"]) > MOST_RULES:
        raise ValueError(f"{group['name']} has more than {MOST_RULES} rules, which Azure refuses: split the group")
    return {
        "type": "Microsoft.AlertsManagement/prometheusRuleGroups",
        "apiVersion": API,
        "name": group["name"],
        "location": "[parameters('location')]",
        "properties": {
            "enabled": True,
            "interval": "PT1M",
            "scopes": ["[parameters('workspace')]"],
            "clusterName": "[parameters('cluster')]",
            "rules": [_rule(one) for one in group["rules"]],
        },
    }


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    severity = SEVERITIES.get(rule["labels"]["severity"])
    if severity is None:
        raise ValueError(f"{rule['alert']} has the severity {rule['labels']['severity']!r}: {' or '.join(SEVERITIES)}")
    return {
        "alert": rule["alert"],
        "expression": _literal(rule["expr"]),
        "for": f"PT{int(rule['for'][:-1]) * MINUTES[rule['for'][-1]]}M",
        "severity": severity,
        "enabled": True,
        "labels": {name: _literal(value) for name, value in rule["labels"].items()},
        "annotations": {name: _literal(value) for name, value in rule["annotations"].items()},
        "resolveConfiguration": {"autoResolved": True, "timeToResolve": "PT10M"},
        "actions": ACTIONS,
    }


def _literal(text: str) -> str:
    """Return a text that ARM does not evaluate."""
    return f"[{text}" if text.startswith("[") else text
