"""Why a head answers as it does: which sensors and events raised its figure, and by how much.

A failure head's logit is divided among the features by TreeSHAP (:mod:`closedloop.heads.shap`), and the features'
shares are added up by what they are made of. What the anomaly score adds is divided among its own sensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from closedloop.data.schema import HOUR_US, Float64
from closedloop.features import names
from closedloop.heads.bundle import ANOMALY_SCORE, Bundle
from closedloop.heads.scorers import Isolation, strengths
from closedloop.heads.shap import Paths, explain
from closedloop.heads.trees import Forest, Int32

SENSOR, ERROR, REPLACEMENT, MACHINE, FEATURE = "sensor", "error", "replacement", "machine", "feature"
Source = tuple[str, str]  # its kind, one of these, and its name


@dataclass(frozen=True)
class Logit:
    """A failure head's logit at one row: ``base`` plus the sum of ``parts``, by the places of ``Reasons.sources``."""

    base: float
    parts: Float64


class Reasons:
    """The reasons of one bundle's answers.

    ``sources`` are what the features are made of: each sensor, error code, component's replacement, property of the
    machine, and custom feature.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        of_feature = _sources(bundle)
        self.sources: list[Source] = list(dict.fromkeys([*of_feature, (FEATURE, ANOMALY_SCORE)]))
        self._place = np.array([self.sources.index(source) for source in of_feature], np.int64)
        self._features = {name: place for place, name in enumerate(bundle.spec.names)}
        self._laid_out: dict[str, Paths] = {}  # once each: large forests take a second

    def compile(self, x: Float64) -> None:
        """Compile what explains, and lay out every head's forest, so that no request waits for it."""
        shares = self.of_anomaly(x)
        for name in self.bundle.failures:
            self.of_failure(name, x, 0.0, shares)

    def of_anomaly(self, x: Float64) -> Float64 | None:
        """What share of the anomaly score each source has, from 0 to 1, at features x; None where it is not known."""
        anomaly = self.bundle.anomaly
        if anomaly is None:
            return None
        if isinstance(anomaly.scorer, Isolation):
            if (paths := self._paths("", anomaly.scorer.forest, anomaly.columns)) is None:
                return None
            found = np.maximum(-explain(paths, x), 0.0)  # a shorter path is more anomalous
        else:
            found = np.zeros(len(x))
            found[anomaly.columns] = strengths(anomaly.scorer, x[anomaly.columns])
        by_source = self._add_up(found)
        total = float(by_source.sum())
        return by_source / total if total > 0 else None

    def of_failure(self, component: str, x: Float64, score: float, shares: Float64 | None) -> Logit | None:
        """How a head's logit is made up at features x and this anomaly score; None for an older bundle's head.

        What the score adds is divided by ``shares``, which :meth:`of_anomaly` gives.
        """
        head = self.bundle.failures[component]
        if (paths := self._paths(component, head.forest, head.columns)) is None:
            return None
        found = head.slope * explain(paths, np.append(x, score))
        parts = self._add_up(found[: len(x)])
        if shares is None:
            parts[-1] += found[len(x)]
        else:
            parts += found[len(x)] * shares
        return Logit(head.slope * paths.base + head.intercept, parts)

    def deviations(self, sensor: str, x: Float64) -> tuple[float, float] | None:
        """How many deviations a sensor's mean lies above its usual, and for how many hours; None where not known.

        The hours are NaN where the features do not say when it began.
        """
        odds = self._value(f"{sensor}_{names.SHIFTS[0]}", x)
        if odds > 0:
            size, hours = (self._value(f"{sensor}_{name}", x) for name in names.SHIFTS[1:3])
            return size, hours
        for us in self.bundle.spec.half_lives_us:
            if not np.isnan(size := self._value(f"{sensor}_ewma_{names.label(us)}", x)):
                return size, np.nan
        return None

    def errors(self, code: str, x: Float64) -> tuple[int, float] | None:
        """How often an error was reported within the longest window, and that window in hours; None without windows."""
        windows = self.bundle.spec.error_windows_us
        if not windows:
            return None
        longest = max(windows)
        count = self._value(f"{code}_count_{names.label(longest)}", x)
        return int(count), longest / HOUR_US

    def replaced_days(self, component: str, x: Float64) -> float:
        """Days since a component's last replacement; NaN where none is known."""
        return self._value(f"{component}_days_since", x)

    def _paths(self, name: str, forest: Forest, columns: Int32) -> Paths | None:
        """A head's forest, laid out; None where it does not know its cover. No component is called ""."""
        if forest.cover is None:
            return None
        if name not in self._laid_out:
            self._laid_out[name] = Paths.of(forest, columns)
        return self._laid_out[name]

    def _value(self, feature: str, x: Float64) -> float:
        place = self._features.get(feature)
        return np.nan if place is None else float(x[place])

    def _add_up(self, by_feature: Float64) -> Float64:
        return np.bincount(self._place, weights=by_feature, minlength=len(self.sources)).astype(np.float64)


def _sources(bundle: Bundle) -> list[Source]:
    """What each feature of the spec is made of."""
    schema, spec = bundle.schema, bundle.spec
    lengths = {"rolling": spec.rolling_us, "trend": spec.half_lives_us, "change": spec.change_us}
    levels = names.of_levels({"level": spec.level_us})
    own = (*names.of_sensor(lengths, spec.cusum_slack is not None), *names.SHIFTS, *levels)
    known: dict[str, Source] = {f"{sensor}_{name}": (SENSOR, sensor) for sensor in schema.sensors for name in own}
    for code in schema.errors:
        known |= dict.fromkeys(names.of_errors([code], spec.error_windows_us or ()), (ERROR, code))
    for component in schema.components:
        known |= dict.fromkeys(names.of_components([component]), (REPLACEMENT, component))
    known |= dict.fromkeys(names.of_machine(schema.models), (MACHINE, "model")) | {"age": (MACHINE, "age")}
    return [known.get(name, (FEATURE, name)) for name in spec.names]
