"""Check the files in a folder, say what does not fit and how to fix it, and propose a parameter file for them.

The folder may hold files PdM_<table>, a public set, or text files, workbooks and Parquet files of your own. How they
are written, which is which table and which column is which is guessed from their content and printed; the flags go
before the guess. With --params the data is checked against that file, and nothing is guessed or written. Exits 0 where
a run would work, 1 where a run would refuse the data or something must be said first.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from closedloop.data import adapters, expectations, reading, sources
from closedloop.data.frames import Frames, convert, one_line, wanted
from closedloop.data.guess import guess
from closedloop.data.kinds import plain_id
from closedloop.data.machines import NUMBER, TEXT
from closedloop.data.proposed import Asked, Guess
from closedloop.data.schema import CODE_COLUMN, KEYS, DataError, Schema, Tables, microseconds
from closedloop.judge.holdout import holdout
from closedloop.judge.split import split
from closedloop.judge.truth import Grid, Intervals, JudgeSettings, Truth
from model.common import cli, examine, params, proposed_params, starting_params
from model.common.proposed_params import Fleet
from model.common.time_scaling import LEAST_HISTORY
from model.common.training import headless

SHOWN = 3  # fixes that are printed


@dataclass
class Check:
    """What was found in a folder: ``lines`` to print, ``faults`` that a run would refuse, and ``advice``."""

    frames: Frames = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    anomalies: pd.DataFrame | None = None


def propose(
    location: Path, asked: params.Params, before: params.Params | None, check: Check, told: Asked
) -> Fleet | None:
    """Read the folder, recognised or guessed; return the parameters that fit it, or None where it has no telemetry.

    ``before`` is the last proposal: what it or ``asked`` declares of the same fleet's machines stays. ``told`` goes
    before any guess.

    Raises:
        DataError: there is no such folder, or a file cannot be read.
    """
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; give the folder that holds your tables")
    public = None if "telemetry" in sources.native(location) else adapters.read(location)
    if public is not None:
        check.lines.append(f"{location} is the public set {public.format}\n")
        check.frames, check.anomalies = public.frames, public.anomalies
        minutes: Any = public.schema["sampling_minutes"]
        history = proposed_params.history_of(public.frames["telemetry"], asked, public.split, minutes)
        return Fleet(public.format, public.schema, public.split, history)
    found = guess(location, told)
    _say(found, check)
    check.faults += found.faults
    if "telemetry" not in found.columns:
        return None
    source = proposed_params.fleet_name(location)
    kind = _machine_id(location, found, declared(source, asked, before), check)
    _read(location, found, kind, told, check)
    telemetry = check.frames["telemetry"]
    if faults := [n for n in ("datetime", "machineID") if convert(telemetry[n], wanted("telemetry", n, kind))[1].any()]:
        schema = Schema(tuple(found.sensors), (), (), (), 60, ((-np.inf, np.inf),) * len(found.sensors), kind)
        check.faults += expectations.validate({"telemetry": telemetry}, schema).failures or [f"telemetry: {faults}"]
        return None
    if (why := examine.doubled(telemetry, found.read)) is not None:
        check.faults.append(why)
    notes: dict[str, str] = {}
    schema_of = proposed_params.schema_of(check.frames, found.sensors, notes, kind)
    rule, why_rule = proposed_params.split_of(telemetry["machineID"], source, asked.split["salt"])
    check.lines.append(f"split.rule {rule['rule']}: {why_rule}")
    history = proposed_params.history_of(telemetry, asked, rule, schema_of["sampling_minutes"])
    return Fleet(source, schema_of, rule, history, found.files, found.columns, found.read, notes)


def _say(found: Guess, check: Check) -> None:
    """Add what was guessed: which file is which table, how it is written, and what is set aside."""
    aside = {name: list(lines) for name, lines in found.aside.items()}
    for table in (table for table in (*KEYS, "anomalies") if table in found.columns):
        mapped = [f"{theirs} is {ours}" for theirs, ours in found.columns[table].items()]
        own = found.read | found.read.get(table, {})
        if "date_and_time" in own and table != "machines":
            mapped.insert(0, f"{' and '.join(own['date_and_time'])} together are datetime")
        if table == "telemetry" and "tag" in own:
            mapped.append(f"{own['tag']} names the sensor, {own['value']} is its reading")
        if "flag" in own:
            mapped.append(f"{own['flag']} marks them")
        check.lines.append(f"{found.names[table]} is {table}" + (f": {', '.join(mapped)}" if mapped else ""))
        if said := [*found.said.get(table, []), *_times(own)]:
            check.lines.append(f"    {', '.join(said)}")
        if table == "telemetry":
            check.lines.append(f"    sensors: {', '.join(found.sensors)}")
            check.lines += [f"    {line}" for line in found.said.get("machines", []) if "machine" not in found.read]
            check.lines += [f"    {line}" for line in found.said.get("machines", []) if "machine" in found.read]
        if table != "anomalies":
            check.lines += [f"    {line}" for line in aside.pop(found.names[table].split(" and ")[0], [])]
    check.lines += [f"{name} is not used: {line}" for name, lines in aside.items() for line in lines]
    check.lines.append("")


def _times(own: Mapping[str, Any]) -> list[str]:
    """Return how times and ages are written, where it is worth a word."""
    said = []
    if own.get("epoch"):
        unit = {
            "s": "seconds",
            "ms": "milliseconds",
            "us": "microseconds",
            "ns": "nanoseconds",
            "excel": "Excel's days",
        }
        said.append(f"times are {unit[own['epoch']]}{' since 1970' if own['epoch'] != 'excel' else ''}")
    if own.get("time_format"):
        said.append(f"times as {own['time_format']}")
    if own.get("age_in"):
        said.append(f"ages are counted in {own['age_in']} from the year built (read.machines.age_in)")
    if own.get("time_zone"):
        said.append(f"local times of {own['time_zone']}")
    return said


def _read(location: Path, found: Guess, machine_id: str, told: Asked, check: Check) -> None:
    """Read the tables as guessed; propose as missing what stands for a missing reading, and read again without it."""
    done: list[str] = []
    check.frames = sources.read_frames(location, found.columns, found.files, machine_id, found.read, done)
    odd, said = examine.sentinels(check.frames["telemetry"], found.sensors)
    check.advice += said
    if odd and "missing" not in told.read:
        numbers_of = [int(text) if text.lstrip("-").isdigit() else float(text) for text in odd]
        found.read["missing"] = [*found.read.get("missing", []), *numbers_of]
        check.frames = sources.read_frames(location, found.columns, found.files, machine_id, found.read)
    for name in found.sensors:
        if name not in check.frames["telemetry"]:
            raise DataError(
                f"telemetry has no column {name!r}; it has {', '.join(map(str, check.frames['telemetry'].columns))}"
            )
    check.lines += done
    check.anomalies = sources.read_anomalies(location, found.files, found.columns, machine_id, found.read)
    check.advice += examine.remarks(check.frames["telemetry"], found.sensors)


def declared(source: str, asked: params.Params, before: params.Params | None) -> str | None:
    """Return what is declared already of the machines of a fleet: numbers or names; None where nothing is."""
    if asked.source == source:
        return asked.schema.machine_id
    return None if before is None or before.source != source else before.raw["schema"].get("machine_id")


def _machine_id(location: Path, found: Guess, said: str | None, check: Check) -> str:
    """Return whether machines have numbers or names: as declared, else names where an id is no plain whole number."""
    names = sorted(sources.machine_names(location, found.columns, found.files, found.read))
    kind = said or (NUMBER if all(plain_id(name) for name in names) else TEXT)
    if kind == TEXT:
        why = "as declared" if said else "not all of them are plain whole numbers"
        few = ", ".join(one_line(name, 60) for name in names[:4]) + ", …" * (len(names) > 4)
        check.lines.append(f"machines have names (schema.machine_id: text), {why}: {few}")
    return kind


def describe(frames: Frames, schema: Schema) -> list[str]:
    """Return one or two lines on each table."""
    telemetry = frames["telemetry"]
    times, machines = telemetry["datetime"].dropna(), telemetry["machineID"].nunique()
    lines = [
        f"telemetry: {len(telemetry):,} rows of {_many(machines, 'machine')}, {times.min():%Y-%m-%d %H:%M} to "
        f"{times.max():%Y-%m-%d %H:%M}, one every {_many(schema.sampling_minutes, 'minute')}"
    ]
    steps = proposed_params.steps_minutes(telemetry)
    gaps = steps[steps > schema.sampling_minutes]
    if proposed_params.irregular(telemetry):
        low, high = steps.quantile([0.05, 0.95])
        lines.append(f"    irregular: {low:.3g} to {high:.3g} minutes between most rows; the period is their median")
    elif len(gaps):
        lines.append(f"    {_many(len(gaps), 'gap')}, the longest {gaps.max() / 60:,.1f} hours")
    missing = telemetry[[name for name in schema.sensors if name in telemetry]].isna().mean()
    if said := [f"{name} {share:.1%}" for name, share in missing.items() if share > 0]:
        lines.append(f"    missing readings: {', '.join(said)}")
    for table, code in CODE_COLUMN.items():
        if table in frames and code in frames[table]:
            counts = frames[table][code].value_counts()
            most = ", ".join(f"{name} {count:,}" for name, count in counts.head(8).items())
            lines.append(f"{table}: {len(frames[table]):,} rows: {most}{', …' * (len(counts) > 8)}")
        elif table not in frames:
            lines.append(f"{table}: none")
    machines = len(frames["machines"]) if "machines" in frames else 0
    return [*lines, f"machines: {machines:,} described" if machines else "machines: none described"]


def _many(count: int, what: str) -> str:
    """Return a count with its word, in the plural where it is not 1."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def outlook(tables: Tables, asked: params.Params, source: str, check: Check) -> None:
    """Add what a run would do with valid tables: who trains, who judges, and which heads there are."""
    history_us = microseconds(asked.features["history_hours"])
    rule, salt, prefix = (asked.split[key] for key in ("rule", "salt", "prefix"))
    parts = split(tables, source, salt, rule, asked.horizon_us, history_us, prefix)
    for rows, what in ((parts.training, "train on"), (parts.judged, "judge by")):
        if not rows.any():
            check.faults.append(f"split.rule {rule} leaves no row to {what}; give a longer time or more machines")
            return
    each = int(parts.training.sum()) // len(parts.training_machines)
    if each < 2 * LEAST_HISTORY:
        check.faults.append(f"{each} training rows for each machine are too few; give a longer time")
        return
    settings = JudgeSettings.from_params(asked.raw)
    learned = Grid.of(Truth(tables.rows(parts.training), asked.schema, source), settings)
    check.lines.append(
        f"training: {_many(len(parts.training_machines), 'machine')}, {int(parts.training.sum()):,} rows, "
        f"{learned.years.sum():.2f} machine-years; a row looks back {asked.features['history_hours']:.4g} hours"
    )
    heads = _heads(learned, tables.failures is not None, asked, check)
    kept, since = holdout(tables, parts, history_us)
    intervals = None if check.anomalies is None else Intervals.of(check.anomalies, tables.names)
    judged_from = {code: us for code, us in zip(kept.codes(since), since.values(), strict=True) if code is not None}
    grid = Grid.of(Truth(kept, asked.schema, source, intervals, judged_from, rule), settings)
    gate, what = settings.gate, "failures" if grid.supervised else "labelled anomalies"
    enough = len(grid.ids) >= gate["minimum_machines"] and grid.event_count >= gate["minimum_failures"]
    needed = f"the gate needs {gate['minimum_machines']} machines and {gate['minimum_failures']} {what}"
    verdict = "the gate can judge" if enough else f"figures are shown, but the gate does not judge: {needed}"
    check.lines.append(f"held out: {_many(len(grid.ids), 'machine')} with {grid.event_count} {what}: {verdict}")
    if enough and grid.supervised and not heads:  # the gate refuses that model, and so its run
        more = ", or let more rows train (split.prefix in the proposal, then PARAMS=)" * (rule == "prefix")
        check.faults.append(
            f"{grid.event_count} failures are held out, and no component has failed often enough in training for a "
            f"head to foresee them, so the gate would refuse the model: give a longer time, or give similar failures "
            f"one name{more}; until then a run without the table of failures trains the anomaly head"
        )
    elif tables.failures is not None and not heads:
        check.advice.append("too few failures to learn from: give a longer time, or give similar failures one name")
    if not enough and (grid.supervised or intervals is not None):
        check.advice.append(f"{needed} in the holdout: give more machines or a longer time")


