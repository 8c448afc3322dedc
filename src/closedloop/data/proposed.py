"""What a person asked for, and what was found in a folder: what the modules of the guess hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from closedloop.data import reading, times
from closedloop.data.kinds import Group
from closedloop.data.reading import FileNames
from closedloop.data.roles import KeyColumns, Long

TIMES = ("time_format", "epoch")


@dataclass
class Asked:
    """What a person has said of the files, which goes before any guess. ``read`` holds keys of ``read:``.

    ``failures`` and ``maint`` are a column and its values, such as ``wo_type=CM``.
    """

    time: str | None = None
    machine: str | None = None
    sensors: list[str] = field(default_factory=list)
    failures: str | None = None
    maint: str | None = None
    read: dict[str, Any] = field(default_factory=dict)


@dataclass
class Guess:
    """The proposal for a folder: ``files``, ``columns`` and ``read`` as in ``params.yaml``, and the sensors.

    ``names`` says of each table what its files are called. ``aside`` says what is not used and why, by file; ``said``
    how files are written; ``faults`` is what must be settled before a run can work, the true cause first. ``units`` are
    those of the numbers that are times in any of the files. ``heeded`` are the keys of times that a person said and
    that hold for a table.
    """

    files: FileNames = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    sensors: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    aside: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    units: set[str] = field(default_factory=set)
    heeded: set[str] = field(default_factory=set)


@dataclass
class FoundTable:
    """A table that was found: its group, heads and shape, and the settings of ``read:`` that it needs."""

    group: Group
    heads: KeyColumns
    long: Long | None = None
    own: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


def time_settings(found: FoundTable, asked: Asked, result: Guess) -> None:
    """Add how the times are written to the settings of a table, or a question to the faults.

    What a person has said of times holds for the tables whose times it can read; the others keep their own form.
    """
    group, time = found.group, found.heads.time
    if time is None:
        return
    if found.heads.clock:
        found.own["date_and_time"] = [time, found.heads.clock]
    else:
        found.columns[time] = "datetime"
    form = group.kinds[time].form
    texts = group.rows[time]
    if found.heads.clock and form is not None and form.epoch is None:
        texts = (texts.astype("str") + " " + group.rows[found.heads.clock].astype("str")).rename(time)
        form = times.form_of(texts, hinted=True) or form
    said = {key: asked.read[key] for key in TIMES if key in asked.read}
    if said and times.holds(texts, form, reading.settings(said, "telemetry"), result.units):
        found.own |= said
        result.heeded |= set(said)
        return
    if form is None:
        return
    time_format = form.time_format
    if form.other is not None:
        time_format = times.in_order(form, said.get("time_format"))
        result.heeded |= {"time_format"} if time_format else set()
    if form.other is not None and time_format is None:
        result.faults.append(
            f"{group.name}: {time} has {group.rows[time].dropna().iloc[0]}, and day and month cannot be told apart: "
            f'say which, with TIME_FORMAT="{form.time_format}" or TIME_FORMAT="{form.other}"'
        )
    if time_format or form.time_format:
        found.own["time_format"] = time_format or form.time_format
    if form.epoch:
        found.own["epoch"] = form.epoch
