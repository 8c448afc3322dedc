"""The page at ``/``: the model and its card, live figures, the last scores, and a form to try a request."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from score.answer import Scorer
from score.pages import markdown

STYLE, TOP, _SCRIPT, _PAGE = (
    files("score.pages").joinpath(name).read_text(encoding="utf-8")
    for name in ("page.css", "top.html", "page.js", "page.html")
)
_CREDENTIALS = """<label for="token">Token</label>
<input id="token" type="password" autocomplete="off" spellcheck="false" aria-describedby="token-hint">
<p class="hint" id="token-hint">With the scope “score”. It is not stored.</p>"""


def hash_of(text: str) -> str:
    """The source of a content security policy that allows an inline script or style."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {hash_of(STYLE)}; script-src {hash_of(_SCRIPT)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def page(scorer: Scorer, served: dict[str, str | None], *, closed: bool) -> str:
    """The HTML of a bundle's page; ``closed`` tells whether tokens are required."""
    return Template(_PAGE).substitute(
        fleets=escape(" and ".join(scorer.manifest.training.machines) or "no fleet"),
        hours=f"{scorer.manifest.history_hours:g}",
        style=STYLE,
        top=TOP,
        script=_SCRIPT,
        token=_CREDENTIALS if closed else "",
        example=escape(columns(scorer.example)),
        facts=_facts(scorer, served),
        thresholds=_thresholds(scorer),
        card=markdown.html(scorer.bundle.card),
    )


def columns(example: dict[str, Any]) -> str:
    """The example request as JSON, with one column on each line."""
    tables = []
    for table, columns in example.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(column)}" for name, column in columns.items())
        tables.append(f"{json.dumps(table)}: {{\n{lines}\n}}")
    return "{" + ",\n ".join(tables) + "}"


def _facts(scorer: Scorer, served: dict[str, str | None]) -> str:
    training = scorer.manifest.training
    machines = sum(len(of_fleet) for of_fleet in training.machines.values())
    first, last = (time[:10] for time in training.period)
    facts = {
        "Trained on": f"{machines} machines, {first} to {last}",
        "Model": _digest(served["model_digest"]),
        "Commit": _digest(served["commit"]),
        "Data": _digest(served["data"]),
        "Image": _digest(served["image"]),
    }
    return "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())


def _thresholds(scorer: Scorer) -> str:
    heads = scorer.manifest.heads
    rows = {"anomaly": "no head" if heads.anomaly is None else f"score {heads.anomaly.threshold:.2f}"}
    for name, head in heads.failure.items():
        rows[name] = "no head" if head is None else f"probability {100 * head.threshold:.1f} %"
    return "".join(f'<tr><td>{escape(name)}</td><td class="number">{text}</td></tr>' for name, text in rows.items())


def _digest(text: str | None) -> str:
    """A digest's first characters; its title is all of it."""
    if not text:
        return "unknown"
    kind, _, rest = text.rpartition(":")
    short = f"{kind}:{rest[:12]}…".lstrip(":") if len(rest) > 14 else text
    return f'<code title="{escape(text, quote=True)}">{escape(short)}</code>'
