"""The files of platforms/databricks: read by Databricks' own library, and every cluster's life has a bound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import rules

FOLDER = Path(__file__).resolve().parents[2] / "platforms/databricks"
FILES = ("databricks.yml", "resources/jobs.yml", "resources/unity_catalog.yml")
TEXTS = {name: (FOLDER / name).read_text(encoding="utf-8") for name in FILES}
POLICY = json.loads((FOLDER / "policy.json").read_text(encoding="utf-8"))


def faults(texts: dict[str, str]) -> Iterator[str]:
    """What is wrong with the files, by our rules."""
    project, jobs, catalog = (yaml.safe_load(texts[name]) for name in FILES)
    yield from rules.faults_of_project(FOLDER, project)
    resources = {**jobs["resources"], **catalog["resources"]}
    for name, job in resources["jobs"].items():
        yield from rules.faults_of_job(name, job, FOLDER, POLICY, project["variables"])
    for text in texts.values():
        yield from rules.unknown_references(text, project, resources)
    for name, cluster in resources.get("clusters", {}).items():
        if not 10 <= cluster.get("autotermination_minutes", 0) <= 60:
            yield f"{name}: a cluster for people ends only when somebody ends it"


def refused_by_library(texts: dict[str, str]) -> str:
    """What Databricks' own library says of the resources: it refuses a field that is unknown or of another type."""
    from databricks.bundles import experiments, jobs, registered_models, schemas, volumes

    kinds = {
        "jobs": jobs.Job,
        "schemas": schemas.Schema,
        "volumes": volumes.Volume,
        "registered_models": registered_models.RegisteredModel,
        "experiments": experiments.MlflowExperiment,
    }
    try:
        for name in FILES[1:]:
            for kind, made in yaml.safe_load(texts[name])["resources"].items():
                for one in made.values():
                    kinds[kind].from_dict(one)
    except Exception as error:  # noqa: BLE001 - whatever it raises is a refusal
        return f"{type(error).__name__}: {error}"
    return ""


def test_our_files_keep_every_rule() -> None:
    assert [*faults(TEXTS)] == []


def test_databricks_own_library_reads_every_resource() -> None:
    pytest.importorskip("databricks.bundles", reason="databricks-bundles is not installed (make databricks-test)")
    assert refused_by_library(TEXTS) == ""


def test_every_cluster_has_a_bound_on_its_life() -> None:
    jobs: dict[str, Any] = yaml.safe_load(TEXTS["resources/jobs.yml"])["resources"]["jobs"]
    bounds = {name: job["timeout_seconds"] for name, job in jobs.items()}
    assert {"train": 14400, "batch": 7200, "train_serverless": 14400, "batch_serverless": 7200} == bounds
    kinds = {name: "job_clusters" in job for name, job in jobs.items()}
    assert {name: not name.endswith("serverless") for name in jobs} == kinds


SLIPS = [  # each: where, what stands there, what a slip makes of it, and what says so ("library" or our words)
    ("jobs", "timeout_seconds: 14400", "timeout_second: 14400", "library"),
    ("jobs", "max_workers: ${var", "max_worker: ${var", "library"),
    ("jobs", "spark_version:", "spark_verison:", "library"),
    ("jobs", "data_security_mode: SINGLE_USER", "data_security_mode: SINGLE_USR", "library"),
    ("jobs", "python_file: ../task.py", "python_files: ../task.py", "library"),
    ("jobs", "performance_target: STANDARD", "performance_target: FAST", "library"),
    ("jobs", "environment_version:", "environment_versions:", "library"),
    ("jobs", "depends_on:", "depend_on:", "library"),
    ("unity_catalog", "catalog_name: ${var.catalog}", "catalog: ${var.catalog}", "library"),
    ("unity_catalog", "volume_type: MANAGED", "volume_type: MANGED", "library"),
    ("jobs", "      timeout_seconds: 14400\n", "", "nothing bounds the life of its clusters"),
    ("jobs", "timeout_seconds: 14400", "timeout_seconds: 0", "nothing bounds the life of its clusters"),
    ("jobs", "timeout_seconds: 14400", "timeout_seconds: 999999", "nothing bounds the life of its clusters"),
    ("jobs", "max_retries: 1", "max_retries: -1", "max_retries is -1"),
    (
        "jobs",
        "job_cluster_key: growing\n          max_retries",
        "existing_cluster_id: x\n          max_retries",
        "outlives",
    ),
    ("jobs", "autoscale:\n              min_workers: 1", "num_workers: 8\n            x:", "it does not scale"),
    ("jobs", "max_workers: ${var.max_workers}", "max_workers: 400", "the policy bounds autoscale.max_workers"),
    ("jobs", "python_file: ../task.py", "python_file: ../deploy.py", "../deploy.py is nowhere"),
    ("jobs", "              - register\n", "              - deploy\n", "task.py deploy takes []"),
    (
        "jobs",
        "--commit={{job.parameters.commit}}",
        "--commit={{job.parameters.comit}}",
        "the job has no parameter comit",
    ),
    ("jobs", "- --root=${workspace.file_path}", "- --rot=${workspace.file_path}", "task.py train takes"),
    ("jobs", "${var.catalog}.${var.schema}.answers", "${var.schema}.answers", "a name has three levels"),
    ("jobs", "requirements/train.txt", "requirements/trian.txt", "trian.txt is nowhere"),
    ("jobs", "-r ../../../requirements/serverless.txt", "-r ../../../requirements/train.txt", "pip refuses train.txt"),
    ("jobs", "${var.runtime}", "${var.runtme}", "there is no variable runtme"),
    ("jobs", "${resources.experiments.runs.name}", "${resources.experiments.run.name}", "there is no experiments.run"),
    ("databricks", "mode: production", "mode: development", "production is not of mode production"),
    ("databricks", "  - resources/*.yml", "  - resource/*.yml", "include: resource/*.yml is nowhere"),
    ("databricks", "variables:", "variable:", "databricks.yml has no field variable"),
    ("databricks", "make build/wheel/.built", "make wheel", "no target of the Makefile is wheel"),
]


@pytest.mark.parametrize(("name", "good", "bad", "said"), SLIPS)
def test_a_planted_slip_is_refused(name: str, good: str, bad: str, said: str) -> None:
    path = "databricks.yml" if name == "databricks" else f"resources/{name}.yml"
    assert good in TEXTS[path]
    texts = TEXTS | {path: TEXTS[path].replace(good, bad, 1)}
    if said == "library":
        pytest.importorskip("databricks.bundles", reason="databricks-bundles is not installed (make databricks-test)")
        assert re.search(r"ValueError|TypeError", refused_by_library(texts))
        return
    try:
        found = [*faults(texts)]
    except KeyError as error:
        found = [f"databricks.yml has no field {bad.rstrip(':')}"] if error.args == (good.rstrip(":"),) else []
    assert [one for one in found if said in one], found
