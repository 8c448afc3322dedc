"""GitHub as the line's programs see it: ``gh`` is the only client, and a run's page is where people look.

On a laptop the same programs print what they would put on that page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class LineError(Exception):
    """What stops a program of the line, in one line that says what to do."""


def call(*words: str, stdin: str | None = None) -> str:
    """What a command prints.

    Raises:
        LineError: it is not here, or it failed; with its last line.
    """
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LineError(f"{words[0]} cannot be run: {error.strerror}; install it") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LineError(f"{' '.join(words[:3])} exited {done.returncode}: {last}")
    return done.stdout


def gh(*words: str, stdin: str | None = None) -> str:
    """What ``gh`` prints. Raises LineError where it fails."""
    return call("gh", *words, stdin=stdin)


def objects(path: str) -> list[dict[str, Any]]:
    """Every object of a list of the API, over all its pages; ``path`` is below repos/OWNER/NAME."""
    lines = gh("api", "--paginate", f"repos/{repository()}/{path}", "--jq", ".[] | tojson")
    return [json.loads(line) for line in lines.splitlines()]


def setting(name: str) -> str:
    """A variable of the environment that the workflow sets.

    Raises:
        LineError: it is not there.
    """
    if not (value := os.environ.get(name, "")):
        raise LineError(f"{name} is not set; the workflow that calls this sets it")
    return value


def repository() -> str:
    """``owner/name``."""
    return setting("GITHUB_REPOSITORY")


def run_url() -> str:
    """The page of this run."""
    return f"{setting('GITHUB_SERVER_URL')}/{repository()}/actions/runs/{setting('GITHUB_RUN_ID')}"


def output(**values: str | bool) -> None:
    """Hand values to the jobs that follow, and print them."""
    lines = "".join(
        f"{name}={str(value).lower() if value in (True, False) else value}\n" for name, value in values.items()
    )
    if len(lines.splitlines()) != len(values):
        raise LineError("a value with a line break would forge another")
    print(literal(lines), end="")
    if file := os.environ.get("GITHUB_OUTPUT"):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(lines)


def literal(text: str) -> str:
    """Text for the log of a run, which takes a line that begins with ``::`` or ``##[`` for a command."""
    return re.sub(r"^(\s*)(?=::|##\[)", r"\1\\\\", text.replace("\r", "\n"), flags=re.MULTILINE)


def tell(text: str) -> None:
    """Put text on the page of this run, where a person looks first; here, print it."""
    print(literal(text))
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n\n")


def main(verbs: dict[str, Callable[[], None]]) -> int:
    """Do the verb that the command line names. Exit code 1: it was refused, and the page says why; 2: no such verb."""
    verb = verbs.get(" ".join(sys.argv[1:]))
    if verb is None:
        print(f"{sys.argv[0]}: say one of: {', '.join(verbs)}", file=sys.stderr)
        return 2
    try:
        verb()
    except LineError as error:
        if file := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(file).open("a", encoding="utf-8") as stream:
                stream.write(f"🔴 {error}\n\n")
        prefix = "::error::" if os.environ.get("GITHUB_ACTIONS") == "true" else ""
        print(f"{prefix}{' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
