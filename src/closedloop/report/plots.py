"""The report's pictures: functions of arrays that return inline SVG, readable on a light and on a dark page.

Matplotlib draws in fixed colours, which are replaced by CSS variables of the page, so that a picture follows its theme.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from closedloop.data.schema import Float64, Int64
from closedloop.judge.episodes import FALSE, NEUTRAL, TRUE, UNKNOWN, Outcome
from closedloop.judge.operating import BUDGETS, Curve
from closedloop.judge.truth import Bool

INK, MUTED, LINE = "#0a0b0c", "#1a1b1c", "#2a2b2c"
SERIES = ("#3a3b3c", "#4a4b4c", "#5a5b5c", "#6a6b6c", "#7a7b7c")
GOOD, BAD, PALE = "#8a8b8c", "#9a9b9c", "#aaabac"
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", GOOD: "var(--good)", BAD: "var(--bad)"}
THEME |= {PALE: "var(--pale)"} | {color: f"var(--series-{i})" for i, color in enumerate(SERIES, start=1)}
IMPORTANT = 20  # families of features that are shown
PIECE = {TRUE: GOOD, NEUTRAL: MUTED, FALSE: BAD, UNKNOWN: LINE}
STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "closedloop",
    "text.parse_math": False,  # a name may have a $
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


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches and its axes, in the report's style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, list(axes.ravel())


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element whose ids no other figure of the page shares."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser's fonts show it
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", title.lower())
    if prefix != title.lower().replace(" ", "-"):  # two machines may differ in nothing else
        prefix += f"-{zlib.crc32(title.encode()):08x}"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for color, variable in THEME.items():
        text = text.replace(color, variable)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "inherit", text)
    label = f'role="img" aria-label="{escape(title)}"'
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', lambda found: f'<svg viewBox="{found[1]}" {label}>', text)
    return re.sub(r"\n\s*", "\n", text)


def _plain(axis: Axes) -> None:
    """Write numbers on a logarithmic axis: matplotlib would write formulas, which STYLE leaves as text."""
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.10f}".rstrip("0"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def interval(estimate: float, low: float | None, high: float | None, unit: str) -> str:
    """An estimate and its bounds beside the line of no difference; a side without a bound runs off the picture."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = canvas(4.6, 1.2)
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
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return svg(figure, "difference in cost")


def precision_recall(curves: Mapping[str, tuple[Bool, Float64]]) -> str:
    """Precision against recall of each named (truth, score), with the base rate dotted."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = canvas(4.6, 3.5)
        for color, (name, (truth, score)) in zip(SERIES, curves.items(), strict=False):
            precision, recall, _ = precision_recall_curve(truth, score)
            thin = _thin(recall, precision)
            axis.plot(recall[thin], precision[thin], color=color, label=name, drawstyle="steps-post")
            axis.axhline(truth.mean(), color=color, linewidth=1, linestyle=":")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall (rows)", ylabel="precision (rows)")
        figure.legend(loc="outside upper left", ncols=2, fontsize=8)
        return svg(figure, "precision and recall")


def _thin(x: Float64, y: Float64, steps: int = 300) -> NDArray[np.intp]:
    """Indexes of the points of a curve that a screen can show apart."""
    cell = np.round(x * steps) * (steps + 1) + np.round(y * steps)
    return np.flatnonzero(np.append(True, np.diff(cell) != 0))


def calibration(truth: Bool, probability: Float64) -> str:
    """Share of rows ahead of a failure against the answered probability, in bins, with the number of rows in each."""
    edges = np.append([0, 0.05], np.arange(0.1, 1.01, 0.1))
    bins = np.clip(np.digitize(probability, edges) - 1, 0, len(edges) - 2)
    count = np.bincount(bins, minlength=len(edges) - 1)
    filled = count > 0
    seen = np.bincount(bins, truth, len(count))[filled] / count[filled]
    said = np.bincount(bins, probability, len(count))[filled] / count[filled]
    with mpl.rc_context(STYLE):
        figure, (axis, below) = canvas(4.6, 3.5, 2, 1, sharex=True, height_ratios=(4, 1))
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        axis.plot(said, seen, "o-", color=SERIES[0], markersize=5)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that failed")
        below.bar(edges[:-1], count, np.diff(edges), align="edge", color=SERIES[0], alpha=0.5)
        below.set(yscale="log", xlabel="answered probability", ylabel="rows")
        _plain(below)
        return svg(figure, "calibration")


def lead_times(lead_hours: Float64, missed: int, minimum: float, horizon: float) -> str:
    """Hours from the first true alarm to the failure; ``lead_hours`` holds those of the detected failures."""
    with mpl.rc_context(STYLE):
        figure, (axis,) = canvas(4.6, 3.0)
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
        axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
        axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(visible=False, axis="x")
        return svg(figure, "lead times")


def scores(panels: Mapping[str, tuple[Bool, Float64]]) -> str:
    """Distribution of each named (truth, score): rows that should alarm against the others."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(4.6, 3.0, len(panels), 1)
        for axis, (name, (truth, score)) in zip(axes, panels.items(), strict=True):
            low, high = np.quantile(score, (0, 0.999))
            bins = np.linspace(low, max(high, low + 1e-9), 50).tolist()
            for color, label, rows in ((MUTED, "quiet rows", ~truth), (SERIES[1], "rows ahead of an event", truth)):
                if rows.any():
                    weight = np.full(int(rows.sum()), 1 / rows.sum())
                    axis.hist(
                        np.clip(score[rows], low, high), bins=bins, weights=weight, color=color, alpha=0.6, label=label
                    )
            axis.set(yscale="log", ylim=(1e-5, 1.5), yticks=[1e-4, 1e-2, 1], xlabel=name, ylabel="share of rows")
            _plain(axis)
            axis.xaxis.set_major_locator(MaxNLocator(6))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)
        return svg(figure, "score distributions")


