"""Other commits of this repository, each run with its own code and its own lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

from closedloop.data.schema import DataError
from model.common import cli, pinned_files
from model.common.provenance import LIBRARY, LIBRARY_IN_COMMIT, ROOT, git

LOCK = "requirements/train.txt"
LOCK_OF_SPARK = "requirements/spark.txt"  # beside it, for a commit whose params.yaml asks for engine: spark
WHOLE = ".whole"  # end of the name of a file beside a worktree or an environment that was made to the end, not killed


def asked(variable: str) -> str | None:
    """Return the commit that an environment variable (``BASE_COMMIT``, ``CHAMPION_COMMIT``) names, or None if unset.

    Raises:
        DataError: the clone has no such commit.
    """
    name = os.environ.get(variable, "")
    if not name:
        return None
    found = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found is None:
        raise DataError(f"{variable} is {name!r}, and this clone has no such commit; run: git fetch --unshallow")
    return found


def to_beat() -> str | None:
    """Return the commit whose model a challenger meets: ``CHAMPION_COMMIT``, else ``BASE_COMMIT``; None if both unset.

    Raises:
        DataError: the clone has no such commit.
    """
    return asked("CHAMPION_COMMIT") or asked("BASE_COMMIT")


def base() -> str | None:
    """Return the commit whose labels, costs and gate apply: ``BASE_COMMIT``, else the merge base with ``main``.

    None where there is neither; then a commit is judged by its own rules.
    """
    if found := asked("BASE_COMMIT"):
        return found
    for name in ("origin/main", "main"):
        if found := git("merge-base", "HEAD", name):
            return found
    return None


def worktree(commit: str) -> Path:
    """Return a folder that holds exactly this commit; made once, below build/commits.

    Raises:
        DataError: the clone has no such commit.
    """
    folder = cli.BUILD / "commits" / commit[:12]
    whole = folder.with_suffix(WHOLE)
    if not whole.exists() or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        git("worktree", "prune")
        folder.parent.mkdir(parents=True, exist_ok=True)
        if git("worktree", "add", "--quiet", "--detach", str(folder.resolve()), commit) is None:
            raise DataError(f"this clone has no commit {commit[:12]}; run: git fetch --unshallow")
        _share_compiled_code(folder / LIBRARY_IN_COMMIT)
        whole.touch()
    return folder


def _share_compiled_code(library: Path) -> None:
    """Copy what Numba compiled of our library to another commit's, where every file of Python is the same.

    Compiling takes most of a small fleet's training. Numba itself looks at one file only, and at its own version.
    """
    ours = {path.relative_to(LIBRARY): path.read_bytes() for path in LIBRARY.rglob("*.py")}
    if ours != {path.relative_to(library): path.read_bytes() for path in library.rglob("*.py")}:
        return
    for compiled in LIBRARY.rglob("__pycache__/*.nb[ic]"):
        copy = library / compiled.relative_to(LIBRARY)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(compiled, copy)


def run(commit: str, *words: str) -> None:
    """Run ``python -m`` with these words in the commit's worktree, with the libraries that the commit locks.

    The current environment is used where the locks are equal and all that they name is installed. Else one is made
    below build/commits, which needs uv and the network.

    Raises:
        DataError: the environment cannot be made, or the command fails; with the last line it printed.
    """
    folder = worktree(commit).resolve()
    locks = [LOCK, LOCK_OF_SPARK] if words[0] == "model.train" and _asks_for_spark(folder) else [LOCK]
    lock = b"".join((folder / name).read_bytes() for name in locks)
    python = Path(sys.executable)
    if not _is_here(folder, locks):
        environment = (cli.BUILD / "commits" / f"env-{hashlib.sha256(lock).hexdigest()[:12]}").resolve()
        python = environment / "bin" / "python"
        if not environment.with_suffix(WHOLE).exists():
            cli.say(f"making the environment that commit {commit[:12]} locks")
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            if uv is None:
                raise DataError(f"commit {commit[:12]} locks other libraries; install uv, which is needed to get them")
            _call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)], folder)
            _call([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), *locks], folder)
            environment.with_suffix(WHOLE).touch()
    _call([str(python), "-m", *words], folder)


def _asks_for_spark(folder: Path) -> bool:
    """Return whether a commit trains on Spark, and locks it."""
    try:
        asked = yaml.safe_load((folder / "model" / "params.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False  # its own code says what is wrong
    return isinstance(asked, dict) and asked.get("engine") == "spark" and (folder / LOCK_OF_SPARK).exists()


def _is_here(folder: Path, locks: list[str]) -> bool:
    """Return whether the current environment is what these locks of a commit name."""
    same = all((ROOT / name).exists() and (folder / name).read_bytes() == (ROOT / name).read_bytes() for name in locks)
    return same and (LOCK_OF_SPARK not in locks or find_spec("pyspark") is not None)


def _call(words: list[str], folder: Path) -> None:
    """Run a program in a commit's folder, with that commit's code first on Python's path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])}
    environment |= {pinned_files.CACHE: str(pinned_files.cache())}  # what we have downloaded it need not
    done = subprocess.run(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{' '.join(words[1:4])} in commit {folder.name} exited {done.returncode}: {last}")
