"""Which requests are logged, with which fields, and the count of all of them."""

from __future__ import annotations

from zlib import crc32

import msgspec

from closedloop.log.record import Record, encode
from closedloop.log.spool import Spool, SpoolError, SpoolFull
from score.log.rejects import Rejects
from score.problems import Problem
from score.settings import LOG_FIELDS, Settings

_RECORD_BYTES = 4096  # of a record beside request and answer: ids, names, digests, times
_TABLES = frozenset({"telemetry", "errors", "maint", "machines"})
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Journal:
    """Writes records to the spool.

    A request is ``offered`` when its headers have arrived, and ``rejected`` when it was answered without a record.
    With nothing in flight, ``offered`` = ``stored`` + ``sampled_out`` + ``dry_run`` + ``rejected``, exactly; with
    ``LOG_DURABILITY=off`` the spool's ``lost`` is added.
    """

    def __init__(self, spool: Spool, settings: Settings) -> None:
        self.spool = spool
        self.offered = self.sampled_out = self.dry_run = self.rejected = 0
        self.rejects = Rejects(spool, settings)
        self._sample = settings.log_sample
        self._dropped = frozenset(LOG_FIELDS) - settings.log_fields

    @property
    def stored(self) -> int:
        """Records of answers that were stored. What was refused is stored too, and counted for itself."""
        return self.spool.counts.records

    def admit(self, longest: int) -> None:
        """Refuse, before the work, a request whose record could never be written.

        Args:
            longest: the most bytes that the request and its answer can have together.

        Raises:
            Problem: 413, it is longer than the log ever takes.
        """
        if longest + _RECORD_BYTES > self.spool.largest:
            detail = f"the log takes at most {self.spool.largest} bytes of one request and its answer, which could have"
            raise Problem(413, f"{detail} {longest}: send fewer machines, or shorter windows, in each request")

    async def keep(self, record: Record) -> None:
        """Write a record, unless LOG_SAMPLE leaves it out; return once it is durable.

        Raises:
            Problem: 503, the record could not be written.
        """
        if record.kind == "score" and not in_sample(record.request_id, self._sample):
            self.sampled_out += 1
            return
        try:
            await self.spool.append(encode(self._thinned(record) if self._dropped else record))
        except SpoolFull as full:
            raise Problem(503, f"the request log is full: {full}", headers={"Retry-After": "1"}) from None
        except SpoolError as error:
            raise Problem(503, f"the request log cannot be written: {error}", headers={"Retry-After": "2"}) from None

    def _thinned(self, record: Record) -> Record:
        """The record with only the fields of LOG_FIELDS; the tables of feedback are always kept."""
        empty: dict[str, str | bytes] = {"caller": "", "image": "", "answer": b""}
        changes = {name: value for name, value in empty.items() if name in self._dropped}
        if record.kind == "score" and (tables := self._dropped & _TABLES):
            kept = {name: table for name, table in _raw.decode(record.request).items() if name not in tables}
            changes["request"] = msgspec.json.encode(kept)
        return msgspec.structs.replace(record, **changes)


def in_sample(request_id: str, fraction: float) -> bool:
    """Whether a request is in the sample: decided by its id alone, so that all replicas agree."""
    return fraction >= 1.0 or crc32(request_id.encode()) < fraction * 2**32
