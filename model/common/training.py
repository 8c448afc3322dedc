"""From training rows to fitted heads: features, labels, the anomaly head and a failure head for each component."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data.machines import Id
from closedloop.data.schema import DataError, Float64, Int64, Schema, Tables, microseconds
from closedloop.features.baseline import Levels
from closedloop.features.kernel import iter_machines
from closedloop.features.level_fit import fit_levels, unseen
from closedloop.features.spec import Constants, FeatureSpec, fit_constants
from closedloop.heads.detectors import fit_anomaly_head
from closedloop.heads.failure import fit_failure_head, machine_folds
from closedloop.heads.scorers import AnomalyHead, FailureHead
from closedloop.heads.trees import Int32
from closedloop.judge.labels import UNKNOWN, in_failure_hour, known_until, labels, matured, with_delay
from closedloop.judge.truth import Bool, Grid, JudgeSettings, Truth
from model.common import cli
from model.common.params import Params
from model.common.thresholds import budget_threshold, cost_threshold

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64
ABLATIONS = {"no_telemetry": "telemetry", "no_errors": "errors"}  # name: the group of features that is left out


@dataclass(frozen=True)
class TrainingSet:
    """All that the heads learn from: the training rows with their labels, and the features of those that teach.

    ``kept`` marks the rows that teach: those before a failure, and those of ``thinned``, which stand for their
    neighbours, as :func:`thin` says. ``X`` has shape (features + 1, kept rows); its last row has no values until
    :func:`failure_heads` writes the anomaly score there. The features of all rows would take ten times the memory;
    :meth:`machines` computes them once more. ``y`` has shape (components, rows) and is 1 before a
    failure, 0 before none, and -1 where that is unknown. ``without`` are the levels that did not see each stretch of
    time, as :func:`closedloop.features.level_fit.fit_levels` gives them.
    """

    tables: Tables
    spec: FeatureSpec
    constants: Constants
    without: tuple[Levels, ...]
    X: Float64
    kept: Bool
    y: NDArray[np.int8]
    thinned: Bool
    grid: Grid

    def machines(self, schema: Schema) -> Iterator[tuple[slice, Float64]]:
        """Yield the rows and the features (features, rows) of each machine."""
        return features_of_machines(self.tables, self.spec, self.constants, schema)


def features_of_machines(
    tables: Tables, spec: FeatureSpec, constants: Constants, schema: Schema
) -> Iterator[tuple[slice, Float64]]:
    """Yield the rows and the features (features, rows) of each machine; the next step overwrites the features."""
    start = 0
    for features in iter_machines(tables, spec, constants, schema):
        rows = slice(start, start + len(features.time))
        yield rows, features.X
        start = rows.stop


def training_rows(tables: Tables, about: Mapping[str, Any], delay_us: int | None) -> Tables:
    """Return the rows that may train: those of each training machine up to the time that ``model.validate`` found.

    Nothing is known of later rows either: the maturity marks end there too. ``delay_us`` is the delay of reports that
    ``params.yaml`` sets, if it does.

    Raises:
        DataError: the tables are not those that were validated, or no row may train.
    """
    if "fingerprint" not in about or tables.fingerprint([*about["schema"]["sensors"]]) != about["fingerprint"]:
        raise DataError("build/data: these tables were not validated; run: python -m model.validate")
    kept = rows_until(tables, about["train_until"], delay_us)
    if not len(kept.time):
        raise DataError(
            "no row is left to train on: history and horizon are longer than the first two thirds of the time; "
            "give a longer time, or shorten features.history_hours in params.yaml"
        )
    return kept


def rows_until(tables: Tables, train_until: Mapping[str, int], delay_us: int | None) -> Tables:
    """Return the rows of the machines that are named, each up to its time, with marks no later than that."""
    codes = tables.codes(train_until)
    until = {code: us for code, us in zip(codes, train_until.values(), strict=True) if code is not None}
    chosen = with_delay(tables.select(np.array(sorted(until), np.int64)), delay_us)
    last = np.array([until[machine] for machine in chosen.machine.tolist()], np.int64)
    kept = chosen.rows(chosen.time <= last)
    return known_until(kept, np.array([until[machine] for machine in kept.bounds()[0].tolist()], np.int64))


def prepare(tables: Tables, schema: Schema, params: Params, source: str) -> TrainingSet:
    """Compute features and labels of the training rows; ``tables`` must hold no other rows."""
    spec = FeatureSpec.from_params(params.features, schema)
    for skipped in spec.skipped:
        cli.say(f"left out the custom feature {skipped}")
    constants, without = baselines(tables, spec, schema, params)
    grid = Grid.of(Truth(tables, schema, source), JudgeSettings.from_params(params.raw))
    y = labelled(tables, schema, params.horizon_us)
    thinned = thin(tables, microseconds(params.failure["negatives_every_hours"]), schema)
    kept = teaching(y, thinned)
    cli.say(f"computing {len(spec.names)} features for {len(tables.time):,} rows, of which {kept.sum():,} teach")
    X = np.empty((len(spec.names) + 1, np.count_nonzero(kept)))
    filled = 0
    for rows, features in features_of_machines(tables, spec, constants, schema):
        own = features[:, kept[rows]]
        X[:-1, filled : filled + own.shape[1]] = own
        filled += own.shape[1]
    return TrainingSet(tables, spec, constants, without, X, kept, y, thinned, grid)


def baselines(
    tables: Tables, spec: FeatureSpec, schema: Schema, params: Params
) -> tuple[Constants, tuple[Levels, ...]]:
    """Return the frozen baselines, and the levels that did not see each stretch of time.

    Under the split rule ``unit`` machines run until they fail, and those that come are new.
    """
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
    return fit_levels(tables, spec, schema, constants, come_back=params.split["rule"] != "unit")


def teaching(y: NDArray[np.int8], thinned: Bool) -> Bool:
    """Return which rows teach some head."""
    kept: Bool = thinned | (y == 1).any(axis=0)
    return kept


def labelled(tables: Tables, schema: Schema, horizon_us: int) -> NDArray[np.int8]:
    """Return the labels of all rows, shape (components, rows), as :class:`TrainingSet` explains them."""
    return np.concatenate(
        [
            np.where(
                in_failure_hour(window, schema) | ~matured(window),
                np.int8(UNKNOWN),
                labels(window, schema, horizon_us),
            )
            for window in tables.windows()
        ],
        axis=1,
    )


def thin(tables: Tables, every_us: int, schema: Schema) -> Bool:
    """Return which rows stand for their neighbours: one of each block of ``every_us`` microseconds of a machine.

    Its place in the block is a hash of machine and block. A fixed place would teach a few hours of the day alone, and a
    fleet with a daily rhythm would be calibrated for these. The machine's name is hashed, so that it does not matter
    which other machines are in the tables.
    """
    ids, offsets = tables.bounds()
    keys = [int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8]) for name in tables.named(ids).tolist()]
    key = np.repeat(np.array(keys, np.uint64), np.diff(offsets))
    places = max(1, every_us // schema.period_us)
    chosen = _mixed(key + (tables.time // every_us).astype(np.uint64) * GOLDEN) % np.uint64(places)
    return tables.time % every_us // schema.period_us == chosen.astype(np.int64)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output of SplitMix64 (Steele, Lea & Flood 2014) for each state."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def anomaly_head(training: TrainingSet, schema: Schema, params: Params) -> tuple[AnomalyHead, Float64]:
    """Fit the detector on the features that ``params.yaml`` names; return it with the score of every training row.

    The threshold is what the alarm budget of ``params.yaml`` allows. The scores are those of levels that did not see
    the row, since so are those of the rows that come after training.

    Raises:
        DataError: ``params.yaml`` names an unknown feature or parameter.
    """
    columns = alarm_columns(training.spec, schema, params)
    head = fit_alarm(training.X[:, training.thinned[training.kept]], columns, params)
    score = np.empty(len(training.tables.time))
    for rows, features in training.machines(schema):
        machine = training.tables.named(training.tables.machine[rows][:1]).tolist()[0]
        score[rows] = unseen_score(head, features, machine, training.spec, training.constants, training.without)
    return with_budget(head, training.grid, score, params), score


def unseen_score(
    head: AnomalyHead,
    features: Float64,
    machine: Id,
    spec: FeatureSpec,
    constants: Constants,
    without: tuple[Levels, ...],
) -> Float64:
    """Return the score of a training machine's rows from levels that did not see them; ``features`` is changed."""
    if constants.levels is not None and without:
        level = np.array(spec.groups) == "level"
        features[level] = unseen(features[level], machine, constants.levels, without)
    return head.score(features)


