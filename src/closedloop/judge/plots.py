"""The report's pictures: functions of arrays that give inline SVG, readable on a light and on a dark page.

Matplotlib draws with stand-in colours, which become CSS variables of the page, so that one picture follows its theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from closedloop.data.schema import Float64, Int64
from closedloop.judge.episodes import FALSE, NEUTRAL, TRUE, UNKNOWN, Outcome
from closedloop.judge.truth import Bool

INK, MUTED, LINE = "#0a0b0c", "#1a1b1c", "#2a2b2c"
SERIES = ("#3a3b3c", "#4a4b4c", "#5a5b5c", "#6a6b6c", "#7a7b7c")
GOOD, BAD, PALE = "#8a8b8c", "#9a9b9c", "#aaabac"
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", GOOD: "var(--good)", BAD: "var(--bad)"}
THEME |= {PALE: "var(--pale)"} | {color: f"var(--series-{i})" for i, color in enumerate(SERIES, start=1)}
PIECE = {TRUE: GOOD, NEUTRAL: MUTED, FALSE: BAD, UNKNOWN: LINE}
STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "closedloop",
    "font.size": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
}


def _canvas(width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches and its axes, in the report's style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, list(axes.ravel())


def _svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element whose ids no other figure of the page shares."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for color, variable in THEME.items():
        text = text.replace(color, variable)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "inherit", text)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{escape(title)}">', text
    )
    return re.sub(r"\n\s*", "\n", text)


def interval(estimate: float, low: float | None, high: float | None, unit: str) -> str:
    """One estimate with its bounds beside the line of no difference; an open side runs off the picture."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = _canvas(9.4, 1.2)
        known = [value for value in (low, high, estimate, 0.0) if value is not None]
        margin = 0.15 * (max(known) - min(known) or 1.0)
        left, right = min(known) - margin, max(known) + margin
        color = GOOD if low is not None and low > 0 else BAD if high is not None and high < 0 else MUTED
        axis.axvline(0, color=INK, linewidth=1)
        axis.plot([left if low is None else low, right if high is None else high], [0, 0], color=color, linewidth=5)
        axis.plot([estimate], [0], "o", color=color, markersize=11)
        axis.set(xlim=(left, right), ylim=(-1, 1), yticks=[], xlabel=f"worse ←  {unit}  → better")
        axis.spines["left"].set_visible(False)
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return _svg(figure, "difference in cost")


def precision_recall(curves: Mapping[str, tuple[Bool, Float64]]) -> str:
    """Precision against recall of each named (truth, score), with the base rate dotted."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = _canvas(4.6, 3.5)
        for color, (name, (truth, score)) in zip(SERIES, curves.items(), strict=False):
            precision, recall, _ = precision_recall_curve(truth, score)
            thin = _thin(recall, precision)
            axis.plot(recall[thin], precision[thin], color=color, label=name, drawstyle="steps-post")
            axis.axhline(truth.mean(), color=color, linewidth=1, linestyle=":")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall (rows)", ylabel="precision (rows)")
        axis.legend(loc="lower left", fontsize=8)
        return _svg(figure, "precision and recall")


def _thin(x: Float64, y: Float64, steps: int = 300) -> NDArray[np.intp]:
    """Indexes of the points of a curve that differ on a screen."""
    cell = np.round(x * steps) * (steps + 1) + np.round(y * steps)
    return np.flatnonzero(np.append(True, np.diff(cell) != 0))


def calibration(truth: Bool, probability: Float64) -> str:
    """Share of rows ahead of a failure against the probability that was answered, in bins, with the rows in each."""
    edges = np.append([0, 0.05], np.arange(0.1, 1.01, 0.1))
    bins = np.clip(np.digitize(probability, edges) - 1, 0, len(edges) - 2)
    count = np.bincount(bins, minlength=len(edges) - 1)
    filled = count > 0
    seen = np.bincount(bins, truth, len(count))[filled] / count[filled]
    said = np.bincount(bins, probability, len(count))[filled] / count[filled]
    with mpl.rc_context(STYLE):
        figure, (axis, below) = _canvas(4.6, 3.5, 2, 1, sharex=True, height_ratios=(4, 1))
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        axis.plot(said, seen, "o-", color=SERIES[0], markersize=5)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that failed")
        below.bar(edges[:-1], count, np.diff(edges), align="edge", color=SERIES[0], alpha=0.5)
        below.set(yscale="log", xlabel="answered probability", ylabel="rows")
        return _svg(figure, "calibration")


def lead_times(lead_hours: Float64, missed: int, minimum: float, horizon: float) -> str:
    """How many hours before a failure the first true alarm came; ``lead_hours`` of the detected ones."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = _canvas(4.6, 3.0)
        axis.hist(lead_hours, bins=np.linspace(0, horizon, 13).tolist(), color=SERIES[0], alpha=0.75)
        axis.axvspan(0, minimum, color=PALE, linewidth=0)
        if len(lead_hours):
            middle = float(np.median(lead_hours))
            axis.axvline(middle, color=INK, linewidth=1.2)
            axis.set_title(f"{len(lead_hours)} detected, median {middle:.0f} h ahead; {missed} missed")
        else:
            axis.set_title(f"none detected; {missed} missed")
        ticks = np.linspace(0, horizon, 5).tolist()
        axis.set(
            xlim=(horizon, 0), xticks=ticks, xlabel="hours before the failure (shaded: too late)", ylabel="failures"
        )
        axis.grid(visible=False, axis="x")
        return _svg(figure, "lead times")


