"""What the service accepts becomes a row, and the row has just what was sent: held to a plain reading of the JSON."""

import json
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from closedloop.data import rfc3339
from closedloop.data.columns import RequestError
from closedloop.data.feedback import FeedbackDecoder
from closedloop.data.request import Decoder
from closedloop.data.schema import Schema
from closedloop.log import bodies, rows
from closedloop.log.record import encode

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMA = Schema(
    sensors=("volt", "rotate", "pressure", "vibration"),
    components=("comp1", "comp2"),
    errors=("error1", "error2"),
    models=("model1", "model3"),
    sampling_minutes=60,
    ranges=((0.0, 400.0), (0.0, 1000.0), (0.0, 300.0), (0.0, 150.0)),
)
NAMES = {
    "score": ("telemetry", "errors", "maint", "machines"),
    "feedback": ("failures", "maint", "retracted_failures", "retracted_maint", "complete_until"),
}
TABLES = {"score": "requests", "feedback": "feedback"}


def made(*payloads):
    """The rows of one segment as dictionaries, by table, and what was refused."""
    found = rows.rows_of("0" * 32, 7, payloads)
    return {
        table: [row for batch in batches for row in pa.record_batch(batch).to_pylist()]
        for table, batches in found.batches.items()
    }, [one.why for one in found.refused]


def instant(text):
    """A time, read by nothing of ours."""
    zone = "" if text[-1] in "zZ" or text[-6] in "+-" else "Z"
    return datetime.fromisoformat(text.upper() + zone).astimezone(UTC)


def plain(body, kind):
    """The nested columns of a body as the table has them."""
    found = json.loads(body) if body else {}
    found |= {f"retracted_{name}": columns for name, columns in found.pop("retracted", {}).items()}
    nested = {}
    for name in NAMES[kind]:
        columns = {column: list(values) for column, values in found[name].items()} if name in found else None
        if columns is not None:
            if name == "maint":
                columns.setdefault("finding", None)
            for column in columns.keys() - {"datetime", "machineID", "errorID", "comp", "failure", "model", "finding"}:
                columns[column] = [None if value is None else float(value) for value in columns[column]]
            if "datetime" in columns:
                columns["datetime"] = [instant(text) for text in columns["datetime"]]
            if name == "telemetry":
                place = {column: columns.pop(column) for column in ("datetime", "machineID")}
                columns = place | {"sensors": [{"name": sensor, "values": own} for sensor, own in columns.items()]}
            columns["machineName"] = None  # the request has numbers
        nested[name] = columns
    return nested


def answered(answer):
    results = []
    for result in json.loads(answer)["results"]:
        failure = [
            {"component": name, **(chance or {"probability": None, "alarm": None})}
            for name, chance in result["failure"].items()
        ]
        results.append({**result, "datetime": instant(result["datetime"]), "failure": failure, "machineName": None})
    return results


def holds(kit, body, kind="score", answer=None):
    """Ship one body, and require the plain reading of it."""
    other = {} if answer is None else {"answer": answer}
    found, refused = made(encode(kit.scored("a", body, kind=kind, **other)))
    assert [] == refused, body
    ((row,),) = found.values()
    assert plain(body, kind) == {name: row[name] for name in NAMES[kind]}
    return row


@pytest.mark.parametrize("long", [bodies.LONG_BYTES, 0])
@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("requests/200*"), *GOLDEN.glob("feedback/200*")]), ids=lambda path: path.stem
)
def test_each_golden_body_that_is_answered_becomes_its_row(kit, path, monkeypatch, long):
    monkeypatch.setattr(bodies, "LONG_BYTES", long)
    kind, body = "score" if path.parent.name == "requests" else "feedback", path.read_bytes()
    if "id-as-text" in path.name:  # the service logs it with numbers
        body = Decoder(SCHEMA, 10).read(body)[1] if kind == "score" else FeedbackDecoder(SCHEMA, 10)(body).body
    holds(kit, body, kind)


@pytest.mark.parametrize("long", [bodies.LONG_BYTES, 0])
def test_the_golden_answer_becomes_its_results(kit, monkeypatch, long):
    monkeypatch.setattr(bodies, "LONG_BYTES", long)
    answer = (GOLDEN / "answer.json").read_bytes()
    assert answered(answer) == holds(kit, (GOLDEN / "request.json").read_bytes(), answer=answer)["results"]


def number(rng):
    return rng.choice([None, 0, -0.0, 1, 171.25, 1e308, -5e-324, 10**17, 2**53 + 1, rng.uniform(-1e3, 1e3)])


def time(rng):
    text = f"{rng.randint(1971, 2025):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    text += rng.choice("Tt ") + f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
    if rng.random() < 0.3:
        text += "." + "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 6)))
    return text + rng.choice(["Z", "z", "", "+00:00", "-23:59", "+05:30"])