def importance(values: Mapping[str, Mapping[str, float]], top: int = IMPORTANT) -> str:
    """What is lost when a family of features is exchanged between machines, the most important first."""
    chosen = list(values.items())[:top][::-1]
    cost = np.array([losses["cost_per_machine_year"] for _, losses in chosen])
    with mpl.rc_context(STYLE):
        figure, (axis,) = canvas(9.4, 0.6 + 0.24 * len(chosen))
        names = [name for name, _ in chosen]
        axis.barh(names, cost, color=[SERIES[0] if one > 0 else MUTED for one in cost], height=0.6)
        for place, (_, losses) in enumerate(chosen):
            words = "{failure_recall:+.0%} failures, {anomaly_recall:+.0%} anomalies,".format(**losses)
            words += f" {losses['false_alarms_per_machine_year']:+.1f} false alarms"
            axis.text(0.995, place, words, transform=axis.get_yaxis_transform(), ha="right", va="center", color=MUTED)
        reach = max(float(np.abs(cost).max()), 1.0)
        axis.set(xlim=(min(float(cost.min()), 0.0) * 1.05, reach * 1.7), xlabel="added cost per machine-year")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        axis.axvline(0, color=MUTED, linewidth=1)
        return svg(figure, "feature importance")


@dataclass(frozen=True)
class Operating:
    """One model's curve, and its own point: false alarms for each machine-year, and event recall."""

    curve: Curve
    point: tuple[float, float]


def operating(own: Operating, champion: Operating | None, events: str) -> str:
    """Events against false alarms as the threshold falls, with the thresholds at ``BUDGETS`` and each model's point."""
    curve, (alarms, recall) = own.curve, own.point
    end = max(20.0, 1.5 * alarms)
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= end]
    with mpl.rc_context(STYLE):
        figure, (axis,) = canvas(4.6, 3.5)
        if champion is not None:
            other = champion.curve
            axis.plot(other.false_alarms, other.event_recall, color=MUTED, linewidth=1)
            axis.plot(*champion.point, "o", color=MUTED, markerfacecolor="none", markersize=9, label="champion")
        axis.plot(curve.false_alarms, curve.event_recall, color=SERIES[0])
        for at in sorted({curve.best_at(budget) for budget in BUDGETS} - {0}):
            x, y = curve.false_alarms[at], curve.event_recall[at]
            axis.plot([x], [y], "o", color=SERIES[0], markersize=3.5)
            label = f"{curve.threshold[at]:.3g}"
            axis.annotate(label, (x, y), (5, -9), textcoords="offset points", fontsize=7.5, color=MUTED)
        axis.plot([alarms], [recall], "o", color=SERIES[1], markersize=8, label="this model", clip_on=False)
        axis.set_xscale("symlog", linthresh=1.0, linscale=0.5)
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlim=(0, end), ylim=(0, 1.03), xlabel="false alarms per machine-year", ylabel=events)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8)
        return svg(figure, f"{events} and false alarms")


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
    """One machine over time, a lane for each head: score, judged alarms, anomalies, maintenance and failures."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(9.4, 0.45 + 0.72 * len(lanes), len(lanes), 1, sharex=True)
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
            missed = np.isnan(lane.outcome.lead_hours) if len(lane.failures) else np.empty(0, bool)
            for failure, color in zip(_dates(lane.failures), np.where(missed, BAD, INK), strict=True):
                axis.plot([failure], [1.12], "v", color=color, markersize=7)
                axis.axvline(failure, color=color, linewidth=0.8)
            axis.set(ylim=(-0.45, 1.4), yticks=[], xlim=_dates(time[[0, -1]]))
            axis.set_ylabel(lane.name, rotation=0, ha="right", va="center", color=INK)
            axis.grid(visible=False)
            axis.spines["left"].set_visible(False)
        dates(axes[-1])
        return svg(figure, title)


def dates(axis: Axes) -> None:
    """Write the times of the horizontal axis in few words."""
    locator: Any = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _dates(time: Int64) -> NDArray[np.datetime64]:
    return time.astype("datetime64[us]")


def _highest(time: Int64, score: Float64, points: int = 500) -> NDArray[np.intp]:
    """The row with the highest score of each of ``points`` stretches of time: a peak of one hour stays visible."""
    stretch = (time - time[0]) * points // (time[-1] - time[0] + 1)
    order = np.lexsort((score, stretch))
    return order[np.append(np.flatnonzero(np.diff(stretch[order])), len(order) - 1)]
