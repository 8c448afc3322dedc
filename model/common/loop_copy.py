"""A copy of this repository in which the demonstration runs: its commands, its commits, and its service.

Nothing outside the copy is written, so neither the pin nor the champion of this checkout is touched.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from closedloop.data.schema import DataError
from model.common import provenance, starting_params

FOLDERS, FILES = ("src", "model", "score", "requirements"), ("pyproject.toml", ".gitignore", "README.md", "LICENSE")
READY = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
READY_SECONDS, STOP_SECONDS = 120.0, 120.0
CLIENTS = 3  # that ask at once
_AHEAD = 8  # requests that are made before they can be sent
IDENTITY = ("-c", "user.name=closed-loop", "-c", "user.email=loop@localhost")


class Copy:
    """A copy in a folder. ``said`` is the file that gets what its commands print."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder.resolve(), folder.resolve().parent / "commands.txt"
        self.build, self.log = self.folder / "build", self.folder / "build/log"
        self.sink = self.folder / "build/sink"

    def make(self) -> None:
        """Copy what the commands and the service need, with the code that was compiled for it, into a new repository.

        Its parameters are those of the simulated fleet, whatever fleet this checkout has.

        Raises:
            DataError: git is not there.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.said.write_text("", encoding="utf-8")
        for name in FOLDERS:
            shutil.copytree(provenance.ROOT / name, self.folder / name)
        for name in FILES:
            if (provenance.ROOT / name).exists():
                shutil.copy2(provenance.ROOT / name, self.folder / name)
        shutil.copyfile(starting_params.path(), self.folder / "model/params.yaml")  # where a fleet was adopted, too
        for name in ("accepted.json", starting_params.SIMULATED.name):
            (self.folder / "model" / name).unlink(missing_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("Copy the template")

    def git(self, *words: str) -> str:
        """Run git; return what it prints.

        Raises:
            DataError: it is not there, or it fails.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-C", str(self.folder), *IDENTITY, *words],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
        except FileNotFoundError:
            raise DataError("git is not on PATH, and the demonstration commits and merges; install git") from None
        except subprocess.CalledProcessError as error:
            raise DataError(f"git {words[0]} in {self.folder} failed: {error.stderr.strip()}") from None
        return done.stdout

    def commit(self, subject: str) -> str:
        """Commit everything; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD").strip()

    def run(self, *words: str, settings: Mapping[str, str] = MappingProxyType({})) -> str:
        """Run ``python -m …`` in the copy; return what it prints.

        Raises:
            DataError: it fails; with the last lines that it printed.
        """
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=self.folder, env=self._environment(**settings), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        with self.said.open("a", encoding="utf-8") as said:
            said.write(f"$ python -m {' '.join(words)}\n{done.stderr}{done.stdout}\n")
        if done.returncode:
            last = "\n".join((done.stderr + done.stdout).strip().splitlines()[-5:])
            raise DataError(f"python -m {words[0]} exited {done.returncode}; {self.said} has all that it said:\n{last}")
        return done.stdout

    def _environment(self, **settings: str) -> dict[str, str]:
        """The environment of the copy's programs, in which nothing names this checkout."""
        ours = ("GIT_", "CHAMPION_COMMIT", "BASE_COMMIT", "LOG_", "MLFLOW_", "GITHUB_", "AUTH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = os.pathsep.join([str(self.folder / "src"), str(self.folder)])
        return kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"} | settings

    @contextmanager
    def served(self, bundle: Path) -> Iterator[Client]:
        """Serve a bundle on a free port of this machine; stop it in the end, when its log has been shipped."""
        settings = {
            "MODEL_DIR": str(bundle.resolve()), "LOG_DIR": str(self.log), "LOG_SINK": str(self.sink), "AUTH": "open",
            "PORT": "0", "DRAIN_SECONDS": "0", "STOP_SECONDS": str(int(STOP_SECONDS)),
        }  # fmt: skip
        output = self.build / "service.txt"
        with output.open("ab") as file:
            start = output.stat().st_size
            process = subprocess.Popen(
                [sys.executable, "-m", "score"],
                cwd=self.folder,
                env=self._environment(**settings),
                stdout=file,
                stderr=file,
            )
        try:
            yield Client(_port(process, output, start))
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise DataError(f"the service did not stop in time; see {output}") from None
        # a service that stops as soon as it has started leaves its log to the next start: here that is now
        self.run("score.log.ship", "--parent", str(process.pid), settings=settings)


def _port(process: subprocess.Popen[bytes], output: Path, start: int) -> int:
    """The port of a service, once it is ready.

    Raises:
        DataError: it ended, or is not ready in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        said = output.read_bytes()[start:].decode(errors="replace")
        if found := READY.search(said):
            return int(found[1])
        if process.poll() is not None:
            raise DataError(f"the service ended before it was ready; see {output}:\n" + said[-2000:])
        time.sleep(0.1)
    raise DataError(f"the service is not ready after {READY_SECONDS:g} s; see {output}")


class Client:
    """Sends bodies to a service."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._local = threading.local()

    def post(self, route: str, body: dict[str, Any]) -> Any:
        """Send one body; return the answer.

        Raises:
            DataError: the service refused it.
        """
        content = msgspec.json.encode(body)
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", route, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise DataError(f"{route} answered {answer.status}: {said.decode(errors='replace')[:300]}")
        return msgspec.json.decode(said)

    def post_all(self, route: str, bodies: Iterable[dict[str, Any]]) -> int:
        """Send all bodies, several at once; return how many there were."""
        count, bodies = 0, iter(bodies)
        with ThreadPoolExecutor(CLIENTS) as pool:
            while some := list(islice(bodies, _AHEAD)):
                for _ in pool.map(lambda body: self.post(route, body), some):
                    count += 1
        return count
