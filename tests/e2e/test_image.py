"""The image, run without any privilege and asked. `make image-test` says which: IMAGE, by the engine DOCKER."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from closedloop.log import record, spool

DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("IMAGE", "closedloop:dev")
UID = random.SystemRandom().randrange(100_000, 1_000_000)
# Its group is ours, so that we can read the log it writes.
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

    def run(*words: str) -> Container:
        log = tmp_path_factory.mktemp("log")
        log.chmod(0o777)
        mount = f"--mount=type=bind,source={log},target=/log"
        name = docker(
            "run", "--detach", "--publish=127.0.0.1::8000", mount, "--env=AUTH=open", *UNPRIVILEGED, *words, IMAGE
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
    return records


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


def test_a_log_survives_kill_and_restart(
    start: Callable[..., Container], example: Callable[[httpx.Client], dict[str, Any]]
) -> None:
    container = start()
    asked = example(container.client)
    first = container.client.post("/score", json=asked).json()["request_id"]
    docker("kill", container.name)
    assert [first] == [kept.request_id for kept in logged(container.log)]


def test_told_to_stop_it_seals_its_log_and_exits_with_0(
    start: Callable[..., Container], example: Callable[[httpx.Client], dict[str, Any]]
) -> None:
    container = start()
    container.client.post("/score", json=example(container.client))
    docker("stop", container.name)
    assert docker("inspect", "--format={{.State.ExitCode}}", container.name).stdout.strip() == "0", container.output()
    assert len(logged(container.log)) == 1


def test_all_compiled_code_comes_from_the_cache_of_the_build(start: Callable[..., Container]) -> None:
    """Also on a read-only root, as an unknown user, and whatever is asked."""
    container = start("--env=NUMBA_DEBUG_CACHE=1")
    for path in sorted((Path(__file__).parents[1] / "golden").glob("requests/*.json")):
        answer = container.client.post("/score", content=path.read_bytes())
        assert answer.status_code < 500, f"{path.name}: {answer.text}"
    said = container.output()
    assert "[cache] data loaded from" in said
    assert "[cache] data saved to" not in said


def test_the_health_check_tells_alive_from_dead(start: Callable[..., Container]) -> None:
    container = start()
    command = json.loads(docker("inspect", "--format={{json .Config.Healthcheck.Test}}", IMAGE).stdout)
    assert command[0] == "CMD"
    assert docker("exec", container.name, *command[1:]).returncode == 0
    assert docker("exec", "--env=PORT=8001", container.name, *command[1:], check=False).returncode == 1


def test_without_tokens_it_does_not_start(manifest: dict[str, Any]) -> None:
    """The image is closed until someone says who may ask."""
    done = docker("run", "--rm", *UNPRIVILEGED, "--tmpfs=/log:mode=1777", IMAGE, check=False)
    assert done.returncode == 2, done.stdout
    assert "AUTH_TOKENS_FILE" in done.stdout
    assert len(done.stdout.splitlines()) == 1, done.stdout


def test_it_names_its_commit_and_holds_nothing_of_training() -> None:
    config = json.loads(docker("inspect", "--format={{json .Config}}", IMAGE).stdout)
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.revision"]
    missing = (
        "import importlib.util as u; print([n for n in ('pandas', 'sklearn', 'mlflow', 'pytest') if u.find_spec(n)])"
    )
    assert docker("run", "--rm", "--entrypoint=python", IMAGE, "-c", missing).stdout.strip() == "[]"
