"""Shadow by replay: logged requests are answered again, first by the model that answered them, then by another."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from closedloop.data.frames import tables_to_frames
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import START_US, simulate
from closedloop.heads.bundle import load, write
from closedloop.log import orders
from closedloop.log.record import Record
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from closedloop.log.spool import Spool
from closedloop.watch.logged_requests import LoggedRequest
from closedloop.watch.replay import Answerer
from closedloop.watch.replay import replay as replay_of
from model import replay
from score.answer import Scorer
from score.log.journal import Journal
from score.settings import LOG_FIELDS, Settings
from simulated_fleet import SCHEMA

MACHINES, DAYS, EVERY = 4, 12, 6  # hours between requests
LATEST = START_US + (24 * DAYS - 1) * HOUR_US


@pytest.fixture(scope="module")
def models(tiny_bundle, tmp_path_factory):
    """Folders of two bundles: one that is served, and one that alarms sooner."""
    folder = tmp_path_factory.mktemp("models")
    bundle = load(tiny_bundle)
    for name, share in (("served", 0.6), ("challenger", 0.4)):
        anomaly = replace(bundle.anomaly, threshold=bundle.anomaly.threshold * share)
        write(replace(bundle, anomaly=anomaly), folder / name)
    return folder


@pytest.fixture(scope="module")
def requests():
    """Bodies of requests of 72 hours, one for each machine every few hours, as (hour, machine, body)."""
    frames = tables_to_frames(simulate("azure", MACHINES, DAYS, 5, SCHEMA).tables, SCHEMA)
    found = []
    for hour in range(24, 24 * DAYS, EVERY):
        end = np.datetime64(START_US + hour * HOUR_US, "us")
        for machine in range(1, MACHINES + 1):
            body = {}
            for name in ("telemetry", "errors", "maint", "machines"):
                rows = frames[name][frames[name]["machineID"] == machine]
                if "datetime" in rows:
                    at = rows["datetime"].dt.tz_localize(None)
                    since = end - np.timedelta64(72, "h") if name != "maint" else np.datetime64(0, "us")
                    rows = rows[(at > since) & (at <= end)]
                    rows = rows.assign(datetime=[to_text(int(time)) for time in rows["datetime"].astype("int64")])
                body[name] = rows.to_dict("list")
            found.append((hour, machine, body))
    return found


@pytest.fixture
def logged(tmp_path, models, requests):
    """Answer the requests, log them as the service does, ship the log; ``change`` may alter a record before."""

    def go(change=None, fields=frozenset(LOG_FIELDS), asked=requests) -> str:
        scorer = Scorer(load(models / "served"), 10_000)
        spool = Spool(tmp_path / "log")
        journal = Journal(spool, Settings(log_dir=tmp_path / "log", log_fields=fields))

        async def keep():
            for number, (_, _, body) in enumerate(asked):
                content = json.dumps(body).encode()
                record = Record(
                    kind="score", request_id=f"r{number}", received_us=LATEST + number, answered_us=LATEST + number,
                    caller="anonymous", status=200, model=scorer.manifest.model_digest, image="", request=content,
                    answer=msgspec.json.encode(scorer.answer(content, f"r{number}")),
                )  # fmt: skip
                await journal.keep(record if change is None else change(number, record))

        asyncio.run(keep())
        spool.close()
        shipper = Shipper(tmp_path / "log", Sink.at(str(tmp_path / "sink"), os.environ), print)
        shipper.round()
        shipper.close()
        return str(tmp_path / "sink")

    return go


@pytest.fixture
def run(tmp_path, models, capsys):
    """Run the command: exit code, the JSON, and what it printed."""

    def go(place: str, *words: str, served=("served",)) -> tuple[int, dict, str]:
        given = [word for name in served for word in ("--served", str(models / name))]
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        bundle = ["--bundle", str(models / "challenger"), "--out", str(out)]
        code = replay.main(["--log", place, *bundle, *given, *words])
        said = capsys.readouterr().out
        assert said == (out / "replay.md").read_text(encoding="utf-8")
        return code, json.loads((out / "replay.json").read_text()), said

    return go


def of_last_week(requests):
    latest = max(hour for hour, _, _ in requests)
    return [one for one in requests if one[0] > latest - 24 * 7]


def test_the_last_week_is_answered_again_with_the_same_bits_and_the_challenger_alarms_more(logged, run, requests):
    code, found, said = run(logged())
    week = of_last_week(requests)
    assert code == 0
    assert found["records"]["replayed"] == len(week) == found["answers"]
    assert found["records"]["mismatched"] == 0
    assert list(found["models"].values()) == [len(week)]
    alarms = found["alarms"]
    assert alarms["gained"] == sum(len(one["gained"]) for one in found["machines"]) > 0
    assert alarms["lost"] == 0
    assert f"answered {len(week):,} requests" in said
    assert "| machine | alarms |" in said


def test_the_same_model_gains_and_loses_nothing(logged, run, models):
    code, found, _ = run(logged(), "--bundle", str(models / "served"))
    assert (code, found["alarms"]["gained"], found["alarms"]["lost"], found["machines"]) == (0, 0, 0, [])
    assert found["alarms"]["served"] == found["alarms"]["challenger"] > 0


def test_alarms_are_what_the_two_models_answer_themselves(logged, run, models, requests):
    """The challenger's are counted again by hand, from its own answers to the bodies."""
    _, found, _ = run(logged())
    scorer = Scorer(load(models / "challenger"), 10_000)
    hours = {}
    for hour, machine, body in of_last_week(requests):
        (result,) = scorer.answer(json.dumps(body), "r")["results"]
        heads = [result["anomaly"], *result["failure"].values()]
        if any(head is not None and head["alarm"] for head in heads):
            hours.setdefault(machine, []).append(hour)
    expected = sum(sum(np.diff(sorted(of_one), prepend=-99) > 12) for of_one in hours.values())
    assert found["alarms"]["challenger"] == expected


