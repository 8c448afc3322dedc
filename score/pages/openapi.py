"""The OpenAPI document: the plain routes as FastAPI describes them, the logged ones from the bundle's schema."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from closedloop.data import feedback, machines
from closedloop.data.machines import Id
from score.answer import Scorer
from score.problems import MEDIA_TYPE, Problem

TITLE = "Closed Loop"
DESCRIPTION = "Anomaly scores and failure probabilities of machines, from a slice of their tables. Requests are logged."
_PROBLEMS = {
    "400": "The body is not JSON, or a header has an unknown value.",
    "401": "No known token.",
    "403": "The token lacks the scope.",
    "408": "The request took too long to arrive.",
    "413": "The body is too long, or the log can never take a record of it and its answer.",
    "415": "The body is not declared as plain JSON.",
    "422": "The body does not match the schema, has too many machines, or times that are not plausible; `errors` "
    "points to each fault.",
    "431": "The headers are too long.",
    "503": "Too many requests at once, or the request log cannot be written: try again after `Retry-After` seconds.",
}
_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Returned with the answer if it is 1 to 128 of `A-Z a-z 0-9 . _ : -`; otherwise the service makes "
    "one. Repeat the id when you repeat a request: the log counts both as one.",
    "schema": {"type": "string"},
    "example": "press-shop-2015-01-04T06",
}
_DRY_RUN = {
    "name": "Closed-Loop-Dry-Run",
    "in": "header",
    "description": "Send 1 to try something out: the request is checked and answered like any other, but nothing is "
    "logged, and no model is trained on it. The answer repeats the header.",
    "schema": {"type": "string", "enum": ["1"]},
}
_ID_BACK = {
    "X-Request-ID": {
        "description": "The request's id.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    }
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_COUNT = {"type": "integer", "minimum": 0}
_VERSION = {key: {"type": ["string", "null"]} for key in ("model_digest", "bundle_digest", "data", "commit", "image")}
_STATE = {
    "unready": {"type": ["string", "null"], "description": "Why no requests are accepted now; null: they are."},
    **dict.fromkeys(
        ("uptime_seconds", "machines_scored", "offered", "stored", "sampled_out", "dry_run", "rejected", "in_flight"),
        _COUNT,
    ),
    "unsent_segments": {"type": ["integer", "null"], "description": "null: unknown, or the log is not shipped."},
    "recent": {"type": ["array", "null"], "description": "null: send a token.", "items": {"type": "object"}},
}


def document(app: FastAPI, scorer: Scorer, *, closed: bool) -> dict[str, Any]:
    """The OpenAPI document of one bundle; ``closed`` tells whether tokens are required."""
    made = get_openapi(title=TITLE, version=scorer.manifest.model_digest, description=DESCRIPTION, routes=app.routes)
    problems = _problems()
    posts = {"/score": {"post": _score_operation(scorer, problems)}}
    if scorer.bundle.schema.components:
        posts["/feedback"] = {"post": _feedback_operation(scorer, problems)}
    made["paths"] = {**posts, **made["paths"]}
    plain = {path: made["paths"][path]["get"]["responses"] for path in ("/readyz", "/version", "/state")}
    plain["/readyz"]["503"] = problems["503"] | {"description": "Not ready."}
    made["paths"]["/example"]["get"]["responses"]["200"] |= _json(scorer.request_schema)
    plain["/version"]["200"] |= _json(_object(_VERSION))
    plain["/state"]["200"] |= _json(_object(_STATE))
    if closed:
        made.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operations in posts.values():
            operations["post"]["security"] = [{"token": []}]
        made["paths"]["/state"]["get"]["security"] = [{}, {"token": []}]
        plain["/state"] |= {status: problems[status] for status in ("401", "403")}
    return made


def _problems() -> dict[str, Any]:
    """The response of each error status."""
    content = {MEDIA_TYPE: {"schema": _problem_schema()}}
    problems: dict[str, Any] = {status: {"description": text, "content": content} for status, text in _PROBLEMS.items()}
    problems["503"]["headers"] = _RETRY_AFTER
    return problems


def _score_operation(scorer: Scorer, problems: dict[str, Any]) -> dict[str, Any]:
    digest = {"description": "The model that answered.", "required": True, "schema": {"type": "string"}}
    headers = {**_ID_BACK, "X-Model-Digest": digest}
    two = machines.examples(scorer.bundle.schema.machine_id, 2)
    scored = {"description": "One result for each machine.", "headers": headers} | _json(scorer.answer_schema)
    return {
        "summary": "Score machines",
        "description": "One result for each machine of the request, at its last telemetry row.",
        "operationId": "score",
        "parameters": [_ID, _DRY_RUN],
        "requestBody": {"required": True} | _json(scorer.request_schema, _score_examples(scorer.example, two)),
        "responses": {"200": scored, **problems},
    }


def _feedback_operation(scorer: Scorer, problems: dict[str, Any]) -> dict[str, Any]:
    schema = feedback.openapi(scorer.bundle.schema)
    (example,) = schema["examples"]
    stored = {"description": "The rows are in the log, durably.", "headers": _ID_BACK} | _json(_acknowledgement())
    return {
        "summary": "Report what happened",
        "description": "Failures and replacements that happened, events that did not (`retracted`), and up to when "
        "everything has been reported (`complete_until`): the next model is trained on this and the log.",
        "operationId": "feedback",
        "parameters": [_ID, _DRY_RUN],
        "requestBody": {"required": True} | _json(schema, _feedback_examples(example)),
        "responses": {"200": stored, **problems},
    }


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if examples:
        media["examples"] = {name: {"summary": name, "value": value} for name, value in examples.items()}
    return {"content": {"application/json": media}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _score_examples(example: dict[str, Any], two_machines: list[Id]) -> dict[str, Any]:
    """Requests that can be sent as they are, by name."""
    telemetry = example["telemetry"]
    sensors = [name for name in telemetry if name not in ("datetime", "machineID")]
    missing = telemetry | {sensors[0]: [None, *telemetry[sensors[0]][1:]]}
    two = {name: column * 2 for name, column in telemetry.items()}
    two["machineID"] = [machine for machine in two_machines for _ in telemetry["machineID"]]
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


def _feedback_examples(example: dict[str, Any]) -> dict[str, Any]:
    """Feedback that can be sent as it is, by name."""
    failures, maint = example["failures"], {**example["maint"], "finding": ["sound"]}
    earlier = {**failures, "datetime": ["2015-01-05T05:30:00Z"]}
    return {
        "a failure and its replacement": example,
        "a failure": {"failures": failures},
        "a planned replacement of a sound component": {"maint": maint},
        "a failure whose time is corrected": {"failures": earlier, "retracted": {"failures": failures}},
        "everything has been reported": {"complete_until": example["complete_until"]},
    }


def _acknowledgement() -> dict[str, Any]:
    """The JSON Schema of the answer to feedback."""
    stored = dict.fromkeys(("failures", "maint", "retracted", "complete_until"), _COUNT)
    answer = {"request_id": {"type": "string"}, "stored": _object(stored) | {"description": "Rows of each part."}}
    example = {"failures": 1, "maint": 1, "retracted": 0, "complete_until": 1}
    return _object(answer) | {"examples": [{"request_id": "4f2c", "stored": example}]}


def _problem_schema() -> dict[str, Any]:
    """The JSON Schema of a problem (RFC 9457)."""
    fault = {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}}
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
            "errors": {"type": "array", "items": fault, "description": "Each with an RFC 6901 pointer into the body."},
        },
        "required": ["type", "title", "status", "detail"],
        "examples": [Problem(415, "Content-Type 'text/plain': send application/json").body("4f2c")],
    }
