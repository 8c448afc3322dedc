"""The OpenAPI document: what the framework knows of the plain routes, and what the bundle knows of the others."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from closedloop.data import feedback
from score.answer import Scorer
from score.problems import MEDIA_TYPE, Problem

TITLE = "Closed Loop"
DESCRIPTION = "Anomaly and failure probabilities of machines, from a slice of their tables. Every request is logged."
_PROBLEMS = {
    "400": "The body is no JSON.",
    "401": "No known token.",
    "403": "The token lacks the scope.",
    "408": "The request took too long to arrive.",
    "413": "The body is too long.",
    "415": "The body is not said to be plain JSON.",
    "422": "The body is not a request of this schema; `errors` points to each fault.",
    "431": "The head is too long.",
    "503": "Too much at once, or the request log cannot be written: ask again after `Retry-After` seconds.",
}
_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Up to 128 of `A-Z a-z 0-9 . _ : -` come back with the answer; another id, or none, is replaced. "
    "The same again, with the same body, is the same request.",
    "schema": {"type": "string"},
    "example": "press-shop-2015-01-04T06",
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
    "unready": {"type": ["string", "null"], "description": "Why no requests are wanted now."},
    **dict.fromkeys(
        ("uptime_seconds", "machines_scored", "offered", "stored", "sampled_out", "rejected", "in_flight"), _COUNT
    ),
    "unsent_segments": {"type": ["integer", "null"], "description": "null: not known, or nothing is shipped."},
    "recent": {"type": ["array", "null"], "description": "null: send a token.", "items": {"type": "object"}},
}


def document(app: FastAPI, scorer: Scorer, *, closed: bool) -> dict[str, Any]:
    """The document of one bundle; ``closed`` says that tokens are asked for."""
    made = get_openapi(title=TITLE, version=scorer.manifest.model_digest, description=DESCRIPTION, routes=app.routes)
    problem_schema = _problem_schema()
    problems = {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": problem_schema}}}
        for status, text in _PROBLEMS.items()
    }
    problems["503"]["headers"] = _RETRY_AFTER
    digest = {"description": "The model that answered.", "required": True, "schema": {"type": "string"}}
    headers = {**_ID_BACK, "X-Model-Digest": digest}
    scored = {"description": "One result for each machine.", "headers": headers} | _json(scorer.answer_schema)
    paths: dict[str, Any] = {
        "/score": {
            "post": {
                "summary": "Score machines",
                "description": "One result for each machine of the request, at its last telemetry row.",
                "operationId": "score",
                "parameters": [_ID],
                "requestBody": {"required": True} | _json(scorer.request_schema, _score_examples(scorer.example)),
                "responses": {"200": scored, **problems},
            }
        }
    }
    if scorer.bundle.schema.components:
        schema = feedback.openapi(scorer.bundle.schema)
        (example,) = schema["examples"]
        taken = {"description": "It is in the log, durably.", "headers": _ID_BACK} | _json(_acknowledgement())
        paths["/feedback"] = {
            "post": {
                "summary": "Say what happened",
                "description": "Failures and replacements that happened: from them and the log the next model learns.",
                "operationId": "feedback",
                "parameters": [_ID],
                "requestBody": {"required": True} | _json(schema, _feedback_examples(example)),
                "responses": {"200": taken, **problems},
            }
        }
    made["paths"] = {**paths, **made["paths"]}
    told = {path: made["paths"][path]["get"]["responses"] for path in ("/readyz", "/version", "/state")}
    told["/readyz"]["503"] = problems["503"] | {"description": "Not ready."}
    told["/version"]["200"] |= _json(_object(_VERSION))
    told["/state"]["200"] |= _json(_object(_STATE))
    if closed:
        made.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operations in paths.values():
            operations["post"]["security"] = [{"token": []}]
        made["paths"]["/state"]["get"]["security"] = [{}, {"token": []}]
        told["/state"] |= {status: problems[status] for status in ("401", "403")}
    return made


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if examples:
        media["examples"] = {name: {"summary": name, "value": value} for name, value in examples.items()}
    return {"content": {"application/json": media}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _score_examples(example: dict[str, Any]) -> dict[str, Any]:
    """Requests that can be sent as they are."""
    telemetry = example["telemetry"]
    sensors = [name for name in telemetry if name not in ("datetime", "machineID")]
    missing = telemetry | {sensors[0]: [None, *telemetry[sensors[0]][1:]]}
    two = {name: column * 2 for name, column in telemetry.items()}
    two["machineID"] = [1] * len(telemetry["machineID"]) + [2] * len(telemetry["machineID"])
    return {
        "one machine, with all that is known of it": example,
        "telemetry alone": {"telemetry": telemetry},
        "a missing reading": {"telemetry": missing},
        "two machines": {"telemetry": two},
    }


def _feedback_examples(example: dict[str, Any]) -> dict[str, Any]:
    return {
        "a failure and its replacement": example,
        "a failure": {"failures": example["failures"]},
        "a planned replacement": {"maint": example["maint"]},
    }


def _acknowledgement() -> dict[str, Any]:
    stored = {"failures": _COUNT, "maint": _COUNT}
    answer = {"request_id": {"type": "string"}, "stored": _object(stored) | {"description": "Rows of each table."}}
    return _object(answer) | {"examples": [{"request_id": "4f2c", "stored": {"failures": 1, "maint": 1}}]}


def _problem_schema() -> dict[str, Any]:
    """RFC 9457."""
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
