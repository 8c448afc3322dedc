"""A retraining: which log it learns from, the pin that it proposes, and its evidence in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.data.schema import DataError
from closedloop.log.tables import FEEDBACK, REQUESTS
from closedloop.watch.label_counts import mostly_censored
from model.common import pin_making, pinned_files, places, provenance
from model.common.params import Params

NO_LOG = "no log is configured"
HOLDS = {"rows": "rows", "machines": "machines", "failures": "failures", "first": "from", "last": "until"}
VERSIONS = re.compile(rf"(?:{REQUESTS}|{FEEDBACK})=\d+")


def skipped(pin: Mapping[str, Any], place: str) -> str:
    """Return why there is no log to train on here, or an empty text where there is one."""
    if not place and all(part["kind"] != "log" for part in pin["parts"]):
        return NO_LOG
    if place and provenance.in_actions() and not places.is_remote(place):
        where = "on a volume that Actions cannot read; ship the log to az://, s3:// or gs://"
        return f"LOG_SINK is the folder {place}, {where}"
    return ""


def versions(text: str) -> dict[str, int]:
    """Return the versions that ``requests=12,feedback=3`` names, by table.

    Raises:
        DataError: the text is of another form.
    """
    named = [one for one in re.split(r"[,\s]+", text) if one]
    if wrong := [one for one in named if not VERSIONS.fullmatch(one)]:
        raise DataError(f"--versions: {wrong[0]!r} is no version of a table; write for instance requests=12,feedback=3")
    return {table: int(number) for table, number in (one.split("=") for one in named)}


def candidate(pin: Mapping[str, Any], place: str, asked_for: Mapping[str, int], asked: Params) -> list[dict[str, Any]]:
    """Return the parts of the pin with each log at its newest versions; the log at ``place`` joins if it is new.

    Args:
        pin: content of ``model/data.lock.json``.
        place: the sink, or an empty text for the logs that are pinned.
        asked_for: versions of that log's tables that are taken in place of the newest.
        asked: the parameters.

    Raises:
        DataError: a log cannot be read, or it is not clear which log the versions are of.
    """
    location = _location(place)
    parts = [pin_making.moved(part, asked) if part["kind"] == "log" else part for part in pin["parts"]]
    if location and all(part["location"] != location for part in parts if part["kind"] == "log"):
        joining = pin_making.part_of(place, asked)
        if joining["kind"] != "log":
            raise DataError(f"{place}: there is no log; name the folder or address that LOG_SINK has")
        parts.append(joining)
    if not asked_for:
        return parts
    mine = [part for part in parts if part["kind"] == "log" and location in ("", part["location"])]
    if len(mine) != 1:
        raise DataError(f"--versions: {len(mine)} logs are pinned; say with LOG_SINK which one they are of")
    return [part | {"versions": part["versions"] | asked_for} if part is mine[0] else part for part in parts]


def _location(place: str) -> str:
    """Return a sink as a part of the pin names it."""
    if not place or places.is_remote(place):
        return place.rstrip("/")
    return pinned_files.location_of(Path(place))


def joins(about: Mapping[str, Any]) -> bool:
    """Return whether a log joins the pin for the first time, from ``retrain.json``."""
    return any(log["before"] is None for log in about["logs"])


def summary(about: Mapping[str, Any], verdict: str) -> str:
    """Return the evidence for a person.

    Args:
        about: content of ``retrain.json``.
        verdict: the summary of the report: verdict, figures and intervals.
    """
    lines = ["## New data", "", "| | pinned | proposed |", "| :-- | --: | --: |"]
    was, now = about["pinned"], about["holds"]
    lines += [f"| {word} | {_shown(was.get(key))} | {_shown(now[key])} |" for key, word in HOLDS.items()]
    lines.append("")
    lines += [f"{_log(log)}  " for log in about["logs"]]
    if joins(about):
        lines += ["", "A log joins the pinned data, so the models cannot be compared: a person decides. "
                  "Read the figures below; to accept the model, run `make accept WHY=…` on this branch."]  # fmt: skip
    lines += ["", "## Labels", "", *_labels(about["labels"])]
    moved = about["drift"]
    lines += ["", "## Drift", "", f"{moved['verdict'].capitalize()}: {moved['words']}.", ""]
    return "\n".join(lines) + "\n" + verdict


def _log(log: Mapping[str, Any]) -> str:
    """Return one log of the pin in words."""

    def said(of: Mapping[str, int | None]) -> str:
        return ", ".join(f"{table} {'none' if number is None else number}" for table, number in sorted(of.items()))

    before = "not pinned before" if log["before"] is None else f"before: {said(log['before'])}"
    return f"Log: {log['location']} at {said(log['versions'])} ({before})"


def _labels(counts: Mapping[str, int] | None) -> list[str]:
    """Return what became of the labels, and a warning where most may be missing."""
    if counts is None:
        return ["No failures are known, so there are no labels."]
    lines = [
        "- matured: {positive:,} rows before a failure and {healthy:,} healthy ones".format(**counts),
        "- unknown: {immature:,} rows, whose reports are still to come".format(**counts),
        "- censored: {censored:,} rows before a replacement that may have prevented a failure".format(**counts),
        "- foreseen: {prevented:,} replacements found the component worn; {found_sound:,} found it sound".format(
            **counts
        ),
        "- {failures:,} failures; {censoring:,} replacements without a finding".format(**counts),
    ]
    if not counts["healthy"]:
        lines.append("- ⚠️ no row is known to be healthy: send `complete_until` to `/feedback`")
    if mostly_censored(dict(counts)):
        lines.append(
            "- ⚠️ replacements without a finding hide more failures than were seen, so this model may have unlearned "
            "what the last one foresaw: send `finding` to `/feedback`"
        )
    return lines


def _shown(value: Any) -> str:
    return "not known" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def closing(about: Mapping[str, Any], out: Path) -> list[str]:
    """Return what a person does next, from ``retrain.json`` with the verdict."""
    lines, verdict = [f"evidence: {out / 'summary.md'}"], about["verdict"]
    if verdict == "better" or (verdict == "incomparable" and joins(about)):
        lines.append(
            f"next: retrain.yml opens a pull request with it; by hand: cp {out / provenance.PIN.name} model/, commit, "
            "make pr"
        )
    else:
        lines.append(f"next: nothing to propose, since the verdict is {verdict}")
    return lines
