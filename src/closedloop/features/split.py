"""Who trains and who judges: a rule that needs no list, so that seeds, files and logs of one fleet agree for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import DataError, Int64, Tables

HELD_OUT_FROM = 0.7


@dataclass(frozen=True, eq=False)
class Split:
    """Telemetry rows that may train and rows that judge, as masks over the tables' rows; the rest do neither.

    ``training_machines`` are the machines of the training rows; ``cut_us`` is None where time is not split.
    """

    training: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    training_machines: Int64
    cut_us: int | None


def held_out(machine_ids: Int64, source: str, salt: str) -> NDArray[np.bool_]:
    """Whether each machine is held out: its hash with salt and source lies in the last 30 % of the range."""

    def share(machine: int) -> float:
        return int.from_bytes(hashlib.sha256(f"{salt}:{source}:{machine}".encode()).digest()[:8]) / 2**64

    return np.array([share(machine) >= HELD_OUT_FROM for machine in machine_ids.tolist()], bool)


def cut_us(tables: Tables) -> int:
    """Start of the last third of the telemetry's time.

    Raises:
        DataError: there is no telemetry.
    """
    if not len(tables.time):
        raise DataError("telemetry: no rows, so no time to split")
    first, last = int(tables.time.min()), int(tables.time.max())
    return first + (last - first) * 2 // 3


def fit_until_us(cut: int, horizon_us: int, history_us: int) -> int:
    """Last time of a training row: neither its label nor a judged row's features then look across the cut."""
    return cut - (horizon_us + history_us)