def _heads(learned: Grid, failures: bool, asked: params.Params, check: Check) -> list[str]:
    """Return the components that get a head, and say why others get none. ``failures``: whether there is a table."""
    if not failures:
        check.lines.append("anomaly-only: without a table of failures a run trains only the anomaly head")
        check.advice.append(
            "no failures are known, so no head can learn to foresee them: add a table of time, machine and component, "
            "or say which rows of a log are failures, such as FAILURES=level=ERROR"
        )
        return []
    reasons = {name: headless(learned, c, asked) for c, name in enumerate(asked.schema.components)}
    heads = [name for name, reason in reasons.items() if reason is None]
    check.lines.append(f"failure heads, {asked.labels['horizon_hours']:.4g} hours ahead: {', '.join(heads) or 'none'}")
    if without := [f"{name} ({reason})" for name, reason in reasons.items() if reason is not None]:
        check.lines.append(f"    no head for {', '.join(without)}")
    if not heads:
        check.lines.append("anomaly-only in effect: no component has failed often enough for a head")
    return heads


def judge(check: Check, asked: params.Params, source: str) -> None:
    """Check the frames against the expectations of a run, and where they pass add what the run would do."""
    times = check.frames["telemetry"].get("datetime")
    if times is not None and times.dtype.kind == "M" and "machineID" in check.frames["telemetry"]:
        check.lines += describe(check.frames, asked.schema)
        steps = proposed_params.steps_minutes(check.frames["telemetry"])
        if len(steps) and float(steps.median()) < 1:
            check.faults.append(
                f"readings come every {60 * steps.median():.3g} seconds, and a schema has whole minutes: "
                "give one row for each minute, such as the mean of its readings"
            )
    found = expectations.validate(check.frames, asked.schema)
    endless = examine.infinite(check.frames["telemetry"], asked.schema.sensors)
    check.faults += endless.values()
    known = [f"telemetry.{name}: is outside its range" for name in endless]
    if any("repeat the time of another row" in fault for fault in check.faults):  # its cause is named already
        known.append("telemetry.machineID, datetime: the key occurs more than once")
    check.faults += [line for line in found.failures if not line.startswith(tuple(known))]
    uneven = proposed_params.irregular(check.frames["telemetry"]) if not check.faults else False
    check.advice += [line for line in found.warnings if not (uneven and line.startswith("telemetry.datetime"))]
    if not check.faults:
        check.lines.append("")
        check.advice += examine.elsewhen(check.frames)
        outlook(sources.frames_to_tables(check.frames, asked.schema, {}), asked, source, check)


