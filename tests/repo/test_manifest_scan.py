"""Checkov's and kube-score's rules of the manifests: nothing is found in any rendering, and what is left out says why.

Checkov runs in the environment of requirements/checkov.txt, once over every different object, and asks nobody outside.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import manifests

Object = dict[str, Any]
PLANTED = "planted.yaml"
# What checkov must say of the workload of `broken`.
MISTAKES = {
    "CKV_K8S_8": "no livenessProbe",
    "CKV_K8S_9": "no readinessProbe",
    "CKV_K8S_11": "no limit of CPUs",
    "CKV_K8S_13": "no limit of memory",
    "CKV_K8S_14": "the latest image",
    "CKV_K8S_16": "privileged",
    "CKV_K8S_17": "the host's processes",
    "CKV_K8S_19": "the host's network",
    "CKV_K8S_20": "more rights by sudo",
    "CKV_K8S_22": "a writable root",
    "CKV_K8S_27": "the socket of the container engine",
    "CKV_K8S_28": "every capability kept",
    "CKV_K8S_31": "no seccomp",
    "CKV_K8S_35": "a secret in the environment",
    "CKV_K8S_38": "a mounted token",
    "CKV_K8S_40": "a user of the host",
    "CKV_K8S_42": "cluster-admin for the default account",
    "CKV_K8S_43": "no digest",
}


@pytest.fixture(scope="module")
def different() -> dict[str, list[Object]]:
    """Every object of the renderings, once: in the first rendering that has it."""
    if manifests.renderer() is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    seen: set[str] = set()
    found: dict[str, list[Object]] = {}
    for name, text in manifests.checked().items():
        fresh = [one for one in yaml.safe_load_all(text) if repr(one) not in seen]
        seen |= {repr(one) for one in fresh}
        if fresh:
            found[f"{name}.yaml"] = fresh
    return found


def broken(objects: list[Object]) -> list[Object]:
    """The workload of the service with every mistake of the table."""
    one = copy.deepcopy(next(one for one in objects if one["kind"] == "StatefulSet"))
    spec = one["spec"]["template"]["spec"]
    box = spec["containers"][0]
    for key in ("livenessProbe", "readinessProbe", "resources"):
        box.pop(key)
    box["image"] = "closedloop:latest"
    box["env"] = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]
    box["securityContext"] = {"privileged": True, "allowPrivilegeEscalation": True, "readOnlyRootFilesystem": False}
    spec |= {"hostPID": True, "hostNetwork": True, "securityContext": {"runAsUser": 0}}
    spec["automountServiceAccountToken"] = True
    spec["volumes"] = [{"name": "engine", "hostPath": {"path": "/var/run/docker.sock"}}]
    right = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "closedloop"}],
    }
    return [one, right]


@pytest.fixture(scope="module")
def found(
    different: dict[str, list[Object]], locked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What checkov says of all of them, and of planted mistakes beside them: failed and skipped checks."""
    checkov = locked("checkov").with_name("checkov")
    folder = tmp_path_factory.mktemp("renderings")
    for name, objects in {**different, PLANTED: broken(different["production.yaml"])}.items():
        (folder / name).write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    words = ["--directory", folder, "--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run([checkov, *words], capture_output=True, text=True, timeout=300, check=False)
    said = json.loads(done.stdout)
    assert said["summary"]["parsing_errors"] == 0
    assert said["summary"]["passed"] > 1000  # it has looked at them
    results: dict[str, list[dict[str, Any]]] = said["results"]
    return results


def lines(checks: list[dict[str, Any]], planted: bool) -> list[str]:
    """A line for each check, of the planted objects or of the others."""
    return [
        f"{one['check_id']} {one['file_path'].lstrip('/')}: {one['resource']}: {one['check_name']}"
        for one in checks
        if (one["file_path"].lstrip("/") == PLANTED) == planted
    ]


def test_checkov_finds_nothing_in_any_rendering(found: dict[str, list[dict[str, Any]]]) -> None:
    assert lines(found["failed_checks"], planted=False) == []
    unsaid = [one for one in found["skipped_checks"] if len(one["check_result"].get("suppress_comment", "")) < 20]
    assert lines(unsaid, planted=False) == []


def test_checkov_finds_every_planted_mistake(found: dict[str, list[dict[str, Any]]]) -> None:
    said = {line.split()[0] for line in lines(found["failed_checks"], planted=True)}
    assert set(MISTAKES) - said == set()


@pytest.mark.skipif(shutil.which("kube-score") is None, reason="kube-score is not on PATH")
def test_kube_score_is_red_for_a_mistake(
    different: dict[str, list[Object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(manifests.checked()["production"], encoding="utf-8")
    bad.write_text(yaml.safe_dump_all(broken(different["production.yaml"])), encoding="utf-8")
    assert manifests.validate([good])
    assert not manifests.validate([good, bad])
    assert "bad.yaml" in capsys.readouterr().out


def test_what_kube_score_is_told_to_leave_out_has_its_reason(root: Path) -> None:
    """Its annotation has no room for one, so a comment stands above."""
    files = [path for path in (root / "k8s").rglob("*.yaml") if "kube-score/ignore" in path.read_text(encoding="utf-8")]
    assert files
    for path in files:
        before = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "kube-score/ignore" not in line or before.lstrip().startswith("# "), path
            before = line
