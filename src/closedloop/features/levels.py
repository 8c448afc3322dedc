"""The compiled loop over levels: how far each sensor's recent mean lies from the machine's own level.

The level and the deviation of the mean are frozen for each machine that was trained on. A machine that was not starts
from the level of its model, in doubt by as much as machines of its model differ, and moves with its window. It stops
moving while the mean lies more than ``ALARM`` deviations away, so that an anomaly does not become the level. The mean
of few readings varies more than that of a whole history, up to a single one as a reading does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from closedloop.data.schema import Float64, Int64
from closedloop.features.compiled import decay
from closedloop.features.structures import Part, Readings, Span

ALARM = 3.0  # deviations


class Norms(NamedTuple):
    """What is normal, each (machines that were trained on, then models, then the whole fleet; features).

    Feature ``f`` is of sensor ``f // half-lives``. ``scale`` is the deviation of the mean about ``location``, ``doubt``
    the variance of ``location`` in squares of ``scale``, and ``gain`` (features) what one reading tells of it, as the
    inverse of such a variance. ``doubt`` is 0 where the level does not move. ``single`` (features) is how much more one
    reading varies than the mean, in squares of ``scale``; ``share`` (half-lives) is the variance of the mean of a whole
    history of independent readings, in squares of their own. ``first`` is the first feature to write.
    """

    location: Float64
    scale: Float64
    doubt: Float64
    gain: Float64
    single: Float64
    half_lives: Int64
    share: Float64
    history: int
    first: int


@njit(nogil=True, error_model="numpy")
def levels(part: Part, readings: Readings, norms: Norms, row_of: Int64, X: Float64) -> None:
    """Write the level of each sensor at each row of a part to X; ``row_of`` is the row of each machine in the norms."""
    offsets, halves = readings.offsets, len(norms.half_lives)
    for m in range(part.low, part.high):
        begin = offsets[m + 1] - 1 if part.last_only else offsets[m]
        to = m - begin if part.last_only else -part.shift
        span = Span(offsets[m], offsets[m + 1], begin, to)
        for f in range(norms.location.shape[1]):
            _level(span, readings.time, readings.values[f // halves], norms, row_of[m - part.low], f, X)


@njit(nogil=True, error_model="numpy")
def _level(span: Span, time: Int64, value: Float64, norms: Norms, own: int, f: int, X: Float64) -> None:
    """Write one feature of one machine. Each row's recursion begins at the start of its window."""
    half_life = norms.half_lives[f % len(norms.half_lives)]
    single, share = norms.single[f], norms.share[f % len(norms.half_lives)]
    location, scale, prior = norms.location[own, f], norms.scale[own, f], norms.doubt[own, f]
    left, step, fade = span.start, -1, 1.0
    for r in range(span.begin, span.stop):
        while time[left] <= time[r] - norms.history:
            left += 1
        total, weight, squares, centre, doubt, z = 0.0, 0.0, 0.0, location, prior, np.nan
        for q in range(left, r + 1):
            if q > left:
                if time[q] - time[q - 1] != step:
                    step = time[q] - time[q - 1]
                    fade = decay(step, half_life)
                total *= fade
                weight *= fade
                squares *= fade * fade
            if not math.isnan(value[q]):
                total += value[q]
                weight += 1.0
                squares += 1.0
                if prior > 0.0:
                    few = 1.0 + single * max(0.0, (squares / (weight * weight) - share) / (1.0 - share))
                    z = (total / weight - centre) / (scale * math.sqrt(few + doubt))
                    if abs(z) <= ALARM:
                        doubt = doubt / (1.0 + doubt * norms.gain[f])
                        centre += (value[q] - centre) * (doubt * norms.gain[f])
        if weight > 0.0:  # the mean of few readings varies more than that of many
            few = 1.0 + single * max(0.0, (squares / (weight * weight) - share) / (1.0 - share))
            z = (total / weight - centre) / (scale * math.sqrt(few + doubt))
        X[norms.first + f, r + span.to] = z
