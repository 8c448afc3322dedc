"""What of the requests becomes the log: which are kept, which of their fields, and the account of all of them."""

from __future__ import annotations

from zlib import crc32

import msgspec

from closedloop.log.record import Record, encode
from closedloop.log.spool import Spool, SpoolError, SpoolFull
from score.problems import Problem
from score.settings import LOG_FIELDS, Settings

_TABLES = frozenset({"telemetry", "errors", "maint", "machines"})
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Journal:
    """The way into the spool.

    When nothing is in flight, ``offered`` = records stored + ``sampled_out`` + ``rejected``, exactly
    (and + the spool's ``lost`` where durability is off). A request is
    offered when its head has arrived, and rejected when it was answered without a record.
    """

    def __init__(self, spool: Spool, settings: Settings) -> None:
        self.spool = spool
        self.offered = self.sampled_out = self.rejected = 0
        self._sample = settings.log_sample
        self._dropped = frozenset(LOG_FIELDS) - settings.log_fields

    async def keep(self, record: Record) -> None:
        """Return when the record is durable, or is one of those that the sample leaves out.

        Raises:
            Problem: 503, it is not durable.
        """
        if record.kind == "score" and not in_sample(record.request_id, self._sample):
            self.sampled_out += 1
            return
        try:
            await self.spool.append(encode(self._thinned(record) if self._dropped else record))
        except SpoolFull as full:
            raise Problem(503, f"more than the log can take: {full}", headers={"Retry-After": "1"}) from None
        except SpoolError as error:
            raise Problem(503, f"not logged, so not answered: {error}", headers={"Retry-After": "2"}) from None

    def _thinned(self, record: Record) -> Record:
        """The record with what may be kept; the tables of feedback are what it is for, and stay."""
        empty: dict[str, str | bytes] = {"caller": "", "image": "", "answer": b""}
        changes = {name: value for name, value in empty.items() if name in self._dropped}
        if record.kind == "score" and (tables := self._dropped & _TABLES):
            kept = {name: table for name, table in _raw.decode(record.request).items() if name not in tables}
            changes["request"] = msgspec.json.encode(kept)
        return msgspec.structs.replace(record, **changes)


def in_sample(request_id: str, fraction: float) -> bool:
    """Whether a request is among the fraction that is kept: by its id alone, so that every replica agrees."""
    return fraction >= 1.0 or crc32(request_id.encode()) < fraction * 2**32
