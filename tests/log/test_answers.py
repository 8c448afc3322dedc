"""The answers that were given, back from the log."""

import json

import pytest

from closedloop.data.schema import DataError
from closedloop.log import orders
from closedloop.log.answers import ANOMALY, answers
from closedloop.log.sink import Sink

AT = "2015-01-04T0{}:00:00Z"


def answer(*machines, hour=6, alarm=False, anomaly=True, probability=0.25):
    """The body of an answer about these machines."""
    results = [
        {
            "machineID": machine,
            "datetime": AT.format(hour),
            "anomaly": {"score": 1.5, "alarm": alarm} if anomaly else None,
            "failure": {
                "comp1": {"probability": probability, "alarm": alarm},
                "comp2": None,
            },
            "warnings": [],
        }
        for machine in machines
    ]
    return json.dumps({"request_id": "r", "model": "sha256:aa", "results": results}).encode()


@pytest.fixture
def given(kit, folder, sink):
    """Ship these records and read the answers back: (model, machine, hour, head, score, alarm)."""

    def go(*records):
        status, said = kit.ship(kit.fill(folder, list(records)), sink)
        assert ([], 0) == (said, status.unsent_segments)
        found = answers(Sink.at(str(sink), {}))
        hours = ((found.time // 3_600_000_000) % 24).tolist()
        return [
            (found.models[model], machine, hour, found.heads[head], score, alarm)
            for model, machine, hour, head, score, alarm in zip(
                found.model.tolist(), found.machine.tolist(), hours, found.head.tolist(), found.score.tolist(),
                found.alarm.tolist(), strict=True,
            )
        ]  # fmt: skip

    return go


def test_each_head_of_each_answer_is_one_row_and_a_silent_head_is_none(kit, given):
    found = given(
        kit.scored("a", model="sha256:bb", answer=answer(2, 1, alarm=True)),
        kit.scored("b", model="sha256:aa", answer=answer(1, hour=5, anomaly=False)),
    )
    assert found == [
        ("sha256:aa", 1, 5, "comp1", 0.25, False),
        ("sha256:bb", 1, 6, ANOMALY, 1.5, True),
        ("sha256:bb", 1, 6, "comp1", 0.25, True),
        ("sha256:bb", 2, 6, ANOMALY, 1.5, True),
        ("sha256:bb", 2, 6, "comp1", 0.25, True),
    ]


def test_of_several_answers_for_one_row_the_first_counts_for_each_model(kit, given):
    found = given(
        kit.scored("a", model="m", answer=answer(1, probability=0.1, anomaly=False)),
        kit.scored("b", model="m", answer=answer(1, probability=0.2, anomaly=False), received_us=kit.noon + 1),
        kit.scored("c", model="n", answer=answer(1, probability=0.3, anomaly=False), received_us=kit.noon + 2),
    )
    assert [("m", 0.1), ("n", 0.3)] == [(row[0], row[4]) for row in found]


def test_what_was_sent_again_or_erased_is_left_out(kit, given, sink):
    one = kit.scored("a", model="m", answer=answer(1, 2, anomaly=False))
    assert [1, 2] == [row[1] for row in given(one, one)]
    orders.give(Sink.at(str(sink), {}), orders.Order("machine", "2", 0))
    assert [1] == answers(Sink.at(str(sink), {})).machine.tolist()


def test_a_log_without_answers_has_none_and_no_log_is_refused(kit, given, sink, tmp_path):
    assert [] == given(kit.scored("a", answer=b'{"request_id": "r", "model": "m", "results": []}'))
    with pytest.raises(DataError, match="there is no log"):
        answers(Sink.at(str(tmp_path / "none"), {}))


def test_machines_with_names_are_the_positions_of_those_that_are_wanted(kit, given, sink):
    body = json.loads(answer("press-b", "press-a", "press-c", anomaly=False))
    request = {
        "telemetry": {"datetime": [AT.format(6)] * 3, "machineID": ["press-a", "press-b", "press-c"], "volt": [1.0] * 3}
    }
    assert [] == given(kit.scored("a", request, model="m", answer=json.dumps(body).encode()))  # as numbers
    found = answers(Sink.at(str(sink), {}), names=("press-a", "press-b", "press-x"))
    assert [0, 1] == found.machine.tolist()


def test_an_answer_for_a_number_is_none_for_a_name_and_the_other_way_round(kit, given, sink):
    """A fleet that changed from numbers to names keeps its log; ``read`` leaves the others' rows out too."""
    records = [
        kit.scored(f"r{n}", model="m", answer=answer(one, anomaly=False))
        for n, one in enumerate((7, "7", "007", "8.0", -1))
    ]
    assert [-1, 7] == [row[1] for row in given(*records)]
    names = ("-1", "007", "7", "8.0")
    assert [1, 2, 3] == answers(Sink.at(str(sink), {}), names=names).machine.tolist()
