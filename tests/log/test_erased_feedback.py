"""An order of erasure reaches every part of feedback, and what was refused."""

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from closedloop.log import erase
from closedloop.log.files import Files
from closedloop.log.orders import Order, Orders
from closedloop.log.record import encode
from closedloop.log.rows import rows_of
from closedloop.log.sink import Sink
from closedloop.log.tables import FEEDBACK, REJECTS

EVENT = {"datetime": ["2015-01-05T06:00:00Z"] * 2, "machineID": [1, 2]}
BODY = {
    "maint": {**EVENT, "comp": ["comp1", "comp2"], "finding": [None, "worn"]},
    "retracted": {"failures": {**EVENT, "failure": ["comp1", "comp2"]}, "maint": {**EVENT, "comp": ["comp1", "comp2"]}},
    "complete_until": {**EVENT, "machineID": [2, None]},
}
ORDER = Order("machine", "2", 0)


def shipped(*records, order=ORDER):
    """The rows that a shipper writes of records, under an order."""
    found = rows_of("s", 1, map(encode, records), Orders([order]).prune)
    assert [] == found.refused
    return [
        row for batches in found.batches.values() for batch in batches for row in pa.record_batch(batch).to_pylist()
    ]


def test_a_record_is_shipped_without_the_machine(kit):
    (row,) = shipped(kit.fed("a", BODY))
    assert [[1], [1], [1], [None]] == [
        row[name]["machineID"] for name in ("maint", "retracted_failures", "retracted_maint", "complete_until")
    ]
    assert [None] == row["maint"]["finding"]


def test_a_mark_of_every_machine_is_none_of_a_machine_that_is_called_none(kit, folder, sink):
    order = Order("machine", "None", 0)
    times = ["2015-01-05T06:00:00Z"] * 3
    body = {"complete_until": {"datetime": times, "machineID": ["None", "P1", None]}}
    every = {"complete_until": {"datetime": times[:1], "machineID": [None]}}
    both = shipped(kit.fed("a", body), kit.fed("b", every), order=order)
    kit.fill(folder, [kit.fed("a", body)])
    kit.ship(folder, sink)
    both.append(erase._prune(FEEDBACK, kit.rows(sink, FEEDBACK)[0], order))
    marks = [row["complete_until"] for row in both]
    assert [["P1", None], [None], ["P1", None]] == [mark["machineName"] or mark["machineID"] for mark in marks]


@pytest.mark.parametrize("name", ["failures", "maint"])
def test_a_record_that_only_retracts_the_machines_events_is_not_shipped(kit, name):
    only = {"retracted": {name: {column: values[1:] for column, values in BODY["retracted"][name].items()}}}
    assert [] == shipped(kit.fed("a", only))


def test_a_row_of_the_table_loses_the_machine(kit, folder, sink):
    kit.fill(folder, [kit.fed("a", BODY)])
    kit.ship(folder, sink)
    (row,) = kit.rows(sink, FEEDBACK)
    left = erase._prune(FEEDBACK, row, ORDER)
    assert [[1], [1], [1], [None]] == [
        left[name]["machineID"] for name in ("maint", "retracted_failures", "retracted_maint", "complete_until")
    ]
    assert [None] == left["maint"]["finding"]


@pytest.mark.parametrize(
    ("body", "detail", "gone"),
    [
        (b'{"machineID": [1, 2]}', "", True),
        (b'{"machineID": ["2"', "", True),
        (b"{", "machine 2 at '2015' occurs twice", True),
        (b'{"machineID": [1, 21, 12, -2], "volt": [0.2, 2.5, 2e3]}', "", False),
        (b"\xff", "byte 0 is not UTF-8", False),
    ],
)
def test_a_refused_request_that_names_the_machine_goes_whole(kit, folder, sink, body, detail, gone):
    record = kit.refused("a", body, detail)
    assert len(shipped(record)) == (not gone)
    kit.fill(folder, [record])
    kit.ship(folder, sink)
    files = Files(Sink.at(str(sink), {}), REJECTS, DeltaTable(sink / REJECTS))
    (batch,) = files.batches(erase._where(REJECTS))
    assert [gone] == erase._hits(REJECTS, batch, ORDER).tolist()
    (row,) = kit.rows(sink, REJECTS)
    assert erase._prune(REJECTS, row, ORDER) is None
