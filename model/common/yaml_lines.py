"""Read YAML with the line number of each key, so that an error can name it, and find keys that are written twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

Where = tuple[str | int, ...]  # the keys and list positions that lead to a value: ("judge", "costs", "planned")

DEEPEST = 20  # levels; deeper nesting is a slip, or an attempt to exhaust the reader
FIXES = {  # a part of PyYAML's message: what to do
    "'\\t'": "indent with spaces, not with a tab",
    "could not find expected ':'": "write a colon and a space after the key",
    "mapping values are not allowed here": "put one key on each line, and quotes around a text that has a colon",
    "expected <block end>": "indent it as the line above, and put quotes around a text with quotes in it",
    "expected ',' or ']'": "close the list with ]",
    "expected ',' or '}'": "close the mapping with }",
    "did not find expected": "close the bracket or the quote that was opened above",
    "while scanning a quoted scalar": "close the quote",
    "expected a single document": "remove the dashes",
    "undefined alias": "put quotes around a text that begins with *",
    "found duplicate anchor": "put quotes around a text that begins with &",
}


class NotYamlError(ValueError):
    """The text is not the YAML of a parameter file. ``line`` counts from 1."""

    def __init__(self, line: int, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.line, self.problem, self.fix = line, problem, fix


@dataclass
class Located:
    """The content of a YAML file; the line of each key and list item; each repeated key with both its lines."""

    value: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    twice: list[tuple[Where, int, int]] = field(default_factory=list)
    last: int = 1


def read(text: str) -> Located:
    """Read YAML with its lines. Of a key that is written twice, the last value counts, as in PyYAML.

    Raises:
        NotYamlError: the text cannot be read.
    """
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        found = Located(last=max(1, len(text.splitlines())))
        if node is not None:
            _walk(node, (), found)
            found.value = loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYamlError(line, "has a character that YAML does not allow", "remove it") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        fix = next((fix for part, fix in FIXES.items() if part in said), "correct it, or what is above it")
        raise NotYamlError(mark.line + 1 if mark else 1, f"cannot be read as YAML: {said}", fix) from None
    except RecursionError:
        raise NotYamlError(1, "is nested too deep", "close the brackets that were opened") from None
    except (ValueError, TypeError, OverflowError) as error:  # a date such as 2026-13-01, a mapping as a key
        if isinstance(error, NotYamlError):
            raise
        line = loader.line + 1 if loader else 1
        raise NotYamlError(line, f"has a value that cannot be read: {error}", "put quotes around it") from None
    return found


def _walk(node: yaml.Node, where: Where, found: Located) -> None:
    """Note the lines of everything below a node."""
    if len(where) > DEEPEST:
        raise NotYamlError(node.start_mark.line + 1, "is nested too deep", "close the brackets that were opened")
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            name, line = (*where, _name(key)), key.start_mark.line + 1
            if name in found.lines:
                found.twice.append((name, line, found.lines[name]))
            found.lines[name] = line
            _walk(child, name, found)
    elif isinstance(node, yaml.SequenceNode):
        for n, child in enumerate(node.value):
            found.lines[*where, n] = child.start_mark.line + 1
            _walk(child, (*where, n), found)


def _name(key: yaml.Node) -> str:
    """Return a key as it is written."""
    return str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
