"""Render every overlay of k8s/ to build/manifests/<overlay>.yaml, and run the validators that are on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/manifests"
RENDERERS = (("kustomize", "build"), ("kubectl", "kustomize"))
SCHEMAS = os.environ.get("KUBECONFORM_SCHEMAS", "default")
VALIDATORS = (
    ("kubeconform", "-strict", "-summary", "-kubernetes-version", "1.35.0", "-schema-location", SCHEMAS),
    ("kube-score", "score", "--output-format", "ci"),
)
QUIET = ("[OK]", "[SKIPPED]")  # kube-score's lines that report no problem


def overlays() -> list[Path]:
    """Return the folders of the overlays."""
    return sorted(path.parent for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))


def renderer() -> tuple[str, ...] | None:
    """Return the command that renders a folder, or None where none is on PATH."""
    return next((command for command in RENDERERS if shutil.which(command[0])), None)


def render(folder: Path) -> str:
    """Return the manifests of an overlay as YAML.

    Raises:
        subprocess.CalledProcessError: it cannot be rendered; standard error says why.
    """
    command = renderer()
    assert command is not None, "call renderer() first"  # noqa: S101
    return subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout


def validate(file: Path) -> bool:
    """Run each validator and print its report; return False if one reports a problem."""
    fine = True
    for command in VALIDATORS:
        if not shutil.which(command[0]):
            print(f"skipped: {command[0]} is not on PATH")
            continue
        done = subprocess.run(
            [*command, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if "failed downloading schema" in done.stdout:
            print(f"skipped: {command[0]} cannot load its schemas; set KUBECONFORM_SCHEMAS to their location")
            continue
        print("".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith(QUIET)), end="")
        fine &= done.returncode == 0
    return fine


def main() -> int:
    """Render and validate, and return the exit code; 1: an overlay cannot be rendered, or is not valid."""
    if renderer() is None:
        print("skipped: neither kustomize nor kubectl is on PATH")
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    bad = False
    for folder in overlays():
        file = OUT / f"{folder.name}.yaml"
        try:
            file.write_text(render(folder), encoding="utf-8")
        except subprocess.CalledProcessError as error:
            print(f"{folder.relative_to(ROOT)} cannot be rendered: {error.stderr}", file=sys.stderr)
            bad = True
            continue
        print(f"wrote {file.relative_to(ROOT)}")
        bad |= not validate(file)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
