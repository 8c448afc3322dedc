"""What a person asked for, and what was found in a folder: what the modules of the guess hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from closedloop.data import times
from closedloop.data.kinds import Group
from closedloop.data.reading import FileNames
from closedloop.data.roles import KeyColumns, Long


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
    how files are written; ``faults`` is what must be settled before a run can work, the true cause first.
    """

    files: FileNames = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    sensors: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    aside: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass
class FoundTable:
    """A table that was found: its group, heads and shape, and the settings of ``read:`` that it needs."""

    group: Group
    heads: KeyColumns
    long: Long | None = None
    own: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


def time_settings(found: FoundTable, asked: Asked, result: Guess) -> None:
    """Add how the times are written to the settings of a table, or a question to the faults."""
    group, time = found.group, found.heads.time
    if time is None:
        return
    if found.heads.clock:
        found.own["date_and_time"] = [time, found.heads.clock]
    else:
        found.columns[time] = "datetime"
    form = group.kinds[time].form
    if found.heads.clock and form is not None and form.epoch is None:
        both = (group.rows[time].astype("str") + " " + group.rows[found.heads.clock].astype("str")).rename(time)
        form = times.form_of(both, hinted=True) or form
    if form is None or {"time_format", "epoch"} & set(asked.read):
        return
    if form.other is not None:
        first = group.rows[time].dropna().iloc[0]
        result.faults.append(
            f"{group.name}: {time} has {first}, and day and month cannot be told apart: say which, with "
            f'TIME_FORMAT="{form.time_format}" or TIME_FORMAT="{form.other}"'
        )
    if form.time_format:
        found.own["time_format"] = form.time_format
    if form.epoch:
        found.own["epoch"] = form.epoch
