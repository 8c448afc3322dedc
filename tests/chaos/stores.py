"""Object stores on this machine, and a proxy in front of them that makes faults: for shipper and data pin."""

import base64
import hashlib
import hmac
import http.client
import http.server
import itertools
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

# Azurite's own key, the same everywhere and written in its manual; .gitleaks.toml knows it.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ACCOUNT = "devstoreaccount1"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, process.args
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def running(command, port, folder):
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        yield process
    finally:
        process.kill()
        process.wait()


def azurite(folder):
    """The command of Azurite, installed into the folder if it is not on PATH; None where that is not possible."""
    found = shutil.which("azurite-blob")
    if found is None and shutil.which("npm"):
        words = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), "azurite@3.37.0"]
        with suppress(subprocess.SubprocessError):
            subprocess.run(words, check=True, capture_output=True, timeout=300)
            found = str(folder / "node_modules" / ".bin" / "azurite-blob")
    return found


def moto(folder, uv):
    """The command of moto's server, in an environment of its own; None where that cannot be made."""
    found = shutil.which("moto_server")
    if found is None:
        with suppress(subprocess.SubprocessError, FileNotFoundError):
            for words in (
                ["venv", str(folder / "moto")],
                ["pip", "install", "--python", str(folder / "moto"), "moto[server]"],
            ):
                subprocess.run([str(uv), *words], check=True, capture_output=True, timeout=300)
            found = str(folder / "moto" / "bin" / "moto_server")
    return found


@contextmanager
def azure(folder):
    """Azurite with a container ``fleet``: its port, or None where it cannot be had."""
    command = azurite(folder)
    if command is None:
        yield None
        return
    port = free_port()
    words = [command, "--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    with running(words, port, folder):
        make_container(port, "fleet")
        yield port


@contextmanager
def s3(folder, uv):
    """moto's S3 with a bucket ``fleet``: its port, or None where it cannot be had."""
    command = moto(folder, uv)
    if command is None:
        yield None
        return
    port = free_port()
    with running([command, "--host", "127.0.0.1", "--port", str(port)], port, folder):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", "/fleet", headers={"Content-Length": "0"})
        assert connection.getresponse().status == 200
        connection.close()
        yield port


def make_container(port, name):
    """Create a container by the REST protocol, whose signature is short enough to write down."""
    date, path = formatdate(usegmt=True), f"/{ACCOUNT}/{name}"
    canonical = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}{path}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical
    signature = base64.b64encode(hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest())
    headers = {
        "x-ms-date": date,
        "x-ms-version": "2021-08-06",
        "Authorization": f"SharedKey {ACCOUNT}:{signature.decode()}",
        "Content-Length": "0",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


def azure_environ(port):
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }


def s3_environ(port):
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "no-such-id",
        "AWS_SECRET_ACCESS_KEY": "no-such-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


class Proxy:
    """A proxy in front of a store. It is a process, since a shipper in ours may hold the interpreter while it waits.

    ``fault`` makes every ``nth`` request fail: ``503`` and ``429`` are sent as the status; ``reset`` closes before the
    request is passed on; ``lost`` passes it on and closes before the answer, so that nobody knows the outcome.
    """

    def __init__(self, target, control):
        self._control, self.port = control, free_port()
        self.fault("none")
        self._process = subprocess.Popen([sys.executable, __file__, str(target), str(self.port), str(control)])
        wait_for(self.port, self._process)

    def fault(self, name, nth=1):
        fresh = self._control.with_suffix(".new")
        fresh.write_text(f"{name} {nth}")
        fresh.replace(self._control)

    def close(self):
        self._process.kill()
        self._process.wait()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    counter = itertools.count(1)

    def handle_error(self, request, client_address):
        """Print nothing when a client goes away."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _pass(self):
        name, nth = CONTROL.read_text().split()
        fault = name if next(self.server.counter) % int(nth) == 0 else None
        body = self._body()
        if fault in ("503", "429"):
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "reset":
            self.close_connection = True
            return
        there = http.client.HTTPConnection("127.0.0.1", TARGET, timeout=60)
        there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "transfer-encoding":
                there.putheader(name, value)
        there.endheaders(body)
        answer = there.getresponse()
        content = answer.read()
        there.close()
        if fault == "lost":
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        head = self.command == "HEAD"
        self.send_header("Content-Length", answer.headers.get("Content-Length", "0") if head else str(len(content)))
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def _body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - the library's names


if __name__ == "__main__":
    TARGET, CONTROL = int(sys.argv[1]), Path(sys.argv[3])
    _Server(("127.0.0.1", int(sys.argv[2])), _Handler).serve_forever()
