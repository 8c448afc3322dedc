"""The parts of an answer that are told on request: ``/score?include=severity,contributions``.

None of them is logged: a replay makes them again. What is not asked for costs nothing.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from closedloop.data import untouched
from closedloop.data.schema import Float64, Tables
from closedloop.features.kernel import compute
from closedloop.heads.bundle import Bundle
from closedloop.heads.manifest import HORIZON, FailureEntry
from closedloop.heads.reasons import ERROR, MACHINE, REPLACEMENT, SENSOR, Reasons, Source
from score.model_counts import OTHER, WARNINGS, code_of
from score.problems import Problem

THRESHOLDS, SEVERITY, CONTRIBUTIONS, CONFIDENCE, CODES = PARTS = (
    "thresholds", "severity", "contributions", "confidence", "warning_codes",
)  # fmt: skip
UNTOUCHED = "untouched"
WARNING_CODES = (*WARNINGS, UNTOUCHED, OTHER)
LEVELS = ("none", "watch", "warn", "act")
TOLD = 3  # sensors or events for each head; a technician looks at no more
Result = dict[str, Any]


def asked(query: bytes) -> frozenset[str]:
    """The parts that a query string asks for.

    Raises:
        Problem: 400, a part is unknown.
    """
    if not query:
        return frozenset()
    values = [value for name, value in parse_qsl(query.decode("latin-1")) if name == "include"]
    parts = frozenset(part.strip() for value in values for part in value.split(",") if part.strip())
    if unknown := sorted(parts - set(PARTS)):
        raise Problem(400, f"include {unknown[0][:40]!r} is unknown: choose among {', '.join(PARTS)}")
    return parts


class Explainer:
    """Adds what is asked for to the results of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        if bundle.manifest is None:
            raise ValueError("this bundle has no manifest: write it and load it")
        self.bundle, self.heads = bundle, bundle.manifest.heads
        self.horizon_hours = bundle.manifest.provenance.get(HORIZON)
        self.reasons = Reasons(bundle)

    def add(self, results: list[Result], tables: Tables, parts: frozenset[str]) -> list[Result]:
        """The results as people are to see them, one for each machine of the tables, with the parts."""
        known = (
            _known(tables, self.bundle.spec.history_us, self.bundle.schema.period_us) if CONFIDENCE in parts else None
        )
        X = None
        if CONTRIBUTIONS in parts and any(_alarms(result) for result in results):
            X = compute(tables, self.bundle.spec, self.bundle.constants, self.bundle.schema, last_only=True).X
        told = []
        for place, result in enumerate(results):
            one = dict(result)
            if THRESHOLDS in parts:
                one = self._with_thresholds(one)
            if SEVERITY in parts:
                one["severity"] = self._severity(result)
            if self.horizon_hours is not None and parts & {THRESHOLDS, SEVERITY}:
                one["horizon_hours"] = self.horizon_hours
            if known is not None:
                one[CONFIDENCE] = known[place]
            if CODES in parts:
                one[CODES] = [UNTOUCHED if line == untouched.WARNING else code_of(line) for line in result["warnings"]]
            if X is not None:
                one = self._with_contributions(one, np.ascontiguousarray(X[:, place]))
            told.append(one)
        return told

    def _with_thresholds(self, result: Result) -> Result:
        def of(head: dict[str, Any] | None, entry: Any) -> dict[str, Any] | None:
            return head if head is None or entry is None else head | {"threshold": entry.threshold}

        failure = {name: of(head, self.heads.failure[name]) for name, head in result["failure"].items()}
        return result | {"anomaly": of(result["anomaly"], self.heads.anomaly), "failure": failure}

    def _severity(self, result: Result) -> str:
        """The highest level of all heads."""
        if untouched.WARNING in result["warnings"]:
            return LEVELS[0]
        levels = [2 if (result["anomaly"] or {}).get("alarm") else 0]
        for name, head in result["failure"].items():
            entry = self.heads.failure[name]
            if head is not None and entry is not None:
                levels.append(_level(head["probability"], head["alarm"], entry))
        return LEVELS[max(levels)]

    def _with_contributions(self, result: Result, x: Float64) -> Result:
        failure, anomaly, shares = dict(result["failure"]), result["anomaly"], self.reasons.of_anomaly(x)
        score = np.nan if anomaly is None else anomaly["score"]
        for name, head in failure.items():
            if head is None or not head["alarm"] or (split := self.reasons.of_failure(name, x, score, shares)) is None:
                continue
            first = [k for k in np.argsort(-split.parts, kind="stable").tolist()[:TOLD] if split.parts[k] > 0]
            told = [self._reason(k, x) | {"logit": float(split.parts[k])} for k in first]
            rest = float(split.parts.sum() - sum(one["logit"] for one in told))
            failure[name] = head | {"base_logit": split.base, CONTRIBUTIONS: told, "other_logit": rest}
        if anomaly is not None and anomaly["alarm"] and shares is not None:
            first = [k for k in np.argsort(-shares, kind="stable").tolist()[:TOLD] if shares[k] > 0]
            anomaly = anomaly | {CONTRIBUTIONS: [self._reason(k, x) | {"share": float(shares[k])} for k in first]}
        return result | {"anomaly": anomaly, "failure": failure}

    def _reason(self, place: int, x: Float64) -> dict[str, Any]:
        """A source in figures and in words."""
        kind, name = source = self.reasons.sources[place]
        figures: dict[str, Any] = {}
        if kind == SENSOR and (found := self.reasons.deviations(name, x)) is not None:
            figures = {"deviations": found[0], "since_hours": None if math.isnan(found[1]) else found[1]}
        elif kind == ERROR and (told := self.reasons.errors(name, x)) is not None:
            figures = {"count": told[0], "within_hours": told[1]}
        elif kind == REPLACEMENT and not math.isnan(days := self.reasons.replaced_days(name, x)):
            figures = {"replaced_days_ago": days}
        return {"kind": kind, "name": name} | figures | {"text": _text(source, figures)}


