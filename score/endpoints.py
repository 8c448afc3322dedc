"""All routes of the service.

``/score`` and ``/feedback`` are plain ASGI applications, which the middleware calls past the framework: with 64
connections the framework would cost more than the answer. All other routes are FastAPI's.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette import types
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route

from closedloop.log.record import Record
from score import explain
from score.auth import Scope
from score.pages import docs, page
from score.problems import Problem
from score.service import DRY_RUN, ON, Service, dry_run_of
from score.settings import EPHEMERAL_SEAL_SECONDS

Headers = list[tuple[bytes, bytes]]
router = APIRouter(tags=["Operations"], generate_unique_id_function=lambda route: route.name)
_DRY_RUN = (DRY_RUN, ON)


@dataclass(frozen=True)
class LoggedPost:
    """An ASGI application that sends what ``answer`` returns for a request: the content and extra headers."""

    answer: Callable[[types.Scope, types.Receive], Awaitable[tuple[bytes, Headers]]]

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answer one request; problems are raised."""
        content, headers = await self.answer(scope, receive)
        form = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers + form})
        await send({"type": "http.response.body", "body": content})


async def score_machines(scope: types.Scope, receive: types.Receive) -> tuple[bytes, Headers]:
    """Score each machine of the request at its last telemetry row; return once the record is durable."""
    received = scope["state"]["received_us"] = time.time_ns() // 1000
    service: Service = scope["state"]["service"]
    caller = _admit(scope, "score")
    parts = explain.asked(scope["query_string"])
    body = scope["state"]["body"] = await _body(receive)
    answer = partial(service.score, parts=parts) if parts else service.score
    scored = await service.work(answer, body, scope["state"]["request_id"], dear=bool(parts))
    await _keep(scope["state"], "score", received, caller, scored.body, scored.content)
    dry_run = scope["state"]["dry_run"]
    service.status.scored(scored.shown, show=not dry_run)
    if not dry_run:
        await service.count(scored.results)
    headers = [(b"x-model-digest", service.scorer.manifest.model_digest.encode())]
    return scored.seen, [*headers, _DRY_RUN] if dry_run else headers


async def take_feedback(scope: types.Scope, receive: types.Receive) -> tuple[bytes, Headers]:
    """Take what happened, what did not, and up to when all is known; return once the record is durable."""
    received = scope["state"]["received_us"] = time.time_ns() // 1000
    service: Service = scope["state"]["service"]
    request_id: str = scope["state"]["request_id"]
    caller = _admit(scope, "feedback")
    body = scope["state"]["body"] = await _body(receive)
    feedback = await service.work(service.take, body, request_id)
    dry_run = scope["state"]["dry_run"]
    stored = dict.fromkeys(feedback.rows, 0) if dry_run else feedback.rows
    content = msgspec.json.encode({"request_id": request_id, "stored": stored})
    await _keep(scope["state"], "feedback", received, caller, feedback.body, content)
    service.metrics.feedback_taken(stored)
    return content, [_DRY_RUN] if dry_run else []


LOGGED_POSTS: dict[str, types.ASGIApp] = {"/score": LoggedPost(score_machines), "/feedback": LoggedPost(take_feedback)}


@router.get("/livez", summary="Whether the process answers", response_class=PlainTextResponse)
async def livez() -> PlainTextResponse:
    """Answer, whatever the state of the disk: a restart would not fix it."""
    return PlainTextResponse("alive\n")


@router.get("/readyz", summary="Whether requests can be scored and logged", response_class=PlainTextResponse)
async def readyz(request: Request) -> PlainTextResponse:
    """Answer 503 while the log cannot be written, and when the service is stopping."""
    if (reason := _service(request).status.unready()) is not None:
        raise Problem(503, reason, headers={"Retry-After": "2"})
    return PlainTextResponse("ready\n")


