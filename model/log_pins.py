"""Pin in the log's sinks what main, the open proposal and the releases name, so that upkeep keeps it readable.

--wanted is build/log-pins.json, which make log-pins collects: the log parts by kind of pin. Each gets its file
_pins/<kind>-<versions>.json. Pins of these kinds that nobody wants any more are removed; what a person pinned with make
data-pin stays. It can be run again at any time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from closedloop.data.schema import DataError
from closedloop.log import pins
from closedloop.log.sink import FAULTS, SinkError, one_line
from model.common import cli, places, provenance, request_log

KINDS: tuple[pins.Kind, ...] = ("main", "proposal", "release")


def place_of(location: str) -> str:
    """Return where a log lies, a folder in full: a part names it from the repository, and LOG_SINK as one likes."""
    return location.rstrip("/") if places.is_remote(location) else str((provenance.ROOT / location).resolve())


def wanted_in(sinks: dict[str, dict[str, Any]], wanted: dict[str, list[dict[str, Any]]]) -> dict[str, list[pins.Pin]]:
    """Return the pins that each sink should have, by its place; ``sinks`` gets a part for each of them."""
    result: dict[str, list[pins.Pin]] = {place: [] for place in sinks}
    for kind in KINDS:
        for part in wanted[kind]:
            if provenance.in_actions() and not places.is_remote(part["location"]):
                continue  # a folder of the checkout, which ends with the run
            place = place_of(part["location"])
            sinks.setdefault(place, part)
            versions = {table: version for table, version in part["versions"].items() if version is not None}
            pin = pins.Pin(request_log.pin_id(part, kind), kind, versions, part["commit"])
            result.setdefault(place, []).append(pin)
    return result


def settle(part: dict[str, Any], wanted: list[pins.Pin]) -> tuple[int, int]:
    """Make the pins of a sink those that are wanted; return how many were written and removed.

    What is wanted is written first, so that no version is without a pin in between.
    """
    sink = places.sink(part)
    there = {pin.id: pin for pin in pins.find(sink)}
    new = {pin.id: pin for pin in wanted if pin.id not in there}
    for pin in new.values():
        try:
            pins.put(sink, pin)
        except SinkError as error:
            if pin.kind != "release":
                raise
            cli.say(f"warning: commit {pin.commit[:12]} of a release cannot be trained again: {one_line(error)}")
    kept = {pin.id for pin in wanted}
    gone = [name for name, pin in there.items() if name.startswith(f"{pin.kind}-") and name not in kept]
    for name in gone:
        pins.remove(sink, name)
    return len(new), len(gone)


def main(words: list[str]) -> None:
    """Write and remove pins, and print how many."""
    flags = cli.parser(__doc__)
    flags.add_argument("--wanted", type=Path, default=cli.BUILD / "log-pins.json", help="what must be kept")
    flags.add_argument("--log", default=os.environ.get("LOG_SINK", ""), help="the sink (default: LOG_SINK)")
    args = flags.parse_args(words)
    sinks: dict[str, dict[str, Any]] = {}
    own = place_of(args.log if places.is_remote(args.log) else str(Path(args.log).resolve())) if args.log else ""
    if own and (places.is_remote(own) or not provenance.in_actions()):
        sinks[own] = {"location": own, **places.said(own)}
    wanted = wanted_in(sinks, cli.read_json(args.wanted, "run: make log-pins"))
    for place, part in sinks.items():
        try:
            new, gone = settle(part, wanted[place])
        except (SinkError, *FAULTS) as error:
            said = (
                f"{place}/_pins: cannot be kept up to date ({one_line(error)}), so upkeep may remove what main, a "
                "proposal or a release names; run it with an identity that may write to the sink"
            )
            if any(pin.kind != "release" for pin in wanted[place]) or place == own:
                raise DataError(said) from error
            cli.say(f"warning: {said}")  # a log that only older releases learned from may be gone
            continue
        print(f"{place}: {len(wanted[place])} pins, {new} new, {gone} removed")


if __name__ == "__main__":
    cli.main(main)