def _level(probability: float, alarm: bool, entry: FailureEntry) -> int:
    """A level's place in LEVELS, from numbers of the manifest: the threshold, and the plateau about it.

    Within the plateau a threshold costs the same but for noise. So below it nothing is to be done; above it even the
    strictest of those thresholds would alarm.
    """
    if entry.plateau is None:
        return 2 if alarm else 0
    low, high = entry.plateau
    if alarm:
        return 3 if probability >= high else 2
    return 1 if probability >= low else 0


def _alarms(result: Result) -> bool:
    return any(head is not None and head["alarm"] for head in (result["anomaly"], *result["failure"].values()))


def _known(tables: Tables, history_us: int, period_us: int) -> list[float]:
    """Of each machine, what share of the readings of a whole history is there."""
    _, offsets = tables.bounds()
    expected = max(history_us // period_us, 1) * max(len(tables.values), 1)
    shares = []
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        first = begin + int(np.searchsorted(tables.time[begin:end], tables.time[end - 1] - history_us, side="right"))
        shares.append(round(min(int(np.isfinite(tables.values[:, first:end]).sum()) / expected, 1.0), 3))
    return shares


def _text(source: Source, figures: dict[str, Any]) -> str:
    """A source in words, as a technician says it."""
    kind, name = source
    if kind == SENSOR and "deviations" in figures:
        size, since = figures["deviations"], figures["since_hours"]
        far = f"{abs(size):.1f}" if abs(size) < 1e6 else f"{abs(size):.3g}"
        text = f"{name} {far} deviations {'below' if size < 0 else 'above'} its usual"
        return text if since is None else f"{text} since {since:.0f} h"
    if kind == ERROR and "count" in figures:
        within, count = f"within {figures['within_hours']:g} h", figures["count"]
        return f"no {name} {within}" if not count else f"{name} {'once' if count == 1 else f'{count} times'} {within}"
    if kind == REPLACEMENT:
        days = figures.get("replaced_days_ago")
        return f"no replacement of {name} known" if days is None else f"{name} replaced {days:.0f} days ago"
    return f"the machine's {name}" if kind == MACHINE else name
