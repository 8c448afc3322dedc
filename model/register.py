"""Mirror a run's verdict in MLflow's registry: register its model, and move the alias champion to it.

Never against the verdict: only a model that becomes the reference (first, better, or accepted by a person) moves the
alias. Releases are the truth about what is served and what is the reference; the registry follows them, for those who
look there, and nothing here reads it back.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from closedloop.data.schema import DataError
from model.common import cli, tracking

ALIAS = "champion"


def chosen(mlflow: ModuleType, wanted: str, out: Path) -> Any:
    """The run that was asked for, or else the newest of the inputs that were judged last here.

    Raises:
        DataError: there is none.
    """
    if wanted:
        return tracking.find(mlflow, wanted)
    decision = cli.read_json(out / tracking.DECISION, "run: make run")
    query = f"tags.inputs_digest = '{decision['inputs_digest']}'"
    runs = mlflow.search_runs(search_all_experiments=True, filter_string=query, max_results=1, output_format="list")
    if not runs:
        raise DataError(f"no recorded run has the inputs of {out / tracking.DECISION}; run: python -m model.evaluate")
    return runs[0]


def register(mlflow: ModuleType, run: Any, name: str) -> str:
    """The version of the run's model in the registry; made only where there is none yet.

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


def main(words: list[str]) -> None:
    """Register the model and move the alias, or say why not."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder of the last decision, and of mlflow.db")
    flags.add_argument("--run", default="", metavar="ID", help="id of a run, or how it begins (default: the last)")
    args = flags.parse_args(words)
    with tracking.store(args.out, reading=True) as mlflow:
        run = chosen(mlflow, args.run, args.out)
        decision = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{tracking.DECISION}")
        if decision["verdict"] == "identical":
            print(f"nothing to do: run {run.info.run_id} is identical to what is there")
            return
        if not decision["becomes_reference"]:
            raise cli.RefusedError(
                f"run {run.info.run_id} is {decision['verdict']}, and only a model that is first, better or accepted "
                f"becomes the {ALIAS}. {decision['reason']}"
            )
        client, name = mlflow.MlflowClient(), mlflow.get_experiment(run.info.experiment_id).name
        version = register(mlflow, run, name)
        if str(client.get_registered_model(name).aliases.get(ALIAS)) == version:  # a number in some stores
            print(f"nothing to do: models:/{name}@{ALIAS} is version {version}, of run {run.info.run_id}")
            return
        client.set_registered_model_alias(name, ALIAS, version)
        print(f"models:/{name}@{ALIAS} is now version {version}, of run {run.info.run_id} ({decision['verdict']})")


if __name__ == "__main__":
    cli.main(main)