def mutated(rng, text):
    """A text with some characters exchanged, lost or repeated."""
    letters = list(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(letters) + 1)
        letters[at : at + rng.randint(0, 1)] = rng.choice(
            [[], [rng.choice("0123456789XTZz:+-. /e\n٣")], letters[at : at + 1] * 2]
        )
        letters = letters or ["0"]
    return "".join(letters)


def whole(rng):
    return rng.choice([1, 2, 0, -1, 2**63 - 1, -(2**63), 2**53 + 1, rng.randint(-(10**6), 10**6)])


def event(rng, column, names, count):
    return {
        "datetime": [time(rng) for _ in range(count)],
        "machineID": [whole(rng) for _ in range(count)],
        column: [rng.choice(names) for _ in range(count)],
    }


def found_at(rng, maint):
    return {"finding": [rng.choice(["worn", "sound", None]) for _ in maint["comp"]]} if rng.random() < 0.5 else {}


def request(rng):
    count = rng.randint(1, 6)
    telemetry = {"datetime": [time(rng) for _ in range(count)], "machineID": [whole(rng) for _ in range(count)]}
    telemetry |= {sensor: [number(rng) for _ in range(count)] for sensor in SCHEMA.sensors}
    body = {"telemetry": telemetry}
    if rng.random() < 0.6:
        body["errors"] = event(rng, "errorID", SCHEMA.errors, rng.randint(0, 3))
    if rng.random() < 0.6:
        body["maint"] = event(rng, "comp", SCHEMA.components, rng.randint(0, 3))
        body["maint"] |= found_at(rng, body["maint"])
    if rng.random() < 0.6:
        ids = list({whole(rng) for _ in range(rng.randint(0, 3))})
        models = [rng.choice(SCHEMA.models) for _ in ids]
        body["machines"] = {"machineID": ids, "model": models, "age": [abs(number(rng) or 0) for _ in ids]}
    return body


def feedback(rng):
    body = {
        "failures": event(rng, "failure", SCHEMA.components, rng.randint(0, 3)),
        "maint": event(rng, "comp", SCHEMA.components, rng.randint(0, 3)),
    }
    body["maint"] |= found_at(rng, body["maint"])
    if rng.random() < 0.5:
        names = {"failures": "failure", "maint": "comp"}
        some = rng.sample(list(names), rng.randint(0, 2))
        body["retracted"] = {name: event(rng, names[name], SCHEMA.components, rng.randint(0, 3)) for name in some}
    if rng.random() < 0.5:
        count = rng.randint(0, 3)
        whom = [rng.choice([None, whole(rng)]) for _ in range(count)]
        body["complete_until"] = {"datetime": [time(rng) for _ in range(count)], "machineID": whom}
    return body


def hurt(rng, body):
    """Exchange one value for one that is hostile, or change a time by some characters."""
    table = rng.choice(list(body))
    if table == "retracted":
        body = body[table]
        if not body:
            return
        table = rng.choice(list(body))
    column = rng.choice(list(body[table]))
    values = body[table][column]
    if not values:
        return
    row = rng.randrange(len(values))
    if column == "datetime":
        values[row] = mutated(rng, values[row])
    else:
        values[row] = rng.choice(
            [None, "", "x", "error1", True, 1.5, 2.0, 10**25, -(2**63) - 1, 2**63, [], "\ud800", "é"]
        )


def written(rng, body):
    separators = rng.choice([(",", ":"), (", ", ": "), (" ,\n", ":\t")])
    return json.dumps(body, separators=separators, ensure_ascii=True).encode()


@pytest.mark.parametrize("kind", NAMES)
def test_what_the_service_accepts_the_shipper_writes(kit, kind):
    """Over all fields, with good and hostile values: by construction, not by luck."""
    rng = random.Random(12)  # noqa: S311
    door = Decoder(SCHEMA, 1000) if kind == "score" else FeedbackDecoder(SCHEMA, 1000)
    make = request if kind == "score" else feedback
    accepted, payloads, sent = 0, [], []
    for turn in range(6000):
        body = make(rng)
        if turn % 3:
            hurt(rng, body)
        text = written(rng, body)
        try:
            door(text)
        except RequestError:
            continue
        accepted += 1
        payloads.append(encode(kit.scored("a", text, kind=kind)))
        sent.append(text)
    assert 1500 < accepted < 5500
    found, refused = made(*payloads)
    assert [] == refused
    for text, row in zip(sent, found[TABLES[kind]], strict=True):
        assert plain(text, kind) == {name: row[name] for name in NAMES[kind]}, text


