"""What was refused is kept in the log, a bounded sample of it, and the account of all requests stays exact."""

import asyncio
import hashlib
import json
import os
import random
import socket
import time
from pathlib import Path

import httpx
import pytest

from closedloop.log import record
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from closedloop.log.spool import Spool, SpoolError, read
from score.log import rejects
from score.log.journal import Journal
from score.problems import Problem
from score.settings import LOG_FIELDS, Settings

GOLDEN = Path(__file__).parents[1] / "golden"
BOTH = (GOLDEN / "feedback" / "200-both.json").read_bytes()
REQUEST = (GOLDEN / "request.json").read_bytes()
UNKNOWN = REQUEST.replace(b'"error1"', b'"error99"')
JSON = {"Content-Type": "application/json"}
DRY = {"Closed-Loop-Dry-Run": "1"}


def stored(folder):
    return [record.decode(entry.payload) for entry in read(folder, pytest.fail)]


def figures(server):
    text = httpx.get(f"{server.url}/metrics").text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def count(server, result, number):
    """Wait until so many rejects had this result: they are written after their answers."""
    deadline = time.monotonic() + 30
    while (found := figures(server)[f'closedloop_log_rejects_total{{result="{result}"}}']) != number:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def post(server, path, body, headers=None, request_id="4f2c"):
    sent = {**JSON, "X-Request-ID": request_id, **(headers or {})}
    return httpx.post(f"{server.url}{path}", content=body, headers=sent, timeout=60)


def test_what_was_refused_is_in_the_table_with_the_reason(serve, tokens, tmp_path):
    path, token = tokens
    server = serve(tokens_file=path, image="image-x")
    bearer = {"Authorization": f"Bearer {token}"}
    assert post(server, "/score", UNKNOWN, bearer, "a").status_code == 422
    assert post(server, "/feedback", b'{"\xff', bearer, "b").status_code == 400
    assert post(server, "/score", REQUEST, request_id="c").status_code == 401
    count(server, "stored", 3)
    server.stop()
    shipper = Shipper(server.log_dir, Sink.at(str(tmp_path / "sink"), os.environ), pytest.fail)
    assert shipper.round()
    shipper.close()
    opened = Sink.at(str(tmp_path / "sink"), os.environ).open("rejects")
    rows = {row["request_id"]: row for row in opened.to_pyarrow_table().to_pylist()}
    assert [("a", "press-shop", "/score", 422), ("b", "press-shop", "/feedback", 400), ("c", "", "/score", 401)] == [
        (name, row["caller"], row["route"], row["status"]) for name, row in sorted(rows.items())
    ]
    assert rows["a"]["detail"].startswith("/errors/errorID/0: unknown name 'error99'")
    assert (rows["a"]["title"], rows["a"]["image"]) == ("Unprocessable Content", "image-x")
    assert rows["a"]["body_sha256"] == hashlib.sha256(UNKNOWN).hexdigest()
    assert (rows["a"]["body_bytes"], rows["a"]["body"]) == (len(UNKNOWN), UNKNOWN[:512].decode())
    assert rows["b"]["body"] == '{"\\xff'
    assert (rows["c"]["body_bytes"], rows["c"]["body"], rows["c"]["body_sha256"]) == (0, "", "")
    assert rows["a"]["received"] <= rows["a"]["answered"]


def test_only_the_fields_that_are_allowed_are_kept_of_a_refusal(serve, tokens):
    path, token = tokens
    server = serve(tokens_file=path, image="image-x", log_fields=frozenset(LOG_FIELDS) - {"maint", "caller", "image"})
    bearer = {"Authorization": f"Bearer {token}"}
    post(server, "/score", UNKNOWN, bearer)
    post(server, "/score", UNKNOWN, {**bearer, "Content-Type": "text/plain"})
    count(server, "stored", 2)
    faulty, plain = stored(server.log_dir)
    assert (faulty.request, faulty.caller, faulty.image) == (b"", "", "")
    assert json.loads(faulty.answer)["detail"] == ""
    assert "error99" not in str(faulty)
    assert json.loads(plain.answer)["detail"] == "Content-Type 'text/plain': send application/json"


def test_off_is_off(serve):
    server = serve(log_rejects=False)
    assert post(server, "/score", b"{").status_code == 400
    assert figures(server)["closedloop_log_rejected_total"] == 1
    assert stored(server.log_dir) == []
    assert {0} == {figures(server)[f'closedloop_log_rejects_total{{result="{one}"}}'] for one in ("stored", "left_out")}


def test_a_flood_of_one_status_is_sampled_and_hides_no_other(serve, monkeypatch):
    monkeypatch.setattr(rejects, "_PER_SECOND", 5.0)
    monkeypatch.setattr(rejects._Allowance, "grow", lambda self: self.left)  # time stands still
    server = serve()
    for _ in range(20):
        assert post(server, "/score", b"{").status_code == 400
    assert post(server, "/score", b"{}").status_code == 422
    count(server, "stored", 6)
    count(server, "left_out", 15)
    assert figures(server)["closedloop_log_rejected_total"] == 21


def test_a_refusal_that_cannot_be_kept_is_answered_all_the_same(serve, monkeypatch):
    server = serve()
    real = Spool.append

    def refuse(self, payload, **other):
        if record.decode(payload).kind == "reject":
            raise SpoolError("the disk refused the log")
        return real(self, payload, **other)

    monkeypatch.setattr(Spool, "append", refuse)
    assert post(server, "/score", b"{").status_code == 400
    count(server, "failed", 1)
    assert post(server, "/score", REQUEST).status_code == 200
    assert figures(server)["closedloop_log_records_total"] == 1


