"""The service answers whatever is sent: a valid request with an answer of its schema, anything else with a problem.

The examples are drawn from the schema that the service itself publishes (see strategies.py), or made from the tables of
that schema one fault at a time.
"""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closedloop.data.request import openapi
from closedloop.heads.bundle import load

SPEC = spec_from_file_location("strategies", Path(__file__).with_name("strategies.py"))
strategies = module_from_spec(SPEC)
SPEC.loader.exec_module(strategies)

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
REFUSED = (400, 413, 422)


@pytest.fixture(scope="session")
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def operation(client):
    document = client.get("/openapi.json").json()
    return strategies.inlined(document["paths"]["/score"]["post"], document)


@pytest.fixture(scope="session")
def request_schema(operation):
    return operation["requestBody"]["content"]["application/json"]["schema"]


@pytest.fixture(scope="session")
def fits(operation, request_schema):
    """Whether a value fits what the document says of an answer (True) or a request (False)."""
    answers = jsonschema.Draft202012Validator(operation["responses"]["200"]["content"]["application/json"]["schema"])
    requests = jsonschema.Draft202012Validator(request_schema)
    return lambda value, answer: [error.message for error in (answers if answer else requests).iter_errors(value)]


def ask(client, body):
    return client.post("/score", content=body, headers={"Content-Type": "application/json"})


def refused(answer, *status):
    assert answer.status_code in (status or REFUSED), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, answer.headers["x-request-id"]) == (body["status"], body["request_id"])
    assert body["detail"]
    return body


def test_any_valid_request_gets_an_answer_of_the_schema(client, request_schema, fits):
    @MANY
    @given(st.data())
    def asked(data):
        body = data.draw(strategies.valid_requests(request_schema))
        assert [] == fits(body, False)
        answer = ask(client, json.dumps(body).encode())
        assert answer.status_code == 200, answer.text
        assert [] == fits(answer.json(), True)
        assert sorted(set(body["telemetry"]["machineID"])) == [one["machineID"] for one in answer.json()["results"]]

    asked()


def test_a_mutated_request_is_refused_or_was_still_valid(client, request_schema, fits):
    """An answered request fits the schema as it was sent: no value is converted."""

    @MANY
    @given(st.data())
    def asked(data):
        body = data.draw(strategies.mutated_requests(request_schema))
        answer = ask(client, body)
        if answer.status_code == 200:
            assert [] == fits(json.loads(body), False)
            assert [] == fits(answer.json(), True)
        else:
            refused(answer)

    asked()


# --- the schema of the data, one fault at a time (fault 22) -----------------------------------------------------------

WRONG = {
    "number": ["1", True, [], {}, "null"],
    "integer": ["one", True, 1.0, 1.5, None, [], 2**63],
    "string": [0, 1.5, True, None, [], {}, "no such name", ""],
}


@pytest.fixture(scope="session")
def faults(tiny_bundle):
    """(what is wrong, the request) for every table and column of the schema."""
    schema = openapi(load(tiny_bundle).schema)
    example = json.dumps(schema["examples"][0])

    def changed(change):
        body = json.loads(example)
        change(body)
        return body

    made = []
    for name, table in schema["properties"].items():
        made += [
            (f"{name} as {value!r}", changed(lambda body, name=name, value=value: body.update({name: value})))
            for value in (None, [], 1, "rows", True)
        ]
        made.append((f"{name} with one column more", changed(lambda body, name=name: body[name].update(extra=[1]))))
        for column, about in table["properties"].items():
            kind = about["items"]["type"]
            kind, *null = kind if isinstance(kind, list) else [kind]
            allowed = [None] if null else []
            values = [value for value in [*WRONG[kind], *([None] if column == "age" else [])] if value not in allowed]

            def put(body, value, name=name, column=column):
                body[name][column] = [value] * len(body[name]["machineID"])

            made += [
                (f"{name}.{column} all {value!r}", changed(lambda body, value=value, put=put: put(body, value)))
                for value in values
            ]

            def without(body, name=name, column=column):
                del body[name][column]

            def longer(body, name=name, column=column):
                column_ = body[name].setdefault(column, [None] * len(body[name]["machineID"]))
                column_.append(column_[0])

            if column in table["required"]:
                made.append((f"{name} without {column}", changed(without)))
            made.append((f"{name}.{column} longer than the others", changed(longer)))
    made.append(("an empty batch", changed(lambda body: body.update(telemetry={k: [] for k in body["telemetry"]}))))
    made.append(("one table more", changed(lambda body: body.update(extra={}))))
    return made


