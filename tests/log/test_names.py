"""Machines with names in the log: shipped, beside numbers in one table, read back, compacted and erased."""

import copy
import json
import subprocess
import unicodedata
from dataclasses import replace

import arro3.core as arrow
import pyarrow as pa
import pytest

from closedloop.data.feedback import FeedbackDecoder
from closedloop.data.machines import clip
from closedloop.data.request import Decoder
from closedloop.log import rows, ship, tables
from closedloop.log import sink as sinks
from closedloop.log.orders import Order, find, give, mentions
from closedloop.log.read import Loser, read
from model import log as command
from model.common import params

NAMES = ("Pump A/7", "Grün", "7", "007")
NESTED = ("telemetry", "errors", "maint", "machines")


@pytest.fixture
def named(schema):
    """The schema of params.yaml, of a fleet whose machines have names."""
    return replace(schema, machine_id="text")


def called(kit, *names):
    """A request with two rows of each machine, and with an error, a replacement and a description of each."""
    request = {table: {column: [] for column in columns} for table, columns in kit.request.items()}
    for name in names:
        for table, columns in kit.request.items():
            for column, values in columns.items():
                request[table][column] += [name if column == "machineID" else value for value in values]
    return request


def answer(*names):
    result = {"datetime": "2015-01-04T06:00:00Z", "anomaly": None, "failure": {}, "warnings": []}
    return json.dumps({"results": [{"machineID": name, **result} for name in names]}).encode()


def told(*names):
    """Feedback on machines, in all of its parts."""
    times = ["2015-01-05T06:00:00Z"] * len(names)
    place = {"datetime": times, "machineID": list(names)}
    part = {
        "failures": {**place, "failure": ["comp1"] * len(names)},
        "maint": {**place, "comp": ["comp2"] * len(names)},
    }
    return {**part, "complete_until": {"datetime": [*times, times[0]], "machineID": [*names, None]}}


def columns(row, nested):
    """The numbers and the names of a table, or of the results, of one row."""
    if nested == "results":
        return [result["machineID"] for result in row[nested]], [result["machineName"] for result in row[nested]]
    return row[nested]["machineID"], row[nested]["machineName"]


def test_a_record_has_names_or_numbers_and_the_column_of_the_others_is_null(kit, folder, sink, schema, named):
    """The service's decoders accept all of it, and the shipper writes it."""
    for kind, machines in ((named, NAMES), (schema, (7, -8))):
        Decoder(kind, 100)(json.dumps(called(kit, *machines)))
        FeedbackDecoder(kind, 100)(json.dumps(told(*machines)))
        kit.fill(folder, [kit.scored(str(machines), called(kit, *machines), answer=answer(*machines))])
        kit.fill(folder, [kit.fed(str(machines), told(*machines))])
    assert ([], 0) == (kit.ship(folder, sink)[1], kit.ship(folder, sink)[0].quarantined_records)
    of_names, of_numbers = kit.rows(sink)
    doubled = [name for name in NAMES for _ in range(2)]
    assert (None, doubled) == columns(of_names, "telemetry")
    assert ([7, 7, -8, -8], None) == columns(of_numbers, "telemetry")
    for nested in NESTED[1:]:
        assert (None, list(NAMES)) == columns(of_names, nested)
        assert ([7, -8], None) == columns(of_numbers, nested)
    assert ([None] * 4, list(NAMES)) == columns(of_names, "results")
    assert ([7, -8], [None, None]) == columns(of_numbers, "results")
    of_names, of_numbers = kit.rows(sink, "feedback")
    for nested in ("failures", "maint"):
        assert (None, list(NAMES)) == columns(of_names, nested)
        assert ([7, -8], None) == columns(of_numbers, nested)
    assert (None, [*NAMES, None]) == columns(of_names, "complete_until")
    assert ([7, -8, None], None) == columns(of_numbers, "complete_until")


