"""The folder of the commands: what lies in it, what README.md says of it, and what each command's help says."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "model"
COMMANDS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def imported(path: Path) -> set[str]:
    """Return every module below ``model`` that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("model.")}


RUNS_OTHERS = "retrain"  # in one process, one after the other


def test_no_command_and_nothing_they_share_imports_a_command():
    commands = {f"model.{name}" for name in COMMANDS}
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("common/*.py")]
    assert len(files) > len(COMMANDS) > 10
    found = {(path.stem, name) for path in files if path.stem != RUNS_OTHERS for name in imported(path) & commands}
    assert set() == found


def test_the_readme_lists_every_command_and_no_other():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `python -m model\.(\w+)`", text, re.MULTILINE)
    assert COMMANDS == sorted(rows)


def test_the_docstring_of_common_lists_every_module_and_no_other():
    text = ast.get_docstring(ast.parse((FOLDER / "common/__init__.py").read_text(encoding="utf-8")))
    first = [re.match(r"((?:``\w+``(?:, )?)+)  ", line) for line in text.splitlines()]
    listed = [name for row in first if row for name in re.findall(r"``(\w+)``", row[1])]
    assert sorted(path.stem for path in FOLDER.glob("common/*.py") if path.stem != "__init__") == sorted(listed)


OWN_FLAGS = {"log", "log_repair", "loop"}  # they know no run of this checkout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_describes_the_command_and_each_of_its_flags(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = importlib.import_module(f"model.{name}")
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert command.__doc__.strip() in text
    flags = text.split("\noptions:\n")[1]
    if name not in OWN_FLAGS:
        assert {"--params", "--data", "--bundle", "--out"} <= set(re.findall(r"--[\w-]+", flags))
    for flag in re.split(r"\n(?=  -)", flags.strip("\n")):
        assert re.search(r"[a-z]{3,} [a-z]", flag), flag  # words after the flag's name
    assert list(tmp_path.iterdir()) == []
