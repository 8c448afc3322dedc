"""What feedback corrects: events retracted, marks of completeness, findings; in whatever order it is delivered."""

import json
import os
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import FINDINGS, HOUR_US, Schema
from closedloop.log import expire, gather, rows, ship, tables, upkeep
from closedloop.log import sink as sinks
from closedloop.log.lease import Lease
from closedloop.log.orders import Orders
from closedloop.log.read import CompleteUntil, Loser, _Result, read
from closedloop.log.record import Record, encode
from closedloop.log.rewrite import Table
from closedloop.log.sink import Sink

SCHEMA = Schema(
    sensors=("volt",),
    components=("comp1", "comp2"),
    errors=("error1",),
    models=("model3",),
    sampling_minutes=60,
    ranges=((0.0, 400.0),),
)
CODE = {"failures": "failure", "maint": "comp"}
AT = ["2015-01-04T05:00:00Z", "2015-01-04T06:00:00Z", "2015-01-04T07:00:00Z"]
FIRST_US = 1_420_347_600_000_000  # AT[0]


def event(table="failures", hour=0, machine=1, code="comp1", **other):
    return {"datetime": [AT[hour]], "machineID": [machine], CODE[table]: [code], **other}


def keys(events):
    hours = (events.time - FIRST_US) // HOUR_US
    return list(zip(events.machine.tolist(), hours.tolist(), events.code.tolist(), strict=True))


@pytest.fixture
def back(kit, folder, sink):
    """Write these bodies of feedback to a log after one request, ship it, read it back."""

    def go(*bodies):
        records = [kit.scored("r", {"telemetry": kit.request["telemetry"]})]
        records += [kit.fed(f"f{i}", body, kit.noon + i) for i, body in enumerate(bodies)]
        kit.fill(folder, *([record] for record in records))
        status, said = kit.ship(folder, sink)
        assert ([], 0) == (said, status.unsent_segments)
        return read(Sink.at(str(sink), os.environ), SCHEMA)

    return go


def test_a_retracted_event_is_absent_whichever_came_first(back):
    both = [{"failures": event(), "maint": event("maint")}, {"retracted": {"failures": event()}}]
    for bodies in (both, both[::-1]):
        log = back(*bodies)
        assert ([], [(1, 0, 0)], 1) == (keys(log.tables.failures), keys(log.tables.maint), log.retracted)


@pytest.mark.parametrize("compacted", [False, True])
def test_retractions_and_marks_outlive_the_expiry_of_their_records(kit, back, folder, sink, compacted):
    retracting = {"retracted": {"failures": event(hour=0)}, "failures": event(hour=1)}
    mark = {"complete_until": {"datetime": [AT[2]], "machineID": [1]}, "maint": event("maint", finding=["worn"])}
    back({"failures": event(hour=2)}, retracting, mark)
    place = Sink.at(str(sink), os.environ)
    now = time.time_ns() // 1000
    if compacted:
        kit.ship(kit.fill(folder, [kit.fed("young", {"failures": event(hour=2, code="comp2")}, now)]), sink)
        upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True))
    for gone in (1, 0):
        with Lease(place, tables.FEEDBACK, say=print) as lease:
            dry = expire.expire(Table(place, tables.FEEDBACK), upkeep.NoLease(), now - 1, print, dry_run=True)
            done = expire.expire(Table(place, tables.FEEDBACK), lease, now - 1, print)
        assert (dry, gone, 2) == (done, done.rows, done.kept)
        retracts, marks, *young = kit.rows(sink, tables.FEEDBACK)
        assert [None, None] == [retracts["failures"], marks["maint"]]
        assert compacted == bool(young)
    late = {"failures": event(hour=0), "complete_until": {"datetime": [AT[1]], "machineID": [1]}}
    kit.ship(kit.fill(folder, [kit.fed("late", late, now)]), sink)
    log = read(place, SCHEMA)
    assert ([(1, 2, 1)] * compacted, 1) == (keys(log.tables.failures), log.retracted)
    assert {1: FIRST_US + 2 * HOUR_US} == log.complete_until.named


def test_a_corrected_time_replaces_the_old_one(back):
    log = back({"failures": event(hour=0)}, {"failures": event(hour=2), "retracted": {"failures": event(hour=0)}})
    assert [(1, 2, 0)] == keys(log.tables.failures)


