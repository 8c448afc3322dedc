"""Serve: ``python -m score [--host 0.0.0.0]``. One worker; a second one needs a LOG_DIR of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys

import uvicorn

from score.app import create_app
from score.settings import Settings, SettingsError

_GRACE_SECONDS = 8  # for requests that have begun when the service is told to stop


def main() -> int:
    """Serve until told to stop. Exit code 2: a setting is wrong; 3: the bundle or the log was refused."""
    parser = argparse.ArgumentParser(prog="python -m score", description="Serve the scoring API; see score/README.md")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    host = parser.parse_args().host
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    # uvicorn stops gently at SIGTERM and then raises it again: that is no failure, so it must not look like one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings),
        host=host,
        port=settings.port,
        loop="auto",
        http="httptools",
        lifespan="on",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