@router.get("/version", summary="What is served: model, data, commit, image", response_class=Response)
async def version(request: Request) -> Response:
    """The digests of what is served; where the log's volume ends with the instance, also what can be lost."""
    service = _service(request)
    if not service.settings.log_ephemeral:
        return _json(service.status.served)
    window = {
        "volume": "ephemeral",
        "sealed_after_seconds": EPHEMERAL_SEAL_SECONDS,
        "lost_at_most_seconds": service.settings.log_max_age_seconds,
    }
    return _json(service.status.served | {"log": window})


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """The metrics in Prometheus' text format."""
    return PlainTextResponse(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/state", summary="Live figures, and with a token the last results", response_class=Response)
async def state(request: Request) -> Response:
    """The live figures; the last results only with a token for /score, or with ``AUTH=open``."""
    service = _service(request)
    authorization = request.headers.get("authorization", "")
    if authorization:
        service.caller(authorization, "score")
    figures = service.status.state(recent=service.tokens is None or bool(authorization))
    return _json(figures, {"Cache-Control": "no-store"})


@router.get("/example", summary="A request that can be sent to /score as it is", response_class=Response)
async def example(request: Request) -> Response:
    """The example request, made from the bundle's schema."""
    return Response(_service(request).pages["/example"], media_type="application/json")


@router.get("/", include_in_schema=False)
async def home(request: Request) -> HTMLResponse:
    """The page for people."""
    return HTMLResponse(_service(request).pages["/"], headers=page.HEADERS)


@router.get("/docs", include_in_schema=False)
async def docs_page(request: Request) -> HTMLResponse:
    """The documentation of the API, for people."""
    return HTMLResponse(_service(request).pages["/docs"], headers=docs.HEADERS)


@router.get("/docs/swagger-ui.css", include_in_schema=False)
@router.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
async def docs_asset(request: Request) -> Response:
    """What the documentation loads."""
    path = request.url.path
    kind = docs.ASSETS[path.rpartition("/")[2]]
    return Response(_service(request).pages[path], headers={"Cache-Control": "max-age=86400"}, media_type=kind)


@router.get("/openapi.json", include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The documentation of the API, for machines."""
    return Response(_service(request).pages["/openapi.json"], media_type="application/json")


# the framework knows the logged posts too, so that it answers other methods with 405
ROUTES: list[BaseRoute] = [
    *(Route(path, answer, methods=["POST"]) for path, answer in LOGGED_POSTS.items()),
    *router.routes,
]
PATHS = frozenset(route.path for route in ROUTES if isinstance(route, Route))


def _service(request: Request) -> Service:
    service: Service = request.state.service
    return service


def _json(content: object, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), headers=headers, media_type="application/json")


async def _body(receive: types.Receive) -> bytes:
    message = await receive()
    parts = [_part(message)]
    while message.get("more_body", False):
        message = await receive()
        parts.append(_part(message))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _part(message: types.Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b"")


def _admit(scope: types.Scope, right: Scope) -> str:
    """The caller's name, checked before the body is read.

    Raises:
        Problem: 401 or 403, the caller has no right to ask; 400, an unknown value of Closed-Loop-Dry-Run; 415, the body
            is not plain JSON.
    """
    service: Service = scope["state"]["service"]
    headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of a repeated header the first counts
    state = scope["state"]
    asked = dry_run_of(scope["headers"])
    state["dry_run"] = asked is not None
    caller = state["caller"] = service.caller(headers.get(b"authorization", b"").decode("latin-1"), right)
    if asked not in (None, ON):
        shown = asked.decode("latin-1")[:20]
        raise Problem(400, f"Closed-Loop-Dry-Run {shown!r}: send 1, or leave the header out to have the request logged")
    _require_plain_json(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
    return caller


async def _keep(state: dict[str, Any], kind: Scope, received: int, caller: str, body: bytes, content: bytes) -> None:
    """Write the record of an answer to the log; return once it is durable. A dry run is only counted."""
    service: Service = state["service"]
    if state["dry_run"]:
        service.journal.dry_run += 1
        state["settled"] = True
        return
    record = Record(
        kind=kind,
        request_id=state["request_id"],
        received_us=received,
        answered_us=time.time_ns() // 1000,
        caller=caller,
        status=200,
        model=service.scorer.manifest.model_digest,
        image=service.settings.image,
        request=body,
        answer=content,
    )
    await service.journal.keep(record)
    state["settled"] = True


def _require_plain_json(content_type: bytes, content_encoding: bytes) -> None:
    """Refuse a body declared as anything but plain JSON; without a declaration it is taken for JSON."""
    if content_type != b"application/json":
        kind = content_type.decode("latin-1").partition(";")[0].strip().lower()
        if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise Problem(415, f"Content-Type {kind[:60]!r}: send application/json")
    if content_encoding.strip().lower() not in (b"", b"identity"):
        raise Problem(415, "Content-Encoding: send the body uncompressed")
