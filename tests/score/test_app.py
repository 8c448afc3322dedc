"""The service over real sockets: its answers, its refusals, and that no answer is sent before its record is durable."""

import errno
import json
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jsonschema
import pytest

from closedloop.log import record, segment
from closedloop.log.spool import read
from score import score
from score.endpoints import LOGGED_POSTS, PATHS

GOLDEN = Path(__file__).parents[1] / "golden"
BODY = (GOLDEN / "request.json").read_bytes()
JSON = {"Content-Type": "application/json"}
LIMIT = 1 << 20  # of the shared server, see conftest


@pytest.fixture(scope="session")
def client(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture
def ask(serve):
    """Start a server with the given settings; return a client of it."""
    clients = []

    def start(**settings):
        server = serve(**settings)
        clients.append(httpx.Client(base_url=server.url))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def problem(answer, status):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def stored(folder):
    found = [record.decode(entry.payload) for entry in read(folder, pytest.fail)]
    return [kept for kept in found if kept.kind != record.REJECT]


def figure(client, name):
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE) or ["0"]
    return float(value)


def raw(server, data, *, until=b"\r\n\r\n"):
    """Send raw bytes; return what came back up to ``until``."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        while until not in received and (part := connection.recv(65536)):
            received += part
        return received


def test_an_answer_is_logged_as_it_went_over_the_wire(ask, tmp_path):
    client = ask()
    before = time.time_ns() // 1000
    answer = client.post("/score", content=BODY, headers={**JSON, "X-Request-ID": "4f2c-1"})
    (kept,) = stored(tmp_path / "log")
    assert (kept.request, kept.answer, kept.request_id) == (BODY, answer.content, "4f2c-1")
    assert (kept.kind, kept.status, kept.caller) == ("score", 200, "anonymous")
    assert kept.model == answer.json()["model"] == score.scorer.manifest.model_digest
    assert before <= kept.received_us <= kept.answered_us <= time.time_ns() // 1000


def test_no_answer_is_sent_before_its_record_is_synced(ask, tmp_path, monkeypatch):
    client = ask()
    synced, real = [], segment.sync_records

    def slow(descriptor):
        time.sleep(0.05)
        real(descriptor)
        synced.append(len(stored(tmp_path / "log")))

    monkeypatch.setattr(segment, "sync_records", slow)
    assert client.post("/score", content=BODY, headers=JSON).status_code == 200
    assert synced == [1]


def test_what_is_refused_is_counted_and_no_record_of_an_answer(ask, tmp_path):
    client = ask()
    problem(client.post("/score", content=b"{}", headers=JSON), 422)
    problem(client.post("/score", content=b"{", headers=JSON), 400)
    assert stored(tmp_path / "log") == []
    assert figure(client, 'closedloop_requests_total{route="/score",status="422"}') == 1
    assert figure(client, 'closedloop_requests_total{route="/score",status="400"}') == 1
    assert figure(client, "closedloop_log_records_total") == 0


def test_a_disk_that_refuses_means_503_not_ready_and_alive_until_it_works_again(ask, tmp_path, monkeypatch):
    client = ask()
    assert client.get("/readyz").text == "ready\n"

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segment, "sync_records", refuse)
    monkeypatch.setattr(segment, "reserve", refuse)
    for _ in range(2):
        answer = client.post("/score", content=BODY, headers=JSON)
        assert "No space left" in problem(answer, 503)["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert "No space left" in problem(client.get("/readyz"), 503)["detail"]
    assert client.get("/livez").status_code == 200
    monkeypatch.undo()
    deadline = time.monotonic() + 5
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.post("/score", content=BODY, headers=JSON).status_code == 200
    assert len(stored(tmp_path / "log")) == 1


def test_more_than_the_disk_can_take_is_shed(ask, monkeypatch):
    client = ask()
    monkeypatch.setattr("closedloop.log.spool.Spool.append", _full)
    answer = client.post("/score", content=BODY, headers=JSON)
    assert "the request log is full" in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "1"


def _full(*_):
    from closedloop.log.spool import SpoolFull

    raise SpoolFull("full")


def test_what_nobody_foresaw_is_a_problem_too_and_shows_nothing(ask, monkeypatch, caplog):
    client = ask()
    monkeypatch.setattr(score.scorer.decode, "read", lambda _: 1 / 0)
    body = problem(client.post("/score", content=BODY, headers=JSON), 500)
    assert "ZeroDivisionError" not in json.dumps(body)
    assert f"request {body['request_id']} failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert figure(client, 'closedloop_requests_total{route="/score",status="500"}') == 1


def test_a_large_request_goes_to_a_thread_and_gets_the_same_answer(ask, monkeypatch):
    client = ask()
    small = client.post("/score", content=BODY, headers=JSON).json()["results"]
    monkeypatch.setattr("score.service._THREAD_BYTES", 10)
    assert small == client.post("/score", content=BODY, headers=JSON).json()["results"]


def test_clients_at_once_each_get_their_own_answer(ask, tmp_path):
    client = ask()

    def one(machine):
        body = BODY.replace(b'"machineID": [1, 1]', b'"machineID": [%d, %d]' % (machine, machine))
        return client.post("/score", content=body, headers=JSON).json()["results"][0]["machineID"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(200))) == list(range(200))
    assert len({kept.request_id for kept in stored(tmp_path / "log")}) == 200


@pytest.mark.parametrize("request_id", ["4f2c", "a" * 128, "A.b_c:d-9"])
def test_a_request_id_comes_back(client, request_id):
    assert client.get("/livez", headers={"X-Request-ID": request_id}).headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a" * 129, "two words", "<script>", "{}\\"])
def test_a_strange_request_id_is_replaced(client, request_id):
    answer = client.get("/livez", headers={"X-Request-ID": request_id})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_without_an_id_gets_its_own(client):
    assert client.get("/livez").headers["x-request-id"] != client.get("/livez").headers["x-request-id"]


@pytest.mark.parametrize("declared", [LIMIT + 1, 10**12, 10**40])
def test_a_long_body_is_refused_before_it_is_read(server, declared):
    received = raw(server, b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % declared)
    head = received.lower()
    assert b" 413 " in head or b" 400 " in head  # a length that no parser accepts is not HTTP
    assert b"connection: close" in head


def test_an_endless_body_is_cut_at_the_limit(server):
    def endless():
        yield b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(10_000):
            yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            for part in endless():
                connection.sendall(part)
                sent += len(part)
            pytest.fail("it read everything")
        except OSError:
            pass  # the server closed
    assert sent < 40 * LIMIT  # what was read, and what the kernel's buffers took


def test_a_body_at_the_limit_is_read(client):
    answer = client.post("/score", content=BODY + b" " * (LIMIT - len(BODY)), headers=JSON)
    assert answer.status_code == 200
    body = problem(client.post("/score", content=BODY + b" " * (LIMIT - len(BODY) + 1), headers=JSON), 413)
    assert body["detail"] == f"the body is longer than {LIMIT} bytes: send smaller batches"


def test_who_goes_away_leaves_nothing_behind(server, client, caplog):
    gone = 'closedloop_requests_total{route="/score",status="499"}'
    before, left = figure(client, "closedloop_log_records_total"), figure(client, gone)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert client.post("/score", content=BODY, headers=JSON).status_code == 200
    assert figure(client, "closedloop_log_records_total") == before + 1
    assert figure(client, gone) == left + 1
    assert caplog.records == []


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", "application/vnd.x+json", None]
)
def test_json_is_taken_by_any_of_its_names(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    assert client.post("/score", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/xml"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
def test_what_says_that_it_is_no_plain_json_is_refused(client, headers):
    problem(client.post("/score", content=BODY, headers=headers), 415)


@pytest.mark.parametrize("path", ["/nope", "/score/", "/docs/x", "/%00", "/../../etc/passwd"])
def test_no_such_route_is_a_problem(client, path):
    problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/score"), ("PUT", "/score"), ("POST", "/livez"), ("TRACE", "/docs")]
)
def test_no_such_method_is_a_problem_that_names_the_right_one(client, method, path):
    answer = client.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"] in ("POST", "GET")


def test_version_says_what_is_served(client, tiny_bundle):
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert client.get("/version").json() == {
        "model_digest": manifest["model_digest"],
        "bundle_digest": manifest["bundle_digest"],
        "data": manifest["training"]["fingerprint"],
        "commit": "0" * 40,
        "image": None,
    }


def test_version_states_what_an_instance_without_a_volume_can_lose(ask):
    client = ask(log_ephemeral=True, log_sink="az://requests/fleet", log_max_age_seconds=60)
    told = {"volume": "ephemeral", "sealed_after_seconds": 2, "lost_at_most_seconds": 60}
    assert client.get("/version").json()["log"] == told


def test_a_log_without_a_volume_is_sealed_within_seconds(ask, tmp_path):
    client = ask(log_ephemeral=True)
    assert client.post("/score", content=BODY, headers=JSON).status_code == 200
    deadline = time.monotonic() + 20  # a minute would be too late
    while not list((tmp_path / "log").glob("*.seg")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_the_platform_let_through_is_logged_in_its_name(ask, tmp_path):
    """Its key is in Authorization, and is no token of ours."""
    client = ask(behind_platform=True)
    answer = client.post("/score", content=BODY, headers={**JSON, "Authorization": "Bearer the-endpoint's-key"})
    assert answer.status_code == 200
    assert stored(tmp_path / "log")[0].caller == "platform"
    assert "security" in client.get("/openapi.json").text


def test_the_image_is_named_where_it_is_known(ask, tmp_path):
    client = ask(image="ghcr.io/x@sha256:1")
    assert client.get("/version").json()["image"] == "ghcr.io/x@sha256:1"
    client.post("/score", content=BODY, headers=JSON)
    assert stored(tmp_path / "log")[0].image == "ghcr.io/x@sha256:1"


def test_every_documented_example_works_when_pasted(client):
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        if (operation := operations.get("post")) is None:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        examples = [*content["schema"]["examples"], *(example["value"] for example in content["examples"].values())]
        assert len(examples) > 3
        for example in examples:
            answer = client.post(path, json=example)
            assert answer.status_code == 200, answer.text
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer.json(), schema | {"components": document["components"]})


def test_the_example_route_gives_the_documented_example(client):
    answer = client.get("/example")
    assert answer.headers["content-type"] == "application/json"
    content = client.get("/openapi.json").json()["paths"]["/score"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"]["examples"][0] == answer.json()
    assert client.post("/score", content=answer.content, headers=JSON).status_code == 200


def test_the_documented_answer_is_that_of_the_documented_example(client):
    operation = client.get("/openapi.json").json()["paths"]["/score"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    answer = client.post("/score", json=content["schema"]["examples"][0])
    assert answer.status_code == 200
    (shown,) = operation["responses"]["200"]["content"]["application/json"]["schema"]["examples"]
    assert {**shown, "request_id": ""} == {**answer.json(), "request_id": ""}


def test_every_route_is_documented(client):
    readme = (Path(score.__file__).parent / "README.md").read_text()
    for path in PATHS:
        assert f"`{path}`" in readme.replace("GET ", "").replace("POST ", "")


def test_every_metric_is_documented(client):
    readme = (Path(score.__file__).parent / "README.md").read_text()
    names = set(re.findall(r"^# TYPE (\S+) (?:counter|histogram|gauge)$", client.get("/metrics").text, re.MULTILINE))
    assert len(names) > 10
    for name in names:
        assert name.endswith("_created") or f"`{name}`" in readme


def test_a_restart_goes_on_with_the_log(serve, tmp_path):
    for number in range(2):
        server = serve()
        with httpx.Client(base_url=server.url) as client:
            client.post("/score", content=BODY, headers={**JSON, "X-Request-ID": str(number)})
        server.stop()
    assert [kept.request_id for kept in stored(tmp_path / "log")] == ["0", "1"]


def test_every_answer_forbids_guessing_its_type_and_every_page_forbids_frames(server):
    """One header on all routes, refused ones too; the HTML pages cannot be framed."""
    with httpx.Client(base_url=server.url) as client:
        answers = [client.get(path) for path in sorted(PATHS - LOGGED_POSTS.keys())]
        answers += [client.get("/nowhere"), client.delete("/livez"), client.post("/score", content=b"x")]
        answers += [client.post("/score", content=BODY, headers={"Content-Type": "application/json"})]
    assert {200, 400, 404, 405} <= {answer.status_code for answer in answers}
    for answer in answers:
        assert ["nosniff"] == answer.headers.get_list("x-content-type-options"), answer.url
        if answer.headers["content-type"].startswith("text/html"):
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], answer.url
