"""What each peer's handler calls. ``BENCH_COLUMN`` chooses: A, pandas and scikit-learn, or B, our own answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMN = os.environ["BENCH_COLUMN"]


def of_tables() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Column A: a function from the parsed tables of a request to its answer."""
    import joblib
    import window

    model = joblib.load(Path(os.environ["BENCH_MODEL"]))
    return lambda tables: window.answer(model, tables)


def of_body() -> Callable[[bytes | str], dict[str, Any]]:
    """Column B: a function from the raw body of a request to its answer."""
    from closedloop.heads.bundle import load
    from score.answer import Scorer

    scorer = Scorer(load(Path(os.environ["MODEL_DIR"])), 200_000)
    return lambda body: scorer.answer(body, "bench")
