"""The page at ``/docs``: the OpenAPI document in plain HTML, which loads nothing from other hosts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from score.pages.markdown import inline

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
pre{background:#f4f4f4;padding:1rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}h2 code{font-size:1.1rem}
td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"""


HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


def page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    sections = [
        _operation(method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(info["title"])}</title><style>{_STYLE}</style></head>
<body><h1>{escape(info["title"])}</h1><p>{escape(info["description"])}</p>
<p>For machines: <a href="openapi.json">openapi.json</a> (OpenAPI {escape(document["openapi"])}).</p>
{"".join(sections)}</body></html>
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        parts.append("<h3>Try it</h3><p>These are dry runs: leave that header out to have the request logged.</p>")
        for name, example in content["examples"].items():
            token = ' -H "Authorization: Bearer $TOKEN"' if "security" in operation else ""
            sent = json.dumps(example["value"])
            headers = "-H 'Content-Type: application/json' -H 'Closed-Loop-Dry-Run: 1'"
            curl = f"curl -s localhost:8000{path}{token} {headers} -d '{sent}'"
            parts.append(f"<p>{escape(name)}</p><pre>{escape(curl)}</pre>")
        parts.append(_schema("Request", content["schema"]))
    rows = []
    for status, response in operation["responses"].items():
        rows.append(f"<tr><th>{escape(status)}</th><td>{inline(response['description'])}</td></tr>")
    parts.append(f"<h3>Answers</h3><table>{''.join(rows)}</table>")
    shared: dict[str, list[str]] = {}  # most errors have one schema, which is shown once
    for status, response in operation["responses"].items():
        for part in response.get("content", {}).values():
            if part.get("schema"):
                shared.setdefault(json.dumps(part["schema"], indent=1), []).append(status)
    parts += [_details(f"Answer {', '.join(statuses)}", text) for text, statuses in shared.items()]
    return "".join(parts)


def _schema(title: str, schema: dict[str, Any]) -> str:
    return _details(title, json.dumps(schema, indent=1)) if schema else ""


def _details(title: str, text: str) -> str:
    return f"<details><summary>{title}: JSON Schema and example</summary><pre>{escape(text)}</pre></details>"
