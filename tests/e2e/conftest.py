"""What the tests of a running service share: the bundle it must serve, and the corpus of requests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from score import score

ROOT = Path(__file__).resolve().parents[2]
CORPUS = [*sorted((ROOT / "tests/golden/requests").glob("*.json")), ROOT / "tests/golden/request.json"]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle written by `make run`."""
    return ROOT / "build/bundle"


@pytest.fixture(scope="session")
def manifest(bundle: Path) -> dict[str, Any]:
    """Its manifest."""
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wait_ready() -> Callable[..., None]:
    """Wait until the service is ready; fail with what ``ended`` returns as soon as it is not None."""

    def wait(client: httpx.Client, ended: Callable[[], str | None], path: str = "/readyz") -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if client.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if said := ended():
                pytest.fail(f"it ended before it was ready:\n{said}")
            time.sleep(0.1)
        pytest.fail("not ready after 60 s")

    return wait


@pytest.fixture(scope="session")
def run(bundle: Path) -> Callable[[str], dict[str, Any]]:
    """``run()`` of score.py in this process, after ``init()``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DIR", str(bundle))
        score.init()
    return score.run


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of loopback that was free a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def example() -> Callable[..., dict[str, Any]]:
    """The example request in the service's OpenAPI document, which fits the schema of any bundle."""

    def read(client: httpx.Client, route: str = "/score") -> dict[str, Any]:
        operation = client.get("/openapi.json").json()["paths"][route]["post"]
        return operation["requestBody"]["content"]["application/json"]["schema"]["examples"][0]

    return read


@pytest.fixture(params=CORPUS, ids=lambda path: path.stem)
def request_body(request: pytest.FixtureRequest) -> bytes:
    """Each of the golden requests, valid and hostile."""
    return request.param.read_bytes()
