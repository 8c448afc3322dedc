"""What the tests of a running service share: the bundle of the last run, and the requests that its schema calls for."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from closedloop.data.request import openapi
from closedloop.data.schema import Schema
from corpus import corpus
from score import score

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "build/bundle"
PATIENCE_S = 240  # the first start compiles, perhaps on a busy machine


def read_manifest() -> dict[str, Any]:
    """Read the manifest of the bundle that `make run` wrote."""
    return json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))


def bodies_of(manifest: dict[str, Any]) -> dict[str, bytes]:
    """The corpus of the bundle's own fleet, by name."""
    schema = Schema.from_dict(manifest["schema"])
    return corpus(schema, openapi(schema)["examples"][0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``case`` with each request of the corpus, valid and hostile: (status, body)."""
    if "case" in metafunc.fixturenames:
        there = (BUNDLE / "manifest.json").is_file()  # a checkout without a bundle is collected, and red when it runs
        bodies = bodies_of(read_manifest()) if there else {"200-no-bundle": b""}
        metafunc.parametrize("case", [(int(name[:3]), body) for name, body in bodies.items()], ids=list(bodies))


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle written by `make run`."""
    return BUNDLE


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:
    """Its manifest."""
    return read_manifest()


@pytest.fixture(scope="session")
def bodies(manifest: dict[str, Any]) -> dict[str, bytes]:
    """The corpus of its fleet: the body of each request, by its status and what is odd in it."""
    return bodies_of(manifest)


@pytest.fixture(scope="session")
def wait_ready() -> Callable[..., None]:
    """Wait until the service is ready; fail with what ``ended`` returns as soon as it is not None."""

    def wait(client: httpx.Client, ended: Callable[[], str | None], path: str = "/readyz") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if client.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if said := ended():
                pytest.fail(f"it ended before it was ready:\n{said}")
            time.sleep(0.1)
        pytest.fail(f"not ready after {PATIENCE_S} s")

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


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster that may be changed, with IMAGE in its nodes. In hosted CI it must be there."""
    from . import cluster as of_cluster  # here, since a copy without k8s/ has no such module

    missing, refused = of_cluster.unusable()
    if refused or (missing and os.environ.get("CI")):
        pytest.fail(refused or missing)
    if missing:
        pytest.skip(missing)
    of_cluster.load(of_cluster.IMAGE)
