"""Compile requirements/*.txt from pyproject.toml, with hashes: serve ⊂ train ⊂ dev, and tools and extras apart.

``--check`` compares instead, pins and markers only: a new wheel of an old version adds hashes and changes no pin.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"
UV = Path(sys.executable).with_name("uv")
FLAGS = ("--quiet", "--universal", "--python-version", "3.11", "--no-emit-index-url", "--no-header", "--no-annotate")
# dev first: it is the union, and the others take its versions.
EXTRAS = {"dev": ("--extra", "train", "--extra", "dev"), "train": ("--extra", "train"), "serve": ()}
# Azure's server needs older libraries than FastAPI does, so it gets what score/score.py imports and no more.
CONTRACT = ("msgspec", "numba", "numpy", "safetensors")
# Atheris dropped Python 3.11 with 3.1, and its wheels for other systems than Linux are old.
FUZZERS = (
    "schemathesis>=4.32",
    "atheris~=3.0.0; sys_platform == 'linux' and python_version < '3.12'",
    "atheris>=3.1; sys_platform == 'linux' and python_version >= '3.12'",
)
# Its pins are too narrow to be installed beside any others.
SCANNER = "checkov>=3.3"
# The schemas of Kubernetes that test_manifests.py reads; the package itself is not run.
SCHEMAS = "kubernetes-validate>=1.37"
# What is installed beside dev, and only where somebody asks for it. Delta's library for Spark, which session.py names,
# fits one version of pyspark.
BESIDE: dict[str, tuple[str, ...]] = {"spark": ("pyspark[connect]==4.2.1",)}
BESIDE["automl"] = ("optuna>=5",)
BESIDE["databricks"] = ("databricks-bundles>=1.22", "databricks-sdk")
BESIDE["notebook"] = ("ipykernel>=7", "jupytext>=1.19", "nbclient>=0.11")
# What platforms/azureml needs, in an environment of its own: Azure's SDK and its plugin for MLflow pin older libraries
# than dev's. The rest is what model.mirror imports.
APART: dict[str, tuple[str, ...]] = {}
APART["azureml"] = ("azure-ai-ml>=1.35", "azure-mgmt-containerinstance", "azureml-mlflow", "mlflow", "pyyaml")
# The pins of a lock without its hashes. Serverless compute of Databricks installs them beside our wheel, which has no
# hash, and pip takes hashes for all lines or for none.
UNHASHED: dict[str, str] = {}
UNHASHED["serverless"] = "train"
OFFLINE = re.compile(r"Failed to fetch|error sending request|dns error", re.IGNORECASE)


def compile_locks(folder: Path, *flags: str) -> None:
    """Compile all locks into ``folder``, keeping the versions of the locks that are there."""
    for name, extras in EXTRAS.items():
        union = () if name == "dev" else ("--constraints", str(folder / "dev.txt"))
        _uv("pyproject.toml", folder / f"{name}.txt", *extras, *union, *flags)
    _uv("-", folder / "uv.txt", *flags, text="uv\n")
    contract = [pin for pin in pins(folder / "serve.txt") if pin.partition("==")[0] in CONTRACT]
    _uv("-", folder / "azmlinfsrv.txt", *flags, text="\n".join(["azureml-inference-server-http>=1.5", *contract]))
    _uv("-", folder / "checkov.txt", *flags, text=SCANNER)
    _uv("-", folder / "schemas.txt", *flags, text=SCHEMAS)
    _uv("-", folder / "fuzz.txt", *flags, text="\n".join([*FUZZERS, *contract]))
    for name in BESIDE:
        compile_beside(folder, name, *flags)
    for name in APART:
        compile_apart(folder, name, *flags)
    for name, whose in UNHASHED.items():
        text = "".join(f"{pin}\n" for pin in pins(folder / f"{whose}.txt"))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def compile_beside(folder: Path, name: str, *flags: str) -> None:
    """Compile the lock of one extra, which takes the versions of dev where both have a library."""
    _uv("-", folder / f"{name}.txt", "--constraints", str(folder / "dev.txt"), *flags, text="\n".join(BESIDE[name]))


def compile_apart(folder: Path, name: str, *flags: str) -> None:
    """Compile the lock of an environment of its own, with what of ours runs there."""
    contract = [pin for pin in pins(folder / "serve.txt") if pin.partition("==")[0] in CONTRACT]
    _uv("-", folder / f"{name}.txt", *flags, text="\n".join([*APART[name], *contract]))


def cooldown() -> str:
    """Return the flag by which an upgrade takes no version of the last COOLDOWN days, by default 7."""
    newest = datetime.now(UTC) - timedelta(days=float(os.environ.get("COOLDOWN", "7")))
    return f"--exclude-newer={newest.strftime('%Y-%m-%dT%H:%M:%SZ')}"


def _uv(source: str, out: Path, *flags: str, text: str = "") -> None:
    command = [str(UV), "pip", "compile", source, *FLAGS, *flags, "--output-file", str(out)]
    subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)


def pins(path: Path) -> list[str]:
    """Return the requirements of a lock without their hashes."""
    return re.findall(r"^(\w.*?)(?: \\)?$", path.read_text(encoding="utf-8"), re.MULTILINE)


def stale() -> list[str]:
    """Return a line for each difference between the locks and pyproject.toml."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        for path in LOCKS.glob("*.txt"):
            shutil.copy(path, fresh)
        compile_locks(fresh)
        for path in sorted(fresh.glob("*.txt")):
            committed = LOCKS / path.name
            old, new = set(pins(committed) if committed.exists() else []), set(pins(path))
            found += [f"requirements/{path.name}: nothing needs {pin}" for pin in sorted(old - new)]
            found += [f"requirements/{path.name}: {pin} is needed and missing" for pin in sorted(new - old)]
    return found


def main() -> int:
    """Write the locks or compare them, and return the exit code; 1: they are stale, or cannot be compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="compare, write nothing")
    known = ("all", *BESIDE, *APART)
    choice.add_argument(
        "--upgrade", nargs="?", const="all", choices=known, help="take the newest versions, of all or of one"
    )
    args = parser.parse_args()
    try:
        if not args.check:
            flags = ["--generate-hashes", *(["--upgrade", cooldown()] if args.upgrade else [])]
            if args.upgrade in BESIDE:
                compile_beside(LOCKS, args.upgrade, *flags)
            elif args.upgrade in APART:
                compile_apart(LOCKS, args.upgrade, *flags)
            else:
                compile_locks(LOCKS, *flags)
            return 0
        found = stale()
    except subprocess.CalledProcessError as error:
        if args.check and OFFLINE.search(error.stderr):
            print("skipped: the locks were not compared, since no package index answers")
            return 0
        print(error.stderr, file=sys.stderr)
        return 1
    print("\n".join(found or ["the locks match pyproject.toml"]))
    if found:
        print("fix it with: make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
