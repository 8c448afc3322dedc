"""Parts of the template can go: what docs/taking-away.md says is done to a copy, which still passes its checks."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from . import parts
from .test_rename import ENVIRONMENT

PAGE = Path(__file__).resolve().parents[2] / "docs/taking-away.md"
PARTS = parts.read(PAGE) if PAGE.exists() else {}
CHECKS = [
    "files",
    "make",
    "shape",
    "text",
    "vocabulary",
    "workflow_settings",
    "workflows",
]  # the quick ones of tests/repo that look at what a part may leave behind
# They install an environment or ask a machine, which is not about this.
LESS = ("-k", "not machine_without_python and not engine and not retraining")


def said_by_checks(copy: Path, *more: list[Path | str]) -> str:
    """What the checks of a copy say against it; ``more`` are checks that take longer."""
    tools = copy / ".venv/bin"
    quick = ["-q", "-p", "no:cacheprovider", *(f"tests/repo/test_{name}.py" for name in CHECKS), *LESS]
    commands: list[list[Path | str]] = [
        ["ruff", "check", "--quiet", "."],
        ["ruff", "format", "--quiet", "--check", "."],
        ["yamllint", "--strict", "."],
        ["lint-imports", "--no-logo", "--no-cache"],
        ["pytest", *quick],
        *more,
    ]
    said = ""
    for name, *words in commands:
        done = subprocess.run(
            [tools / name, *words], cwd=copy, env=of(copy), capture_output=True, text=True, check=False
        )
        said += f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}" if done.returncode else ""
    return said


def of(copy: Path) -> dict[str, str]:
    """The environment in which a copy's own code is imported, not that of the checkout, which .venv has installed."""
    return ENVIRONMENT | {"PYTHONPATH": f"{copy / 'src'}:{copy}"}


def lost_imports(copy: Path) -> list[str]:
    """What modules import of our own packages that is no longer there."""
    homes = {"closedloop": copy / "src", "model": copy, "score": copy, "pipeline": copy / ".ci", "dev": copy / ".ci"}
    found = []
    for path in copy.rglob("*.py"):
        if ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            for name in names:
                head, *rest = name.split(".")
                if head in homes and rest and not there(homes[head] / head, rest):
                    found.append(f"{path.relative_to(copy)}: {name}")
    return found


def there(place: Path, rest: list[str]) -> bool:
    """Whether a dotted name is a module, a package, or a name in the text of one."""
    name, *more = rest
    if (place / name).is_dir():
        return not more or there(place / name, more)
    if (place / f"{name}.py").exists():
        return len(more) < 2 and (not more or holds(place / f"{name}.py", more[0]))
    return not more and holds(place / "__init__.py", name)


def holds(module: Path, name: str) -> bool:
    """Whether a module defines, assigns or imports a name; its docstring may name what is gone."""
    if not module.exists():
        return False
    bound = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
            case ast.alias():
                bound.add(node.asname or node.name)
            case ast.Name(ctx=ast.Store()):
                bound.add(node.id)
    return name in bound


def unlocked(copy: Path) -> list[str]:
    """The requirements of pyproject.toml that no lock pins, and locks that are asked for and are not there."""
    project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {"serve": project["dependencies"], "train": extras["train"], "dev": extras["dev"]}
    found = []
    for name, requirements in asked.items():
        lock = (copy / f"requirements/{name}.txt").read_text(encoding="utf-8")
        pinned = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
        found += [
            f"{name}: {one}"
            for one in requirements
            if re.split(r"[^A-Za-z0-9.-]", one)[0].replace(".", "-") not in pinned
        ]
    named = set(re.findall(r'"(\w+\.txt)"', (copy / ".ci/dev/locks.py").read_text(encoding="utf-8")))
    return found + sorted(named - {path.name for path in (copy / "requirements").glob("*.txt")})


@pytest.fixture
def copy(copied: Callable[[Path], Path], tmp_path: Path) -> Path:
    """The repository's files, as a repository of their own."""
    folder = copied(tmp_path / "copy")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def take(copy: Path, *taken: parts.Part) -> None:
    """Take parts away, and let git know what is left, which the checks ask."""
    for part in taken:
        parts.take(copy, part)
    subprocess.run(["git", "add", "--all"], cwd=copy, check=True)


@pytest.mark.parametrize("title", PARTS)
def test_a_copy_without_a_part_passes_its_checks(copy: Path, title: str) -> None:
    take(copy, PARTS[title])
    assert lost_imports(copy) == []
    assert unlocked(copy) == []
    assert said_by_checks(copy) == ""


def test_a_copy_without_all_of_them_does_so_too(copy: Path) -> None:
    take(copy, *PARTS.values())
    assert parts.read(copy / "docs/taking-away.md") == {}
    programs = sorted((copy / "docker").glob("*.py"))
    types: list[Path | str] = ["mypy", "src", "model", "score", ".ci/pipeline", ".ci/dev", *programs]
    collected: list[Path | str] = ["pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests"]
    assert said_by_checks(copy, types, collected) == ""


def test_a_part_that_leaves_something_behind_is_found(copy: Path) -> None:
    """A list that forgot a file, an import or a lock."""
    (copy / "model/common/tracking.py").unlink()
    (copy / "requirements/azmlinfsrv.txt").unlink()
    assert [one for one in lost_imports(copy) if one.startswith("model/evaluate.py")] == [
        "model/evaluate.py: model.common.tracking"
    ]
    assert unlocked(copy) == ["azmlinfsrv.txt"]


def test_what_is_not_where_the_page_says_is_named(copy: Path) -> None:
    for kind, name in (("the target", "nowhere"), ("the text", "make")):
        part = parts.Part("X", [], [(["Makefile"], kind, [name])])
        with pytest.raises(AssertionError, match=rf"X: {kind} `{name}` in Makefile: found \d+ times"):
            parts.take(copy, part)
