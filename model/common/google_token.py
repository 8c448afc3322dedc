"""Let object_store use an access token of Google Cloud, as ``make login-gcp`` gets one in a workflow.

object_store reads service accounts and the metadata server of a virtual machine, and no token. So a process of its own
answers as that server does, on this machine. It is a process, since deltalake holds the interpreter while it waits.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

TOKEN, HOST = "GOOGLE_ACCESS_TOKEN", "GCE_METADATA_HOST"
_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_SECONDS = 3600  # the life of such a token
_OTHERS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", HOST)


def serve() -> None:
    """Start the process, once, where there is a token and no other credential."""
    if not os.environ.get(TOKEN) or any(os.environ.get(name) for name in _OTHERS):
        return
    words = [sys.executable, "-m", __name__]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    os.environ[HOST] = process.stdout.readline().strip()


def _end_with_parent() -> None:
    """Exit when the parent process has gone, however it ended: then its end of our standard input is closed."""
    sys.stdin.read()
    os._exit(0)


class _Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path.partition("?")[0] == _PATH and self.headers.get("Metadata-Flavor") == "Google"
        token = {"access_token": os.environ.get(TOKEN, ""), "expires_in": _SECONDS, "token_type": "Bearer"}
        content = json.dumps(token).encode() if known else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server = HTTPServer(("127.0.0.1", 0), _Metadata)
    print(f"127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
