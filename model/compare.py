"""Show what differs between two recorded runs, and what that changed in their figures.

Parameters, features, code and data come first, then the figures of both. `make compare RUN=a,b` takes the first letters
of the two ids. The runs are in MLflow: build/mlflow.db, or where MLFLOW_TRACKING_URI points.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from closedloop.data.schema import DataError
from model.common import cli, tracking
from model.common.closing import FIGURES, number

NOT_RECORDED = "not recorded"


def of_params(a: Any, b: Any) -> Iterator[str]:
    """Yield a line for each parameter that differs."""
    before, after = a.data.params, b.data.params
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"


def of_features(a: list[str] | None, b: list[str] | None) -> Iterator[str]:
    """Yield what the second run's features have gained and lost; the lists are None where they were not recorded."""
    if a is None or b is None:
        yield f"{NOT_RECORDED} by an older run; record it again: make run RUN=id"
        return
    for said, names in (("only in a", set(a) - set(b)), ("only in b", set(b) - set(a))):
        if names:
            yield f"{said}: {', '.join(sorted(names))}"


def of_origin(a: Any, b: Any) -> Iterator[str]:
    """Yield what differs in code and data."""
    names = {
        "mlflow.source.git.commit": "commit",
        "changed_files": "files changed since the commit",
        "fingerprint": "data",
        "quick": "quick",
    }
    for tag, name in names.items():
        before, after = (run.data.tags.get(tag, NOT_RECORDED) for run in (a, b))
        if before != after or (tag == "changed_files" and before not in ("none", NOT_RECORDED)):
            yield f"{name}: {before} -> {after}"


def holdout(run: Any) -> str | None:
    """Return the digest of the tables that judged a run."""
    judged = [one.dataset.digest for one in run.inputs.dataset_inputs if one.tags[0].value == "holdout"]
    return judged[0] if judged else None


def of_figures(a: Any, b: Any) -> Iterator[str]:
    """Yield a row for each figure: both runs and the difference; and what each saved against its own champion."""
    yield f"{'':<52}{'a':>12}{'b':>12}{'b - a':>12}"
    for part, figures in FIGURES.items():
        for key, (label, digits) in figures.items():
            before, after = (run.data.metrics.get(f"{part}.{key}") for run in (a, b))
            if before is not None or after is not None:
                change = after - before if before is not None and after is not None else None
                sign = "+" if change is not None and change > 0 else ""
                columns = f"{number(before, digits):>12}{number(after, digits):>12}{sign + number(change, digits):>12}"
                yield f"{label:<52}{columns}"
    for name, run in (("a", a), ("b", b)):
        low, middle, high = (
            run.data.metrics.get(f"saved_per_machine_year.{key}") for key in ("low", "estimate", "high")
        )
        if middle is not None:
            yield (
                f"{name} saved {number(middle, 0)} per machine-year against the champion that it met, "
                f"interval {number(low, 0)} to {number(high, 0)}"
            )


def features_of(mlflow: ModuleType, run: Any) -> list[str] | None:
    """Return the names of a run's features, or None where the run did not record them."""
    found = mlflow.MlflowClient().list_artifacts(run.info.run_id)
    if tracking.FEATURES not in {item.path for item in found}:
        return None
    return str(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{tracking.FEATURES}")).splitlines()


def main(words: list[str]) -> None:
    """Print the comparison."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder of mlflow.db")
    flags.add_argument("--runs", required=True, metavar="A,B", help="ids of the two runs, or their first letters")
    args = flags.parse_args(words)
    asked = [name.strip() for name in args.runs.split(",")]
    if len(asked) != 2 or not all(asked):
        raise DataError(f"--runs {args.runs}: name two runs with a comma between them: make compare RUN=a,b")
    with tracking.store(args.out, reading=True) as mlflow:
        a, b = (tracking.find(mlflow, name) for name in asked)
        features = [features_of(mlflow, run) for run in (a, b)]
        parts = {
            "parameters": of_params(a, b),
            "features": of_features(*features),
            "code and data": of_origin(a, b),
            "figures": of_figures(a, b),
        }
        for name, run in (("a", a), ("b", b)):
            print(f"{name}  {run.info.run_id[:12]}  {run.info.run_name}")
        for title, lines in parts.items():
            print(f"\n{title}")
            for line in list(lines) or ["the same"]:
                print(f"  {line}")
        if holdout(a) != holdout(b):
            print("\nThe two were judged on different tables, so their figures do not compare the models alone.")


if __name__ == "__main__":
    cli.main(main)
