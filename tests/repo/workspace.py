"""A workspace of Databricks on this machine: it answers what .ci/pipeline/databricks.py asks, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

RUN, JOB, COMMIT = 77, 5, "c0ffee"
WORK = "/Volumes/main/closedloop/work"
FILES = {
    "bundle/manifest.json": b'{"model_digest": "m"}',
    "bundle/heads/a.safetensors": b"\0\1",
    "data.lock.json": b"{}",
}


def handed(**changes: Any) -> dict[str, Any]:
    """The content of handed.json, as the task writes it."""
    files = {name: {"bytes": len(all_), "sha256": hashlib.sha256(all_).hexdigest()} for name, all_ in FILES.items()}
    said = {
        "format": 1,
        "commit": COMMIT,
        "run": str(RUN),
        "engine": "spark",
        "model_digest": "m",
        "bundle_digest": "b",
    }
    return {**said, "files": files} | changes


class Fake:
    """What the workspace has, what it was asked, and how it fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.bodies: dict[str, Any] = {}
        self.states = ["QUEUED", "RUNNING", "TERMINATED"]
        self.details = {"code": "SUCCESS", "type": "SUCCESS", "message": ""}
        self.jobs = [{"job_id": JOB, "settings": {"name": "closedloop-train"}}]
        self.handed = handed()
        self.files = dict(FILES)
        self.failing: dict[str, list[int]] = {}  # a part of an address: the statuses of its next answers; 0 hangs up
        self.started: set[str] = set()
        self.address = ""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """The status and the content of one answer."""
        self.asked.append((method, path))
        self.bodies[path] = body
        for part, statuses in self.failing.items():
            if part in path and statuses and (status := statuses.pop(0)) != 200:
                return status, b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "try again"}'
        said: Any
        match path.rpartition("/")[2]:
            case "github":
                said = {"value": f"who-i-am-for-{query['audience']}"}
            case "token":
                said = {"access_token": "the-token", "token_type": "Bearer", "expires_in": 3600}
            case "list":
                said = {"jobs": [one for one in self.jobs if one["settings"]["name"] == query["name"]]}
            case "run-now":
                self.started.add(json.loads(body)["idempotency_token"])
                said = {"run_id": RUN, "number_in_job": RUN}
            case "get":
                said = self.run(self.states.pop(0) if len(self.states) > 1 else self.states[0])
            case "cancel":
                said = {}
            case "handed.json":
                said = self.handed
            case _:
                name = unquote(path).partition(f"{WORK}/handed/{RUN}/")[2]
                return (200, self.files[name]) if name in self.files else (404, b'{"error_code": "NOT_FOUND"}')
        return 200, json.dumps(said).encode()

    def run(self, state: str) -> dict[str, Any]:
        """What is said of the run."""
        status: dict[str, Any] = {"state": state}
        if state == "TERMINATED":
            status["termination_details"] = self.details
        parameters = [{"name": "commit", "value": COMMIT}, {"name": "work", "default": WORK}]
        page = f"{self.address}/?o=1#job/{JOB}/run/{RUN}"
        return {"run_id": RUN, "job_id": JOB, "status": status, "job_parameters": parameters, "run_page_url": page}


@contextmanager
def workspace() -> Iterator[Fake]:
    """A workspace on loopback, which also plays GitHub's part."""
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            found = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: value[0] for key, value in parse_qs(found.query).items()}
            status, content = fake.answer(self.command, found.path, query, body)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
