"""Web servers that break off, lie or change a file meanwhile: one clear line, and never the bytes of two files."""

from __future__ import annotations

import hashlib
import http.server
import threading
from types import SimpleNamespace

import pytest

from closedloop.data.schema import DataError
from model.common import places

CONTENT = b"".join(b"row %d\n" % n for n in range(5000))
HALF = len(CONTENT) // 2


@pytest.fixture
def server(monkeypatch):
    """A server whose answer to each request is ``answers[n](range)``: status, headers and body."""
    monkeypatch.setattr(places, "_PAUSE_SECONDS", 0.01)
    state = SimpleNamespace(answers=[], seen=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
            status, headers, body = state.answers[min(len(state.seen), len(state.answers)) - 1]
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()


def broken_off(**headers):
    """The first half of the file, with the length of all of it."""
    return 200, {"Content-Length": str(len(CONTENT))} | headers, CONTENT[:HALF]


def part(content=CONTENT, start=HALF, **headers):
    """What a server with ranges sends of the second half."""
    said = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return 206, said | headers, content[start:]


def read(server, folder="plant", name="a.csv"):
    return b"".join(places.Web({"location": f"{server.address}/{folder}"}).blocks(name))


def refused(server, says, **where):
    with pytest.raises(DataError, match=says) as found:
        read(server, **where)
    assert 1 == len(str(found.value).splitlines())


def test_a_file_that_changed_while_it_was_downloaded_is_read_from_its_start_or_refused(server):
    other = CONTENT.replace(b"row 1", b"row 2")
    server.answers = [broken_off(), (200, {}, other)]
    refused(server, "/plant/a.csv: changed while it was downloaded; run it again")


def test_a_broken_transfer_goes_on_where_the_server_vouches_that_the_file_is_the_same(server):
    server.answers = [broken_off(ETag='"v1"'), part(ETag='"v1"')]
    assert CONTENT == read(server)
    assert ("/plant/a.csv", f"bytes={HALF}-", '"v1"') == server.seen[1]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
def test_a_broken_transfer_is_read_again_from_its_start_where_nobody_vouches(server, headers):
    server.answers = [broken_off(**headers), (200, {}, CONTENT)]
    assert hashlib.sha256(CONTENT).digest() == hashlib.sha256(read(server)).digest()
    assert server.seen[1][1:] == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        part(start=0, ETag='"v1"'),
        part(start=HALF + 7, ETag='"v1"'),
        part(ETag='"v1"', **{"Content-Range": "bytes ?"}),
        part(ETag='"v2"'),
    ],
)
def test_another_range_than_was_asked_for_is_refused(server, answer):
    server.answers = [broken_off(ETag='"v1"'), answer]
    refused(server, "/plant/a.csv: cannot be read .*; run it again when the server answers")


@pytest.mark.parametrize("length", ["abc", "-5", "1e3"])
def test_a_length_that_is_none_is_one_clear_line(server, length):
    server.answers = [(200, {"Content-Length": length}, CONTENT)]
    refused(server, f"/plant/a.csv: cannot be read .*Content-Length.*{length}")


def test_content_that_is_packed_unasked_is_refused(server):
    server.answers = [(200, {"Content-Encoding": "gzip"}, CONTENT)]
    refused(server, "/plant/a.csv: cannot be read .*Content-Encoding gzip.*; let the server send the file as it is")


@pytest.mark.parametrize(
    ("target", "says"),
    [("http://[::1/x", "Invalid"), ("ftp://127.0.0.1:1/x", "redirects to ftp://.*, which is not https")],
)
def test_a_redirect_to_what_cannot_be_followed_is_one_clear_line(server, target, says):
    server.answers = [(302, {"Location": target}, b"")]
    refused(server, f"/plant/a.csv: cannot be read .*{says}.*; correct the address")
    assert 1 == len(server.seen)


def test_an_address_with_other_than_latin_letters_is_asked_for_as_any_browser_does(server):
    server.answers = [(200, {}, CONTENT)]
    assert CONTENT == read(server, folder="größe%20 2", name="prüf 50%.csv")
    assert "/gr%C3%B6%C3%9Fe%20%202/pr%C3%BCf%2050%25.csv" == server.seen[0][0]
