"""What all commands share: flags, the paths below ``build/``, progress, exit codes, and one line for an error."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from closedloop.data.schema import DataError
from model.common.params import PARAMS

BUILD = Path("build")
DATA, HOLDOUT, BUNDLE = BUILD / "data", BUILD / "holdout", BUILD / "bundle"
PREDICTIONS = BUILD / "predictions.parquet"
CHAMPIONS = BUILD / "champion"  # one folder for each source
DONE, REFUSED, USAGE = 0, 1, 2

_START = time.monotonic()


class RefusedError(Exception):
    """The data or the model was refused: exit code 1."""


def say(text: str) -> None:
    """Print progress on standard error, with the seconds since the start."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)


def parser(
    doc: str | None, *, data: Path | str = DATA, out: Path = BUNDLE, writes: str = "what to write"
) -> argparse.ArgumentParser:
    """Return a parser with the flags that all commands have, and the command's docstring as its help.

    ``data`` is a text where --data may be an address too.
    """
    started = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {started.name}" if started else None  # argparse would name the file
    result = argparse.ArgumentParser(program, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--params", type=Path, default=PARAMS, help="parameter file (default: model/params.yaml)")
    kind, what = (str, ", or a log: a folder or an address") if isinstance(data, str) else (Path, "")
    result.add_argument("--data", type=kind, default=data, help=f"folder of the tables{what} (default: %(default)s)")
    result.add_argument("--bundle", type=Path, default=BUNDLE, help="folder of the bundle (default: %(default)s)")
    result.add_argument("--out", type=Path, default=out, help=f"{writes} (default: %(default)s)")
    return result


def write_json(path: Path, value: Any, sort_keys: bool = False) -> None:
    """Write JSON, with its keys in the order given: that of a fleet's sensors is its owner's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, fix: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        fix: what a person does about a missing or damaged file; part of the error.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {fix}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); {fix}") from None


def main(command: Callable[[list[str]], int | None]) -> None:
    """Run a command and exit: 1 for a refusal, 2 for a wrong input, each with a line on standard error."""
    try:
        sys.exit(command(sys.argv[1:]) or DONE)
    except RefusedError as refused:
        print(f"refused: {refused}", file=sys.stderr)
        sys.exit(REFUSED)
    except DataError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(USAGE)
    except BrokenPipeError:  # whoever read the output, such as head, has left; what came after it was not done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(REFUSED)
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        print(f"error: {what}; fix it and run again", file=sys.stderr)
        sys.exit(USAGE)