@pytest.mark.parametrize("many", [1, 9000])
def test_a_log_of_names_is_read_back_as_it_was_sent(kit, folder, place, sink, named, many):
    """A short body, and one that is decoded column by column."""
    names = [*NAMES, *(f"press {number}" for number in range(many))]
    body = json.dumps(called(kit, *names)).encode()
    assert (len(body) > 1 << 20) == (many > 1)
    kit.fill(folder, [kit.scored("a", body, answer=b""), kit.fed("b", told("Pump A/7", "never scored"))])
    kit.ship(folder, sink)
    log = read(place, named)
    sent = Decoder(named, len(names) * 2)(body)
    assert (*sorted([*names, "never scored"]),) == log.tables.names
    failed = log.tables.failures
    assert ["Pump A/7", "never scored"] == log.tables.named(failed.machine).tolist()
    with_failures = replace(log.tables, failures=None, maint=sent.recoded(log.tables.names).maint)
    assert sent.fingerprint() == with_failures.fingerprint()
    assert 1_420_437_600_000_000 == log.complete_until.every
    assert {"Pump A/7", "never scored"} == set(log.complete_until.named)
    assert (0, []) == (log.foreign, log.losers)


def test_losers_and_what_is_aside_name_the_machine(kit, folder, place, sink, named):
    later = copy.deepcopy(called(kit, "b", "a"))
    later["telemetry"]["volt"] = [1.0] * 4
    later["errors"]["errorID"] = ["unheard of"] * 2
    kit.fill(folder, [kit.scored("a", called(kit, "b", "a")), kit.scored("b", later)])
    kit.ship(folder, sink)
    log = read(place, named)
    assert [("a", 171.2), ("a", 168.9), ("b", 171.2), ("b", 168.9)] == [
        (loser.machine, loser.values[0]) for loser in log.losers if isinstance(loser, Loser)
    ]
    assert ["a", "b"] == [aside.machine for aside in log.aside]


def test_rows_of_machines_of_the_other_kind_are_counted_and_left_out(kit, folder, place, sink, schema, named):
    """A fleet that changed from numbers to names keeps its log; each kind is read with its own schema."""
    kit.fill(folder, [kit.scored("a", called(kit, "P1"), answer=b""), kit.scored("b", called(kit, 1, 2), answer=b"")])
    kit.fill(folder, [kit.fed("c", told("P1")), kit.fed("d", told(1, 2))])
    kit.ship(folder, sink)
    found = read(place, named)
    assert (("P1",), 2 * (2 + 1 + 1 + 1) + 2 + 2 + 2) == (found.tables.names, found.foreign)
    assert {"P1"} == set(found.complete_until.named)
    found = read(place, schema)
    assert ([1, 2], None, 5 + 1 + 1 + 1) == (found.tables.machine_ids.tolist(), found.tables.names, found.foreign)


def test_an_order_of_names_alone_means_every_machine_of_a_named_fleet_too(kit, folder, place, sink, named):
    body = {"complete_until": {"datetime": ["2015-01-05T09:00:00Z"], "machineID": [None]}}
    kit.fill(folder, [kit.scored("a", called(kit, "P1"))], [kit.fed("b", body)])
    kit.ship(folder, sink)
    log = read(place, named)
    assert (1_420_448_400_000_000, {}, 0) == (log.complete_until.every, log.complete_until.named, log.foreign)


# --- older and newer releases -----------------------------------------------------------------------------------------


def _narrow(kind):
    """A type without the columns of names."""
    if arrow.DataType.is_struct(kind):
        return arrow.DataType.struct(
            [part.with_type(_narrow(part.type)) for part in kind.fields if part.name != tables.NAME]
        )
    if arrow.DataType.is_list(kind):
        return arrow.DataType.list(kind.value_field.with_type(_narrow(kind.value_field.type)))
    return kind


class _Earlier(rows._Builder):
    """Rows as a release made them that did not know of names."""

    def batch(self):
        wide = super().batch()
        fields = [wide.schema.field(name) for name in wide.schema.names]
        schema = arrow.Schema([field.with_type(_narrow(field.type)) for field in fields])
        return arrow.RecordBatch.from_arrow(
            pa.RecordBatch.from_pylist(pa.record_batch(wide).to_pylist(), schema=pa.schema(schema))
        )


