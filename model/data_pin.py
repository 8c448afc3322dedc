"""Find what the data pin should name, and fetch it: the first half of make data-pin.

Without --source these are the pinned places as they are now: changed files, and newer versions of Delta tables and of a
log. --source names another place: a folder of the repository, an az://, s3:// or gs:// address, or addresses of files
on a web server; with a log, Delta tables or files in it. The tables go to build/data; once they are valid, python -m
model.validate --pin writes model/data.lock.json.
"""

from __future__ import annotations

from typing import Any

from closedloop.data.schema import DataError
from model.common import cli, data_pin, params, pin_making, pin_rules, request_log


def parts_of(pin: dict[str, Any], source: str | None, add: bool, asked: params.Params) -> list[dict[str, Any]]:
    """Return the parts that the pin should name.

    Raises:
        DataError: a place cannot be read.
    """
    if source is None:
        return [pin_making.moved(part, asked) for part in pin["parts"]]
    part = pin_making.part_of(source, asked)
    return [*pin["parts"], part] if add else [part]


def within(parts: list[dict[str, Any]], times: dict[str, str]) -> list[dict[str, Any]]:
    """Return the parts with a time range for those of kind ``delta``.

    Raises:
        DataError: there is no such part, or a time cannot be read.
    """
    if not times:
        return parts
    if all(part["kind"] != "delta" for part in parts):
        raise DataError("--from and --until: only Delta tables have a time range, and no part is of kind delta")
    limited = [part | times if part["kind"] == "delta" else part for part in parts]
    if slips := pin_rules.check({"fingerprint": "", "parts": limited}):
        raise DataError(str(slips[0]))
    return limited


def unpin(pin: dict[str, Any], name: str, source: str | None) -> None:
    """Remove a pin from a log's sink.

    Raises:
        DataError: the data pin needs it, or no log is named.
    """
    logs = [part for part in pin["parts"] if part["kind"] == "log"]
    if any(request_log.pin_id(part) == name for part in logs):
        raise DataError(f"--unpin {name}: model/data.lock.json names these versions; move it first: make data-pin")
    if source is None and not logs:
        raise DataError("--unpin: no log is pinned; name its sink with DATA=")
    place = {"location": source} if source else logs[0]
    request_log.release(place, name)
    print(f"{place['location']} no longer keeps what {name} pinned")


def main(words: list[str]) -> None:
    """Write build/data/PdM_*.parquet and build/data/data.json of the parts that are to be pinned."""
    flags = cli.parser(__doc__, out=cli.DATA, writes="folder to write the tables to")
    flags.add_argument("--source", metavar="PLACE", help="pin this place instead of those that are pinned")
    flags.add_argument("--add", action="store_true", help="pin the place beside those that are pinned")
    flags.add_argument("--from", dest="start", metavar="TIME", help="of Delta tables, the first time that is read")
    flags.add_argument("--until", metavar="TIME", help="of Delta tables, the first time that is read no more")
    flags.add_argument("--unpin", metavar="ID", help="let a log's upkeep remove what this pin of its sink keeps")
    args = flags.parse_args(words)
    pin = data_pin.load()
    if args.unpin:
        unpin(pin, args.unpin, args.source)
        return
    asked = params.load(args.params)
    times = {key: value for key, value in (("from", args.start), ("until", args.until)) if value}
    parts = within(parts_of(pin, args.source, args.add, asked), times)
    frames, anomalies = data_pin.fetch(parts, asked)
    about = {"source": asked.source, "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    about |= {"parts": parts, "local": False, "pinned": pin["fingerprint"]}
    data_pin.store(args.out, frames, anomalies, about)


if __name__ == "__main__":
    cli.main(main)
