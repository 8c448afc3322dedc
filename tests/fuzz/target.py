"""The targets that atheris runs, in the fuzzers' environment: ``target.py NAME BUNDLE [options of libFuzzer] FOLDERS``.

``decode`` and ``feedback`` read a body, ``answer`` also scores it, ``segment`` reads a file of a spool. Only documented
refusals may be raised, and what is accepted must be answered. To reproduce a crash, pass its file instead of folders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import atheris
from mutate import mutate

NAME, BUNDLE = sys.argv[1], Path(sys.argv[2])
if NAME == "answer":
    # Numba cannot compile instrumented code, and without compiling a body takes seconds. So the modules with compiled
    # code are imported before, or excluded where they import what is to be instrumented.
    import closedloop.data.columns
    import closedloop.heads.bundle  # noqa: F401

    compiled = ["score.answer"]
else:
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # loops run as Python, which is instrumented and checks bounds
    compiled = []

with atheris.instrument_imports(include=["closedloop", "score"], exclude=compiled):
    import msgspec

    from closedloop.data.columns import RequestError
    from closedloop.data.feedback import FeedbackDecoder
    from closedloop.data.request import Decoder
    from closedloop.heads.bundle import load
    from closedloop.log.frame import HEADER_BYTES, Segment, SegmentError, header, pack, read_segment, seed_of
    from score.answer import Scorer

MAX_ROWS = 1000
FRAME_BYTES = len(pack(b"", 0))


def decode() -> Callable[[bytes], None]:
    """Check that a body is decoded to sorted tables, or refused with a pointer to each fault."""
    decoder = Decoder(load(BUNDLE).schema, MAX_ROWS)

    def once(data: bytes) -> None:
        try:
            tables = decoder(data)
        except RequestError as error:
            _refused(error)
            return
        keys = list(zip(tables.machine.tolist(), tables.time.tolist(), strict=True))
        assert keys, "accepted without a row"
        assert keys == sorted(set(keys)), "accepted unsorted, or a key twice"
        assert tables.values.shape[1] == len(keys), tables.values.shape

    return once


def feedback() -> Callable[[bytes], None]:
    """Check that a body is feedback with at least one row, or refused."""
    decoder = FeedbackDecoder(load(BUNDLE).schema, MAX_ROWS)

    def once(data: bytes) -> None:
        try:
            said = decoder(data)
        except RequestError as error:
            _refused(error)
            return
        assert sum(said.rows.values()) > 0, said
        assert len(said.failures.time) <= said.rows["failures"], said
        assert len(said.maint.time) <= said.rows["maint"], said

    return once


def answer() -> Callable[[bytes], None]:
    """Check that what is accepted is answered: one result for each machine, in valid JSON."""
    scorer = Scorer(load(BUNDLE), MAX_ROWS)

    def once(data: bytes) -> None:
        try:
            said = scorer.answer(data, "fuzz")
        except RequestError as error:
            _refused(error)
            return
        sent = msgspec.json.decode(msgspec.json.encode(said))
        assert sent == said, "NaN or infinity became null"
        machines = [result["machineID"] for result in sent["results"]]
        assert machines, "accepted, and no result"
        assert machines == sorted(set(machines)), machines

    return once


def segment() -> Callable[[bytes], None]:
    """Check that every byte of a file is accounted for, and that good frames around damage are found."""
    path = Path("00000000000000000007.seg")

    def once(data: bytes) -> None:
        path.write_bytes(data)
        for spool in (None, "00" * 16):
            try:
                found = read_segment(path, spool)
            except SegmentError:
                continue
            _accounted(data, found)
        # a frame of a spool cannot be forged without the spool's id
        spool = os.urandom(16).hex()
        seed = seed_of(spool, 7)
        whole = header(spool, 7, 0) + pack(data[:7], seed) + data + pack(data, seed)
        path.write_bytes(whole)
        found = read_segment(path, spool)
        assert [data[:7], data] == found.records, found
        _accounted(whole, found)

    return once


def _refused(error: RequestError) -> None:
    """Check that a refusal says what is wrong and where, and can be encoded."""
    assert error.errors, "refused without a reason"
    for fault in error.errors:
        assert fault["detail"], fault
        assert fault["pointer"] == "" or fault["pointer"].startswith("/"), fault
    msgspec.json.encode(error.errors)


def _accounted(data: bytes, found: Segment) -> None:
    """Check that every byte of a segment belongs to the header or a frame, or is damaged or torn."""
    frames = sum(FRAME_BYTES + len(record) for record in found.records)
    lost = sum(size for _, size in found.corrupt)
    assert min(HEADER_BYTES, len(data)) + frames + lost + found.torn == len(data), found


if __name__ == "__main__":
    once = {named.__name__: named for named in (decode, feedback, answer, segment)}[NAME]()
    atheris.Setup([sys.argv[0], *sys.argv[3:]], once, **({} if NAME == "segment" else {"custom_mutator": mutate}))
    atheris.Fuzz()
