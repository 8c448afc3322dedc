"""The servers that are compared: our service, each peer in two columns and its own environment, and a bare echo.

An environment is made from its lock in ``peers/``, and made again when the lock has changed. A peer that cannot be
installed or does not start is left out and named. To compile the locks again: ``python tests/bench/serve_ways.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import serve_load
from harness import BENCHES, BUNDLE, OUT, say

ROOT = BENCHES.parents[1]
PEERS = BENCHES / "peers"
WORK = OUT.absolute() / "serve"
ENVIRONMENTS = OUT.absolute() / "peers"
SITE = ROOT / "build/wheel/site"
NAMES = ("fastapi", "mlflow", "mlserver", "bentoml", "azmlinfsrv")
UV = Path(sys.executable).with_name("uv")
LOCK_FLAGS = (
    "--quiet",
    "--universal",
    "--python-version",
    "3.11",
    "--no-emit-index-url",
    "--no-header",
    "--no-annotate",
)
START_S = 240.0  # the first start of all compiles, on one core


@dataclass
class Way:
    """One server and how it is asked. ``wrapped`` says how its body is made from that of our service."""

    name: str
    command: list[str]
    environ: dict[str, str]
    port: int
    path: str = "/score"
    content_type: str = "application/json"
    wrapped: str = ""  # "record", "body" or nothing
    ready: str = ""  # a GET to wait for; else the first answer is waited for
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def request(self, body: bytes) -> bytes:
        """The bytes to send for a body."""
        if self.wrapped == "record":
            body = b'{"dataframe_records": [' + body + b"]}"
        elif self.wrapped == "body":
            body = json.dumps({"dataframe_records": [{"body": body.decode()}]}).encode()
        return serve_load.request(self.path, body, self.content_type)

    @property
    def log(self) -> Path:
        """The file with the output of the server."""
        return WORK / f"{self.name.replace(' ', '-')}.log"

    def start(self, cores: set[int] | None) -> None:
        """Start the server on these cores, in a session of its own. :meth:`wait` returns when it answers."""
        own = os.sched_getaffinity(0)
        if cores:
            os.sched_setaffinity(0, cores)
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command,
                    cwd=WORK,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, own)

    def stop(self) -> None:
        """End the server and all that it started: with SIGTERM, then with SIGKILL."""
        if self.process is None:
            return
        started = family(self.process.pid)  # some servers put their workers into sessions of their own
        for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        for process in started:
            with suppress(OSError):
                if Path(f"/proc/{process}/cwd").readlink() == WORK:  # still ours: numbers are used again
                    os.kill(process, signal.SIGKILL)
        self.process = None

    def wait(self, sent: bytes, patience_s: float = START_S) -> bytes | None:
        """The body of the first answer with status 200; None if none came in time or the server ended."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            with suppress(OSError):
                load = serve_load.flat_out(self.port, sent, 1, 0.0, end - time.monotonic())
                if load.statuses[200]:
                    return load.last
            time.sleep(0.2)
        return None

    def processor_s(self) -> float:
        """The processor time in seconds of all processes of the server that still run."""
        ticks = 0
        for process in family(self.process.pid) if self.process is not None else ():
            with suppress(OSError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def last_words(self) -> str:
        """The last line of the server's output; uvicorn ends with one that says less than the one before it."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        said = [line for line in lines if line.strip() and "Application startup failed" not in line]
        return said[-1][:300] if said else "nothing"


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for known in found:
        found += [process for process, parent in parents.items() if parent == known]
    return found


def environment(name: str) -> str | None:
    """Make the peer's environment if it is missing or its lock changed. Returns None, or why that failed."""
    lock, folder = PEERS / f"{name}.txt", ENVIRONMENTS / name
    stamp, digest = folder / ".locked", hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return None
    say(f"{name}: installing its locked requirements into {folder.relative_to(Path.cwd())}")
    shutil.rmtree(folder, ignore_errors=True)
    for words in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        ["pip", "sync", "--quiet", "--python", str(folder / "bin/python"), "--require-hashes", str(lock)],
    ):
        done = subprocess.run([str(UV), *words], capture_output=True, text=True, check=False)
        if done.returncode:
            return " ".join(done.stderr.split())[:300]
    stamp.write_text(digest)
    return None


