"""The tables read back from the log are those that were sent, with overlaps, repetitions and corrections resolved."""

import copy
import http.client
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import uvicorn

from closedloop.data import sources
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, DataError, Schema, Tables
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import write
from closedloop.judge.holdout import last_times
from closedloop.judge.split import split
from closedloop.log import union
from closedloop.log.read import Aside, Loser, read
from closedloop.log.sink import Sink
from model import data
from model.common import params
from model.common.training import training_rows
from model.train import train
from score.app import create_app
from score.settings import Settings

STRIDE_HOURS = 60  # so that windows of 72 hours overlap


@pytest.fixture
def back(kit, folder, sink, schema):
    """A function that writes records to a log, ships it and reads it back."""

    def go(*segments, versions=None):
        if segments:
            kit.fill(folder, *segments)
            kit.ship(folder, sink)
        return read(Sink.at(str(sink), {}), schema, versions)

    return go


def reading(kit, value, hour="2015-01-04T06:00:00Z"):
    """A request of one row with this value of volt."""
    columns = {"datetime": [hour], "machineID": [1], "volt": [value], "rotate": [1], "pressure": [2], "vibration": [3]}
    return {"telemetry": columns}


def test_overlapping_windows_are_one_table_and_nothing_is_lost_to_the_overlap(kit, back):
    later = copy.deepcopy(kit.request)
    later["telemetry"]["datetime"] = ["2015-01-04T06:00:00Z", "2015-01-04T07:00:00Z"]
    for sensor in ("volt", "rotate", "pressure", "vibration"):
        later["telemetry"][sensor] = [kit.request["telemetry"][sensor][1], 1.0]
    log = back([kit.scored("a"), kit.scored("b", later)])
    assert [to_text(row) for row in log.tables.time.tolist()] == [f"2015-01-04T0{hour}:00:00Z" for hour in (5, 6, 7)]
    assert (1, 1, 1) == (len(log.tables.errors.code), len(log.tables.maint.code), len(log.tables.machine_ids))
    assert (2, 0, []) == (log.records, log.replayed, log.losers)


def test_the_latest_row_of_a_key_wins_and_what_lost_is_kept_apart_once(kit, back):
    log = back(
        [kit.scored("a", reading(kit, 1.0)), kit.scored("b", reading(kit, 1), received_us=kit.noon + 1)],
        [kit.scored("c", reading(kit, None), received_us=kit.noon + 2)],
        [kit.scored("d", reading(kit, 5), received_us=kit.noon + 3)],
    )
    assert [[5.0]] == log.tables.values[:1].tolist()
    assert [1.0, None] == sorted((None if np.isnan(x.values[0]) else x.values[0] for x in log.losers), key=str)
    assert {("telemetry", 1, kit.noon - 6 * HOUR_US)} == {loser[:3] for loser in log.losers}


def test_machines_may_be_described_anew(kit, back):
    older, newer = copy.deepcopy(kit.request), copy.deepcopy(kit.request)
    older["machines"]["age"], newer["machines"]["age"] = [18], [19]
    log = back([kit.scored("a", older), kit.scored("b", newer)])
    assert [19.0] == log.tables.machine_age.tolist()
    assert [Loser("machines", 1, None, ("model3", 18.0))] == log.losers


def test_the_same_request_again_counts_once_and_as_of_the_first_time(kit, back):
    log = back(
        [kit.scored("a", reading(kit, 1), kit.noon)],
        [kit.scored("b", reading(kit, 2), kit.noon + 1)],
        [kit.scored("a", reading(kit, 1), kit.noon + 2)],
    )
    assert (3, 1, [[2.0]]) == (log.records, log.replayed, log.tables.values[:1].tolist())


def test_the_same_id_with_another_body_is_another_request(kit, back):
    log = back([kit.scored("a", reading(kit, 1)), kit.scored("a", reading(kit, 2))])
    assert (0, [[2.0]]) == (log.replayed, log.tables.values[:1].tolist())


