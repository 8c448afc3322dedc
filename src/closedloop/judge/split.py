"""Which machines and rows train, and which judge: a rule without a list, the same for every source of a fleet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closedloop.data.machines import Id
from closedloop.data.schema import DataError, Int64, Tables

HELD_OUT_FROM = 0.7
PREFIX = 1 / 3  # of each machine's rows, where ``split.prefix`` does not say


@dataclass(frozen=True, eq=False)
class Split:
    """Telemetry rows that train and rows that judge, as masks over the tables' rows; some do neither.

    ``training_machines`` are the machines of the training rows, as in the tables; ``cut_us`` is None where time is not
    split.
    """

    training: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    training_machines: Int64
    cut_us: int | None


def held_out(machine_ids: Int64 | NDArray[np.object_], source: str, salt: str) -> NDArray[np.bool_]:
    """Whether each machine is held out: its hash with salt and source lies in the last 30 % of the range.

    ``machine_ids`` are numbers or names, as objects. The hash takes the name, so it does not depend on other machines.
    """

    def share(machine: Id) -> float:
        return int.from_bytes(hashlib.sha256(f"{salt}:{source}:{machine}".encode()).digest()[:8]) / 2**64

    return np.array([share(machine) >= HELD_OUT_FROM for machine in machine_ids.tolist()], bool)


def cut_us(tables: Tables) -> int:
    """Start of the last third of the telemetry's time.

    Raises:
        DataError: there is no telemetry.
    """
    if not len(tables.time):
        raise DataError("telemetry: it has no rows, so there is no time to split")
    first, last = int(tables.time.min()), int(tables.time.max())
    return first + (last - first) * 2 // 3


def fit_until_us(cut: int, horizon_us: int, history_us: int) -> int:
    """Last time of a training row, so that neither its label nor a judged row's features look across the cut."""
    return cut - (horizon_us + history_us)


def split(
    tables: Tables, source: str, salt: str, rule: str, horizon_us: int, history_us: int, prefix: float = PREFIX
) -> Split:
    """Divide the telemetry rows of a fleet.

    Under ``fleet`` machines that are not held out train up to the cut less horizon and history, and held-out machines
    judge from the cut on. Under ``unit`` whole machines train or judge. Under ``prefix`` each machine trains on its own
    first rows and judges on the rest: ``prefix`` is a share of them where it is below 1, else their number. Where
    failures are known, the last of them whose horizon reaches into the judged rows do neither.

    Raises:
        DataError: the rule is unknown.
    """
    ids, offsets = tables.bounds()
    rows = np.diff(offsets)
    held = np.repeat(held_out(tables.named(ids), source, salt), rows)
    cut: int | None = None
    if rule == "fleet":
        cut = cut_us(tables)
        training = ~held & (tables.time <= fit_until_us(cut, horizon_us, history_us))
        judged = held & (tables.time >= cut)
    elif rule == "unit":
        training, judged = ~held, held
    elif rule == "prefix":
        share = (rows * prefix).astype(np.int64) if prefix < 1 else np.full(len(rows), int(prefix))
        judged_at = offsets[:-1] + np.maximum(share, 1)
        training = np.arange(len(tables.time)) < np.repeat(judged_at, rows)
        judged = ~training
        if tables.failures is not None:  # no label may foresee a failure that judges
            whole = judged_at >= offsets[1:]
            from_us = tables.time[np.where(whole, offsets[1:] - 1, judged_at)]
            training &= np.repeat(whole, rows) | (tables.time + horizon_us <= np.repeat(from_us, rows))
    else:
        raise DataError(f"split.rule: {rule!r} is unknown; choose one of fleet, unit, prefix")
    return Split(training, judged, np.unique(tables.machine[training]), cut)
