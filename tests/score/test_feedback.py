"""POST /feedback over real sockets, and which requests and fields are logged."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from closedloop.data import untouched
from closedloop.heads.bundle import load, write
from closedloop.log import record
from closedloop.log.spool import read
from score import auth
from score.auth import Tokens
from score.log import supervisor
from score.log.journal import in_sample

GOLDEN = Path(__file__).parents[1] / "golden"
CORPUS = sorted((GOLDEN / "feedback").iterdir())
BOTH = (GOLDEN / "feedback" / "200-both.json").read_bytes()
REQUEST = (GOLDEN / "request.json").read_bytes()
JSON = {"Content-Type": "application/json"}


def stored(folder):
    found = [record.decode(entry.payload) for entry in read(folder, pytest.fail)]
    return [kept for kept in found if kept.kind != record.REJECT]


class Idle(supervisor.Supervisor):
    """Never starts its shipper."""

    def begin(self):
        pass


def figures(server):
    text = httpx.get(f"{server.url}/metrics").text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_gets_the_status_it_says(server, path):
    answer = httpx.post(f"{server.url}/feedback", content=path.read_bytes(), headers=JSON)
    assert path.name[:3] == str(answer.status_code)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"]


def test_what_is_acknowledged_is_in_the_log_as_it_came(serve):
    server = serve()
    answer = httpx.post(f"{server.url}/feedback", content=BOTH, headers={**JSON, "X-Request-ID": "4f2c"})
    rows = {"failures": 1, "maint": 2, "retracted": 0, "complete_until": 0}
    assert answer.json() == {"request_id": "4f2c", "stored": rows}
    (kept,) = stored(server.log_dir)
    assert ("feedback", BOTH, answer.content, 200) == (kept.kind, kept.request, kept.answer, kept.status)
    assert figures(server)['closedloop_feedback_rows_total{table="maint"}'] == 2


def test_a_correction_is_stored_as_it_came_and_counted(serve):
    server = serve()
    body = (GOLDEN / "feedback" / "200-everything.json").read_bytes()
    answer = httpx.post(f"{server.url}/feedback", content=body, headers=JSON)
    assert answer.json()["stored"] == {"failures": 1, "maint": 1, "retracted": 1, "complete_until": 1}
    assert [body] == [kept.request for kept in stored(server.log_dir)]
    assert figures(server)['closedloop_feedback_rows_total{table="retracted"}'] == 1


def test_a_mark_in_the_future_is_refused_and_one_of_now_is_not(server):
    def status(seconds):
        at = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
        body = {"complete_until": {"datetime": [at], "machineID": [None]}}
        return httpx.post(f"{server.url}/feedback", json=body).status_code

    assert [200, 422] == [status(0), status(30)]


def test_the_account_is_exact(serve):
    server = serve(log_sample=0.5)
    with httpx.Client(base_url=server.url, headers=JSON) as client:
        for number in range(40):
            client.post("/score", content=REQUEST, headers={"X-Request-ID": f"id-{number}"})
        for body in (b"{}", b"{", REQUEST + b"x"):
            client.post("/score", content=body)
            client.post("/feedback", content=body)
        client.post("/score", content=REQUEST, headers={"Content-Type": "text/plain"})
        for _ in range(5):
            client.post("/feedback", content=BOTH)
        client.get("/score")  # offers nothing
    found = figures(server)
    kept = sum(in_sample(f"id-{number}", 0.5) for number in range(40))
    assert 0 < kept < 40
    assert found["closedloop_log_offered_total"] == 52
    assert found["closedloop_log_records_total"] == kept + 5 == len(stored(server.log_dir))
    assert found["closedloop_log_sampled_out_total"] == 40 - kept
    assert found["closedloop_log_rejected_total"] == 7
    assert {entry.kind for entry in stored(server.log_dir)} == {"score", "feedback"}


def test_state_and_metrics_show_the_same_figures(serve):
    server = serve(log_sample=0.5)
    with httpx.Client(base_url=server.url, headers=JSON) as client:
        for number in range(10):
            client.post("/score", content=REQUEST, headers={"X-Request-ID": f"id-{number}"})
        client.post("/score", content=b"{")
        client.post("/feedback", content=BOTH)
        state = client.get("/state").json()
    found = figures(server)
    names = {name: f"closedloop_log_{name}_total" for name in ("offered", "sampled_out", "rejected")}
    names |= {"stored": "closedloop_log_records_total", "machines_scored": "closedloop_machines_scored_total"}
    names["in_flight"] = "closedloop_requests_in_flight"
    assert {name: found[metric] for name, metric in names.items()} == {name: state[name] for name in names}
    assert (12, 10, 1) == (state["offered"], state["machines_scored"], state["rejected"])
    assert 0 < state["sampled_out"] < 10


def test_the_sample_is_the_fraction_that_was_asked_for_and_grows_with_it():
    ids = [f"request-{number}" for number in range(10_000)]
    some = {one for one in ids if in_sample(one, 0.2)}
    assert 0.18 < len(some) / len(ids) < 0.22
    assert some <= {one for one in ids if in_sample(one, 0.3)}
    assert all(in_sample(one, 1.0) for one in ids)
    assert not any(in_sample(one, 0.0) for one in ids)


def test_only_the_fields_that_are_allowed_are_kept(serve, tokens):
    path, token = tokens
    server = serve(tokens_file=path, image="image-x", log_fields=frozenset({"telemetry", "machines"}))
    headers = {**JSON, "Authorization": f"Bearer {token}"}
    assert httpx.post(f"{server.url}/score", content=REQUEST, headers=headers).status_code == 200
    assert httpx.post(f"{server.url}/feedback", content=BOTH, headers=headers).status_code == 200
    score, feedback = stored(server.log_dir)
    assert (score.caller, score.image, score.answer) == ("", "", b"")
    sent = json.loads(REQUEST)
    assert json.loads(score.request) == {name: sent[name] for name in ("telemetry", "machines")}
    assert feedback.request == BOTH


def test_the_log_has_the_alarms_that_are_not_shown(serve, tiny_bundle, tmp_path, monkeypatch):
    """With loop.untouched_share every machine may be one whose alarms nobody sees."""
    bundle = load(tiny_bundle)
    failures = {name: replace(head, threshold=0.0) for name, head in bundle.failures.items()}
    write(replace(bundle, failures=failures, provenance=bundle.provenance | {untouched.KEY: 1.0}), tmp_path / "bundle")
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "bundle"))
    server = serve()
    (shown,) = httpx.post(f"{server.url}/score", content=REQUEST, headers=JSON).json()["results"]
    (kept,) = stored(server.log_dir)
    (logged,) = json.loads(kept.answer)["results"]
    assert (False, True) == (shown["failure"]["comp1"]["alarm"], logged["failure"]["comp1"]["alarm"])
    assert untouched.WARNING in shown["warnings"]
    assert untouched.WARNING not in logged["warnings"]


def test_feedback_needs_its_own_scope_and_refusals_are_counted(serve, tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"a": {"token": "a" * 16, "scopes": ["score"]}}))
    server = serve(tokens_file=path)
    headers = {**JSON, "Authorization": f"Bearer {'a' * 16}"}
    assert httpx.post(f"{server.url}/feedback", content=BOTH, headers=headers).status_code == 403
    assert httpx.post(f"{server.url}/feedback", content=BOTH, headers=JSON).status_code == 401
    found = figures(server)
    assert found['closedloop_auth_failures_total{reason="scope"}'] == 1
    assert found['closedloop_auth_failures_total{reason="token"}'] == 1


def test_a_changed_tokens_file_holds_within_a_second_and_a_wrong_one_changes_nothing(serve, tokens, caplog):
    path, old = tokens
    server = serve(tokens_file=path)
    new = "n" * 20

    def status(token):
        headers = {**JSON, "Authorization": f"Bearer {token}"}
        return httpx.post(f"{server.url}/feedback", content=BOTH, headers=headers).status_code

    assert (status(old), status(new)) == (200, 401)
    path.write_text('{"half a fi')
    time.sleep(1.1)
    assert (status(old), status(new)) == (200, 401)
    assert figures(server)["closedloop_tokens_stale"] == 1
    assert "the old tokens stay" in caplog.text
    replacement = path.with_suffix(".new")
    replacement.write_text(json.dumps({"b": {"token": new, "scopes": ["feedback"]}}))
    replacement.replace(path)
    time.sleep(1.1)
    assert (status(old), status(new)) == (401, 200)
    assert figures(server)["closedloop_tokens_stale"] == 0
    assert figures(server)["closedloop_tokens_reloads_total"] == 1


def test_a_tokens_file_that_could_not_be_read_for_a_moment_is_read_again(tokens, monkeypatch):
    path, token = tokens
    held = Tokens(path)
    new = "another-token-of-16"
    path.write_text(json.dumps({"b": {"token": new, "scopes": ["score"]}}))
    monkeypatch.setattr(auth, "_CHECK_SECONDS", 0.0)
    with monkeypatch.context() as out_of_descriptors:

        def fail(_):
            raise OSError(24, "Too many open files")

        out_of_descriptors.setattr(Path, "read_bytes", fail)
        assert held.caller(f"Bearer {token}", "score")
        assert held.stale
    assert held.caller(f"Bearer {new}", "score") == "b"
    assert not held.stale


def test_the_last_results_are_shown_to_those_who_may_see_them(serve, tokens):
    path, token = tokens
    server = serve(tokens_file=path)
    bearer = {"Authorization": f"Bearer {token}"}
    httpx.post(f"{server.url}/score", content=REQUEST, headers={**JSON, **bearer})
    assert httpx.get(f"{server.url}/state").json()["recent"] is None
    assert httpx.get(f"{server.url}/state", headers={"Authorization": "Bearer nope"}).status_code == 401
    (shown,) = httpx.get(f"{server.url}/state", headers=bearer).json()["recent"]
    assert (shown["machineID"], shown["datetime"]) == (1, "2015-01-04T06:00:00Z")
    assert set(shown) == {"machineID", "datetime", "anomaly", "component", "probability", "alarm"}


def test_the_model_is_named_in_a_header(server):
    answer = httpx.post(f"{server.url}/score", content=REQUEST, headers=JSON)
    assert answer.headers["x-model-digest"] == answer.json()["model"]


def test_other_origins_may_ask_from_a_browser_only_where_they_are_named(server, serve):
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(f"{server.url}/score", headers=asked).headers
    named = serve(cors_origins=("https://a.example",))
    assert httpx.options(f"{named.url}/score", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
    refused = httpx.post(f"{named.url}/score", content=b"{", headers=JSON | {"Origin": asked["Origin"]})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, asked["Origin"])
    other = httpx.post(f"{named.url}/score", content=REQUEST, headers=JSON | {"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_what_the_shipper_writes_of_itself_is_shown(serve, tmp_path):
    assert supervisor.shipper_report(tmp_path) is None
    server = serve(supervisor=Idle())
    ship = {"pid": 1, "shipped_segments": 3, "shipped_records": 30, "last_shipped_segment": 3, "failures": 2}
    ship |= {"last_error": None, "unsent_segments": 4, "unsent_bytes": 400, "oldest_unsent_us": 0}
    (server.log_dir / "ship.json").write_text(json.dumps(ship))
    found = figures(server)
    assert found["closedloop_log_shipped_records_total"] == 30
    assert found["closedloop_log_unsent_segments"] == 4
    assert found["closedloop_log_oldest_unsent_seconds"] > 1e9
    assert found["closedloop_log_shipper_running"] == 0
    readme = (Path(__file__).parents[2] / "score" / "README.md").read_text()
    for name in found:
        bare = name.partition("{")[0].removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        assert bare.endswith("_created") or f"`{bare}`" in readme, bare
