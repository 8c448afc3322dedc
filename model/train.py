"""Train both heads on the validated tables and write the bundle.

Only training machines are read, and of those only rows up to the cut less the horizon and the history, so nothing that
is judged later has been seen. Beside the bundle two ablations are trained, one that never saw telemetry and one that
never saw the error log: the report shows what each source of knowledge is worth.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data import sources
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError, Float64, Int64, Schema, Tables, microseconds
from closedloop.features.kernel import compute
from closedloop.features.spec import Constants, FeatureSpec, fit_constants
from closedloop.heads.bundle import Bundle, TrainedOn, write
from closedloop.heads.detectors import fit_anomaly_head
from closedloop.heads.drift_fit import fit_drift_reference
from closedloop.heads.failure import fit_failure_head, machine_folds
from closedloop.heads.scorers import AnomalyHead, FailureHead
from closedloop.judge.labels import in_failure_hour, labels
from closedloop.judge.truth import Bool, Grid, JudgeSettings, Truth
from closedloop.report import card
from model.common import cli, provenance
from model.common.params import Params, load
from model.common.thresholds import budget_threshold, cost_threshold

ABLATIONS = {"no_telemetry": "telemetry", "no_errors": "errors"}  # name: the group of features it does without


@dataclass(frozen=True)
class Training:
    """All that a head learns from: the training rows, their features and what became of them.

    ``X`` is (features, rows); ``y`` (components, rows) is 1, 0, or -1 where nobody knows. ``thinned`` marks the rows
    that stand for their neighbours, every n-th hour by the clock.
    """

    tables: Tables
    spec: FeatureSpec
    constants: Constants
    X: Float64
    y: NDArray[np.int8]
    thinned: NDArray[np.bool_]
    grid: Grid


def prepare(tables: Tables, schema: Schema, params: Params, source: str) -> Training:
    """Features and labels of the training rows; ``tables`` must hold nothing else."""
    spec = FeatureSpec.from_params(params.features, schema)
    for skipped in spec.skipped:
        cli.say(f"left out the custom feature {skipped}")
    constants = fit_constants(tables, schema, int(tables.time.max()), spec.history_us)
    cli.say(f"computing {len(spec.names)} features for {len(tables.time):,} rows")
    X = compute(tables, spec, constants, schema).X
    grid = Grid.of(Truth(tables, schema, source), JudgeSettings.from_params(params.raw))
    y = np.concatenate(
        [
            np.where(in_failure_hour(window, schema), np.int8(-1), labels(window, schema, params.horizon_us))
            for window in tables.windows()
        ],
        axis=1,
    )
    every_us = microseconds(params.failure["negatives_every_hours"])
    return Training(tables, spec, constants, X, y, tables.time % every_us < schema.period_us, grid)


def anomaly_head(training: Training, schema: Schema, params: Params) -> AnomalyHead:
    """Fit the detector on the features of each sensor that it asks for, and spend its alarm budget."""
    asked, names = params.anomaly, training.spec.names
    skipped = {reason.partition(":")[0] for reason in training.spec.skipped}  # this fleet lacks their sensors
    wanted = []
    for kind in asked["features"]:
        if kind in names:
            wanted.append(kind)
        elif kind not in skipped:
            wanted += [f"{sensor}_{kind}" for sensor in schema.sensors]
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(
            f"params.yaml: anomaly.features: there is no feature {unknown[0]}; features: gives {', '.join(names)}"
        )
    columns = np.array([names.index(name) for name in wanted], np.int32)
    try:
        head = fit_anomaly_head(
            training.X[:, training.thinned], columns, asked["detector"], asked["parameters"], params.seed
        )
    except ValueError as error:
        raise DataError(f"params.yaml: {error}") from error
    score, rules = head.score(training.X), JudgeSettings.from_params(params.raw).rules
    return replace(head, threshold=budget_threshold(training.grid, score, asked["alarms_per_machine_year"], rules))


def known_failures(training: Training, schema: Schema) -> dict[str, int]:
    """How many failures of each component a head could learn from; empty where there is no failure table."""
    if training.tables.failures is None:
        return {}
    return {
        component: sum(len(of_one[c]) for of_one in training.grid.failures)
        for c, component in enumerate(schema.components)
    }


def headless(grid: Grid, component: int, params: Params) -> str | None:
    """Why a component gets no failure head from these training rows, or None where it gets one."""
    failures = [len(of_one[component]) for of_one in grid.failures]
    if sum(failures) < params.failure["minimum_failures"]:
        return f"{sum(failures)} training failures, it takes {params.failure['minimum_failures']}"
    if np.count_nonzero(failures) < 2:
        return f"its {sum(failures)} training failures are all on one machine, and calibration takes two"
    return None


def in_every_fold(X: Float64, y: Bool, teaches: Bool, machine: Int64, folds: int) -> Bool:
    """Which features have a value in what each fold leaves to learn from: scikit-learn cannot bin one that never has.

    Raises:
        ValueError: some fold would leave only one class to learn from.
    """
    fold = machine_folds(y.astype(np.int64), machine, folds, teaches)[teaches]
    there = np.isfinite(X[:, teaches])
    return np.sum([there[:, fold == k].any(axis=1) for k in range(fold.max() + 1)], axis=0) >= 2


def failure_heads(
    training: Training, schema: Schema, params: Params, anomaly: AnomalyHead, without: str | None = None
) -> dict[str, FailureHead]:
    """One calibrated head for each component that failed often enough, ``without`` one group of features."""
    if training.tables.failures is None:
        return {}
    groups = np.array([*training.spec.groups, "telemetry"])  # the last is the anomaly score
    X = np.vstack([training.X, anomaly.score(training.X)])
    settings = JudgeSettings.from_params(params.raw)
    each = max(1.0, microseconds(params.failure["negatives_every_hours"]) / schema.period_us)  # rows that a kept one is
    heads = {}
    for c, component in enumerate(schema.components):
        if reason := headless(training.grid, c, params):
            cli.say(f"no head for {component}: {reason}")
            continue
        failures = sum(len(of_one[c]) for of_one in training.grid.failures)
        y = training.y[c]
        weight = np.where(y == 1, 1.0, np.where(training.thinned & (y == 0), each, 0.0))
        try:
            machine, folds = training.tables.machine, params.failure["folds"]
            there = in_every_fold(X, (y == 1) & (weight > 0), weight > 0, machine, folds)
            columns = np.flatnonzero((groups != without) & there).astype(np.int32)
            if not len(columns):
                cli.say(f"no head for {component} without {without}: nothing else is known of these machines")
                continue
            head, probability = fit_failure_head(
                X, y == 1, weight, machine, columns, params.failure["parameters"], params.seed,
                folds,
            )  # fmt: skip
        except ValueError as error:
            raise DataError(f"params.yaml: {error}") from error
        heads[component] = replace(head, threshold=cost_threshold(training.grid, c, probability, settings))
        cli.say(
            f"{component}: learned from {failures} failures, alarm at {heads[component].threshold:.3f}"
            + (f", without {without}" if without else "")
        )
    return heads


def train(tables: Tables, schema: Schema, params: Params, about: dict[str, Any]) -> Iterator[tuple[str, Bundle]]:
    """The model (named ``bundle``), then each ablation of its failure heads.

    ``tables`` holds the training rows and nothing else; ``about`` gives the fleet's ``source`` and ``fingerprint``.
    """
    training = prepare(tables, schema, params, about["source"])
    anomaly = anomaly_head(training, schema, params)
    cli.say(f"anomaly head: {params.anomaly['detector']}, alarm at {anomaly.threshold:.3f}")
    bundle = Bundle(
        schema=schema,
        spec=training.spec,
        constants=training.constants,
        anomaly=anomaly,
        failures=failure_heads(training, schema, params, anomaly),
        training=TrainedOn(
            machines={about["source"]: np.unique(tables.machine).tolist()},
            period=(to_text(int(tables.time.min())), to_text(int(tables.time.max()))),
            until_us={about["source"]: {str(window.machine): int(window.time[-1]) for window in tables.windows()}},
            fingerprint=about["fingerprint"],
        ),
        provenance={
            "commit": provenance.commit(),
            "libraries": provenance.libraries(),
            "learned_from": {"rows": len(tables.time), "failures": known_failures(training, schema)},
        },
        drift_reference=fit_drift_reference(tables, schema, anomaly.score(training.X)),
    )
    yield "bundle", replace(bundle, card=card.render(bundle, params.raw, about.get("rule", params.split["rule"])))
    for name, group in ABLATIONS.items():
        yield name, replace(bundle, failures=failure_heads(training, schema, params, anomaly, without=group))


def training_rows(tables: Tables, about: dict[str, Any]) -> Tables:
    """The rows that may train, as ``model.validate`` decided: of each machine those up to its last one.

    Raises:
        DataError: the tables are not those that were validated, or nothing is left to train on.
    """
    if "fingerprint" not in about or tables.fingerprint() != about["fingerprint"]:
        raise DataError("build/data: these are not the tables that were validated; run: python -m model.validate")
    until = {int(machine): last for machine, last in about["train_until"].items()}
    chosen = tables.select(np.array(sorted(until), np.int64))
    last = np.array([until[machine] for machine in chosen.machine.tolist()], np.int64)
    kept = chosen.rows(chosen.time <= last)
    if not len(kept.time):
        raise DataError(
            "no row is left to train on: the history and the horizon reach over all of the first two thirds"
        )
    return kept


def main(words: list[str]) -> None:
    """Write build/bundle and build/ablations/<name>."""
    args = cli.parser(__doc__).parse_args(words)
    params = load(args.params)
    about = cli.read_json(args.data / "data.json", "run: python -m model.data")
    params = params.of(about)
    schema = Schema.from_dict(about["schema"])
    tables = training_rows(sources.read_tables(args.data, schema, {}), about)
    for name, bundle in train(tables, schema, params, about):
        folder: Path = args.out if name == "bundle" else args.out.parent / "ablations" / name
        shutil.rmtree(folder, ignore_errors=True)
        write(bundle, folder)
        cli.say(f"wrote {folder}")


if __name__ == "__main__":
    cli.main(main)
