"""Serve: ``python -m score [--host 0.0.0.0]``. One worker; a second one needs a LOG_DIR of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from score.settings import Settings, SettingsError


def main() -> int:
    """Serve until told to stop. Exit code 2: a setting is wrong; 3: the bundle, the log or the port was refused."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # as the first process of a container it would not hear it
    parser = argparse.ArgumentParser(prog="python -m score", description="Serve the scoring API; see score/README.md")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    host = parser.parse_args().host
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    from score.server import serve  # takes a second or two, in which a signal should be heard

    return serve(settings, host)


if __name__ == "__main__":
    sys.exit(main())
