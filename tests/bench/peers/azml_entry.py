"""azmlinfsrv, column A. Column B is score/score.py itself."""

import json
from typing import Any

import handler

answer: Any


def init() -> None:
    """Load the model once."""
    global answer
    answer = handler.of_tables()


def run(raw_data: str) -> dict[str, Any]:
    """Answer in pandas."""
    return answer(json.loads(raw_data))