def _earlier(path: Path, check: Check) -> params.Params | None:
    """Return the last proposal, or None where there is none that can be read: it is written anew in any case."""
    try:
        return params.load(path) if path.exists() else None
    except DataError as error:
        check.lines.append(f"the earlier proposal cannot be read and is replaced ({error})")
        return None


FLAGS = {  # of the command line, and so of make: the words of its help
    "time": "the column of the time, or those of date and time, with a comma",
    "machine": "the column of the machine; file: each file is one; one: there is one",
    "sensors": "the columns of the sensors, with commas",
    "failures": "the rows that are failures, such as wo_type=CM",
    "maint": "the rows that are maintenance, such as wo_type=PM",
    "time_zone": "the zone of times without an offset, such as Europe/Berlin",
    "time_format": "the format of times, such as %%d.%%m.%%Y %%H:%%M",
    "epoch": f"the unit of times that are numbers: {', '.join(reading.EPOCHS)}",
    "separator": "what separates the columns",
    "decimal": "the decimal mark",
    "thousands": "the thousands mark",
    "encoding": "the encoding of text files, such as cp1252",
    "skip_lines": "the lines before the names of the columns",
    "missing": "values that stand for a missing reading, with commas",
}


def _told(args: Any) -> Asked:
    """Return what the command line says of the files."""
    own = {name: value for name in FLAGS if (value := getattr(args, name)) is not None}
    read: dict[str, Any] = {key: own[key] for key in reading.KNOWN if key in own}
    if "missing" in read:
        read["missing"] = [text.strip() for text in read["missing"].split(",")]
    if "skip_lines" in read:
        read["skip_lines"] = int(read["skip_lines"])
    sensors = [name.strip() for name in own.get("sensors", "").split(",") if name.strip()]
    return Asked(own.get("time"), own.get("machine"), sensors, own.get("failures"), own.get("maint"), read)


