"""Render the manifests of k8s/, and run kube-score over them.

Each overlay goes to build/manifests/<overlay>.yaml, as a release takes it up, and the alerts to alerts-azure.json. The
overlays, what an administrator applies (k8s/cluster), each component on each of them that may have it and each pair of
components go to build/manifests-checked with the image named by a digest, as a release names it; that is what
kube-score, checkov and the tests of tests/repo look at.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import azure_alerts, github, release

K8S = github.ROOT / "k8s"
OUT = github.ROOT / "build/manifests"
CHECKED = github.ROOT / "build/manifests-checked"
ALERTS = K8S / "components/monitoring/prometheus/prometheusrule.yaml"
RENDERERS = (("kustomize", "build"), ("kubectl", "kustomize"))
# The minors of Kubernetes whose schemas tests/repo/test_manifests.py checks.
MINORS = ("1.32.0", "1.33.0", "1.34.0", "1.35.0", "1.36.0", "1.37.0")
VALIDATOR = ("kube-score", "score", "--output-format", "ci", "--exit-one-on-warning", "--kubernetes-version", "v1.32")
IMAGE = f"{release.NAME}@sha256:{'0' * 64}"
ONLY_LOCAL = "local-log"  # the component that staging and production must not have
ONLY_CLUSTER = "admission"  # the component of what an administrator applies, and of no overlay
PARAMETERS = "parameters.yaml"  # in components/: every parameter; in an overlay: those that its components ask for
QUIET = ("[OK]", "[SKIPPED]")  # kube-score's lines that report no problem


def overlays() -> list[Path]:
    """Return the folders of the overlays."""
    return sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))


def clusters() -> list[Path]:
    """Return the folders of what an administrator applies, one for each environment."""
    return [folder for one in overlays() if (folder := K8S / "cluster" / one.name).exists()]


def components() -> list[str]:
    """Return the names of the components: their folders below k8s/components."""
    found = sorted((K8S / "components").glob("**/kustomization.yaml"))
    names = [path.parent.relative_to(K8S / "components").as_posix() for path in found]
    return [name for name in names if not name.endswith("/common")]


def rivals(first: str, second: str) -> bool:
    """Return whether a person must choose one of two components: variants of one, or two places for the log."""
    heads = [name.partition("/")[0] for name in (first, second)]
    return heads[0] == heads[1] or set(heads) == {"local-log", "remote-log"}


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


def combinations() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield each folder with each component that it may have besides its own, and one overlay with each pair."""
    yield from ((folder, (ONLY_CLUSTER,)) for folder in clusters())
    for folder in overlays():
        own = (folder / "kustomization.yaml").read_text(encoding="utf-8").splitlines()
        taken = {line.partition("../../components/")[2] for line in own if line.startswith("  - ../../components/")}
        left = [one for one in components() if one not in taken and one != ONLY_CLUSTER]
        free = [one for one in left if not any(rivals(one, other) for other in taken)]
        yield from ((folder, (one,)) for one in free if one != ONLY_LOCAL or folder.name == "local")
        if folder.name == "local":  # which has no component of its own, so that every pair is one more combination
            yield from ((folder, pair) for pair in itertools.combinations(free, 2) if not rivals(*pair))


def combined(folder: Path, more: tuple[str, ...]) -> str:
    """Return the manifests of a folder to which a person added components, and the parameters that these ask for.

    Raises:
        subprocess.CalledProcessError: it cannot be rendered; standard error says why.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary).resolve()
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        shutil.copy(K8S / "components" / PARAMETERS, copy / PARAMETERS)
        file = copy / "kustomization.yaml"
        text = file.read_text(encoding="utf-8")
        if f"  - {PARAMETERS}\n" not in text:
            text = text.replace("resources:\n", f"resources:\n  - {PARAMETERS}\n")
        text += "" if "\ncomponents:\n" in text else "components:\n"
        text += "".join(f"  - ../../components/{one}\n" for one in more)  # the list of components stands last
        places = {"../../": os.path.relpath(K8S, copy), "../": os.path.relpath(folder.parent, copy)}
        text = re.sub(r"(?<=^  - )(?:\.\./){1,2}", lambda found: f"{places[found[0]]}/", text, flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")
        return render(copy)


def checked() -> dict[str, str]:
    """Return all that is checked, by name: with the image named by a digest.

    Raises:
        PipelineError: something cannot be rendered; the message says what and why.
    """
    work: dict[str, tuple[Path, tuple[str, ...]]] = {folder.name: (folder, ()) for folder in overlays()}
    work |= {f"cluster-{folder.name}": (folder, ()) for folder in clusters()}
    for folder, more in combinations():
        name = f"cluster-{folder.name}" if folder in clusters() else folder.name
        work["+".join([name, *(one.replace("/", "-") for one in more)])] = (folder, more)

    def one(name: str) -> str:
        folder, more = work[name]
        try:
            text = combined(folder, more) if more else render(folder)
        except subprocess.CalledProcessError as error:
            raise github.PipelineError(f"{name} cannot be rendered: {error.stderr.strip()}") from error
        return text if name.startswith("cluster-") else release.with_digest(text, IMAGE)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(work, pool.map(one, work), strict=True))


def validate(files: list[Path]) -> bool:
    """Run kube-score over each file and print what it reports; return False if it reports a problem."""
    if not shutil.which(VALIDATOR[0]):
        print(f"skipped: {VALIDATOR[0]} is not on PATH")
        return True
    fine = True
    for file in files:  # each on its own: objects of two files are not on one cluster
        done = subprocess.run([*VALIDATOR, file], capture_output=True, text=True, check=False)
        if done.returncode:
            report = [*done.stdout.splitlines(keepends=True), done.stderr]
            print(f"{file.name}:\n" + "".join(line for line in report if not line.startswith(QUIET)), end="")
            fine = False
    return fine


def main() -> int:
    """Render and validate, and return the exit code; 1: an overlay cannot be rendered, or is not valid."""
    if renderer() is None:
        print("skipped: neither kustomize nor kubectl is on PATH")
        return 0
    for folder in (OUT, CHECKED):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        texts = checked()
    except github.PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    for folder in overlays():
        file = OUT / f"{folder.name}.yaml"
        file.write_text(render(folder), encoding="utf-8")
        print(f"wrote {file.relative_to(github.ROOT)}")
    alerts = OUT / "alerts-azure.json"
    alerts.write_text(azure_alerts.template(ALERTS), encoding="utf-8")
    print(f"wrote {alerts.relative_to(github.ROOT)}")
    for name, text in texts.items():
        (CHECKED / f"{name}.yaml").write_text(text, encoding="utf-8")
    print(f"wrote {len(texts)} combinations to {CHECKED.relative_to(github.ROOT)}")
    return 0 if validate(sorted(CHECKED.glob("*.yaml"))) else 1


if __name__ == "__main__":
    sys.exit(main())
