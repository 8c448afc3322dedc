"""Search for better parameters on the training machines, and write them as an ordinary parameter file.

Trials are asked and told in batches of four, so that a number of trials gives the same file with any number of
processes, on Spark too, and after an interruption: build/automl/study.db keeps every trial, and the same command goes
on where it was. A budget of minutes ends when it ends, and promises nothing. The held-out machines are never read:
`make run PARAMS=build/automl/params.yaml` has the gate judge the file. Each trial is a run in MLflow.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from closedloop.data.schema import DataError, microseconds
from model.common import cli, params, searching, sweeping, tracking
from model.common.params import Params

BATCH = 4  # trials that are judged beside each other; another number would give other trials
FIRST = 8  # trials at random before the sampler learns from them
Judge = Callable[[list[searching.Job]], list[dict[str, Any]]]


def seed_of(seed: int, number: int) -> int:
    """The seed of one trial's sampler, so that a search that goes on draws as one that was never stopped."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4])


def batch_of(study: Any, asked: Params, seed: int, wanted: int) -> list[tuple[Any, dict[str, Any]]]:
    """The trials of the next batch with their points: those that an interruption left, then new ones."""
    import optuna

    begun = [trial for trial in study.trials if not trial.state.is_finished()]
    found = []
    done = len(study.trials) - len(begun)
    for k in range(min(BATCH - done % BATCH, wanted)):
        number = begun[k].number if k < len(begun) else len(study.trials)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed_of(seed, number), n_startup_trials=FIRST, constant_liar=True
        )
        trial = optuna.trial.Trial(study, begun[k]._trial_id) if k < len(begun) else study.ask()
        found.append((trial, searching.suggested(trial, asked)))
    return found


def cost(figures: Mapping[str, Any]) -> float:
    """What is minimised: the cost of a machine-year."""
    machines = figures["machines"]
    return float(sum(machines["cost"]) / sum(machines["years"]))


def search(
    study: Any,
    asked: Params,
    job: Callable[[dict[str, Any]], searching.Job],
    judge: Judge,
    seed: int,
    trials: int | None,
    until: float | None,
) -> None:
    """Ask and tell until the budget is spent: a number of trials, or a time of ``time.monotonic``."""
    from optuna.trial import TrialState

    while True:
        done = sum(trial.state.is_finished() for trial in study.trials)
        left = BATCH if trials is None else trials - done
        if left <= 0 or (until is not None and time.monotonic() >= until):
            return
        batch = batch_of(study, asked, seed, left)
        cli.say(f"trials {done + 1} to {done + len(batch)}" + (f" of {trials}" if trials else ""))
        for (trial, point), figures in zip(batch, judge([job(point) for _, point in batch]), strict=True):
            trial.set_user_attr("point", point)
            trial.set_user_attr("figures", figures)
            if "refused" in figures:
                cli.say(f"trial {trial.number} cannot be trained: {figures['refused']}")
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, cost(figures))


@contextmanager
def judging(engine: str, processes: int) -> Iterator[Judge]:
    """A function that judges the trials of one batch, in processes or one a row on Spark."""
    if engine == "spark":
        from closedloop.spark.fleet import computed, told
        from closedloop.spark.session import session

        spark = session()

        def on_spark(jobs: list[searching.Job]) -> list[dict[str, Any]]:
            import pyarrow as pa

            said = [{"path": str(job.path), "data": str(job.data), "point": job.point} for job in jobs]
            rows = pa.table({"number": list(range(len(jobs))), "job": [json.dumps(one) for one in said]})
            frame = spark.createDataFrame(rows).repartitionByRange(len(jobs), "number")
            with told():
                found = computed(frame, searching.run_batches, "number bigint, figures string").collect()
            return [json.loads(row.figures) for row in sorted(found, key=lambda row: row.number)]

        yield on_spark
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=searching.end_with_parent) as pool:
        try:
            yield lambda jobs: [*pool.map(searching.run, jobs)]
        except BrokenProcessPool as error:
            raise DataError(
                "a process that judged a trial was killed, most likely for its memory; run the same command again, "
                "which goes on, with fewer PROCESSES="
            ) from error