@pytest.mark.parametrize("jump_days", [-10, 10])
def test_within_a_spool_the_sequence_is_the_order_whatever_the_clock_did(kit, back, jump_days):
    jumped = kit.noon + jump_days * 24 * HOUR_US
    log = back(
        [kit.scored("a", reading(kit, 1), kit.noon), kit.scored("b", reading(kit, 2), jumped)],
        [kit.scored("c", reading(kit, 3), kit.noon + 1)],
    )
    assert [[3.0]] == log.tables.values[:1].tolist()


def test_failures_and_replacements_are_fed_back(kit, back):
    fed = {
        "failures": {"datetime": ["2015-01-05T06:00:00Z"] * 2, "machineID": [1, 1], "failure": ["comp2", "comp1"]},
        "maint": {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [1], "comp": ["comp1"]},
    }
    log = back([kit.scored("a"), kit.fed("f", fed), kit.fed("g", {"failures": fed["failures"]})])
    assert [0, 1] == log.tables.failures.code.tolist()
    assert [1, 0] == log.tables.maint.code.tolist()


def test_a_log_can_be_read_as_it_was(kit, back):
    first = back([kit.scored("a", reading(kit, 1))])
    back([kit.scored("b", reading(kit, 2), kit.noon + 1)])
    again = back(versions=first.versions | {"feedback": None})
    assert first.tables.fingerprint() == again.tables.fingerprint()
    assert first.versions == again.versions


def test_a_sensor_that_was_not_sent_is_missing_and_another_fleets_is_left_aside(kit, back):
    request = reading(kit, 7)
    del request["telemetry"]["rotate"]
    request["telemetry"]["flow"] = [1.5]
    log = back([kit.scored("a", request), kit.scored("b", reading(kit, 8, "2015-01-04T07:00:00Z"))])
    assert [[7.0, 8.0], [None, 1.0]] == [[None if np.isnan(x) else x for x in row] for row in log.tables.values[:2]]


def test_what_the_schema_does_not_have_any_more_is_kept_aside_and_the_log_is_read(kit, back):
    request = copy.deepcopy(kit.request)
    request["errors"] = {
        "datetime": ["2015-01-03T07:00:00Z", "2015-01-03T08:00:00Z"],
        "machineID": [1, 1],
        "errorID": ["error99", "error1"],
    }
    request["machines"]["model"] = ["model99"]
    gone = {"datetime": ["2015-01-03T07:00:00Z"] * 3, "machineID": [1, 1, 2], "failure": ["comp99", "comp1", "comp98"]}
    log = back([kit.scored("a", request), kit.scored("b", request), kit.fed("f", {"failures": gone})])
    at = kit.noon - 29 * HOUR_US
    assert [
        Aside("machines.model", 1, None, "model99"),
        Aside("errors.errorID", 1, at, "error99"),
        Aside("failures.failure", 1, at, "comp99"),
        Aside("failures.failure", 2, at, "comp98"),
    ] == log.aside
    assert ([0], [0]) == (log.tables.errors.code.tolist(), log.tables.failures.code.tolist())
    assert ([-1], [18.0]) == (log.tables.machine_model.tolist(), log.tables.machine_age.tolist())


def test_where_there_is_no_log_it_says_so(back):
    with pytest.raises(DataError, match="there is no log"):
        back()


def test_repetitions_are_folded_while_reading(kit, back, monkeypatch):
    monkeypatch.setattr(union, "_FOLD_LOSERS", 1)
    log = back([kit.scored(str(i), reading(kit, i % 3), kit.noon + i) for i in range(9)])
    assert ([[2.0]], [0.0, 1.0]) == (log.tables.values[:1].tolist(), sorted(x.values[0] for x in log.losers))


# --- the law ----------------------------------------------------------------------------------------------------------


