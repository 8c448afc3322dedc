"""MLflow's model registry: one registered model for each fleet, whose alias ``champion`` follows the verdicts.

The registry is the one that MLFLOW_REGISTRY_URI names, else that of the tracking server. MLFLOW_MODEL_NAME is the name
of the model there, else it is the fleet's. Unity Catalog takes names of three levels, ``catalog.schema.model``.

Releases are the truth about what is served and which model is the champion. The registry is a mirror for those who look
there, and nothing in this repository reads it back.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from closedloop.data.schema import DataError
from model.common import cli, decisions, tracking

ALIAS = "champion"
# What says nothing of whether a registry has aliases: who asks may not, or it is busy.
NO_ANSWER = (
    "PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED",
    "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_CONFLICT",
)  # fmt: skip


def register(run_id: str, out: Path) -> str:
    """Register the model of a run and move the alias to it, unless the run's verdict forbids that.

    Args:
        run_id: the run's id, or its first letters; empty for the newest run of the inputs that were judged last.
        out: the folder of the last decision and of ``mlflow.db``.

    Returns:
        What was done, for a person.

    Raises:
        DataError: there is no such run, or it recorded no model.
        RefusedError: the verdict does not make the model the champion.
    """
    with tracking.store(out, reading=True) as mlflow:
        run = _chosen(mlflow, run_id, out)
        decision = _decision(mlflow, run)
        if decision["verdict"] == "identical":
            same, made = _made_champion(mlflow, run)
            if same is None:
                return f"nothing to do: run {run.info.run_id} is identical to the champion"
            run, decision = same, made
        if not decision["becomes_champion"]:
            raise cli.RefusedError(
                f"run {run.info.run_id} is {decision['verdict']}; only a model that is first, better or accepted, and "
                f"that a commit can make again, becomes the champion. {decision['reason']}"
            )
        name = _name(mlflow, run)
        version = _version(mlflow, run, name)
        if _champion(mlflow, name) == version:
            return f"nothing to do: models:/{name}@{ALIAS} is version {version}, of run {run.info.run_id}"
        return f"{_point(mlflow, name, version)}, of run {run.info.run_id} ({decision['verdict']})"


def _name(mlflow: ModuleType, run: Any) -> str:
    """Return the model's name in the registry.

    Raises:
        DataError: Unity Catalog takes no such name.
    """
    fleet = str(mlflow.get_experiment(run.info.experiment_id).name).rpartition("/")[2]  # Databricks' have folders
    name = os.environ.get("MLFLOW_MODEL_NAME") or fleet
    where = mlflow.get_registry_uri()
    if str(where).startswith(("databricks-uc", "uc:")) and [bool(part) for part in name.split(".")] != [True] * 3:
        raise DataError(
            f"{where} takes names of three levels, and {name!r} is none; set MLFLOW_MODEL_NAME=catalog.schema.{fleet}"
        )
    return name


def _champion(mlflow: ModuleType, name: str) -> str:
    """Return the version that is the champion in the registry; empty where none is, or the registry has no aliases."""
    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(name, ALIAS).version)
    except mlflow.exceptions.MlflowException:  # no such alias, or no aliases at all: setting it will say
        return str(mlflow.MlflowClient().get_registered_model(name).tags.get(ALIAS, ""))


def _point(mlflow: ModuleType, name: str, version: str) -> str:
    """Make a version the champion; return what was done. A registry without aliases gets a tag of the model instead.

    One that refuses this alias, but has aliases, gets no tag beside it: the two would name different versions.
    """
    client = mlflow.MlflowClient()
    try:
        client.set_registered_model_alias(name, ALIAS, version)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code in NO_ANSWER or _has_alias(mlflow, name):
            raise
        client.set_registered_model_tag(name, ALIAS, version)  # raises where the registry refuses this too
        return f"the tag {ALIAS} of models:/{name} is now version {version} (the registry refuses aliases)"
    return f"models:/{name}@{ALIAS} is now version {version}"


def _has_alias(mlflow: ModuleType, name: str) -> bool:
    """Whether the alias names a version, so that the registry has aliases."""
    try:
        mlflow.MlflowClient().get_model_version_by_alias(name, ALIAS)
    except mlflow.exceptions.MlflowException:
        return False
    return True


def _chosen(mlflow: ModuleType, wanted: str, out: Path) -> Any:
    """Return the run that was asked for, else the newest run of the inputs that were judged last.

    Raises:
        DataError: there is no such run.
    """
    if wanted:
        return tracking.find(mlflow, wanted)
    decision = cli.read_json(out / tracking.DECISION, "run: make run")
    query = f"tags.inputs_digest = '{decision['inputs_digest']}'"
    runs = mlflow.search_runs(search_all_experiments=True, filter_string=query, max_results=1, output_format="list")
    if not runs:
        raise DataError(f"no recorded run has the inputs of {out / tracking.DECISION}; run: python -m model.evaluate")
    return runs[0]


def _decision(mlflow: ModuleType, run: Any) -> dict[str, Any]:
    """Return the decision of a run."""
    return decisions.with_todays_keys(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{tracking.DECISION}"))


def _made_champion(mlflow: ModuleType, run: Any) -> tuple[Any, dict[str, Any]]:
    """Return the newest run of the same inputs whose model became the champion, and its decision; None where none did.

    Such a run may never have been registered, and a later one of the same inputs is ``identical``.
    """
    query = f"tags.inputs_digest = '{run.data.tags['inputs_digest']}'"
    experiment = [run.info.experiment_id]
    for other in mlflow.search_runs(experiment_ids=experiment, filter_string=query, output_format="list"):
        if (decision := _decision(mlflow, other))["becomes_champion"]:
            return other, decision
    return None, {}


def _version(mlflow: ModuleType, run: Any, name: str) -> str:
    """Return the version of the run's model in the registry; it is made only where there is none yet.

    One whose registration was broken off has no files in some registries, so it does not count.

    Raises:
        DataError: the run recorded no model.
    """
    client = mlflow.MlflowClient()
    found = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    if known := [one for one in found if one.name == name and one.status == "READY"]:
        return str(known[0].version)
    source, model = _source(client, run)
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        try:
            client.create_registered_model(name)
        except mlflow.exceptions.MlflowException as second:
            if second.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):  # by another run, just now
                raise
    return str(client.create_model_version(name, source, run.info.run_id, model_id=model).version)


def _source(client: Any, run: Any) -> tuple[str, str | None]:
    """Return where the run's model is, and the id by which a server keeps it apart from the run, where it does so.

    Raises:
        DataError: the run recorded no model.
    """
    if run.outputs and run.outputs.model_outputs:
        model = run.outputs.model_outputs[0].model_id
        return f"models:/{model}", model
    if [one for one in client.list_artifacts(run.info.run_id) if one.path == tracking.MODEL]:
        return f"{run.info.artifact_uri}/{tracking.MODEL}", None
    raise DataError(f"run {run.info.run_id} recorded no model; record it again: python -m model.evaluate")
