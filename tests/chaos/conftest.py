"""Fixtures for faults that are caused for real. Every test here has the marker ``chaos``: slow, and may need root."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for faults.py, stores.py and writer.py: tests are no package

import faults  # noqa: E402
import stores  # noqa: E402

WRITER = HERE / "writer.py"
FILE_SYSTEMS = {"ext4": (["mkfs.ext4", "-q"], 64 << 20), "xfs": (["mkfs.xfs", "-q"], 320 << 20)}


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("chaos")


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with stores.azure(tmp_path_factory.mktemp("azurite")) as port:
        if port is None:
            pytest.skip("azurite is not on PATH, and npm cannot install it")
        yield port, "az://fleet", stores.azure_environ


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with stores.s3(tmp_path_factory.mktemp("moto"), Path(sys.executable).with_name("uv")) as port:
        if port is None:
            pytest.skip("moto_server is not on PATH, and uv cannot install moto")
        yield port, "s3://fleet", stores.s3_environ


@pytest.fixture
def progress(request):
    """A function that prints the progress of a long test on the terminal."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def say(done, of, what):
        if reporter is not None and (done == of or done % max(1, of // 10) == 0):
            with capture.global_and_fixture_disabled():
                reporter.write_line(f"  {what}: {done} of {of}")

    return say


@pytest.fixture
def mount(tmp_path):
    """A function that mounts a file system, or skips if that is not allowed. All are unmounted when the test ends."""
    mounted, numbers = [], itertools.count()

    def attach(*options, source):
        point = tmp_path / f"mount-{next(numbers)}"
        point.mkdir()
        try:
            faults.run("mount", *options, source, point)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot mount here, which takes root and loop devices: {getattr(error, 'stderr', error)}")
        mounted.append(point)
        return point

    def detach(point):
        mounted.remove(point)
        faults.run("umount", point)

    attach.detach = detach
    yield attach
    busy = [point for point in reversed(mounted) if subprocess.run(["umount", point], check=False).returncode]
    for point in busy:
        faults.run("umount", "--lazy", point)  # nothing stays mounted, whatever the test left open
    assert busy == []


@pytest.fixture
def disk(tmp_path, mount):
    """A function that makes a file system in a file and mounts it. It returns (image, mount point)."""

    def make(kind, *options):
        command, size = FILE_SYSTEMS[kind]
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        image = tmp_path / f"image-{kind}"
        with image.open("wb") as file:
            file.truncate(size)
        faults.run(*command, image)
        return image, mount("-o", ",".join(["loop", *options]), source=image)

    return make


@pytest.fixture
def strace():
    """A function that returns the words before a command so that strace injects a fault: strace(fault, *paths)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()}")

    def words(fault, *paths):
        about = [word for path in paths for word in ("-P", str(path))]
        return [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            *about,
            "-e",
            f"trace={fault.split(':')[0]}",
            "-e",
            f"inject={fault}",
        ]

    return words


@pytest.fixture
def cgroup():
    """A function that makes a cgroup of version 1: cgroup(controller, **{file: value}) returns its folder."""
    made = []

    def make(controller, **limits):
        folder = Path("/sys/fs/cgroup") / controller / f"closedloop-chaos-{os.getpid()}"
        try:
            folder.mkdir()
            made.append(folder)
            for name, value in limits.items():
                (folder / f"{controller}.{name}").write_text(str(value))
        except OSError as error:
            pytest.skip(f"cannot make a cgroup v1 of {controller} here, which takes root: {error}")
        return folder

    yield make
    for folder in made:
        faults.until(lambda folder=folder: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


@pytest.fixture
def faketime():
    """The path of libfaketime."""
    named = os.environ.get("LIBFAKETIME", "")
    for path in [Path(named), *Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1")]:
        if path.is_file():
            return str(path)
    pytest.skip("libfaketime is not installed (LIBFAKETIME may name the file)")


@pytest.fixture
def write(tmp_path):
    """A function that starts writer.py. It yields the process and a function that returns its (kind, number) pairs."""
    started = []

    @contextmanager
    def start(folder, *options, under=()):
        said = tmp_path / f"said-{len(started)}"
        started.append(said)
        errors = tmp_path / "errors"
        with said.open("wb") as output, errors.open("ab") as stderr:
            process = subprocess.Popen(
                [*under, sys.executable, str(WRITER), str(folder), *options],
                stdout=output,
                stderr=stderr,
                start_new_session=True,
            )

        def words():
            return [tuple(line.split()) for line in said.read_text().splitlines(keepends=True) if "\n" in line]

        try:
            yield process, words
        finally:
            end(process)

    return start


def end(process):
    """Kill a process and all others of its session, and wait until they are gone."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    faults.until(lambda: not alive(process.pid))


def alive(session):
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has just ended
            state, _, _, its = path.read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def environ(tiny_bundle, tmp_path):
    """The service's settings: open to all, a free port, and segments that stay in the spool."""
    return {
        **os.environ,
        "MODEL_DIR": str(tiny_bundle),
        "LOG_DIR": str(tmp_path / "log"),
        "LOG_SINK": "none",
        "LOG_REJECTS": "off",  # the log is held to the requests that were answered
        "AUTH": "open",
        "PORT": "0",
    }


@pytest.fixture
def launch(environ, tmp_path):
    """A function that starts ``python -m score`` and yields (process, file of its stderr) before it is ready."""
    outputs = []

    @contextmanager
    def start(*, under=(), **settings):
        output = tmp_path / f"output-{len(outputs)}"
        outputs.append(output)
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "score"],
                env={**environ, **settings},
                cwd=tmp_path,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            yield process, output
        finally:
            end(process)

    return start


@pytest.fixture
def serve(launch, environ):
    """A function that starts the service, waits until it is ready, and yields it."""

    @contextmanager
    def start(*, under=(), **settings):
        with launch(under=under, **settings) as (process, output):
            port = port_of(process, output)
            yield faults.Service(process, port, Path({**environ, **settings}["LOG_DIR"]), output)

    return start


def port_of(process, output):
    """Wait until a service has printed the port that it listens on. Returns the port."""
    deadline = time.monotonic() + faults.START_SECONDS
    while not (running := re.search(r"running on http://127\.0\.0\.1:(\d+)", output.read_text())):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.02)
    return int(running[1])


@pytest.fixture
def ledger():
    """One ledger over all starts of a service."""
    return faults.Ledger()
