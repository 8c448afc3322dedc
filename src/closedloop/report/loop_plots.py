"""The pictures of the demonstration's page, drawn as those of the report are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from closedloop.data.schema import HOUR_US, Float64, Int64
from closedloop.report import plots
from closedloop.watch.weeks import WEEK_US, ByWeek

WIDTH = 9.4
NAMES = {"first": "first model", "second": "second model"}
_COLORS = {"first": plots.SERIES[1], "second": plots.SERIES[0]}


def levels(
    days: Int64, values: Float64, sensors: Sequence[str], drift_by_week: Sequence[str], marks: Mapping[str, int]
) -> str:
    """Each sensor's mean over the fleet, day by day, and below it the weeks in which drift was seen.

    ``values`` has shape (sensors, days), in deviations of the training readings.
    """
    with mpl.rc_context(plots.STYLE):
        figure, (axis, below) = plots.canvas(WIDTH, 3.2, 2, 1, sharex=True, height_ratios=(7, 1))
        when = _dates(days)
        for color, name, level in zip(plots.SERIES, sensors, values, strict=False):
            axis.plot(when, level, color=color, label=name)
        axis.set(ylabel="deviations from training", xlim=(when[0], when[-1]))
        figure.legend(loc="outside upper left", ncols=len(sensors), fontsize=8)
        _mark(axis, marks, label=True)
        for number, verdict in enumerate(drift_by_week):
            color = {"moved": plots.BAD, "steady": plots.GOOD}.get(verdict, plots.LINE)
            start = days[0] + number * WEEK_US
            ends = _dates(np.array([start + 12 * HOUR_US, start + WEEK_US - 12 * HOUR_US]))
            below.plot(ends, [0, 0], color=color, linewidth=7, solid_capstyle="butt")
        below.set(yticks=[], ylim=(-1, 1))
        below.set_ylabel("drift", rotation=0, ha="right", va="center")
        below.spines["left"].set_visible(False)
        below.grid(visible=False)
        plots.dates(below)
        return plots.svg(figure, "the world")


def by_week(weeks: Mapping[str, ByWeek], marks: Mapping[str, int]) -> str:
    """Failures foreseen and missed, and false alarms, of the model that answered in each week.

    ``weeks`` has ``first`` and ``second``, and ``shadow``: what the first would have answered after it was replaced.
    """
    with mpl.rc_context(plots.STYLE):
        figure, (above, below) = plots.canvas(WIDTH, 4.2, 2, 1, sharex=True)
        width = np.timedelta64(WEEK_US * 4 // 5, "us")
        for of_one in (weeks["first"], weeks["second"]):
            there = of_one.years > 0
            middle = _dates(of_one.start[there] + WEEK_US // 2)
            known, late = of_one.foreseen[there], of_one.missed[there]
            above.bar(middle, known, width, color=plots.GOOD)
            above.bar(middle, late, width, bottom=known, color=plots.BAD)
        for name, of_one in weeks.items():
            there = of_one.years > 0
            rate = of_one.false_alarms[there] / of_one.years[there]
            middle = _dates(of_one.start[there] + WEEK_US // 2)
            if name == "shadow":
                below.plot(middle, rate, "o:", color=_COLORS["first"], markerfacecolor="none", markersize=6,
                           label="first model, had it stayed")  # fmt: skip
            else:
                below.plot(middle, rate, "o-", color=_COLORS[name], markersize=6, label=NAMES[name])
        above.set(ylabel="failures a week")
        below.set(ylabel="false alarms per machine-year", ylim=(0, None))
        figure.legend(*below.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8)
        above.grid(visible=False, axis="x")
        for axis in (above, below):
            _mark(axis, marks, label=axis is above)
        plots.dates(below)
        return plots.svg(figure, "week by week")


def machine(
    time: Int64,
    probability: Mapping[str, Float64],
    alarm: Mapping[str, NDArray[np.bool_]],
    failures: Int64,
    marks: Mapping[str, int],
) -> str:
    """One machine's answers of both models: the highest probability of failure, alarms below, failures above."""
    with mpl.rc_context(plots.STYLE):
        figure, axes = plots.canvas(WIDTH, 3.2, 2, 1, sharex=True)
        for axis, name in zip(axes, NAMES, strict=True):
            axis.fill_between(_dates(time), probability[name], color=_COLORS[name], alpha=0.35, linewidth=0)
            axis.plot(_dates(time), probability[name], color=_COLORS[name], linewidth=0.8)
            at = _dates(time[alarm[name]])
            ahead = _ahead(time[alarm[name]], failures)
            for color, chosen in ((plots.GOOD, ahead), (plots.BAD, ~ahead)):
                axis.plot(at[chosen], np.full(int(chosen.sum()), -0.14), "|", color=color, markersize=8)
            axis.plot(_dates(failures), np.full(len(failures), 1.12), "v", color=plots.INK, markersize=7)
            for failure in _dates(failures):
                axis.axvline(failure, color=plots.INK, linewidth=0.6)
            axis.set(ylim=(-0.3, 1.28), yticks=[0, 0.5, 1], xlim=_dates(time[[0, -1]]))
            axis.set_title(NAMES[name].capitalize())
            axis.grid(visible=False, axis="x")
            _mark(axis, marks, label=False)
        plots.dates(axes[-1])
        return plots.svg(figure, "one machine")


def _ahead(alarms: Int64, failures: Int64, hours: int = 96) -> NDArray[np.bool_]:
    """Which alarms lie in the hours before a failure in which they are no false ones."""
    if not len(failures):
        return np.zeros(len(alarms), bool)
    following = np.searchsorted(failures, alarms)
    at = failures[np.minimum(following, len(failures) - 1)]
    ahead: NDArray[np.bool_] = (following < len(failures)) & (at - alarms <= hours * HOUR_US)
    return ahead


def _mark(axis: Axes, marks: Mapping[str, int], *, label: bool) -> None:
    """Dashed lines at the marked times, with their names above the axis."""
    for name, at in marks.items():
        when = _dates(np.array([at]))[0]
        axis.axvline(when, color=plots.MUTED, linewidth=1.1, linestyle="--")
        if label:
            axis.annotate(name, (when, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                          color=plots.INK, fontsize=8.5)  # fmt: skip


def _dates(time: Int64) -> NDArray[np.datetime64]:
    return time.astype("datetime64[us]")
