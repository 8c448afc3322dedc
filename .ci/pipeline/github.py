"""GitHub as the programs of .ci see it: ``gh`` is the only client, and a run's summary page is where people look.

Outside GitHub Actions the same programs print what they would write to that page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


# What gh says where GitHub's limit of requests is reached; nothing was done then, so that any call may be repeated.
LIMITED = re.compile(r"rate limit.*HTTP 403|HTTP 403.*rate limit|HTTP 429", re.IGNORECASE | re.DOTALL)
LIMITS = ("remaining", "reset")  # the headers that tell it
LEAST_PAUSE = 60  # seconds, where GitHub does not say how many
MOST_PAUSE = 180  # in all: a job that needs a minute has five


class PipelineError(Exception):
    """A program of .ci cannot go on; the message is one line that says what failed and what to do.

    ``said`` is all that a command wrote to standard error, where one failed.
    """

    said = ""


def call(*words: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output; ``env`` is added to the environment.

    Raises:
        PipelineError: the command is not installed or failed; the message ends with the last line that it wrote.
    """
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(words, input=stdin, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        how = "install GitHub's command line, then run `gh auth login`" if words[0] == "gh" else "install it"
        raise PipelineError(f"{words[0]} is not on PATH: {how}") from None
    except OSError as error:
        raise PipelineError(f"{words[0]} cannot be run: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"`{' '.join(words[:3])}` wrote what is no UTF-8: {error.object[:80]!r}") from error
    if done.returncode:
        last = ((done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"])[-1]
        failed = PipelineError(f"`{' '.join(words[:3])}` exited with {done.returncode}: {last}")
        failed.said = done.stderr
        raise failed
    return done.stdout


def gh(*words: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run ``gh`` and return its standard output; where GitHub's limit is reached, wait as long as it asks, and repeat.

    Raises:
        PipelineError: as for :func:`call`, or the limit lasts longer than MOST_PAUSE.
    """
    waited = 0.0
    while True:
        try:
            return call("gh", *words, stdin=stdin, env=env)
        except PipelineError as error:
            if not LIMITED.search(error.said):
                raise
            pause = asked_pause(env)
            if waited + pause > MOST_PAUSE:
                raise PipelineError(
                    f"{error}. GitHub's limit lasts {pause:.0f} s more; run this job again then"
                ) from error
            print(f"GitHub's limit of requests is reached: waiting {pause:.0f} s", file=sys.stderr)
            time.sleep(pause)
            waited += pause


def asked_pause(env: Mapping[str, str] | None = None) -> float:
    """Return for how many seconds GitHub wants no request: its ``retry-after``, the rest of the hour, or a minute.

    docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api, "Exceeding the rate limit"; asking for the
    limit does not count.
    """
    words, environment = ["gh", "api", "--include", "rate_limit"], {**os.environ, **(env or {})}
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout
    if found := re.search(r"^retry-after: *(\d+)", answer, re.IGNORECASE | re.MULTILINE):
        return max(float(found[1]), 1.0)
    left = {key: re.search(rf"^x-ratelimit-{key}: *(\d+)", answer, re.IGNORECASE | re.MULTILINE) for key in LIMITS}
    if left["remaining"] and left["reset"] and left["remaining"][1] == "0":
        return max(float(left["reset"][1]) - time.time() + 1, 1.0)
    return LEAST_PAUSE


def listed(path: str, key: str = "", env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return every object of a list in the API, over all pages; ``key`` is its name where an object holds the list.

    GitHub answers 30 at once, 10 variables, where nothing else is asked for (docs.github.com, "Using pagination in the
    REST API").
    """
    page = f"{path}{'&' if '?' in path else '?'}per_page=100"
    lines = gh("api", "--paginate", page, "--jq", f".{key}[] | tojson", env=env)
    return [json.loads(line) for line in lines.splitlines()]


def objects(path: str, key: str = "") -> list[dict[str, Any]]:
    """Return :func:`listed` of this run's repository; ``path`` is relative to repos/OWNER/NAME."""
    return listed(f"repos/{repository()}/{path}", key)


def issues() -> list[dict[str, Any]] | None:
    """Return the open issues; None where the repository has none, as a fork: the summary page says so.

    GitHub answers 410 there (docs.github.com/rest/issues/issues).
    """
    try:
        return [one for one in objects("issues?state=open") if "pull_request" not in one]
    except PipelineError as error:
        if "HTTP 410" not in str(error):
            raise
    tell("No issue is kept, since this repository has none: Settings → General → Features → Issues.")
    return None


def setting(name: str) -> str:
    """Return an environment variable that the workflow sets.

    Raises:
        PipelineError: it is empty or not set.
    """
    if not (value := os.environ.get(name, "")):
        raise PipelineError(f"{name} is not set; the workflow step that calls this program must set it")
    return value


def repository() -> str:
    """Return the repository of this run as ``owner/name``."""
    return setting("GITHUB_REPOSITORY")


def run_url() -> str:
    """Return the address of this run's page."""
    return f"{setting('GITHUB_SERVER_URL')}/{repository()}/actions/runs/{setting('GITHUB_RUN_ID')}"


def output(**values: str | bool) -> None:
    """Set outputs of the step, for later steps and jobs, and print them.

    Raises:
        PipelineError: a value contains a line break, which would set another output.
    """
    lines = "".join(
        f"{name}={str(value).lower() if value in (True, False) else value}\n" for name, value in values.items()
    )
    if len(lines.splitlines()) != len(values):
        raise PipelineError("an output's value contains a line break, which would set another output")
    print(literal(lines), end="")
    if file := os.environ.get("GITHUB_OUTPUT"):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(lines)


def literal(text: str) -> str:
    """Escape text for a run's log, where a line that begins with ``::`` or ``##[`` is a command."""
    return re.sub(r"^(\s*)(?=::|##\[)", r"\1\\\\", text.replace("\r", "\n"), flags=re.MULTILINE)


def tell(text: str) -> None:
    """Print text, and add it to the summary page of this run where there is one."""
    print(literal(text))
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n\n")


def main(commands: dict[str, Callable[[], None]]) -> int:
    """Run the command that the command line names, and return the exit code.

    0: done. 1: refused; the summary page and standard error say why. 2: there is no such command.
    """
    command = commands.get(" ".join(sys.argv[1:]))
    if command is None:
        name = Path(sys.argv[0]).stem
        print(f"pipeline.{name}: choose one of: {', '.join(commands) or 'no argument'}", file=sys.stderr)
        return 2
    try:
        command()
    except PipelineError as error:
        if file := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(file).open("a", encoding="utf-8") as stream:
                stream.write(f"🔴 {error}\n\n")
        prefix = "::error::" if os.environ.get("GITHUB_ACTIONS") == "true" else ""
        print(f"{prefix}{' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
