"""The champion: what a challenger is held against.

Where ``REFERENCE_COMMIT`` is set, or else ``BASE_COMMIT``, as CI does, that commit is trained in a worktree of its own
and answers with its own code. Else it is the first model that a clean checkout made of a fleet, kept below
build/champion/<source>.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from closedloop.data.schema import DataError
from closedloop.judge.checks import Candidate
from closedloop.judge.ruler import ruler
from closedloop.judge.truth import PredictionTable
from model.common import cli, commits, provenance

NOUNS = Path("src") / "closedloop"


def folder(source: str) -> Path:
    """Where the champion of a fleet is kept."""
    return cli.CHAMPIONS / source


def save(source: str, candidate: Candidate, bundle: Path, predictions: Path, holdout_fingerprint: str) -> None:
    """Keep a model, its predictions, and what they were made from and for."""
    target = folder(source)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target / "bundle")
    shutil.copy(predictions, target / "predictions.parquet")
    about = {
        "commit": candidate.commit,
        "inputs_digest": candidate.inputs_digest,
        "ruler": dict(candidate.ruler),
        "holdout_fingerprint": holdout_fingerprint,
    }
    cli.write_json(target / "champion.json", about)


def load(source: str, holdout_fingerprint: str, holdout: Path) -> Candidate | None:
    """The champion with its answers to today's holdout, or None where there is none.

    Where the holdout changed, the champion answers again from its own commit; where that cannot be, the candidate says
    why, and the gate calls the two incomparable.
    """
    kept = folder(source)
    if not (kept / "champion.json").exists():
        return None
    about: dict[str, Any] = cli.read_json(kept / "champion.json", f"delete {kept} to begin again")
    manifest = cli.read_json(kept / "bundle" / "manifest.json", f"delete {kept} to begin again")
    predictions, problem = kept / "predictions.parquet", ""
    if about["holdout_fingerprint"] != holdout_fingerprint:
        cli.say(f"the holdout changed: commit {about['commit'][:12]} answers again")
        predictions = kept / "today.parquet"
        paths = {"--data": holdout, "--bundle": kept / "bundle", "--out": predictions}
        words = [word for flag, path in paths.items() for word in (flag, str(path.resolve()))]
        try:
            commits.run(about["commit"], "model.predict", *words)
        except DataError as error:
            problem = f"{error}. To begin again, delete {kept}"
    answers = None if problem else PredictionTable.read(predictions)
    return Candidate(answers, manifest, about["inputs_digest"], about["ruler"], problem)


def ruler_of(work: Path, rules: dict[str, Any], data: dict[str, Any]) -> dict[str, str]:
    """The ruler of another commit, checked out at ``work``; ``rules`` is the content of its ``params.yaml``.

    It measures with the tables that it pins itself, or with today's where no commit pins them.
    """
    lock, pin = work / "model" / "data.lock.json", {"parts": data["parts"]}
    if not data["local"]:
        pin = cli.read_json(lock, "compare with another commit") if lock.exists() else {}
    return ruler(work / NOUNS, rules, pin)


def of_commit(commit: str, own_digest: str, data: dict[str, Any], holdout: Path) -> Candidate:
    """The model of another commit, made by that commit, with its answers to today's holdout.

    Where it has the very inputs of the challenger nothing is trained. Where it cannot be made, the candidate says why,
    and the gate calls the two incomparable.
    """
    work = commits.worktree(commit)
    settings = work / "model" / "params.yaml"
    measured: dict[str, str] = {}
    try:
        measured = ruler_of(work, yaml.safe_load(settings.read_text(encoding="utf-8")), data)
        digest = provenance.inputs_digest(settings, data["fingerprint"], work, work / NOUNS)
        if digest == own_digest:
            return Candidate(None, {"provenance": {"commit": commit}}, digest, measured, "it need not answer")
        cli.say(f"training commit {commit[:12]}, to compare with")
        for verb in ("data", "validate", "train"):
            commits.run(commit, f"model.{verb}")
        answers = work.resolve() / "build" / "holdout-of-challenger.parquet"
        commits.run(commit, "model.predict", "--data", str(holdout.resolve()), "--out", str(answers))
        manifest = cli.read_json(work / "build" / "bundle" / "manifest.json", "its training wrote none")
        return Candidate(PredictionTable.read(answers), manifest, digest, measured)
    except (DataError, OSError) as error:
        return Candidate(None, {"provenance": {"commit": commit}}, "", measured, f"commit {commit[:12]}: {error}")