def alarm_columns(spec: FeatureSpec, schema: Schema, params: Params) -> Int32:
    """Return the places of the features that the detector reads.

    Raises:
        DataError: ``params.yaml`` names an unknown feature.
    """
    asked, names = params.anomaly, spec.names
    skipped = {reason.partition(":")[0] for reason in spec.skipped}  # the fleet lacks their sensors
    wanted = []
    for kind in asked["features"]:
        if kind in names:
            wanted.append(kind)
        elif kind not in skipped:
            wanted += [f"{sensor}_{kind}" for sensor in schema.sensors]
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(
            f"params.yaml: anomaly.features: there is no feature {unknown[0]}; choose among {', '.join(names)}"
        )
    return np.array([names.index(name) for name in wanted], np.int32)


def fit_alarm(X: Float64, columns: Int32, params: Params) -> AnomalyHead:
    """Return the detector, fitted on rows ``columns`` of X (features, rows), without a threshold.

    Raises:
        DataError: ``params.yaml`` names an unknown parameter.
    """
    asked = params.anomaly
    try:
        return fit_anomaly_head(X, columns, asked["detector"], asked["parameters"], params.seed)
    except ValueError as error:
        raise DataError(f"params.yaml: {error}") from error


def with_budget(head: AnomalyHead, grid: Grid, score: Float64, params: Params) -> AnomalyHead:
    """Return the head with the threshold that the alarm budget of ``params.yaml`` allows."""
    rules = JudgeSettings.from_params(params.raw).rules
    return replace(head, threshold=budget_threshold(grid, score, params.anomaly["alarms_per_machine_year"], rules))


