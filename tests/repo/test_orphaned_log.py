"""The Job for the log on a volume whose replica is gone: like the service, bounded, and refused where it is wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import manifests, release

from .manifest_rules import Facts, Object, _of_pods, pod, selected_by, selector_of

STORES = ("local-log", "remote-log/azure", "remote-log/s3", "remote-log/gcs")


@pytest.fixture(scope="module")
def program(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("orphaned_log", root / "k8s/orphaned_log.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def service(*components: str) -> list[Object]:
    """The objects of ``local`` with components."""
    if manifests.renderer() is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    folder = manifests.K8S / "overlays/local"
    text = manifests.combined(folder, components) if components else manifests.render(folder)
    return list(yaml.safe_load_all(release.with_digest(text, manifests.IMAGE)))


def workload(objects: list[Object]) -> Object:
    return next(one for one in objects if one["kind"] == "StatefulSet")


@pytest.mark.parametrize("store", STORES)
def test_the_job_is_the_service_but_for_what_serves(program: Any, store: str) -> None:
    """It keeps every rule of a pod, no Service and no budget finds it, and the policies let it reach the store."""
    objects = service(store)
    made = program.job(workload(objects), "log-score-1") | {"kind": "Job"}
    made["metadata"]["name"] = "orphaned"
    facts = Facts(set(), (), set(), set(), set())
    assert list(_of_pods(made, [*objects, made], facts)) == []
    ours, theirs = pod(made), pod(workload(objects))
    assert ours is not None
    assert theirs is not None
    assert ours["spec"]["containers"][0]["env"] == theirs["spec"]["containers"][0]["env"]
    assert ours["spec"]["serviceAccountName"] == theirs["spec"]["serviceAccountName"]
    found = {
        one["kind"]
        for one in objects
        if one["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy") and selected_by(selector_of(one), [made])
    }
    assert found == {"NetworkPolicy"}
    spec = made["spec"]
    assert spec["activeDeadlineSeconds"] <= 3600
    assert spec["backoffLimit"] <= 2
    assert spec["ttlSecondsAfterFinished"] > 0
    assert ours["spec"]["volumes"] == [{"name": "log", "persistentVolumeClaim": {"claimName": "log-score-1"}}]


@pytest.mark.parametrize(
    ("components", "claim", "said"),
    [
        (("local-log",), "log-score-0", "score-0 uses log-score-0"),
        (("local-log",), "azurite", "is no claim of score: name one as log-score-2"),
        ((), "log-score-1", "has no LOG_SINK in a store"),
    ],
)
def test_a_wrong_claim_is_refused_in_one_line(root: Path, components: tuple[str, ...], claim: str, said: str) -> None:
    command = [sys.executable, root / "k8s/orphaned_log.py", claim]
    given = json.dumps(workload(service(*components)))
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert said in line
