"""A program that a test puts in place of one of a cloud, and that fails at one of its calls."""

from __future__ import annotations

import json
import subprocess
from typing import Any


class FailingProgram:
    """What stands in for ``subprocess.run``: it records the calls, and at call ``dies`` the network goes down.

    With ``after`` the call is carried out all the same, and its answer gets lost. A subclass says in ``answer`` what a
    command exits with and prints as JSON.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.dies, self.after = 0, False

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        down = len(self.calls) == self.dies
        if down and not self.after:
            return subprocess.CompletedProcess(command, 1, "", "the network is down")
        code, answer = self.answer(command)
        if down:
            return subprocess.CompletedProcess(command, 1, "", "the answer got lost")
        return subprocess.CompletedProcess(command, code, json.dumps(answer), "not found" if code else "")

    def answer(self, command: list[str]) -> tuple[int, Any]:
        raise AssertionError(f"nobody says what {command} answers")
