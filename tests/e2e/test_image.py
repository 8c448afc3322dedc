"""The image, run without privileges and called over HTTP. `make image-test` sets IMAGE, and the engine DOCKER."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from closedloop.log import record, spool

DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("IMAGE", "closedloop:dev")
ROOT = Path(__file__).resolve().parents[2]
MB = 1_000_000
MOST_MB = 250  # of the whole image, compressed
BASE_MB = 50  # python:3.13-slim-trixie on linux/amd64 takes 42 to 45 MB; a substitute may have any size
UID = random.SystemRandom().randrange(100_000, 1_000_000)
# Its group is that of the tests, so that they can read its log.
UNPRIVILEGED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    f"--user={UID}:{os.getgid()}",
    "--memory=1g",
)


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DOCKER, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=check, timeout=120
    )


@dataclass
class Container:
    name: str
    log: Path
    client: httpx.Client

    def output(self) -> str:
        return docker("logs", self.name).stdout

    def ended(self) -> str | None:
        state = docker("inspect", "--format={{.State.Running}}", self.name).stdout.strip()
        return None if state == "true" else self.output()


@pytest.fixture
def start(
    tmp_path_factory: pytest.TempPathFactory, wait_ready: Callable[..., None]
) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def run(*words: str, log: Path | None = None) -> Container:
        if log is None:
            log = tmp_path_factory.mktemp("log")
            log.chmod(0o777)
        mount = f"--mount=type=bind,source={log},target=/log"
        name = docker(
            "run",
            "--detach",
            "--publish=127.0.0.1::8000",
            mount,
            "--env=AUTH=open",
            "--env=LOG_SINK=none",
            *UNPRIVILEGED,
            *words,
            IMAGE,
        ).stdout.strip()
        container = Container(name, log, httpx.Client(timeout=30))
        started.append(container)
        if said := container.ended():
            pytest.fail(said)
        container.client.base_url = "http://" + docker("port", name, "8000").stdout.split()[0]
        wait_ready(container.client, container.ended)
        return container

    yield run
    for container in started:
        container.client.close()
        docker("rm", "--force", "--volumes", container.name)


def logged(folder: Path) -> list[record.Record]:
    losses: list[str] = []
    records = [record.decode(entry.payload) for entry in spool.read(folder, losses.append)]
    assert losses == []
    return [kept for kept in records if kept.kind != record.REJECT]


def routes(client: httpx.Client, components: list[str]) -> set[tuple[str, str]]:
    """Method and path of every route: from its OpenAPI document, and from its README, which also lists the pages.

    Without components there is nothing to report, and the document leaves out /feedback.
    """
    described = client.get("/openapi.json").json()["paths"].items()
    readme = (ROOT / "score/README.md").read_text(encoding="utf-8")
    told = re.findall(r"`(GET|POST) (/[\w.]*)`", readme)
    every = {(method.upper(), path) for path, methods in described for method in methods} | {(m, p) for m, p in told}
    return every if components else every - {("POST", "/feedback")}


def test_every_route_answers(
    start: Callable[..., Container], example: Callable[..., dict[str, Any]], manifest: dict[str, Any]
) -> None:
    container = start()
    asked = routes(container.client, manifest["schema"]["components"])
    assert {("POST", "/score"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/docs")} <= asked
    for method, path in sorted(asked):
        body = example(container.client, path) if method == "POST" else None
        answer = container.client.request(method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"


def test_the_model_inside_answers_and_its_answer_is_in_the_log(
    start: Callable[..., Container], example: Callable[[httpx.Client], dict[str, Any]], manifest: dict[str, Any]
) -> None:
    container = start()
    body = json.dumps(example(container.client)).encode()
    answer = container.client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert manifest["model_digest"] == answer.json()["model"]
    assert manifest["model_digest"] == container.client.get("/version").json()["model_digest"]
    (kept,) = logged(container.log)
    assert (body, answer.content, answer.json()["request_id"]) == (kept.request, kept.answer, kept.request_id)


def test_a_log_survives_kill_and_restart(start: Callable[..., Container], example: Callable[..., Any]) -> None:
    """After a kill and a restart on the same volume, each answered request is in the log once."""
    container = start()
    asked = example(container.client)
    answered = [container.client.post("/score", json=asked).json()["request_id"] for _ in range(3)]
    docker("kill", "--signal=KILL", container.name)
    assert docker("wait", container.name).stdout.strip() == "137"
    assert answered == [kept.request_id for kept in logged(container.log)]
    again = start(log=container.log)
    recovered = re.search(r"^closedloop_log_recovered_records_total (\S+)$", again.client.get("/metrics").text, re.M)
    assert recovered is not None
    assert float(recovered[1]) == len(answered)
    answered.append(again.client.post("/score", json=asked).json()["request_id"])
    assert answered == [kept.request_id for kept in logged(container.log)]


def test_as_its_own_user_it_can_write_a_volume_that_the_engine_made(
    wait_ready: Callable[..., None], example: Callable[..., Any]
) -> None:
    """As docker/README.md runs it: a new named volume gets the owner of /log in the image."""
    volume = f"closedloop-test-{UID}"
    words = ("--read-only", "--cap-drop=ALL", "--publish=127.0.0.1::8000", f"--volume={volume}:/log", "--env=AUTH=open")
    name = docker("run", "--detach", *words, IMAGE).stdout.strip()
    try:
        with httpx.Client(timeout=30) as client:
            container = Container(name, Path(), client)
            if said := container.ended():
                pytest.fail(said)
            client.base_url = "http://" + docker("port", name, "8000").stdout.split()[0]
            wait_ready(client, container.ended)
            assert client.post("/score", json=example(client)).status_code == 200
    finally:
        docker("rm", "--force", name)
        docker("volume", "rm", "--force", volume)


def test_told_to_stop_it_seals_its_log_and_exits_with_0(
    start: Callable[..., Container], example: Callable[[httpx.Client], dict[str, Any]]
) -> None:
    container = start()
    container.client.post("/score", json=example(container.client))
    docker("stop", container.name)
    assert docker("inspect", "--format={{.State.ExitCode}}", container.name).stdout.strip() == "0", container.output()
    assert len(logged(container.log)) == 1


def test_all_compiled_code_comes_from_the_cache_of_the_build(
    start: Callable[..., Container], bodies: dict[str, bytes]
) -> None:
    """Also on a read-only root, as an unknown user, for every request."""
    container = start("--env=NUMBA_DEBUG_CACHE=1")
    for name, body in bodies.items():
        answer = container.client.post("/score", content=body)
        assert answer.status_code < 500, f"{name}: {answer.text}"
    said = container.output()
    assert "[cache] data loaded from" in said
    assert "[cache] data saved to" not in said


def test_that_code_suits_every_processor() -> None:
    """Numba's cache depends on the processor's name and features: the build machine's must not matter."""
    read = """
import pathlib, pickle
found = set()
for path in pathlib.Path("/opt/numba").rglob("*.nbi"):
    with path.open("rb") as file:
        pickle.load(file)
        stamp, overloads = pickle.loads(file.read())
    found |= {key[1] for key in overloads}
print(sorted(found))
"""
    said = docker("run", "--rm", "--entrypoint=python", IMAGE, "-c", read).stdout.strip()
    assert re.fullmatch(r"\[\('[\w-]+', 'generic', ''\)\]", said), said


