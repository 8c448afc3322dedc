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
    "503": "Too much at once, or the request log cannot be written: ask again after `Retry-After` seconds.",
}
_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Comes back with the answer. The same again, with the same body, is the same request.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "example": "press-shop-2015-01-04T06",
}


def document(app: FastAPI, scorer: Scorer, *, closed: bool) -> dict[str, Any]:
    """The document of one bundle; ``closed`` says that tokens are asked for."""
    made = get_openapi(title=TITLE, version=scorer.manifest.model_digest, description=DESCRIPTION, routes=app.routes)
    problem_schema = _problem_schema()
    problems = {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": problem_schema}}}
        for status, text in _PROBLEMS.items()
    }
    digest = {"X-Model-Digest": {"description": "The model that answered.", "schema": {"type": "string"}}}
    scored = {"description": "One result for each machine.", "headers": digest} | _json(scorer.answer_schema)
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
        taken = {"description": "It is in the log, durably."} | _json(_acknowledgement())
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
    made["paths"]["/readyz"]["get"]["responses"]["503"] = {
        "description": "Not ready.",
        "content": {MEDIA_TYPE: {"schema": problem_schema}},
    }
    if closed:
        made.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operations in paths.values():
            operations["post"]["security"] = [{"token": []}]
    return made


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if examples:
        media["examples"] = {name: {"summary": name, "value": value} for name, value in examples.items()}
    return {"content": {"application/json": media}}


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
    stored = {"failures": {"type": "integer"}, "maint": {"type": "integer"}}
    return {
        "type": "object",
        "properties": {
            "request_id": {"type": "string"},
            "stored": {"type": "object", "description": "Rows of each table.", "properties": stored},
        },
        "required": ["request_id", "stored"],
        "examples": [{"request_id": "4f2c", "stored": {"failures": 1, "maint": 1}}],
    }


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