def failures_of(tables: Tables, grid: Grid, schema: Schema) -> dict[str, int]:
    """Count the failures of each component in some tables; empty where there is no failure table."""
    if tables.failures is None:
        return {}
    return {component: sum(len(of_one[c]) for of_one in grid.failures) for c, component in enumerate(schema.components)}


def headless(grid: Grid, component: int, params: Params) -> str | None:
    """Return why a component gets no failure head from these training rows, or None where it gets one."""
    failures = [len(of_one[component]) for of_one in grid.failures]
    if sum(failures) < params.failure["minimum_failures"]:
        return f"{sum(failures)} training failures, a head needs {params.failure['minimum_failures']}"
    if np.count_nonzero(failures) < 2:
        return f"its {sum(failures)} training failures are all on one machine, and calibration needs two"
    return None


def in_every_fold(there: Bool, fold: Int64) -> Bool:
    """Return which features have a value whichever fold is left out: scikit-learn cannot bin a feature without any."""
    return np.sum([there[:, fold == k].any(axis=1) for k in range(fold.max() + 1)], axis=0) >= 2


def failure_features(spec: FeatureSpec, without: str | None) -> Bool:
    """Return which features a failure head may read; the last is the anomaly score.

    Those of the group ``without`` are left out, and those of ``level``, which are the anomaly head's: of a machine that
    was trained on they know more than of a new one, and failure heads are judged on new ones.
    """
    groups = np.array([*spec.groups, "telemetry"])
    return (groups != "level") & (groups != without)