def test_the_health_check_tells_alive_from_dead(start: Callable[..., Container]) -> None:
    container = start()
    command = json.loads(docker("inspect", "--format={{json .Config.Healthcheck.Test}}", IMAGE).stdout)
    assert command[0] == "CMD"
    assert docker("exec", container.name, *command[1:]).returncode == 0
    assert docker("exec", "--env=PORT=8001", container.name, *command[1:], check=False).returncode == 1


def test_without_tokens_it_does_not_start(manifest: dict[str, Any]) -> None:
    """The image does not start without a decision about tokens."""
    done = docker("run", "--rm", *UNPRIVILEGED, "--tmpfs=/log:mode=1777", IMAGE, check=False)
    assert done.returncode == 2, done.stdout
    assert "AUTH_TOKENS_FILE" in done.stdout
    assert len(done.stdout.splitlines()) == 1, done.stdout


def test_it_says_what_it_is_and_holds_nothing_of_training(manifest: dict[str, Any]) -> None:
    config = json.loads(docker("inspect", "--format={{json .Config}}", IMAGE).stdout)
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["org.opencontainers.image.created"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])
    assert re.fullmatch(r"(https://\S+)?", labels["org.opencontainers.image.source"])
    assert manifest["model_digest"] == labels["closedloop.model-digest"]
    assert manifest["bundle_digest"] == labels["closedloop.bundle-digest"]
    missing = (
        "import importlib.util as u; print([n for n in ('pandas', 'sklearn', 'mlflow', 'pytest') if u.find_spec(n)])"
    )
    assert docker("run", "--rm", "--entrypoint=python", IMAGE, "-c", missing).stdout.strip() == "[]"


def compressed(tmp_path: Path) -> list[float]:
    """The size of each layer of the image in a registry, in MB: gzip, as Docker compresses."""
    archive = tmp_path / "image.tar"
    docker("save", f"--output={archive}", IMAGE)
    sizes = []
    with tarfile.open(archive) as image:
        (about,) = json.load(image.extractfile("manifest.json"))  # type: ignore[arg-type]
        for name in about["Layers"]:
            layer = image.extractfile(name)
            assert layer is not None
            sizes.append(len(gzip.compress(layer.read(), compresslevel=6)) / MB)
    return sizes


def test_it_is_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The compressed size of our layers and the official base; the base of this image may be another one."""
    final = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").rsplit("\nFROM ", 1)[1]
    ours = compressed(tmp_path)[-len(re.findall(r"^(?:COPY|RUN|ADD|WORKDIR) ", final, re.M)) :]
    with capsys.disabled():
        sizes = ", ".join(f"{size:.1f}" for size in ours)
        print(f"\ncompressed: {sum(ours):.1f} MB in {len(ours)} layers of ours: {sizes}")
    assert sum(ours) + BASE_MB <= MOST_MB
