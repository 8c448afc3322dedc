"""The champion: the model that a challenger must beat.

Where ``CHAMPION_COMMIT`` or else ``BASE_COMMIT`` is set, as in CI, that commit is trained in its own worktree and
answers with its own code. Elsewhere the champion is the first model that a clean checkout made of a fleet, kept below
build/champion/<source>.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from closedloop.data.schema import DataError
from closedloop.judge.checks import Candidate
from closedloop.judge.ruler import ruler
from closedloop.judge.truth import PredictionTable
from model.common import cli, commits, provenance
from model.common.provenance import LIBRARY_IN_COMMIT


def folder(source: str) -> Path:
    """Return where the champion of a fleet is kept."""
    return cli.CHAMPIONS / source


def is_simulated(parts: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a pin has simulator parts only. Its model is no champion for a pin without any."""
    kinds = {part.get("kind") for part in parts}
    return kinds == {"simulator"}


def begins(commit: str, data: Mapping[str, Any]) -> bool:
    """Return whether a fleet of one's own takes the simulator's place: the commit pins that one alone, today's none.

    What the commit's model learned and what its rules measure is another fleet then, so nothing is compared with it.
    The name of the fleet, ``source``, plays no part in it.
    """
    if data["local"] or any(part["kind"] == "simulator" for part in data["parts"]):
        return False
    pinned = provenance.git("show", f"{commit}:{provenance.PIN.relative_to(provenance.ROOT).as_posix()}")
    try:
        return pinned is not None and is_simulated(json.loads(pinned)["parts"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # ruler_of says what is wrong with it


def save(source: str, candidate: Candidate, bundle: Path, predictions: Path, holdout_fingerprint: str) -> None:
    """Keep a model as the champion of a fleet, with its predictions and the holdout that these are about."""
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
    """Return the champion with its predictions for today's holdout, or None where there is no champion.

    Where the holdout changed, the champion's own commit predicts again. Where that fails, the candidate says why, and
    the verdict is ``incomparable``.
    """
    kept = folder(source)
    if not (kept / "champion.json").exists():
        return None
    about: dict[str, Any] = cli.read_json(kept / "champion.json", f"delete {kept} to start again")
    manifest = cli.read_json(kept / "bundle" / "manifest.json", f"delete {kept} to start again")
    predictions, problem = kept / "predictions.parquet", ""
    if about["holdout_fingerprint"] != holdout_fingerprint:
        cli.say(f"the holdout changed: commit {about['commit'][:12]} predicts again")
        predictions = kept / "today.parquet"
        paths = {"--data": holdout, "--bundle": kept / "bundle", "--out": predictions}
        words = [word for flag, path in paths.items() for word in (flag, str(path.resolve()))]
        try:
            commits.run(about["commit"], "model.predict", *words)
        except DataError as error:
            problem = f"{error}. To start again, delete {kept}"
    answers = None if problem else PredictionTable.read(predictions)
    return Candidate(answers, manifest, about["inputs_digest"], about["ruler"], problem)


def ruler_of(work: Path, rules: dict[str, Any], data: dict[str, Any]) -> dict[str, str]:
    """The ruler of another commit, checked out at ``work``; ``rules`` is the content of its ``params.yaml``.

    It measures with the tables that it pins itself, or with today's where no commit pins them.
    """
    lock, pin = work / "model" / "data.lock.json", {"parts": data["parts"]}
    if not data["local"]:
        pin = cli.read_json(lock, "compare with another commit") if lock.exists() else {}
    return ruler(work / LIBRARY_IN_COMMIT, rules, pin)


def of_commit(commit: str, own_digest: str, data: dict[str, Any], holdout: Path) -> Candidate:
    """Return the model of another commit, trained by that commit's code, with its predictions for today's holdout.

    Nothing is trained where the commit has the challenger's inputs (``own_digest``). Where training fails, the
    candidate says why, and the verdict is ``incomparable``.
    """
    work = commits.worktree(commit)
    settings = work / "model" / "params.yaml"
    measured: dict[str, str] = {}
    try:
        library = work / LIBRARY_IN_COMMIT
        measured = ruler_of(work, yaml.safe_load(settings.read_text(encoding="utf-8")), data)
        digest = provenance.inputs_digest(settings, data["fingerprint"], work, library)
        if digest == own_digest:
            same = "not trained, since its inputs are those of the challenger"
            return Candidate(None, {"provenance": {"commit": commit}}, digest, measured, same)
        cli.say(f"training commit {commit[:12]}, to compare with")
        for command in ("data", "validate", "train"):
            commits.run(commit, f"model.{command}")
        answers = work.resolve() / "build" / "holdout-of-challenger.parquet"
        commits.run(commit, "model.predict", "--data", str(holdout.resolve()), "--out", str(answers))
        manifest = cli.read_json(work / "build" / "bundle" / "manifest.json", "its training should have written it")
        return Candidate(PredictionTable.read(answers), manifest, digest, measured)
    except (DataError, OSError) as error:
        return Candidate(None, {"provenance": {"commit": commit}}, "", measured, f"commit {commit[:12]}: {error}")
