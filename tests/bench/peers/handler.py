"""What each peer's handler calls, as ``BENCH_COLUMN`` says: A, the pandas way, or B, our own answer without any log."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMN = os.environ["BENCH_COLUMN"]


def of_tables() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Column A: from the parsed tables of a request."""
    import joblib
    import window

    model = joblib.load(Path(os.environ["BENCH_MODEL"]))
    return lambda tables: window.answer(model, tables)


def of_body() -> Callable[[bytes | str], dict[str, Any]]:
    """Column B: from the body of a request, as it came."""
    from closedloop.heads.bundle import load
    from score.answer import Scorer

    scorer = Scorer(load(Path(os.environ["MODEL_DIR"])), 200_000)
    return lambda body: scorer.answer(body, "bench")
