"""An access token of Google Cloud reaches object_store through a process that answers as a metadata server does."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from model.common import google_token, places

PART = {"kind": "files", "location": "gs://fleet/plant", "files": []}
# A bucket with one file, for whoever shows the token. It is a process, since deltalake holds the interpreter.
BUCKET = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization") == "Bearer the-token"
        text = "<Contents><Key>plant/a.csv</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>5</Size>"
        text = f'<?xml version="1.0"?><ListBucketResult>{text}<ETag>"e"</ETag></Contents></ListBucketResult>'
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(text) if known else 0))
        self.end_headers()
        self.wfile.write(text.encode() if known else b"")
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    for name in (google_token.TOKEN, *google_token._OTHERS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def bucket():
    process = subprocess.Popen([sys.executable, "-c", BUCKET], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()
    process.stdout.close()


def names(bucket):
    place = places.sink(PART)
    options = place.options | {"google_base_url": bucket, "allow_http": "true", "max_retries": "0"}
    system = PyFileSystem(DeltaStorageHandler(place.place, options))
    return [info.path for info in system.get_file_info(FileSelector("", recursive=True))]


def test_the_token_is_what_object_store_shows(bucket, monkeypatch):
    monkeypatch.setenv(google_token.TOKEN, "the-token")
    assert ["a.csv"] == names(bucket)


def test_another_token_is_refused(bucket, monkeypatch):
    monkeypatch.setenv(google_token.TOKEN, "another")
    with pytest.raises(OSError, match="403"):
        names(bucket)


def test_the_process_answers_nothing_else(monkeypatch):
    monkeypatch.setenv(google_token.TOKEN, "the-token")
    google_token.serve()
    host = os.environ[google_token.HOST]
    request = urllib.request.Request(f"http://{host}{google_token._PATH}", headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own process
        assert b"the-token" in answer.read()
    for address, headers in ((google_token._PATH, {}), ("/other", {"Metadata-Flavor": "Google"})):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"http://{host}{address}", headers=headers), timeout=10)
        assert 404 == refused.value.code
        refused.value.close()


@pytest.mark.parametrize("other", ["", *google_token._OTHERS])
def test_without_a_token_or_with_another_credential_nothing_starts(monkeypatch, other):
    if other:
        monkeypatch.setenv(google_token.TOKEN, "the-token")
        monkeypatch.setenv(other, "x")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    google_token.serve()


def test_the_process_ends_with_its_parent():
    process = subprocess.Popen(
        [sys.executable, "-m", "model.common.google_token"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("127.0.0.1:")
    process.stdin.close()
    assert 0 == process.wait(10)
    process.stdout.close()
