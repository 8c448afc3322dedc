"""Serve: ``python -m score [--host 0.0.0.0]``. One process is one worker; each needs its own LOG_DIR."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from score.settings import Settings, SettingsError


def main() -> int:
    """Serve until a signal. Exit code 2: a setting is wrong; 3: the bundle, the log or the port was refused."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # as process 1 of a container it would ignore them
    parser = argparse.ArgumentParser(prog="python -m score", description="Serve the scoring API; see score/README.md")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    host = parser.parse_args().host
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    from score.server import serve  # takes a second or two, during which signals must work

    return serve(settings, host)


if __name__ == "__main__":
    sys.exit(main())