@pytest.fixture
def earlier(monkeypatch):
    """Let an earlier release ship; call it again to go back to this one."""

    def switch(on):
        if not on:
            monkeypatch.undo()
            return
        narrow = {
            name: arrow.Schema([schema.field(n).with_type(_narrow(schema.field(n).type)) for n in schema.names])
            for name, schema in tables.SCHEMAS.items()
        }
        monkeypatch.setattr(rows, "_Builder", _Earlier)
        monkeypatch.setattr(ship, "SCHEMAS", narrow)
        monkeypatch.setattr(sinks, "SCHEMAS", narrow)

    return switch


def test_a_table_of_an_earlier_release_grows_by_the_columns_of_names(kit, folder, place, sink, schema, named, earlier):
    """And the earlier shipper goes on with it, after a rollback; both kinds are read back."""
    for turn in range(4):
        earlier(turn % 2 == 0)
        machine = turn if turn % 2 == 0 else f"P{turn}"
        kit.fill(folder, [kit.scored(str(turn), called(kit, machine), answer=answer(machine))])
        kit.fill(folder, [kit.fed(str(turn), told(machine))])
        status, said = kit.ship(folder, sink)
        assert ([], 0, 0) == (said, status.unsent_segments, status.quarantined_records)
    earlier(False)
    assert [0, 2] == read(place, schema).tables.machine_ids.tolist()
    assert ("P1", "P3") == read(place, named).tables.names
    assert [None, ["P1"], None, ["P3"]] == [row["machines"]["machineName"] for row in kit.rows(sink)]
    assert command.main(["compact", "--sink", str(sink), "--all", "--grace", "0"]) is None
    assert [0, 2] == read(place, schema).tables.machine_ids.tolist()
    assert ("P1", "P3") == read(place, named).tables.names


# --- erasure ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(sink, monkeypatch, capsys, tmp_path):
    """A command on the sink of a fleet with names; the exit code and what was printed."""
    text = params.PARAMS.read_text()
    (tmp_path / "params.yaml").write_text(text.replace("schema:\n", "schema:\n  machine_id: text\n"))

    def go(*words):
        code = command.main([*words, "--sink", str(sink), "--params", str(tmp_path / "params.yaml")])
        return code, capsys.readouterr().out

    return go


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_is_erased_by_its_name_and_stays_away(kit, folder, place, sink, named, run, name):
    others = [other for other in NAMES if other != name]
    kit.fill(folder, [kit.scored("all", called(kit, *NAMES), answer=answer(*NAMES)), kit.fed("fed", told(*NAMES))])
    kit.fill(folder, [kit.scored("one", called(kit, name), answer=answer(name)), kit.fed("fed one", told(name))])
    body = json.dumps(called(kit, name)["telemetry"]).encode()[:512]
    kit.fill(
        folder, [kit.refused("bad", body, f"{name!a} occurs twice"), kit.refused("other", b"{}", f"'{name}x' is bad")]
    )
    kit.ship(folder, sink)
    code, said = run("erase", "--machine", name, "--confirm", name)
    assert (None, True) == (code, f"Erased machine {name}. The order stands" in said)

    def require_gone():
        for row in kit.rows(sink):
            for nested in (*NESTED, "results"):
                assert name not in columns(row, nested)[1]
        for row in kit.rows(sink, "feedback"):
            for nested in ("failures", "maint", "complete_until"):
                assert name not in (columns(row, nested)[1] or [])
        assert ["other"] == kit.ids(sink, "rejects")
        assert sorted(others) == list(read(place, named).tables.names)

    require_gone()
    assert ["all"] == kit.ids(sink)
    kit.fill(folder, [kit.scored("later", called(kit, *NAMES), answer=answer(*NAMES)), kit.fed("later", told(*NAMES))])
    kit.fill(folder, [kit.scored("never", called(kit, name), answer=answer(name)), kit.refused("never", body)])
    assert 0 == kit.ship(folder, sink)[0].unsent_segments
    require_gone()
    assert ["all", "later"] == kit.ids(sink)
    assert "new records are kept again" in run("erase", "--machine", name, "--withdraw")[1]
    assert [] == find(place).orders


