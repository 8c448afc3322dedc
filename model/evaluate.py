"""Judge the predictions, compare them with the champion's, decide, report, and record the run.

Writes build/metrics.json, build/importance.json, build/decision.json, build/report/ and, in MLflow, one run
(build/mlflow.db, or where MLFLOW_TRACKING_URI points).

Exits 1 where the verdict is red. A model of a pin that is only proposed (python -m model.retrain) is not recorded and
does not become this machine's champion.

BASE_COMMIT names the commit whose model is met and whose rules judge; CHAMPION_COMMIT, where it is set, names the
commit whose model is met instead. Without them the model of build/champion/<source> is met.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from closedloop.data import sources
from closedloop.data.schema import DataError, Schema
from closedloop.heads.bundle import Bundle
from closedloop.heads.bundle import load as load_bundle
from closedloop.judge import gate
from closedloop.judge.checks import Candidate
from closedloop.judge.metrics import judge
from closedloop.judge.ruler import ruler
from closedloop.judge.truth import Intervals, JudgeSettings, PredictionTable, Truth
from closedloop.report import card, report
from closedloop.report import changes as in_words
from closedloop.report.importance import importance
from model.common import champion, changes, cli, closing, commits, decisions, params, provenance, tracking
from model.common.predictions import predict
from model.common.training import ABLATIONS


def read_truth(data: dict[str, Any], holdout: Path) -> Truth:
    """Return the held-out tables, with the anomaly intervals where these are known."""
    schema = Schema.from_dict(data["schema"])
    intervals = holdout / "anomalies.parquet"
    tables = sources.read_tables(holdout, schema, {})
    codes = tables.codes(data["judged_from"])
    return Truth(
        tables=tables,
        schema=schema,
        source=data["source"],
        anomalies=Intervals.of(pd.read_parquet(intervals), tables.names) if intervals.exists() else None,
        since_us={code: us for code, us in zip(codes, data["judged_from"].values(), strict=True) if code is not None},
        rule=data["rule"],
    )


def base_rules(
    own: dict[str, Any], own_ruler: dict[str, str], data: dict[str, Any], path: Path
) -> tuple[JudgeSettings, dict[str, str]]:
    """Return the settings and the ruler of the base commit, or this commit's own where there is no base.

    A parameter file (``path``) other than the commit's own, for a fleet of this machine only, has no base.
    """
    base = commits.base()
    another = data["local"] and path.resolve() != params.PARAMS.resolve()
    own_pin = "candidate" not in data
    if base is None or another or (own_pin and base == provenance.commit() and provenance.is_clean()):
        return JudgeSettings.from_params(own), own_ruler
    if champion.begins(base, data):
        cli.say(f"judged by the own rules of this commit: its base {base[:12]} pins the simulator alone")
        return JudgeSettings.from_params(own), own_ruler
    folder = commits.worktree(base)
    try:
        theirs = yaml.safe_load((folder / "model" / "params.yaml").read_text(encoding="utf-8"))
    except OSError:
        return JudgeSettings.from_params(own), own_ruler  # the base is older than the template
    theirs = params.of_fleet(theirs, data)
    cli.say(f"judged by the rules of commit {base[:12]}")
    return JudgeSettings.from_params(theirs), champion.ruler_of(folder, theirs, data)


def the_champion(data: dict[str, Any], own_digest: str, holdout: Path) -> champion.Met:
    """Return the model to beat: that of the commit which the environment names, else the one kept on this machine."""
    commit = None if data["local"] else commits.to_beat()
    if commit is None:
        kept = champion.load(data["source"], data["holdout_fingerprint"], holdout)
        return champion.Met(kept, None if kept is None else {"from": "machine"})
    if champion.begins(commit, data):
        cli.say(f"no champion yet: the model of commit {commit[:12]} knows the simulated fleet alone")
        return champion.Met(None, None)
    return champion.of_commit(commit, own_digest, data, holdout)


def acceptance() -> dict[str, Any] | None:
    """Return the content of ``model/accepted.json``, or None where there is no such file."""
    if not provenance.ACCEPTED.exists():
        return None
    return decisions.with_todays_keys(cli.read_json(provenance.ACCEPTED, "restore it from git"))


def worth_of(bundle: Bundle, truth: Truth, settings: JudgeSettings, seed: int) -> dict[str, dict[str, float]]:
    """Return what each family of features is worth."""
    cli.say("shuffling each family of features, to measure what it is worth")
    return importance(bundle, truth, settings, seed)


def changed(old: Candidate | None, new: Candidate, path: Path) -> list[str]:
    """Return what distinguishes the challenger from the champion, a sentence each; none where nothing can be said.

    Args:
        old: the champion.
        new: the challenger.
        path: its parameter file; the champion's is that of its commit, where both are the fleet's own.
    """
    if old is None or old.predictions is None or old.manifest["model_digest"] == new.manifest["model_digest"]:
        return []
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = path.resolve() == params.PARAMS.resolve()
    moved = changes.since(old.manifest["provenance"]["commit"] or "", content) if own else {}
    return [*in_words.of_params(moved), *in_words.of_manifests(old.manifest, new.manifest)]


def record(
    args: argparse.Namespace, data: dict[str, Any], metrics: dict[str, Any], decision: dict[str, Any]
) -> str | None:
    """Record the run in MLflow and return its id; None for a pin that is only proposed, which nobody records."""
    if "candidate" in data:
        return None
    return tracking.log(args.params, args.bundle, data, metrics, decision, args.out, quick=args.quick)


def main(words: list[str]) -> int:
    """Write the verdict, the figures and the report, and record the run."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder to write to")
    flags.add_argument("--holdout", type=Path, default=cli.HOLDOUT, help="held-out tables (default: %(default)s)")
    flags.add_argument(
        "--predictions", type=Path, default=cli.PREDICTIONS, help="the model's answers to them (default: %(default)s)"
    )
    flags.add_argument("--quick", action="store_true", help="without ablations and feature importance")
    args = flags.parse_args(words)
    asked = params.load(args.params)
    data = cli.read_json(args.data / "data.json", "run: python -m model.data")
    if "judged_from" not in data:
        raise DataError(f"{args.data}: these tables were not validated; run: python -m model.validate")
    asked = asked.of(data)
    bundle = load_bundle(args.bundle)
    truth = read_truth(data, args.holdout)
    predictions = PredictionTable.read(args.predictions)

    pinned = ("parts",) if data["local"] else ("parts", "fingerprint")
    own_ruler = ruler(provenance.LIBRARY, asked.raw, {key: data[key] for key in pinned})
    settings, base_ruler = base_rules(asked.raw, own_ruler, data, args.params)
    cli.say(f"judging {len(data['judged_from'])} machines")
    left_out = args.bundle.parent / "ablations"
    ablations = {} if args.quick else {name: predict(load_bundle(left_out / name), truth.tables) for name in ABLATIONS}
    metrics = judge(predictions, truth, settings, ablations)
    worth = {} if args.quick else worth_of(bundle, truth, settings, asked.seed)

    digest = provenance.inputs_digest(args.params, data["fingerprint"], pin=data.get("candidate"))
    challenger = Candidate(predictions, cli.read_json(args.bundle / "manifest.json", "train again"), digest, own_ruler)
    met = the_champion(data, digest, args.holdout)
    accepted = acceptance()
    decision = gate.decide(met.candidate, challenger, truth, settings, base_ruler=base_ruler, accepted=accepted)
    of_machine = met.of_machine and not provenance.in_actions() and "candidate" not in data
    if of_machine:
        decision = champion.settle(decision, data, args.params)
    decision |= {"ci": provenance.ci(), "champion_from": met.origin}
    decision["looks"] = champion.looks(data["holdout_fingerprint"])
    for name, content in {"metrics": metrics, "decision": decision, "importance": worth}.items():
        cli.write_json(args.out / f"{name}.json", content)
    model = card.describe(bundle, asked.raw, data["rule"])
    page, quick = args.out / "report" / "index.html", args.quick
    report.write(
        page.parent, metrics, decision, predictions, truth, settings, met.candidate, worth, model,
        changes=changed(met.candidate, challenger, args.params), quick=quick,
    )  # fmt: skip
    if of_machine and decision["becomes_champion"]:
        champion.save(data["source"], challenger, args.bundle, args.predictions, data["holdout_fingerprint"])
    run = record(args, data, metrics, decision)
    print("\n".join(closing.lines(metrics, decision, run, page, data=data, quick=quick)))
    return gate.exit_code(decision)


if __name__ == "__main__":
    cli.main(main)
