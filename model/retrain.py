"""Train the next model on the pinned data and the newest log, compare it with the champion, and collect the evidence.

The log is the one at --log (default: LOG_SINK) and those that model/data.lock.json names. Its newest versions, or the
ones of --versions, make a candidate pin: today's parts with the log's part moved, or added. From there it is an
ordinary run: tables, expectations, labels, training, gate. Drift is looked for before the training.

Last week's requests are replayed with the challenger afterwards.

--trained is what a platform handed over (make databricks): its proposed pin and the bundle that it trained on those
tables at this commit. Then nothing is trained here, and all else is the same.

build/evidence gets data.lock.json (the candidate pin), decision.json, retrain.json, summary.md, replay.md, report/ and
drift/. Nothing of the checkout is changed, and the exit code is 0 whatever the verdict on the model, unless it is
refused. Where no log is configured, or the log has nothing new, it says so and ends.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.data.schema import DataError, Schema
from closedloop.heads.bundle import load
from closedloop.judge.labels import with_delay
from closedloop.watch.label_counts import label_counts
from model import drift, evaluate, predict, replay, train, validate
from model.common import champion, cli, commits, data_pin, params, places, provenance, retraining

EVIDENCE = cli.BUILD / "evidence"
CANDIDATE = cli.BUILD / "candidate"  # what is collected until the evidence is whole
# of the evidence: a folder that holds anything else is not replaced
NAMES = ("data.lock.json", "decision.json", "retrain.json", "summary.md", "replay.md", "replay.json", "report", "drift")


def fetch(parts: list[dict[str, Any]], asked: params.Params) -> None:
    """Write build/data/PdM_*.parquet and data.json of the candidate's parts, a fleet of the commit's name."""
    about = {"source": params.load().source, "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    about |= {"parts": parts, "local": False, "candidate": str(CANDIDATE / provenance.PIN.name)}
    data_pin.store(cli.DATA, *data_pin.fetch(parts, asked), about)


def describe(parts: list[dict[str, Any]], pin: dict[str, Any], asked: params.Params) -> dict[str, Any] | None:
    """Write the candidate pin of the validated tables; return what is new in them and what became of their labels.

    None where the tables are those that are pinned already.
    """
    about = cli.read_json(cli.DATA / "data.json", "run: make retrain")
    if about["fingerprint"] == pin["fingerprint"]:
        return None
    asked = asked.of(about)
    schema = Schema.from_dict(about["schema"])
    tables = sources.read_tables(cli.DATA, schema, {})
    holds = data_pin.held(tables)
    data_pin.write(parts, about["fingerprint"], holds, CANDIDATE / provenance.PIN.name)
    labels = None
    if tables.failures is not None:
        labels = label_counts(with_delay(tables, asked.delay_us), schema, asked.horizon_us)
    logs = [part for part in parts if part["kind"] == "log"]
    before = {part["location"]: part["versions"] for part in pin["parts"] if part["kind"] == "log"}
    read = [
        {"location": part["location"], "versions": part["versions"], "before": before.get(part["location"])}
        for part in logs
    ]
    return {"logs": read, "holds": holds, "pinned": pin.get("holds") or {}, "labels": labels}


def bundle_of_champion(source: str) -> Path | None:
    """Return the champion's bundle, that of its release or of this machine; None where none is at hand."""
    commit = commits.asked("CHAMPION_COMMIT")
    bundle = champion.released(commit)[0] if commit else champion.folder(source) / "bundle"
    return bundle if bundle is not None and bundle.exists() else None


def look_for_drift(bundle: Path | None, asked: params.Params) -> dict[str, Any]:
    """Compare the last two weeks with the champion's training; return the verdict and, in words, what moved.

    Drift stops nothing, so where it cannot be looked for, the words say why.
    """
    if bundle is None:
        return {"verdict": "not looked for", "words": "no bundle of the champion is at hand"}
    try:
        return drift.compare(bundle, cli.DATA, CANDIDATE / "drift", asked.split)
    except DataError as error:
        return {"verdict": "not looked for", "words": f"the champion's bundle cannot be compared with: {error}"}


