"""The service around the tiny bundle, on a port of its own."""

import importlib.util
import json
import threading
import time
from pathlib import Path

import pytest

from score.server import Server
from score.settings import Settings

MAX_BODY_BYTES = 1 << 20

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


@pytest.fixture(scope="session")
def environ(tiny_bundle):
    """MODEL_DIR, for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DIR", str(tiny_bundle))
        patch.delenv("MAX_ROWS", raising=False)
        yield


class ServerThread:
    """The app under uvicorn in a thread, as ``python -m score`` runs it."""

    def __init__(self, settings, supervisor=None):
        self.log_dir = settings.log_dir
        self._server = Server(settings, supervisor=supervisor)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def serve(environ, tmp_path):
    """Start servers; they are stopped when the test ends."""
    running = []

    def start(supervisor=None, **settings):
        running.append(ServerThread(Settings(**{"log_dir": tmp_path / "log", "port": 0, **settings}), supervisor))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def server(environ, tmp_path_factory):
    """One open server for all tests that leave it as it was."""
    running = ServerThread(Settings(log_dir=tmp_path_factory.mktemp("log"), port=0, max_body_bytes=MAX_BODY_BYTES))
    yield running
    running.stop()


@pytest.fixture
def tokens(tmp_path):
    """A file of tokens, and the one that may do everything."""
    path, token = tmp_path / "tokens.json", "t" * 20
    path.write_text(json.dumps({"press-shop": {"token": token, "scopes": ["score", "feedback"]}}))
    return path, token


@pytest.fixture
def look(tmp_path):
    """Open a page in a browser of its own."""
    path = browser.find()
    if path is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.NAMES)})")
    opened = []

    def start(url, **how):
        opened.append(browser.Browser(path, tmp_path / f"profile-{len(opened)}", **how))
        opened[-1].open(url)
        return opened[-1]

    yield start
    for one in opened:
        one.close()
