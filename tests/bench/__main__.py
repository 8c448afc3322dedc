"""Run every bench and print one table of all figures: ``make bench``.

Exit code 1: a target was missed or a bench failed. The other benches run all the same.
"""

from __future__ import annotations

import json
import subprocess
import sys

from harness import BENCHES, OUT, Point, say, table

NAMES = (
    "tree_walk",
    "answer_parts",
    "explained",
    "large_and_small",
    "ship_rate",
    "named_machines",
    "rolling_features",
    "lasting_shift",
    "gate_error_rates",
    "drift_rates",
    "live_rates",
    "whole_run",
)  # the quick ones first


def main() -> int:
    """Run all of them and print the summary. Returns the exit code."""
    failed, points = [], []
    for name in NAMES:
        written = OUT / f"{name}.json"
        written.unlink(missing_ok=True)
        say(f"{name}.py")
        if subprocess.run([sys.executable, str(BENCHES / f"{name}.py")], check=False).returncode:
            failed.append(name)
        if written.exists():
            points += json.loads(written.read_text(encoding="utf-8"))["points"]
    print(
        "\n" + table([Point(*(point[key] for key in ("what", "figure", "unit", "least", "most"))) for point in points])
    )
    if failed:
        print(f"\nmissed a target or failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
