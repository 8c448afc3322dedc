"""What the model answered, counted for ``/metrics``: alarms, scores, warnings and readings.

Plain numbers, since an answer costs some 60 µs and this is done for each: a counter or histogram of prometheus_client
costs a lock and a loop over its buckets each time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock
from typing import Any

ANOMALY = "anomaly"  # the head's name, beside those of the components
PROBABILITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SCORES = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
# Each warning of score/answer.py, by the code under which it is counted; of readings, how many and of which sensor.
WARNINGS = {
    "history": re.compile(r"[\d.e+-]+ of [\d.e+-]+ hours of history"),
    "gaps": re.compile(r"\d+ of \d+ rows of the history are missing"),
    "missing": re.compile(r"(\d+) of \d+ readings of (.+) are missing"),
    "outside": re.compile(r"(\d+) of \d+ readings of (.+) are outside [\d.e+-]+ to [\d.e+-]+"),
    "undescribed": re.compile(r"no machine description"),
    "no_replacement": re.compile(r"no replacement known of .+"),
}
OTHER = "other"
AT_ONCE = 100  # results that are counted before another thread may count


class Scores:
    """How many scores fell into each bucket, up to its bound; the last one has none."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, score: float) -> None:
        """Count one score."""
        self.buckets[bisect_left(self.bounds, score)] += 1
        self.sum += score


class ModelCounts:
    """Counts results; any thread may, one at a time.

    ``alarms`` and ``scores`` are by head: ``anomaly``, or the component. ``missing`` and ``outside`` are readings by
    sensor; a client that sends overlapping windows sends a reading several times, and it counts each time. ``newest``
    is the time of the newest telemetry that was scored, ``trained_until`` that of the newest that the model knows.
    """

    def __init__(self, components: Iterable[str], sensors: Iterable[str], trained_until: str) -> None:
        components, sensors = tuple(components), tuple(sensors)
        self.alarms = dict.fromkeys((ANOMALY, *components), 0)
        self.scores = {ANOMALY: Scores(SCORES), **{name: Scores(PROBABILITIES) for name in components}}
        self.warnings = dict.fromkeys((*WARNINGS, OTHER), 0)
        self.missing, self.outside = dict.fromkeys(sensors, 0), dict.fromkeys(sensors, 0)
        self.newest, self.trained_until = "", trained_until
        self._lock = Lock()

    def add(self, results: list[dict[str, Any]]) -> None:
        """Count the results of one answer."""
        for start in range(0, len(results), AT_ONCE):
            with self._lock:
                for result in results[start : start + AT_ONCE]:
                    self._add(result)

    def _add(self, result: dict[str, Any]) -> None:
        if result["datetime"] > self.newest:  # as texts, which sort as times do to the second
            self.newest = result["datetime"]
        if (anomaly := result[ANOMALY]) is not None:
            self.scores[ANOMALY].add(anomaly["score"])
            self.alarms[ANOMALY] += anomaly["alarm"]
        for component, head in result["failure"].items():
            if head is not None:
                self.scores[component].add(head["probability"])
                self.alarms[component] += head["alarm"]
        for line in result["warnings"]:
            self._warn(line)

    def _warn(self, line: str) -> None:
        code, found = _read(line)
        self.warnings[code] += 1
        if found is not None and code in ("missing", "outside"):
            readings: dict[str, int] = getattr(self, code)
            readings[found[2]] += int(found[1])


def code_of(line: str) -> str:
    """The stable code of a warning."""
    return _read(line)[0]


def _read(line: str) -> tuple[str, re.Match[str] | None]:
    """A warning's code, and what its pattern found."""
    for code, pattern in WARNINGS.items():
        if (found := pattern.fullmatch(line)) is not None:
            return code, found
    return OTHER, None
