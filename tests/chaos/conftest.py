"""Faults that are made for real. They are slow and some need root: every test here carries the marker ``chaos``."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WRITER = HERE / "writer.py"


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("chaos")


def run(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)


@pytest.fixture
def mount(tmp_path):
    """Mount a file system; skipped where that is not allowed. All are unmounted when the test ends."""
    mounted = []

    def attach(*options, source):
        point = tmp_path / f"mount-{len(mounted)}"
        point.mkdir()
        try:
            run("mount", *options, source, point)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot mount here, which takes root: {getattr(error, 'stderr', error)}")
        mounted.append(point)
        return point

    yield attach
    for point in reversed(mounted):
        run("umount", point)


@pytest.fixture
def disk(tmp_path, mount):
    """An ext4 image of 64 MB, and where it is mounted."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", image)
    return image, mount("-o", "loop", source=image)


@pytest.fixture
def write(tmp_path):
    """Start the writer of a spool (see writer.py) as a process: (process, what it has said as (verb, id) pairs)."""

    @contextmanager
    def start(folder, *options, under=()):
        said = tmp_path / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*under, sys.executable, WRITER, folder, *options], stdout=output, start_new_session=True
            )
        try:
            yield (
                process,
                lambda: [tuple(line.split()) for line in said.read_text().splitlines(keepends=True) if "\n" in line],
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    return start
