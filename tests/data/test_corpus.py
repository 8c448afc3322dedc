"""The corpus that is made for any fleet: that of the reference fleet is the golden one, and every status holds."""

import json

import pytest

from closedloop.data.request import RequestError, decode, openapi
from closedloop.data.schema import Schema
from corpus import corpus
from simulated_fleet import GOLDEN, SCHEMA

FILES = {path.stem: path.read_bytes() for path in (GOLDEN / "requests").iterdir()}
# The golden ones have readings of their own.
HISTORIES = {"200-a-gap", "200-rows-out-of-order", "200-three-machines", "200-whole-history"}
FLEETS = {
    "other sensors": Schema(
        ("oil temp [°C]", "Load %", "flow"), ("seal", 'bearing "left"'), ("E 7",), ("Ä-200",), 60,
        ((40.0, 90.0), (0.0, 100.0), (0.0, 0.01)), "text",
    ),
    "one sensor, no codes, ten minutes": Schema(("1",), ("pump",), (), (), 10, ((0.0, 3.0),)),
    "anomaly-only": Schema(("humidity", "Humidity", "温度", "d" * 300), (), (), (), 1, ((-5.0, -1.0),) * 4),
    "readings near zero": Schema(("a/b~'",), (), ("error6",), ("model5", "model5_"), 1440, ((-3e-7, -2e-7),)),
}  # fmt: skip
BODIES = {
    f"{fleet}: {name}": (schema, body)
    for fleet, schema in FLEETS.items()
    for name, body in corpus(schema, openapi(schema)["examples"][0]).items()
}


def test_the_corpus_of_the_reference_fleet_is_the_golden_one():
    made = corpus(SCHEMA, json.loads(FILES["200-two-hours"]))
    assert sorted(FILES) == sorted(made)
    assert [] == [name for name in FILES if name not in HISTORIES and made[name] != FILES[name]]
    assert all(json.loads(FILES[name]).keys() >= json.loads(made[name]).keys() for name in HISTORIES)


@pytest.mark.parametrize("case", BODIES)
def test_every_body_gets_the_status_in_its_name(case):
    schema, body = BODIES[case]
    status = case.rpartition(": ")[2][:3]
    if status == "200":
        decode(body, schema, 1000)
        return
    with pytest.raises(RequestError) as refused:
        decode(body, schema, 1000)
    assert status == ("400" if refused.value.syntax else "422"), refused.value


EVENTS = {f"200-{name}" for name in ("a-repeated-event", "events-in-the-future", "events-of-others", "telemetry-only")}
EVENTS |= {"200-the-first-moment-of-1970", "200-findings"}


@pytest.mark.parametrize("fleet", FLEETS)
def test_only_what_a_fleet_cannot_have_is_left_out(fleet):
    made = corpus(FLEETS[fleet], openapi(FLEETS[fleet])["examples"][0])
    odd = {"422-id-as-name"} if FLEETS[fleet].has_names else set()
    assert set(FILES) - set(made) - odd <= EVENTS
    assert set(made) - set(FILES) == {"422-id-as-number" for _ in odd}
    assert len(set(made.values())) == len(made)  # none stands there under two names
