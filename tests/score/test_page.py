"""The page at / in a real browser: it shows live figures, sends a request, and loads nothing from other hosts."""

import json
import re
from pathlib import Path

import httpx
import pytest

from score.pages import markdown, page


def text(shown, name):
    return shown.ask(f"document.getElementById('{name}').textContent")


def test_it_sends_the_example_and_shows_the_answer_and_that_it_was_not_logged(serve, look):
    shown = look(serve().url)
    shown.wait("document.getElementById('status').textContent === 'Ready'")
    assert text(shown, "stored") == "0"
    shown.ask("document.getElementById('send').click()")
    shown.wait("document.getElementById('machines_scored').textContent === '1'")
    assert text(shown, "stored") == "0"
    assert re.fullmatch(r"Answered in \d+ ms, and not logged\.", text(shown, "outcome"))
    assert shown.ask("document.querySelectorAll('#scores tbody tr').length") == 5  # the anomaly and four components
    assert "of its history" in text(shown, "warnings")  # what to do, and how much is known
    assert shown.ask("document.querySelectorAll('#recent tbody tr').length") == 0
    assert json.loads(text(shown, "raw"))["results"][0]["machineID"] == 1
    assert shown.problems == []


def test_it_shows_what_was_wrong_as_text_whatever_was_sent(serve, look):
    shown = look(serve().url)
    shown.ask("document.getElementById('body').value = '{\"<img src=x onerror=alert(1)>\": 1}'")
    shown.ask("document.getElementById('send').click()")
    shown.wait("document.getElementById('outcome').textContent.startsWith('422')")
    assert "<img" in text(shown, "outcome")
    assert shown.ask("document.images.length") == 0


def test_where_tokens_are_asked_for_it_asks_for_one_and_shows_no_scores_without(serve, look, tokens):
    path, token = tokens
    url = serve(tokens_file=path).url
    shown = look(url)
    shown.wait("document.getElementById('status').textContent === 'Ready'")
    assert "Enter a token" in text(shown, "nothing")
    shown.ask("document.getElementById('send').click()")
    shown.wait("document.getElementById('outcome').textContent.startsWith('401')")
    shown.ask(f"document.getElementById('token').value = '{token}'")
    shown.ask("document.getElementById('send').click()")
    shown.wait("document.getElementById('outcome').textContent.startsWith('Answered')")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = (Path(__file__).parents[1] / "golden" / "request.json").read_bytes()
    assert httpx.post(f"{url}/score", content=request, headers=headers).status_code == 200
    shown.wait("document.querySelectorAll('#recent tbody tr').length === 1")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_its_text_can_be_read(server, look, dark):
    shown = look(server.url, width=360, height=740, dark=dark)
    assert shown.ask("document.documentElement.scrollWidth") <= 360
    margins = "[...document.body.children].map((part) => parseFloat(getComputedStyle(part).paddingLeft))"
    assert min(shown.ask(margins)[1:4]) >= 16  # header, main and footer; the first is the hidden skip link
    colours = shown.ask("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    light, darker = sorted((luminance(colour) for colour in colours), reverse=True)
    assert (light + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    assert (luminance(colours[0]) > luminance(colours[1])) is dark
    unnamed = "[...document.querySelectorAll('input, textarea')].filter((field) => !field.labels.length).length"
    assert shown.ask(unnamed) == 0


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_needs_nothing_from_elsewhere_and_runs_no_script_but_its_own(server):
    answer = httpx.get(server.url)
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"", answer.text)
    assert {link for link in links if not link.startswith(("#", "data:"))} == {
        "docs", "openapi.json", "metrics", "version"
    }  # fmt: skip
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.text.count("<script") == 1


def test_a_card_is_text_and_never_markup_of_its_own():
    text = "# A <b>\n\n| a | b |\n| :-- | --: |\n| `x<y` | **1** |\n\n- one\n- two\n\n```python\n# <c>\n```\nend"
    shown = markdown.html(text)
    assert "<h3>A &lt;b&gt;</h3>" in shown
    assert '<td><code>x&lt;y</code></td><td class="number"><strong>1</strong></td>' in shown
    assert "<ul><li>one</li><li>two</li></ul>" in shown
    assert "<pre># &lt;c&gt;</pre><p>end</p>" in shown


def test_digests_are_short_and_whole_ones_can_be_read_off():
    digest = "sha256:" + "ab" * 32
    assert page._digest(digest) == f'<code title="{digest}">sha256:abababababab…</code>'
    assert page._digest(None) == "unknown"
