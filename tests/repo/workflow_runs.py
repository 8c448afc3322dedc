"""Copies of this repository whose workflows a workflow runner (act-run) runs with the real programs, on a log in
Azurite. What such a run needs, and how it ended."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dev import fleets

ROOT = Path(__file__).resolve().parents[2]
PLANT = fleets.OtherFleet(
    {"oil temp [°C]": (61.0, 1.5), "load %": (70.0, 5.0), "flow": (12.0, 0.4)},
    tuple(f"press {line}-{number}" for line in "AB" for number in range(1, 11)),
    days=100,
    minutes=60,
    fails_every_days=8,
    parts=("seal",),
)


def replace(path: Path, recipes: Mapping[str, str]) -> None:
    """Give targets of a makefile another recipe of one line, which needs nothing first."""
    made = path.read_text(encoding="utf-8")
    for target, recipe in recipes.items():
        made, found = re.subn(
            rf"(?m)^({target}:).*\n(\t.+\n)+", lambda match, recipe=recipe: f"{match[1]}\n\t{recipe}\n", made
        )
        assert found == 1, target
    path.write_text(made, encoding="utf-8")


def stand_in(copy: Path, program: str, **settings: object) -> None:
    """Have a copy's makefiles find a stand-in of this folder as ``gh``, which gets settings."""
    folder = copy.parent / "bin"
    folder.mkdir()
    (folder / "gh").symlink_to(ROOT / "tests/repo" / program)
    exported = {"PATH": f"{folder}:$(PATH)"} | settings
    first = "".join(f"export {name} := {value}\n" for name, value in exported.items())
    steps = copy / ".ci/steps.mk"
    steps.write_text(first + steps.read_text(encoding="utf-8"), encoding="utf-8")


def make(copy: Path, *words: str, environ: Mapping[str, str]) -> str:
    """Run make in a copy; what was printed."""
    outer = {name: value for name, value in os.environ.items() if name not in fleets.OF_THIS_PROGRAM}
    command = ["make", "INSTALLED=", *words]  # the environment is this repository's
    done = subprocess.run(command, cwd=copy, env=outer | environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def act(copy: Path, azurite: Mapping[str, str], event: str, workflow: str, *words: str, **variables: str) -> str:
    """Run a workflow that may log in to Azure; what was printed, with the table of the jobs at its end."""
    variables = {"DATA_AZURE_CLIENT_ID": "client", "DATA_AZURE_TENANT_ID": "tenant"} | variables
    given = [word for name, value in azurite.items() for word in ("--env", f"{name}={value}")]
    given += [word for name, value in variables.items() for word in ("--var", f"{name}={value}")]
    command = ["act-run", event, "--repository", "someone/fleet", "-W", f".github/workflows/{workflow}", *given, *words]
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=copy, env=outer, capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    number = len([*copy.parent.glob("run-*.log")])
    (copy.parent / f"run-{number}-{event}-{workflow}.log").write_text(shown, encoding="utf-8")
    assert done.returncode == 0, shown[-6000:]
    return shown


def jobs(shown: str) -> dict[str, str]:
    """The results by job title."""
    rows = re.findall(r"^(.+?) +[\d.]+ s +(\w[\w ]*)$", shown.rpartition("-- jobs\n")[2], re.MULTILINE)
    return {name.rpartition("/")[2]: result for name, result in rows}


def recorded(shown: str) -> str:
    """The actions of a run that were noted and not done."""
    return shown.rpartition("-- recorded, not done")[2]
