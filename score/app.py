"""The FastAPI application: it opens bundle and log at the start, and answers by the routes of ``endpoints.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypedDict

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from closedloop.data.feedback import FeedbackDecoder
from closedloop.log.spool import Spool
from score import score
from score.auth import Tokens
from score.endpoints import LOGGED_POSTS, PATHS, ROUTES
from score.limits import Load
from score.log.journal import Journal
from score.log.supervisor import Supervisor
from score.metrics import Metrics
from score.middleware import RequestMiddleware, on_http_exception
from score.model_counts import ModelCounts
from score.pages import docs, openapi, page
from score.service import Service
from score.settings import EPHEMERAL_SEAL_SECONDS, Settings
from score.status import ServiceStatus


class State(TypedDict):
    """What the lifespan yields: ``request.state.service``."""

    service: Service


def create_app(settings: Settings, supervisor: Supervisor | None = None) -> FastAPI:
    """The ASGI application. Its lifespan opens bundle and log; the supervisor is reported on, but not started."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        tokens = None if settings.tokens_file is None else Tokens(settings.tokens_file)
        score.init()
        spool = _open_spool(settings)
        with ThreadPoolExecutor(1, "large") as large:
            try:
                large.submit(int).result()  # start the thread now: later there may be none to be had
                yield {"service": _service(app, settings, spool, tokens, supervisor, large)}
            finally:
                await asyncio.get_running_loop().run_in_executor(large, spool.close)

    app = FastAPI(
        title=openapi.TITLE,
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redirect_slashes=False,
        routes=ROUTES.copy(),
        exception_handlers={HTTPException: on_http_exception},
    )
    app.add_middleware(RequestMiddleware, PATHS, LOGGED_POSTS, settings.access_log)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "Closed-Loop-Dry-Run"],
            expose_headers=["X-Request-ID", "X-Model-Digest", "Closed-Loop-Dry-Run", "Retry-After"],
        )
    return app


def _open_spool(settings: Settings) -> Spool:
    return Spool(
        settings.log_dir,
        durability=settings.log_durability,
        limit_bytes=settings.log_max_bytes,
        limit_seconds=settings.log_max_age_seconds,
        segment_seconds=EPHEMERAL_SEAL_SECONDS if settings.log_ephemeral else 60,
        # bodies as the limits admit them, as much again of answers, and always one of the longest answers
        queue_bytes=2 * settings.max_in_flight_bytes + score.scorer.max_machines * score.scorer.result_bytes,
    )


def _service(
    app: FastAPI,
    settings: Settings,
    spool: Spool,
    tokens: Tokens | None,
    supervisor: Supervisor | None,
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
    closed = tokens is not None or settings.behind_platform
    document = openapi.document(app, scorer, closed=closed)
    journal, load = Journal(spool, settings), Load.of(settings)
    schema = scorer.bundle.schema
    counts = ModelCounts(schema.components, schema.sensors, manifest.training.period[1])
    status = ServiceStatus(served, load, journal, tokens, supervisor, settings.log_dir, counts)
    return Service(
        settings=settings,
        scorer=scorer,
        feedback=FeedbackDecoder(scorer.bundle.schema, scorer.max_rows, scorer.max_ahead_us),
        journal=journal,
        tokens=tokens,
        large=large,
        load=load,
        status=status,
        metrics=Metrics(status),
        pages={
            "/": page.page(scorer, served, closed=closed).encode(),
            "/docs": docs.page(document).encode(),
            **docs.assets(),
            "/example": page.columns(scorer.example).encode(),
            "/openapi.json": msgspec.json.encode(document),
        },
    )
