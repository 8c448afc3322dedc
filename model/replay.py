"""Let a challenger answer the requests of the last week that the log holds: alarms gained and lost, by machine.

Each request is first answered again by the release that its answer names, found among the bundles of --served by its
digest. That must give the same bits; else the exit code is 1, since the log or the code is not what was served.
Records that cannot be answered again are counted: those that LOG_FIELDS kept only in part, those that the challenger's
schema refuses, and those of a model whose bundle is not there. What LOG_SAMPLE left out is not in the log at all.

Writes build/replay.json and build/replay.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import DataError, Tables, microseconds
from closedloop.heads.bundle import Bundle, BundleError, load
from closedloop.log.answers import ANOMALY
from closedloop.log.sink import Sink
from closedloop.watch.logged_requests import Requests
from closedloop.watch.replay import Answerer, Answers, Change, Replay, replay
from model.common import cli, params, request_log

DAYS = 7.0
MOST = 20  # machines in the text; the JSON has all whose alarms changed
LEFT_OUT = {
    "partial": "of which the log kept only a part (LOG_FIELDS)",
    "incompatible": "that the challenger's schema refuses",
    "unknown_model": "of models whose bundle is not here",
    "sent_again": "that were sent again",
    "erased": "that an order of erasure leaves out",
}


def answerer(bundle: Bundle, folder: Path) -> Answerer:
    """Return a bundle as a model that answers requests.

    Raises:
        DataError: the bundle was not written.
    """
    if bundle.manifest is None:
        raise DataError(f"{folder}: the bundle has no manifest; train again")
    components = bundle.schema.components

    def predict(tables: Tables) -> Answers:
        given = bundle.predict(tables, last_only=True)
        answers: Answers = {}
        machines = tables.named(given.machine).tolist()
        for row, key in enumerate(zip(machines, given.time.tolist(), strict=True)):
            heads = {}
            if not np.isnan(given.anomaly_score[row]):
                heads[ANOMALY] = float(given.anomaly_score[row]), bool(given.anomaly_alarm[row])
            for component, chance, alarm in zip(
                components, given.probability[:, row], given.alarm[:, row], strict=True
            ):
                if not np.isnan(chance):
                    heads[component] = float(chance), bool(alarm)
            answers[key] = heads
        return answers

    return Answerer(bundle.manifest.model_digest, bundle.schema, predict)


def served(folders: Sequence[Path]) -> dict[str, Answerer]:
    """Return the models of these folders by digest; one that this code cannot load is left out with a warning."""
    found = {}
    for folder in folders:
        try:
            model = answerer(load(folder), folder)
        except BundleError as error:
            cli.say(f"warning: left out: {error}")
            continue
        found[model.digest] = model
    return found


def run(
    place: str, version: int | None, days: float, models: dict[str, Answerer], challenger: Answerer, gap_us: int
) -> Replay:
    """Return what the challenger would have answered.

    Raises:
        DataError: there is no log, or it cannot be read.
    """
    with request_log.reading(place):
        requests = Requests.of(Sink.at(place, os.environ), days, version)
        cli.say(f"replaying {to_text(requests.since)} to {to_text(requests.until)}")
        return replay(requests, models, challenger, gap_us)


def as_json(found: Replay, challenger: str) -> dict[str, Any]:
    """Return the outcome as JSON, times as texts."""
    changed = [one for one in found.changes if one.gained or one.lost]
    return {
        "challenger": challenger,
        "since": to_text(found.since),
        "until": to_text(found.until),
        "records": dict.fromkeys(("replayed", *LEFT_OUT), 0) | dict(found.records) | {"mismatched": found.mismatched},
        "models": dict(found.models),
        "unknown_models": dict(found.unknown),
        "answers": found.answers,
        "alarms": totals(found.changes),
        "machines": [
            asdict(one) | {"gained": [*map(to_text, one.gained)], "lost": [*map(to_text, one.lost)]} for one in changed
        ],
        "mismatches": [asdict(one) | {"time": to_text(one.time)} for one in found.mismatches],
    }


def totals(changes: Sequence[Change]) -> dict[str, int]:
    """Return the alarms of all machines together."""
    return {
        "served": sum(one.served for one in changes),
        "challenger": sum(one.challenger for one in changes),
        "gained": sum(len(one.gained) for one in changes),
        "lost": sum(len(one.lost) for one in changes),
    }


def in_words(content: dict[str, Any]) -> str:
    """Return the outcome as Markdown, for the evidence and the pull request."""
    records, alarms = content["records"], content["alarms"]
    lines = ["### Replayed requests", ""]
    if records["mismatched"]:
        lines += [f"**{records['mismatched']:,} answers cannot be given again.** Their own model answers otherwise, so "
                  "the log or the code is not what was served. Do not merge before that is explained.", ""]  # fmt: skip
        lines += [
            f"- request `{one['request_id']}`, machine {one['machine']}, {one['head']}: logged {_told(one['logged'])}, "
            f"now {_told(one['replayed'])}"
            for one in content["mismatches"][:3]
        ] + [""]
    lines += [f"The challenger answered {records['replayed']:,} requests of {content['since'][:10]} to "
              f"{content['until'][:10]} again: {alarms['served']:,} alarms were raised, it would raise "
              f"{alarms['challenger']:,} ({alarms['gained']:,} gained, {alarms['lost']:,} lost).", ""]  # fmt: skip
    if skipped := [f"{records[name]:,} {why}" for name, why in LEFT_OUT.items() if records[name]]:
        lines += [f"Not replayed: {'; '.join(skipped)}.", ""]
    if machines := content["machines"]:
        lines += ["| machine | alarms | would be | gained | lost |", "| --- | ---: | ---: | --- | --- |"]
        lines += [
            f"| {str(one['machine']).replace('|', chr(92) + '|')} | {one['served']} | {one['challenger']} "
            f"| {_hours(one['gained'])} | {_hours(one['lost'])} |"
            for one in machines[:MOST]
        ]
        if more := len(machines) - MOST:
            lines += ["", f"And {more:,} more machines: see replay.json."] if more > 0 else []
    return "\n".join(lines).rstrip() + "\n"


def _told(answer: Sequence[Any] | None) -> str:
    return "nothing" if answer is None else f"{answer[0]!r}{', alarm' if answer[1] else ''}"


def _hours(times: Sequence[str]) -> str:
    shown = ", ".join(time[:16].replace("T", " ") for time in times[:3])
    return shown + (f" and {len(times) - 3} more" if len(times) > 3 else "")


def main(words: list[str]) -> int:
    """Write replay.json and replay.md, and print what would change; 1 where an answer cannot be given again."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder to write to")
    flags.add_argument("--log", default=os.environ.get("LOG_SINK", ""), help="the log (default: LOG_SINK)")
    flags.add_argument("--version", type=int, help="version of the table requests (default: the newest)")
    flags.add_argument("--days", type=float, default=DAYS, help="how many days to replay (default: %(default)g)")
    flags.add_argument("--served", type=Path, action="append", default=[], metavar="BUNDLE",
                       help="bundle of a release that answered; may be given several times")  # fmt: skip
    args = flags.parse_args(words)
    if not args.log:
        raise DataError("no log is named; set LOG_SINK, or name the folder or address with --log")
    if not args.days > 0:
        raise DataError(f"--days {args.days:g}: name a time above 0")
    asked = params.load(args.params)
    challenger = answerer(load(args.bundle), args.bundle)
    gap_us = microseconds(asked.judge["episode_gap_hours"])
    found = run(args.log, args.version, args.days, served(args.served), challenger, gap_us)
    content = as_json(found, challenger.digest)
    cli.write_json(args.out / "replay.json", content)
    text = in_words(content)
    (args.out / "replay.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return cli.REFUSED if found.mismatched else cli.DONE


if __name__ == "__main__":
    cli.main(main)
