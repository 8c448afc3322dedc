"""What the log keeps of one request."""

from __future__ import annotations

import msgspec


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
    format: int = 1


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The payload of the record's frame."""
    return _encoder.encode(record)


def decode(payload: bytes) -> Record:
    """The inverse of :func:`encode`.

    Raises:
        msgspec.ValidationError: a record of a later format; read it with the version that wrote it.
    """
    return _decoder.decode(payload)
