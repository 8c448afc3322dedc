"""Parts of kind ``log`` of the data pin: the tables of a fleet from the Delta tables that the shipper wrote.

Whoever pins versions of a log writes ``_pins/<id>.json`` into its sink, so that upkeep keeps them readable.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import sources
from closedloop.data.machines import codes_in
from closedloop.data.marks import NOTHING_REPORTED, Marks
from closedloop.data.schema import CODE_COLUMN, DataError, Events, Schema, Tables
from closedloop.log import pins
from closedloop.log.read import Log, read
from closedloop.log.sink import FAULTS, Sink, SinkError, one_line
from closedloop.log.tables import REQUESTS
from model.common import cli, places, provenance

SHOWN = 5  # machines that a message names


def is_log(source: str) -> bool:
    """Return whether a source is an address, or a folder with a shipped log."""
    return "://" in source or (Path(source) / REQUESTS / "_delta_log").is_dir()


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Raise :class:`DataError`, with the place of the log, for whatever goes wrong while it is read."""
    try:
        yield
    except SinkError as error:
        raise DataError(str(error)) from None
    except DataError:
        raise
    except FAULTS as error:
        raise DataError(f"{place}: the log cannot be read: {one_line(error)}") from error


def vouched(log: Log) -> Tables:
    """The tables of a log with the findings of its replacements and the maturity mark of each of its machines."""
    tables = log.tables
    named = [*log.complete_until.named]
    if tables.names is not None:
        names = tuple(sorted({*tables.names, *map(str, named)}))
        tables, named = tables.recoded(names), codes_in(names, map(str, named)).tolist()
    ids = np.union1d(tables.machine, np.array(named, np.int64))
    until = [log.complete_until.of(machine) for machine in tables.named(ids).tolist()]
    marks = Marks(ids, np.array([NOTHING_REPORTED if time is None else time for time in until], np.int64))
    maint = Events.of(tables.maint.machine, tables.maint.time, tables.maint.code, log.findings)
    return replace(tables, maint=maint, marks=marks)


