"""The points of a sweep, and the figures of one: out-of-fold answers on training machines, never on the holdout."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError, Int64, Schema, Tables
from closedloop.heads.bundle import Bundle, TrainedOn
from closedloop.judge.compare import Ratio
from closedloop.judge.metrics import assess
from closedloop.judge.truth import Grid, Intervals, JudgeSettings, PredictionTable, Truth, align
from model.common import params, provenance
from model.common.params import Params
from model.common.predictions import predict
from model.common.training import anomaly_head, failure_heads, prepare

MOST = 64  # points of one sweep
BOUND = 0.05  # level of each one-sided bound
FIXED = ("source", "schema", "columns", "files", "labels", "split", "judge", "gate")
FOLDS = 3  # of machines; each is answered by a model that trained on the others


def grid(text: str) -> dict[str, list[Any]]:
    """Return the values of each key of a grid such as ``failure.parameters.max_iter=50,100; failure.folds=3,5``.

    Raises:
        DataError: the text is not of that form, or there are too many points.
    """
    found: dict[str, list[Any]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, sign, values = part.partition("=")
        key = key.strip()
        try:
            read = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            read = None
        if not sign or not key or not read:
            raise DataError(f"SWEEP: {part!r} is not key=value,value; write failure.parameters.max_iter=50,100")
        if key.partition(".")[0] in FIXED:
            raise DataError(f"SWEEP: {key} decides how a model is judged, so its values cannot be compared; remove it")
        if key in found:
            raise DataError(f"SWEEP: {key} is there twice; write all its values after one =")
        found[key] = read
    points = int(np.prod([len(values) for values in found.values()])) if found else 0
    if not 0 < points <= MOST:
        raise DataError(f"SWEEP: the grid has {points} points; name one key or more, with at most {MOST} points in all")
    return found


def points(wanted: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the grid's values."""
    return [dict(zip(wanted, values, strict=True)) for values in itertools.product(*wanted.values())]


def changed(raw: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a parameter file with the values of a point.

    Raises:
        DataError: a key leads through a value that is no mapping.
    """
    result = copy.deepcopy(dict(raw))
    for key, value in point.items():
        at: Any = result
        *way, last = key.split(".")
        for name in way:
            at = at.get(name) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise DataError(f"SWEEP: params.yaml has no {'.'.join(way)}; name a key of it, as in failure.folds=3,5")
        at[last] = value
    return result


def schema_of(asked: Params, about: Mapping[str, Any]) -> Schema:
    """Return the schema of the fetched tables.

    Raises:
        DataError: they were read with another parameter file, for another fleet.
    """
    schema = Schema.from_dict(about["schema"])
    if asked.of(about).schema.to_dict() != schema.to_dict():  # a file of JSON has the sensors in another order
        raise DataError(
            f"build/data has the tables of {about['source']}, whose schema is not that of this parameter file; name "
            "the file of the last run with PARAMS=, or fetch this file's tables: make run"
        )
    return schema


def folds(tables: Tables) -> list[Int64]:
    """Return the machines of each fold: those with most failures are dealt out first, so that each fold has some.

    Raises:
        DataError: there are too few machines.
    """
    machines = np.unique(tables.machine)
    if len(machines) < FOLDS:
        raise DataError(f"a sweep needs {FOLDS} training machines, and there are {len(machines)}; use make run instead")
    failed = tables.failures.machine if tables.failures is not None else np.empty(0, np.int64)
    count = np.array([np.count_nonzero(failed == machine) for machine in machines])
    order = machines[np.lexsort((machines, -count))]
    return [np.sort(order[k::FOLDS]) for k in range(FOLDS)]


def out_of_fold(tables: Tables, schema: Schema, asked: Params, about: Mapping[str, Any]) -> PredictionTable:
    """Return answers for every row of the training machines, each from a model that never saw its machine.

    Heads and thresholds come from the other folds.
    """
    answers: list[PredictionTable] = []
    for held in folds(tables):
        kept = tables.select(np.setdiff1d(tables.machine, held))
        training = prepare(kept, schema, asked, about["source"])
        anomaly, _ = anomaly_head(training, schema, asked)
        heads = failure_heads(training, schema, asked, anomaly)
        span = to_text(int(kept.time.min())), to_text(int(kept.time.max()))
        machines = {about["source"]: kept.named(np.unique(kept.machine)).tolist()}
        trained_on = TrainedOn(machines=machines, period=span, fingerprint=about["fingerprint"])
        bundle = Bundle(schema, training.spec, training.constants, anomaly, heads, trained_on, {})
        answers.append(predict(bundle, tables.select(held)))
    columns = ("machine", "time", "head", "score", "alarm")
    return PredictionTable(*(np.concatenate([getattr(one, name) for one in answers]) for name in columns))


def judged(answers: PredictionTable, truth: Truth, settings: JudgeSettings) -> dict[str, Any]:
    """Return the figures of a point, and for each machine its years and its cost."""
    grid = Grid.of(truth, settings)
    found = assess(align(answers, grid), grid, settings, truth.schema)
    machines = {"years": found.years.tolist(), "cost": found.cost.tolist()}
    return {"failure": found.metrics["failure"], "anomaly": found.metrics["anomaly"], "machines": machines}


def truth_of(tables: Tables, schema: Schema, about: Mapping[str, Any], data: Path, history_us: int) -> Truth:
    """Return the truth of the training machines; what lies before a whole history does not count."""
    path = data / "anomalies.parquet"
    known = Intervals.of(pd.read_parquet(path), tables.names) if path.exists() else None
    since = {window.machine: int(window.time[0]) + history_us for window in tables.windows()}
    return Truth(tables, schema, about["source"], known, since, about.get("rule", "fleet"))


def saved(current: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Return what another point saves against the current parameters per machine-year: estimate, low, high.

    Machine by machine, since both were judged on the same; each bound is one-sided at 5 %.
    """
    years = np.array(current["machines"]["years"])
    ratio = Ratio(np.array(current["machines"]["cost"]) - np.array(other["machines"]["cost"]), years)
    return ratio.estimate, *ratio.interval(BOUND)


def digest(raw: Mapping[str, Any], about: Mapping[str, Any], history_us: int) -> str:
    """Return what a stored result belongs to: parameters, tables, judged rows, code and libraries."""
    code = hashlib.sha256()
    for path in sorted([*provenance.LIBRARY.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]):
        code.update(path.name.encode() + path.read_bytes())
    what = [raw, about["fingerprint"], about["train_until"], history_us, provenance.libraries(), code.hexdigest()]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def parsed(raw: dict[str, Any], point: Mapping[str, Any], about: Mapping[str, Any]) -> Params:
    """Return the checked parameters of a point.

    Raises:
        DataError: a value of the point is refused.
    """
    try:
        return params.parse(changed(raw, point)).of(about)
    except params.ParamsError as error:
        raise DataError(f"SWEEP {said(point)}: {'; '.join(text for _, text in error.slips)}") from None


def said(point: Mapping[str, Any]) -> str:
    """Return the values of a point as they are written in a grid."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items()) or "as in the file"
