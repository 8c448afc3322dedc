"""Spools with records in them, and a shipper for them."""

import asyncio
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from closedloop.log.record import REJECT, Record, Reject, encode
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from closedloop.log.spool import Spool
from simulated_fleet import SCHEMA

GOLDEN = Path(__file__).parents[1] / "golden"
REQUEST = json.loads((GOLDEN / "request.json").read_bytes())
ANSWER = (GOLDEN / "answer.json").read_bytes()
NOON_US = 1_420_372_800_000_000  # 2015-01-04T12:00:00Z


def scored(request_id, request=REQUEST, received_us=NOON_US, **other):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    fields = {"caller": "anonymous", "status": 200, "model": "sha256:00", "image": "", "answer": ANSWER}
    return Record(
        **{"kind": "score", **fields, **other},
        request_id=request_id,
        received_us=received_us,
        answered_us=received_us + 250,
        request=body,
    )


def fed(request_id, request, received_us=NOON_US):
    return scored(request_id, request, received_us, kind="feedback", answer=b"{}")


def refused(request_id, body, detail="not JSON", **other):
    about = Reject("/score", "Bad Request", detail, len(body), hashlib.sha256(body).hexdigest())
    return scored(request_id, body, kind=REJECT, status=400, answer=msgspec.json.encode(about), **other)


def fill(folder, *segments, spool=None):
    """Write records to a spool, those of each argument as one sealed segment."""

    async def append(opened, payloads):
        await asyncio.gather(*[opened.append(payload) for payload in payloads])

    for records in segments:
        opened = spool or Spool(folder)
        asyncio.run(append(opened, [item if isinstance(item, bytes) else encode(item) for item in records]))
        opened.close()
    return folder


def ship(folder, sink, rounds=1):
    """The status after so many rounds, and what was said."""
    said = []
    shipper = Shipper(folder, Sink.at(str(sink), os.environ), said.append)
    for _ in range(rounds):
        shipper.round()
    shipper.close()
    return shipper.status, said


def rows(sink, table="requests", options=None, columns=None):
    opened = DeltaTable(f"{sink}/{table}", storage_options=options)
    found = pa.RecordBatchReader.from_stream(opened.scan(columns=columns)).read_all().to_pylist()
    return sorted(found, key=lambda row: (row.get("spool"), row.get("segment"), row.get("index")))


def ids(sink, table="requests", options=None):
    return [row["request_id"] for row in rows(sink, table, options, ["request_id", "spool", "segment", "index"])]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def sink(tmp_path):
    return tmp_path / "sink"


@pytest.fixture
def place(sink):
    """The sink, opened."""
    return Sink.at(str(sink), {})


@pytest.fixture(scope="session")
def schema():
    return SCHEMA


@pytest.fixture
def kit():
    """The functions above, since tests import nothing of each other."""
    return SimpleNamespace(
        scored=scored, fed=fed, refused=refused, fill=fill, ship=ship, rows=rows, ids=ids, request=REQUEST, noon=NOON_US
    )
