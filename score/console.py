"""The service's events on stderr: one JSON object on each line; never a body, a token or a header."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("score")


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "event"}`` and the event's own fields.

    Of an exception it writes the type and the traceback's lines. The message is left out, because it may quote what
    was sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a log record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(line)


def say(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with its fields."""
    log.log(level, event, extra={"fields": fields})


def to_stderr() -> None:
    """Write all logging of this process to stderr as JSON; uvicorn's only from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    server = logging.getLogger("uvicorn.error")
    server.setLevel(logging.WARNING)
    # such requests are counted (score/protocol.py): with one line for each, anyone could fill the disk
    server.addFilter(lambda record: "Invalid HTTP request" not in record.msg)
