"""Is a model worth more than none? This needs no champion.

There are two trivial models. One never alarms: each event costs what it costs unforeseen. The other's scores say
nothing, so before an event they are as likely to be low as high. A model does proven harm where it costs significantly
more than the first, or where its scores before events are significantly *lower* than at other times of that machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import stats

from closedloop.data.schema import Float64, Schema
from closedloop.judge.compare import Ratio
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.truth import ANOMALY, Aligned, Bool, Grid, JudgeSettings


def saving(found: Assessment, grid: Grid, settings: JudgeSettings, schema: Schema) -> Ratio:
    """What a model saves for each machine-year against one that never alarms."""
    never = assess({}, grid, settings, schema)
    costs = settings.costs
    surprise = costs["unplanned"] - costs["planned"] if grid.supervised else costs["missed_anomaly"]
    return Ratio(never.cost - found.cost, found.years, surprise**2)


def harm(heads: Mapping[str, Aligned], saved: Ratio, grid: Grid, schema: Schema, error_rate: float) -> list[str]:
    """What proves that a model is worse than a trivial one; empty where nothing does.

    Args:
        heads: its answers on the grid, by head.
        saved: result of :func:`saving`.
        grid: the truth.
        schema: of the fleet.
        error_rate: of all these tests together.
    """
    loss = Ratio(-saved.above, saved.below, saved.unseen)
    found = []
    if len(loss.above) > 1 and loss.p_above(0) <= error_rate / 3:
        found.append(f"it costs {loss.estimate or 0:,.0f} more for each machine-year than a model that never alarms")
    for part, ranks in (("failure", _before_failures(heads, grid, schema)), ("anomaly", _in_anomalies(heads, grid))):
        if len(ranks) and stats.combine_pvalues(ranks, method="stouffer").pvalue <= error_rate / 3:
            event = "before failures" if part == "failure" else "in anomalies"
            found.append(
                f"the {part} scores are lower {event} than at other times (in {len(ranks)} events, their mean rank is "
                f"{np.mean(ranks):.2f}; scores that say nothing have 0.50)"
            )
    return found


def _before_failures(heads: Mapping[str, Aligned], grid: Grid, schema: Schema) -> Float64:
    """The rank of each failure's horizon among the same machine's healthy stretches of that length.

    Components that fail at the same time are one event, with the mean of their ranks: their scores may be alike.
    """
    ranks: dict[int, list[float]] = {}
    for c, name in enumerate(schema.components if grid.supervised else ()):
        if name in heads:
            event = grid.known[c] & (grid.label[c] == 1)
            for last, rank in _ranks(heads[name].score, event, grid.known[c], grid).items():
                ranks.setdefault(last, []).append(rank)
    return np.array([np.mean(together) for together in ranks.values()])


def _in_anomalies(heads: Mapping[str, Aligned], grid: Grid) -> Float64:
    """The same of each anomaly that is known."""
    if ANOMALY not in heads or grid.events != "anomalies":
        return np.empty(0)
    ranks = _ranks(heads[ANOMALY].score, grid.anomalous & grid.anomaly_known, grid.anomaly_known, grid)
    return np.array(list(ranks.values()))


def _ranks(score: Float64, event: Bool, known: Bool, grid: Grid) -> dict[int, float]:
    """Return, by the row after it, each stretch's share of the other stretches with a lower mean, ties counting half.

    Between 0 and 1, and uniform where the scores say nothing. A machine whose other rows do not hold two such
    stretches is left out.
    """
    ranks = {}
    score = score / (np.abs(score[np.isfinite(score)]).max(initial=0) or 1)  # sums of very large scores would overflow
    for start, end in zip(grid.offsets[:-1].tolist(), grid.offsets[1:].tolist(), strict=True):
        mine, others = score[start:end], score[start:end][known[start:end] & ~event[start:end]]
        total = np.append(0.0, np.cumsum(others))
        for first, last in _stretches(event[start:end]):
            length = last - first
            if len(others) < 2 * length or not np.isfinite(mine).all():
                continue
            means = (total[length:] - total[:-length]) / length
            here = float(mine[first:last].mean())
            equal = np.isclose(means, here, rtol=1e-9, atol=1e-12)
            lower = int((~equal & (means < here)).sum())
            ranks[start + last] = (lower + equal.sum() / 2 + 0.5) / (len(means) + 1)
    return ranks


def _stretches(rows: Bool) -> Iterator[tuple[int, int]]:
    """Yield the first row of each stretch, and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