def test_every_fault_of_every_column_is_422_and_pointed_to(client, faults):
    assert len(faults) > 100
    for what, body in faults:
        answer = ask(client, json.dumps(body).encode())
        assert answer.status_code == 422, f"{what}: {answer.text}"
        assert refused(answer)["errors"], what


def test_all_readings_missing_is_a_request_and_says_so(client, request_schema):
    body = request_schema["examples"][0]
    sensors = [name for name in body["telemetry"] if name not in ("datetime", "machineID")]
    nothing = {**body, "telemetry": {**body["telemetry"], **{name: [None, None] for name in sensors}}}
    (result,) = ask(client, json.dumps(nothing)).json()["results"]
    assert all(any(f"2 of 2 readings of {name} are missing" in line for line in result["warnings"]) for name in sensors)


@pytest.mark.parametrize(("limit", "status"), [(1 << 20, 413), (1 << 30, 422)])
def test_a_batch_of_a_million_rows_is_refused_by_its_bytes_or_by_its_rows(limit, status, serve, request_schema):
    server = serve(max_body_bytes=limit)
    columns = request_schema["properties"]["telemetry"]["properties"]
    cells = {"datetime": '"2015-01-04T06:00:00Z"', "machineID": "1"}
    telemetry = ",".join(f'"{name}":[{",".join([cells.get(name, "1")] * 10**6)}]' for name in columns)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        assert refused(ask(client, f'{{"telemetry":{{{telemetry}}}}}'.encode()), status)
        assert client.get("/livez").status_code == 200


# --- invalid JSON, and numbers at the limits --------------------------------------------------------------------------

NUMBERS = {
    True: ["0", "-0", "-0.0", "1", "1E22", "1e-2", "0.1e+3", "123.456", "20e1", "0e+1", "1.7976931348623157e308",
           "5e-324"],
    False: [
        "-01", "01", "+1", "1.", "-.5", ".5", "1e", "1e+", "0x1", "1_000", "NaN", "-NaN", "Infinity", "-Infinity",
        "1e1.5", "--1", "- 1", "-", "\uff11", "1 2", "0e", "'1'", "TRUE", "nul", "1e999", "-1e999", "1f", "1L",
        "{}", '"1"', "",
    ],
}  # fmt: skip
DOCUMENTS = [
    b"", b" ", b"\x00", b"[", b"]", b"{", b"}", b'"', b"[1,]", b"[,1]", b"[1 2]", b"[1,,2]", b'{"a":1,}', b"{a:1}",
    b'{"a" 1}', b'{"a":}', b'{:1}', b"{'a':1}", b'{"a":1 "b":2}', b'{"a":1}}', b'{"a":1}#', b'{"a":1}/**/', b"[1]x",
    b"nul", b"NULL", b"truE", b'["\\x"]', b'["\\u12"]', b'["\\u00G0"]', b'["\\"]', b'["\\ud800"]',
    b'["\\udc00\\ud800"]',
    b'["a\nb"]', b'["a\tb"]', b'["\x1f"]', b'["\x7f"]', b'["\xff"]', b'["\xc0\xaf"]', b'["\xed\xa0\x80"]',
    b'["\xf4\x90\x80\x80"]', b'["\xe2\x82"]', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\xfe\xff\x00{\x00}",
    b"\x0b{}", b"\x0c[]", b"\xc2\xa0{}", b"\xe2\x80\xa8{}", b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"":' * 100_000,
    b'{"telemetry":' * 50_000 + b"1" + b"}" * 50_000, b"1" * 500_000, b"-" * 1000, b"1e" + b"9" * 1000,
    b'"' + b"x" * 900_000, b"{" + b",".join(b'"%d":1' % i for i in range(50_000)) + b"}", b'{"a":1,"a":2}',
    b"// c\n{}", b"\x1f\x8b\x08\x00",
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: repr(document[:14]))
def test_a_document_that_is_no_request_is_refused(document, client):
    refused(ask(client, document), 400, 422)


@pytest.mark.parametrize(
    ("valid", "number"), [(valid, number) for valid, numbers in NUMBERS.items() for number in numbers]
)
def test_a_number_is_taken_as_json_has_it_or_refused(valid, number, client, request_schema):
    body = json.dumps(request_schema["examples"][0])
    first = json.dumps(request_schema["examples"][0]["telemetry"]["volt"][0])
    answer = ask(client, body.replace(f'"volt": [{first}', f'"volt": [{number}').encode())
    if valid:
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, 400, 422)
