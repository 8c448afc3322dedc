"""A model card's Markdown as HTML: only the syntax that ``closedloop.report.card`` writes. All text is escaped."""

from __future__ import annotations

import re
from html import escape
from itertools import groupby

_HEADING = re.compile(r"(#{1,4}) (.*)")


def html(markdown: str) -> str:
    """The HTML of headings (two levels lower), paragraphs, lists, tables, fenced code, `code` and **bold**."""
    prose, *rest = re.split(r"^```.*$", markdown, flags=re.MULTILINE)
    parts = [_blocks(prose)]
    for i, part in enumerate(rest):
        parts.append(_blocks(part) if i % 2 else f"<pre>{escape(part.strip())}</pre>")
    return "".join(parts)


def _blocks(text: str) -> str:
    return "".join(_block(list(lines)) for filled, lines in groupby(text.splitlines(), bool) if filled)


def _block(lines: list[str]) -> str:
    if heading := _HEADING.fullmatch(lines[0]):
        level = min(len(heading[1]) + 2, 6)
        rest = _block(lines[1:]) if len(lines) > 1 else ""
        return f"<h{level}>{inline(heading[2])}</h{level}>{rest}"
    if all(line.startswith("- ") for line in lines):
        return f"<ul>{''.join(f'<li>{inline(line[2:])}</li>' for line in lines)}</ul>"
    if len(lines) > 1 and all(line.startswith("|") for line in lines):
        head, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        kinds = [' class="number"' if cell.endswith(":") and not cell.startswith(":") else "" for cell in rule]
        titles = f"<thead><tr>{_cells('th', head, kinds)}</tr></thead>" if any(head) else ""
        body = "".join(f"<tr>{_cells('td', row, kinds)}</tr>" for row in rows)
        return f'<div class="scroll"><table>{titles}<tbody>{body}</tbody></table></div>'
    return f"<p>{inline(' '.join(lines))}</p>"


def _cells(tag: str, cells: list[str], kinds: list[str]) -> str:
    return "".join(f"<{tag}{kind}>{inline(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=False))


def inline(text: str) -> str:
    """The HTML of one line with `code` and **bold**."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