def main(words: list[str]) -> int:
    """Print what was found, and write build/data-check/params.yaml."""
    flags = cli.parser(__doc__, out=cli.BUILD / "data-check", writes="folder of the proposed params.yaml")
    flags.add_argument("--source", type=Path, metavar="PATH", required=True, help="folder of the files to check")
    for name, what in FLAGS.items():
        kind = int if name == "skip_lines" else str
        flags.add_argument(f"--{name.replace('_', '-')}", metavar=name.upper(), type=kind, help=what)
    args = flags.parse_args(words)
    asked, check = params.load(args.params), Check()
    data = f"DATA={shlex.quote(str(args.source))}"
    told = "".join(
        f" {name.upper()}={shlex.quote(str(value))}" for name in FLAGS if (value := getattr(args, name)) is not None
    )
    target, again = args.params, f"make data-check {data}{told}"
    if args.params.resolve() == params.PARAMS.resolve():
        target = args.out / "params.yaml"
        fleet = propose(args.source, starting_params.load(), _earlier(target, check), check, _told(args))
        if fleet is not None:
            asked = proposed_params.write(fleet, target)
            judge(check, asked, fleet.source)
    else:
        again += f" PARAMS={shlex.quote(str(args.params))}"
        check.frames = sources.read_frames(
            args.source, asked.columns, asked.files, asked.schema.machine_id, asked.read, check.lines
        )
        check.anomalies = sources.read_anomalies(
            args.source, asked.files, asked.columns, asked.schema.machine_id, asked.read
        )
        judge(check, asked, asked.source)
    print("\n".join(map(one_line, check.lines)))
    fixes = [*map(one_line, check.faults + check.advice)]
    if fixes:
        print(f"\nwhat to fix{f', the first {SHOWN} of {len(fixes)}' * (len(fixes) > SHOWN)}:")
        print("\n".join(f"  {number}. {fix}" for number, fix in enumerate(fixes[:SHOWN], start=1)))
    also = f" PARAMS={shlex.quote(str(target))}"
    if check.faults:
        print(f"\nrefused: a run would stop. Fix it, then: {again}")
        return cli.REFUSED
    adopted = also if target == args.params else told
    print(f"\nfits: make adopt {data}{adopted} makes it this copy's fleet; to only try it: make run {data}{also}")
    return cli.DONE


if __name__ == "__main__":
    cli.main(main)