@pytest.mark.parametrize("last_bit", [True, False])
def test_an_answer_that_was_not_given_is_a_red_of_its_own(logged, run, last_bit):
    def change(number: int, record: Record) -> Record:
        if number != 160:
            return record
        answer = json.loads(record.answer)
        head = answer["results"][0]["failure"]["comp1"]
        if last_bit:
            head["probability"] = float(np.nextafter(head["probability"], 1))
        else:
            head["alarm"] = not head["alarm"]
        return msgspec.structs.replace(record, answer=json.dumps(answer).encode())

    code, found, said = run(logged(change))
    assert code == 1
    assert found["records"]["mismatched"] == 1
    (mismatch,) = found["mismatches"]
    assert ("r160", "comp1") == (mismatch["request_id"], mismatch["head"])
    assert "**1 answers cannot be given again.**" in said
    assert "the log or the code is not what was served" in said


def test_a_request_that_was_changed_is_found_too(logged, run):
    def change(number: int, record: Record) -> Record:
        if number != 150:
            return record
        body = json.loads(record.request)
        body["telemetry"]["volt"] = [reading + 30.0 for reading in body["telemetry"]["volt"]]
        return msgspec.structs.replace(record, request=json.dumps(body).encode())

    code, found, _ = run(logged(change))
    assert (code, found["records"]["mismatched"]) == (1, 1)


@pytest.mark.parametrize("dropped", ["telemetry", "errors", "machines", "answer"])
def test_records_that_the_log_kept_in_part_are_counted_and_no_mismatch(logged, run, requests, dropped):
    code, found, said = run(logged(fields=frozenset(LOG_FIELDS) - {dropped}))
    assert code == 0, found["mismatches"]
    records = found["records"]
    assert records["mismatched"] == 0
    assert records["partial"] > 0
    assert f"{records['partial']:,} of which the log kept only a part" in said
    whole = dropped in ("telemetry", "answer")
    expected = len(requests if dropped == "answer" else of_last_week(requests))
    assert records["partial"] + (0 if whole else records["replayed"]) == expected


def test_a_missing_table_of_errors_is_a_mismatch_where_the_log_keeps_errors(logged, run):
    """The later requests of a segment lost their errors: so the log was changed."""

    def change(number: int, record: Record) -> Record:
        body = json.loads(record.request)
        if number < 100:
            return record
        del body["errors"]
        return msgspec.structs.replace(record, request=json.dumps(body).encode())

    code, found, _ = run(logged(change))
    assert code == 1
    assert found["records"]["mismatched"] > 0
    assert found["records"]["partial"] == 0


class Stretch(list):
    """Requests that were read already."""

    since, until, left_out, with_errors = 0, HOUR_US, Counter(), frozenset()


def asked(*without: str, warnings=(), replacements=2) -> LoggedRequest:
    """A request without some tables, answered by a model whose score is the number of replacements."""
    at = ["1970-01-01T01:00:00Z"]
    body = {
        "telemetry": {"datetime": at, "machineID": [1], **{name: [1.0] for name in SCHEMA.sensors}},
        "errors": {"datetime": [], "machineID": [], "errorID": []},
        "maint": {"datetime": at * 2, "machineID": [1, 1], "comp": ["comp1", "comp2"]},
        "machines": {"machineID": [1], "model": ["model1"], "age": [3.0]},
    }
    key = (1, HOUR_US)
    kept = {name: table for name, table in body.items() if name not in without}
    return LoggedRequest(
        "r", "d", ("s", 1), kept, {key: {"comp1": (float(replacements), False)}}, {key: list(warnings)}
    )


