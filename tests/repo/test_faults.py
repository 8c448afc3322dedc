"""The table of faults names tests that are there."""

from __future__ import annotations

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
