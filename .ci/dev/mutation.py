"""Measure the mutation score of the modules that decide a verdict: ``make mutation``.

mutmut changes the modules of ``[tool.mutmut]`` in pyproject.toml one expression at a time, and runs the tests that
reach it. It works on a copy in build/, where its results stay: ``cd build/mutation && mutmut browse`` shows each
survivor. Equivalent mutants, which no test could kill, are listed in tests/README.md and count as alive.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "build" / "mutation"
AT_LEAST = 0.90
KILLED = {"killed", "timeout"}


def main() -> int:
    """Print the score of each module and return the exit code; 1: one is below ``AT_LEAST``."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for name in ("src", "model", "tests"):
        shutil.copytree(ROOT / name, STAGE / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", STAGE)
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(os.cpu_count() or 1)]
    subprocess.run(command, cwd=STAGE, check=True, stdout=sys.stderr)
    red = False
    for meta in sorted(STAGE.glob("mutants/src/**/*.meta")):
        found = {
            name: status_by_exit_code[code] for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
        }
        alive = sorted(name for name, status in found.items() if status not in KILLED)
        score = 1 - len(alive) / len(found)
        red |= score < AT_LEAST
        print(f"{meta.stem}: {len(found) - len(alive)} of {len(found)} killed, {score:.1%} (at least {AT_LEAST:.0%})")
        for name in alive:
            print(f"  {name} {found[name]}")
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
