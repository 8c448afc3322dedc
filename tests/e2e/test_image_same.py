"""Two builds of one commit, each without a cache, give the same files: `make image-same`. It takes minutes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCKER = os.environ.get("DOCKER", "docker")
ROOT = Path(__file__).resolve().parents[2]
# What the engine itself adds to each container.
ENGINES = {".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"}
ENGINES_FOLDERS = ("dev", "proc", "sys")


def docker(*words: str) -> str:
    return subprocess.run([DOCKER, *words], stdout=subprocess.PIPE, text=True, check=True, timeout=900).stdout.strip()


def labels() -> list[str]:
    words = [sys.executable, "-m", "pipeline.image_labels"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".ci"), "PYTHONSAFEPATH": "1"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()


def build(tag: str, context: Path, told: list[str]) -> None:
    flags = os.environ.get("DOCKER_BUILD_FLAGS", "").split()
    command = [DOCKER, "build", "--quiet", "--no-cache", *flags, "--build-arg", "PYTHON_IMAGE", *told]
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    done = subprocess.run(
        [*command, "--file", context / "docker/Dockerfile", "--tag", tag, context],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout


def inventory(tag: str) -> dict[str, tuple[object, ...]]:
    """Every file of an image: kind, mode, owner, size, date, the target of a link, and the sha256 of its content."""
    container = docker("create", tag)
    found: dict[str, tuple[object, ...]] = {}
    try:
        with subprocess.Popen([DOCKER, "export", container], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    name = member.name.strip("/")
                    if name in ENGINES or name.split("/")[0] in ENGINES_FOLDERS or name in {"", ".", "etc"}:
                        continue
                    file = tar.extractfile(member) if member.isreg() else None
                    digest = hashlib.sha256(file.read()).hexdigest() if file else ""
                    about = (member.type, oct(member.mode), member.uid, member.gid, member.size, member.mtime)
                    found[name] = (*about, member.linkname, digest)
    finally:
        docker("rm", "--force", container)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two images of one commit: built from this folder, and from a copy of its files with later dates."""
    copy = tmp_path_factory.mktemp("elsewhere")
    for name in (".dockerignore", "docker", "requirements", "build/wheel", "build/bundle"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, copy / name)
    tags = tuple(f"closedloop-same-{os.getpid()}:{which}" for which in ("first", "second"))
    try:
        told = labels()
        build(tags[0], ROOT, told)
        build(tags[1], copy, told)
        yield tags[0], tags[1]
    finally:
        subprocess.run(
            [DOCKER, "rmi", "--force", *tags], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False
        )


def test_two_builds_of_one_commit_are_the_same_files(pair: tuple[str, str]) -> None:
    first, second = (inventory(tag) for tag in pair)
    assert len(first) > 4000
    assert {
        name: (first.get(name), second.get(name)) for name in first | second if first.get(name) != second.get(name)
    } == {}


def test_and_the_same_layers_byte_for_byte(pair: tuple[str, str]) -> None:
    first, second = (docker("inspect", "--format={{json .RootFS.Layers}}", tag) for tag in pair)
    assert first == second


def test_and_say_the_same_of_themselves(pair: tuple[str, str]) -> None:
    first, second = (docker("inspect", "--format={{json .Config.Labels}}", tag) for tag in pair)
    assert first == second
