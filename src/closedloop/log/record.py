"""What the log keeps of one request."""

from __future__ import annotations

from typing import TypeVar

import msgspec

FORMAT = 1
REJECT = "reject"  # the kind of a record whose request was refused


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request and its answer, as they went over the wire.

    Times are int64 microseconds UTC; ``answered_us`` is when the answer was ready, before it was durable. ``caller`` is
    the token's name, or ``anonymous``.
    """

    kind: str
    request_id: str
    received_us: int
    answered_us: int
    caller: str
    status: int
    model: str
    image: str
    request: bytes
    answer: bytes
    format: int = FORMAT


class Reject(msgspec.Struct, frozen=True):
    """What was wrong with a refused request: the answer of a record of the kind ``reject``, as JSON.

    Its record's request is the first bytes of the body. ``body_sha256`` is empty where the body was not read whole.
    """

    route: str
    title: str
    detail: str
    body_bytes: int
    body_sha256: str


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A :class:`Record` whose bodies are views of its payload: those of a long one are not copied."""

    kind: str
    request_id: str
    received_us: int
    answered_us: int
    caller: str
    status: int
    model: str
    image: str
    request: memoryview
    answer: memoryview
    format: int = FORMAT


class _Format(msgspec.Struct):
    """Of any record, what tells whether this version can read it."""

    format: int = FORMAT


_Kind = TypeVar("_Kind", Record, View)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_views = msgspec.msgpack.Decoder(View)
_formats = msgspec.msgpack.Decoder(_Format)


def encode(record: Record) -> bytes:
    """The payload of the record's frame."""
    return _encoder.encode(record)


def decode(payload: bytes) -> Record:
    """The inverse of :func:`encode`.

    Raises:
        msgspec.DecodeError: no record, or one of another format; read it with the version that wrote it.
    """
    return _of_this_format(_decoder, payload)


def decode_view(payload: bytes) -> View:
    """The record of a payload, which must outlive it.

    Raises:
        msgspec.DecodeError: no record, or one of another format.
    """
    return _of_this_format(_views, payload)


def _of_this_format(decoder: msgspec.msgpack.Decoder[_Kind], payload: bytes) -> _Kind:
    try:
        record = decoder.decode(payload)
    except msgspec.ValidationError:
        found = _formats.decode(payload).format
        if found == FORMAT:
            raise
    else:
        found = record.format
        if found == FORMAT:
            return record
    raise msgspec.ValidationError(
        f"has format {found}, this version reads {FORMAT}: read it with the one that wrote it"
    )
