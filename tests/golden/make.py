"""Write the golden files of training and judging: ``PYTHONPATH=tests/support python tests/golden/make.py``.

Only a change of format may change them, in the same commit. Everything comes from the simulator and a seed. The answers
are the true labels with noise, not those of a model, so that they do not depend on the version of a library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import simulate
from closedloop.judge.checks import Candidate
from closedloop.judge.gate import decide
from closedloop.judge.labels import labels
from closedloop.judge.metrics import judge
from closedloop.judge.truth import ANOMALY, Intervals, JudgeSettings, PredictionTable, Truth
from judged_fleet import PARAMS
from simulated_fleet import SCHEMA

HERE = Path(__file__).parent
COMMITS = {"champion": "c" * 40, "challenger": "d" * 40}
CI = {"repository": "someone/fleet", "run_id": "1234567890", "commit": COMMITS["challenger"]}  # null on a laptop


def truth() -> Truth:
    """Eight machines of the azure profile, 120 days, all judged."""
    made = simulate("azure", 8, 120, 5, SCHEMA)
    return Truth(made.tables, SCHEMA, "golden", Intervals.of(made.anomalies))


def blurred(known: Truth, noise: float, seed: int) -> PredictionTable:
    """Answers of every head: the true labels with noise. More noise makes a worse model."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y = np.concatenate([labels(window, known.schema, 24 * HOUR_US) for window in known.tables.windows()], axis=1)
    heads = {}
    for c, component in enumerate(known.schema.components):
        score = np.round(np.clip(0.8 * (y[c] == 1) + noise * rng.random(y.shape[1]) ** 12, 0, 1), 2)
        heads[component] = (score, score >= 0.7)
    score = np.round((y == 1).any(axis=0) + noise * rng.random(y.shape[1]) ** 12, 2)
    return PredictionTable.of(known.tables.machine, known.tables.time, {ANOMALY: (score, score >= 0.9), **heads})


def candidate(role: str, predictions: PredictionTable) -> Candidate:
    """A model with only the parts of a manifest that the gate reads."""
    manifest: dict[str, Any] = {
        "model_digest": f"sha256:{role}",
        "provenance": {"commit": COMMITS[role]},
        "heads": {"anomaly": {}, "failure": {f"comp{n}": {} for n in (1, 2, 3, 4)}},
        "training": {"machines": {"golden": [101, 102]}},
    }
    return Candidate(predictions, manifest, f"sha256:inputs-of-{role}")


def settings() -> JudgeSettings:
    """The settings of the golden files: those of the tests of judging, with one floor alone."""
    gate = PARAMS["gate"] | {"floors": {"event_recall": 0.5}}
    return JudgeSettings.from_params(PARAMS | {"gate": gate})


def verdict(known: Truth, predictions: PredictionTable) -> dict[str, Any]:
    """The decision on the golden predictions against a worse champion, as CI writes it."""
    champion = candidate("champion", blurred(known, 1.0, 1))
    return decide(champion, candidate("challenger", predictions), known, settings()) | {"ci": CI}


def main() -> None:
    """Write predictions.parquet, metrics.json and decision.json."""
    known = truth()
    predictions = blurred(known, 0.4, 2)
    predictions.write(HERE / "predictions.parquet")
    for name, content in (
        ("metrics.json", judge(predictions, known, settings())),
        ("decision.json", verdict(known, predictions)),
    ):
        (HERE / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
