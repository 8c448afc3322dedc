"""MLflow's model registry: one registered model for each fleet, whose alias ``champion`` follows the verdicts.

Releases are the truth about what is served and which model is the champion. The registry is a mirror for those who look
there, and nothing in this repository reads it back.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from closedloop.data.schema import DataError
from model.common import cli, decisions, tracking

ALIAS = "champion"


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
        client, name = mlflow.MlflowClient(), mlflow.get_experiment(run.info.experiment_id).name
        version = _version(mlflow, run, name)
        if str(client.get_registered_model(name).aliases.get(ALIAS)) == version:  # a number in some stores
            return f"nothing to do: models:/{name}@{ALIAS} is version {version}, of run {run.info.run_id}"
        client.set_registered_model_alias(name, ALIAS, version)
        return f"models:/{name}@{ALIAS} is now version {version}, of run {run.info.run_id} ({decision['verdict']})"


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

    Raises:
        DataError: the run recorded no model.
    """
    client = mlflow.MlflowClient()
    known = [one for one in client.search_model_versions(f"run_id = '{run.info.run_id}'") if one.name == name]
    if known:
        return str(known[0].version)
    if not run.outputs or not run.outputs.model_outputs:
        raise DataError(f"run {run.info.run_id} recorded no model; record it again: python -m model.evaluate")
    if not [one for one in client.search_registered_models() if one.name == name]:
        client.create_registered_model(name)
    source = f"models:/{run.outputs.model_outputs[0].model_id}"
    return str(client.create_model_version(name, source, run.info.run_id).version)