def test_a_replacement_that_requests_repeat_is_retracted_too(kit, back, folder, sink):
    request = {**kit.request, "maint": event("maint")}
    kit.fill(folder, [kit.scored("a", request)])
    log = back({"retracted": {"maint": event("maint")}})
    kit.fill(folder, [kit.scored("b", request, kit.noon + 99)])
    kit.ship(folder, sink)
    for found in (log, read(Sink.at(str(sink), os.environ), SCHEMA)):
        assert ([], 1) == (keys(found.tables.maint), found.retracted)


def test_a_retraction_of_something_else_takes_nothing(back):
    others = {"failures": event(machine=2), "maint": event("maint")}
    log = back({"failures": event()}, {"retracted": others}, {"retracted": {"failures": event(code="comp2")}})
    assert ([(1, 0, 0)], 0) == (keys(log.tables.failures), log.retracted)


def test_a_mark_never_decreases_and_the_latest_that_covers_a_machine_holds(back):
    log = back(
        {"complete_until": {"datetime": [AT[1], AT[2]], "machineID": [None, 7]}},
        {"complete_until": {"datetime": [AT[0], AT[0], AT[0]], "machineID": [None, 7, 8]}},
    )
    hour = [FIRST_US + i * HOUR_US for i in range(3)]
    assert CompleteUntil(hour[1], {7: hour[2], 8: hour[0]}) == log.complete_until
    assert [hour[1], hour[2], hour[1]] == [log.complete_until.of(machine) for machine in (1, 7, 8)]
    assert CompleteUntil(None, {}).of(1) is None


def test_a_finding_is_kept_beside_its_replacement_and_beats_none(back):
    log = back(
        {"maint": event("maint", hour=1, finding=["worn"])},
        {"maint": event("maint", hour=1)},
        {"maint": event("maint", hour=0, finding=[None])},
        {"maint": event("maint", hour=2, finding=["sound"])},
    )
    assert [(1, 0, 0), (1, 1, 0), (1, 2, 0)] == keys(log.tables.maint)
    assert [-1, FINDINGS.index("worn"), FINDINGS.index("sound")] == log.findings.tolist()
    assert [] == log.losers


def test_a_finding_that_a_request_brings_counts_as_one_of_feedback(kit, back, folder, sink):
    """A request is a slice of the same tables; requests from before have no such column."""
    worn, none = {**kit.request, "maint": event("maint", finding=["worn"])}, {**kit.request, "maint": event("maint")}
    later = {**kit.request, "maint": event("maint", hour=2, finding=["sound"])}
    kit.fill(folder, [kit.scored("a", worn, kit.noon - 2), kit.scored("b", none), kit.scored("c", later)])
    log = back({"maint": event("maint", hour=1)}, {"maint": event("maint", hour=2, finding=["worn"])})
    assert [(1, 0, 0), (1, 1, 0), (1, 2, 0)] == keys(log.tables.maint)
    assert [FINDINGS.index("worn"), -1, FINDINGS.index("worn")] == log.findings.tolist()
    assert [Loser("maint", 1, FIRST_US + 2 * HOUR_US, ("sound",))] == log.losers


def test_of_two_findings_the_later_wins_and_the_other_is_kept_apart(back):
    log = back({"maint": event("maint", finding=["worn"])}, {"maint": event("maint", finding=["sound"])})
    assert [FINDINGS.index("sound")] == log.findings.tolist()
    assert [Loser("maint", 1, FIRST_US, ("worn",))] == log.losers


def test_a_finding_of_a_later_release_is_kept_aside(back):
    log = back({"maint": event("maint", finding=["cracked"])})
    assert ([-1], [("maint.finding", 1, FIRST_US, "cracked")]) == (log.findings.tolist(), log.aside)


