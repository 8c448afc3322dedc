"""One run, one record: parameters, figures, verdict, report and bundle in MLflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model import provenance


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, ``a.b.c: value``; lists stay whole."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, child in value.items() for key, leaf in flat(child, f"{prefix}.{name}".strip(".")).items()
    }


def log(
    params: dict[str, Any], data: dict[str, Any], metrics: dict[str, Any], decision: dict[str, Any], out: Path
) -> str:
    """Record a run where ``MLFLOW_TRACKING_URI`` points, by default ``mlflow.db`` in ``out``; returns its id."""
    # mlflow reads these when it loads, and takes two seconds to do so
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    server = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(server or f"sqlite:///{(out / 'mlflow.db').resolve()}")
    experiment = mlflow.get_experiment_by_name(data["source"])
    if experiment is None:
        artifacts = None if server else (out / "mlartifacts").resolve().as_uri()
        experiment = mlflow.get_experiment(mlflow.create_experiment(data["source"], artifact_location=artifacts))
    with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
        mlflow.set_tags(
            {
                "mlflow.source.git.commit": provenance.commit(),
                "verdict": decision["verdict"],
                "inputs_digest": decision["inputs_digest"],
                "fingerprint": data["fingerprint"],
            }
        )
        mlflow.log_params({key: str(value)[:6000] for key, value in flat(params).items()})
        numbers = {key: value for key, value in flat(metrics).items() if isinstance(value, int | float)}
        mlflow.log_metrics({key: float(value) for key, value in numbers.items()})
        for name in ("metrics.json", "decision.json"):
            mlflow.log_artifact(str(out / name))
        mlflow.log_artifacts(str(out / "report"), "report")
        mlflow.log_artifacts(str(out / "bundle"), "bundle")
        return str(run.info.run_id)
