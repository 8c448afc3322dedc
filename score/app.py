"""The service: one decode, one predict, one durable record, one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from closedloop.log.record import Record, encode
from closedloop.log.spool import Spool, SpoolError, SpoolFull
from score import docs, score
from score.answer import Scorer
from score.auth import Tokens
from score.edge import Edge, on_http_exception
from score.observability import Metrics
from score.problems import MEDIA_TYPE, Problem
from score.settings import Settings

_THREAD_BYTES = 128 << 10  # a longer body would keep the probes waiting, and goes to a thread
_TITLE = "Closed Loop"
_DESCRIPTION = "Anomaly and failure probabilities of machines, from a slice of their tables. Every request is logged."
_PROBLEMS = {
    "400": "The body is no JSON.",
    "401": "No known token.",
    "403": "The token lacks the scope.",
    "413": "The body is too long.",
    "415": "The body is not said to be plain JSON.",
    "422": "The body is not a request of this schema; `errors` points to each fault.",
    "503": "The request log cannot keep up or cannot be written: ask again after `Retry-After` seconds.",
}
_ROUTES = frozenset({"/score", "/livez", "/readyz", "/version", "/metrics", "/docs", "/openapi.json"})


@dataclass(frozen=True)
class Service:
    """All that answering needs. ``tokens`` is None where everyone may ask."""

    scorer: Scorer
    spool: Spool
    tokens: Tokens | None
    metrics: Metrics
    large: ThreadPoolExecutor
    image: str
    openapi: bytes
    docs: str

    async def answer(self, body: bytes, request_id: str) -> dict[str, Any]:
        """The scorer's answer; a large request waits for its turn in a thread, one at a time."""
        if len(body) <= _THREAD_BYTES:
            return self.scorer.answer(body, request_id)
        return await asyncio.get_running_loop().run_in_executor(self.large, self.scorer.answer, body, request_id)

    async def keep(self, record: Record) -> None:
        """Return when the record is durable.

        Raises:
            Problem: 503, it is not.
        """
        try:
            await self.spool.append(encode(record))
        except SpoolFull:
            raise Problem(503, "more requests than the log's disk can take", headers={"Retry-After": "1"}) from None
        except SpoolError as error:
            raise Problem(503, f"not logged, so not answered: {error}", headers={"Retry-After": "2"}) from None


class State(TypedDict):
    """What the lifespan yields: ``request.state.service``."""

    service: Service


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. Bundle and spool are opened when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        tokens = None if settings.tokens_file is None else Tokens(settings.tokens_file)
        score.init()
        spool = Spool(settings.log_dir, durability=settings.log_durability)
        document = _openapi(app, score.scorer)
        with ThreadPoolExecutor(1, "large") as large:
            service = Service(
                scorer=score.scorer,
                spool=spool,
                tokens=tokens,
                metrics=Metrics(spool),
                large=large,
                image=settings.image,
                openapi=msgspec.json.encode(document),
                docs=docs.page(document),
            )
            try:
                yield {"service": service}
            finally:
                await asyncio.to_thread(spool.close)

    app = FastAPI(
        title=_TITLE,
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redirect_slashes=False,
        routes=[Route("/score", score_machines, methods=["POST"])],  # FastAPI's own route costs 23 µs more
        exception_handlers={HTTPException: on_http_exception},
    )
    app.add_middleware(Edge, settings.max_body_bytes, _ROUTES)
    app.get("/livez", summary="Whether the process answers", response_class=PlainTextResponse)(livez)
    app.get("/readyz", summary="Whether requests can be scored and logged", response_class=PlainTextResponse)(readyz)
    app.get("/version", summary="What is served: model, data, commit, image", response_class=Response)(version)
    app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)(metrics)
    app.get("/docs", include_in_schema=False)(docs_page)
    app.get("/openapi.json", include_in_schema=False)(openapi_document)
    return app


async def score_machines(request: Request) -> Response:
    """Score every machine of the request at its last telemetry row; answered when it is durably logged."""
    received = time.time_ns() // 1000
    service: Service = request.state.service
    request_id: str = request.state.request_id
    headers = request.headers
    caller = "anonymous"
    if service.tokens is not None:
        caller = service.tokens.caller(headers.get("authorization", ""), "score")
    _require_plain_json(headers.get("content-type", ""), headers.get("content-encoding", ""))
    body = await request.body()
    answer = await service.answer(body, request_id)
    content = msgspec.json.encode(answer)
    await service.keep(
        Record(
            kind="score",
            request_id=request_id,
            received_us=received,
            answered_us=time.time_ns() // 1000,
            caller=caller,
            status=200,
            model=service.scorer.manifest.model_digest,
            image=service.image,
            request=body,
            answer=content,
        )
    )
    service.metrics.scored(len(answer["results"]))
    return Response(content, media_type="application/json")


async def livez() -> PlainTextResponse:
    """Answer, whatever the disk does: a restart would not mend it."""
    return PlainTextResponse("alive\n")


async def readyz(request: Request) -> PlainTextResponse:
    """Answer 503 while the log cannot be written."""
    service: Service = request.state.service
    if service.spool.failure is not None:
        raise Problem(503, service.spool.failure, headers={"Retry-After": "2"})
    return PlainTextResponse("ready\n")


async def version(request: Request) -> Response:
    """Say what is served."""
    service: Service = request.state.service
    manifest = service.scorer.manifest
    served = {
        "model_digest": manifest.model_digest,
        "bundle_digest": manifest.bundle_digest,
        "data": manifest.training.fingerprint,
        "commit": manifest.provenance.get("commit"),
        "image": service.image or None,
    }
    return Response(msgspec.json.encode(served), media_type="application/json")


async def metrics(request: Request) -> PlainTextResponse:
    """Give the figures."""
    service: Service = request.state.service
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def docs_page(request: Request) -> HTMLResponse:
    """Give the page for people."""
    service: Service = request.state.service
    return HTMLResponse(
        service.docs, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    )


async def openapi_document(request: Request) -> Response:
    """Give the document for machines."""
    service: Service = request.state.service
    return Response(service.openapi, media_type="application/json")


def _require_plain_json(content_type: str, content_encoding: str) -> None:
    """Refuse what says that it is something else; who says nothing is believed to send JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, f"Content-Type {kind[:60]!r}: send application/json")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise Problem(415, "Content-Encoding: send the body as it is, not compressed")


def _openapi(app: FastAPI, scorer: Scorer) -> dict[str, Any]:
    document = get_openapi(
        title=_TITLE, version=scorer.manifest.model_digest, description=_DESCRIPTION, routes=app.routes
    )
    problems = {status: {"description": text, "content": {MEDIA_TYPE: {}}} for status, text in _PROBLEMS.items()}
    answer = {"application/json": {"schema": scorer.answer_schema}}
    operation = {
        "summary": "Score machines",
        "operationId": "score",
        "requestBody": {"required": True, "content": {"application/json": {"schema": scorer.request_schema}}},
        "responses": {"200": {"description": "One result for each machine.", "content": answer}, **problems},
    }
    document["paths"] = {"/score": {"post": operation}, **document["paths"]}
    document["paths"]["/readyz"]["get"]["responses"]["503"] = {"description": "Not ready.", "content": {MEDIA_TYPE: {}}}
    return document
