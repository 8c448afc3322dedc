"""Judge the predictions, hold them against the champion's, decide, report, and record the run.

Writes build/metrics.json, build/importance.json, build/decision.json, build/report/ and, in MLflow, one run
(build/mlflow.db, or wherever MLFLOW_TRACKING_URI points). Exits 1 where the verdict is red.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from closedloop.data import sources
from closedloop.data.schema import Schema
from closedloop.heads.bundle import load as load_bundle
from closedloop.judge import gate, report
from closedloop.judge.checks import Candidate
from closedloop.judge.importance import importance
from closedloop.judge.metrics import judge
from closedloop.judge.truth import Intervals, PredictionTable, Settings, Truth
from model import champion, cli, commits, params, provenance, tracking
from model.predict import predict
from model.train import ABLATIONS

ACCEPTED = Path(__file__).with_name("accepted.json")


def read_truth(data: dict[str, Any], holdout: Path) -> Truth:
    """The held-out tables, and the anomaly intervals where they are known."""
    schema = Schema.from_dict(data["schema"])
    intervals = holdout / "anomalies.parquet"
    return Truth(
        tables=sources.read_tables(holdout, schema, {}),
        schema=schema,
        source=data["source"],
        anomalies=Intervals.of(pd.read_parquet(intervals)) if intervals.exists() else None,
        since_us={int(machine): since for machine, since in data["judged_from"].items()},
        rule=data["rule"],
    )


def base_rules(
    own: dict[str, Any], own_ruler: dict[str, str], parts: list[dict[str, Any]]
) -> tuple[Settings, dict[str, str]]:
    """The settings and the ruler of the base commit; this commit's own where there is no other."""
    base = commits.base()
    if base is None or (base == provenance.commit() and provenance.is_clean()):
        return Settings.from_params(own), own_ruler
    folder = commits.worktree(base)
    try:
        theirs = yaml.safe_load((folder / "model" / "params.yaml").read_text(encoding="utf-8"))
    except OSError:
        return Settings.from_params(own), own_ruler  # the base is older than the template
    cli.say(f"judged by the rules of commit {base[:12]}")
    return Settings.from_params(theirs), gate.ruler(folder / "src" / "closedloop", theirs, parts)


def main(words: list[str]) -> int:
    """Write the verdict and everything a person needs to understand it."""
    flags = cli.parser(__doc__, out=cli.BUILD)
    flags.add_argument("--holdout", type=Path, default=cli.HOLDOUT, help="tables that judge (default: %(default)s)")
    flags.add_argument(
        "--predictions", type=Path, default=cli.PREDICTIONS, help="answers to them (default: %(default)s)"
    )
    args = flags.parse_args(words)
    asked = params.load(args.params)
    data = cli.read_json(args.data / "data.json", "run: python -m model.data")
    truth = read_truth(data, args.holdout)
    predictions = PredictionTable.read(args.predictions)

    own_ruler = gate.ruler(provenance.NOUNS, asked.raw, data["parts"])
    settings, base_ruler = base_rules(asked.raw, own_ruler, data["parts"])
    cli.say(f"judging {len(data['judged_from'])} machines")
    ablations = {
        name: predict(load_bundle(args.bundle.parent / "ablations" / name), truth.tables) for name in ABLATIONS
    }
    metrics = judge(predictions, truth, settings, ablations)
    cli.say("shuffling what the model knows, to see what each part of it is worth")
    worth = importance(load_bundle(args.bundle), truth, settings, asked.seed)

    digest = provenance.inputs_digest(args.params, data["fingerprint"])
    challenger = Candidate(predictions, cli.read_json(args.bundle / "manifest.json", "train again"), digest, own_ruler)
    base = None if data["local"] else commits.asked_base()
    if base is None:
        reference = champion.load(data["source"], data["holdout_fingerprint"], args.holdout)
    else:
        reference = champion.of_base(base, digest, data, args.holdout)
    accepted = cli.read_json(ACCEPTED, "restore it from git") if ACCEPTED.exists() else None
    decision = gate.decide(reference, challenger, truth, settings, base_ruler=base_ruler, accepted=accepted)

    cli.write_json(args.out / "metrics.json", metrics)
    cli.write_json(args.out / "decision.json", decision)
    cli.write_json(args.out / "importance.json", worth)
    report.write(args.out / "report", metrics, decision, predictions, truth, settings, reference, worth)
    if reference is None and gate.is_green(decision):
        if provenance.is_clean() or provenance.commit() == "unknown":
            champion.save(data["source"], challenger, args.bundle, args.predictions, data["holdout_fingerprint"])
        else:
            cli.say("not kept as the champion: the checkout has changes that are not committed")
    run = tracking.log(asked.raw, data, metrics, decision, args.out)
    cli.say(f"recorded as run {run}; the report is {args.out / 'report' / 'index.html'}")
    print(f"{decision['verdict']}: {decision['reason']}")
    return gate.exit_code(decision)


if __name__ == "__main__":
    cli.main(main)
