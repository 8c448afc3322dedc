"""The examples of the OpenAPI document: requests that can be sent as they are, and what each error looks like."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from closedloop.data import machines
from closedloop.data.request import RequestError
from closedloop.data.schema import Schema
from score.answer import Scorer
from score.problems import Problem

REQUEST_ID = "4f2c"


def of_score(scorer: Scorer) -> dict[str, Any]:
    """Requests of ``/score`` by name."""
    example, telemetry = scorer.example, scorer.example["telemetry"]
    sensor = scorer.bundle.schema.sensors[0]
    missing = telemetry | {sensor: [None, *telemetry[sensor][1:]]}
    two = {name: column * 2 for name, column in telemetry.items()}
    both = machines.examples(scorer.bundle.schema.machine_id, 2)
    two["machineID"] = [machine for machine in both for _ in telemetry["machineID"]]
    examples = {
        "one machine with all its tables": example,
        "telemetry only": {"telemetry": telemetry},
        "a missing reading": {"telemetry": missing},
        "two machines": {"telemetry": two},
    }
    if "maint" in example:
        found = {**example["maint"], "finding": ["worn"]}
        examples["what was found at a replacement"] = example | {"maint": found}
    return examples


def of_feedback(example: dict[str, Any]) -> dict[str, Any]:
    """Feedback by name."""
    failures, maint = example["failures"], {**example["maint"], "finding": ["sound"]}
    earlier = {**failures, "datetime": ["2015-01-05T05:30:00Z"]}
    return {
        "a failure and its replacement": example,
        "a failure": {"failures": failures},
        "a planned replacement of a sound component": {"maint": maint},
        "a failure whose time is corrected": {"failures": earlier, "retracted": {"failures": failures}},
        "everything has been reported": {"complete_until": example["complete_until"]},
    }


def faulty_requests(scorer: Scorer) -> dict[str, dict[str, Any]]:
    """Requests of ``/score`` that are refused with 422, by what is wrong with them."""
    telemetry = scorer.example["telemetry"]
    sensor = scorer.bundle.schema.sensors[0]
    rows = [dict(zip(telemetry, row, strict=True)) for row in zip(*telemetry.values(), strict=True)]
    return {
        "a column is too short": {"telemetry": telemetry | {sensor: telemetry[sensor][1:]}},
        "a column is missing": {"telemetry": {name: telemetry[name] for name in telemetry if name != sensor}},
        "rows instead of columns": {"telemetry": rows},
    }


def faulty_feedback(schema: Schema, example: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Feedback that is refused with 422, by what is wrong with it."""
    unknown = f"{max(schema.components, key=len)}?"  # longer than any that is known
    return {"an unknown component": {"failures": example["failures"] | {"failure": [unknown]}}}


def refusals(decode: Callable[[bytes], object], faulty: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The problems with which requests are refused, by what is wrong with them."""
    return {name: _refusal(decode, json.dumps(body).encode()) for name, body in faulty.items()}


def of_problems(scorer: Scorer) -> dict[str, dict[str, Any]]:
    """The problems of both logged routes, by status and name. Each route has its own for 422."""
    sensor = json.dumps(scorer.bundle.schema.sensors[0])
    told = [
        Problem(401, "no known token: send the header Authorization: Bearer <token>"),
        Problem(403, "the token of press-shop lacks the scope score: send one that has it"),
        Problem(408, "the request took too long to arrive: send it without pauses"),
        Problem(413, "the body is longer than 16777216 bytes: send smaller batches"),
        Problem(415, "Content-Type 'text/plain': send application/json"),
        Problem(431, "the headers are longer than 65536 bytes: send shorter ones"),
        Problem(503, "too many requests at once: try again later"),
    ]
    no_id = (408, 431)  # what is refused before it is a request
    problems = {
        str(problem.status): {problem.title: problem.body(None if problem.status in no_id else REQUEST_ID)}
        for problem in told
    }
    nan = _refusal(scorer.decode, f'{{"telemetry": {{{sensor}: [NaN]}}}}'.encode())
    return {"400": {"a reading is NaN": nan}, **problems}


def not_ready() -> dict[str, Any]:
    """The problem of ``/readyz`` by its name."""
    return {"stopping": Problem(503, "the service is stopping").body(REQUEST_ID)}


def _refusal(decode: Callable[[bytes], object], body: bytes) -> dict[str, Any]:
    try:
        decode(body)
    except RequestError as error:
        return Problem.of(error).body(REQUEST_ID)
    raise AssertionError(f"this example of a fault is answered: {body.decode()}")