def requests(tables: Tables, schema: Schema):
    """The requests of the machines: overlapping windows of 72 hours, with each component's last replacement before."""
    for window in tables.windows():
        row = int(np.flatnonzero(tables.machine_ids == window.machine)[0])
        stops = [*range(STRIDE_HOURS, len(window.time), STRIDE_HOURS), len(window.time)]
        for stop in stops:
            start = max(0, stop - 72)
            since, until = int(window.time[start]), int(window.time[stop - 1])
            recent = (window.errors.time >= since) & (window.errors.time <= until)
            maint = zip(window.maint.code.tolist(), window.maint.time.tolist(), strict=True)
            last = {code: at for code, at in maint if at <= until}
            yield {
                "telemetry": {
                    "datetime": [to_text(time) for time in window.time[start:stop].tolist()],
                    "machineID": [window.machine] * (stop - start),
                    **dict(zip(schema.sensors, window.values[:, start:stop].tolist(), strict=True)),
                },
                "errors": events(window.errors, recent, "errorID", schema.errors),
                "maint": {
                    "datetime": [to_text(at) for at in last.values()],
                    "machineID": [window.machine] * len(last),
                    "comp": [schema.components[code] for code in last],
                },
                "machines": {
                    "machineID": [window.machine],
                    "model": [schema.models[int(tables.machine_model[row])]],
                    "age": [float(tables.machine_age[row])],
                },
            }


def events(found, keep, column, names):
    return {
        "datetime": [to_text(time) for time in found.time[keep].tolist()],
        "machineID": found.machine[keep].tolist(),
        column: [names[code] for code in found.code[keep]],
    }


def digest(tables, schema, asked, folder):
    """The model_digest of the model that the golden parameters train on the tables."""
    history_us = int(asked.features["history_hours"] * HOUR_US)
    parts = split(tables, asked.source, asked.split["salt"], "fleet", asked.horizon_us, history_us)
    about = {"source": asked.source, "schema": schema.to_dict(), "fingerprint": tables.fingerprint(schema.sensors)}
    about["train_until"] = last_times(tables, parts.training)
    _, bundle = next(train(training_rows(tables, about, asked.delay_us), schema, asked, about))
    return write(bundle, folder).model_digest


@contextmanager
def service(bundle, folder):
    """Run the service in a thread, as ``python -m score`` does; yields a connection to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DIR", str(bundle))
        app = create_app(Settings(log_dir=folder))
        config = uvicorn.Config(app, port=0, http="httptools", lifespan="on", access_log=False, log_level="warning")
        server = uvicorn.Server(config)
        thread = Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield http.client.HTTPConnection(*server.servers[0].sockets[0].getsockname()[:2], timeout=60)
        finally:
            server.should_exit = True
            thread.join()


def test_what_went_through_http_and_the_log_trains_the_very_same_model(
    kit, tiny_bundle, folder, sink, schema, tmp_path, monkeypatch
):
    asked = params.load()
    tables = simulate("azure", 12, 150, 11, schema).tables
    with service(tiny_bundle, folder) as connection:
        for number, request in enumerate(requests(tables, schema)):
            headers = {"X-Request-ID": f"r{number}", "Content-Type": "application/json"}
            connection.request("POST", "/score", json.dumps(request), headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
        connection.close()
    failures = events(tables.failures, slice(None), "failure", schema.components)
    maint = events(tables.maint, slice(None), "comp", schema.components)
    complete = {"datetime": [to_text(int(tables.time.max()))], "machineID": [None]}  # else silence is not health
    kit.fill(folder, [kit.fed("feedback", {"failures": failures, "maint": maint, "complete_until": complete})])
    status, said = kit.ship(folder, sink)
    assert ([], 0) == (said, status.unsent_segments)

    monkeypatch.chdir(tmp_path)
    data.main(["--source", str(sink), "--out", "data"])  # as `make run DATA=` does
    back = sources.read_tables(tmp_path / "data", schema, {})
    about = json.loads((tmp_path / "data" / "data.json").read_text())
    assert [{"requests": 1, "feedback": 1}] == [part["versions"] for part in about["parts"]]
    assert np.unique(tables.machine).tolist() == back.marks.machine.tolist()
    assert tables.fingerprint() == replace(back, marks=None).fingerprint()
    assert digest(tables, schema, asked, tmp_path / "one") == digest(back, schema, asked, tmp_path / "other")
