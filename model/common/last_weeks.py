"""The last two weeks of some tables against what a bundle learned from: what moved, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from closedloop.data import sources
from closedloop.data.frames import NAME_COLUMN, Frames, known_names
from closedloop.data.machines import Id
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError, Float64, Schema, Tables
from closedloop.heads.bundle import Bundle
from closedloop.heads.drift_reference_fit import DAY_US, day_means
from closedloop.judge.split import held_out
from closedloop.report import monitor_page
from closedloop.watch import drift
from model.common import cli

LOOKS = 2
LOOK_US = drift.LOOK_DAYS * DAY_US


def known_only(frames: Frames, schema: Schema) -> tuple[Frames, list[str]]:
    """Return the frames without codes that the schema lacks, and those names; a machine of such a model has none."""
    kept, found = dict(frames), set()
    for table, names in known_names(schema).items():
        if table not in frames:
            continue
        column = frames[table][NAME_COLUMN[table]].astype("str").where(frames[table][NAME_COLUMN[table]].notna())
        unknown = column.notna() & ~column.isin(names)
        found |= {f"{table}.{NAME_COLUMN[table]} {name!r}" for name in column[unknown].unique()}
        kept[table] = (
            frames[table].assign(**{NAME_COLUMN[table]: column.where(~unknown)})
            if table == "machines"
            else frames[table][~unknown]
        )
    return kept, sorted(found)


def weeks(tables: Tables, period_us: int) -> list[tuple[int, int]]:
    """Return start and end of the last two weeks of whole UTC days, the older one first."""
    end = (int(tables.time.max()) + period_us) // DAY_US * DAY_US
    return [(end - n * LOOK_US, end - (n - 1) * LOOK_US) for n in range(LOOKS, 0, -1)]


def during(tables: Tables, start: int, end: int) -> tuple[Tables, Any]:
    """Return the rows of a stretch of time, and which rows of the tables they are."""
    rows = (tables.time >= start) & (tables.time < end)
    return tables.rows(rows), rows


def new_machines(bundle: Bundle, tables: Tables, split: Mapping[str, Any]) -> list[Id]:
    """Return the machines whose telemetry begins after the training of the bundle had ended.

    Those that ``split`` of the parameters holds out are none: a log may begin later than training ended, and the bundle
    does not name them.
    """
    ids, offsets = tables.bounds()
    if split["rule"] != "prefix":
        for source in bundle.training.machines:
            kept = ~held_out(tables.named(ids), source, split["salt"])
            ids, offsets = ids[kept], np.append(offsets[:-1][kept], offsets[-1])
    last = np.datetime64(bundle.training.period[1].removesuffix("Z"), "us").astype(np.int64)
    later = tables.named(ids[tables.time[offsets[:-1]] > last]).tolist()
    return [machine for machine in later if machine not in trained(bundle)]


def trained(bundle: Bundle) -> list[Id]:
    """Return the training machines, sorted."""
    return sorted({machine for of_one in bundle.training.machines.values() for machine in of_one})


def as_referred_to(bundle: Bundle, tables: Tables) -> Tables:
    """Return the tables with machines as the drift reference has them: a name is its position among those trained on.

    Others are left out where machines have names. The drift reference does not know them, so they are not tested.
    """
    if tables.names is None:
        return tables
    names = tuple(str(machine) for machine in trained(bundle))
    return tables.select(np.flatnonzero(np.isin(tables.names, names))).recoded(names)


def report(bundle: Bundle, frames: Frames, split: Mapping[str, Any]) -> tuple[drift.Drift, list[dict[str, Any]]]:
    """Return the verdict on the last two weeks of these frames, and a picture of each column that moved.

    ``split`` is the section of the parameters that says which machines are held out.

    Raises:
        DataError: the bundle has no drift reference, or the tables have no telemetry.
    """
    schema, drift_reference = bundle.schema, bundle.drift_reference
    if drift_reference is None:
        raise DataError("the bundle has no drift reference; train it again")
    kept, names = known_only(frames, schema)
    tables = sources.frames_to_tables(kept, schema, {})
    if not len(tables.time):
        raise DataError("telemetry: it has no rows; name tables with --data")
    spans = weeks(tables, schema.period_us)
    recent, _ = during(as_referred_to(bundle, tables), spans[0][0] - bundle.spec.history_us, spans[-1][1])
    cli.say(f"looking at {to_text(spans[0][0])} to {to_text(spans[-1][1])}, {len(recent.bounds()[0])} machines")
    score = None if bundle.anomaly is None else bundle.predict(recent).anomaly_score
    looks, seen = [], []
    for start, end in spans:
        week, rows = during(recent, start, end)
        own = None if score is None else score[rows]
        looks.append(drift.look(drift_reference, week, own, schema))
        seen.append((week, own))
    found = drift.decide(looks, new_machines(bundle, tables, split), names)
    return found, pictures(found, bundle, *seen[-1])


def pictures(found: drift.Drift, bundle: Bundle, week: Tables, score: Float64 | None) -> list[dict[str, Any]]:
    """Return the machine-day means of each column that moved, before and now."""
    drift_reference, schema = bundle.drift_reference, bundle.schema
    names = [*schema.sensors, "anomaly score"]
    moved = sorted({test.subject for test in found.moved} & set(names), key=names.index)
    if drift_reference is None or not moved:
        return []
    values = [*week.values, *([] if score is None else [score])]
    _, _, means = day_means(week, values, schema)
    return [
        monitor_page.before_and_now(name, drift_reference.day_means[names.index(name)], means[names.index(name)])
        for name in moved
    ]


def as_json(found: drift.Drift, bundle_digest: str) -> dict[str, Any]:
    """Return the verdict as JSON, times as texts."""
    result = found.to_dict() | {"bundle_digest": bundle_digest}
    for one in result["looks"]:
        one["start"], one["end"] = to_text(one.pop("start_us")), to_text(one.pop("end_us"))
    return result
