"""The tables that judge: what is kept of the held-out machines, and where training ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Tables
from closedloop.judge.split import Split


def holdout(tables: Tables, parts: Split, history_us: int) -> tuple[Tables, dict[str, int]]:
    """The judged machines' tables from one history before their first judged row, and that row's time by machine."""
    judged_from = {
        int(machine): int(tables.time[parts.judged & (tables.machine == machine)].min())
        for machine in np.unique(tables.machine[parts.judged])
    }
    chosen = tables.select(np.array(sorted(judged_from), np.int64))
    start = np.array([judged_from[machine] for machine in chosen.machine.tolist()], np.int64)
    return chosen.rows(chosen.time > start - history_us), {str(key): value for key, value in judged_from.items()}


def last_times(tables: Tables, rows: NDArray[np.bool_]) -> dict[str, int]:
    """The last of these rows of each machine, in microseconds."""
    machine, time = tables.machine[rows], tables.time[rows]
    last = np.append(np.diff(machine) != 0, True)
    return {str(key): value for key, value in zip(machine[last].tolist(), time[last].tolist(), strict=True)}
