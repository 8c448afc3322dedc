"""A segment checks its own bytes: whatever is cut or flipped, every other record is found and the loss reported."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.log import frame, record
from closedloop.log.frame import HEADER_BYTES, SegmentError, read_segment

GOLDEN = Path(__file__).parents[1] / "golden" / "segment.bin"
SPOOL, NUMBER = "00112233445566778899aabbccddeeff", 7
SEED = frame.seed_of(SPOOL, NUMBER)
PAYLOADS = [b"first", b"", b"the third one", bytes(range(32))]


def segment(payloads):
    return frame.header(SPOOL, NUMBER, 0) + b"".join(frame.pack(payload, SEED) for payload in payloads)


def ends(payloads):
    """Where each frame ends."""
    lengths = [HEADER_BYTES]
    for payload in payloads:
        lengths.append(lengths[-1] + len(frame.pack(payload, SEED)))
    return lengths


@pytest.fixture
def read(tmp_path):
    def read(data, spool=SPOOL):
        path = tmp_path / frame.segment_name(NUMBER, frame.SEALED)
        path.write_bytes(data)
        return read_segment(path, spool)

    return read


def test_what_was_packed_is_read(read):
    found = read(segment(PAYLOADS))
    assert found.records == PAYLOADS
    assert (found.spool, found.number, found.corrupt, found.torn, found.header_damaged) == (SPOOL, NUMBER, [], 0, False)


def test_cut_anywhere_it_gives_the_records_before_the_cut(read):
    whole, bounds = segment(PAYLOADS), ends(PAYLOADS)
    for length in range(len(whole)):
        found = read(whole[:length])
        kept = sum(end <= length for end in bounds[1:])
        assert PAYLOADS[:kept] == found.records
        assert found.corrupt == []
        if length >= HEADER_BYTES:
            assert (bounds[kept], length - bounds[kept]) == (found.end, found.torn)


def test_a_flipped_bit_anywhere_loses_only_its_record_and_is_told(read):
    whole, bounds = segment(PAYLOADS), ends(PAYLOADS)
    for place in range(len(whole)):
        for bit in (0, 7):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            found = read(bytes(data))
            hit = next(i for i, end in enumerate(bounds) if place < end)  # 0: the header
            lost = [] if hit == 0 else [hit - 1]
            assert [payload for i, payload in enumerate(PAYLOADS) if i not in lost] == found.records
            assert (hit == 0) == found.header_damaged
            if 0 < hit < len(PAYLOADS):
                assert [(bounds[hit - 1], bounds[hit] - bounds[hit - 1])] == found.corrupt
            if hit == len(PAYLOADS):
                assert bounds[hit] - bounds[hit - 1] == found.torn


@given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=60))
def test_rubbish_after_the_last_record_is_torn_not_read(tmp_path_factory, payloads, rubbish):
    path = tmp_path_factory.mktemp("segment") / frame.segment_name(NUMBER, frame.OPEN)
    path.write_bytes(segment(payloads) + rubbish)
    found = read_segment(path, SPOOL)
    assert (payloads, len(rubbish)) == (found.records, found.torn)


def test_zeros_after_a_crash_are_no_records(read):
    found = read(segment(PAYLOADS) + bytes(4096))
    assert (found.records, found.torn) == (PAYLOADS, 4096)


def test_a_client_cannot_smuggle_a_frame_inside_a_payload(read):
    """The length of the outer frame is flipped; the frame in its payload was packed without the spool's secret."""
    inner = frame.pack(b"forged", frame.seed_of("00" * 16, NUMBER))
    data = bytearray(segment([b"x" + inner, b"after"]))
    data[HEADER_BYTES + 4] ^= 1
    found = read(bytes(data))
    assert found.records == [b"after"]
    assert len(found.corrupt) == 1


def test_a_frame_of_another_segment_is_none_of_this_one(read):
    stale = frame.pack(b"stale", frame.seed_of(SPOOL, NUMBER - 1))
    found = read(segment([b"mine"]) + stale)
    assert ([b"mine"], len(stale)) == (found.records, found.torn)


def test_a_segment_of_another_spool_is_refused(read):
    with pytest.raises(SegmentError, match="belongs to spool"):
        read(segment(PAYLOADS), "ff" * 16)


def test_no_segment_is_refused(read):
    for data in (b"", b"hello", bytes(100)):
        with pytest.raises(SegmentError, match="no segment"):
            read(data, None)


def test_the_golden_segment_is_what_we_write_and_read():
    """A change of these bytes is a change of the log's format: raise its number, and read the old one too."""
    golden = record.Record(
        kind="score",
        request_id="4f2c",
        received_us=1_420_351_200_000_000,
        answered_us=1_420_351_200_000_250,
        caller="anonymous",
        status=200,
        model="sha256:00",
        image="",
        request=b'{"telemetry": {}}',
        answer=b'{"results": []}',
    )
    data = frame.header(SPOOL, NUMBER, 1_420_351_200_000_000) + frame.pack(record.encode(golden), SEED)
    assert GOLDEN.read_bytes() == data
    found = read_segment(GOLDEN)
    assert [golden] == [record.decode(payload) for payload in found.records]
