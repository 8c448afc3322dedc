"""The drift reference: what the training tables looked like, in a few kilobytes whatever the size of the fleet.

Training makes it with :mod:`closedloop.heads.drift_reference_fit`; whoever loads a bundle needs this module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import Float64, Int64
from closedloop.heads.arrays import nothing_left, pop_fields, to_arrays

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
BINS = 10
MOST_DAYS = 2048  # machine-days in the sample: twice as many would not tell a smaller shift from how machines differ


@dataclass(frozen=True, eq=False)
class Weeks:
    """How much a week of the whole fleet differs from the rest of the training tables, though nothing is wrong.

    Seasons and campaigns move all machines at once, which no number of machines averages out. ``weeks`` is how many
    whole weeks (of UTC days, counted from 1970) there were. ``day_number`` (D) is the UTC day of each machine-day in
    the sample, counted from 1970. ``week_covariance`` (C, 10, 10) is the covariance of one week's shares of the bins,
    ``week_missing`` (C) the variance of its share of missing readings, and ``week_errors`` (codes) the variance of its
    error counts over their mean: 1 where errors come independently.
    """

    weeks: float
    day_number: NDArray[np.int32]
    week_covariance: Float64
    week_missing: Float64
    week_errors: Float64

    def check(self) -> None:
        """Raise ValueError where a number cannot be."""
        if not 0 <= self.weeks < np.inf:
            raise ValueError("'weeks' is not a number from 0")
        variances = np.diagonal(self.week_covariance, axis1=1, axis2=2)
        if any((values < 0).any() for values in (variances, self.week_missing, self.week_errors)):
            raise ValueError("a variance between weeks is below 0")


@dataclass(frozen=True, eq=False)
class DriftReference:
    """Distributions of C columns: the schema's sensors in its order and, where there is an anomaly head, its score.

    ``quantiles`` (C, 9) are those of ``QUANTILES``. ``edges`` (C, 9) part the readings into ten bins, an edge belonging
    to the bin above it, and ``counts`` (C, 10) are theirs. ``covariance`` (C, 10, 10) is that of the bins' shares with
    machines as clusters: readings of one machine are alike, so a χ² threshold that took them for independent would
    always be passed. ``missing`` (C) is the share of rows without a reading.

    ``day_means`` (C, D) are means of machine-days (UTC; NaN where a sensor was silent for half of one), a sample of at
    most ``MOST_DAYS``, sorted by machine, and ``day_machine`` (D) says whose: the machine's number, or where machines
    have names its position among the training machines of the manifest.

    ``error_counts`` (codes of the schema) were seen in ``machine_days`` of telemetry. ``weeks`` is None in bundles of
    releases that did not measure it.
    """

    quantiles: Float64
    edges: Float64
    counts: Int64
    covariance: Float64
    missing: Float64
    day_machine: Int64
    day_means: Float64
    error_counts: Int64
    machine_days: float
    weeks: Weeks | None = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as the bundle stores them."""
        arrays = to_arrays(self)
        arrays.pop("weeks")
        return arrays | ({} if self.weeks is None else to_arrays(self.weeks))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> DriftReference:
        """The inverse of :meth:`to_arrays`.

        Raises:
            ValueError: an array is missing, unknown, or of another type or number of dimensions.
        """
        left = dict(arrays)
        weeks: Weeks | None = pop_fields(left, Weeks) if "weeks" in left else None
        reference: DriftReference = pop_fields(left, cls, without="weeks")
        nothing_left(left)
        return replace(reference, weeks=weeks)

    def check(self, columns: int, codes: int, machines: int | None = None) -> None:
        """Raise ValueError where the arrays do not describe this number of columns, error codes and machines.

        ``machines`` is None where machines have numbers.
        """
        days = len(self.day_machine)
        if days > MOST_DAYS:
            raise ValueError(f"it has {days} machine-days, more than the {MOST_DAYS} of a sample")
        shapes = {
            "quantiles": (columns, len(QUANTILES)),
            "edges": (columns, BINS - 1),
            "counts": (columns, BINS),
            "covariance": (columns, BINS, BINS),
            "missing": (columns,),
            "day_means": (columns, days),
            "error_counts": (codes,),
        }
        if self.weeks is not None:
            shapes |= {
                "day_number": (days,),
                "week_covariance": (columns, BINS, BINS),
                "week_missing": (columns,),
                "week_errors": (codes,),
            }
        for name, shape in shapes.items():
            array = getattr(self if hasattr(self, name) else self.weeks, name)
            if array.shape != shape:
                raise ValueError(f"{name!r} has the shape {array.shape}, not {shape}")
            if np.isinf(array).any() or (name != "day_means" and np.isnan(array).any()):
                raise ValueError(f"{name!r} holds numbers that are not finite")
        for name in ("quantiles", "edges"):
            if (np.diff(getattr(self, name), axis=1) < 0).any():
                raise ValueError(f"{name!r} do not rise")
        for name in ("counts", "error_counts"):
            if (getattr(self, name) < 0).any():
                raise ValueError(f"{name!r} holds a count below 0")
        if not (self.counts.sum(axis=1) > 0).all():
            raise ValueError("'counts' has a column without a reading")
        if ((self.missing < 0) | (self.missing > 1)).any():
            raise ValueError("'missing' is not a share from 0 to 1")
        if (np.diagonal(self.covariance, axis1=1, axis2=2) < 0).any():
            raise ValueError("'covariance' has a variance below 0")
        if (np.diff(self.day_machine) < 0).any():
            raise ValueError("'day_machine' is not sorted")
        if machines is not None and days and not 0 <= self.day_machine[0] <= self.day_machine[-1] < machines:
            raise ValueError(f"'day_machine' names a machine that is none of the {machines} in the manifest")
        if not 0 < self.machine_days < np.inf:
            raise ValueError("'machine_days' is not a number above 0")
        if self.weeks is not None:
            self.weeks.check()
