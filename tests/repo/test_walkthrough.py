"""The notebook leaves nothing behind: its cells, run in order by plain Python, with stand-ins for what they start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "notebooks/walkthrough.py"

SERVICE = """
import http.server, os
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

Path("pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
  *current-context*) echo kind-one ;;
  *'get namespace'*) ;;
  $FAILS) exit 1 ;;
  *) echo done ;;
esac
"""


def cells(*holding: str) -> str:
    """Return the code of the notebook's first cell, and of those that hold a text."""
    parts = re.split(r"^# %%(.*)\n", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    code = [text for kind, text in zip(parts[::2], parts[1::2], strict=True) if "markdown" not in kind]
    found = [next(text for text in code if one in text) for one in holding]
    return "\n".join([code[0], *found])


def played(folder: Path, code: str, fails: str) -> list[str]:
    """Run code in a folder where some commands fail; return the commands that it ran."""
    (folder / "pyproject.toml").touch()
    (folder / "score").mkdir()
    (folder / "score/__init__.py").touch()  # before the package of this repository
    (folder / "score/__main__.py").write_text(SERVICE, encoding="utf-8")
    (folder / "IPython").mkdir()
    (folder / "IPython/display.py").write_text("Markdown = display = print\n", encoding="utf-8")
    (folder / "pandas.py").touch()
    (folder / "matplotlib").mkdir()
    (folder / "matplotlib/pyplot.py").touch()
    for name in ("docker", "kubectl", "kind", "make"):
        (folder / name).write_text(PROGRAM.replace("$FAILS", fails), encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / "cells.py").write_text(code, encoding="utf-8")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    kept = {"PATH": path, "CALLS": str(folder / "calls"), "PYTHONPATH": str(folder), "DOCKER": "docker"}
    with (folder / "said").open("w") as said:
        done = subprocess.run([sys.executable, "cells.py"], cwd=folder, env=kept, stdout=said, stderr=said, timeout=60)
    lines = (folder / "said").read_text(encoding="utf-8")
    assert done.returncode == 1, lines
    assert "made to fail" in lines or "ended with 1" in lines, lines
    return (folder / "calls").read_text(encoding="utf-8").splitlines() if (folder / "calls").exists() else []


def test_a_cell_that_fails_leaves_no_service_behind(tmp_path: Path) -> None:
    played(tmp_path, cells('"score"]') + "\nraise SystemExit('made to fail')\n", "nothing")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # which also ends what this test would leave


@pytest.mark.parametrize("fails", ["*apply*", "*'rollout status'*"])
def test_a_pod_that_does_not_start_leaves_no_namespace_behind(tmp_path: Path, fails: str) -> None:
    """It would also be the reason why the next run skips the cluster."""
    calls = played(tmp_path, cells("info --format", "kubectl apply"), fails)
    assert calls[-1] == "kubectl delete namespace closedloop --ignore-not-found --wait=true"


def test_a_container_that_does_not_start_is_removed(tmp_path: Path) -> None:
    calls = played(tmp_path, cells("info --format", "--read-only"), "run*")
    assert calls[-1].startswith("docker rm --force closedloop-walkthrough-")
