"""Errors as RFC 9457 problem+json: what is wrong, where, and how to mend it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from closedloop.data.request import RequestError

MEDIA_TYPE = "application/problem+json"
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110; older Pythons know the older names


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """An answer that is no result. ``errors`` are RFC 6901 pointers into the body, each with its detail."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    @classmethod
    def of(cls, error: RequestError) -> Problem:
        """A refused request: 400 where it is no JSON at all, 422 where it is not what the schema asks for."""
        return cls(400 if error.syntax else 422, str(error), errors=error.errors)

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the problem."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.errors is not None:
            members["errors"] = self.errors
        return members

    def response(self, request_id: str) -> Response:
        """The problem over HTTP."""
        content = msgspec.json.encode(self.body(request_id))
        return Response(content, self.status, self.headers, MEDIA_TYPE)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Handle what the framework refuses: no such route (404), no such method (405)."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    detail = {404: f"no route {request.url.path}: see /docs", 405: f"no {request.method} here: see /docs"}
    problem = Problem(error.status_code, detail.get(error.status_code, error.detail), headers=dict(error.headers or {}))
    return problem.response(request.state.request_id)
