"""The page at ``/docs``: examples, and Swagger UI on the OpenAPI document.

Where no script runs, a plain list of the routes stands in its place. Swagger UI is that of the package fastapi-offline,
which has the files as their makers released them.
"""

from __future__ import annotations

import json
import shlex
from html import escape
from importlib.resources import files
from pprint import pformat
from string import Template
from typing import Any

from score.pages.markdown import inline
from score.pages.page import STYLE, TOP, hash_of

_PAGE, _SCRIPT, _MORE_STYLE = (
    files("score.pages").joinpath(name).read_text(encoding="utf-8") for name in ("docs.html", "docs.js", "docs.css")
)
_STYLE = STYLE + _MORE_STYLE
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'self' {hash_of(_STYLE)}; script-src 'self' {hash_of(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_HERE = "http://localhost:8000"  # the script of the page knows the service's own address
_PYTHON = """import json
{first}import urllib.error
import urllib.request

request = {request}
headers = {{"Content-Type": "application/json", "Closed-Loop-Dry-Run": "1"{token}}}
call = urllib.request.Request("{here}/score", json.dumps(request).encode(), headers)
try:
    with urllib.request.urlopen(call, timeout=30) as answer:
        for result in json.load(answer)["results"]:
            print(result["machineID"], result["anomaly"], result["failure"], result["warnings"])
except urllib.error.HTTPError as refused:  # its body says what is wrong, where, and how to fix it
    raise SystemExit(json.load(refused)["detail"])
"""
_JAVASCRIPT = """{first}const request = {request};
const answer = await fetch("{here}/score", {{
  method: "POST",
  headers: {{ "Content-Type": "application/json", "Closed-Loop-Dry-Run": "1"{token} }},
  body: JSON.stringify(request),
}});
const told = await answer.json();
if (!answer.ok) throw new Error(told.detail); // what is wrong, where, and how to fix it
for (const result of told.results) console.log(result.machineID, result.anomaly, result.failure, result.warnings);
"""


def assets() -> dict[str, bytes]:
    """Swagger UI's files by their routes."""
    folder = files("fastapi_offline").joinpath("static")
    return {f"/docs/{name}": folder.joinpath(name).read_bytes() for name in ASSETS}


def page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_details(name, schema) for name, schema in document["components"]["schemas"].items()]
    return Template(_PAGE).substitute(
        title=escape(info["title"]),
        description=inline(info["description"]),
        version=escape(info["version"]),
        model=escape(info["x-model-digest"]),
        openapi=escape(document["openapi"]),
        calls=_calls(document["paths"]["/score"]["post"]),
        plain="".join([*operations, "<h3>Schemas</h3>", *schemas]),
        style=_STYLE,
        top=TOP,
        script=_SCRIPT,
    )


def _calls(operation: dict[str, Any]) -> str:
    """The fleet's own example as a command, in Python and in JavaScript."""
    (request,) = operation["requestBody"]["content"]["application/json"]["schema"]["examples"]
    closed = "security" in operation
    python = _PYTHON.format(
        here=_HERE,
        first="import os\n" if closed else "",
        request=pformat(request, sort_dicts=False, width=100),
        token=', "Authorization": "Bearer " + os.environ["TOKEN"]' if closed else "",
    )
    javascript = _JAVASCRIPT.format(
        here=_HERE,
        first='const token = "yours";\n' if closed else "",
        request=json.dumps(request, ensure_ascii=False),
        token=', Authorization: "Bearer " + token' if closed else "",
    )
    made = {"curl": curl("/score", request, closed=closed), "Python": python, "JavaScript": javascript}
    return "".join(
        f'<details class="call"{" open" * (name == "curl")}><summary>{name}</summary>'
        f'<pre tabindex="0">{escape(code)}</pre></details>'
        for name, code in made.items()
    )


def curl(path: str, body: dict[str, Any], *, closed: bool) -> str:
    """The command that sends a body as a dry run; ``closed`` tells whether it needs a token."""
    token = ' -H "Authorization: Bearer $TOKEN"' if closed else ""
    headers = "-H 'Content-Type: application/json' -H 'Closed-Loop-Dry-Run: 1'"
    return f"curl -s {_HERE}{path}{token} {headers} -d {shlex.quote(json.dumps(body))}"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<h3><code>{method} {escape(path)}</code></h3><p>{inline(operation.get('description', ''))}</p>"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, example in content["examples"].items():
            command = curl(path, example["value"], closed="security" in operation)
            parts.append(f"<p>{escape(name)}</p><pre>{escape(command)}</pre>")
    rows = [
        f"<tr><th>{escape(status)}</th><td>{inline(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    ]
    parts.append(f"<table>{''.join(rows)}</table>")
    return "".join(parts)


def _details(name: str, schema: dict[str, Any]) -> str:
    text = json.dumps(schema, indent=1, ensure_ascii=False)
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