def test_a_name_that_must_go_is_not_read_though_it_is_not_erased_yet(kit, folder, place, sink, named):
    """As where log-erase was killed after it gave its order."""
    kit.fill(folder, [kit.scored("all", called(kit, *NAMES), answer=b""), kit.fed("fed", told(*NAMES))])
    kit.ship(folder, sink)
    give(place, Order("machine", "7", 0))
    tables = read(place, named).tables
    assert (*sorted(set(NAMES) - {"7"}),) == tables.names
    assert set(tables.names) == set(tables.named(tables.machine)) == set(tables.named(tables.failures.machine))


def test_what_cannot_be_a_name_is_refused_before_anything_is_stored(kit, folder, sink, run):
    kit.fill(folder, [kit.scored("a", called(kit, "P1"))])
    kit.ship(folder, sink)
    with pytest.raises(ValueError, match=r"--machine: 'P\\x071' holds a control character"):
        run("erase", "--machine", "P\a1", "--confirm", "P\a1")
    assert not (sink / "_erasures").exists()
    kit.fill(folder, [kit.scored("b", called(kit, "Gr\u00fcn"), answer=b"")])
    kit.ship(folder, sink)
    assert "Erased machine" in run("erase", "--machine", " Gru\u0308n", "--confirm", " Gru\u0308n")[1]
    assert ["a"] == kit.ids(sink)


@pytest.mark.parametrize("name", [*NAMES, 'a "quoted" \\ one', "泵 \U0001f600", "x" * 100, "Å", "-7", r"a\u0041"])
def test_a_refused_request_is_found_by_a_name_however_it_is_written(name):
    """As JSON may write it, as a message quotes it, and as it was refused for: in another form, or with blanks."""
    escaped = "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else json.dumps(c)[1:-1] for c in name)
    other = unicodedata.normalize("NFD", name)
    texts = [json.dumps([name]), json.dumps([name], ensure_ascii=False), f'["{escaped}"]', clip(name), f" {name} "]
    texts += [json.dumps([other]), json.dumps([f" {other}\n"], ensure_ascii=False), f"{clip(other)} is not in NFC"]
    assert all(mentions(text, name) for text in texts)
    assert not any(mentions(text, name) for text in [json.dumps([f"{name}b"]), json.dumps([f"b{name}"]), "{}"])
    assert str(Order("machine", name, 0)) == f"machine {name}"


@pytest.mark.parametrize(("machine", "written"), [("7", "007"), ("7", "7.0"), ("7", "+7"), ("-7", "-07"), ("0", "00")])
def test_a_refused_request_is_found_by_a_number_however_it_is_written(machine, written):
    assert mentions(f'{{"machineID": ["{written}"', machine)
    assert not mentions(f'{{"machineID": ["1{written.lstrip("+-")}", "{written}1", "{written}5.5"', machine)


def test_the_letter_that_unicode_has_twice_is_found():
    assert mentions('{"machineID": ["\u212b 1"]}', "\u00c5 1")
    assert mentions(r'{"machineID": ["\u212B 1"]}', "\u00c5 1")


@pytest.mark.parametrize("name", ["Pump A/7", 'Pump "A"; `x` \\', "Grün's", "%s $HOME $(id) $$"])
def test_make_passes_a_name_on_as_it_is(root, tmp_path, name):
    """A name may hold what a shell would read: quotes, blanks, semicolons; or make: dollars."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done > {tmp_path}/words\n')
    fake.chmod(0o755)
    words = ["make", "log-erase", f"BIN={fake.parent}", "INSTALLED=", f"MACHINE={name}", f"CONFIRM={name}"]
    subprocess.run([*words, "LOG_SINK=/nowhere"], cwd=root, check=True, capture_output=True)
    assert {f"--machine={name}", f"--confirm={name}"} <= set((tmp_path / "words").read_text().splitlines())
