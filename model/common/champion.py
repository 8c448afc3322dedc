"""The champion: the model that a challenger must beat.

Where ``CHAMPION_COMMIT`` or else ``BASE_COMMIT`` is set, as in CI, that commit answers in its own worktree with its own
code: from the bundle of its release in build/released, else from one that it trains. Elsewhere the champion is kept
below build/champion/<source>: the first model of a fleet, then each that was better or accepted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from closedloop.data.schema import DataError, microseconds
from closedloop.judge.checks import Candidate
from closedloop.judge.ruler import ruler
from closedloop.judge.truth import PredictionTable
from model.common import cli, commits, params, provenance
from model.common.provenance import LIBRARY_IN_COMMIT

RELEASED = cli.BUILD / "released"  # where .ci/pipeline/champion.py puts the bundle of the champion's release
SERVED = cli.BUILD / "served"  # where .ci/pipeline/served.py puts what releases that were served answer with
BECOMES = "so this model becomes the champion"  # in the reason of the verdict ``first``


@dataclass(frozen=True)
class Met:
    """The champion that a challenger meets, None where there is none, and where its model comes from.

    ``origin`` has ``from``: ``release`` (with ``tag`` and how the bundle was ``verified``), ``training`` (with
    ``why``), ``commit`` (nothing was made of it) or ``machine``; it is None where there is no champion.
    """

    candidate: Candidate | None
    origin: dict[str, str] | None

    @property
    def of_machine(self) -> bool:
        """Whether this machine's own champion is met, or would be if there were one."""
        return self.origin is None or self.origin["from"] == "machine"


def folder(source: str) -> Path:
    """Return where the champion of a fleet is kept; a name with a slash, or of dots, is one folder too."""
    name = source.replace("%", "%25").replace("/", "%2F")
    return cli.CHAMPIONS / (name if name.strip(".") else name.replace(".", "%2E"))


