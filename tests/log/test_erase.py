"""Records go by age or by whose they are, on purpose only; what an order of erasure names does not come back."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from closedloop.data.schema import DataError
from closedloop.log import expire, orders, pins, ship, upkeep
from closedloop.log.halt import halt
from closedloop.log.lease import Lease
from closedloop.log.orders import Order, Orders
from closedloop.log.pins import Pin
from closedloop.log.read import read
from closedloop.log.rewrite import Table
from closedloop.log.sink import SinkError
from model import log as command
from simulated_fleet import PARAMS_FILE

DAY_US = 86_400_000_000


@pytest.fixture
def run(sink, monkeypatch, capsys):
    """Run a command on the sink; the exit code and what it printed."""
    monkeypatch.setenv("LOG_SINK", str(sink))

    def go(*words):
        capsys.readouterr()
        code = command.main(list(words))
        return code, capsys.readouterr().out

    return go


def of_machines(kit, *machines):
    """A request with two rows of each machine, and with an error, a replacement and a description of each."""
    request = {table: {column: [] for column in columns} for table, columns in kit.request.items()}
    for machine in machines:
        for table, columns in kit.request.items():
            for column, values in columns.items():
                request[table][column] += [machine if column == "machineID" else value for value in values]
    return request


def answer(*machines):
    result = {
        "datetime": "2015-01-04T06:00:00Z",
        "anomaly": {"score": 1.0, "alarm": False},
        "failure": {},
        "warnings": [],
    }
    return json.dumps({"results": [{"machineID": machine, **result} for machine in machines]}).encode()


def failures(*machines):
    count = len(machines)
    columns = {"datetime": ["2015-01-05T06:00:00Z"] * count, "machineID": list(machines), "failure": ["comp1"] * count}
    return {"failures": columns}


@pytest.fixture
def fleet(kit, folder, sink):
    """Requests of machines alone and together, of two callers, and feedback."""
    kit.fill(folder, [kit.scored("both", of_machines(kit, 1, 2), answer=answer(1, 2))])
    kit.fill(folder, [kit.scored("one", of_machines(kit, 1), answer=answer(1))])
    kit.fill(folder, [kit.scored("two", of_machines(kit, 2), answer=answer(2), caller="press-shop")])
    kit.fill(folder, [kit.fed("fed", failures(1, 2)), kit.fed("fed one", failures(1))])
    kit.ship(folder, sink)


def test_a_machine_is_erased_from_requests_shared_with_others_from_answers_and_feedback(kit, sink, place, fleet, run):
    code, _ = run("erase", "--machine", "1", "--confirm", "1")
    assert code is None
    both, two = kit.rows(sink)
    assert ("both", "two") == (both["request_id"], two["request_id"])
    assert [2, 2] == both["telemetry"]["machineID"]
    assert kit.request["telemetry"]["volt"] == both["telemetry"]["sensors"][0]["values"]
    assert ([2], [2], [2]) == tuple(both[table]["machineID"] for table in ("errors", "maint", "machines"))
    assert [2] == [result["machineID"] for result in both["results"]]
    (fed,) = kit.rows(sink, "feedback")
    assert [2] == fed["failures"]["machineID"]


@pytest.mark.parametrize("compacted", [False, True])
def test_nothing_of_it_is_left_in_any_file_of_any_version(kit, sink, place, fleet, run, compacted):
    pins.put(place, Pin("v1", "release", {"requests": 3, "feedback": 1}))
    if compacted:
        upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True))
    said = run("erase", "--caller", "press-shop", "--dry-run")[1]
    assert "becomes unreadable: pin v1 (release, {'requests': 3, 'feedback': 1})" in said
    assert "v1: bundle, report, card, and its image" in said
    assert 3 == len(kit.rows(sink))
    code, said = run("erase", "--caller", "press-shop")
    assert (2, 3) == (code, len(kit.rows(sink)))
    assert "Nothing was changed. To erase for good: the same again with CONFIRM=press-shop" in said
    code, said = run("erase", "--caller", "press-shop", "--confirm", "press-shop")
    assert code is None
    assert "Now: make data-pin" in said
    assert not [
        path for path in sink.rglob("*.parquet") if "_delta_log" not in str(path) and b"press-shop" in text(path)
    ]
    (pin,) = pins.find(place)
    assert pin.unreadable.startswith("erased: caller-")
    assert ["both", "one"] == kit.ids(sink)
    assert "standing order of erasure: caller press-shop" in run("status")[1]


def text(path):
    return str(pq.read_table(path, columns=["caller"]).to_pylist()).encode()


def test_reading_a_pinned_version_that_was_erased_says_what_to_do(sink, place, fleet, run, schema):
    pins.put(place, Pin("main", "main", {"requests": 3}))
    run("erase", "--caller", "press-shop", "--confirm", "press-shop")
    with pytest.raises((DataError, SinkError), match="make data-pin"):
        read(place, schema, {"requests": 3})


def test_the_order_stands_for_what_is_shipped_later_until_it_is_withdrawn(
    kit, folder, sink, place, fleet, run, schema, monkeypatch
):
    run("erase", "--machine", "1", "--confirm", "1")
    monkeypatch.setattr(ship.orders, "find", lambda sink: Orders([]))  # as a release that knows no orders
    kit.fill(folder, [kit.scored("late", of_machines(kit, 1, 2), answer=b"")])
    kit.ship(folder, sink)
    monkeypatch.undo()
    monkeypatch.setenv("LOG_SINK", str(sink))
    assert [2] == read(place, schema).tables.machine_ids.tolist()
    assert {2} == set(read(place, schema).tables.errors.machine.tolist())
    run("erase", "--machine", "1", "--confirm", "1")
    assert [2, 2] == kit.rows(sink)[-1]["telemetry"]["machineID"]
    assert "new records are kept again" in run("erase", "--machine", "1", "--withdraw")[1]
    assert "no order" in run("erase", "--machine", "1", "--withdraw")[1]


def test_an_order_of_a_caller_is_applied_by_the_reader(kit, sink, place, fleet, schema):
    orders.give(place, Order("caller", "press-shop", 0))
    log = read(place, schema)
    assert (5, 1) == (log.records, log.erased)


@pytest.fixture
def shared(kit, folder):
    """A spool with records of machines 1 and 2, alone and together, in requests and feedback; one body is long."""
    long = of_machines(kit, *[1, 2] * 20_000)
    return kit.fill(
        folder,
        [kit.scored("both", of_machines(kit, 1, 2), answer=answer(1, 2)), kit.scored("long", long, answer=b"")],
        [kit.scored("one", of_machines(kit, 1), answer=answer(1)), kit.fed("fed", failures(1, 2))],
        [kit.fed("fed one", failures(1))],
        [kit.scored("press", of_machines(kit, 2), caller="press-shop")],
    )


def require_no_machine_1(kit, sink):
    both, long, press = kit.rows(sink)
    assert ("both", "long", "press") == tuple(row["request_id"] for row in (both, long, press))
    for name in ("telemetry", "errors", "maint", "machines"):
        assert {2} == {machine for row in (both, long) for machine in row[name]["machineID"]}
    assert kit.request["telemetry"]["volt"] == both["telemetry"]["sensors"][0]["values"]
    assert 40_000 == len(long["telemetry"]["sensors"][0]["values"])
    assert [2] == [result["machineID"] for result in both["results"]]
    (fed,) = kit.rows(sink, "feedback")
    assert [2] == fed["failures"]["machineID"]


def test_what_is_shipped_after_an_erasure_leaves_no_row_of_the_machine(kit, sink, place, shared):
    orders.give(place, Order("machine", "1", 0))
    orders.give(place, Order("machine", "3", 0))
    status, said = kit.ship(shared, sink)
    assert (0, 4, []) == (status.unsent_segments, status.shipped_segments, said)
    require_no_machine_1(kit, sink)
    orders.give(place, Order("caller", "press-shop", 0))
    kit.fill(shared, [kit.scored("again", caller="press-shop")])
    assert 0 == kit.ship(shared, sink)[0].unsent_segments
    assert "again" not in kit.ids(sink)


@pytest.mark.parametrize("typed", ["01", " 1"])
def test_a_machine_is_a_whole_number_however_it_is_written(sink, fleet, run, kit, typed):
    code, said = run("erase", "--machine", typed, "--confirm", typed)
    assert (None, ["both", "two"]) == (code, kit.ids(sink))
    assert "Erased machine 1. The order stands" in said
    assert [2, 2] == kit.rows(sink)[0]["telemetry"]["machineID"]
    assert "new records are kept again" in run("erase", "--machine", typed, "--withdraw")[1]
    assert [] == list((sink / "_erasures").iterdir())


@pytest.mark.parametrize("typed", ["abc", "", "1.0", "1_0", "9223372036854775808", "press-shop"])
def test_what_is_no_machine_is_refused_before_anything_is_stored(sink, fleet, run, typed):
    with pytest.raises(DataError, match=r"--machine: .*is no machineID: name a whole number, as in the data"):
        run("erase", "--machine", typed, "--confirm", typed)
    assert not (sink / "_erasures").exists()


@pytest.mark.parametrize("machine", ["007", "Pump A/7"])
def test_where_the_log_has_names_a_machine_is_its_name_whatever_the_parameters_declare(kit, folder, sink, run, machine):
    """007 read as the number 7 would erase another machine."""
    kit.fill(folder, [kit.scored(name, of_machines(kit, name), answer=answer(name)) for name in ("7", machine)])
    kit.ship(folder, sink)
    code, said = run("erase", "--machine", machine, "--confirm", machine, "--params", str(PARAMS_FILE))
    assert code is None, said
    assert ["7"] == [name for row in kit.rows(sink) for name in set(row["telemetry"]["machineName"])]
    assert [machine] == [json.loads(path.read_text())["name"] for path in (sink / "_erasures").glob("*.json")]


def test_an_order_that_was_stored_with_another_name_can_be_withdrawn(place, fleet, run):
    orders.give(place, Order("machine", "abc", 0))
    assert "new records are kept again" in run("erase", "--machine", "abc", "--withdraw")[1]


@pytest.mark.parametrize("who", [("--machine", "7"), ("--caller", "nobody")])
def test_an_erasure_that_finds_nothing_says_so_and_its_order_stands(place, fleet, run, who):
    code, said = run("erase", *who, "--confirm", who[1])
    assert code is None
    assert f"The log holds nothing of {who[0][2:]} {who[1]}: nothing was erased. The order stands" in said
    assert "Erased" not in said
    assert 1 == len(orders.find(place).orders)


ONLY_ANSWERS = pytest.mark.parametrize(
    "request_kept", [b"", {"errors": {"datetime": [], "machineID": [], "errorID": []}}], ids=["no tables", "no rows"]
)


@ONLY_ANSWERS
def test_results_without_tables_are_shipped_without_the_machine(kit, folder, sink, place, request_kept):
    """LOG_FIELDS may keep the answer and drop the tables that name its machines."""
    orders.give(place, Order("machine", "1", 0))
    records = [kit.scored("both", request_kept, answer=answer(1, 2)), kit.scored("one", request_kept, answer=answer(1))]
    long = kit.scored("long", request_kept, answer=answer(*[1, 2] * 20_000))
    kit.fill(folder, [*records, long, kit.scored("two", request_kept, answer=answer(2))])
    assert [] == kit.ship(folder, sink)[1]
    kept = {row["request_id"]: [result["machineID"] for result in row["results"]] for row in kit.rows(sink)}
    assert {"both": [2], "long": [2] * 20_000, "two": [2]} == kept


@ONLY_ANSWERS
def test_results_of_others_stay_where_an_erased_record_has_no_tables(kit, folder, sink, run, request_kept):
    records = [kit.scored("both", request_kept, answer=answer(1, 2)), kit.scored("one", request_kept, answer=answer(1))]
    kit.ship(kit.fill(folder, records), sink)
    assert run("erase", "--machine", "1", "--confirm", "1")[0] is None
    (row,) = kit.rows(sink)
    assert ("both", [2]) == (row["request_id"], [result["machineID"] for result in row["results"]])


def test_an_order_given_while_a_segment_is_being_shipped_is_obeyed(kit, sink, place, shared, run, monkeypatch):
    """Its rows are made without the order; the erasure has seen nothing of them."""
    kit.ship(
        kit.fill(shared.with_name("other"), [kit.scored("x", of_machines(kit, 2))], [kit.fed("y", failures(2))]), sink
    )
    real, given = ship.Shipper._write, []

    def write(shipper, opened, table, segment):
        if not given:
            given.append(run("erase", "--machine", "1", "--confirm", "1"))
        real(shipper, opened, table, segment)

    monkeypatch.setattr(ship.Shipper, "_write", write)
    assert 0 == kit.ship(shared, sink)[0].unsent_segments
    assert {2} == {machine for row in kit.rows(sink) for machine in row["telemetry"]["machineID"]}
    assert {2} == {machine for row in kit.rows(sink, "feedback") for machine in row["failures"]["machineID"]}


def test_a_file_that_no_version_has_yet_is_left_to_its_shipper_and_said(kit, sink, place, fleet, run):
    waiting = sink / "requests" / "part-00000-of-a-slow-shipper.snappy.parquet"
    shutil.copy(next(x for x in (sink / "requests").glob("*.parquet") if b"anonymous" in text(x)), waiting)
    found = run("erase", "--caller", "anonymous", "--confirm", "anonymous")[1]
    assert waiting.exists()
    assert "1 files that no version has yet hold caller anonymous" in found


# --- by age -------------------------------------------------------------------------------------------------------


@pytest.fixture
def aged(kit, folder, sink):
    """One record a day, the oldest 20 days ago; one of them of a clock that stood still in 2015."""
    now = time.time_ns() // 1000
    for day in range(20, 0, -1):
        received = kit.noon if day == 5 else now - day * DAY_US
        kit.fill(folder, [kit.scored(f"{day}", received_us=received)])
        kit.ship(folder, sink)


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_older_goes_and_a_clock_that_is_behind_lets_nothing_go_early(kit, sink, place, aged, run, compacted):
    if compacted:
        upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True))
    said = run("expire", "--days", "10.5", "--dry-run", "--json")[1]
    assert 10 == json.loads(said)["requests"]["rows"]
    assert 20 == len(kit.ids(sink))
    run("expire", "--days", "10.5")
    assert [str(day) for day in range(10, 0, -1)] == kit.ids(sink)
    run("expire", "--days", "10.5")
    assert 10 == len(kit.ids(sink))


def test_pinned_versions_keep_what_expired(kit, sink, place, aged, run, schema):
    pins.put(place, Pin("main", "main", {"requests": 20}))
    run("expire", "--days", "0.001")
    assert [] == kit.ids(sink)
    assert 20 == read(place, schema, {"requests": 20}).records


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf"])
def test_an_expiry_needs_an_age(run, aged, days):
    with pytest.raises(DataError, match=r"^--days: name how many days"):  # a wrong flag, and nothing about the sink
        run("expire", "--days", days)


def test_more_days_than_any_clock_has_expire_nothing(kit, sink, aged, run):
    run("expire", "--days", "1e308")
    assert 20 == len(kit.ids(sink))


@pytest.mark.parametrize("words", [("--grace", "nan"), ("--grace", "-1"), ("--wait", "nan"), ("--wait", "soon")])
def test_seconds_are_a_number_from_0_on(aged, run, capsys, words):
    with pytest.raises(SystemExit) as ended:
        run("compact", *words)
    assert 2 == ended.value.code
    assert f"argument {words[0]}: '{words[1]}' is not a number of seconds" in capsys.readouterr().err


def test_a_place_without_a_log_has_no_status(run, sink):
    with pytest.raises(DataError, match="there is no log; name the folder"):
        run("status")
    sink.mkdir()
    halt(sink, ["torn"])
    assert "is halted: torn" in run("status")[1]


@pytest.mark.parametrize(
    ("told", "passed"),
    [
        (["MACHINE=-7"], ["--machine=-7"]),
        (["CALLER=-x y"], ["--caller=-x y"]),
        (["MACHINE=7", "CALLER=x"], ["--machine=7", "--caller=x"]),  # which the command refuses
        (["MACHINE=7", "CONFIRM=-7"], ["--machine=7", "--confirm=-7"]),
    ],
)
def test_make_passes_all_that_an_erasure_names(root, tmp_path, told, passed):
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    words = ["make", "-s", "log-erase", f"BIN={tmp_path}", "INSTALLED=", *told]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert ["-m", "model.log", "erase", *passed] == done.stdout.splitlines()


def test_an_erasure_is_of_a_machine_or_of_a_caller(run, aged, capsys):
    with pytest.raises(SystemExit):
        run("erase", "--machine=7", "--caller=x")
    assert "not allowed with argument" in capsys.readouterr().err


def test_expiry_by_the_library_changes_nothing_where_nothing_is_old(place, aged):
    with Lease(place, "requests", say=print) as lease:
        assert 0 == expire.expire(Table(place, "requests"), lease, 0, print).rows


@pytest.mark.parametrize("compacted", [False, True])
def test_one_commit_of_a_clock_that_is_behind_makes_no_earlier_row_old(kit, sink, place, aged, run, compacted):
    log = sink / "requests" / "_delta_log"
    last = log / f"{20:020}.json"
    last.write_text(re.sub(r'"timestamp":\d+', '"timestamp":1000000000000', last.read_text()))
    if compacted:
        upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True))
    run("expire", "--days", "10.5")
    assert 10 == len(kit.ids(sink))


def test_a_row_that_claims_to_be_of_the_future_is_kept_and_those_after_it(kit, folder, sink, place, run):
    now = time.time_ns() // 1000
    for name, received in [("old", now - 20 * DAY_US), ("ahead", now + 3650 * DAY_US), ("after", now - 15 * DAY_US)]:
        kit.fill(folder, [kit.scored(name, received_us=received)])
        kit.ship(folder, sink)
    run("expire", "--days", "10")
    assert ["ahead", "after"] == kit.ids(sink)


@pytest.mark.parametrize(("seconds", "side"), [(-2 * 86_400, "after"), (3600, "before")])
def test_an_expiry_is_refused_where_this_clock_is_not_near_that_of_the_store(kit, sink, place, aged, seconds, side):
    with Lease(place, "requests", say=print) as lease:
        newest = max((sink / "requests" / "_delta_log").glob("*.json"))
        os.utime(newest, (time.time() + seconds,) * 2)
        with pytest.raises(SinkError, match=f"this machine's clock is [0-9,]+ s {side} the newest commit"):
            expire.expire(Table(place, "requests"), lease, time.time_ns() // 1000, print)
    assert 20 == len(kit.ids(sink))


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_status_says_what_is_there(sink, fleet, run):
    said = json.loads(run("status", "--json")[1])
    state = said["tables"]["requests"]
    assert (3, 3, 3, 3, None) == tuple(state[k] for k in ("version", "rows", "files", "small_files", "leased_until"))
    assert ("2015-01-04T12:00:00+00:00", None) == (state["oldest"], said["halted"])
    assert (4, 0) == (state["commits"], state["checkpoints"])
    (sink / "halt").write_text("look here")
    assert "is halted: its halt file cannot be read" in run("status")[1]


def test_a_compaction_reports_in_words_and_in_json(fleet, run):
    assert "requests would be compacted: files_before 3" in run("compact", "--all", "--dry-run")[1]
    assert 1 == json.loads(run("compact", "--all", "--json")[1])["requests"]["compacted"]["files_after"]


def test_an_expiry_reports_in_words_and_says_what_follows_only_where_rows_went(aged, run):
    would = run("expire", "--days", "10.5", "--dry-run")[1]
    assert "requests would be expired: rows 10, files 10, bytes " in would
    done, again = run("expire", "--days", "10.5")[1], run("expire", "--days", "10.5")[1]
    assert "requests expired: rows 10, files 10, bytes " in done
    assert [False, True, False] == ["make data-pin" in said for said in (would, done, again)]
    assert "None" not in would + done + again


def test_an_erasure_of_who_is_not_there_says_so_before_it_is_confirmed(fleet, run):
    said = run("erase", "--caller", "press shop")[1]
    assert "The log holds nothing of caller press shop.\n" in said
    assert "the same again with CONFIRM='press shop'\n" in said  # as a shell takes it
    assert "holds nothing" not in run("erase", "--caller", "press-shop", "--dry-run")[1]


def test_what_an_erasure_prints_as_json_is_json(fleet, run):
    for words in (["--dry-run"], [], ["--confirm", "1"], ["--confirm", "1"]):
        code, said = run("erase", "--machine", "1", "--json", *words)
        assert (2 if not words else None) == code
        assert "machine 1" == json.loads(said)["subject"]


def test_an_erasure_that_cannot_begin_says_that_its_order_stands(fleet, place, run, sink, kit):
    with Lease(place, "requests", say=print), pytest.raises(DataError, match=r"try again in .*The order stands, so"):
        run("erase", "--machine", "1", "--confirm", "1", "--wait", "0")
    assert "standing order of erasure: machine 1" in run("status")[1]
    assert "Erased machine 1" in run("erase", "--machine", "1", "--confirm", "1")[1]


def test_a_reader_of_the_output_who_leaves_is_no_fault_of_the_sink(root, sink, fleet):
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-u", "-c", "from model import log; log.cli.main(log.main)", "status", f"--sink={sink}"]
    done = subprocess.run(words, cwd=root, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (b"", 1) == (done.stderr, done.returncode)


def test_without_a_sink_it_says_which_setting_names_it(monkeypatch):
    monkeypatch.delenv("LOG_SINK", raising=False)
    with pytest.raises(DataError, match="set LOG_SINK"):
        command.main(["status"])


def test_where_there_is_no_log_it_says_so(run):
    with pytest.raises(DataError, match="there is no log"):
        run("compact")
