"""Requests are limited by what they cost, before the work: machines, bytes of the answer, space in the log."""

import json
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from closedloop.heads.bundle import load
from score import service as service_module
from score.answer import Scorer
from score.settings import request_limits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "request.json").read_text())
JSON = {"Content-Type": "application/json"}
MIB = 1 << 20


def request(machines, hours=1):
    """A request of so many machines."""
    telemetry = {"datetime": [], "machineID": []} | {name: [] for name in ("volt", "rotate", "pressure", "vibration")}
    for machine in range(1, machines + 1):
        for hour in range(hours):
            telemetry["datetime"].append(f"2015-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z")
            telemetry["machineID"].append(machine)
            for name in ("volt", "rotate", "pressure", "vibration"):
                telemetry[name].append(100.0)
    return json.dumps({"telemetry": telemetry}).encode()


def post(server, body):
    return httpx.post(f"{server.url}/score", content=body, headers=JSON, timeout=120)


@pytest.fixture
def predicted(monkeypatch):
    """The number of machines of each request that reached the work."""
    seen = []
    answer_tables = Scorer.answer_tables
    monkeypatch.setattr(
        Scorer, "answer_tables", lambda scorer, tables, *rest: seen.append(1) or answer_tables(scorer, tables, *rest)
    )
    return seen


def test_more_machines_than_the_limit_are_refused_before_the_work(serve, monkeypatch, predicted):
    monkeypatch.setenv("MAX_MACHINES", "50")
    server = serve()
    predicted.clear()
    assert post(server, request(50, 2)).status_code == 200
    assert len(predicted) == 1
    refused = post(server, request(51, 2))
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "pointer": "/telemetry/machineID",
            "detail": "51 machines, at most 50: send them in several requests",
        }
    ]
    assert len(predicted) == 1


def test_the_longest_answer_limits_the_machines_too(serve, monkeypatch):
    monkeypatch.setenv("MAX_ANSWER_BYTES", "20000")
    server = serve()
    refused = post(server, request(1000))
    assert refused.status_code == 422
    most = int(refused.json()["errors"][0]["detail"].split()[4].rstrip(":"))
    answered = post(server, request(most))
    assert answered.status_code == 200
    assert len(answered.content) < 20000


def test_two_hundred_thousand_machines_are_refused_by_default(serve):
    server = serve(max_body_bytes=16 * MIB)
    start = time.monotonic()
    refused = post(server, request(200_000))
    assert refused.status_code == 422
    assert "200000 machines, at most" in refused.json()["detail"]
    assert time.monotonic() - start < 20


def test_no_result_is_longer_than_the_longest(tiny_bundle):
    """A machine whose data lacks everything, with every number long, gets a result within the bound."""
    scorer = Scorer(load(tiny_bundle), **request_limits({}))
    assert 10_000 == scorer.max_machines
    hours = range(40)
    telemetry = {
        "datetime": [f"2015-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00.123456Z" for hour in hours if hour != 7],
        "machineID": [-(2**63)] * 39,
    }
    for name in ("volt", "rotate", "pressure", "vibration"):
        telemetry[name] = [None, *[1e308 / 3] * 38]
    answer = scorer.answer(json.dumps({"telemetry": telemetry}), "x")
    (result,) = answer["results"]
    assert 2 + 2 * 4 + 2 == len(result["warnings"])
    assert 200 < len(msgspec.json.encode(result)) < scorer.result_bytes < 2000


def test_what_could_never_be_logged_is_refused_before_the_work(serve, predicted):
    """The log may hold 2 MiB; 9,000 machines could get a longer answer, so no later attempt could succeed either."""
    server = serve(max_body_bytes=MIB, max_in_flight_bytes=MIB, log_max_bytes=2 * MIB)
    predicted.clear()
    refused = post(server, request(9000))
    assert (refused.status_code, refused.headers.get("retry-after")) == (413, None)
    assert "the log takes at most" in refused.json()["detail"]
    assert "send fewer machines" in refused.json()["detail"]
    assert predicted == []
    assert post(server, request(100)).status_code == 200


def test_the_longest_answer_fits_into_the_queue_however_little_may_be_in_flight(serve):
    """Its record of 4 MB is longer than twice what may be in flight; such a 503 could never succeed."""
    server = serve(max_body_bytes=MIB, max_in_flight_bytes=MIB)
    answered = post(server, request(9000))
    assert answered.status_code == 200, answered.text
    assert len(answered.content) > 2 * MIB


@pytest.mark.parametrize(
    ("machines", "hours", "cheap"), [(1, 72, True), (8, 72, True), (90, 1, True), (150, 1, False), (4500, 1, False)]
)
def test_the_event_loop_answers_what_is_cheap_and_a_thread_the_rest(machines, hours, cheap):
    body = request(machines, hours)
    assert len(body) < service_module._THREAD_BYTES * 2
    assert cheap == service_module._is_cheap(body, texts=1)


def test_the_estimate_is_not_fooled_by_a_decoy():
    """Machines under an escaped name, and a few under the name as text, are counted where the decoder finds them."""
    body = request(1500).replace(b'"machineID"', b'"machine\\u0049D"', 1)
    decoy = b'{"errors": {"machineID": [1], "datetime": ["2015-01-01T00:00:00Z"], "errorID": ["error1"]}, ' + body[1:]
    assert not service_module._is_cheap(decoy, texts=1)


def test_the_estimate_costs_little_of_the_answer(tiny_bundle):
    scorer = Scorer(load(tiny_bundle), **request_limits({}))

    def cost(call, *given):
        def once():
            start = time.thread_time()
            call(*given)
            return time.thread_time() - start

        return min(once() for _ in range(20))

    for body in (request(1, 72), request(32, 72), request(150)):
        assert cost(service_module._is_cheap, body, 1) < 0.2 * cost(scorer.answer, body, "x")
