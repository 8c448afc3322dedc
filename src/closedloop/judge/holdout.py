"""The tables that judge: what is kept of the held-out machines, and where training ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Tables
from closedloop.judge.split import Split


def holdout(tables: Tables, parts: Split, history_us: int) -> tuple[Tables, dict[str, int]]:
    """The judged machines' tables from one history before their first judged row, and that row's time by machine.

    Machines are called as in the files, as text: keys of JSON.
    """
    rows = np.flatnonzero(parts.judged)  # in the order of machine and time, as the tables
    judged, first = np.unique(tables.machine[rows], return_index=True)
    start = tables.time[rows[first]]
    chosen = tables.select(judged)
    by_name = {str(name): time for name, time in zip(tables.named(judged).tolist(), start.tolist(), strict=True)}
    start = np.repeat(start, np.diff(chosen.bounds()[1]))
    return chosen.rows(chosen.time > start - history_us), by_name


def last_times(tables: Tables, rows: NDArray[np.bool_]) -> dict[str, int]:
    """The last of these rows of each machine, in microseconds; machines as in :func:`holdout`."""
    machine, time = tables.machine[rows], tables.time[rows]
    last = np.append(np.diff(machine) != 0, True)
    named = tables.named(machine[last]).tolist()
    return {str(name): value for name, value in zip(named, time[last].tolist(), strict=True)}