def written(path: Path, point: Mapping[str, Any], out: Path) -> None:
    """Write the parameter file with the values of a point; comments and order stay."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 1000, True
    content = yaml.load(path.read_text(encoding="utf-8-sig"))
    for key, value in point.items():
        *way, last = key.split(".")
        at = content
        for name in way:
            at = at[name]
        at[last] = value
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    params.load(out)


def judged(study: Any) -> list[Any]:
    """The trials with a value."""
    return [trial for trial in study.trials if trial.value is not None]


def record(study: Any, source: str, path: Path, saved: float | None, of_fleet: str) -> None:
    """Record the search in MLflow, with a nested run for each trial, whose parameters `make run RUN=` takes up."""
    with tracking.store(cli.BUILD) as mlflow:
        where = None if os.environ.get("MLFLOW_TRACKING_URI") else (cli.BUILD / "mlartifacts").resolve().as_uri()
        experiment = mlflow.get_experiment_by_name(f"{source} automl")
        if experiment is None:
            made = mlflow.create_experiment(f"{source} automl", artifact_location=where)
            experiment = mlflow.get_experiment(made)
        with mlflow.start_run(experiment_id=experiment.experiment_id, run_name=f"search {study.study_name[:12]}"):
            mlflow.set_tags({"study": study.study_name, "verdict": "a search, not judged"})
            mlflow.log_metric("saved_per_machine_year", saved or 0.0)
            for trial in judged(study):
                with mlflow.start_run(
                    experiment_id=experiment.experiment_id, nested=True, run_name=f"trial {trial.number}"
                ):
                    point = trial.user_attrs["point"]
                    mlflow.set_tag("verdict", "a trial, not judged")
                    mlflow.log_params({key: str(value)[:500] for key, value in point.items()})
                    mlflow.log_metric("cost_per_machine_year", trial.value)
                    copy = cli.BUILD / "automl" / "trial.yaml"
                    written(path, point | {"source": of_fleet}, copy)
                    mlflow.log_text(copy.read_text(encoding="utf-8"), tracking.PARAMS)
                    copy.unlink()


def main(words: list[str]) -> None:
    """Search, and write build/automl/params.yaml."""
    flags = cli.parser(__doc__, out=cli.BUILD / "automl", writes="folder of the study and of the file")
    budget = flags.add_mutually_exclusive_group(required=True)
    budget.add_argument("--trials", type=int, help="how many trials there are in all")
    budget.add_argument("--minutes", type=float, help="after how many minutes no further batch begins")
    flags.add_argument("--seed", type=int, help="of the search (default: seed: of the parameter file)")
    at_once = "trials that are judged at once (default: %(default)s)"
    flags.add_argument("--processes", type=int, default=min(BATCH, os.cpu_count() or 1), help=at_once)
    flags.add_argument("--engine", choices=("local", "spark"), default="local", help="processes, or executors of Spark")
    args = flags.parse_args(words)
    if find_spec("optuna") is None:
        raise DataError("optuna is not installed; run: make automl, which installs it")
    asked = params.load(args.params)
    if asked.engine != "local":
        raise DataError("automl trains its trials in one process each: leave engine: spark out, and say ENGINE=spark")
    budget_of = args.minutes if args.trials is None else args.trials
    if not 0 < budget_of < math.inf or args.processes < 1:
        raise DataError("automl: give a budget above 0 that ends, and at least one process")
    with alone(args.out):
        found = _found(asked, args)
    best = args.out / "params.yaml"
    # the name of the fleet decides which machines are held out, so the file has that of the fleet that was searched
    written(args.params, found["point"] | {"source": found["source"]}, best)
    print("\n".join(said(found)))
    for key, value in found["point"].items():
        print(f"  {key}: {json.dumps(value)}")
    data = "with the same DATA= or PROFILE= " if found["local"] else ""
    print(f"wrote {best}; make run PARAMS={best} {data}judges it on machines that the search has never seen")


def said(found: Mapping[str, Any]) -> list[str]:
    """What came of the search."""
    if not found["point"]:
        return [f"{found['trials']} trials, and nothing is better than the file as it is."]
    low, saved = found["low"], found["saved"] or 0.0
    lines = [f"{found['trials']} trials; the best saves {saved:,.0f} per machine-year on training machines,"]
    return [*lines, "with an interval not known." if low is None else f"at least {low:,.0f} with 95 % confidence."]


def _found(asked: Params, args: Any) -> dict[str, Any]:
    """Search, record, and return the best point with what it saves against the file as it is."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = cli.read_json(args.data / "data.json", "run: make run")
    seed = asked.seed if args.seed is None else args.seed
    ground = searching.Ground.of(asked, args.data)
    asked = replace(asked, schema=ground.schema)  # a public set brings its own, maybe without failures
    history_us = microseconds(asked.features["history_hours"])
    name = f"{sweeping.digest(asked.raw, about, history_us)[:20]}-{seed}"
    study = _study(args.out, name)
    if "current" not in study.user_attrs:
        cli.say("judging the file as it is")
        study.set_user_attr("current", ground.figures(asked.raw, {}))
    job = partial(_job, args.params.resolve(), args.data.resolve())
    until = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    with judging(args.engine, args.processes) as judge:
        search(study, asked, job, judge, seed, args.trials, until)
    current = study.user_attrs["current"]
    point: dict[str, Any] = {}
    saved: float | None = None
    low: float | None = None
    ended = [trial for trial in study.trials if trial.state.is_finished()]  # an interruption leaves others
    if ended and not judged(study):
        raise DataError(f"automl: no trial can be trained; the last: {ended[-1].user_attrs['figures']['refused']}")
    if ended and study.best_value < cost(current):
        point = study.best_trial.user_attrs["point"]
        saved, low, _ = sweeping.saved(current, study.best_trial.user_attrs["figures"])
    source = of_file(asked, about)
    record(study, about["source"], args.params, saved, source)
    told = {"point": point, "saved": saved, "low": low, "trials": len(ended)}
    return told | {"source": source, "local": about["local"]}


def of_file(asked: Params, about: Mapping[str, Any]) -> str:
    """The name that a parameter file must give the fleet, so that the machines held out are those of this search.

    A folder's tables have a name of their own; of the simulator's, ``make run`` derives it from the commit's again.
    """
    simulated = all(part["kind"] == "simulator" for part in about["parts"])
    return asked.source if simulated else str(about["source"])


def _study(out: Path, name: str) -> Any:
    """The study of that name, or a new one.

    Raises:
        DataError: the file of studies cannot be used.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError  # optuna passes its errors on

    out.mkdir(parents=True, exist_ok=True)
    place = out / "study.db"
    try:
        storage = f"sqlite:///{place.resolve()}"
        return optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        why = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise DataError(
            f"{place}: {why}; make the folder writable, or delete the file, which loses its trials"
        ) from error


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Inside, no other search uses the same study: two would take each other's trials.

    Raises:
        DataError: another one does.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{out}: another search is at work there; wait for it, or name another folder with --out"
            ) from None
        yield


def _job(path: Path, data: Path, point: dict[str, Any]) -> searching.Job:
    return searching.Job(path, data, point)


if __name__ == "__main__":
    cli.main(main)
