"""What became of the labels: how many rows are known, and why the others are not."""

from __future__ import annotations

import numpy as np

from closedloop.data.schema import Schema, Tables
from closedloop.judge.labels import SOUND, UNKNOWN, WORN, events_of, labels, matured, replaced

COUNTS = ("positive", "healthy", "censored", "immature", "failures", "prevented", "found_sound", "censoring")


def label_counts(tables: Tables, schema: Schema, horizon_us: int) -> dict[str, int]:
    """Counts over all components.

    ``positive``, ``healthy``, ``censored`` and ``immature`` are rows: with a failure ahead, without one, with a
    replacement ahead that may have prevented one, and those for which reports are still to come. ``failures``,
    ``prevented`` (replaced and found worn), ``found_sound`` and ``censoring`` (replaced before a failure, without a
    finding) are events between a machine's first row and its maturity mark.
    """
    counts = dict.fromkeys(COUNTS, 0)
    for window in tables.windows():
        mature = matured(window)
        if not mature.any():
            counts["immature"] += len(window.time) * len(schema.components)
            continue
        first, last = int(window.time[0]), int(window.time[mature][-1])
        label, whole = labels(window, schema, horizon_us), mature & (window.time <= last - horizon_us)
        counts["positive"] += int((label[:, mature] == 1).sum())
        counts["healthy"] += int((label[:, mature] == 0).sum())
        counts["censored"] += int((label[:, whole] == UNKNOWN).sum())
        counts["immature"] += int((label[:, mature & ~whole] == UNKNOWN).sum()) + int((~mature).sum()) * len(label)
        for c in range(len(schema.components)):
            at, finding, repairs = replaced(window, c)
            inside = (at > first) & (at <= last)
            events = events_of(window, c)
            counts["failures"] += int(np.count_nonzero((events > first) & (events <= last)))
            counts["found_sound"] += int((inside & (finding == SOUND)).sum())
            counts["prevented"] += int((inside & (finding == WORN)).sum())
            counts["censoring"] += int((inside & ~repairs & (finding < 0)).sum())
    counts["failures"] -= counts["prevented"]
    return counts


def mostly_censored(counts: dict[str, int]) -> bool:
    """Whether more replacements may have prevented a failure than there are failures to learn from."""
    return counts["censoring"] > counts["failures"] + counts["prevented"]
