"""Time from start to ready, and the memory of worker and shipper, on two cores; in the image if there is one.

    python tests/bench/start_to_ready.py [--image closedloop:dev] [--starts 5]

The time is from the start of the process (or of ``docker run``) to the first 200 of ``/readyz``. Memory is the resident
set of all processes of the service after some answers; shared pages count in each. Compiled code comes from its cache,
as in the image: the first start, which may fill the cache, does not count.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import serve_load
import serve_ways
from harness import Point, finish, say

MOST_S, MOST_MIB = 5.0, 350.0
PATIENCE_S = 120.0
ANSWERS = 200
DOCKER = os.environ.get("DOCKER", "docker")


def ready(port: int, start: float, ended: Callable[[], str | None]) -> float:
    """The seconds from ``start`` to the first 200 of /readyz.

    Raises:
        SystemExit: the service ended, or was not ready in time.
    """
    while time.perf_counter() - start < PATIENCE_S:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return time.perf_counter() - start
        if why := ended():
            raise SystemExit(f"the service ended before it was ready: {why}")
        time.sleep(0.01)
    raise SystemExit(f"the service was not ready after {PATIENCE_S:g} s")


def memory_mib(root: int, name: str = "Rss") -> float:
    """Resident memory of a process and all its descendants in MiB; ``Pss`` counts shared pages once."""
    total = 0
    for process in serve_ways.family(root):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return total / 1024


def ask(port: int) -> None:
    """Ask the service its own example, so that everything it loads for the first answer is loaded."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    schema = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = json.dumps(schema["examples"][0]).encode()
    load = serve_load.at_rate(port, serve_load.request("/score", body), 4, 200.0, ANSWERS / 200.0)
    if set(load.statuses) != {200}:
        raise SystemExit(f"the service answers its own example with {dict(load.statuses)}")


def from_venv(cores: set[int], stack: ExitStack) -> tuple[float, float, float]:
    """Seconds to ready, MiB resident and MiB with shared pages counted once, of the built wheel in this environment."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (port,) = serve_ways.ports(1)
    log = {"LOG_DIR": str(folder / "log"), "LOG_SINK": str(folder / "sink")}
    with (folder / "said").open("wb") as said:
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "score"],
            env=serve_ways.environ(AUTH="open", PORT=str(port), **log),
            stdout=said,
            stderr=said,
        )
        os.sched_setaffinity(0, own)
    try:
        seconds = ready(port, start, lambda: (folder / "said").read_text() if process.poll() is not None else None)
        ask(port)
        return seconds, memory_mib(process.pid), memory_mib(process.pid, "Pss")
    finally:
        process.terminate()
        process.wait(60)


def from_image(image: str, cores: set[int], stack: ExitStack) -> tuple[float, float, float]:
    """The same three figures of the image, with a read-only root, a random user and no privilege."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
    folder.chmod(0o777)
    user = random.SystemRandom().randrange(100_000, 1_000_000)
    words = ["run", "--detach", "--publish=127.0.0.1::8000", f"--mount=type=bind,source={folder},target=/log"]
    words += ["--env=AUTH=open", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    words += [f"--user={user}:{os.getgid()}", f"--cpuset-cpus={','.join(map(str, sorted(cores)))}", image]

    def docker(*words: str) -> str:
        return subprocess.run([DOCKER, *words], check=True, capture_output=True, text=True).stdout.strip()

    start = time.perf_counter()
    name = docker(*words)
    try:
        port = int(docker("port", name, "8000").splitlines()[0].rpartition(":")[2])
        running = "--format={{.State.Running}}"
        seconds = ready(
            port, start, lambda: docker("logs", name) if docker("inspect", running, name) != "true" else None
        )
        ask(port)
        process = int(docker("inspect", "--format={{.State.Pid}}", name))
        return seconds, memory_mib(process), memory_mib(process, "Pss")
    finally:
        docker("rm", "--force", "--volumes", name)


def there_is(image: str) -> bool:
    """Whether a container engine answers and has the image."""
    if shutil.which(DOCKER) is None:
        return False
    return subprocess.run([DOCKER, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def points(starts: list[tuple[float, float, float]], where: str) -> list[Point]:
    """The figures with their targets: the median time, and the most memory of all starts."""
    seconds, resident, shared_once = zip(*starts, strict=True)
    return [
        Point(f"{where}: start to ready", statistics.median(seconds), "s", most=MOST_S),
        Point(f"{where}: worker and shipper, resident", max(resident), "MiB", most=MOST_MIB),
        Point(f"{where}: the same, shared pages once", max(shared_once), "MiB"),
    ]


def main(words: list[str]) -> int:
    """Start the service several times, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--image", default=os.environ.get("IMAGE", "closedloop:dev"))
    flags.add_argument("--starts", type=int, default=5)
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    inside = there_is(args.image)
    where = "image" if inside else "venv"
    if not inside:
        say(f"no image {args.image} by {DOCKER}: measured in this environment, from the built wheel")
    starts = []
    for number in range(args.starts + 1):
        with ExitStack() as stack:
            found = from_image(args.image, cores, stack) if inside else from_venv(cores, stack)
        say(f"start {number} of {args.starts}: ready after {found[0]:.2f} s, {found[1]:.0f} MiB")
        starts.append(found)
    return finish("start_to_ready", points(starts[1:], where), args.out, cores=len(cores), starts=starts, where=where)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
