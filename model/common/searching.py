"""What ``automl`` searches: the values that a trial may take, and how one trial is judged, in any process.

A trial is judged as a point of a sweep is: by out-of-fold answers on training machines. Figures are costs in episodes.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from closedloop.data import sources
from closedloop.data.schema import DataError, Schema, Tables, microseconds
from closedloop.judge.truth import JudgeSettings, Truth
from model.common import cli, params, sweeping
from model.common.params import Params
from model.common.training import training_rows

OFF: dict[str, Any] = {}  # a family without keys is off


@dataclass(frozen=True)
class Ground:
    """What every trial is judged on, read from the folder ``data`` and the content of a parameter file."""

    tables: Tables
    schema: Schema
    truth: Truth
    settings: JudgeSettings
    about: Mapping[str, Any]

    @classmethod
    def of(cls, asked: Params, data: Path) -> Ground:
        """Read the training rows.

        Raises:
            DataError: the tables were not validated, or are of another fleet.
        """
        about = cli.read_json(data / "data.json", "run: make run")
        if "train_until" not in about:
            raise DataError(f"{data}: these tables were not validated; run: make run")
        own = asked.of(about)
        schema = sweeping.schema_of(asked, about)
        tables = training_rows(sources.read_tables(data, schema, {}), about, asked.delay_us)
        truth = sweeping.truth_of(tables, schema, about, data, microseconds(own.features["history_hours"]))
        return cls(tables, schema, truth, JudgeSettings.from_params(own.raw), about)

    def figures(self, raw: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
        """Judge a point; what :func:`model.common.sweeping.judged` returns."""
        one = sweeping.parsed(dict(raw), point, self.about)
        answers = sweeping.out_of_fold(self.tables, self.schema, one, self.about)
        return sweeping.judged(answers, self.truth, self.settings)


@dataclass(frozen=True)
class Job:
    """One trial to judge: the parameter file, what the trial changes of it, and where the tables lie."""

    path: Path
    data: Path
    point: dict[str, Any]


def run(job: Job) -> dict[str, Any]:
    """Judge one trial in this process, which reads the tables once; ``refused`` says why one cannot be trained."""
    with redirect_stderr(io.StringIO()):  # several trials would tell of their progress at once
        asked, ground = _read(job.path, job.data)
        try:
            return ground.figures(asked.raw, job.point)
        except DataError as error:
            return {"refused": " ".join(str(error).split())}


def end_with_parent() -> None:
    """Have this process end where the one that started it was killed, which tells it nothing by itself."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def _read(path: Path, data: Path) -> tuple[Params, Ground]:
    asked = params.load(path)
    return asked, Ground.of(asked, data)


def run_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Judge the trials of a data frame, one a row, on an executor of Spark: ``number``, ``job`` to ``figures``."""
    for batch in batches:
        for row in batch.to_pylist():
            job = json.loads(row["job"])
            figures = run(Job(Path(job["path"]), Path(job["data"]), job["point"]))
            yield pa.RecordBatch.from_pylist([{"number": row["number"], "figures": json.dumps(figures)}])


def suggested(trial: Any, asked: Params) -> dict[str, Any]:
    """The values that one trial takes, as a point of a sweep: key in the parameter file to value.

    Windows are shares of ``features.history_hours``, so they suit any sampling. Judge, labels and split stay as they
    are. Where failures are known the failure heads are searched; else the detector.
    """
    point: dict[str, Any] = {}
    if asked.schema.components:
        point |= {f"failure.parameters.{name}": value for name, value in _boosted(trial).items()}
    else:
        point["anomaly.detector"] = trial.suggest_categorical(
            "detector", ["evidence_chart", "mean_chart", "isolation_forest", "pca"]
        )
        point["anomaly.parameters"] = {}
    for family, key, choices in _families(asked):
        chosen = trial.suggest_categorical(family, list(choices))
        point |= {f"features.{family}": OFF} if chosen == "off" else {f"features.{family}.{key}": choices[chosen]}
    return {key: value for key, value in point.items() if not _same(asked.raw, key, value)}


def _boosted(trial: Any) -> dict[str, Any]:
    """The parameters of the boosted trees."""
    return {
        "max_iter": trial.suggest_int("max_iter", 40, 240, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.2, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 3, 24, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 20, 300, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 0.1, 100.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 1.0),
    }


def _families(asked: Params) -> list[tuple[str, str, dict[str, Any]]]:
    """The families of features whose windows may change: name, key, and the choices by what they are called.

    A choice is left out where the detector reads a feature that it would remove.
    """
    history, found = float(asked.features["history_hours"]), []
    shares = {"short": [24, 6], "middle": [24, 3], "long": [6, 1], "all": [24, 6, 3, 1]}
    for family, key in (("rolling", "windows_hours"), ("change", "windows_hours"), ("errors", "windows_hours")):
        if not asked.raw["features"].get(family):
            continue
        choices: dict[str, Any] = {"as in the file": asked.raw["features"][family][key]}
        choices |= {name: [history / share for share in of] for name, of in shares.items()}
        choices = {name: value for name, value in choices.items() if _fits(asked, {f"features.{family}.{key}": value})}
        found.append((family, key, choices | ({"off": OFF} if _fits(asked, {f"features.{family}": OFF}) else {})))
    return found


def _fits(asked: Params, point: Mapping[str, Any]) -> bool:
    """Whether the parameter file has no slip with this change."""
    try:
        params.parse(sweeping.changed(asked.raw, point))
    except DataError:
        return False
    return True


def _same(raw: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether the file says so already."""
    at: Any = raw
    for name in key.split("."):
        at = at.get(name) if isinstance(at, Mapping) else None
    return bool(at == value)
