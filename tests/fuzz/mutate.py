"""Mutants that are still JSON, since bytes that are changed blindly seldom get past the parser."""

from __future__ import annotations

import json
import random
from typing import Any

import atheris

_BLIND = 0.3  # the share of mutants that libFuzzer makes itself
_NUMBERS = (0, -1, -0.0, 0.5, 1e308, 5e-324, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """A mutated body: cells changed, and rows repeated, dropped or moved."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    tables = [table for table in body.values() if isinstance(table, dict)] if isinstance(body, dict) else []
    tables = [table for table in tables if table and all(isinstance(column, list) for column in table.values())]
    if not tables or chance.random() < _BLIND:
        return atheris.Mutate(data, max_size)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        table = chance.choice(tables)
        chance.choice((_cell, _cell, _row))(list(table.values()), chance)
    mutant = json.dumps(body).encode()
    return mutant if len(mutant) <= max_size else atheris.Mutate(data, max_size)


def _cell(columns: list[list], chance: random.Random) -> None:
    """One cell becomes another of its kind, or that of another row."""
    column = chance.choice(columns)
    if not column:
        return
    at = chance.randrange(len(column))
    old = column[at]
    column[at] = (
        chance.choice(column)
        if chance.random() < 0.2
        else _text(old, chance)
        if isinstance(old, str)
        else _number(chance)
    )


def _text(old: str, chance: random.Random) -> str:
    """One character is another, more, or gone."""
    at = chance.randrange(len(old) + 1)
    new = chance.choice(("", *"0123456789", *"-+:.TZ ", "\n", "ü", "\x00"))
    return old[:at] + new + old[at + chance.choice((0, 1)) :]


def _number(chance: random.Random) -> Any:
    return chance.choice(
        (None, chance.choice(_NUMBERS), chance.randrange(200), chance.randrange(4), chance.uniform(-9, 9))
    )


def _row(columns: list[list], chance: random.Random) -> None:
    """Repeat or drop one row of the whole table, or swap it with another."""
    rows = min(map(len, columns))
    if not rows:
        return
    at, to, how = chance.randrange(rows), chance.randrange(rows), chance.randrange(3)
    for column in columns:
        if how == 0:
            column.insert(to, column[at])
        elif how == 1:
            del column[at]
        else:
            column[at], column[to] = column[to], column[at]
