"""Maturity marks: up to when everything that happened to a machine has been reported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

NOTHING_REPORTED = int(np.iinfo(np.int64).min)  # the mark of a machine for which nobody vouched; NaT in a frame


@dataclass(frozen=True)
class Marks:
    """A mark for each machine, in microseconds UTC; ``machine`` is sorted, each once.

    A machine that is not named has the mark ``NOTHING_REPORTED``: silence does not mean health. Tables without marks
    are complete, and each machine's mark is its last telemetry.
    """

    machine: Int64
    until: Int64

    @classmethod
    def of(cls, machine: Int64, until: Int64) -> Marks:
        """The marks sorted; the latest of each machine counts."""
        order = np.lexsort((until, machine))
        machine, until = machine[order], until[order]
        last = np.append(machine[1:] != machine[:-1], True)[: len(machine)]
        return cls(machine[last], until[last])

    def at(self, machines: Int64) -> Int64:
        """The mark of each of these machines."""
        if not len(self.machine):
            return np.full(len(machines), NOTHING_REPORTED)
        index = np.minimum(np.searchsorted(self.machine, machines), len(self.machine) - 1)
        found: Int64 = np.where(self.machine[index] == machines, self.until[index], NOTHING_REPORTED)
        return found

    def select(self, machines: Int64) -> Marks:
        """The marks of these machines."""
        keep = np.isin(self.machine, machines)
        return Marks(self.machine[keep], self.until[keep])
