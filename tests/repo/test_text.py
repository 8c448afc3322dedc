"""What no file of the repository may hold, and what its locks must."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# A registry is each person's own choice, by environment or by client settings. One letter of each pattern is in
# brackets, and each planted line has a ~ in it, so that this file passes too.
FORBIDDEN = {
    "a package registry's address": re.compile(
        r"(?:py[p]i|files\.python[h]osted|registry\.(?:npm[j]s|yarn[p]kg)|proxy\.go[l]ang|conda\.ana[c]onda)\.\w{2,4}\b"
    ),
    "an index option": re.compile(r"--(?:extra-)?index-[u]rl|--find-[l]inks|--trusted-[h]ost"),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:w[o]rk|r[o]ot|[h]ome/\w+|[U]sers/\w+)/"),
}


def faults(text: str) -> list[str]:
    """Lines of a text that hold what is forbidden, each with its number and reason."""
    return [
        f"{number}: {what}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "https://py~pi.org/simple",
        "https://files.python~hosted.org/packages/x.whl",
        "registry=https://registry.npm~js.org/",
        "pip install --index-~url https://mirror.example/simple x",
        "cache: /ro~ot/.cache/pip",
        "cd /wo~rk/main",
        "PATH=/ho~me/someone/bin",
    ],
)
def test_a_planted_address_or_path_is_found(line: str) -> None:
    assert len(faults(line.replace("~", ""))) == 1


@pytest.mark.parametrize("line", ["/score", "build/wo~rk/", "https://example.com/ho~me/", "a/ro~ot/b", "py~pi-publish"])
def test_what_is_no_such_thing_is_left_alone(line: str) -> None:
    assert faults(line.replace("~", "")) == []


def test_no_file_holds_a_registry_or_a_path_of_one_machine(root: Path, files: list[Path]) -> None:
    found = {
        str(path.relative_to(root)): lines
        for path in files
        if path.relative_to(root).parts[0] != "data"  # the files of an adopted fleet hold what they hold
        and (lines := faults(path.read_bytes().decode("utf-8", errors="replace")))
    }
    assert found == {}


def requirements(path: Path) -> dict[str, list[str]]:
    """Each requirement of a lock with its hashes."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        found[requirement] = hashes
    return found


@pytest.mark.parametrize(
    "name",
    ["serve", "train", "dev", "uv", "azmlinfsrv", "fuzz", "spark", "automl", "databricks", "azureml", "notebook"],
)
def test_a_lock_is_pins_and_hashes_and_nothing_else(root: Path, name: str) -> None:
    for requirement, hashes in requirements(root / f"requirements/{name}.txt").items():
        assert re.fullmatch(r"[a-z0-9.-]+==[^ ;]+( ; .+)?", requirement), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


def test_the_locks_lie_in_layers(root: Path) -> None:
    serve, train, dev = (requirements(root / f"requirements/{name}.txt").items() for name in ("serve", "train", "dev"))
    layers = [[(pin, tuple(hashes)) for pin, hashes in layer] for layer in (serve, train, dev)]
    assert set(layers[0]) < set(layers[1]) < set(layers[2])


def test_serverless_compute_gets_the_pins_of_training(root: Path) -> None:
    found, locked = (requirements(root / f"requirements/{name}.txt") for name in ("serverless", "train"))
    assert [*found] == [*locked]
    assert not any(found.values())  # without hashes


def test_every_lock_is_made_by_make_lock(root: Path) -> None:
    assert {
        "serve",
        "train",
        "dev",
        "uv",
        "azmlinfsrv",
        "fuzz",
        "checkov",
        "schemas",
        "spark",
        "automl",
        "databricks",
        "azureml",
        "notebook",
        "serverless",
    } == {path.stem for path in (root / "requirements").glob("*.txt")}
