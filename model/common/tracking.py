"""The record of a run in MLflow: parameters, figures, tables, verdict, report, bundle and model.

MLflow's store is the one that ``MLFLOW_TRACKING_URI`` names, else ``build/mlflow.db``, which needs no network.
"""

from __future__ import annotations

import json
import os
import platform
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import yaml

from closedloop.data.request import openapi
from closedloop.data.schema import DataError, Schema
from model.common import changes, cli, closing, provenance

MODEL = "model"  # the name of a run's model, and of its folder where the server keeps it with the run
# Names of artifacts: a copy of the file, the verdict, the names of the features, the changes since the commit.
PARAMS, DECISION, FEATURES, DIFF = "params.yaml", "decision.json", "features.txt", "changes.diff"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # so that a server that is down is reported in seconds, not in minutes
}
SHOWN = 10  # runs in a message
LONGEST_KEY = 250  # characters of a parameter's or figure's name that MLflow accepts
DIGEST_LENGTH = 36  # characters that MLflow stores of a data set's digest; the tag "fingerprint" holds all


@contextmanager
def store(out: Path, reading: bool = False) -> Iterator[ModuleType]:
    """Yield MLflow, set to this project's store. It is imported only here, since that takes two seconds.

    Raises:
        DataError: the store cannot be reached or refuses a call; or, for ``reading``, there is no store yet.
    """
    server, database = os.environ.get("MLFLOW_TRACKING_URI"), (out / "mlflow.db").resolve()
    if reading and not server and not database.exists():
        raise DataError(f"{out / 'mlflow.db'} is missing, so no run is recorded yet; run: make run")
    for name, value in QUIET.items():  # read when mlflow loads
        os.environ.setdefault(name, value)
    import mlflow

    try:
        mlflow.set_tracking_uri(server or f"sqlite:///{database}")
        yield mlflow
    except mlflow.exceptions.MlflowException as error:
        where = f"MLFLOW_TRACKING_URI={server}" if server else str(database)
        raise DataError(f"MLflow ({where}): {' '.join(str(error).split())}") from error
    finally:
        if not server:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets it, which would look like a person's choice


def find(mlflow: ModuleType, wanted: str) -> Any:
    """Return the run whose id begins with ``wanted``.

    Raises:
        DataError: no run's id does, or more than one; the message lists runs to choose from, the newest first.
    """
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    if not runs:
        raise DataError("no run is recorded yet; run: make run")
    found = [run for run in runs if run.info.run_id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    shown = [f"{run.info.run_id} ({run.data.tags.get('verdict', 'not judged')})" for run in (found or runs)[:SHOWN]]
    problem = f"{len(found)} runs have an id that begins" if found else "no run has an id that begins"
    raise DataError(f"{problem} with {wanted!r}; choose among {', '.join(shown)}")


def log(
    params: Path,
    bundle: Path,
    data: dict[str, Any],
    metrics: dict[str, Any],
    decision: dict[str, Any],
    out: Path,
    *,
    quick: bool = False,
) -> str:
    """Record a run and return its id.

    Args:
        params: the parameter file that was used.
        bundle: the folder of the bundle.
        data: content of ``build/data/data.json``.
        metrics: content of ``metrics.json``.
        decision: content of ``decision.json``.
        out: the folder with these two files and ``report/``.
        quick: whether ablations and importance were left out.
    """
    text = params.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    changed = changes.of_params(content)
    artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (out / "mlartifacts").resolve().as_uri()
    with store(out) as mlflow:
        experiment = mlflow.get_experiment_by_name(data["source"])
        if experiment is None:
            experiment = mlflow.get_experiment(mlflow.create_experiment(data["source"], artifact_location=artifacts))
        with mlflow.start_run(
            experiment_id=experiment.experiment_id, run_name=changes.name(content, changed, decision["verdict"])
        ) as run:
            about = {"fingerprint": data["fingerprint"], "quick": str(quick).lower()}
            mlflow.set_tags(about | _tags(metrics, decision, changed))
            values = changes.flat(content)
            mlflow.log_params({name: str(values[key])[:6000] for key, name in accepted(values).items()})
            mlflow.log_text(text, PARAMS)
            _log_changes(mlflow, bundle)
            saved = (decision.get("delta") or {}).get("cost_per_machine_year") or {}
            figures = changes.flat(metrics | {"saved_per_machine_year": saved})
            numbers = {key: float(value) for key, value in figures.items() if isinstance(value, int | float)}
            mlflow.log_metrics({name: numbers[key] for key, name in accepted(numbers).items()})
            _log_datasets(mlflow, data)
            for name in ("metrics.json", DECISION):
                mlflow.log_artifact(str(out / name))
            mlflow.log_artifacts(str(out / "report"), "report")
            mlflow.log_artifacts(str(bundle), "bundle")
            log_model(mlflow, Schema.from_dict(data["schema"]), bundle)
            return str(run.info.run_id)


def accepted(keys: Iterable[str]) -> dict[str, str]:
    """Return for each key a name that MLflow accepts: the key itself where it can be, and no name twice.

    A key holds names of sensors and components, which may have any characters; MLflow refuses brackets, %, ° and more.
    """
    found: dict[str, str] = {}
    for key in keys:
        name = re.sub(r"[^\w./: -]", "_", key)
        if posixpath.normpath(name) != name or name.startswith(("/", ".")):  # MLflow takes a name for a path
            name = re.sub(r"^\.+|/", "_", name)
        tail, count = "", 1
        while (name[: LONGEST_KEY - len(tail)] + tail) in found.values():
            count += 1
            tail = f" {count}"
        found[key] = name[: LONGEST_KEY - len(tail)] + tail
    return found


def _tags(metrics: dict[str, Any], decision: dict[str, Any], changed: Iterable[str]) -> dict[str, str]:
    """Return what tells a run from others in a list of runs."""
    return {
        "mlflow.source.git.commit": provenance.commit(),
        "verdict": decision["verdict"],
        "inputs_digest": decision["inputs_digest"],
        "figures": closing.headline(metrics),
        "changed_parameters": ", ".join(changed)[:5000] or "none",
        "mlflow.note.content": f"{closing.headline(metrics)}\n\n{decision['reason']}",
    }


def _log_changes(mlflow: ModuleType, bundle: Path) -> None:
    """Record the names of the features, and what differs from the commit, as a tag and the diff itself."""
    names = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["features"]["names"]
    mlflow.log_text("".join(f"{name}\n" for name in names), FEATURES)
    mlflow.set_tags({"features": str(len(names)), "changed_files": changes.said(changes.files())})
    if diff := changes.diff():
        mlflow.log_text(diff, DIFF)


def _log_datasets(mlflow: ModuleType, data: dict[str, Any]) -> None:
    """Record which tables trained and which judged, by the parts of the pin and a digest; the tables are not copied."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = CodeDatasetSource({"parts": json.dumps(data["parts"])})
    columns = _signature(Schema.from_dict(data["schema"])).inputs
    for context, key in (("training", "fingerprint"), ("holdout", "holdout_fingerprint")):
        digest = data[key].removeprefix("sha256:")[:DIGEST_LENGTH]
        tables = MetaDataset(source, f"{data['source']} {context}", digest, columns)  # type: ignore[abstract]  # not so
        try:
            mlflow.log_input(tables, context=context)
        except mlflow.exceptions.MlflowException as error:  # the tags hold the fingerprint of all tables
            cli.say(f"the server keeps no data sets ({_line(error)}); the tag `fingerprint` names them")
            return


def _signature(schema: Schema) -> Any:
    """Return the signature of ``mlflow_model``: every column of every table that it reads, and what it answers.

    Readings have any type, since MLflow would refuse a column of whole numbers or of nulls, and a request may hold one.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Object, Property, TensorSpec
    from mlflow.types.schema import Schema as Columns

    any_type = AnyType()  # type: ignore[no-untyped-call]
    kinds = {"string": DataType.string, "integer": DataType.long}
    request = openapi(schema)
    inputs: list[ColSpec | TensorSpec] = []
    for name, table in request["properties"].items():
        columns = {
            column: Array(kinds.get(_first(values["items"]["type"]), any_type))
            for column, values in table["properties"].items()
        }
        properties = [Property(column, kind, required=column in table["required"]) for column, kind in columns.items()]
        inputs.append(ColSpec(Object(properties), name, required=name in request["required"]))
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string if schema.has_names else DataType.long, "machineID"),
        ColSpec(DataType.datetime, "datetime"),
        ColSpec(DataType.double, "history_hours"),
    ]
    for head in ("anomaly", *schema.components):
        outputs += [ColSpec(DataType.double, head), ColSpec(DataType.boolean, f"{head}_alarm")]
    return ModelSignature(Columns(inputs), Columns(outputs))


