"""The answer to a request: decoded, predicted, with warnings. ``score.py`` and the service share it."""

from __future__ import annotations

import math
import sys
from typing import Any

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from closedloop.data import machines, untouched
from closedloop.data.request import Decoder, openapi
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, MAX_AHEAD_US, Float64, Int64, Schema, Tables, microseconds
from closedloop.heads.bundle import Bundle, Predictions
from score.explain import Explainer

_SHORT = "{:g} of {:g} hours of history"
_GAPS = "{} of {} rows of the history are missing"
_MISSING = "{} of {} readings of {} are missing"
_OUTSIDE = "{} of {} readings of {} are outside {:g} to {:g}"
_UNDESCRIBED = "no machine description"
_NO_REPLACEMENT = "no replacement known of {}"


class Scorer:
    """Answers requests with one bundle.

    Answers the bundle's own example when it is made. That compiles all code, and finds a bundle that cannot answer
    before the first request.

    Args:
        bundle: a bundle that was loaded.
        max_rows: the largest number of rows in one table of a request.
        max_machines: the largest number of machines in the telemetry of a request.
        max_answer_bytes: the longest answer. It also limits the machines: each may get the longest result.
        max_ahead_us: how far the times of a request may lie ahead of this machine's clock.
    """

    def __init__(
        self,
        bundle: Bundle,
        max_rows: int,
        max_machines: int = sys.maxsize,
        max_answer_bytes: int = sys.maxsize,
        max_ahead_us: int = MAX_AHEAD_US,
    ) -> None:
        if bundle.manifest is None:
            raise ValueError("this bundle has no manifest: write it and load it")
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.max_rows = max_rows
        self.max_answer_bytes = max_answer_bytes
        self.max_ahead_us = max_ahead_us
        self.explainer = Explainer(bundle)
        self._untouched_share = untouched.share_of(bundle.manifest.provenance)
        self.result_bytes = _longest_result(bundle.schema, bundle.spec.history_us)
        self.max_machines = min(max_machines, max(max_answer_bytes // self.result_bytes, 1))
        self.decode = Decoder(bundle.schema, max_rows, self.max_machines, max_ahead_us)
        self.request_schema = openapi(bundle.schema)
        self.example = self.request_schema["examples"][0]
        self.explainer.reasons.compile(np.zeros(len(bundle.spec.names)))
        self.answer_schema = _answer_schema(bundle.schema, self.answer(msgspec.json.encode(self.example), "example"))

    def answer(self, body: bytes | str, request_id: str) -> dict[str, Any]:
        """One result for each machine, at its last telemetry row, as people are to see it.

        Raises:
            RequestError: the body was refused.
        """
        answer = self.answer_tables(self.decode(body), request_id)
        return answer | {"results": self.shown(answer["results"])}

    def answer_tables(self, tables: Tables, request_id: str) -> dict[str, Any]:
        """The answer to a request that was decoded, as it is logged."""
        predictions = self.bundle.predict(tables, last_only=True)
        return {
            "request_id": request_id,
            "model": self.manifest.model_digest,
            "results": results(tables, predictions, self.bundle.schema, self.bundle.spec.history_us),
        }

    def shown(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results as people are to see them: without the alarms of machines that are kept untouched."""
        if not self._untouched_share:
            return results
        return [
            _without_alarms(result) if untouched.is_untouched(result["machineID"], self._untouched_share) else result
            for result in results
        ]


def _without_alarms(result: dict[str, Any]) -> dict[str, Any]:
    def quiet(head: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if head is None else head | {"alarm": False}

    failure = {component: quiet(head) for component, head in result["failure"].items()}
    warnings = [*result["warnings"], untouched.WARNING]
    return result | {"anomaly": quiet(result["anomaly"]), "failure": failure, "warnings": warnings}


def results(tables: Tables, predictions: Predictions, schema: Schema, history_us: int) -> list[dict[str, Any]]:
    """The results of an answer. A head that is missing or has no score is None."""
    warnings = _warnings(tables, predictions, schema, history_us)
    probability, alarm = predictions.probability.T.tolist(), predictions.alarm.T.tolist()
    rows = zip(
        tables.named(predictions.machine).tolist(),
        predictions.time.tolist(),
        predictions.anomaly_score.tolist(),
        predictions.anomaly_alarm.tolist(),
        probability,
        alarm,
        warnings,
        strict=True,
    )
    return [
        {
            "machineID": machine,
            "datetime": to_text(time),
            "anomaly": None if math.isnan(score) else {"score": score, "alarm": anomaly_alarm},
            "failure": {
                component: None if math.isnan(chance) else {"probability": chance, "alarm": raised}
                for component, chance, raised in zip(schema.components, chances, alarms, strict=True)
            },
            "warnings": lines,
        }
        for machine, time, score, anomaly_alarm, chances, alarms, lines in rows
    ]


def _warnings(tables: Tables, predictions: Predictions, schema: Schema, history_us: int) -> list[list[str]]:
    """The warnings of each result: what its machine's data lacked."""
    codes, times = predictions.machine.tolist(), predictions.time.tolist()
    windows, complete = np.empty((len(codes), 2), np.int64), np.empty(len(codes), np.bool_)
    answered = (predictions.machine, predictions.time)
    _find_windows(*answered, tables.machine, tables.time, tables.values, history_us, schema.limits, windows, complete)
    described = set(tables.machine_ids.tolist())
    replaced = _replaced(tables, dict(zip(codes, times, strict=True)))
    components = range(len(schema.components))
    warnings: list[list[str]] = []
    for machine, (first, stop), whole, hours in zip(
        codes, windows.tolist(), complete.tolist(), predictions.history_hours.tolist(), strict=True
    ):
        seen_us = microseconds(hours)
        lines = [] if seen_us >= history_us else [_SHORT.format(hours, history_us / HOUR_US)]
        expected = seen_us // schema.period_us
        if stop - first < expected:
            lines.append(_GAPS.format(expected - stop + first, expected))
        if not whole:
            lines += _readings(tables.values[:, first:stop], schema)
        if machine not in described and schema.models:
            lines.append(_UNDESCRIBED)
        if missing := [schema.components[code] for code in components if (machine, code) not in replaced]:
            lines.append(_NO_REPLACEMENT.format(", ".join(missing)))
        warnings.append(lines)
    return warnings


@njit(cache=True, nogil=True)
def _find_windows(
    machines: Int64,
    last: Int64,
    machine: Int64,
    time: Int64,
    values: Float64,
    history_us: int,
    limits: Float64,
    windows: Int64,
    complete: NDArray[np.bool_],
) -> None:
    """Fill in the first and last + 1 row of each machine's window, and whether all its readings are within limits.

    ``machines`` are those of the telemetry, in the same order. A missing reading is outside the limits.
    """
    stop = 0
    for m in range(len(machines)):
        first = stop
        while stop < len(machine) and machine[stop] == machines[m]:
            stop += 1
        while time[first] <= last[m] - history_us:
            first += 1
        windows[m, 0], windows[m, 1] = first, stop
        whole = True
        for s in range(len(values)):
            for r in range(first, stop):
                whole &= values[s, r] >= limits[s, 0] and values[s, r] <= limits[s, 1]  # NaN compares as False
        complete[m] = whole


def _replaced(tables: Tables, times: dict[int, int]) -> set[tuple[int, int]]:
    """The (machine, component) pairs with a replacement up to the time of the machine's result."""
    maint = tables.maint
    events = zip(maint.machine.tolist(), maint.code.tolist(), maint.time.tolist(), strict=True)
    return {(machine, code) for machine, code, time in events if machine in times and time <= times[machine]}


def _readings(values: Float64, schema: Schema) -> list[str]:
    """Warnings about the readings of one machine's window, shape (sensors, rows)."""
    lines = []
    for sensor, readings, (low, high) in zip(schema.sensors, values, schema.ranges, strict=True):
        if missing := int(np.isnan(readings).sum()):
            lines.append(_MISSING.format(missing, len(readings), sensor))
        if outside := int(((readings < low) | (readings > high)).sum()):
            lines.append(_OUTSIDE.format(outside, len(readings), sensor, low, high))
    return lines


def _longest_result(schema: Schema, history_us: int) -> int:
    """The bytes in JSON of the longest result that a machine can get: all warnings, every number at its longest."""
    figure, count = -math.pi * 1e-300, 10**9
    warnings = [_SHORT.format(figure, history_us / HOUR_US), _GAPS.format(count, count), _UNDESCRIBED]
    for sensor, (low, high) in zip(schema.sensors, schema.ranges, strict=True):
        warnings += [_MISSING.format(count, count, sensor), _OUTSIDE.format(count, count, sensor, low, high)]
    warnings.append(untouched.WARNING)
    warnings.append(_NO_REPLACEMENT.format(", ".join(schema.components)))
    longest = {
        "machineID": "\U0010ffff" * machines.LONGEST if schema.has_names else -(2**63),
        "datetime": to_text(253_402_300_799_999_999),
        "anomaly": {"score": figure, "alarm": False},
        "failure": {component: {"probability": figure, "alarm": False} for component in schema.components},
        "warnings": warnings,
    }
    return len(msgspec.json.encode(longest)) + 1  # the comma


def _answer_schema(schema: Schema, example: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an answer."""

    def head(figure: str, minimum: float | None) -> dict[str, Any]:
        number: dict[str, Any] = (
            {"type": "number"} if minimum is None else {"type": "number", "minimum": 0, "maximum": 1}
        )
        properties = {figure: number, "alarm": {"type": "boolean"}}
        return {"type": ["object", "null"], "properties": properties, "required": list(properties)}

    failure = {component: head("probability", 0) for component in schema.components}
    properties = {
        "machineID": {"type": machines.json_type(schema.machine_id)},
        "datetime": {"type": "string", "format": "date-time", "description": "The machine's last telemetry row."},
        "anomaly": {**head("score", None), "description": "null: the bundle has no anomaly head."},
        "failure": {
            "type": "object",
            "description": "By component, null where the bundle has no head for it.",
            "properties": failure,
            "required": list(failure),
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
    }
    result = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "object",
        "properties": {
            "request_id": {"type": "string"},
            "model": {"type": "string", "description": "Digest of the model that answered."},
            "results": {"type": "array", "items": result},
        },
        "required": ["request_id", "model", "results"],
        "examples": [example],
    }