def ports(count: int) -> list[int]:
    """Some free ports of this machine."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


def environ(**more: str) -> dict[str, str]:
    """The environment of every server: our wheel, one cache of compiled code, and no telemetry."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "BENTOML_", "MLSERVER_"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True"}
    ours = {"MODEL_DIR": str(BUNDLE), "NUMBA_CPU_NAME": os.environ.get("NUMBA_CPU_NAME", "generic")}
    return (
        kept | quiet | ours | {"PYTHONPATH": f"{SITE}{os.pathsep}{PEERS}", "BENTOML_HOME": str(WORK / "bento")} | more
    )


def service(name: str, **settings: str) -> Way:
    """Our service from its wheel, with a log of its own."""
    log = WORK / f"log-{name.replace(' ', '-')}"
    shutil.rmtree(log, ignore_errors=True)
    (port,) = ports(1)
    given = {"LOG_DIR": str(log), "LOG_SINK": "none", "LOG_DURABILITY": "fsync", "AUTH": "open", "PORT": str(port)}
    limits = {"LOG_MAX_BYTES": str(1 << 40), "MAX_IN_FLIGHT_BYTES": str(1 << 30)}  # the peers know no such limits
    return Way(name, [sys.executable, "-m", "score"], environ(**given | limits | settings), port)


def echo() -> Way:
    """The upper limit: uvicorn as our service runs it, with an application that sends back the body."""
    (port,) = ports(1)
    words = ["uvicorn", "echo:app", "--app-dir", str(PEERS), "--http", "httptools", "--loop", "uvloop"]
    words += ["--no-access-log", "--no-server-header", "--log-level", "warning", "--port", str(port)]
    return Way("echo", [sys.executable, "-m", *words], environ(), port)


# long: one branch for each peer, and they share nothing
def peer(name: str, column: str, model: Path) -> Way:
    """A peer in column A (pandas and scikit-learn) or B (our predict), one worker, without any log."""
    port, grpc, metrics = ports(3)
    binaries = ENVIRONMENTS / name / "bin"
    env = environ(BENCH_COLUMN=column, BENCH_MODEL=str(model))
    way = Way(f"{name} {column}", [], env, port)
    if name == "fastapi":
        words = ["fastapi_app:app", "--port", str(port), "--no-access-log", "--log-level", "warning"]
        way.command = [str(binaries / "uvicorn"), *words, "--http", "httptools", "--loop", "uvloop"]
    elif name == "bentoml":
        words = ["serve", "bento_service:Bench", "--working-dir", str(PEERS), "--host", "127.0.0.1"]
        way.command = [str(binaries / "bentoml"), *words, "--port", str(port), "--quiet"]
        way.content_type = "application/json" if column == "A" else "text/plain"
    elif name == "mlserver":
        folder = WORK / way.name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        listens = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
        settings = listens | {"debug": False, "parallel_workers": 0}  # one core: a second process would only copy
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(
            json.dumps({"name": "bench", "implementation": "mlserver_runtime.Bench"})
        )
        way.command = [str(binaries / "mlserver"), "start", str(folder)]
    elif name == "azmlinfsrv":
        entry = PEERS / "azml_entry.py" if column == "A" else SITE / "score/score.py"
        words = [
            "--entry_script",
            str(entry),
            "--model_dir",
            str(BUNDLE),
            "--port",
            str(port),
            "--health_port",
            str(grpc),
        ]
        way.command = [str(binaries / "azmlinfsrv"), *words, "--worker_count", "1"]
    else:
        folder = WORK / way.name.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        save = (
            "import mlflow, sys; mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], pip_requirements=[])"
        )
        subprocess.run(
            [str(binaries / "python"), "-c", save, str(folder), str(PEERS / "mlflow_model.py")],
            env=env,
            cwd=WORK,
            check=True,
            capture_output=True,
        )
        words = ["models", "serve", "--model-uri", str(folder), "--env-manager", "local", "--port", str(port)]
        way.command = [str(binaries / "mlflow"), *words]
        # `mlflow models serve` starts its server by name
        way.environ = env | {"PATH": f"{binaries}{os.pathsep}{env['PATH']}"}
        way.path, way.wrapped = "/invocations", "record" if column == "A" else "body"
    return way


def lock() -> int:
    """Resolve ``peers/*.in`` to hash-locked ``peers/*.txt``, keeping the versions that are there."""
    for name in NAMES:
        words = ["pip", "compile", f"{name}.in", *LOCK_FLAGS, "--generate-hashes", "--output-file", f"{name}.txt"]
        if code := subprocess.run([str(UV), *words], cwd=PEERS, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(lock())
