"""GitHub's expressions, as far as our workflows use them: literals, contexts, operators and a few functions.

The rules are those of GitHub's documentation: comparison ignores the case of text, operands of different kinds are
compared as numbers, && and || give one of their operands. What this does not know is an error, never a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(&&|\|\||==|!=|[!().,\[\]])|(-?\d+(?:\.\d+)?)|([A-Za-z_][\w-]*))")


def truth(value: Any) -> bool:
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    try:
        return float(value) if isinstance(value, bool | int | float | str) else math.nan
    except ValueError:
        return math.nan


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if type(left) is type(right):
        return bool(left == right)
    return number(left) == number(right)


def text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Expression:
    """One expression, evaluated once: ``Expression(source, contexts, functions).value``."""

    def __init__(self, source: str, contexts: dict[str, Any], functions: dict[str, Callable[..., Any]]) -> None:
        self.contexts, self.functions, self.at = contexts, functions, 0
        self.tokens: list[tuple[str, str]] = []
        place, source = 0, source.strip()
        while place < len(source):
            found = TOKEN.match(source, place)
            assert found, f"not understood: {source[place:]!r}"
            kind = ("text", "sign", "number", "name")[(found.lastindex or 1) - 1]
            self.tokens.append((kind, found[found.lastindex or 1]))
            place = found.end()
        self.value = self.either()
        assert self.at == len(self.tokens), f"left over: {self.tokens[self.at :]}"

    def take(self, *signs: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at][1] in signs and self.tokens[self.at][0] == "sign":
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def either(self) -> Any:
        value = self.both()
        while self.take("||"):
            other = self.both()
            value = value if truth(value) else other
        return value

    def both(self) -> Any:
        value = self.compared()
        while self.take("&&"):
            other = self.compared()
            value = other if truth(value) else value
        return value

    def compared(self) -> Any:
        value = self.one()
        while sign := self.take("==", "!="):
            value = equal(value, self.one()) == (sign == "==")
        return value

    def one(self) -> Any:
        if self.take("!"):
            return not truth(self.one())
        if self.take("("):
            value = self.either()
            assert self.take(")")
            return value
        kind, word = self.tokens[self.at]
        self.at += 1
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            return float(word)
        assert kind == "name", word
        if self.take("("):
            return self.called(word)
        constants = {"true": True, "false": False, "null": None}
        value = constants[word] if word in constants else self.contexts[word]
        while self.take("."):
            key = self.tokens[self.at][1]
            self.at += 1
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def called(self, name: str) -> Any:
        values = []
        while not self.take(")"):
            values.append(self.either())
            self.take(",")
        known: dict[str, Callable[..., Any]] = {
            "contains": lambda where, what: (
                any(equal(one, what) for one in where)
                if isinstance(where, list)
                else text(what).lower() in text(where).lower()
            ),
            "fromJSON": json.loads,
            "toJSON": json.dumps,
        } | self.functions
        return known[name](*values)


def evaluate(source: Any, contexts: dict[str, Any], functions: dict[str, Callable[..., Any]] | None = None) -> Any:
    """The value of one ``${{ }}``; or of a text with several of them, which is a text."""
    source = str(source).strip()
    whole = re.fullmatch(r"\$\{\{((?:(?!\}\}).)*)\}\}", source, re.DOTALL)
    if whole:
        return Expression(whole[1], contexts, functions or {}).value

    def piece(found: re.Match[str]) -> str:
        return text(Expression(found[1], contexts, functions or {}).value)

    return re.sub(r"\$\{\{(.*?)\}\}", piece, source, flags=re.DOTALL)
