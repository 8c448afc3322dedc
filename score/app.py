"""The service: one decode, one predict, one durable record, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypedDict

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from closedloop.data.feedback import FeedbackDecoder
from closedloop.log.spool import Spool
from score import score
from score.auth import Tokens
from score.endpoints import Post, score_machines, take_feedback
from score.limits import Load
from score.log.journal import Journal
from score.log.supervisor import Supervisor
from score.middleware import Edge, on_http_exception
from score.pages import docs, openapi, page
from score.problems import Problem
from score.service import Service
from score.settings import Settings

POSTS: dict[str, ASGIApp] = {"/score": Post(score_machines), "/feedback": Post(take_feedback)}
ROUTES = frozenset({*POSTS, "/", "/livez", "/readyz", "/version", "/metrics", "/state", "/docs", "/openapi.json"})


class State(TypedDict):
    """What the lifespan yields: ``request.state.service``."""

    service: Service


def create_app(settings: Settings, shipper: Supervisor | None = None) -> FastAPI:
    """The ASGI application. Bundle and spool are opened when it starts; the shipper is shown, not started."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        tokens = None if settings.tokens_file is None else Tokens(settings.tokens_file)
        score.init()
        spool = Spool(
            settings.log_dir,
            durability=settings.log_durability,
            limit_bytes=settings.log_max_bytes,
            limit_seconds=settings.log_max_age_seconds,
            queue_bytes=2 * settings.max_in_flight_bytes,  # what is let in can be written
        )
        with ThreadPoolExecutor(1, "large") as large:
            try:
                large.submit(int).result()  # the thread is there before threads run out
                yield {"service": _service(app, settings, spool, tokens, shipper, large)}
            finally:
                await asyncio.get_running_loop().run_in_executor(large, spool.close)

    posts: list[BaseRoute] = [Route(path, answer, methods=["POST"]) for path, answer in POSTS.items()]
    app = FastAPI(
        title=openapi.TITLE,
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redirect_slashes=False,
        routes=posts,  # for what is no POST: the edge answers those
        exception_handlers={HTTPException: on_http_exception},
    )
    app.add_middleware(Edge, ROUTES, POSTS, settings.access_log)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Model-Digest", "Retry-After"],
        )
    app.get("/livez", summary="Whether the process answers", response_class=PlainTextResponse)(livez)
    app.get("/readyz", summary="Whether requests can be scored and logged", response_class=PlainTextResponse)(readyz)
    app.get("/version", summary="What is served: model, data, commit, image", response_class=Response)(version)
    app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)(metrics)
    app.get("/state", summary="The moment's figures, and with a token the last results", response_class=Response)(state)
    app.get("/", include_in_schema=False)(home)
    app.get("/docs", include_in_schema=False)(docs_page)
    app.get("/openapi.json", include_in_schema=False)(openapi_document)
    return app


def _service(
    app: FastAPI,
    settings: Settings,
    spool: Spool,
    tokens: Tokens | None,
    shipper: Supervisor | None,
    large: ThreadPoolExecutor,
) -> Service:
    scorer = score.scorer
    manifest = scorer.manifest
    served = {
        "model_digest": manifest.model_digest,
        "bundle_digest": manifest.bundle_digest,
        "data": manifest.training.fingerprint,
        "commit": manifest.provenance.get("commit"),
        "image": settings.image or None,
    }
    document = openapi.document(app, scorer, closed=tokens is not None)
    service = Service(
        settings=settings,
        scorer=scorer,
        feedback=FeedbackDecoder(scorer.bundle.schema, scorer.max_rows),
        journal=Journal(spool, settings),
        tokens=tokens,
        shipper=shipper,
        large=large,
        load=Load.of(settings),
        served=served,
        pages={
            "/": page.page(scorer, served, closed=tokens is not None).encode(),
            "/docs": docs.page(document).encode(),
            "/openapi.json": msgspec.json.encode(document),
        },
    )
    service.metrics.watch(service)
    return service


async def livez() -> PlainTextResponse:
    """Answer, whatever the disk does: a restart would not mend it."""
    return PlainTextResponse("alive\n")


async def readyz(request: Request) -> PlainTextResponse:
    """Answer 503 while the log cannot be written, and when the service is about to stop."""
    service: Service = request.state.service
    if (reason := service.unready()) is not None:
        raise Problem(503, reason, headers={"Retry-After": "2"})
    return PlainTextResponse("ready\n")


async def version(request: Request) -> Response:
    """Say what is served."""
    service: Service = request.state.service
    return Response(msgspec.json.encode(service.served), media_type="application/json")


async def metrics(request: Request) -> PlainTextResponse:
    """Give the figures."""
    service: Service = request.state.service
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def state(request: Request) -> Response:
    """Say how it goes; who sends a token for /score sees the results answered last, too."""
    service: Service = request.state.service
    authorization = request.headers.get("authorization", "")
    if service.tokens is not None and authorization:
        service.tokens.caller(authorization, "score")
    shown = service.state(recent=service.tokens is None or bool(authorization))
    return Response(msgspec.json.encode(shown), headers={"Cache-Control": "no-store"}, media_type="application/json")


async def home(request: Request) -> HTMLResponse:
    """Give the page for people."""
    service: Service = request.state.service
    return HTMLResponse(service.pages["/"], headers=page.HEADERS)


async def docs_page(request: Request) -> HTMLResponse:
    """Give the documentation for people."""
    service: Service = request.state.service
    return HTMLResponse(service.pages["/docs"], headers=docs.HEADERS)


async def openapi_document(request: Request) -> Response:
    """Give the document for machines."""
    service: Service = request.state.service
    return Response(service.pages["/openapi.json"], media_type="application/json")
