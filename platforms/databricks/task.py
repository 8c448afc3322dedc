"""What the jobs of Databricks run: ``task.py train``, ``task.py register`` and ``task.py batch``.

train moves the pin to the newest versions of its tables, validates them, and trains by the engine of model/params.yaml:
the commands of every other run. <work>/handed/<run> gets the proposed pin, the bundle and handed.json, with a digest of
every file. That file comes last: without it nothing was handed over. Nothing is judged here, and nothing is deployed;
`make databricks` in a workflow fetches it all.

register makes the bundle that was handed over a version of a model in Unity Catalog, for people to look at. It moves no
alias: the releases on GitHub say which model is served.

batch scores a folder of tables with the bundle of a release, whose digest the release states, into a table of Unity
Catalog.

One file, since the runtime promises no import of a file beside it. The commands run in this process, which has the
cluster's Spark session.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

PARTS = ("model", "src", "requirements")  # of the repository: what decides a model
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
LEVELS = 3  # of a name in Unity Catalog
HANDED, FORMAT = "handed.json", 1
TAGS = ("commit", "run", "model_digest", "bundle_digest")  # of handed.json, at a version of the model


class TaskError(Exception):
    """The task cannot go on; the message is one line that says what is wrong and what to do."""


def train(root: str, work: str, run: str, commit: str) -> None:
    """Train on the pinned data as it is now, and hand bundle and pin over."""
    own = workplace(Path(root), Path(work), run)
    os.environ["SOURCE_COMMIT"] = commit  # the workspace has the commit's files, and no git
    engine = re.search(r"^engine: *(\w+)", (own / "model/params.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    if engine is None or engine[1] != "spark":
        print("model/params.yaml says no engine: spark, so the driver alone trains, and the executors wait")
    command("data_pin")
    command("validate", "--pin")
    command("train", "--quick")
    out = Path(work) / "handed" / run
    shutil.rmtree(out, ignore_errors=True)
    copy(own / "build/bundle", out / "bundle")
    shutil.copyfile(own / "model/data.lock.json", out / "data.lock.json")
    said = handed(out, commit, run)
    (out / HANDED).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"handed over {out}: {said['model_digest']}")
    shutil.rmtree(own, ignore_errors=True)


def handed(out: Path, commit: str, run: str) -> dict[str, Any]:
    """Return what handed.json says of the files in ``out``."""
    manifest = json.loads((out / "bundle/manifest.json").read_text(encoding="utf-8"))
    files = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files[path.relative_to(out).as_posix()] = about
    digests = {name: manifest[name] for name in ("model_digest", "bundle_digest")}
    return {"format": FORMAT, "commit": commit, "run": run, **digests, "files": files}


def register(handed: str, model: str, experiment: str) -> None:
    """Register a bundle that was handed over; a second try finds the version that the first one made."""
    three_levels("model", model)
    folder = Path(handed)
    said = json.loads((folder / HANDED).read_text(encoding="utf-8"))
    tags = {name: str(said[name]) for name in TAGS} | {"verdict": "not judged: the pull request's checks judge it"}

    import mlflow  # takes two seconds

    from closedloop.data.schema import Schema

    tracking = importlib.import_module("model.common.tracking")  # a copy without MLflow has none

    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI", "databricks-uc"))
    client = mlflow.MlflowClient()
    for one in client.search_model_versions(f"name='{model}'"):
        if client.get_model_version(model, one.version).tags.get("bundle_digest") == said["bundle_digest"]:
            print(f"nothing to do: {model} version {one.version} is this bundle")
            return
    manifest = json.loads((folder / "bundle/manifest.json").read_text(encoding="utf-8"))
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=f"run {run_of(said['run'])}", tags=tags):
        made = tracking.log_model(mlflow, Schema.from_dict(manifest["schema"]), folder / "bundle")
    version = mlflow.register_model(made.model_uri, model, tags=tags)
    print(f"{model} version {version.version} is {said['model_digest']}")


def batch(root: str, work: str, run: str, tables: str, bundle: str, bundle_digest: str, table: str) -> None:
    """Score tables with a released bundle, and replace the table of answers whole."""
    three_levels("table", table)
    manifest = Path(bundle).resolve() / "manifest.json"
    if not manifest.is_file():
        raise TaskError(f"--bundle {bundle}: there is no bundle; put that of a release there")
    found = json.loads(manifest.read_text(encoding="utf-8")).get("bundle_digest")
    if found != bundle_digest:
        raise TaskError(f"--bundle {bundle}: it is {found}, and the release states {bundle_digest}; fetch it again")
    data = Path(tables).resolve()
    own = workplace(Path(root), Path(work), run)
    out = own / "build/answers.parquet"
    words = {"--data": data, "--bundle": manifest.parent, "--out": out, "--engine": "spark"}
    command("batch", *(str(word) for pair in words.items() for word in pair))
    from pyspark.sql import SparkSession  # the cluster's

    session: Any = SparkSession.builder.getOrCreate()
    session.read.parquet(str(out)).write.mode("overwrite").saveAsTable(table)
    print(f"wrote {table}")
    shutil.rmtree(own, ignore_errors=True)


def three_levels(what: str, name: str) -> None:
    """Check a name of Unity Catalog.

    Raises:
        TaskError: it has other levels than catalog, schema and its own.
    """
    if len([level for level in name.split(".") if level]) != LEVELS:
        raise TaskError(f"--{what} {name}: write catalog.schema.{what}")


def run_of(run: str) -> str:
    """Return the id of a run, which is the name of a folder too.

    Raises:
        TaskError: it is no such name.
    """
    if not NAME.fullmatch(run):
        raise TaskError(f"--run {run!r} is no name of a folder; the job passes {{{{job.run_id}}}}")
    return run


def workplace(root: Path, work: Path, run: str) -> Path:
    """Make a folder of this run's own that has the commit's files, and go there; executors see the same folder.

    What an earlier try of the run left there is removed.

    Raises:
        TaskError: the commit's files are not at ``root``.
    """
    own = work / "runs" / run_of(run)
    if lost := [name for name in PARTS if not (root / name).is_dir()]:
        raise TaskError(f"--root {root}: there is no {lost[0]}/; deploy again: databricks bundle deploy")
    shutil.rmtree(own, ignore_errors=True)
    for name in PARTS:
        copy(root / name, own / name)
    os.chdir(own)
    sys.path[:0] = [str(own / "src"), str(own)]  # before the wheel, which executors have
    os.environ["SPARK_SCRATCH"] = str(own / "build/spark")
    return own


def copy(folder: Path, to: Path) -> None:
    """Copy the files of a folder without their modes and times, which a volume does not let anyone set."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        target = to / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def command(name: str, *words: str) -> None:
    """Run ``python -m model.<name>`` in this process.

    Raises:
        TaskError: the command refused the data or the model, or failed.
    """
    before, sys.argv = sys.argv, [name, *words]
    try:
        runpy.run_module(f"model.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise TaskError(f"model.{name} ended with {ended.code}; its last lines above say why") from None
    finally:
        sys.argv = before


TASKS: dict[str, tuple[Any, tuple[str, ...]]] = {  # the function of each task, and its flags, each of which is needed
    "train": (train, ("root", "work", "run", "commit")),
    "register": (register, ("handed", "model", "experiment")),
    "batch": (batch, ("root", "work", "run", "tables", "bundle", "bundle-digest", "table")),
}


def value(text: str) -> str:
    """Return the value of a flag.

    Raises:
        ArgumentTypeError: it is empty, or text that the job should have filled in.
    """
    if not text or "{{" in text or "${" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no value; the job must set it: see resources/jobs.yml")
    return text


def main(words: list[str]) -> None:
    """Run one task. A job takes any exception for a failure, so the exit code is 1 for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, (_, flags) in TASKS.items():
        own = tasks.add_parser(name)
        for flag in flags:
            own.add_argument(f"--{flag}", type=value, required=True)
    given = vars(parser.parse_args(words))
    try:
        TASKS[given.pop("task")][0](**given)
    except TaskError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