def settle(decision: Mapping[str, Any], data: Mapping[str, Any], own_params: Path) -> dict[str, Any]:
    """Return a decision of a person's machine, in which a model that cannot be kept does not become the champion.

    A champion must be able to answer again for other tables, so its code must be that of a commit. Of the commit's own
    fleet, its parameters and pin must be too.
    """
    if not decision["becomes_champion"] or provenance.commit() == "unknown":
        return dict(decision)
    committed = provenance.git("show", "HEAD:./model/params.yaml")
    of_commit = committed is not None and yaml.safe_load(committed).get("source") == data["source"]
    if of_commit:
        known = provenance.is_as_committed() and own_params.read_bytes() == params.PARAMS.read_bytes()
        what = "code, parameters or pin"
    else:
        known, what = provenance.is_as_committed(params.PARAMS, provenance.PIN), "code"
    if known:
        return dict(decision)
    why = f"{what} differ{'s' * (what == 'code')} from the commit; commit your changes and run again"
    reason = decision["reason"]
    if BECOMES in reason:
        reason = reason.replace(BECOMES, f"and this model does not become the champion, since its {why}")
    else:
        reason += f" It does not become the champion, since its {why}."
    return {**decision, "becomes_champion": False, "reason": reason}


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
    pinned = provenance.git("show", f"{commit}:{provenance.PIN_NAME}")
    try:
        return pinned is not None and is_simulated(json.loads(pinned)["parts"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # ruler_of says what is wrong with it


def history_us(data: Mapping[str, Any]) -> int:
    """Return how far back the features of the model to beat look, in microseconds; 0 where there is none.

    The held-out tables must begin that long before their first judged row, however little the challenger needs.
    """
    commit = None if data["local"] else commits.to_beat()
    try:
        if commit is None:
            manifest = folder(data["source"]) / "bundle" / "manifest.json"
            hours = json.loads(manifest.read_text(encoding="utf-8"))["history_hours"]
        else:
            settings = yaml.safe_load(provenance.git("show", f"{commit}:model/params.yaml") or "")
            hours = params.of_fleet(settings, data)["features"]["history_hours"]
        return microseconds(hours)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return 0  # there is no such model, or it cannot be read: the comparison says why


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
        words = _flags({"--data": holdout, "--bundle": kept / "bundle", "--out": predictions})
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


def of_commit(commit: str, own_digest: str, data: dict[str, Any], holdout: Path) -> Met:
    """Return the model of another commit, with its own code's predictions for today's holdout.

    The bundle is that of the commit's release if build/released has it; else, or where it cannot answer, the commit is
    trained again. Neither happens where the commit has the challenger's inputs (``own_digest``). Where training fails
    too, the candidate says why, and the verdict is ``incomparable``.
    """
    work = commits.worktree(commit)
    settings = work / "model" / "params.yaml"
    measured: dict[str, str] = {}
    unknown: dict[str, Any] = {"provenance": {"commit": commit}}
    origin = {"from": "commit"}
    try:
        library = work / LIBRARY_IN_COMMIT
        measured = ruler_of(work, yaml.safe_load(settings.read_text(encoding="utf-8")), data)
        digest = provenance.inputs_digest(settings, data["fingerprint"], work, library)
        if digest == own_digest:
            same = "not trained, since its inputs are those of the challenger"
            return Met(Candidate(None, unknown, digest, measured, same), origin)
        bundle, origin = released(commit)
        if bundle is not None:
            try:
                return Met(_answers(commit, bundle, holdout, digest, measured), origin)
            except DataError as error:
                origin = {"from": "training", "why": f"the bundle of release {origin['tag']} cannot answer: {error}"}
        cli.say(f"training commit {commit[:12]}, to compare with: {origin['why']}")
        for command in ("data", "validate", "train"):
            commits.run(commit, f"model.{command}")
        return Met(_answers(commit, work / "build" / "bundle", holdout, digest, measured), origin)
    except (DataError, OSError) as error:
        problem = f"commit {commit[:12]}: {error}"
        if why := origin.get("why"):
            problem += f" (it was trained again: {why})"
        return Met(Candidate(None, unknown, "", measured, problem), origin)


def released(commit: str) -> tuple[Path | None, dict[str, str]]:
    """Return the bundle that the commit's release holds, or None; and where the champion's model comes from."""
    about = RELEASED / "release.json"
    if not about.exists():
        return None, {"from": "training", "why": "no bundle of a release was fetched"}
    found = cli.read_json(about, f"delete {RELEASED}")
    if found["commit"] != commit:
        return None, {"from": "training", "why": f"{RELEASED} holds another commit's bundle"}
    if found["problem"]:
        return None, {"from": "training", "why": found["problem"]}
    return RELEASED / "bundle", {"from": "release", "tag": found["tag"], "verified": found["verified"]}


def looks(holdout: str) -> dict[str, Any]:
    """Return the fingerprint of held-out tables, and how many releases they have judged; None where nobody was asked.

    Whoever is chosen by looking often at the same machines owes some of the figures to chance. New machines and a later
    cut renew the tables.
    """
    path = RELEASED / "holdouts.json"
    releases = list(cli.read_json(path, f"delete {RELEASED}")).count(holdout) if path.exists() else None
    return {"holdout": holdout, "releases": releases}


def _answers(commit: str, bundle: Path, holdout: Path, digest: str, measured: dict[str, str]) -> Candidate:
    """Return a commit's model with its predictions for today's holdout, made by the commit's own code.

    Raises:
        DataError: it cannot predict, or the bundle is not readable.
    """
    answers = commits.worktree(commit).resolve() / "build" / "holdout-of-challenger.parquet"
    cli.say(f"commit {commit[:12]} predicts with {bundle}")
    paths = {"--data": holdout, "--bundle": bundle, "--out": answers}
    commits.run(
        commit, "model.predict", *(word for flag, path in paths.items() for word in (flag, str(path.resolve())))
    )
    manifest = cli.read_json(bundle / "manifest.json", "its training should have written it")
    return Candidate(PredictionTable.read(answers), manifest, digest, measured)


def _flags(paths: dict[str, Path]) -> list[str]:
    """Return flags with their paths, which must hold in another folder."""
    return [word for flag, path in paths.items() for word in (flag, str(path.resolve()))]
