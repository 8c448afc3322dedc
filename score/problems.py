"""Errors as RFC 9457 problem+json: what is wrong, where, and how to fix it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from closedloop.data.request import RequestError

MEDIA_TYPE = "application/problem+json"
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110; older Pythons know the older names


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """An error answer. ``errors`` lists faults of the body, each with an RFC 6901 pointer and a detail."""

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

    @property
    def title(self) -> str:
        """The status in words."""
        return _TITLES.get(self.status) or HTTPStatus(self.status).phrase

    @classmethod
    def of(cls, error: RequestError) -> Problem:
        """The problem of a refused request: 400 if it is not JSON, 422 if it does not match the schema."""
        return cls(400 if error.syntax else 422, str(error), errors=error.errors)

    def body(self, request_id: str | None) -> dict[str, Any]:
        """The problem as a JSON object."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if request_id is not None:
            members["request_id"] = request_id
        if self.errors is not None:
            members["errors"] = self.errors
        return members