def fetch(
    source: str, schema: Schema, part: Mapping[str, Any] | None = None
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the frames of a log, and the part of a pin that names exactly them.

    Args:
        source: the sink.
        schema: of the fleet.
        part: the part of the pin, for a log as it was at the part's versions.

    Raises:
        DataError: the log cannot be read.
    """
    with reading(source):
        sink = Sink.at(source, os.environ) if part is None else places.sink(part)
        log = read(sink, schema, None if part is None else part["versions"])
    again = f", {log.replayed:,} of them sent again" if log.replayed else ""
    cli.say(f"read {log.records:,} records{again}; later values replaced {len(log.losers):,}")
    if log.impossible_clocks:
        cli.say(
            f"{log.impossible_clocks:,} records were stamped after a later commit: set the clocks of their replicas"
        )
    if log.foreign:
        kind = "numbers" if schema.has_names else "names"
        cli.say(
            f"{log.foreign:,} rows are left out, whose machines have {kind}: schema.machine_id is {schema.machine_id}"
        )
    if log.erased:
        cli.say(f"{log.erased:,} records are left out, as a standing order of erasure says")
    if log.aside:
        names = ", ".join(sorted({f"{row.column} {row.name!r}" for row in log.aside}))
        cli.say(f"kept {len(log.aside):,} rows aside that name what the schema does not have: {names}")
    frames = sources.tables_to_frames(vouched(log), schema)
    return frames, {"kind": "log", "location": source, "versions": log.versions}


def settled(
    frames: Mapping[str, pd.DataFrame], schema: Schema, known: Collection[Any], name: str, *, described: bool = False
) -> dict[str, pd.DataFrame]:
    """Return a log's frames as tables of the machines of a fleet.

    A log cannot be edited. So what would stop every training is left out and named: reports of machines without
    telemetry, such as a misspelt one, and readings outside their sensor's range, which become missing. Machines that no
    request describes get a row without model and age where others are described.

    Args:
        frames: of the log.
        schema: of the fleet.
        known: the machines of other parts of the fleet.
        name: the log, for the message.
        described: whether other parts describe machines.
    """
    own = frames["telemetry"]["machineID"]
    known = {*known, *own.unique().tolist()}
    kept, lost = dict(frames) | {"telemetry": _plausible(frames["telemetry"], schema, name)}, {}
    for table in (table for table in CODE_COLUMN if table in frames):
        there = frames[table]["machineID"].isin(known)
        kept[table] = frames[table][there].reset_index(drop=True)
        if not there.all():
            lost[table] = {*frames[table]["machineID"][~there].tolist()}
    if lost:
        ids = sorted(set().union(*lost.values()))
        some = ", ".join(map(str, ids[:SHOWN])) + ", …" * (len(ids) > SHOWN)
        one = len(ids) == 1
        cli.say(
            f"warning: {name}: {' and '.join(lost)} name{'s' * (len(lost) == 1)} {len(ids):,} machine{'s' * (not one)} "
            f"without telemetry, which {'is' if one else 'are'} left out: {some}; where an id is wrong, retract the "
            "event with /feedback and report it again"
        )
    machines = frames["machines"]
    if described or len(machines):
        new = pd.Series(own.unique(), dtype=machines["machineID"].dtype)
        new = new[~new.isin(machines["machineID"])]
        rows = pd.DataFrame({"machineID": new}).reindex(columns=machines.columns)
        rows = rows.astype(machines.dtypes.to_dict())
        kept["machines"] = pd.concat([machines, rows]).sort_values("machineID", ignore_index=True)
    return kept


def _plausible(telemetry: pd.DataFrame, schema: Schema, name: str) -> pd.DataFrame:
    """The telemetry of a log without the readings outside their sensor's range, each sensor of which is named."""
    inside = {}
    for sensor, (low, high) in zip(schema.sensors, schema.ranges, strict=True):
        readings = telemetry[sensor]
        if count := int(((readings < low) | (readings > high)).sum()):
            inside[sensor] = readings.where(readings.between(low, high))
            one = count == 1
            cli.say(
                f"warning: {name}: {count:,} reading{'s' * (not one)} of {sensor} lie{'s' * one} outside its range "
                f"{low:g} to {high:g}, and count{'s' * one} as missing; if they are right, widen "
                f"schema.sensors.{sensor} in params.yaml"
            )
    return telemetry.assign(**inside)


def pin_id(part: Mapping[str, Any], kind: str = "data") -> str:
    """Return the id of a part's pin in the sink: equal versions have an equal id, whoever pins them.

    A person pins ``data-…`` with make data-pin; ``python -m model.log_pins`` keeps ``main-…``, ``proposal-…`` and
    ``release-…`` up to date.
    """
    return f"{kind}-" + hashlib.sha256(json.dumps(part["versions"], sort_keys=True).encode()).hexdigest()[:12]


def keep(part: Mapping[str, Any]) -> None:
    """Write the part's pin into the sink.

    Raises:
        DataError: the sink refuses it, or lacks a version.
    """
    versions = {table: version for table, version in part["versions"].items() if version is not None}
    name = pin_id(part)
    try:
        pins.put(places.sink(part), pins.Pin(name, "main", versions, provenance.commit()))
    except (SinkError, *FAULTS) as error:
        raise DataError(
            f"{part['location']}/_pins/{name}.json: cannot be written ({one_line(error)}), so upkeep may remove these "
            "versions; pin with an identity that may write to the sink"
        ) from error


def release(part: Mapping[str, Any], name: str) -> None:
    """Remove a pin from the part's sink.

    Raises:
        DataError: the pin is not there, or the sink refuses.
    """
    try:
        there = pins.remove(places.sink(part), name)
    except (SinkError, *FAULTS) as error:
        raise DataError(f"{part['location']}/_pins/{name}.json: cannot be removed ({one_line(error)})") from error
    if not there:
        raise DataError(f"{part['location']}: has no pin {name!r}; make log-status lists the pins")
