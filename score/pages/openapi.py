"""The OpenAPI document: the plain routes as FastAPI describes them, the logged ones from the bundle's schema."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from closedloop.data.feedback import FeedbackDecoder
from score.answer import Scorer
from score.pages import examples, schemas
from score.problems import MEDIA_TYPE

TITLE = "Closed Loop"
# Of the interface, not of the model: the second number rises where something is added, the first where something that a
# client may rely on is gone.
VERSION = "1.1.0"
DESCRIPTION = (
    "Anomaly scores and failure probabilities of machines, from a slice of their tables. Requests are logged, and the "
    "next model is trained on the log; send the header `Closed-Loop-Dry-Run: 1` to try something out."
)
_TAGS = {
    "Scoring": "What a model says of machines.",
    "Feedback": "What happened to machines afterwards.",
    "Operations": "What is served, and how it does.",
}
_PROBLEMS = {
    "400": "The body is not JSON, or a header or `include` has an unknown value.",
    "401": "No known token.",
    "403": "The token lacks the scope.",
    "408": "The request took too long to arrive.",
    "413": "The body is too long, or the answer is, or the log can never take a record of both.",
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
    "schema": schemas.ref("DryRun"),
}
_INCLUDE = {
    "name": "include",
    "in": "query",
    "description": "What else to tell, separated by commas. `thresholds`: from which figure on each head alarms. "
    "`severity`: what to do, from `none` to `act`. `contributions`: of each head in alarm, the sensors and events that "
    "raised it most. `confidence`: how much of the history is known. `warning_codes`: stable names of the warnings. "
    "None of these is logged.",
    "explode": False,
    "schema": {"type": "array", "items": schemas.ref("Part")},
    "example": ["severity", "contributions"],
}
_ID_BACK = {
    "X-Request-ID": {
        "description": "The request's id.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    }
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def document(app: FastAPI, scorer: Scorer, *, closed: bool) -> dict[str, Any]:
    """The OpenAPI document of one bundle; ``closed`` tells whether tokens are required."""
    made = get_openapi(title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes)
    made["info"]["x-model-digest"] = scorer.manifest.model_digest
    made["servers"] = [{"url": "./", "description": "This service."}]
    components: dict[str, Any] = {"schemas": schemas.named(scorer)}
    problems = _problems(scorer)
    posts = {"/score": {"post": _score_operation(scorer, problems)}}
    if scorer.bundle.schema.components:
        posts["/feedback"] = {"post": _feedback_operation(scorer, components["schemas"]["FeedbackRequest"], problems)}
    made["paths"] = {**posts, **made["paths"]}
    plain = {path: made["paths"][path]["get"]["responses"] for path in ("/readyz", "/version", "/state")}
    plain["/readyz"]["503"] = problems["503"] | {"description": "Not ready."} | _problem(examples.not_ready())
    example = made["paths"]["/example"]["get"]
    example["tags"] = ["Scoring"]
    example["responses"]["200"] |= _json(schemas.ref("ScoreRequest"))
    plain["/version"]["200"] |= _json(schemas.ref("Version"))
    plain["/state"]["200"] |= _json(schemas.ref("State"))
    if closed:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operations in posts.values():
            operations["post"]["security"] = [{"token": []}]
        made["paths"]["/state"]["get"]["security"] = [{}, {"token": []}]
        plain["/state"] |= {status: problems[status] for status in ("401", "403")}
    used = {tag for operations in made["paths"].values() for one in operations.values() for tag in one["tags"]}
    made["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    return made | {"components": components}


def _problems(scorer: Scorer) -> dict[str, Any]:
    """The response of each error status but 422, which differs by route."""
    shown = examples.of_problems(scorer)
    problems: dict[str, Any] = {
        status: {"description": text} | _problem(shown.get(status, {})) for status, text in _PROBLEMS.items()
    }
    problems["503"]["headers"] = _RETRY_AFTER
    return problems


def _score_operation(scorer: Scorer, problems: dict[str, Any]) -> dict[str, Any]:
    digest = {"description": "The model that answered.", "required": True, "schema": {"type": "string"}}
    headers = {**_ID_BACK, "X-Model-Digest": digest}
    request, answer = _shown("ScoreRequest", scorer.request_schema), _shown("ScoreAnswer", scorer.answer_schema)
    refused = examples.refusals(scorer.decode, examples.faulty_requests(scorer))
    return {
        "tags": ["Scoring"],
        "summary": "Score machines",
        "description": "One result for each machine of the request, at its last telemetry row.",
        "operationId": "score",
        "parameters": [_ID, _DRY_RUN, _INCLUDE],
        "requestBody": {"required": True} | _json(request, examples.of_score(scorer)),
        "responses": {
            "200": {"description": "One result for each machine.", "headers": headers} | _json(answer),
            **problems,
            "422": problems["422"] | _problem(refused),
        },
    }


def _feedback_operation(scorer: Scorer, schema: dict[str, Any], problems: dict[str, Any]) -> dict[str, Any]:
    fleet, (example,) = scorer.bundle.schema, schema["examples"]
    request = _shown("FeedbackRequest", schema)
    decoder = FeedbackDecoder(fleet, scorer.max_rows, scorer.max_ahead_us)
    refused = examples.refusals(decoder, examples.faulty_feedback(fleet, example))
    stored = {"description": "The rows are in the log, durably.", "headers": _ID_BACK}
    return {
        "tags": ["Feedback"],
        "summary": "Report what happened",
        "description": "Failures and replacements that happened, events that did not (`retracted`), and up to when "
        "everything has been reported (`complete_until`): the next model is trained on this and the log.",
        "operationId": "feedback",
        "parameters": [_ID, _DRY_RUN],
        "requestBody": {"required": True} | _json(request, examples.of_feedback(example)),
        "responses": {
            "200": stored | _json(schemas.ref("FeedbackAnswer")),
            **problems,
            "422": problems["422"] | _problem(refused),
        },
    }


def _shown(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The ``$ref`` to a named schema, with its examples: deployments of other releases look for them here."""
    return schemas.ref(name) | {"examples": schema["examples"]}


def _json(schema: dict[str, Any], shown: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema} | _examples(shown or {})}}


def _problem(shown: dict[str, Any]) -> dict[str, Any]:
    return {"content": {MEDIA_TYPE: {"schema": schemas.ref("Problem")} | _examples(shown)}}


def _examples(shown: dict[str, Any]) -> dict[str, Any]:
    if not shown:
        return {}
    return {"examples": {name: {"summary": name, "value": value} for name, value in shown.items()}}
