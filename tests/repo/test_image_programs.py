"""The image's labels, and its software bill of materials."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline import image_labels, sbom


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/fleet.git", "https://github.com/someone/fleet"),
        ("https://someone:ghp_secret@github.com/someone/fleet", "https://github.com/someone/fleet"),
        ("https://x-access-token:secret@github.com/someone/fleet/", "https://github.com/someone/fleet"),
        ("git@github.com:someone/fleet.git", "https://github.com/someone/fleet"),
        ("ssh://git@github.com/someone/fleet.git", "https://github.com/someone/fleet"),
        ("https://github.com/a b", ""),
        ("https://github.com/a$(id)", ""),
        ("https://[bad", ""),
        ("../elsewhere", ""),
        ("", ""),
    ],
)
def test_the_source_is_the_remote_without_a_login(remote: str, address: str) -> None:
    assert address == image_labels.source(remote)


def test_what_the_build_is_told_can_be_split_by_a_shell(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "build/bundle").mkdir(parents=True)
    (tmp_path / "build/bundle/manifest.json").write_bytes((root / "tests/golden/manifest.json").read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    monkeypatch.setattr(image_labels, "ROOT", tmp_path)  # no history there: what follows from it is left out
    assert image_labels.main() == 0
    words = capsys.readouterr().out.split()
    assert set(words[::2]) == {"--build-arg"}
    assert {word.split("=")[0] for word in words[1::2]} == {"VERSION", "MODEL_DIGEST", "BUNDLE_DIGEST"}


def test_without_a_bundle_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_labels, "ROOT", tmp_path)
    assert image_labels.main() == 1
    assert "make run" in capsys.readouterr().err


@pytest.fixture
def lock(root: Path) -> dict[str, Any]:
    return sbom.locked(root / "requirements/serve.txt", "3.13.0")


@pytest.fixture
def image(root: Path, lock: dict[str, Any]) -> dict[str, Any]:
    """An image that holds all that is locked, and our wheel."""
    manifest = json.loads((root / "tests/golden/manifest.json").read_text(encoding="utf-8"))
    versions = {name: version for name, (version, _) in lock.items()} | {"closedloop": "0.1.0"}
    packages = [
        {"name": name, "version": version, "license": "MIT", "needs": ["numpy"] if name == "numba" else []}
        for name, version in sorted(versions.items())
    ]
    return {"python": "3.13.0", "packages": packages, "manifest": manifest}


LABELS = {"org.opencontainers.image.created": "2026-01-02T03:04:05Z", "org.opencontainers.image.version": "0.1.0"}


def test_what_the_lock_wants_depends_on_the_python(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    lines = ("a==1 ; python_full_version < '3.12'", "a==2 ; python_full_version >= '3.12'", "b==3")
    lines += ("c==4 ; sys_platform == 'win32'",)
    path.write_text("".join(f"{line} \\\n    --hash=sha256:{'0' * 64}\n" for line in lines), encoding="utf-8")
    locked = sbom.locked
    assert {"a": ("1", ["0" * 64]), "b": ("3", ["0" * 64])} == locked(path, "3.11.7")
    assert {"a": ("2", ["0" * 64]), "b": ("3", ["0" * 64])} == locked(path, "3.13.0")


def test_the_document_is_valid_and_lists_packages_and_the_model(image: dict[str, Any], lock: dict[str, Any]) -> None:
    made = sbom.document(image, LABELS, lock, "closedloop")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    by_name = {component["name"]: component for component in made["components"]}
    assert set(lock) | {"closedloop", "bundle"} == set(by_name)
    assert by_name["numpy"]["purl"] == f"pkg:pypi/numpy@{lock['numpy'][0]}"
    assert by_name["bundle"]["type"] == "machine-learning-model"
    assert by_name["bundle"]["version"] == image["manifest"]["bundle_digest"]
    assert {"ref": "numba", "dependsOn": ["numpy"]} in made["dependencies"]


def test_the_same_image_gives_the_same_bytes(image: dict[str, Any], lock: dict[str, Any]) -> None:
    first, second = (json.dumps(sbom.document(copy.deepcopy(image), LABELS, lock, "closedloop")) for _ in range(2))
    assert first == second
    image["manifest"]["bundle_digest"] = "sha256:" + "0" * 64
    assert json.loads(first)["serialNumber"] != sbom.document(image, LABELS, lock, "closedloop")["serialNumber"]


def without(image: dict[str, Any]) -> None:
    image["packages"] = [package for package in image["packages"] if package["name"] != "numpy"]


def with_another(image: dict[str, Any]) -> None:
    image["packages"].append({"name": "sneaked", "version": "1", "license": "", "needs": []})


def of_another_version(image: dict[str, Any]) -> None:
    next(package for package in image["packages"] if package["name"] == "numpy")["version"] = "0.0.1"


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        (without, "is locked and not in the image"),
        (with_another, "sneaked==1 is in the image and not locked"),
        (of_another_version, "numpy==0.0.1 is in the image"),
    ],
)
def test_it_is_red_where_image_and_lock_differ(
    image: dict[str, Any], lock: dict[str, Any], slip: Callable[[dict[str, Any]], None], says: str
) -> None:
    slip(image)
    with pytest.raises(sbom.DiffersError, match=says):
        sbom.document(image, LABELS, lock, "closedloop")
