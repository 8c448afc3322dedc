"""What the demonstration's page tells: figures of both models from the log that was written, and its pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data import sources
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, Float64, Int64, Schema, Tables
from closedloop.heads.bundle import Bundle, Predictions, load
from closedloop.heads.drift_reference_fit import DAY_US
from closedloop.judge.metrics import judge
from closedloop.judge.split import held_out
from closedloop.judge.truth import JudgeSettings, PredictionTable, Truth
from closedloop.log.answers import answers
from closedloop.log.read import read
from closedloop.log.sink import Sink
from closedloop.report import loop_plots, plots
from closedloop.watch import drift
from closedloop.watch.live import Answered
from closedloop.watch.weeks import WEEK_US, ByWeek, weeks
from model.common import cli, request_log
from model.common.loop_copy import Copy
from model.common.loop_life import Life
from model.common.params import Params
from model.common.predictions import predict

DATED = ("pinned", "moved", "looked", "retrained", "end")  # days of a plan
FALSE_WORTH = 0.2  # of an alarm hour without a failure ahead, beside one with
SHOWN = ("event_recall", "false_alarms_per_machine_year", "cost_per_machine_year", "lead_time_hours_median", "pr_auc")


@dataclass(frozen=True)
class Watched:
    """The log at its end, and what both models say of every row of it."""

    tables: Tables
    bundles: dict[str, Bundle]
    given: dict[str, Predictions]
    asked: Int64  # the times of which somebody asked


@dataclass(frozen=True)
class OneMachine:
    """A machine that neither model learned from: both models' highest probability and alarms, and its failures."""

    name: str
    time: Int64
    probability: dict[str, Float64]
    alarm: dict[str, NDArray[np.bool_]]
    failures: Int64


@dataclass(frozen=True)
class Story:
    """``content`` is JSON; the rest is what the pictures show. Times are microseconds UTC."""

    content: dict[str, Any]
    days: Int64
    levels: Float64  # (sensors, days), in deviations of the training readings
    weeks: dict[str, ByWeek]
    machine: OneMachine


def tell(copy: Copy, life: Life, asked: Params, found: Mapping[str, Any]) -> Story:
    """Return the story of a demonstration that has run; ``found`` is what its scenes collected."""
    seen = _seen(copy, life)
    settings, plan = JudgeSettings.from_params(asked.raw), life.plan
    of_weeks = _of_weeks(copy, seen, life, asked, settings)
    days, levels = _levels(seen, life)
    holdout = _holdout(copy, seen, settings)
    still, moved, last = plan.moved // 7, -(-plan.moved // 7), -(-plan.retrained // 7)  # whole weeks
    digests = {name: bundle.manifest.model_digest for name, bundle in seen.bundles.items() if bundle.manifest}
    content = {
        "plan": asdict(plan),
        "dates": {name: to_text(life.at(day)) for name, day in asdict(plan).items() if name in DATED},
        "models": digests,
        "requests": found["requests"],
        "windows": found["machines_asked"],
        "promise": {key: found["promise"]["failure"][key] for key in SHOWN},
        "drift": {"verdict": found["drift"]["verdict"], "subjects": _subjects(found["drift"])},
        "drift_by_week": _drift_by_week(seen, life),
        "issue": found["monitor"]["issue"],
        "decision": found["decision"],
        "replay": {key: found["replay"][key] for key in ("records", "alarms", "since", "until")},
        "pull_request": found["pull_request"],
        "live": {
            "before": of_weeks["first"].total(slice(0, still)),
            "after_the_move": of_weeks["first"].total(slice(moved, last)),
            "second": of_weeks["second"].total(slice(last, None)),
            "first_in_its_place": of_weeks["shadow"].total(slice(last, None)),
        },
        "holdout": holdout,
    }
    return Story(content, days, levels, of_weeks, _machine(seen, life, asked))


