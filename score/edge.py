"""What every request passes first: its id, the limit of its body, its figures, and the answer to what went wrong."""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import time

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from closedloop.data.request import RequestError
from closedloop.heads.bundle import BundleError
from closedloop.log.frame import SegmentError
from closedloop.log.spool import SpoolError
from score.problems import MEDIA_TYPE, Problem
from score.settings import SettingsError

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REFUSALS = (SettingsError, BundleError, SpoolError, SegmentError, OSError)
_CLOSED = 499  # the client went away before its answer; nginx's number, never sent
log = logging.getLogger("score")


class Edge:
    """Plain ASGI middleware: it reads no body itself, and costs a few microseconds.

    A body longer than ``max_body_bytes`` is refused by its declared length before a byte is read, and one that declares
    none as soon as it has grown too long.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, routes: frozenset[str]) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._routes = routes
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
        scope["state"]["request_id"] = request_id

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        async def limit() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise self._too_large()
            return message

        try:
            length = headers.get(b"content-length", b"")
            if length.isdigit() and int(length[:20]) > self._limit:
                raise self._too_large()
            await self._app(scope, limit, count)
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
        route = scope["path"] if scope["path"] in self._routes else "other"
        scope["state"]["service"].metrics.answered(route, status, time.perf_counter() - start)

    def _too_large(self) -> Problem:
        detail = f"the body is longer than {self._limit} bytes: send smaller batches"
        return Problem(413, detail, headers={"Connection": "close"})


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
