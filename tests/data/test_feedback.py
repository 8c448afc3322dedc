"""Feedback is decoded into events, or refused with a pointer to every fault."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from closedloop.data.columns import RequestError
from closedloop.data.feedback import FeedbackDecoder, openapi
from simulated_fleet import SCHEMA

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT / "tests" / "golden" / "feedback").iterdir())
BOTH = json.loads((ROOT / "tests" / "golden" / "feedback" / "200-both.json").read_text())
decode = FeedbackDecoder(SCHEMA, 1000)


def errors_of(feedback, read=decode):
    with pytest.raises(RequestError) as caught:
        read(json.dumps(feedback))
    return [error["pointer"] for error in caught.value.errors]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_answered_as_its_names_say(path):
    status, body = path.name[:3], path.read_bytes()
    if status == "200":
        decode(body)
        return
    with pytest.raises(RequestError) as caught:
        decode(body)
    assert status == ("400" if caught.value.syntax else "422")
    assert caught.value.errors
    assert len(str(caught.value)) < 1000


def test_both_tables_become_events():
    said = decode(json.dumps(BOTH))
    assert {"failures": 1, "maint": 2, "retracted": 0, "complete_until": 0} == said.rows
    assert [1_420_437_600_000_000] == said.failures.time.tolist()
    assert [1] == said.failures.code.tolist()
    assert [1, 3] == said.maint.code.tolist()


def test_a_repeated_event_is_one_event_of_two_rows():
    said = decode((ROOT / "tests" / "golden" / "feedback" / "200-a-repeated-event.json").read_bytes())
    assert (2, 1) == (said.rows["failures"], len(said.failures.time))


def test_every_fault_has_a_pointer():
    wrong = {"failures": {**BOTH["failures"], "failure": ["comp9"]}, "maint": {**BOTH["maint"], "machineID": [1]}}
    assert ["/failures/failure/0", "/maint/machineID"] == errors_of(wrong)
    assert [""] == errors_of({})
    assert ["/maint"] == errors_of(BOTH, FeedbackDecoder(SCHEMA, 1))


@pytest.mark.parametrize("within", ["failures", "retracted"])
def test_rows_in_place_of_columns_are_told_the_form_to_send(within):
    with pytest.raises(RequestError, match="send columns, not rows, as") as caught:
        decode(json.dumps({within: [{"datetime": "2015-01-05T06:00:00Z"}]}))
    (error,) = caught.value.errors
    form = '{"datetime": […], "machineID": […], "failure": […]}'
    assert (form if within == "failures" else f'{{"failures": {form}}}') in error["detail"]


def test_a_fleet_without_components_has_an_example_too():
    bare = replace(SCHEMA, components=())
    rows = {"failures": 0, "maint": 0, "retracted": 0, "complete_until": 1}
    assert rows == FeedbackDecoder(bare, 1000)(json.dumps(openapi(bare)["examples"][0])).rows


def test_the_documented_example_is_feedback_and_the_schema_takes_and_refuses_as_we_do():
    document = openapi(SCHEMA)
    rows = {"failures": 1, "maint": 1, "retracted": 0, "complete_until": 1}
    assert rows == decode(json.dumps(document["examples"][0])).rows
    validator = jsonschema.Draft202012Validator(document)
    unsaid = {  # what a JSON Schema cannot say
        "422-columns-of-unequal-length", "422-no-time", "422-repeated-table", "422-repeated-column", "422-deep",
        "422-finding-shorter", "422-two-findings", "422-reported-and-retracted", "422-retracted-twice-named",
        "422-complete-until-in-the-future", "422-complete-until-no-time",
        "422-time-in-the-year-9999",
    }  # fmt: skip
    for path in CORPUS:
        if path.stem[:3] == "400" or path.stem in unsaid:
            continue
        assert (path.stem[:3] == "200") == validator.is_valid(json.loads(path.read_bytes())), path.stem


def test_a_corrected_time_is_the_old_one_retracted_and_the_new_one_reported():
    said = decode((ROOT / "tests" / "golden" / "feedback" / "200-corrected-time.json").read_bytes())
    assert {"failures": 1, "maint": 1, "retracted": 2, "complete_until": 0} == said.rows
    assert [1_420_437_600_000_000] == said.retracted["failures"].time.tolist()
    assert [3] == said.retracted["maint"].code.tolist()


def test_the_mark_is_of_named_machines_or_of_every_machine_and_its_time_has_passed():
    body = {
        "complete_until": {"datetime": ["2015-01-05T06:00:00Z", "2015-01-04T06:00:00+01:00"], "machineID": [None, 7]}
    }
    at = 1_420_437_600_000_000
    exactly = FeedbackDecoder(SCHEMA, 1000, now_us=lambda: at)
    assert [(None, at), (7, at - 25 * 3_600_000_000)] == exactly(json.dumps(body)).complete_until
    assert ["/complete_until/datetime/0"] == errors_of(body, FeedbackDecoder(SCHEMA, 1000, now_us=lambda: at - 1))


def test_the_faults_of_the_new_parts_have_pointers():
    def wrong(**parts):
        return errors_of({**BOTH, **parts})

    event = {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [1], "failure": ["comp2"]}
    assert ["/retracted/failures/failure/0"] == wrong(retracted={"failures": {**event, "failure": ["comp9"]}})
    assert ["/retracted/failures/machineID"] == wrong(retracted={"failures": {**event, "machineID": []}})
    assert ["/retracted/failures/machineID/0"] == wrong(retracted={"failures": {**event, "machineID": ["x"]}})
    assert ["/retracted/failures"] == wrong(retracted={"failures": {**event, "comp": ["comp2"]}})
    assert ["/retracted/failures"] == wrong(retracted={"failures": event})
    assert ["/retracted"] == wrong(retracted={"errors": event})
    assert ["/maint/finding/1"] == wrong(maint={**BOTH["maint"], "finding": [None, "rusty"]})
    assert ["/maint/finding"] == wrong(maint={**BOTH["maint"], "finding": ["worn"]})
    assert ["/complete_until/machineID/0"] == wrong(complete_until={**UNTIL, "machineID": [2**63]})
    assert ["/complete_until/machineID/0"] == wrong(complete_until={**UNTIL, "machineID": ["all"]})
    assert ["/complete_until"] == wrong(complete_until="2015-01-05T06:00:00Z")
    assert ["/complete_until"] == errors_of(
        {"complete_until": {"datetime": UNTIL["datetime"] * 2, "machineID": [1, 2]}}, FeedbackDecoder(SCHEMA, 1)
    )


UNTIL = {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [1]}