def failure_heads(
    training: TrainingSet, schema: Schema, params: Params, anomaly: AnomalyHead, without: str | None = None
) -> dict[str, FailureHead]:
    """Fit one calibrated head for each component that failed often enough.

    Args:
        training: the rows to learn from.
        schema: the fleet's schema.
        params: the parameters in use.
        anomaly: the fitted anomaly head, whose score is a feature.
        without: a group of features to leave out, for an ablation.

    Raises:
        DataError: a parameter of the estimator is refused, or the folds leave only one class.
    """
    if training.tables.failures is None:
        return {}
    readable = failure_features(training.spec, without)
    X = training.X
    X[-1] = anomaly.score(X)
    represented = max(1.0, microseconds(params.failure["negatives_every_hours"]) / schema.period_us)  # by a kept row
    machine, folds = training.tables.machine, params.failure["folds"]
    heads, unseen = {}, {}
    for c, component in enumerate(schema.components):
        if reason := headless(training.grid, c, params):
            cli.say(f"no head for {component}: {reason}")
            continue
        y = training.y[c]
        weight = np.where(y == 1, 1.0, np.where(training.thinned & (y == 0), represented, 0.0))
        try:
            fold = machine_folds(((y == 1) & (weight > 0)).astype(np.int64), machine, folds, weight > 0)
            kept, own = training.kept, weight[training.kept]
            there = in_every_fold(np.isfinite(X)[:, own > 0], fold[kept][own > 0])
            columns = np.flatnonzero(readable & there).astype(np.int32)
            if not len(columns):
                cli.say(f"no head for {component} without {without}: no other feature has values for these machines")
                continue
            heads[component], others = fit_failure_head(
                X, y[kept] == 1, own, machine[kept], columns, params.failure["parameters"], params.seed, folds
            )
        except ValueError as error:
            raise DataError(f"params.yaml: {error}") from error
        unseen[c] = others, fold
    return _with_thresholds(heads, out_of_fold(training, schema, anomaly, unseen), training, schema, params, without)


def out_of_fold(
    training: TrainingSet,
    schema: Schema,
    anomaly: AnomalyHead,
    unseen: Mapping[int, tuple[tuple[FailureHead, ...], Int64]],
) -> dict[int, Float64]:
    """Return the probability of every training row by component, from the head that never saw the row's machine.

    ``unseen`` has for each component the heads of its folds, and the fold of every row.
    """
    found = {c: np.empty(len(training.tables.time)) for c in unseen}
    for rows, features in training.machines(schema) if unseen else ():
        X = np.concatenate([features, anomaly.score(features)[None]])
        for c, (heads, fold) in unseen.items():
            found[c][rows] = heads[fold[rows.start]].probability(X)
    return found


def _with_thresholds(
    heads: Mapping[str, FailureHead],
    probability: Mapping[int, Float64],
    training: TrainingSet,
    schema: Schema,
    params: Params,
    without: str | None,
) -> dict[str, FailureHead]:
    """Return the heads with the thresholds of least cost for these out-of-fold probabilities."""
    settings, failures = JudgeSettings.from_params(params.raw), failures_of(training.tables, training.grid, schema)
    found = {}
    for c, own in probability.items():
        component = schema.components[c]
        threshold, plateau = cost_threshold(training.grid, c, own, settings)
        found[component] = replace(heads[component], threshold=threshold, plateau=plateau)
        cli.say(
            f"{component}: learned from {failures[component]} failures, alarm at {found[component].threshold:.3f}"
            + (f", without {without}" if without else "")
        )
    return found


@dataclass(frozen=True)
class InProcess:
    """Heads that were fitted in this process, and what they were fitted on; ``score`` has one value for each row."""

    training: TrainingSet
    schema: Schema
    params: Params
    anomaly: AnomalyHead
    score: Float64

    @classmethod
    def of(cls, tables: Tables, schema: Schema, params: Params, source: str) -> InProcess:
        """Compute features and labels, and fit the anomaly head."""
        training = prepare(tables, schema, params, source)
        return cls(training, schema, params, *anomaly_head(training, schema, params))

    @property
    def spec(self) -> FeatureSpec:
        """The features."""
        return self.training.spec

    @property
    def constants(self) -> Constants:
        """The frozen baselines."""
        return self.training.constants

    @property
    def grid(self) -> Grid:
        """The training rows as the judge sees them."""
        return self.training.grid

    def failures(self, without: str | None = None) -> dict[str, FailureHead]:
        """Fit the failure heads."""
        return failure_heads(self.training, self.schema, self.params, self.anomaly, without)
