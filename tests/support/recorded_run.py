"""The files of a run that was judged, as the commands that record and register it find them in build/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from closedloop.data.schema import Schema
from closedloop.heads.bundle import Bundle, write
from model.common import cli


def write_run(out: Path, bundle: Bundle, schema: Schema, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write bundle, report, figures and data.json of a run, without its decision; return the content of data.json."""
    write(bundle, out / "bundle")
    (out / "report").mkdir()
    (out / "report/index.html").write_text("<h1>report</h1>")
    cli.write_json(out / "metrics.json", metrics)
    data = {
        "source": "plant",
        "schema": schema.to_dict(),
        "parts": [{"kind": "simulator", "seed": 11}],
        "fingerprint": "sha256:" + "a" * 64,
        "holdout_fingerprint": "sha256:" + "b" * 64,
    }
    cli.write_json(out / "data/data.json", data)
    return data