def handed_over(trained: Path, pin: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of the pin that a platform proposes: the pinned places, at other versions.

    Raises:
        DataError: it is no pin.
        RefusedError: it names other places.
    """
    parts: list[dict[str, Any]] = data_pin.load(trained / provenance.PIN.name)["parts"]
    known, named = ([(part["kind"], data_pin.place(part)) for part in of] for of in (pin["parts"], parts))
    if known != named:
        raise cli.RefusedError(f"{trained}: its {provenance.PIN.name} names other places than this commit's")
    return parts


def take_over(trained: Path, about: dict[str, Any]) -> None:
    """Take the bundle that a platform trained as build/bundle.

    Raises:
        DataError: it is damaged, or this library cannot read it.
        RefusedError: another commit trained it, or it learned from other tables.
    """
    bundle = load(trained / "bundle")
    if (commit := bundle.provenance["commit"]) != provenance.commit():
        raise cli.RefusedError(f"{trained}: commit {commit} trained this bundle, and this is {provenance.commit()}")
    if bundle.training.fingerprint != about["fingerprint"]:
        raise cli.RefusedError(f"{trained}: its bundle learned from other tables than its data.lock.json names")
    for folder in (cli.BUNDLE, cli.BUNDLE.parent / "ablations"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained / "bundle", cli.BUNDLE)


def judge(asked_for: list[str], quick: bool, trained: Path | None) -> str:
    """Train and judge the challenger; return the verdict.

    A machine without a champion compares it with the model of this commit.

    Raises:
        RefusedError: the challenger cannot be judged.
    """
    short = ["--quick"] if quick else []
    about = cli.read_json(cli.DATA / "data.json", "run: make retrain")
    if trained is None:
        train.main([*asked_for, *short])
    else:
        take_over(trained, about)
    predict.main([])
    if not commits.asked("CHAMPION_COMMIT") and not champion.folder(about["source"]).exists():
        commit = provenance.commit()
        if commit != "unknown":
            os.environ["CHAMPION_COMMIT"] = commit
    evaluate.main([*asked_for, *short])
    decision: dict[str, Any] = cli.read_json(cli.BUILD / "decision.json", "run: make retrain")
    if decision["verdict"] == "refused":
        raise cli.RefusedError(decision["reason"])
    return str(decision["verdict"])


def replay_requests(log: dict[str, Any], served: Path | None, asked_for: list[str]) -> int:
    """Let the challenger answer last week's requests, after the model that answered them; write replay.md.

    Returns how many answers their own model does not give again. Where nothing can be replayed the text says why.
    """
    words = ["--log", places.sink(log).place, "--version", str(log["versions"]["requests"]), "--out", str(CANDIDATE)]
    for bundle in [*([served] if served else []), *sorted(champion.SERVED.glob("*/bundle"))]:
        words += ["--served", str(bundle)]
    try:
        replay.main([*asked_for, *words])
    except DataError as error:
        said = f"### Replayed requests\n\nNot replayed: {error}.\n"
        (CANDIDATE / "replay.md").write_text(said, encoding="utf-8")
        return 0
    found = cli.read_json(CANDIDATE / "replay.json", "run: make retrain")
    return int(found["records"]["mismatched"])


def collect(about: dict[str, Any], out: Path) -> None:
    """Put the evidence into ``out``, whole or not at all."""
    cli.write_json(CANDIDATE / "retrain.json", about)
    report = cli.BUILD / "report"
    shutil.copytree(report, CANDIDATE / "report", dirs_exist_ok=True)
    shutil.copy(cli.BUILD / "decision.json", CANDIDATE)
    verdict = (report / "summary.md").read_text(encoding="utf-8")
    (CANDIDATE / "summary.md").write_text(retraining.summary(about, verdict), encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    CANDIDATE.replace(out)


def clear(out: Path) -> None:
    """Remove what an earlier or a killed run left: it is never proposed.

    Raises:
        DataError: ``out`` has something that is no evidence.
    """
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if others := [name for name in found if name not in NAMES]:
        raise DataError(f"--out {out}: the evidence replaces the folder, and it has {others[0]}; name another folder")
    shutil.rmtree(CANDIDATE, ignore_errors=True)
    if out.is_dir():
        CANDIDATE.parent.mkdir(parents=True, exist_ok=True)
        out.replace(CANDIDATE)  # at once, so that half of it is never there
        shutil.rmtree(CANDIDATE, ignore_errors=True)


def main(words: list[str]) -> None:
    """Write build/evidence, or say why there is nothing to train on."""
    flags = cli.parser(__doc__, out=EVIDENCE, writes="folder to write the evidence to")
    flags.add_argument("--log", default=os.environ.get("LOG_SINK", ""), help="the log (default: LOG_SINK)")
    flags.add_argument(
        "--versions", default="", help="of the log, such as requests=12,feedback=3 (default: the newest)"
    )
    flags.add_argument("--quick", action="store_true", help="without ablations and feature importance")
    flags.add_argument("--trained", type=Path, metavar="DIR", help="what a platform has trained and handed over")
    args = flags.parse_args(words)
    clear(args.out)
    asked, pin = params.load(args.params), data_pin.load()
    if args.trained:
        parts = handed_over(args.trained, pin)
    elif why := retraining.skipped(pin, args.log):
        print(f"skipped: {why}")
        return
    else:
        parts = retraining.candidate(pin, args.log, retraining.versions(args.versions), asked)
    if parts == pin["parts"]:
        print("nothing new: model/data.lock.json names these versions already")
        return
    fetch(parts, asked)
    asked_for = ["--params", str(args.params)]
    validate.main(asked_for)
    found = describe(parts, pin, asked)
    if found is None:
        print("nothing new: the log's newer versions hold the tables that model/data.lock.json pins")
        return
    served = bundle_of_champion(asked.source)
    found["drift"] = look_for_drift(served, asked)
    found["verdict"] = judge(asked_for, args.quick or args.trained is not None, args.trained)  # it has no ablations
    log = next((part for part in reversed(parts) if part["kind"] == "log"), None)
    mismatched = replay_requests(log, served, asked_for) if log else 0
    collect(found, args.out)
    if mismatched:
        raise cli.RefusedError(f"{mismatched:,} logged answers are not those of their model: see {args.out}/replay.md")
    print("\n".join(retraining.closing(found, args.out)))


if __name__ == "__main__":
    cli.main(main)