def _first(kind: str | list[str]) -> str:
    """Return the JSON type that a value has where several are taken."""
    return kind if isinstance(kind, str) else kind[0]


def log_model(mlflow: ModuleType, schema: Schema, bundle: Path) -> Any:
    """Log the bundle as a model, with its code and its locked libraries; return what MLflow says of it.

    A server that knows no logged models (Azure ML's) gets the same files as the folder ``model`` of its artifacts.
    """
    locks = provenance.ROOT.glob("requirements/serve.txt")  # a wheel has none
    lines = [line for lock in locks for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line]
    pins = [line.removesuffix(" \\") for line in lines]
    recent = [f"{name}=={version(name)}" for name in ("mlflow", "pandas")]
    content: dict[str, Any] = {
        "python_model": str(Path(__file__).with_name("mlflow_model.py")),
        "artifacts": {"bundle": str(bundle)},
        "code_paths": [str(provenance.LIBRARY)],
        "conda_env": {  # given whole, since MLflow would otherwise ask the installed pip, and uv installs none
            "channels": ["conda-forge"],
            "dependencies": [f"python={platform.python_version()}", "pip", {"pip": [*pins, *recent]}],
        },
        "signature": _signature(schema),
        "input_example": openapi(schema)["examples"][0],
    }
    if _knows_logged_models(mlflow):
        return mlflow.pyfunc.log_model(name=MODEL, **content)
    with TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(Path(folder) / MODEL, **content)
        mlflow.log_artifacts(str(Path(folder) / MODEL), MODEL)
    return None


def _knows_logged_models(mlflow: ModuleType) -> bool:
    """Whether the server keeps models apart from runs, which MLflow's own does since version 3.

    It has answered every call so far. So whatever it says to this one, other than an answer, means that it does not.
    """
    experiment = mlflow.active_run().info.experiment_id
    try:
        mlflow.MlflowClient().search_logged_models([experiment], max_results=1)
    except (mlflow.exceptions.MlflowException, RuntimeError) as error:  # an older plugin has no such call
        cli.say(f"the server keeps no models apart from runs ({_line(error)}); this one is kept with its run")
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
