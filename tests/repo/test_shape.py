"""The shape of the code: short modules, short functions, and no two classes of one name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PRODUCT = ("src", "model", "score", ".ci", "docker")
CLASSES_IN = ("src", "model", "score", ".ci")
LINES_OF_A_FUNCTION = 50  # more need a reason: `# long: …` on the line of `def`, or above it
LINES_OF_A_MODULE = 399
REASON = re.compile(r"# long: \S+ \S+")


def modules(root: Path, files: list[Path], folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The name and the text of each Python file in some folders."""
    for path in files:
        name = path.relative_to(root)
        if path.suffix == ".py" and name.parts[0] in folders:
            yield name.as_posix(), path.read_text(encoding="utf-8")


def long_functions(text: str) -> list[tuple[str, int]]:
    """The functions that are longer than one may be and give no reason, each with its length."""
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        above = first - 2
        while above >= 0 and lines[above].lstrip().startswith("#"):
            above -= 1
        head = lines[above + 1 : node.body[0].lineno - 1]  # comments, decorators and the signature
        if length > LINES_OF_A_FUNCTION and not any(REASON.search(line) for line in head):
            found.append((node.name, length))
    return found


def twice(texts: dict[str, str]) -> dict[str, list[str]]:
    """The class names that occur more than once, with the modules that hold them."""
    homes = defaultdict(list)
    for module, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    return {name: found for name, found in homes.items() if len(found) > 1}


BODY = "    x = 1\n" * LINES_OF_A_FUNCTION


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def short():\n    x = 1\n", []),
        (f"def f():\n{BODY}", ["f"]),
        (f"class A:\n    async def f(self):\n{BODY.replace('    ', '        ')}", ["f"]),
        (f"def f():  # long: one table\n{BODY}", []),
        (f"# long: one table\n# of all kinds\n@cached\ndef f():\n{BODY}", []),
        (f"# long: one table\n\ndef f():\n{BODY}", ["f"]),  # it belongs to something else
        (f"def f():\n{BODY}    # long: said in its body\n", ["f"]),
        (f"def f():  # long:\n{BODY}", ["f"]),  # a reason has words
    ],
)
def test_a_long_function_without_a_reason_is_found(text: str, found: list[str]) -> None:
    assert found == [name for name, _ in long_functions(text)]


def test_a_class_name_that_stands_twice_is_found() -> None:
    texts = {"a.py": "class A:\n    class Inner: ...\n", "b.py": "class B: ...\n", "c.py": "class Inner: ...\n"}
    assert twice(texts) == {"Inner": ["a.py", "c.py"]}


def test_no_function_is_long_without_a_reason(root: Path, files: list[Path]) -> None:
    found = [
        f"{module}: {name}: {length} lines"
        for module, text in modules(root, files, PRODUCT)
        for name, length in long_functions(text)
    ]
    assert not found, "split them, or say why not (# long: …):\n" + "\n".join(found)


def test_every_module_can_be_read_in_one_sitting(root: Path, files: list[Path]) -> None:
    lengths = {module: len(text.splitlines()) for module, text in modules(root, files, PRODUCT)}
    found = [f"{module}: {length} lines" for module, length in lengths.items() if length > LINES_OF_A_MODULE]
    assert not found, "split them:\n" + "\n".join(found)


def test_no_class_name_stands_twice(root: Path, files: list[Path]) -> None:
    found = [f"{name}: {', '.join(homes)}" for name, homes in twice(dict(modules(root, files, CLASSES_IN))).items()]
    assert not found, "rename one of each:\n" + "\n".join(found)
