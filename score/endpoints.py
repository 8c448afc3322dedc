"""The two routes that are logged, as plain ASGI: at 64 connections the framework would cost more than the answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette import types
from starlette.requests import ClientDisconnect

from closedloop.log.record import Record
from score.auth import Scope
from score.problems import Problem

if TYPE_CHECKING:
    from score.service import Service

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Post:
    """An ASGI application that sends what ``answer`` makes of a request: the content, and headers of its own."""

    answer: Callable[[types.Scope, types.Receive], Awaitable[tuple[bytes, Headers]]]

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answer one request; problems are raised."""
        content, headers = await self.answer(scope, receive)
        form = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers + form})
        await send({"type": "http.response.body", "body": content})


async def score_machines(scope: types.Scope, receive: types.Receive) -> tuple[bytes, Headers]:
    """Score every machine of the request at its last telemetry row; answered when it is durably logged."""
    received = time.time_ns() // 1000
    service: Service = scope["state"]["service"]
    caller = _admit(scope, "score")
    body = await _body(receive)
    results, content = await service.work(service.score, body, scope["state"]["request_id"])
    await _keep(scope["state"], "score", received, caller, body, content)
    service.metrics.scored(len(results))
    service.recent.extend(results[-20:])
    return content, [(b"x-model-digest", service.scorer.manifest.model_digest.encode())]


async def take_feedback(scope: types.Scope, receive: types.Receive) -> tuple[bytes, Headers]:
    """Take failures and replacements that happened; answered when they are durably logged."""
    received = time.time_ns() // 1000
    service: Service = scope["state"]["service"]
    request_id: str = scope["state"]["request_id"]
    caller = _admit(scope, "feedback")
    body = await _body(receive)
    said = await service.work(service.take, body, request_id)
    content = msgspec.json.encode({"request_id": request_id, "stored": said.rows})
    await _keep(scope["state"], "feedback", received, caller, body, content)
    service.metrics.fed_back(said.rows)
    return content, []


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
    """The caller's name; who may not ask, or sends no JSON, is refused before the body is read."""
    service: Service = scope["state"]["service"]
    headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first counts, if one comes twice
    caller = service.caller(headers.get(b"authorization", b"").decode("latin-1"), right)
    _require_plain_json(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
    return caller


async def _keep(state: dict[str, Any], kind: Scope, received: int, caller: str, body: bytes, content: bytes) -> None:
    service: Service = state["service"]
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
    """Refuse what says that it is something else; who says nothing is believed to send JSON."""
    if content_type != b"application/json":
        kind = content_type.decode("latin-1").partition(";")[0].strip().lower()
        if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise Problem(415, f"Content-Type {kind[:60]!r}: send application/json")
    if content_encoding.strip().lower() not in (b"", b"identity"):
        raise Problem(415, "Content-Encoding: send the body as it is, not compressed")