def test_a_table_from_before_these_columns_is_read_and_then_grows(kit, back, folder, sink, monkeypatch):
    """The first release's shipper made the table; its rows lack the columns, and those after it have them."""
    old = {name: schema for name, schema in tables.SCHEMAS.items() if name != tables.FEEDBACK}
    fed = tables.SCHEMAS[tables.FEEDBACK]
    maint = fed.field("maint").with_type(fed.field("retracted_maint").type)
    names = [name for name in fed.names if not name.startswith(("retracted", "complete"))]
    old[tables.FEEDBACK] = type(fed)([maint if name == "maint" else fed.field(name) for name in names])
    with monkeypatch.context() as earlier:
        for module in (rows, ship, sinks):
            earlier.setattr(module, "SCHEMAS", old)
        earlier.setattr(rows, "TABLES_OF", {**tables.TABLES_OF, tables.FEEDBACK: ("failures", "maint")})
        kit.fill(folder, [kit.fed("old", {"failures": event(hour=2), "maint": event("maint")})])
        kit.ship(folder, sink)
        assert "complete_until" not in kit.rows(sink, "feedback")[0]
    first = back()
    assert ([(1, 2, 0)], [(1, 0, 0)], [-1]) == (
        keys(first.tables.failures), keys(first.tables.maint), first.findings.tolist()
    )  # fmt: skip
    assert (CompleteUntil(None, {}), 0) == (first.complete_until, first.retracted)
    log = back(
        {"maint": event("maint", finding=["worn"]), "retracted": {"failures": event(hour=2)}},
        {"complete_until": {"datetime": [AT[1]], "machineID": [None]}},
    )
    assert ([], [0], FIRST_US + HOUR_US) == (keys(log.tables.failures), log.findings.tolist(), log.complete_until.every)


# --- the law ----------------------------------------------------------------------------------------------------------

EVENTS = st.tuples(
    st.sampled_from(sorted(CODE)), st.integers(0, 2), st.integers(1, 3), st.sampled_from(["comp1", "comp2"])
)
MESSAGES = st.one_of(
    st.tuples(st.just("reported"), EVENTS),
    st.tuples(st.just("retracted"), EVENTS),
    st.tuples(st.just("until"), st.tuples(st.integers(0, 2), st.none() | st.integers(1, 3))),
)


def body_of(message):
    kind, what = message
    if kind == "until":
        return {"complete_until": {"datetime": [AT[what[0]]], "machineID": [what[1]]}}
    table, hour, machine, code = what
    columns = event(table, hour, machine, code)
    if kind == "retracted":
        return {"retracted": {table: columns}}
    finding = {"finding": [[None, *FINDINGS][(hour + machine) % 3]]} if table == "maint" else {}
    return {table: columns | finding}


def gathered(messages):
    """What is read when the messages are delivered in this order, each in a batch of its own."""
    found = gather.Gathered(SCHEMA, Orders([]), 0)
    for rank, message in enumerate(messages):
        about = {"caller": "anonymous", "status": 200, "model": "", "image": "", "answer": b"{}"}
        record = Record("feedback", f"f{rank}", 0, 0, request=json.dumps(body_of(message)).encode(), **about)
        (batch,) = rows.rows_of("0" * 32, 1, [encode(record)]).batches["feedback"]
        found.add("feedback", pa.record_batch(batch), np.array([rank]))
    return found, _Result(found, SCHEMA)


@settings(deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=12), st.data())
def test_what_counts_is_what_was_said_and_not_when_it_was_delivered(messages, data):
    """Held to a plain set: events that were reported and never retracted, the latest marks, the finding of each."""
    delivered = data.draw(st.permutations(messages + data.draw(st.lists(st.sampled_from(messages), max_size=4))))
    found, result = gathered(delivered)
    said = {kind: {what for known, what in messages if known == kind} for kind in ("reported", "retracted", "until")}
    left = said["reported"] - said["retracted"]
    for table in CODE:
        expected = sorted((m, h, SCHEMA.components.index(c)) for name, h, m, c in left if name == table)
        assert expected == keys(getattr(result.tables, table))
    assert len(said["reported"] & said["retracted"]) == result.retracted
    findings = [(hour + machine) % 3 - 1 for machine, hour, _ in keys(result.tables.maint)]
    assert findings == result.findings.tolist()
    marks = found.complete_until()
    for machine in range(1, 5):
        covering = [hour for hour, named in said["until"] if named in (None, machine)]
        at = marks.of(machine)
        assert max(covering, default=None) == (None if at is None else (at - FIRST_US) // HOUR_US)
    assert [] == result.losers


def test_marks_are_folded_while_reading(monkeypatch):
    monkeypatch.setattr(gather, "_FOLD_MARKS", 2)
    found, _ = gathered([("until", (hour, machine)) for hour in (2, 0, 1) for machine in (1, 2, 3, None)])
    assert {1: AT[2], 2: AT[2], 3: AT[2]} == {m: to_text(at) for m, at in found.complete_until().named.items()}
