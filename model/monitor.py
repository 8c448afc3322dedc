"""Say how well the served models did: matured truth joined to the answers that were given, beside what was promised.

Reads the request log (--log, by default LOG_SINK) and writes build/monitor/monitor.json and build/monitor/index.html.
Each model version is judged on the answers that it gave, each machine model apart, on what is known by now. --promised
is a folder with metrics.json and decision.json of a release, which say what its model promised, or one with such a
folder for each release. Where the newest model is significantly worse than that, or below a floor, the JSON has the
issue that monitor.yml opens; --issue says that one is open already. With --drift the last two weeks of the log are
compared with what the newest model learned from, too. It needs that model's bundle, which --promised may have beside
metrics.json. Nothing of it releases a model or stops one, so the exit code is 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.data import sources
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError, Tables, microseconds
from closedloop.heads.bundle import load as load_bundle
from closedloop.judge.labels import with_delay
from closedloop.judge.truth import JudgeSettings
from closedloop.log.answers import Answers, answers
from closedloop.log.read import read
from closedloop.log.sink import Sink
from closedloop.report import monitor_page
from closedloop.watch import attention, promise
from closedloop.watch.drift import in_words
from closedloop.watch.live import Answered, Live, live
from model.common import champion, cli, last_weeks, request_log
from model.common.params import Params, load

DAY_US = microseconds(24)


def fetch(place: str, params: Params) -> tuple[Tables, Answers]:
    """Return the tables of a log with what feedback vouches for, and the answers that were given.

    Raises:
        DataError: there is no log, it cannot be read, or its machines are not of the kind that is declared.
    """
    with request_log.reading(place):
        sink = Sink.at(place, os.environ)
        log = read(sink, params.schema)
        if log.foreign and not len(log.tables.time):
            raise DataError(
                f"{place}: the log has no telemetry of machines as the parameters declare them (they have "
                f"{'names' if params.schema.has_names else 'numbers'}): correct schema.machine_id"
            )
        tables = with_delay(request_log.vouched(log), params.delay_us)
        given = answers(sink, log.versions["requests"], tables.names)
    return tables, given


def by_model(given: Answers) -> Iterator[Answered]:
    """Yield the answers of each model, the newest last."""
    heads = np.array(given.heads, object)
    last = [int(given.time[given.model == number].max()) for number in range(len(given.models))]
    for number in np.argsort(last).tolist():
        mine = given.model == number
        columns = (given.machine[mine], given.time[mine], heads[given.head[mine]], given.score[mine], given.alarm[mine])
        yield Answered(given.models[number], *columns)


def promised(folder: Path | None) -> dict[str, promise.Promise | None]:
    """Return what releases promised, by the digest of their models; none where no folder is named.

    Raises:
        DataError: a file is missing or is not JSON.
    """
    found: dict[str, promise.Promise | None] = {}
    fix = "name a folder with metrics.json and decision.json of the release, or one with such folders"
    for one in folders(folder, "metrics.json"):
        decision = cli.read_json(one / "decision.json", fix)
        digest = decision["challenger"]["model_digest"]
        found[digest] = promise.Promise.of(cli.read_json(one / "metrics.json", fix))
    return found


def folders(top: Path | None, name: str) -> list[Path]:
    """Return the folder if it has a file of that name, else those in it that have; the folder where none has.

    An empty folder of releases has none: no release was served yet.
    """
    if top is None or (top / name).exists():
        return [] if top is None else [top]
    return sorted(path.parent for path in top.glob(f"*/{name}")) or ([] if _is_of_releases(top) else [top])


def _is_of_releases(top: Path) -> bool:
    """Return whether a folder holds releases, or is where they would be."""
    return top == champion.SERVED or any(top.glob("*/bundle"))


def moved(digest: str, promised_in: Path | None, tables: Tables, params: Params) -> dict[str, Any]:
    """Return ``verdict`` and ``words`` of the last two weeks against what a model learned from, with ``drift.json``."""
    for one in folders(promised_in, "bundle"):
        try:
            bundle = load_bundle(one / "bundle")
        except DataError as error:
            cli.say(f"warning: left out: {error}")
            continue
        if bundle.manifest is None or bundle.manifest.model_digest != digest:
            continue
        try:
            found, shown = last_weeks.report(bundle, sources.tables_to_frames(tables, params.schema), params.split)
        except DataError as error:
            return {"verdict": "too little data", "words": str(error), "pictures": []}
        content = last_weeks.as_json(found, bundle.manifest.bundle_digest)
        return {"verdict": found.verdict, "words": in_words(found), "content": content, "pictures": shown}
    return {"verdict": "too little data", "words": "the bundle of the newest model is not at hand", "pictures": []}


def judged(
    tables: Tables, given: Answers, params: Params, promises: dict[str, promise.Promise | None], *, is_open: bool
) -> tuple[list[dict[str, Any]], promise.LiveDecision | None]:
    """Return the figures of each model, the newest last, and the decision on the newest."""
    settings = JudgeSettings.from_params(params.raw)
    entries: list[dict[str, Any]] = []
    decision = None
    for one in by_model(given):
        found = live(one, tables, params.schema, params.source, settings)
        recent = live(one, tables, params.schema, params.source, settings, since(tables))
        told = promises.get(one.model)
        decision = promise.decide(recent.counts, told, params.gate["floors"], is_open=is_open)
        entries.append(entry(one, found, recent, told, decision))
    return entries, decision


def since(tables: Tables) -> int:
    """Return the start of the window that decides: so many days before the latest time that is known of a machine."""
    last = int(tables.time.max())
    known = last if tables.marks is None else min(int(tables.marks.until.max()), last)
    return max(known, 0) - promise.WINDOW_DAYS * DAY_US


def entry(
    one: Answered, found: Live, recent: Live, told: promise.Promise | None, decision: promise.LiveDecision
) -> dict[str, Any]:
    """Return what the JSON says of one model."""
    return {
        "model": one.model,
        "first": to_text(int(one.time.min())),
        "last": to_text(int(one.time.max())),
        "figures": found.figures,
        "recent": recent.figures,
        "promised": None if told is None else asdict(told),
        "decision": asdict(decision),
    }


def main(words: list[str]) -> None:
    """Write monitor.json and its page, and print what became of the newest model's answers."""
    flags = cli.parser(__doc__, out=cli.BUILD / "monitor", writes="folder to write to")
    flags.add_argument("--log", default=os.environ.get("LOG_SINK", ""), help="the log (default: LOG_SINK)")
    flags.add_argument(
        "--promised",
        type=Path,
        help="folder with metrics.json and decision.json of a release, or of one in each folder",
    )
    flags.add_argument("--drift", action="store_true", help="look for drift too, against the newest model's bundle")
    flags.add_argument("--issue", action="store_true", help="an issue on live quality is open")
    args = flags.parse_args(words)
    if not args.log:
        raise DataError("no log is named; set LOG_SINK, or name the folder or address with --log")
    params, promises = load(args.params), promised(args.promised)
    tables, given = fetch(args.log, params)
    if not given.models:
        raise DataError(f"{args.log}: the log has no answers yet")
    if not len(tables.time):
        raise DataError(f"{args.log}: the log has answers and no telemetry: keep it in the log (LOG_FIELDS)")
    cli.say(f"{len(given.time):,} answers of {len(given.models)} models, {len(tables.bounds()[0])} machines")
    models, decision = judged(tables, given, params, promises, is_open=args.issue)
    newest = list(by_model(given))[-1]
    machines = attention.machines(newest, given, tables)
    content: dict[str, Any] = {"models": models, "attention": [asdict(one) for one in machines], "issue": None}
    names = tables.named(np.array([one.machine for one in machines], np.int64)).tolist()
    for one, name in zip(content["attention"], names, strict=True):
        one |= {"machine": name, "last": to_text(one["last"])}
    if decision is not None:
        text = promise.issue(newest.model, decision) if decision.reasons and decision.verdict == "worse" else {}
        content["issue"] = {"action": decision.action, **text}
    drift_json = cli.BUILD / "drift/drift.json"
    seen = cli.read_json(drift_json, "run: make drift") if drift_json.exists() else None
    pictures: list[Any] = []
    if args.drift:
        found = moved(newest.model, args.promised, tables, params)
        content["drift"] = {key: found[key] for key in ("verdict", "words")}
        seen, pictures = found.get("content"), found["pictures"]
        print(f"drift: {found['verdict']}: {found['words']}")
    cli.write_json(args.out / "monitor.json", content)
    shown = [
        monitor_page.timeline(name, *attention.timeline(newest, one.machine))
        for one, name in zip(machines, names, strict=True)
    ]
    monitor_page.write(args.out / "index.html", drift=seen, live=content, timelines=shown, pictures=pictures)
    if decision is not None:
        print(f"{decision.verdict}: {'; '.join(decision.reasons) or 'the newest model does what its release promised'}")
    print(f"page: {args.out / 'index.html'}")


if __name__ == "__main__":
    cli.main(main)