def test_every_time_that_the_service_accepts_is_the_same_time_to_the_shipper():
    """60,000 mutated times, each of them also with every one of its characters replaced."""
    rng = random.Random(12)  # noqa: S311
    base = [time(rng) for _ in range(300)]
    texts = base + [mutated(rng, rng.choice(base)) for _ in range(40_000)]
    texts += [
        text[:at] + letter + text[at + 1 :] for text in base[:40] for at in range(len(text)) for letter in "0X9:-٣ "
    ]
    accepted = 0
    for text in texts:
        (parsed,), bad = rfc3339.parse([text])
        if bad < 0:
            accepted += 1
            assert int(parsed) == bodies._times[text], text
    assert accepted > 1000


@pytest.mark.parametrize("text", ["20XX-01-04T06:00:00Z", "2X00-01-04T06:00:00Z", "-100-01-04T06:00:00Z"])
def test_a_year_that_is_no_number_is_refused_at_the_door(text):
    assert 0 == rfc3339.parse([text])[1]


def test_an_answer_whose_figures_are_not_finite_is_stored_without_them(kit):
    """JSON has no infinity: the service writes null."""
    answer = json.loads((GOLDEN / "answer.json").read_bytes())
    answer["results"][0]["anomaly"] = {"score": None, "alarm": True}
    answer["results"][0]["failure"]["comp1"] = {"probability": None, "alarm": False}
    text = json.dumps(answer).encode()
    assert answered(text) == holds(kit, (GOLDEN / "request.json").read_bytes(), answer=text)["results"]


def test_many_fleets_by_turns_each_have_their_own_sensors(kit):
    bodies_sent = [
        json.dumps(
            {"telemetry": {"datetime": ["2015-01-04T06:00:00Z"], "machineID": [1], **{name: [i] for name in names}}}
        )
        for i in range(60)
        for names in [[f"sensor {i % 23}", "comp", "age"][: 1 + i % 3]]
    ]
    found, refused = made(*[encode(kit.scored("a", body.encode())) for body in bodies_sent])
    assert [] == refused
    for body, row in zip(bodies_sent, found["requests"], strict=True):
        assert plain(body, "score")["telemetry"] == row["telemetry"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"telemetry": {"datetime": ["2015"], "machineID": [1]}}', "'2015', which is no time"),
        (b'{"telemetry": {"datetime": [], "machineID": [1]}}', "columns of telemetry that differ in length"),
        (b'{"telemetry": {"datetime": [], "machineID": [9223372036854775808]}}', "int"),
        (b'{"telemetry": {"datetime": [], "machineID": [], "volt": ["1"]}}', "float"),
        (b'{"errors": {"datetime": [], "machineID": [], "comp": []}, "x": {}}', "a table 'x', which this version"),
        (b'{"errors": {"when": []}}', "a column errors.when, which this version does not know"),
        (b"[" * 100_000, "malformed|recursion|Expected"),
        (b"[1]", "Expected `object`"),
    ],
)
@pytest.mark.parametrize("long", [bodies.LONG_BYTES, 0])
def test_what_is_no_body_of_ours_is_refused_with_the_reason(kit, monkeypatch, long, body, why):
    monkeypatch.setattr(bodies, "LONG_BYTES", long)
    good = encode(kit.scored("good"))
    found, refused = made(good, encode(kit.scored("a", body)), good)
    assert 2 == len(found["requests"])
    (line,) = refused
    assert re.search(why, line), line


def test_what_is_pruned_is_not_stored(kit):
    """The way in for standing erasure orders."""

    def prune(parts):
        if parts.view.caller == "gone":
            return None
        parts.tables.pop("errors", None)
        return parts

    found = rows.rows_of("0" * 32, 1, [encode(kit.scored("a", caller="gone")), encode(kit.scored("b"))], prune)
    (row,) = pa.record_batch(found.batches["requests"][0]).to_pylist()
    assert ("b", 1, None) == (row["request_id"], row["index"], row["errors"])
    assert 1 == found.count


@pytest.mark.parametrize("long", [bodies.LONG_BYTES, 0])
def test_columns_longer_than_a_leaf_holds_are_whole(kit, monkeypatch, long):
    monkeypatch.setattr(bodies, "LONG_BYTES", long)
    monkeypatch.setattr(rows, "_LEAF_VALUES", 10)
    answer = json.loads((GOLDEN / "answer.json").read_bytes())
    answer["results"] = [{**answer["results"][0], "machineID": i} for i in range(2500)]
    count = 25
    telemetry = {
        "datetime": ["2015-01-04T06:00:00Z"] * count,
        "machineID": list(range(count)),
        "volt": [None, *range(count - 1)],
    }
    body = json.dumps({"telemetry": telemetry}).encode()
    row = holds(kit, body, answer=json.dumps(answer).encode())
    assert answered(json.dumps(answer)) == row["results"]
    assert np.arange(2500).tolist() == [result["machineID"] for result in row["results"]]