def counting(schema=SCHEMA) -> Answerer:
    def predict(tables):
        return {(1, HOUR_US): {"comp1": (float(len(tables.maint.time)), False)}}

    return Answerer("d", schema, predict)


NONE_KNOWN = "no replacement known of comp1, comp2, comp3, comp4"


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (asked(warnings=["no replacement known of comp3, comp4"]), "replayed"),
        (asked("maint", warnings=["no replacement known of comp3, comp4"]), "partial"),  # the log kept none of them
        (asked("maint", warnings=[NONE_KNOWN], replacements=0), "replayed"),
        (asked("maint", warnings=[NONE_KNOWN]), "mismatched"),  # none was sent, and yet it counted two
        (asked(warnings=[], replacements=3), "mismatched"),
    ],
)
def test_the_warnings_of_an_answer_tell_a_table_that_was_not_kept_from_one_that_was_not_sent(one, expected):
    found = replay_of(Stretch([one]), {"d": counting()}, counting(), 12 * HOUR_US)
    counts = {"replayed": 0, "partial": 0} | found.records | {"mismatched": found.mismatched}
    assert {"replayed": 0, "partial": 0, "mismatched": 0} | {expected: 1} == {
        name: counts[name] for name in ("replayed", "partial", "mismatched")
    }


def test_the_service_warns_in_these_words(models):
    scorer = Scorer(load(models / "served"), 10_000)
    body = {"telemetry": asked().body["telemetry"]}
    (result,) = scorer.answer(json.dumps(body), "r")["results"]
    assert {NONE_KNOWN, "no machine description"} <= set(result["warnings"])


def test_what_the_challengers_schema_refuses_is_counted(run):
    other = replace(SCHEMA, sensors=("volt", "rotate", "pressure", "other"))
    found = replay_of(Stretch([asked()] * 3), {"d": counting()}, counting(other), 12 * HOUR_US)
    assert (3, 0, 0) == (found.records["incompatible"], found.records["replayed"], found.mismatched)


def test_a_model_whose_bundle_is_not_here_is_counted_by_its_digest(logged, run, models, requests):
    code, found, _ = run(logged(), served=("challenger",))
    assert code == 0
    assert found["records"]["unknown_model"] == len(of_last_week(requests))
    assert list(found["unknown_models"]) == [load(models / "served").manifest.model_digest]


def test_erased_machines_and_requests_that_were_sent_again_are_left_out_on_both_sides(logged, run, requests):
    latest = max(hour for hour, _, _ in requests)
    twice = [*requests, *[one for one in requests if one[0] == latest]]

    def same(number: int, record: Record) -> Record:
        first = number - MACHINES if number >= len(requests) else number
        return msgspec.structs.replace(record, request_id=f"r{first}")

    place = logged(same, asked=twice)
    orders.give(Sink.at(place, {}), orders.Order("machine", "2", 0))
    code, found, _ = run(place)
    week = of_last_week(requests)
    gone = sum(machine == 2 for _, machine, _ in week)
    assert code == 0
    assert (gone, MACHINES) == (found["records"]["erased"], found["records"]["sent_again"])
    assert found["records"]["replayed"] == len(week) - gone
    assert all(one["machine"] != 2 for one in found["machines"])


def test_an_erased_machine_is_taken_out_of_a_request_that_has_others(logged, run, requests):
    """The others' answers do not depend on it, so they are answered again."""
    both = []
    for (hour, _, one), (_, machine, other) in zip(requests[0::MACHINES], requests[1::MACHINES], strict=True):
        body = {name: {key: one[name][key] + other[name][key] for key in one[name]} for name in one}
        both.append((hour, machine, body))
    place = logged(asked=both)
    orders.give(Sink.at(place, {}), orders.Order("machine", "2", 0))
    code, found, _ = run(place)
    assert (code, found["records"]["erased"]) == (0, 0)
    assert found["records"]["replayed"] == found["answers"] == len(of_last_week(both))


def test_a_wrong_call_is_one_clear_line(run, tmp_path, monkeypatch):
    monkeypatch.delenv("LOG_SINK", raising=False)
    with pytest.raises(ValueError, match="there is no log"):
        run(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="no log is named"):
        run("")
    with pytest.raises(ValueError, match="name a time above 0"):
        run(str(tmp_path / "none"), "--days", "0")