def scores(panels: Mapping[str, tuple[Bool, Float64]]) -> str:
    """Distribution of each named (truth, score): rows that should alarm against the others."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(4.6, 3.0, len(panels), 1)
        for axis, (name, (truth, score)) in zip(axes, panels.items(), strict=True):
            low, high = np.quantile(score, (0, 0.999))
            bins = np.linspace(low, max(high, low + 1e-9), 50).tolist()
            for color, label, rows in ((MUTED, "quiet rows", ~truth), (SERIES[1], "rows ahead of an event", truth)):
                if rows.any():
                    weight = np.full(int(rows.sum()), 1 / rows.sum())
                    axis.hist(
                        np.clip(score[rows], low, high), bins=bins, weights=weight, color=color, alpha=0.6, label=label
                    )
            axis.set(yscale="log", xlabel=name, ylabel="share of rows")
        axes[0].legend(loc="upper right", fontsize=8)
        return _svg(figure, "score distributions")


def importance(values: Mapping[str, float], top: int = 15) -> str:
    """What is lost when a feature is permuted, the largest first."""
    chosen = sorted(values.items(), key=lambda item: item[1])[-top:]
    with mpl.rc_context(STYLE):
        figure, (axis,) = _canvas(9.4, 0.6 + 0.24 * len(chosen))
        axis.barh([name for name, _ in chosen], [value for _, value in chosen], color=SERIES[0], height=0.6)
        axis.set(xlabel="what is lost when the feature is shuffled")
        axis.grid(visible=False, axis="y")
        return _svg(figure, "feature importance")


@dataclass(frozen=True)
class Lane:
    """One head of a timeline: its score at each row, judged alarms, and what happened (microseconds)."""

    name: str
    score: Float64
    outcome: Outcome
    failures: Int64
    maintenance: Int64
    intervals: tuple[Int64, Int64]


def timeline(title: str, time: Int64, lanes: Sequence[Lane]) -> str:
    """One machine's life, a lane for each head: score, alarms by verdict, anomalies, maintenance and failures."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(9.4, 0.45 + 0.72 * len(lanes), len(lanes), 1, sharex=True)
        at = _highest(time, lanes[0].score)
        for axis, lane in zip(axes, lanes, strict=True):
            keep = _highest(time, lane.score) if np.isfinite(lane.score).all() else at[:0]
            top = max(1.0, float(lane.score[keep].max(initial=0)))
            axis.fill_between(_dates(time[keep]), lane.score[keep] / top, color=SERIES[0], alpha=0.35, linewidth=0)
            for start, stop in zip(*lane.intervals, strict=True):
                axis.axvspan(*_dates(np.array([start, stop])), color=PALE, linewidth=0, zorder=0)
            for kind, color in PIECE.items():
                mine = lane.outcome.kind == kind
                spans = zip(lane.outcome.start[mine].tolist(), lane.outcome.stop[mine].tolist(), strict=True)
                for start, stop in spans:
                    ends = _dates(np.array([start, stop]))
                    axis.plot(ends, [-0.2, -0.2], color=color, linewidth=5, solid_capstyle="projecting")
            axis.plot(_dates(lane.maintenance), np.full(len(lane.maintenance), 1.12), "|", color=MUTED, markersize=7)
            axis.plot(_dates(lane.failures), np.full(len(lane.failures), 1.12), "v", color=BAD, markersize=7)
            for failure in _dates(lane.failures):
                axis.axvline(failure, color=BAD, linewidth=0.8)
            axis.set(ylim=(-0.45, 1.4), yticks=[], xlim=_dates(time[[0, -1]]))
            axis.set_ylabel(lane.name, rotation=0, ha="right", va="center", color=INK)
            axis.grid(visible=False)
            axis.spines["left"].set_visible(False)
        locator: Any = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        return _svg(figure, title)


def _dates(time: Int64) -> NDArray[np.datetime64]:
    return time.astype("datetime64[us]")


def _highest(time: Int64, score: Float64, points: int = 500) -> NDArray[np.intp]:
    """The row with the highest score in each of so many stretches of time: a peak of one hour stays visible."""
    stretch = (time - time[0]) * points // (time[-1] - time[0] + 1)
    order = np.lexsort((score, stretch))
    return order[np.append(np.flatnonzero(np.diff(stretch[order])), len(order) - 1)]
