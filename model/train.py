"""Train both heads on the validated tables and write the bundle.

Only training machines are read, and of those only rows up to the cut less the horizon and the history, so nothing that
is judged later has been seen. Beside the bundle two ablations are trained, one that never saw telemetry and one that
never saw the error log: the report shows what each source of knowledge is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.data import sources
from closedloop.data.schema import HOUR_US, DataError, Float64, Int64, Schema, Tables
from closedloop.features.kernel import iter_machines
from closedloop.features.labels import in_failure_hour, labels
from closedloop.features.spec import FeatureSpec, fit_constants
from closedloop.features.split import Split, split
from model import cli, params

ABLATIONS = {"no_telemetry": "telemetry", "no_errors": "errors"}  # name: the group of features it does without


@dataclass(frozen=True)
class Rows:
    """The training rows. ``X`` is (features, rows), ``label`` (components, rows) with -1 where nobody knows.

    ``grid`` marks the healthy hours that represent their neighbours: every n-th, by the clock.
    """

    machine: Int64
    time: Int64
    X: Float64
    label: NDArray[np.int8]
    grid: NDArray[np.bool_]
    failures: dict[int, list[Int64]]
