"""score.py, unmodified, in Azure's own inference server, with the bundle of this run.

The server's libraries are older than the service's, so it has its own environment below build/, from its own lock.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the command `azmlinfsrv` runs, but on loopback: it has no option for the address.
COMMAND = "from azureml_inference_server_http import amlserver as s; s.DEFAULT_HOST = '127.0.0.1'; s.run()"
BOOT_ERROR = 3  # gunicorn's


@pytest.fixture(scope="session")
def python(locked: Callable[[str], Path]) -> Path:
    """The interpreter of an environment with the server installed."""
    return locked("azmlinfsrv")


@pytest.fixture(scope="session")
def azmlinfsrv(python: Path, free_port: Callable[[], int]) -> Callable[..., tuple[subprocess.Popen, int, Path]]:
    """Start the server for a script and a bundle, in a folder without our code: (process, port, output)."""

    def start(script: Path, model: Path, folder: Path) -> tuple[subprocess.Popen, int, Path]:
        site = os.environ.get("CLOSEDLOOP_WHEEL") or os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        environ = {name: value for name, value in os.environ.items() if name != "MODEL_DIR"}
        environ |= {"PYTHONPATH": site, "HOME": str(folder), "AML_APP_ROOT": str(folder)}
        port, output = free_port(), folder / "output"
        words = ["--entry_script", script, "--model_dir", model, "--port", str(port)]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [python, "-c", COMMAND, *words], env=environ, cwd=folder, stdout=file, stderr=file
            )
        return process, port, output

    return start


@pytest.fixture(scope="module")
def azure(
    azmlinfsrv: Callable[..., tuple[subprocess.Popen, int, Path]],
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    wait_ready: Callable[..., None],
) -> Iterator[httpx.Client]:
    process, port, output = azmlinfsrv(ROOT / "score/score.py", bundle, tmp_path_factory.mktemp("azure"))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as asker:
            wait_ready(asker, lambda: None if process.poll() is None else output.read_text(), "/")
            yield asker
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_azures_server_gives_the_status_and_body_of_run(
    azure: httpx.Client, run: Callable[[str], dict[str, Any]], case: tuple[int, bytes]
) -> None:
    """And of the service (test_contract). The server itself refuses bytes that are not text."""
    body = case[1]
    over_http = azure.post("/score", content=body, headers={"Content-Type": "application/json"})
    try:
        text = body.decode()
    except UnicodeDecodeError:
        assert over_http.status_code == 400
        return
    direct = run(text)
    assert direct.get("status", 200) == over_http.status_code
    assert direct | {"request_id": None} == over_http.json() | {"request_id": None}
    kind = "application/json" if over_http.status_code == 200 else "application/problem+json"
    assert kind == over_http.headers["content-type"]
    assert over_http.headers["x-ms-run-function-failed"] == "False"


def test_a_form_is_refused_and_is_not_an_internal_error(azure: httpx.Client) -> None:
    """The server passes an empty text to run() for it; the service answers 415."""
    answer = azure.post("/score", data={"telemetry": "1"})
    assert answer.status_code == 400, answer.text
    assert "the body is empty" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "no bundle there"),
        ("raise RuntimeError('at import')", "Failed to import user script"),
        ("def init():\n    pass\ndef run(*words):\n    pass\n", "cannot accept positional-only arguments"),
    ],
    ids=["init", "import", "signature"],
)
def test_a_script_that_cannot_start_ends_the_server_with_3(
    azmlinfsrv: Callable[..., tuple[subprocess.Popen, int, Path]], tmp_path: Path, script: str | None, said: str
) -> None:
    entry = ROOT / "score/score.py" if script is None else tmp_path / "broken.py"
    if script is not None:
        entry.write_text(script)
    (tmp_path / "empty").mkdir()
    process, _, output = azmlinfsrv(entry, tmp_path / "empty", tmp_path)
    try:
        assert BOOT_ERROR == process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert said in output.read_text()