def _seen(copy: Copy, life: Life) -> Watched:
    bundles = {name: load(copy.build / name) for name in ("first", "second")}
    schema = bundles["first"].schema  # the sensors in the order in which the models know them
    tables = request_log.vouched(read(Sink.at(str(copy.sink), {}), schema))
    tables = tables.select(tables.bounds()[0])  # whole columns, as the compiled kernel takes them
    given = {}
    for name, bundle in bundles.items():
        cli.say(f"  the {name} model answers for all {len(tables.time):,} rows of the log")
        given[name] = bundle.predict(tables)
    step = life.plan.every_hours * HOUR_US
    return Watched(tables, bundles, given, np.arange(life.at(0) + step - HOUR_US, life.at(life.plan.end), step))


def _of_weeks(copy: Copy, seen: Watched, life: Life, asked: Params, settings: JudgeSettings) -> dict[str, ByWeek]:
    """The weeks of the answers that each model gave, and of those that the first would have given in the end."""
    sink, plan = Sink.at(str(copy.sink), dict(os.environ)), life.plan
    given = answers(sink, names=seen.tables.names)
    heads = np.array(given.heads, object)
    of_each = {}
    for name, bundle in seen.bundles.items():
        digest = bundle.manifest.model_digest if bundle.manifest else ""
        mine = given.model == (given.models.index(digest) if digest in given.models else -1)
        of_each[name] = Answered(
            digest, given.machine[mine], given.time[mine], heads[given.head[mine]], given.score[mine], given.alarm[mine]
        )
    late = (seen.given["first"].time >= life.at(plan.retrained)) & np.isin(seen.given["first"].time, seen.asked)
    of_each["shadow"] = _answered(seen.given["first"], seen.bundles["first"], late)
    about = seen.tables, asked.schema, asked.source, settings, life.at(0), -(-plan.end // 7)
    return {name: weeks(one, *about) for name, one in of_each.items()}


def _answered(given: Predictions, bundle: Bundle, rows: NDArray[np.bool_]) -> Answered:
    """Some rows of predictions as answers, sorted as those of the log are."""
    components = np.array(bundle.schema.components, object)
    there = np.array([name in bundle.failures for name in components])
    count, heads = int(rows.sum()), int(there.sum())
    return Answered(
        "",
        np.repeat(given.machine[rows], heads),
        np.repeat(given.time[rows], heads),
        np.tile(components[there], count),
        given.probability[there][:, rows].T.ravel(),
        given.alarm[there][:, rows].T.ravel(),
    )


def _levels(seen: Watched, life: Life) -> tuple[Int64, Float64]:
    """The fleet's mean of each sensor, day by day, in deviations from what it was in the history."""
    tables, known = seen.tables, seen.bundles["first"].schema.sensors
    ours = tables.values[[known.index(sensor) for sensor in life.schema.sensors]]
    history = life.history().values
    middle, spread = history.mean(axis=1), history.std(axis=1)
    day = (tables.time - life.at(0)) // DAY_US
    count = life.plan.end
    kept = (day >= 0) & (day < count)
    number = np.maximum(np.bincount(day[kept], minlength=count), 1)
    sums = np.array([np.bincount(day[kept], values[kept], count) for values in ours])
    return life.at(0) + DAY_US * np.arange(count), (sums / number - middle[:, None]) / spread[:, None]


def _drift_by_week(seen: Watched, life: Life) -> list[str]:
    """What ``make drift`` would have said at the end of each week."""
    drift_reference, schema = seen.bundles["first"].drift_reference, seen.bundles["first"].schema
    score = seen.given["first"].anomaly_score
    looks, said = [], []
    for number in range(life.plan.end // 7):
        start = life.at(0) + number * WEEK_US
        rows = (seen.tables.time >= start) & (seen.tables.time < start + WEEK_US)
        if drift_reference is None or not rows.any():
            said.append("too little data")
            continue
        looks.append(drift.look(drift_reference, seen.tables.rows(rows), score[rows], schema))
        said.append(drift.decide(looks[-2:]).verdict if len(looks) > 1 else "too little data")
    return said


def _subjects(found: Mapping[str, Any]) -> list[str]:
    return sorted({test["subject"] for test in found["moved"]})


def _holdout(copy: Copy, seen: Watched, settings: JudgeSettings) -> dict[str, dict[str, float | None]]:
    """The figures of both models on the machines and the time by which the gate judged them."""
    about = json.loads((copy.build / "data/data.json").read_text(encoding="utf-8"))
    schema = Schema.from_dict(about["schema"])
    tables = sources.read_tables(copy.build / "holdout", schema, {})
    codes = tables.codes(about["judged_from"])
    since = {code: us for code, us in zip(codes, about["judged_from"].values(), strict=True) if code is not None}
    truth = Truth(tables, schema, about["source"], None, since, about["rule"])
    figures: dict[str, dict[str, float | None]] = {}
    for name, bundle in seen.bundles.items():
        predictions: PredictionTable = predict(bundle, tables)
        metrics = judge(predictions, truth, settings)
        figures[name] = {key: metrics["failure"][key] for key in SHOWN}
        figures["of"] = metrics["holdout"]
    return figures


def _machine(seen: Watched, life: Life, asked: Params) -> OneMachine:
    """The held-out machine on which the two models differ most after the world moved, judged by its failures."""
    tables, moved = seen.tables, life.at(life.plan.moved)
    ids, offsets = tables.bounds()
    held = held_out(tables.named(ids), asked.source, asked.split["salt"])
    best, chosen = -np.inf, 0
    for number in np.flatnonzero(held).tolist():
        rows = slice(offsets[number], offsets[number + 1])
        time = tables.time[rows]
        failed = _failures(tables, int(ids[number]), moved)
        ahead, late = np.zeros(len(time), bool), time >= moved
        for at in failed.tolist():
            ahead |= (time < at) & (time >= at - asked.horizon_us)
        worth = {}
        for name, given in seen.given.items():
            alarm = given.alarm[:, rows].any(axis=0) & late
            worth[name] = np.count_nonzero(alarm & ahead) - FALSE_WORTH * np.count_nonzero(alarm & ~ahead)
        if len(failed) >= 2 and worth["second"] - worth["first"] > best:
            best, chosen = worth["second"] - worth["first"], number
    rows = slice(offsets[chosen], offsets[chosen + 1])
    since = tables.time[rows] >= life.at(0)
    return OneMachine(
        str(tables.named(ids[chosen : chosen + 1])[0]),
        tables.time[rows][since],
        {name: np.nanmax(given.probability[:, rows], axis=0)[since] for name, given in seen.given.items()},
        {name: np.asarray(given.alarm[:, rows].any(axis=0))[since] for name, given in seen.given.items()},
        _failures(tables, int(ids[chosen]), life.at(0)),
    )


def _failures(tables: Tables, machine: int, since: int) -> Int64:
    failures = tables.failures
    if failures is None:
        return np.empty(0, np.int64)
    times = failures.time[(failures.machine == machine) & (failures.time >= since)]
    return np.unique(times)


def pictures(story: Story, life: Life) -> dict[str, str]:
    """Return the page's pictures by name, as SVG."""
    plan, one = life.plan, story.machine
    marks = {"the world moves": life.at(plan.moved), "second model": life.at(plan.retrained)}
    delta = story.content["decision"]["delta"]["cost_per_machine_year"]
    return {
        "world": loop_plots.levels(
            story.days, story.levels, life.schema.sensors, story.content["drift_by_week"], marks
        ),
        "weeks": loop_plots.by_week(story.weeks, marks),
        "machine": loop_plots.machine(one.time, one.probability, one.alarm, one.failures, marks),
        "delta": plots.interval(delta["estimate"], delta["low"], delta["high"], "cost per machine-year"),
    }
