"""What every request passes first: its id, the limit of its body, its figures, and the answer to what went wrong."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from closedloop.data.request import RequestError
from closedloop.heads.bundle import BundleError
from closedloop.log.frame import SegmentError
from closedloop.log.spool import SpoolError
from score.console import say
from score.log.journal import in_sample
from score.problems import MEDIA_TYPE, Problem
from score.settings import SettingsError

if TYPE_CHECKING:
    from score.service import Service

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REFUSALS = (SettingsError, BundleError, SpoolError, SegmentError, OSError)
_BUSY = "more requests at once than this service takes: ask again"
_SHED_SECONDS = 1.0
_CLOSED = 499  # the client went away before its answer; nginx's number, never sent
log = logging.getLogger("score")


class Edge:
    """Plain ASGI middleware: it reads no body itself, and costs a few microseconds.

    A body longer than ``max_body_bytes`` is refused by its declared length before a byte is read, and one that declares
    none as soon as it has grown too long. Of requests that would be logged no more are let in than the limits allow;
    the others wait a moment for their 503, so that who asks again at once cannot eat up the processor. Those that are
    logged go to ``posts`` past the framework, which is there for all others.
    """

    def __init__(self, app: ASGIApp, routes: frozenset[str], posts: dict[str, ASGIApp], access_log: float) -> None:
        self._app = app
        self._routes = routes
        self._posts = posts
        self._access_log = access_log
        self._start = os.urandom(8).hex()  # ids of this process: unique, not secret, and no system call for each
        self._count = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, _briefly(send))
            return
        start = time.perf_counter()
        status = 0
        read = 0
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _ID.fullmatch(given) else f"{self._start}{next(self._count):016x}"
        state: dict[str, Any] = scope["state"]
        state["request_id"] = request_id
        service: Service = state["service"]
        load, path = service.load, scope["path"]
        post = self._posts.get(path) if scope["method"] == "POST" else None
        admitted = False

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        async def limit() -> Message:
            nonlocal read
            message = await receive()
            if size := len(message.get("body", b"")):
                read += size
                load.body_bytes += size
                if read > load.max_body_bytes:
                    raise _too_large(load.max_body_bytes)
                if load.body_bytes > load.max_bytes:
                    load.shed["bytes"] += 1
                    raise Problem(503, _BUSY, headers={"Retry-After": "1", "Connection": "close"})
            return message

        try:
            if post is not None:
                service.journal.offered += 1
                if load.requests >= load.max_requests:
                    load.shed["requests"] += 1
                    await asyncio.sleep(_SHED_SECONDS)
                    raise Problem(503, _BUSY, headers={"Retry-After": "1"})
                load.requests += 1
                admitted = True
            length = headers.get(b"content-length", b"")
            if length.isdigit() and int(length[:20]) > load.max_body_bytes:
                raise _too_large(load.max_body_bytes)
            await (post or self._app)(scope, limit, count)
        except ClientDisconnect:
            status = _CLOSED
        except RequestError as error:
            await respond(Problem.of(error), request_id)(scope, receive, count)
        except Problem as problem:
            await respond(problem, request_id)(scope, receive, count)
        except Exception:  # the last door: whatever it is, the client gets a problem and the log its traceback
            log.exception("request %s failed", request_id)
            if not status:
                ours = Problem(500, "an error of ours: tell us the request id")
                await respond(ours, request_id)(scope, receive, count)
        finally:
            load.body_bytes -= read
            load.requests -= admitted
            if post is not None and "settled" not in state:
                service.journal.rejected += 1
            seconds = time.perf_counter() - start
            route = path if path in self._routes else "other"
            service.metrics.answered(route, status or _CLOSED, seconds)
            if self._access_log and in_sample(request_id, self._access_log):
                say("answered", request_id=request_id, route=route, status=status, seconds=round(seconds, 6))


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is longer than {limit} bytes: send smaller batches", headers={"Connection": "close"})


def respond(problem: Problem, request_id: str) -> Response:
    """The problem over HTTP."""
    content = msgspec.json.encode(problem.body(request_id))
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses, as a problem: no such route (404), no such method (405)."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    detail = {404: f"no route {request.url.path}: see /docs", 405: f"no {request.method} here: see /docs"}
    problem = Problem(error.status_code, detail.get(error.status_code, error.detail), headers=dict(error.headers or {}))
    return respond(problem, request.state.request_id)


def _briefly(send: Send) -> Send:
    """Tell the server in one line why it cannot start, where that was foreseen, and not by a traceback."""

    async def brief(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, _REFUSALS):
            message["message"] = f"cannot start: {error}"
        await send(message)

    return brief