def test_rejects_give_way_while_the_log_waits_for_the_shipper(tmp_path):
    spool = Spool(tmp_path / "log", limit_bytes=1000)
    try:
        journal = Journal(spool, Settings(tmp_path / "log", log_max_bytes=1000))
        assert journal.rejects.admit(400)
        spool.backlog.bytes = 501
        assert not journal.rejects.admit(400)
        assert (0, 1) == (journal.rejects.stored, journal.rejects.left_out)
    finally:
        spool.close()


def test_a_reject_never_counts_as_an_answer_not_even_for_a_moment(tmp_path, monkeypatch):
    """A counter that goes down is a restart to Prometheus. Nobody is woken here: it is as just after the write."""
    spool = Spool(tmp_path / "log")
    monkeypatch.setattr(spool, "_answer", lambda batch, error: None)
    journal = Journal(spool, Settings(tmp_path / "log"))

    async def keep():
        problem, about = Problem(400, "not JSON"), record.Reject("/score", "Bad Request", "not JSON", 1, "00")
        journal.rejects.keep(problem, about, {"request_id": "a", "body": b"{"}, "sha256:00")

    asyncio.run(keep())
    spool.close()
    assert (1, 0, 1) == (spool.counts.commits, journal.stored, journal.rejects.stored)


def test_all_rejects_together_stay_within_their_bytes(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "log")
    try:
        monkeypatch.setattr(rejects, "_PER_SECOND", 1e9)
        monkeypatch.setattr(rejects._Allowance, "grow", lambda self: self.left)
        kept = Journal(spool, Settings(tmp_path / "log")).rejects
        admitted = 0
        monkeypatch.setattr(spool, "append", lambda payload, **_: _Done())
        while kept.admit(400):
            admitted += 1
            about = record.Reject("/score", "Bad Request", "x" * 2000, 5, "0" * 64)
            kept.keep(Problem(400, "x" * 2000), about, {"request_id": "a", "body": b"y" * 600}, "sha256:0")
        assert 100 < admitted < 256 * 1024 / 1500
    finally:
        spool.close()


class _Done:
    def add_done_callback(self, settle):
        pass


def test_a_dry_run_is_answered_and_leaves_nothing(serve):
    server = serve()
    answer = post(server, "/score", REQUEST, DRY)
    assert (200, "1") == (answer.status_code, answer.headers["closed-loop-dry-run"])
    assert answer.json()["results"] == post(server, "/score", REQUEST).json()["results"]
    fed = post(server, "/feedback", BOTH, DRY)
    assert (200, "1") == (fed.status_code, fed.headers["closed-loop-dry-run"])
    assert {0} == set(fed.json()["stored"].values())
    assert post(server, "/score", b"{", DRY).status_code == 400  # no reject either
    for body, headers in ((REQUEST, {"Closed-Loop-Dry-Run": "true"}), (REQUEST, {"Closed-Loop-Dry-Run": ""})):
        refused = post(server, "/score", body, headers)
        assert (400, True) == (refused.status_code, "send 1, or leave" in refused.json()["detail"])
    count(server, "stored", 2)  # another value is no dry run, and what a client sends wrong
    assert ["reject", "reject", "score"] == sorted(kept.kind for kept in stored(server.log_dir))
    state = httpx.get(f"{server.url}/state").json()
    assert (2, 3, 1) == (state["dry_run"], state["rejected"], len(state["recent"]))
    assert 2 == state["machines_scored"]
    assert figures(server).get('closedloop_feedback_rows_total{table="maint"}', 0) == 0


def test_white_space_around_the_value_of_the_header_does_not_count(serve):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = "POST /score HTTP/1.1\r\nHost: a\r\nConnection: close\r\nClosed-Loop-Dry-Run: \t1 \t\r\n"
        connection.sendall(f"{head}Content-Length: {len(REQUEST)}\r\n\r\n".encode() + REQUEST)
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert [] == stored(server.log_dir)


@pytest.mark.parametrize("seed", range(2))
def test_the_account_is_exact_whatever_is_sent(serve, seed):
    """offered = stored + sampled out + dry runs + rejected, with a random mix of all of them."""
    rng = random.Random(seed)  # noqa: S311
    server = serve(log_sample=0.5)
    expected = dict.fromkeys(("dry_run", "rejected"), 0)
    for number in range(60):
        path, body = rng.choice([("/score", REQUEST), ("/feedback", BOTH), ("/score", UNKNOWN), ("/feedback", b"{")])
        headers = rng.choice([{}, {}, DRY, {"Closed-Loop-Dry-Run": "0"}, {"Content-Type": "text/plain"}])
        answer = post(server, path, body, headers, f"id-{seed}-{number}")
        if answer.status_code != 200:
            expected["rejected"] += 1
        elif headers:
            expected["dry_run"] += 1
    found = figures(server)
    count(server, "stored", sum(kept.kind == "reject" for kept in stored(server.log_dir)))
    found = figures(server)
    of = {name: found[f"closedloop_log_{name}_total"] for name in ("offered", "sampled_out", "dry_run", "rejected")}
    records = found["closedloop_log_records_total"]
    assert expected == {name: of[name] for name in expected}
    assert min(of.values()) > 0
    assert 60 == of["offered"] == records + of["sampled_out"] + of["dry_run"] + of["rejected"]
    assert records == sum(kept.kind != "reject" for kept in stored(server.log_dir))
    state = httpx.get(f"{server.url}/state").json()
    assert {**of, "records": records} == {**{name: state[name] for name in of}, "records": state["stored"]}
