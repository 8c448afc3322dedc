"""`make test` tests what is released: the three packages come from the built wheel, here and in what tests start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import closedloop
import model
import score

PACKAGES = (closedloop, model, score)


@pytest.fixture
def wheel() -> Path:
    if "CLOSEDLOOP_WHEEL" not in os.environ:
        pytest.skip("the checkout is tested, not the wheel: make test does that")
    return Path(os.environ["CLOSEDLOOP_WHEEL"])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_packages_come_from_the_wheel(wheel: Path, package: object) -> None:
    assert Path(str(package.__file__)).is_relative_to(wheel)  # type: ignore[attr-defined]


def test_so_they_do_in_a_program_that_a_test_starts_in_the_checkout(wheel: Path, root: Path) -> None:
    command = [sys.executable, "-c", "import closedloop, model, score; print(model.__file__, score.__file__)"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert all(Path(path).is_relative_to(wheel) for path in found), found


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path, root: Path, files: list[Path]) -> None:
    homes = {root / "src/closedloop": "closedloop", root / "model": "model", root / "score": "score"}
    wanted = {
        name + "/" + p.relative_to(home).as_posix() for home, name in homes.items() for p in files if home in p.parents
    }
    assert sorted(name for name in wanted if not (wheel / name).is_file()) == []
