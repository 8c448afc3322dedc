"""The table of faults names tests that are there, and the list of mutations lines and tests that are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path


def test_each_test_that_the_table_of_faults_names_is_there(root: Path) -> None:
    """And each row names one."""
    folder = root / "tests" / "chaos"
    rows = [line for line in (folder / "README.md").read_text().splitlines() if re.match(r"\| [\d.]+ \|", line)]
    named = {line: re.findall(r"`([\w./]+)::(\w+)`", line) for line in rows}
    missing = [
        f"{file}::{name}"
        for tests in named.values()
        for file, name in tests
        if f"\ndef {name}(" not in (folder / file).read_text()
    ]
    assert missing == []
    assert [line for line, tests in named.items() if not tests] == []
    assert [int(row.split()[1]) for row in rows if row.split()[1].isdigit()] == [*range(1, 27), *range(29, 35), 36]


def test_each_mutation_is_of_a_line_that_is_there_once_and_each_of_its_tests_is_there(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("mutations", root / "tests" / "chaos" / "mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = {found.what: (root / found.file).read_text().count(found.old) for found in module.MUTATIONS}
    assert {what: count for what, count in counts.items() if count != 1} == {}
    named = [test.split("::") for found in module.MUTATIONS for test in found.tests]
    assert [name for file, name in named if f"\ndef {name}(" not in (root / file).read_text()] == []
    assert len(counts) == len(module.MUTATIONS) >= 10
