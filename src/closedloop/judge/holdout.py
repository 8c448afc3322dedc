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
    judged_from = {
        int(machine): int(tables.time[parts.judged & (tables.machine == machine)].min())
        for machine in np.unique(tables.machine[parts.judged])
    }
    chosen = tables.select(np.array(sorted(judged_from), np.int64))
    start = np.array([judged_from[machine] for machine in chosen.machine.tolist()], np.int64)
    named = tables.named(np.array(list(judged_from), np.int64)).tolist()
    by_name = {str(name): time for name, time in zip(named, judged_from.values(), strict=True)}
    return chosen.rows(chosen.time > start - history_us), by_name


def last_times(tables: Tables, rows: NDArray[np.bool_]) -> dict[str, int]:
    """The last of these rows of each machine, in microseconds; machines as in :func:`holdout`."""
    machine, time = tables.machine[rows], tables.time[rows]
    last = np.append(np.diff(machine) != 0, True)
    named = tables.named(machine[last]).tolist()
    return {str(name): value for name, value in zip(named, time[last].tolist(), strict=True)}
