"""What surrounds every request: its id, the limits, its metrics, and the answer to each error."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable
from typing import Any

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
from score.service import ON, Service, dry_run_of
from score.settings import SettingsError

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_START_ERRORS = (SettingsError, BundleError, SpoolError, SegmentError, OSError)
_PROBES = ("/livez", "/readyz")  # answered in reserved connections too
_CROWDED = "too many connections: try again later"
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_BUSY = "too many requests at once: try again later"
_SHED_SECONDS = 1.0
_CLOSED = 499  # the client closed the connection before its answer; nginx's number, never sent
log = logging.getLogger("score")


class RequestMiddleware:
    """Plain ASGI middleware, made once. Each request gets an :class:`_Exchange`.

    Args:
        app: the framework's application.
        paths: all paths that are routes; metrics count every other path as ``other``.
        logged_posts: applications by path, for POST. They are called past the framework and held to the limits.
        access_log: the fraction of requests that get a line on stderr.
    """

    def __init__(
        self, app: ASGIApp, paths: frozenset[str], logged_posts: dict[str, ASGIApp], access_log: float
    ) -> None:
        self._app = app
        self._paths = paths
        self._logged_posts = logged_posts
        self._access_log = access_log
        self._prefix = os.urandom(8).hex()  # request ids are unique, not secret: one system call serves them all
        self._count = itertools.count()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection scope."""
        if scope["type"] != "http":
            return self._app(scope, receive, _one_line(send))
        path = scope["path"]
        post = self._logged_posts.get(path) if scope["method"] == "POST" else None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if given and _ID.fullmatch(given) else f"{self._prefix}{next(self._count):016x}"
        exchange = _Exchange(scope, receive, send, request_id, post is not None)
        route = path if path in self._paths else "other"
        return exchange.serve(post or self._app, headers.get(b"content-length", b""), route, self._access_log)


class _Exchange:
    """One request and its answer.

    A body longer than the limit is refused by its declared length before a byte is read, and without a declared length
    as soon as it has grown too long. Requests above the limits wait for a moment before their 503, so that a client
    that retries at once cannot use up the processor.
    """

    __slots__ = ("_admitted", "_logged", "_read", "_receive", "_request_id", "_scope", "_send", "_service", "_status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, logged: bool) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._logged = logged
        self._admitted = False
        self._read = self._status = 0
        state: dict[str, Any] = scope["state"]
        state["request_id"] = request_id
        self._service: Service = state["service"]

    async def serve(self, app: ASGIApp, declared_length: bytes, route: str, access_log: float) -> None:
        """Let the application answer; answer for it what it raises; count the request."""
        start = time.perf_counter()
        service, load = self._service, self._service.load
        try:
            if "probes_only" in self._scope["state"] and route not in _PROBES:
                raise Problem(503, _CROWDED, headers={"Retry-After": "1", "Connection": "close"})
            if self._logged:
                service.journal.offered += 1
                if load.requests >= load.max_requests:
                    await self._shed("requests")
                if load.untaken_bytes > load.max_bytes:
                    await self._shed("answers")
                load.requests += 1
                self._admitted = True
            if declared_length.isdigit() and int(declared_length[:20]) > load.max_body_bytes:
                raise self._too_large()
            await app(self._scope, self.receive, self.send)
        except ClientDisconnect:
            self._status = _CLOSED
        except RequestError as error:
            await self._refuse(Problem.of(error))
        except Problem as problem:
            await self._refuse(problem)
        except Exception:  # the outermost handler: the client gets a problem, the log the traceback
            log.exception("request %s failed", self._request_id)
            if not self._status:
                await self._refuse(Problem(500, "internal error; quote the request id when you report it"))
        finally:
            self._settle()
            seconds = time.perf_counter() - start
            service.metrics.answered(route, self._status or _CLOSED, seconds)
            if access_log and in_sample(self._request_id, access_log):
                took = round(seconds, 6)
                say("answered", request_id=self._request_id, route=route, status=self._status, seconds=took)

    async def receive(self) -> Message:
        """The next message of the request, counted against the limits."""
        message = await self._receive()
        if size := len(message.get("body", b"")):
            load = self._service.load
            self._read += size
            load.body_bytes += size
            if self._read > load.max_body_bytes:
                raise self._too_large()
            if load.body_bytes > load.max_bytes:
                load.shed["bytes"] += 1
                raise Problem(503, _BUSY, headers={"Retry-After": "1", "Connection": "close"})
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the answer, the first one with the headers of every answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._request_id.encode()), _NOSNIFF]
        await self._send(message)

    async def _shed(self, reason: str) -> None:
        self._service.load.shed[reason] += 1
        await asyncio.sleep(_SHED_SECONDS)
        raise Problem(503, _BUSY, headers={"Retry-After": "1"})

    def _too_large(self) -> Problem:
        detail = f"the body is longer than {self._service.load.max_body_bytes} bytes: send smaller batches"
        return Problem(413, detail, headers={"Connection": "close"})

    async def _refuse(self, problem: Problem) -> None:
        await respond(problem, self._request_id)(self._scope, self._receive, self.send)
        if self._logged and 400 <= problem.status < 500 and dry_run_of(self._scope["headers"]) != ON:
            await self._service.keep_reject(self._scope, problem, self._read)

    def _settle(self) -> None:
        """Give back what the limits count; a logged route without a record counts as rejected."""
        service, load = self._service, self._service.load
        load.body_bytes -= self._read
        load.requests -= self._admitted
        if self._logged and "settled" not in self._scope["state"]:
            service.journal.rejected += 1


def respond(problem: Problem, request_id: str) -> Response:
    """The HTTP response of a problem."""
    content = msgspec.json.encode(problem.body(request_id))
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The problem of an error of the framework: an unknown route (404) or method (405)."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    path = request.url.path
    detail = {404: f"no route {path}: see /docs", 405: f"{path} does not accept {request.method}: see /docs"}
    problem = Problem(error.status_code, detail.get(error.status_code, error.detail), headers=dict(error.headers or {}))
    return respond(problem, request.state.request_id)


def _one_line(send: Send) -> Send:
    """``send`` for the lifespan: an expected error at the start becomes one line instead of a traceback."""

    async def send_one_line(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, _START_ERRORS):
            message["message"] = f"cannot start: {error}"
        await send(message)

    return send_one_line
