"""Say whether the world has moved since the training of a bundle: the last two weeks of tables, or a log, against it.

Writes build/drift/drift.json and build/drift/index.html. Sensors, missing readings, errors and the anomaly score are
tested; new machines, machine models and codes are named. Something has moved where both weeks show it. Drift is no
verdict on a model: it never releases one and never stops one, so the exit code is 0 whatever has moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.heads.bundle import load
from closedloop.report import monitor_page
from closedloop.watch.drift import in_words
from model.common import cli, params, request_log
from model.common.last_weeks import as_json, report


def compare(folder: Path, data: Path | str, out: Path, split: Mapping[str, Any]) -> dict[str, str]:
    """Write drift.json and its page into ``out``; return the ``verdict`` and, as ``words``, what moved.

    Args:
        folder: of the bundle.
        data: folder of the tables, or a log: a folder or an address.
        out: folder to write to.
        split: the section of the parameters that says which machines are held out.

    Raises:
        DataError: the bundle or the tables cannot be read, or cannot be compared.
    """
    bundle = load(folder)
    if request_log.is_log(str(data)):
        frames, _ = request_log.fetch(str(data), bundle.schema)
    else:
        frames = sources.read_frames(Path(data), {}, machine_id=bundle.schema.machine_id)
    found, shown = report(bundle, frames, split)
    manifest = cli.read_json(folder / "manifest.json", "train again")
    content = as_json(found, manifest["bundle_digest"])
    cli.write_json(out / "drift.json", content)
    monitor_page.write(out / "index.html", drift=content, pictures=shown)
    return {"verdict": found.verdict, "words": in_words(found)}


def main(words: list[str]) -> None:
    """Write drift.json and its page, and print what moved."""
    flags = cli.parser(__doc__, data=str(cli.DATA), out=cli.BUILD / "drift", writes="folder to write to")
    args = flags.parse_args(words)
    found = compare(args.bundle, args.data, args.out, params.load(args.params).split)
    print(f"{found['verdict']}: {found['words']}")
    print(f"page: {args.out / 'index.html'}")


if __name__ == "__main__":
    cli.main(main)
