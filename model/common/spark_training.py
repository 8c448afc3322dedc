"""Train on Spark: features, labels and trees on its executors, thresholds here.

Features never come to this process, but for those of the detector, of every n-th hour. What comes is one number a row
and head. The tables themselves are here too, as validation has read them: a row of the judge's grid has 48 bytes, a row
of features 20 times as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from closedloop.data.schema import DataError, Float64, Int64, Schema, Tables, microseconds
from closedloop.features.spec import Constants, FeatureSpec
from closedloop.heads.failure import machine_folds, platt
from closedloop.heads.scorers import AnomalyHead, FailureHead
from closedloop.heads.trees import Forest, Int32
from closedloop.judge.truth import Grid, JudgeSettings, Truth
from closedloop.spark import estimators
from closedloop.spark.fleet import SparkFleet, open_fleet, stored, told
from closedloop.spark.trees import trained
from model.common import cli, spark_rows
from model.common.params import Params
from model.common.spark_rows import Wanted
from model.common.thresholds import cost_threshold
from model.common.training import (
    alarm_columns,
    baselines,
    failure_features,
    fit_alarm,
    headless,
    labelled,
    thin,
    with_budget,
)

ROWS_OF_A_PART = (
    20_000  # the parts of the rows to learn from depend on their number alone, so every cluster has equal ones
)
AT_ONCE = 4  # fits that Spark schedules beside each other


@dataclass(frozen=True, eq=False)
class OnSpark:
    """The counterpart of :class:`model.common.training.InProcess`."""

    fleet: SparkFleet
    wanted: Wanted
    tables: Tables
    params: Params
    grid: Grid
    y: Any
    thinned: Any
    anomaly: AnomalyHead
    score: Float64

    @classmethod
    def of(cls, tables: Tables, schema: Schema, params: Params, about: Mapping[str, Any], data: Path) -> OnSpark:
        """Open the fleet of the folder ``data``, and fit the anomaly head; ``tables`` holds its training rows."""
        spec = FeatureSpec.from_params(params.features, schema)
        for skipped in spec.skipped:
            cli.say(f"left out the custom feature {skipped}")
        constants, without = baselines(tables, spec, schema, params)
        every_us = microseconds(params.failure["negatives_every_hours"])
        wanted = Wanted(
            spec, constants, schema, dict(about["train_until"]), params.delay_us, params.horizon_us, every_us
        )
        with told():
            fleet = open_fleet(data, schema, {}, labels=True)
            columns = alarm_columns(spec, schema, params)
            cli.say(f"computing {len(spec.names)} features for {len(tables.time):,} rows on Spark")
            rows = partial(spark_rows.alarm_rows, wanted=wanted, columns=columns)
            found = ordered(fleet.map(rows, f"{wanted.key}, x array<double>").toArrow())
            X = found["x"].combine_chunks().flatten().to_numpy().reshape(-1, len(columns)).T
            head = fit_alarm(np.ascontiguousarray(X), np.arange(len(columns), dtype=np.int32), params)
            head = replace(head, columns=columns)
            each = fleet.map(
                partial(spark_rows.scores, wanted=wanted, anomaly=head, without=without), f"{wanted.key}, score double"
            )
            score = aligned(each.toArrow(), tables)["score"].to_numpy()
        grid = Grid.of(Truth(tables, schema, about["source"]), JudgeSettings.from_params(params.raw))
        y, thinned = labelled(tables, schema, params.horizon_us), thin(tables, every_us, schema)
        return cls(fleet, wanted, tables, params, grid, y, thinned, with_budget(head, grid, score, params), score)

    @property
    def spec(self) -> FeatureSpec:
        """The features."""
        return self.wanted.spec

    @property
    def constants(self) -> Constants:
        """The frozen baselines."""
        return self.wanted.constants

    def failures(self, without: str | None = None) -> dict[str, FailureHead]:
        """Fit one calibrated head for each component that failed often enough.

        Raises:
            DataError: MLlib refuses a parameter, or truncated an ensemble.
        """
        if self.tables.failures is None:
            return {}
        columns = np.flatnonzero(failure_features(self.spec, without)).astype(np.int32)
        taught = []
        for c, component in enumerate(self.wanted.schema.components):
            if reason := headless(self.grid, c, self.params):
                cli.say(f"no head for {component}: {reason}")
            else:
                taught.append(c)
        try:
            folds = {c: self._folds(c) for c in taught}
            with told():
                forests = self._forests(folds, columns)
                seen = {key: forest for key, forest in forests.items() if key[1] >= 0}
                raw = self._unseen(folds, columns, seen)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"params.yaml: failure: {error}") from error
        heads = {}
        for c in taught:
            name = self.wanted.schema.components[c]
            heads[name] = self._calibrated(c, forests[c, -1], columns, raw[c])
            said = f"{name}: learned on Spark, alarm at {heads[name].threshold:.3f}"
            cli.say(f"{said}, without {without}" if without else said)
        return heads

    def _weight(self, c: int) -> Float64:
        """How many rows each stands for, as on one machine; 0 where it teaches nothing."""
        hours = microseconds(self.params.failure["negatives_every_hours"])
        represented = max(1.0, hours / self.wanted.schema.period_us)
        y = self.y[c]
        return np.where(y == 1, 1.0, np.where(self.thinned & (y == 0), represented, 0.0))

    def _folds(self, c: int) -> Int64:
        """The fold of each row for a component, the same as on one machine."""
        teaches = self._weight(c) > 0
        positive = np.where(teaches, self.y[c] == 1, False).astype(np.int64)
        return machine_folds(positive, self.tables.machine, self.params.failure["folds"], teaches)

    def _of_machines(self, folds: Mapping[int, Int64]) -> dict[str, list[int]]:
        """The folds of each machine, one for each component; -1 for a component without a head."""
        ids, offsets = self.tables.bounds()
        every = range(len(self.wanted.schema.components))
        first = [folds[c][offsets[:-1]] if c in folds else np.full(len(ids), -1) for c in every]
        names = [str(name) for name in self.tables.named(ids).tolist()]
        return dict(zip(names, np.array(first).T.tolist(), strict=True))

    def _forests(self, folds: Mapping[int, Int64], columns: Int32) -> dict[tuple[int, int], Forest]:
        """The ensembles by component and the fold that is left out; fold -1 leaves out nothing."""
        from pyspark.ml.functions import array_to_vector  # only where there is a session
        from pyspark.sql import functions as f

        made = partial(
            spark_rows.examples,
            wanted=self.wanted,
            anomaly=self.anomaly,
            columns=columns,
            folds=self._of_machines(folds),
        )
        types = f"{self.wanted.key}, x array<double>, y array<tinyint>, fold array<int>"
        parts = int(self.thinned.sum()) // ROWS_OF_A_PART + 1
        asked = self.params.failure
        taught = {c: self.y[c][self._weight(c) > 0] == 1 for c in folds}
        balance = {c: float((~failing).sum() / failing.sum()) for c, failing in taught.items()}

        def fit(key: tuple[int, int], rows: Any) -> Forest:
            c, fold = key
            kept = rows.filter((f.col("y")[c] >= 0) & (f.col("fold")[c] != fold))
            kept = kept.repartition(parts, "machineID").sortWithinPartitions(*spark_rows.KEY)
            label = f.col("y")[c].cast("double").alias(estimators.LABEL)
            heavy = f.when(label == 1, balance[c]).otherwise(1.0).alias(estimators.WEIGHT)
            trees = estimators.estimator(asked["estimator"], asked["parameters"], self.params.seed)
            return trained(trees, kept.select(array_to_vector("x").alias(estimators.FEATURES), label, heavy))

        keys = [(c, fold) for c, of_rows in folds.items() for fold in range(-1, int(of_rows.max()) + 1)]
        cli.say(f"training {len(keys)} ensembles ({asked['estimator']}) in {parts} parts")
        with stored(self.fleet.map(made, types)) as rows, ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(keys, pool.map(partial(fit, rows=rows), keys), strict=True))

    def _unseen(self, folds: Mapping[int, Int64], columns: Int32, forests: dict[tuple[int, int], Forest]) -> Float64:
        """Raw scores (components, rows) from models that never saw the row's machine."""
        answer = partial(
            spark_rows.unseen,
            wanted=self.wanted,
            anomaly=self.anomaly,
            columns=columns,
            folds=self._of_machines(folds),
            forests=forests,
        )
        found = self.fleet.map(answer, f"{self.wanted.key}, raw array<double>").toArrow()
        raw = aligned(found, self.tables)["raw"].combine_chunks().flatten().to_numpy()
        return np.ascontiguousarray(raw.reshape(len(self.tables.time), -1).T)

    def _calibrated(self, c: int, forest: Forest, columns: Int32, raw: Float64) -> FailureHead:
        """The head with its calibration and threshold, both from out-of-fold scores."""
        weight = self._weight(c)
        teaches = weight > 0
        slope, intercept = platt(raw[teaches], (self.y[c][teaches] == 1).astype(np.int64), weight[teaches])
        head = FailureHead(forest, columns, slope, intercept)
        probability = 1.0 / (1.0 + np.exp(-(slope * raw + intercept)))
        settings = JudgeSettings.from_params(self.params.raw)
        threshold, plateau = cost_threshold(self.grid, c, probability, settings)
        return replace(head, threshold=threshold, plateau=plateau)


def ordered(found: pa.Table) -> pa.Table:
    """The rows in order of machine and time, in which our tables have them."""
    return found.sort_by([(name, "ascending") for name in spark_rows.KEY])


def aligned(found: pa.Table, tables: Tables) -> pa.Table:
    """The rows in order of ``tables``.

    Raises:
        DataError: they are not the rows of ``tables``.
    """
    result = ordered(found)
    same = len(result) == len(tables.time) and np.array_equal(result["time"].to_numpy(), tables.time)
    if not same or result["machineID"].to_pylist() != tables.named(tables.machine).tolist():
        raise DataError(
            f"Spark read {len(result):,} training rows and this process {len(tables.time):,}; "
            "the files changed, or executors see others: give a folder that all of them share"
        )
    return result
